"""How well objects are followed: the measures, and what they say of a busy scene."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import motmetrics as mm
import numpy as np
import pytest
from PIL import Image

from sam_detect.errors import ImageError
from sam_detect.types import Masks, TrackedFrame
from sam_detect.types.masks import crop_to_rle
from sam_detect.types.overlaps import ious
from scripts.dev.video_quality import Outlined, measure, shown_at, video_quality
from tests.video_scenes import Scene, Thing, along, busy_scene, followed

ROOT = Path(__file__).resolve().parents[2]
SIZE = (20, 40)


def _box(x: int, width: int = 10) -> np.ndarray:
    mask = np.zeros(SIZE, np.bool_)
    mask[5:15, x : x + width] = True
    return mask


def _frame(*objects: tuple[int, str | None, np.ndarray]) -> Outlined:
    masks = Masks.concatenate([Masks.empty(SIZE), *(Masks.from_dense(m) for _, _, m in objects)])
    return Outlined(masks, tuple(i for i, _, _ in objects), tuple(n for _, n, _ in objects))


def test_a_track_that_stays_is_perfect_and_the_first_frame_does_not_count() -> None:
    outlined = [_frame((1, "nut", _box(x))) for x in (0, 2, 4)]
    tracked = [_frame((7, "nut", _box(x))) for x in (0, 2, 4)]
    found = video_quality(tracked, outlined)
    assert (found.j, found.continuity, found.switches, found.false_tracks) == (1, 1, 0, 0)
    assert found.objects[0].frames == 2


def test_a_frame_without_the_object_is_nothing_and_another_track_a_switch() -> None:
    outlined = [_frame((1, "nut", _box(0)))] * 5
    mine, other = _frame((7, "nut", _box(0))), _frame((8, "nut", _box(0)))
    found = video_quality([mine, mine, _frame(), other, other], outlined)
    assert found.j == found.f == pytest.approx(3 / 4)
    assert found.continuity == pytest.approx(1 / 4)
    assert found.switches == 1


def test_half_of_the_object_is_half_of_j() -> None:
    outlined = [_frame((1, "nut", _box(0)))] * 2
    found = video_quality([_frame((7, "nut", _box(0))), _frame((7, "nut", _box(0, 5)))],
                          outlined)  # fmt: skip
    assert found.j == pytest.approx(0.5)


def test_the_edge_counts_for_itself() -> None:
    outlined = [_frame((1, "nut", _box(0)))] * 2
    found = video_quality([outlined[0], _frame((7, "nut", _box(0, 9)))], outlined)
    assert (found.j, found.f) == (pytest.approx(0.9), 1), "the edge is one pixel off"


def test_another_name_is_nothing_and_false() -> None:
    outlined = [_frame((1, "nut", _box(0)))] * 2
    found = video_quality([_frame((7, "nut", _box(0))), _frame((7, "date", _box(0)))], outlined)
    assert (found.j, found.continuity) == (0, 0)
    assert (found.false_per_frame, found.false_tracks) == (0.5, 1)


def test_named_objects_that_are_none_are_false_and_unknown_ones_are_not() -> None:
    outlined = [_frame((1, "nut", _box(0)))] * 2
    own = (7, "nut", _box(0))
    tracked = [_frame(own, (8, "nut", _box(20)), (9, None, _box(28))), _frame(own)]
    found = video_quality(tracked, outlined)
    assert (found.false_per_frame, found.false_tracks) == (0.5, 1)


def test_a_second_object_on_the_same_one_is_false_however_well_it_fits() -> None:
    outlined = [_frame((1, "nut", _box(0)))] * 2
    tracked = [_frame((7, "nut", _box(0)), (8, "nut", _box(0, 8)))] * 2
    found = video_quality(tracked, outlined)
    assert (found.j, found.false_per_frame, found.false_tracks) == (1, 1, 1)


def test_an_object_that_comes_later_is_judged_from_there() -> None:
    outlined = [_frame(), _frame((3, "nut", _box(0))), _frame((3, "nut", _box(0)))]
    found = video_quality([_frame(), _frame(), _frame((7, "nut", _box(0)))], outlined)
    assert (found.objects[0].frames, found.j, found.continuity) == (1, 1, 1)


def test_as_many_frames_as_outlines_are_needed() -> None:
    with pytest.raises(ImageError, match="1 frames were followed, 2 are outlined"):
        video_quality([_frame()], [_frame(), _frame()])


def test_of_a_dropped_frame_the_one_before_is_what_was_shown() -> None:
    found = {
        "track_id": 4,
        "label": "nut",
        "segmentation": crop_to_rle(_box(8), (0, 0, 40, 20), SIZE),
    }
    lines = [{"frame": 1, "detections": []}, {"frame": 3, "detections": [found]}]
    shown = shown_at([json.dumps(line) for line in lines], [SIZE] * 5)
    assert [each.ids for each in shown] == [(), (), (), (4,), (4,)]
    assert np.array_equal(shown[4].masks.dense(0), _box(8))


# -- a busy scene --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def busy() -> tuple[list[TrackedFrame], list[Outlined]]:
    scene = busy_scene()
    return followed(scene, every=10), [scene.outlined(i) for i in range(scene.count)]


def _mot(tracked: Sequence[TrackedFrame], outlined: Sequence[Outlined]) -> dict[str, float]:
    """MOTA and IDF1 by motmetrics, at mask IoU of one half."""
    seen = mm.MOTAccumulator(auto_id=True)
    for frame, truth in zip(tracked, outlined, strict=True):
        distances = 1 - ious(truth.masks, frame.detections.masks)
        distances[distances > 0.5] = np.nan
        seen.update(list(truth.ids), frame.track_ids.tolist(), distances)
    table = mm.metrics.create().compute(seen, metrics=["mota", "idf1", "num_switches"])
    return {name: float(table[name].iloc[0]) for name in table}


def test_objects_that_cross_hide_leave_and_enter_keep_their_ids(
    busy: tuple[list[TrackedFrame], list[Outlined]],
) -> None:
    found = _mot(*busy)
    assert found["mota"] > 0.8, found
    assert found["idf1"] > 0.85, found
    assert found["num_switches"] <= 2, found


def test_objects_of_a_busy_scene_keep_their_names(
    busy: tuple[list[TrackedFrame], list[Outlined]],
) -> None:
    tracked, outlined = busy
    found = video_quality([Outlined.of_tracked(each) for each in tracked], outlined)
    assert found.continuity > 0.9
    assert found.j > 0.75
    assert found.false_per_frame < 0.3


# -- folders of frames ---------------------------------------------------------------------------


def _write(scene: Scene, folder: Path) -> Path:
    """The scene as a folder with ``annotations.json``."""
    (folder / "frames").mkdir(parents=True)
    images, annotations = [], []
    for index in range(scene.count):
        name = f"{index:05d}.png"
        Image.fromarray(scene.frame(index).image_rgb).save(folder / "frames" / name)
        images.append({"id": index, "file_name": name})
        outlined = scene.outlined(index)
        for place, (track, label) in enumerate(zip(outlined.ids, outlined.labels, strict=True)):
            annotations.append(
                {"id": len(annotations) + 1, "image_id": index, "track_id": track,
                 "category_id": list(COLOUR_NAMES).index(label),
                 "segmentation": outlined.masks.rle(place)}
            )  # fmt: skip
    categories = [{"id": i, "name": name} for i, name in enumerate(COLOUR_NAMES)]
    data = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(data))
    return folder


COLOUR_NAMES = ("cherry", "plum", "leaf")


def _small_scene() -> Scene:
    return Scene([Thing("cherry", along(20, 40, 2, 0)), Thing("leaf", along(80, 40, 0, 1))], 9,
                 size_hw=(90, 120))  # fmt: skip


def test_a_folder_of_frames_is_measured_with_the_commands_that_users_type(tmp_path: Path) -> None:
    folder = _write(_small_scene(), tmp_path / "video")
    script = [sys.executable, "-m", "scripts.dev.video_quality", str(folder), str(folder)]
    done = subprocess.run(
        [*script, "--json", "--embedder", "appearance", "--video", "--every", "4"],
        capture_output=True, text=True, check=True, timeout=120,
    )  # fmt: skip
    first, second, mean = (json.loads(line) for line in done.stdout.splitlines())
    assert first["video"] == str(folder)
    assert [each["label"] for each in first["objects"]] == ["cherry", "leaf"]
    assert min(first["j"], first["f"]) > 0.9
    assert first["continuity"] == 1
    assert first["seconds_per_frame"] > 0
    assert mean["video"] == "mean"
    assert mean["f"] == pytest.approx((first["f"] + second["f"]) / 2)


@pytest.mark.parametrize(
    ("folder", "options", "said"),
    [("none", [], "none"), ("video", ["--video", "--every", "0"], "sam-detect video failed")],
)
def test_what_fails_is_said_in_a_line(
    tmp_path: Path, folder: str, options: list[str], said: str
) -> None:
    _write(_small_scene(), tmp_path / "video")
    script = [sys.executable, "-m", "scripts.dev.video_quality", str(tmp_path / folder)]
    done = subprocess.run(
        [*script, *options], capture_output=True, text=True, check=False, timeout=60
    )
    assert done.returncode == 1
    assert done.stderr.startswith("error: ")
    assert said in done.stderr


@pytest.mark.parametrize(
    ("name", "least_j"),
    [
        ("davis_blackswan", 0.93),
        ("davis_camel", 0.91),
        ("davis_car-shadow", 0.9),
        ("davis_dog", 0.9),
        ("davis_drift-straight", 0.87),
        ("davis_horsejump-high", 0.83),
        ("davis_parkour", 0.88),
    ],
)
@pytest.mark.slow
def test_objects_of_davis_are_followed(test_data_dir: Path, name: str, least_j: float) -> None:
    found = measure(test_data_dir / name)
    assert found.j > least_j
    assert found.continuity == 1
    assert found.switches == 0
