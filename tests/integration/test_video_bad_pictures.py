"""Files that are hard to follow: cuts, fades, flicker, jumps, huge, tiny and many objects."""

from __future__ import annotations

import resource
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from video_files import write_video
from video_scenes import Scene, Thing, along, detector_that_knows

from sam_detect.types import ImageRGB, TrackedFrame

SIZE_HW = (144, 208)
RADIUS = 25.0
"""Large enough for features."""
BOTH = pytest.mark.parametrize("propagate", ["flow", "auto"])


class Grained(Scene):
    """A scene whose wall has strong spots, so that another part of it is another picture."""

    def _wall(self, left: float, top: float) -> ImageRGB:
        spots = super()._wall(left, top).astype(np.float32) - self.wall_rgb
        return np.clip(np.array((150, 145, 140)) + 4 * spots, 0, 255).astype(np.uint8)


def scene_of(
    *things: Thing, count: int, light: Callable[[int], float] = lambda _: 1.0, seed: int = 0
) -> Scene:
    return Grained(things, count, size_hw=SIZE_HW, light=light, seed=seed)


def write(path: Path, *parts: Scene) -> Path:
    """A file with one scene after the other, each from where the one before ends."""
    starts = [0, *(part.count for part in parts)]
    frames = [
        part.frame(index).image_rgb
        for start, part in zip(starts, parts, strict=False)
        for index in range(start, part.count)
    ]
    return write_video(path, frames, options={"preset": "ultrafast", "crf": "8"})


def followed(scene: Scene, path: Path, **options: object) -> list[TrackedFrame]:
    """The frames of a file, once the objects of the scene's first frame are learnt."""
    with detector_that_knows(scene).stream(path, **options) as stream:  # type: ignore[arg-type]
        return list(stream)


def ids(tracked: TrackedFrame) -> set[int]:
    return set(tracked.track_ids.tolist())


def fits(tracked: TrackedFrame, scene: Scene) -> list[float]:
    """IoU of each shown object with the thing of the scene that it fits best."""
    truth = scene.outlined(tracked.frame.index, least=1).masks
    things = [truth.dense(i) for i in range(len(truth))]
    shown = [tracked.detections.masks.dense(i) for i in range(len(tracked.detections))]
    return [
        max((float((one & two).sum() / (one | two).sum()) for two in things), default=0.0)
        for one in shown
    ]


def cherry(dx: float = 0.8, radius: float = RADIUS) -> Thing:
    return Thing("cherry", along(60, 70, dx, 0.2), radius)


@BOTH
def test_after_a_cut_there_are_no_stale_tracks(tmp_path: Path, propagate: str) -> None:
    before = scene_of(cherry(), count=14)
    after = scene_of(Thing("cherry", along(150, 70, 0, 0), RADIUS), count=30, seed=9)
    tracked = followed(before, write(tmp_path / "cut.mp4", before, after), propagate=propagate)
    assert all(ids(each) == {1} for each in tracked[:14])
    assert tracked[14].key
    for each in tracked[14:]:
        assert 1 not in ids(each)
        assert min(fits(each, after), default=1) > 0.8
    assert ids(tracked[-1])


def fading(index: int) -> float:
    """Dark from frame 14 to 24, and less and less so in the eight frames around that."""
    return float(np.clip(max((14 - index) / 8, (index - 24) / 8), 0, 1))


@BOTH
@pytest.mark.parametrize("light", [fading, lambda i: float(not 12 <= i < 22)])
def test_an_object_is_back_after_a_fade_to_black(
    tmp_path: Path, propagate: str, light: Callable[[int], float]
) -> None:
    scene = scene_of(cherry(0.1), count=40, light=light)
    tracked = followed(scene, write(tmp_path / "fade.mp4", scene), propagate=propagate)
    for each in tracked:
        lit = light(each.frame.index)
        assert ids(each) == ({1} if lit else set()), each.frame.index
        assert min(fits(each, scene), default=1) > 0.85
        assert lit or not each.key, "nothing is to be seen"


@BOTH
def test_after_a_fade_to_another_scene_there_are_no_stale_tracks(
    tmp_path: Path, propagate: str
) -> None:
    before = scene_of(cherry(0.1), count=19, light=fading)
    after = scene_of(count=40, light=fading, seed=9)
    tracked = followed(before, write(tmp_path / "fade.mp4", before, after), propagate=propagate)
    assert ids(tracked[5]) == {1}
    assert not any(ids(each) for each in tracked[14:])


