"""Which frames are key frames, and carried masks at a keyframe detection."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sam_detect.errors import MaskError
from sam_detect.segmentation import NaiveSegmenter
from sam_detect.types import Detections, Frame, Masks
from sam_detect.video.appearance import SoftMask
from sam_detect.video.key_frames import carry_directly, redraw
from sam_detect.video.motion import Flow, Motion
from sam_detect.video.tracks import TrackSnapshot
from tests.closeness import same_masks
from tests.video_scenes import Scene, Thing, along, detector_that_knows, followed

SCENE = Scene([Thing("cherry", along(40, 50, 2, 1)), Thing("leaf", along(150, 80, -1, 0))], 12)


def _shifted(masks: Masks, by: int) -> Masks:
    dense = [np.roll(masks.dense(i), by, axis=1) for i in range(len(masks))]
    return Masks.from_dense(np.stack(dense))


class Redrawing(NaiveSegmenter):
    """Draws what it is told to."""

    def __init__(self, answer: Callable[[Masks], Masks]) -> None:
        super().__init__()
        self._answer = answer

    def segment_masks(self, frame: Frame, masks: Masks) -> Masks:
        return self._answer(masks)


def _fails(masks: Masks) -> Masks:
    raise MaskError("nothing is there")


def test_a_redrawing_segmenter_refines_carried_masks() -> None:
    truth = SCENE.outlined(3).masks
    carried = _shifted(truth, 2)
    assert same_masks(redraw(Redrawing(lambda _: truth), SCENE.frame(3), carried), truth)


def test_a_carried_mask_stays_where_something_else_is_drawn() -> None:
    truth = SCENE.outlined(3).masks
    other = Masks.concatenate([_shifted(truth[[0]], 30), truth[[1]]])
    carried = _shifted(truth, 1)
    found = redraw(Redrawing(lambda _: other), SCENE.frame(3), carried)
    assert same_masks(found, Masks.concatenate([carried[[0]], truth[[1]]]))


@pytest.mark.parametrize("segmenter", [NaiveSegmenter(), Redrawing(_fails)], ids=["not", "fails"])
def test_carried_masks_stay_where_nothing_is_drawn(segmenter: NaiveSegmenter) -> None:
    carried = SCENE.outlined(3).masks
    assert redraw(segmenter, SCENE.frame(3), carried) is carried


def test_sam2_follows_objects(tmp_path: Path, one_torch_thread: None) -> None:
    from sam_detect import SAMDetect
    from sam_detect.segmentation import SAM2Segmenter
    from sam_detect.vector_store import MemoryVectorStore
    from tests.sam2_helpers import write_small_sam2

    segmenter = SAM2Segmenter(write_small_sam2(tmp_path), "cpu", points_per_side=4)
    detector = SAMDetect(segmenter, "appearance", vector_store=MemoryVectorStore())
    first = SCENE.outlined(0)
    detector.learn_frame(SCENE.frame(0), first.masks, first.labels)
    with detector.stream(SCENE, every=4, propagate="flow") as stream:
        tracked = list(stream)
    assert [frame.key for frame in tracked[:9]] == [True, *[False] * 3, True, *[False] * 3, True]
    assert sorted(tracked[-1].detections.label.tolist()) == ["cherry", "leaf"]
    assert tracked[-1].track_ids.tolist() == tracked[0].track_ids.tolist()


def _flow() -> Flow:
    motion = Motion()
    motion.next(SCENE.frame(0))
    flow = motion.next(SCENE.frame(1))
    assert flow is not None
    return flow


@pytest.mark.parametrize(
    ("off", "direct", "kept"), [(2, True, False), (25, True, True), (2, False, True)]
)
def test_masks_are_carried_at_once_where_that_leads_to_about_the_same(
    off: int, direct: bool, kept: bool
) -> None:
    slowly = _shifted(SCENE.outlined(1).masks[[0]], off)
    anchor = SoftMask.of(SCENE.outlined(0).masks, 0)
    then = TrackSnapshot(slowly, (1,), (anchor,), (anchor,), (direct,))
    found = carry_directly(then, _flow())
    if kept:
        assert same_masks(found, slowly)
    else:
        truth = SCENE.outlined(1).masks.dense(0)
        assert (found.dense(0) & truth).sum() > 0.97 * (found.dense(0) | truth).sum()


# -- when ----------------------------------------------------------------------------------------


def _keys(scene: Scene, every: int = 5) -> list[int]:
    return [frame.frame.index for frame in followed(scene, every=every) if frame.key]


def test_a_still_scene_has_fewer_key_frames() -> None:
    still = Scene([Thing("cherry", along(60, 60, 0, 0))], 41)
    assert _keys(still) == [0, 20, 40]
    moving = Scene([Thing("cherry", along(60, 60, 0, 0))], 16, camera=along(0, 0, 1, 0))
    assert _keys(moving) == [0, 5, 10, 15]


def test_something_new_in_a_still_scene_makes_a_key_frame_soon() -> None:
    scene = Scene(
        [
            Thing("cherry", along(60, 60, 0, 0)),
            Thing("cherry", along(140, 90, 0, 0), frames=(8, 99)),
        ],
        20,
    )
    tracked = followed(scene, every=5)
    named = [len(frame.detections) for frame in tracked]
    assert named == [1] * 8 + [2] * 12


def test_a_large_change_makes_a_key_frame_at_once() -> None:
    scene = Scene(
        [
            Thing("cherry", along(60, 60, 0, 0)),
            Thing("plum", along(100, 70, 0, 0), 70, frames=(3, 99)),
        ],
        6,
    )
    assert _keys(scene, every=50) == [0, 3]


def test_the_light_of_the_picture_that_was_learnt_from_is_that_of_the_scene() -> None:
    asked: list[str | None] = []
    scene = Scene([Thing("cherry", along(60, 60, 1, 0))], 11)
    detector = detector_that_knows(scene)
    inner = detector.pipeline.detect

    def noting(frame: Frame, *, scene: str | None = None, **how: Any) -> Detections:
        asked.append(scene)
        return inner(frame, scene=scene, **how)

    detector.pipeline.detect = noting  # type: ignore[method-assign]
    with detector.stream(scene, every=5) as stream:
        list(stream)
    assert len(asked) == 3
    assert len(set(asked)) == 1
    assert asked[0] in detector.snapshot().examples().sources


def test_what_was_taught_in_a_key_frame_wins_there() -> None:
    """Two equal cherries, of which one was taught as a plum."""
    things = [Thing("cherry", along(40 + 60 * i, 60, 0, 0)) for i in range(3)]
    scene = Scene(things, 3)
    detector = detector_that_knows(scene)
    outlined = scene.outlined(0)
    detector.learn_frame(scene.frame(0), outlined.masks[[1]], ["plum"])
    assert detector.library.stats()["classes"] == {"cherry": 2, "plum": 1}
    with detector.stream(scene, every=5) as stream:
        found = next(stream).detections
    assert sorted(found.label) == ["cherry", "cherry", "plum"]
    [plum] = [each for each in found if each.label == "plum"]
    assert same_masks(plum.masks, outlined.masks[[1]])
