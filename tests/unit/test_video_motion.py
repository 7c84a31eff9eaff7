"""Optical flow between frames, and masks carried by it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt
import pytest

from sam_detect.types import Frame
from sam_detect.video.appearance import SoftMask, stack_masks
from sam_detect.video.motion import (
    KEPT_FLOWS,
    Flow,
    Flows,
    Motion,
    direct_flow,
    object_motion,
    ranked,
)
from tests.video_scenes import Scene, Thing, along

RNG = np.random.default_rng(5)
Array = npt.NDArray[np.float64]


def _flows(frames: Sequence[Frame]) -> list[Flow | None]:
    motion = Motion()
    return [motion.next(frame) for frame in frames]


def _iou(mask: SoftMask, truth: npt.NDArray[np.bool_]) -> float:
    found = np.zeros(truth.shape, np.bool_)
    cut = mask.cut(truth.shape)
    if cut is not None:
        (x0, y0, x1, y1), crop = cut
        found[y0:y1, x0:x1] = crop
    return float((found & truth).sum() / max(1, (found | truth).sum()))


def _truth(scene: Scene, index: int, thing: int = 1) -> npt.NDArray[np.bool_]:
    outlined = scene.outlined(index)
    return outlined.masks.dense(outlined.ids.index(thing))


def _soft(mask: npt.NDArray[np.bool_]) -> SoftMask:
    return SoftMask(mask.astype(np.float32), (0, 0))


def _carried(scene: Scene) -> list[SoftMask]:
    """The first thing's mask, brought through all frames by flow alone."""
    masks = [_soft(_truth(scene, 0))]
    for flow in _flows([*scene.frames()])[1:]:
        assert flow is not None
        masks.append(flow.carry(masks[-1]))
    return masks


MOVES = {
    "still": along(60, 60, 0, 0),
    "slow": along(50, 60, 0.3, 0.2),
    "fast": along(40, 50, 4.0, 1.0),
}


@pytest.mark.parametrize("name", MOVES)
def test_a_mask_moves_with_its_object(name: str) -> None:
    scene = Scene([Thing("cherry", MOVES[name], radius=16)], 16)
    assert _iou(_carried(scene)[-1], _truth(scene, 15)) > 0.9


def test_a_mask_moves_with_the_camera() -> None:
    scene = Scene([Thing("leaf", along(90, 70, 0, 0), radius=16)], 16, camera=along(0, 0, 2.0, 0.5))
    assert _iou(_carried(scene)[-1], _truth(scene, 15)) > 0.9


def test_an_object_that_grows_takes_its_mask_along() -> None:
    scenes = [Scene([Thing("cherry", along(80, 70, 0, 0), radius=14 + 0.5 * i)], 1)
              for i in range(20)]  # fmt: skip
    mask = _soft(_truth(scenes[0], 0))
    for flow in _flows([scene.frame(0) for scene in scenes])[1:]:
        assert flow is not None
        mask = flow.carry(mask)
    assert _iou(mask, _truth(scenes[-1], 0)) > 0.85


def test_a_large_picture_is_compared_at_a_smaller_scale_and_masks_stay_in_its_pixels() -> None:
    scene = Scene([Thing("cherry", along(300, 400, 9, 6), radius=90)], 4, size_hw=(900, 1200))
    flows = _flows([*scene.frames()])
    assert flows[1] is not None
    assert flows[1].back_xy.shape[0] < 900
    assert _iou(_carried(scene)[-1], _truth(scene, 3)) > 0.95


def test_an_object_that_leaves_and_comes_back_keeps_its_shape() -> None:
    def place(index: int) -> tuple[float, float]:
        return 40 - 2.5 * (10 - abs(10 - index)), 60

    scene = Scene([Thing("cherry", place, radius=16)], 21)
    masks = _carried(scene)
    assert _iou(masks[10], _truth(scene, 10)) > 0.8
    assert _iou(masks[20], _truth(scene, 20)) > 0.85


def test_a_mask_that_is_gone_has_no_pixels() -> None:
    gone = SoftMask(np.zeros((1, 1), np.float32), (0, 0))
    flow = _flows([*Scene([], 2).frames()])[1]
    assert flow is not None
    assert flow.carry(gone).area == 0
    assert gone.cut((10, 10)) is None
    assert len(stack_masks([gone], (10, 10))[1]) == 0


def test_a_mask_outside_the_picture_is_cut_at_its_border() -> None:
    mask = SoftMask(np.ones((6, 6), np.float32), (-2, 7))
    cut = mask.cut((10, 20))
    assert cut is not None
    assert cut[0] == (0, 7, 4, 10)
    assert cut[1].all()
    assert mask.moved((-4, 0)).cut((10, 20)) is None


# -- what is another scene, and what is none -------------------------------------------------------


def test_the_first_frame_another_size_and_a_cut_have_no_flow() -> None:
    one = Scene([Thing("cherry", along(60, 60, 0, 0))], 1).frame(0)
    small = Scene([], 1, size_hw=(100, 100)).frame(0)
    other = Frame(RNG.integers(0, 255, (144, 208, 3), np.uint8))
    flows = _flows([one, one, small, one, other, one])
    assert [flow is None for flow in flows] == [True, False, True, True, True, True]


