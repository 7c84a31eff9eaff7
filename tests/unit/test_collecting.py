"""Unknown objects are collected: one picture of each kind."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam_detect.api import SAMDetect
from sam_detect.errors import OutputError
from sam_detect.io.coco import read_coco
from sam_detect.io.snapshots import ObjectSnapshot, SnapshotFolder
from sam_detect.types import Classification, Detections, Frame, Masks, TrackedFrame
from sam_detect.video.collecting import SETTLED, UnknownCollector

RED, GREEN, BLUE, GREY = (200, 30, 30), (30, 180, 40), (30, 40, 200), (228, 226, 220)
COLORS = (RED, GREEN, BLUE)
RADIUS = 12

Colors = Sequence[tuple[int, int, int]]


def scene(index: int, colors: Colors, label: str | None = None) -> TrackedFrame:
    """Discs of these colours, one a track, which move down a little."""
    image = np.full((120, 50 * len(colors), 3), GREY, np.uint8)
    masks = []
    for number, color in enumerate(colors):
        mask = np.zeros(image.shape[:2], np.uint8)
        cv2.circle(mask, (25 + 50 * number, 40 + index), RADIUS, 1, -1)
        image[mask > 0] = color
        masks.append(mask.astype(bool))
    classifications = (Classification(label, label, 0.4),) * len(colors)
    found = Detections("clip", Masks.from_dense(np.array(masks)), classifications)
    frame = Frame(image, "clip", index, time_s=index / 25)
    return TrackedFrame(frame, found, np.arange(1, len(colors) + 1))


def detector() -> SAMDetect:
    return SAMDetect(segmenter="naive", embedder="average")


def collect(folder: Path, colors: Colors, frames: int = SETTLED + 1, **how: int) -> list[str]:
    """The names of the kinds in the folder after a video of these discs."""
    collector = UnknownCollector(detector().pipeline, folder, **how)
    for index in range(frames):
        collector.write(scene(index, colors))
    collector.close()
    file = folder / "annotations.json"
    if not file.exists():
        return []
    return [each["name"] for each in json.loads(file.read_text())["categories"]]


def rename(folder: Path, names: dict[str, str]) -> Path:
    """Gives kinds their names, as people do, in the annotations; returns the file."""
    file = folder / "annotations.json"
    data = json.loads(file.read_text())
    for each in data["categories"]:
        each["name"] = names.get(each["name"], each["name"])
    file.write_text(json.dumps(data))
    return file


def test_one_picture_of_each_kind(tmp_path: Path) -> None:
    assert collect(tmp_path, [RED, GREEN, RED, RED, GREEN]) == ["unknown-1", "unknown-2"]
    assert len(list(tmp_path.glob("*.png"))) == 2


def test_another_session_adds_only_what_is_new(tmp_path: Path) -> None:
    collect(tmp_path, [RED, GREEN])
    assert collect(tmp_path, [GREEN, BLUE, RED]) == ["unknown-1", "unknown-2", "unknown-3"]
    assert collect(tmp_path, [RED, GREEN, BLUE]) == ["unknown-1", "unknown-2", "unknown-3"]


def test_what_was_renamed_or_taken_away_meanwhile(tmp_path: Path) -> None:
    collect(tmp_path, [RED, GREEN])
    rename(tmp_path, {"unknown-1": "cherry"})
    (tmp_path / "unknown-2-2-0.png").unlink()
    names = collect(tmp_path, [RED, GREEN])
    assert names == ["cherry", "unknown-2", "unknown-3"]


def test_what_has_a_name_is_not_collected(tmp_path: Path) -> None:
    collector = UnknownCollector(detector().pipeline, tmp_path)
    for index in range(SETTLED + 1):
        collector.write(scene(index, [RED], label="cherry" if index == SETTLED - 1 else None))
    assert collector.close() == []
    assert list(tmp_path.iterdir()) == []


def test_an_object_that_is_visible_for_a_moment_is_not_collected(tmp_path: Path) -> None:
    assert collect(tmp_path, [RED], frames=SETTLED - 1) == []


def test_there_is_an_end_to_collecting(tmp_path: Path) -> None:
    assert collect(tmp_path, COLORS, most=2) == ["unknown-1", "unknown-2"]


def test_the_pictures_teach_their_objects_once_they_are_named(tmp_path: Path) -> None:
    collect(tmp_path, [RED, GREEN])
    file = rename(tmp_path, {"unknown-1": "cherry", "unknown-2": "lime"})
    images, problems = read_coco(file, [str(path) for path in tmp_path.glob("*.png")])
    assert not problems
    learner = detector()
    for image in images:
        cut = learner.read(image.path)
        masks = Masks.from_dense(
            np.array([outline.mask(cut.size_hw) for outline in image.outlines])
        )
        learner.learn_frame(cut, masks, [outline.label for outline in image.outlines])
    found = learner.detect(scene(30, [GREEN, RED]).frame)
    assert sorted(found.known.label) == ["cherry", "lime"]


def test_nothing_is_taken_after_the_end(tmp_path: Path) -> None:
    collector = UnknownCollector(detector().pipeline, tmp_path)
    collector.close()
    assert collector.close() == []
    with pytest.raises(OutputError, match="closed"):
        collector.write(scene(0, [RED]))


@pytest.mark.parametrize("part", ["categories", "images"])
def test_an_entry_removed_from_one_list_does_not_count(tmp_path: Path, part: str) -> None:
    folder = tmp_path / "kinds"
    assert len(collect(folder, COLORS)) == 3
    file = folder / "annotations.json"
    data = json.loads(file.read_text())
    del data[part][0]
    file.write_text(json.dumps(data))
    collect(folder, COLORS)
    data = json.loads(file.read_text())
    assert len(data["annotations"]) == 3, "removed kinds are collected again"
    for list_of, name in (("categories", "category_id"), ("images", "image_id")):
        known = {each["id"] for each in data[list_of]}
        assert {each[name] for each in data["annotations"]} <= known


def test_a_long_name_becomes_a_short_file_name(tmp_path: Path) -> None:
    folder = SnapshotFolder(tmp_path)
    seen = scene(0, (RED,))
    frame = replace(seen.frame, index=10**15)
    view = ObjectSnapshot(
        10**15, frame, seen.detections.masks, Classification(None, None, 0.0), False
    )
    path = folder.add(view, "\U0001f600" * 60)
    assert path.is_file()