def test_a_video_may_begin_and_end_in_black(tmp_path: Path) -> None:
    scene = scene_of(cherry(), count=30, light=lambda i: float(8 <= i < 24))
    detector = detector_that_knows(None)
    lit = scene.outlined(8)
    detector.learn_frame(scene.frame(8), lit.masks, lit.labels)
    with detector.stream(write(tmp_path / "black.mp4", scene)) as stream:
        tracked = list(stream)
    assert [bool(ids(each)) for each in tracked] == [8 <= i < 24 for i in range(30)]


@BOTH
def test_flicker_changes_no_track(tmp_path: Path, propagate: str) -> None:
    scene = scene_of(cherry(), count=24, light=lambda i: 1.0 if i % 2 else 0.6)
    for each in followed(scene, write(tmp_path / "flicker.mp4", scene), propagate=propagate):
        assert ids(each) == {1}
        assert min(fits(each, scene)) > 0.85


@BOTH
@pytest.mark.parametrize("radius", [11, RADIUS])
def test_an_object_that_jumps_is_found_again_and_leaves_no_ghost(
    tmp_path: Path, propagate: str, radius: float
) -> None:
    def place(index: int) -> tuple[float, float]:
        return (40, 60) if index < 13 else (170, 80)

    scene = scene_of(Thing("cherry", place, radius), count=24)
    tracked = followed(scene, write(tmp_path / "jump.mp4", scene), propagate=propagate)
    assert all(min(fits(each, scene), default=1) > 0.8 for each in tracked)
    assert all(ids(each) for each in [*tracked[:13], *tracked[20:]])


@BOTH
def test_frames_that_jump_show_no_ghost(tmp_path: Path, propagate: str) -> None:
    """The camera jumps by 200 pixels and back."""
    here = scene_of(Thing("cherry", along(60, 70, 0, 0), RADIUS), count=12)
    there = Grained(here.things, 18, size_hw=SIZE_HW, camera=lambda _: (200.0, 0.0))
    back = Grained(here.things, 36, size_hw=SIZE_HW)
    path = write(tmp_path / "jump.mp4", here, there, back)
    tracked = followed(here, path, propagate=propagate)
    assert not any(ids(each) for each in tracked[12:18])
    assert all(min(fits(each, back), default=0) > 0.85 for each in tracked[18:])


def write_frames(folder: Path, scene: Scene) -> Path:
    for frame in scene.frames():
        name = str(folder / f"{frame.index:03d}.png")
        cv2.imwrite(name, cv2.cvtColor(frame.image_rgb, cv2.COLOR_RGB2BGR))
    return folder


@BOTH
@pytest.mark.parametrize(("radius", "least"), [(140, 0.9), (4, 0.4)])
def test_an_object_that_fills_the_frame_and_one_of_8_pixels(
    tmp_path: Path, propagate: str, radius: float, least: float
) -> None:
    scene = scene_of(Thing("cherry", along(104, 72, 0.5, 0.3), radius), count=24)
    for each in followed(scene, write_frames(tmp_path, scene), propagate=propagate):
        assert ids(each) == {1}
        assert min(fits(each, scene)) > least


def test_a_hundred_equal_objects_keep_their_tracks(tmp_path: Path) -> None:
    things = [
        Thing("cherry", along(13 + 20 * (k % 10), 10 + 14 * (k // 10), 0.5 - k // 10 % 2, 0), 5)
        for k in range(100)
    ]
    scene = Scene(things, 12, size_hw=SIZE_HW)
    tracked = followed(scene, write(tmp_path / "many.mp4", scene))
    assert [ids(each) for each in tracked] == [set(range(1, 101))] * 12
    assert len({tuple(each.track_ids) for each in tracked}) == 1
    for each in tracked:
        assert np.mean(fits(each, scene)) > 0.7


def test_a_still_picture_costs_few_key_frames_and_no_memory(tmp_path: Path) -> None:
    scene = scene_of(Thing("cherry", along(60, 70, 0, 0), RADIUS), count=1)
    picture = scene.frame(0).image_rgb
    path = write_video(tmp_path / "still.mp4", (picture for _ in range(600)), fps=5)
    keys, before_kb = 0, 0
    with detector_that_knows(scene).stream(path, propagate="flow") as stream:
        for each in stream:
            index = each.frame.index
            assert ids(each) == {1}
            assert each.frame.time_s == pytest.approx(index / 5)
            keys += each.key
            if index == 100:
                before_kb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert index == 599
    assert keys <= 600 / 40 + 1
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before_kb < 30_000