@pytest.mark.parametrize("gain", [0.5, 1.25])
def test_a_brighter_picture_is_the_same_scene(gain: float) -> None:
    scene = Scene([Thing("cherry", along(50, 60, 1, 0), radius=16)], 2,
                  light=lambda i: 1.0 if i == 0 else gain)  # fmt: skip
    scene = replace(scene, light=lambda i: 0.7 if i == 0 else 0.7 * gain)
    flow = _flows([*scene.frames()])[1]
    assert flow is not None
    assert flow.gain == pytest.approx(gain, rel=0.05)
    assert flow.new_share < 0.05
    assert _iou(flow.carry(_soft(_truth(scene, 0))), _truth(scene, 1)) > 0.95


def test_what_is_new_is_a_share_of_the_picture() -> None:
    scene = Scene([Thing("cherry", along(100, 70, 0, 0), radius=40, frames=(1, 9))], 3)
    flows = _flows([*scene.frames()])
    assert flows[1] is not None
    assert flows[2] is not None
    share = np.pi * 40**2 / (144 * 208)
    assert flows[1].new_share == pytest.approx(share, abs=0.06)
    assert flows[2].new_share == 0


# -- several frames at once ------------------------------------------------------------------------


def _added_up(scene: Scene) -> Flow:
    total: Flow | None = None
    for flow in _flows([*scene.frames()])[1:]:
        assert flow is not None
        total = flow.coarse() if total is None else flow.coarse().after(total)
    assert total is not None
    return total


def test_flows_add_up_over_frames() -> None:
    scene = Scene([Thing("cherry", along(50, 60, 3, 1), radius=16)], 9)
    total = _added_up(scene)
    assert _iou(total.carry(_soft(_truth(scene, 0))), _truth(scene, 8)) > 0.8


def test_comparing_two_frames_at_once_is_better_than_adding_up() -> None:
    scene = Scene([Thing("plum", along(40, 60, 2.7, 1.3), radius=12)], 13)
    total = _added_up(scene)
    direct = direct_flow(scene.frame(0), scene.frame(12), total)
    first, last = _soft(_truth(scene, 0)), _truth(scene, 12)
    at_once = _iou(direct.carry(first), last)
    assert at_once > 0.95
    assert at_once > _iou(_carried(scene)[-1], last)


# -- an object's motion ------------------------------------------------------------------------


def _turning(rows: Array, columns: Array) -> npt.NDArray[np.float32]:
    """A flow that is an affine map: a turn and a step."""
    return np.stack([0.05 * rows + 2, -0.05 * columns - 1], axis=-1).astype(np.float32)


def test_an_affine_flow_is_continued_beyond_the_object() -> None:
    rows, columns = np.mgrid[:40, :50].astype(np.float64)
    truth = _turning(rows, columns)
    inside = np.zeros((40, 50), np.bool_)
    inside[10:30, 10:35] = True
    flow = np.where(inside[..., None], truth, 0).astype(np.float32)
    np.testing.assert_allclose(object_motion(flow, inside), truth, atol=0.02)


def test_what_passes_in_front_of_an_object_does_not_move_it() -> None:
    rows, columns = np.mgrid[:40, :50].astype(np.float64)
    truth = _turning(rows, columns)
    inside = np.ones((40, 50), np.bool_)
    flow = truth + RNG.normal(0, 0.05, truth.shape).astype(np.float32)
    flow[:, 20:35] = 8
    np.testing.assert_allclose(object_motion(flow, inside), truth, atol=0.6)


def test_too_little_of_an_object_keeps_the_flow() -> None:
    flow = RNG.normal(size=(6, 6, 2)).astype(np.float32)
    inside = np.zeros((6, 6), np.bool_)
    inside[2, 2] = True
    assert object_motion(flow, inside) is flow


@pytest.mark.parametrize(("share", "expected"), [(0, 1), (0.5, 5), (1, 9), (0.02, 1), (0.98, 9)])
def test_a_rank_is_a_quantile_that_is_one_of_the_values(share: float, expected: int) -> None:
    values = np.array([[5, 50], [9, 90], [1, 10], [7, 70], [3, 30]], np.float32)
    assert ranked(values, share).tolist() == [expected, expected * 10]
    assert ranked(values[:, 0], share) == expected


def test_flows_of_a_long_detection_take_little_memory_and_lead_to_the_same_place() -> None:
    scene = Scene([Thing("cherry", along(30, 60, 0.6, 0.1))], 90)
    flows = Flows()
    every = [flow for flow in _flows([*scene.frames()]) if flow is not None]
    for flow in every:
        flows.add(flow)
    kept = flows.all()
    assert len(kept) == KEPT_FLOWS + 1 < len(every)
    assert {flow.back_xy.nbytes for flow in kept} == {every[0].back_xy.nbytes}
    mask = _soft(_truth(scene, 0))
    for flow in kept:
        mask = flow.carry(mask)
    assert _iou(mask, _truth(scene, 89)) > 0.7
    assert Flows().all() == []


@pytest.mark.parametrize("size_hw", [(16, 20_000), (20_000, 16), (1, 1), (3, 5_000)])
def test_pictures_of_any_shape_are_compared(size_hw: tuple[int, int]) -> None:
    motion = Motion()
    noise = np.random.default_rng(0).integers(0, 255, (*size_hw, 3), np.uint8)
    motion.next(Frame(noise, "line", 0))
    flow = motion.next(Frame(noise, "line", 1))
    assert flow is not None
    assert flow.typical_px < 1
