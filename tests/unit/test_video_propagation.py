"""Masks carried by features: an object that turns, hides and comes back, and who is carried so."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import pytest

from sam_detect.errors import ConfigError
from sam_detect.types import Classification, Detections, Frame, Masks
from sam_detect.video import propagation, propagators
from sam_detect.video.appearance import SoftMask
from sam_detect.video.motion import Flow
from sam_detect.video.propagation import FeatureMemory, guided
from sam_detect.video.propagators import (
    SAVED_S,
    Budget,
    ObjectMemory,
    Propagator,
    by_features,
    find_propagator,
)
from sam_detect.video.tracks import KeyFrameResult, Tracks

SIZE = (160, 240)
LEAF = Classification("leaf", "leaf", 0.95)


def _turning(
    angle: float, middle: tuple[int, int] = (90, 80), side: int = 40
) -> tuple[Frame, Masks]:
    """A long spotted box before a wall of other spots, turned by an angle in degrees."""
    spots = np.random.default_rng(5)
    wall = cv2.blur(spots.integers(90, 255, (*SIZE, 3), np.uint8), (5, 5))
    image = wall // 2 + np.array([100, 90, 60], np.uint8)
    skin = cv2.resize(spots.integers(0, 90, (12, 12, 3), np.uint8), SIZE[::-1])
    corners = cv2.boxPoints((middle, (2 * side, side), angle)).astype(np.int32)
    drawn = np.zeros(SIZE, np.uint8)
    cv2.fillConvexPoly(drawn, corners, 1)
    image[drawn > 0] = skin[drawn > 0]
    there = drawn > 0
    return Frame(image, "turning"), Masks.from_dense(there) if there.any() else Masks.empty(SIZE)


def _iou(mask: SoftMask | None, truth: Masks) -> float:
    if mask is None:
        return 0.0
    drawn, cut = np.zeros(SIZE, np.bool_), mask.cut(SIZE)
    if cut is not None:
        (x0, y0, x1, y1), drawn_part = cut
        drawn[y0:y1, x0:x1] = drawn_part
    both = truth.dense(0)
    return float((drawn & both).sum() / (drawn | both).sum())


@pytest.fixture
def turned() -> tuple[FeatureMemory, SoftMask]:
    """The memory of a box, and the box."""
    frame, masks = _turning(0)
    start = SoftMask.of(masks, 0)
    return FeatureMemory(frame, start), start


def test_an_object_that_turns_in_its_place_is_followed(
    turned: tuple[FeatureMemory, SoftMask],
) -> None:
    memory, mask = turned
    for angle in range(12, 72, 12):
        frame, truth = _turning(angle)
        found = memory.carry(frame, mask)
        assert found is not None
        assert _iou(found, truth) > 0.8, angle
        mask = found


def test_a_jump_is_followed_where_the_motion_leads(turned: tuple[FeatureMemory, SoftMask]) -> None:
    memory, mask = turned
    frame, truth = _turning(0, (150, 80))
    found = memory.carry(frame, mask.moved((60, 0)))
    assert _iou(found, truth) > 0.8


def test_what_is_gone_is_nothing_and_is_found_again(turned: tuple[FeatureMemory, SoftMask]) -> None:
    memory, mask = turned
    gone, _ = _turning(0, (-200, 80))
    for _ in range(max(propagation.RECENT) + 2):
        assert memory.carry(gone, mask, least_px=0.35 * mask.area) is None
    frame, truth = _turning(10)
    assert _iou(memory.carry(frame, mask), truth) > 0.8


def test_less_than_the_least_of_an_object_is_not_the_object(
    turned: tuple[FeatureMemory, SoftMask],
) -> None:
    memory, mask = turned
    frame, _ = _turning(5)
    assert memory.carry(frame, mask, least_px=2 * mask.area) is None
    assert memory.carry(frame, mask, least_px=0.5 * mask.area) is not None


@pytest.mark.parametrize("middle_x", [20, 220])
def test_an_object_at_the_border_is_followed(
    turned: tuple[FeatureMemory, SoftMask], middle_x: int
) -> None:
    memory, mask = turned
    frame, truth = _turning(0, (middle_x, 80))
    found = memory.carry(frame, mask.moved((middle_x - 90, 0)))
    assert _iou(found, truth) > 0.7


def test_an_object_that_grows_is_followed_from_frame_to_frame(
    turned: tuple[FeatureMemory, SoftMask],
) -> None:
    memory, mask = turned
    for side in range(44, 77, 4):
        frame, truth = _turning(0, side=side)
        found = memory.carry(frame, mask)
        assert found is not None
        assert _iou(found, truth) > 0.8, side
        mask = found


def test_an_object_that_comes_close_is_described_with_as_many_cells(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    small = 20
    frame, masks = _turning(0, (120, 80), small)
    described = []
    network = propagation.shared_network()
    monkeypatch.setattr(
        propagation, "shared_network",
        lambda: lambda pictures: (described.append(pictures.size), network(pictures))[1],
    )  # fmt: skip
    mask = SoftMask.of(masks, 0)
    memory = FeatureMemory(frame, mask, across=8)
    for side in range(small + 2, 3 * small, 2):  # to nine times its area
        frame, truth = _turning(0, (120, 80), side)
        found = memory.carry(frame, mask)
        assert _iou(found, truth) > 0.75, side
        assert found is not None
        mask = found
    assert described[-1] < 2 * described[0]


def test_the_same_frames_give_the_same_masks() -> None:
    def followed() -> np.ndarray:
        frame, masks = _turning(0)
        memory = FeatureMemory(frame, SoftMask.of(masks, 0))
        found = memory.carry(_turning(8)[0], SoftMask.of(masks, 0))
        assert found is not None
        return found.values

    assert np.array_equal(followed(), followed())


def test_a_large_object_is_reduced_and_a_small_one_is_left_to_the_flow() -> None:
    frame, masks = _turning(0)
    large = Frame(cv2.resize(frame.image_rgb, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC))
    solid = cv2.resize(masks.dense(0).astype(np.float32), None, fx=4, fy=4)
    memory = by_features().remember(large, SoftMask(solid, (0, 0)))
    assert memory is not None
    found = memory.carry(large, SoftMask(solid, (0, 0)))
    assert found is not None
    assert found.area == pytest.approx(16 * masks.areas[0], rel=0.1)
    tiny, outline = _turning(0, side=20)
    assert by_features().remember(tiny, SoftMask.of(outline, 0)) is None


def test_the_guided_filter_moves_an_edge_to_the_edge_of_the_picture() -> None:
    image = np.zeros((40, 60, 3), np.uint8)
    image[:, 30:] = 200
    values = np.zeros((40, 60), np.float32)
    values[:, 31:] = 1  # a pixel off
    found = guided(image, values)
    assert (found[20, 30:] > 0.5).all()
    assert (found[20, :30] < 0.5).all()


# -- tracks --------------------------------------------------------------------------------------


def _still() -> Flow:
    return Flow(np.zeros((*SIZE, 2), np.float32), SIZE, 0.0)


def _join(tracks: Tracks, frame: Frame, masks: Masks, *, relearnt: bool = False) -> None:
    found = Detections("turning", masks, (LEAF,) * len(masks))
    then = tracks.snapshot(SIZE)
    result = KeyFrameResult(frame, found, ((),) * len(masks), first=True, relearnt=relearnt)
    tracks.join(result, then, [], frame)


def test_a_detection_at_a_key_frame_names_the_object_and_does_not_redraw_it() -> None:
    tracks, (frame, masks) = Tracks(propagator=by_features()), _turning(0)
    _join(tracks, frame, masks)
    turned, truth = _turning(15)
    tracks.advance(_still(), turned, 0.04)
    _join(tracks, turned, masks)  # the detector missed that it turned
    seen, ids = tracks.present(turned, time_s=0.04)
    assert ids.tolist() == [1]
    assert _iou(SoftMask.of(seen.masks, 0), truth) > 0.85
    _join(tracks, turned, masks, relearnt=True)
    seen, _ = tracks.present(turned, time_s=0.04)
    assert np.array_equal(seen.masks.dense(0), masks.dense(0)), "what was learnt now is followed"


def test_a_track_that_its_features_lose_is_hidden_until_they_find_it_again() -> None:
    tracks, (frame, masks) = Tracks(propagator=by_features()), _turning(0)
    _join(tracks, frame, masks)
    tracks.advance(_still(), _turning(0, (-200, 80))[0], 0.04)
    assert not len(tracks.snapshot(SIZE).ids)
    back, truth = _turning(10)
    tracks.advance(_still(), back, 0.08)
    assert tracks.snapshot(SIZE).ids == (1,)
    assert _iou(SoftMask.of(tracks.snapshot(SIZE).masks, 0), truth) > 0.8


def _elsewhere() -> Frame:
    """Another scene, with something dark and long in the same place."""
    spots = np.random.default_rng(6)
    image = cv2.resize(spots.integers(0, 255, (9, 7, 3), np.uint8), SIZE[::-1])
    cv2.rectangle(image, (50, 60), (130, 100), (10, 60, 20), -1)
    return Frame(image, "elsewhere")


def test_what_is_not_like_the_object_is_not_the_object(
    turned: tuple[FeatureMemory, SoftMask],
) -> None:
    memory, mask = turned
    for angle in (3, 6):
        found = memory.carry(_turning(angle)[0], mask)
        assert found is not None
    assert memory.carry(_elsewhere(), found, cut=True) is None
    ground = Frame(np.full((*SIZE, 3), 128, np.uint8))
    assert memory.carry(ground, found) is None
    assert memory.carry(_turning(9)[0], found) is not None, "nothing of it is remembered"


@pytest.mark.parametrize("features", [True, False])
def test_after_a_cut_only_what_is_found_again_is_followed(features: bool) -> None:
    frame, masks = _turning(0)
    small = Frame(frame.image_rgb[:80, :120].copy())
    for then, kept in ((_turning(12)[0], features), (_elsewhere(), False), (small, False)):
        tracks = Tracks(propagator=by_features() if features else None)
        tracks.advance(None, frame, 0.0)
        _join(tracks, frame, masks)
        tracks.advance(None, then, 0.04)
        assert tracks.snapshot(then.size_hw).ids == ((1,) if kept else ()), then.source_id


class Counted:
    """A propagator whose memories count how often they carry, and take as long as they are told.

    Args:
        took_s: each time.
        off_px: how far from the flow's mask the object is.
        how: of the propagator.
    """

    def __init__(self, *, took_s: float = 0.0, off_px: int = 0, **how: Any) -> None:
        self.took_s, self.off_px, self.carried = took_s, off_px, dict[int, int]()
        self.propagator = Propagator(self._remember, **how)

    def _remember(self, frame: Frame, mask: SoftMask) -> ObjectMemory:
        number = len(self.carried)
        self.carried[number] = 0
        counted = self

        class Memory:
            def carry(
                self, frame: Frame, about: SoftMask, *, least_px: float = 0, cut: bool = False
            ) -> SoftMask:
                counted.carried[number] += 1
                time.sleep(counted.took_s)
                return about.moved((counted.off_px * (-1) ** counted.carried[number], 0))

        return Memory()


def _two() -> tuple[Frame, Masks]:
    frame, masks = _turning(0)
    return frame, Masks.concatenate([masks, _turning(90, (190, 80))[1]])


def test_a_propagator_carries_only_so_many_objects_and_none_without_a_name() -> None:
    frame, both = _two()
    one = Counted(most=1)
    tracks = Tracks(propagator=one.propagator)
    _join(tracks, frame, both)
    assert len(one.carried) == 1
    assert len(tracks.snapshot(SIZE).ids) == 2
    unused = Counted()
    unnamed = Tracks(propagator=unused.propagator, unknown=True)
    found = Detections("turning", both[[0]], (Classification(None, "leaf", 0.1),))
    unnamed.join(KeyFrameResult(frame, found, ((),), first=True), unnamed.snapshot(SIZE), [], frame)
    assert len(unnamed.snapshot(SIZE).ids) == 1
    assert not unused.carried


def _frames_of(counted: Counted, number: int) -> None:
    frame, both = _two()
    tracks = Tracks(propagator=counted.propagator)
    _join(tracks, frame, both)
    for index in range(number):
        tracks.advance(_still(), frame, 0.04 * index)
        assert len(tracks.snapshot(SIZE).ids) == 2, "whoever carries them"


@pytest.mark.parametrize(
    ("off_px", "every_frame", "times"),
    [(0, False, 6), (5, False, 20), (0, True, 20)],  # 1st, 3rd, and then every fourth frame
)
def test_the_flow_carries_for_some_frames_what_it_carries_as_well(
    off_px: int, every_frame: bool, times: int
) -> None:
    counted = Counted(off_px=off_px, every_frame=every_frame)
    _frames_of(counted, 20)
    assert counted.carried == {0: times, 1: times}


def test_a_budget_is_kept_and_objects_take_turns() -> None:
    counted = Counted(took_s=0.01, off_px=5, budget=Budget(0.1))
    began_s = time.monotonic()
    _frames_of(counted, 60)
    passed_s = time.monotonic() - began_s
    one, other = counted.carried.values()
    assert abs(one - other) <= 1
    # What is saved at the start, a share of the time, and the one that goes beyond it.
    assert (one + other) * counted.took_s <= SAVED_S + 0.1 * passed_s + 2 * counted.took_s
    assert 2 <= one + other < 60


def test_in_a_live_video_an_object_is_remembered_as_it_was_in_its_key_frame() -> None:
    """Its detection arrives frames later, when it has moved on."""
    shown = []

    def remember(frame: Frame, mask: SoftMask) -> None:
        shown.append((frame.source_id, mask.box_xyxy))

    tracks, (frame, masks) = Tracks(propagator=Propagator(remember)), _turning(0)
    key = replace(frame, source_id="key frame")
    right = Flow(np.full((*SIZE, 2), (-20.0, 0.0), np.float32), SIZE, 0.0)
    nothing = tracks.snapshot(SIZE)
    found = Detections("turning", masks, (LEAF,))
    tracks.join(KeyFrameResult(key, found, ((),), first=True), nothing, [right], frame)
    assert shown == [("key frame", tuple(masks.boxes_xyxy[0].tolist()))]
    assert tracks.snapshot(SIZE).masks.boxes_xyxy[0, 0] == masks.boxes_xyxy[0, 0] + 20
    then = tracks.snapshot(SIZE)
    known = Counted()
    followed = Tracks(propagator=known.propagator)
    followed.join(KeyFrameResult(key, found, ((),), first=True), nothing, [], key)
    then = followed.snapshot(SIZE)
    followed.advance(right, frame, 0.04)
    moved = followed.snapshot(SIZE).masks
    followed.join(KeyFrameResult(key, found, ((),)), then, [right], frame)
    assert followed.snapshot(SIZE).masks.boxes_xyxy.tolist() == moved.boxes_xyxy.tolist(), (
        "a late detection does not move what its propagator has carried further"
    )


@pytest.mark.parametrize(
    ("name", "live", "carries"),
    [
        ("flow", False, False),
        ("auto", True, True),
        ("auto", False, True),
        ("features", False, True),
    ],
)
def test_what_carries_masks_is_chosen(name: str, live: bool, carries: bool) -> None:
    assert (find_propagator(name, live=live) is not None) == carries


def test_without_the_network_the_flow_carries(monkeypatch: pytest.MonkeyPatch) -> None:
    absent: Callable[[], list[str]] = lambda: ["openvino"]  # noqa: E731
    monkeypatch.setattr(propagators, "missing_packages", absent)
    assert find_propagator("auto", live=False) is None


def test_only_a_live_source_has_a_budget() -> None:
    file, live = (find_propagator("auto", live=live) for live in (False, True))
    assert file is not None
    assert live is not None
    for budget, kept in ((file.budget, True), (live.budget, False)):
        with budget.spent():
            time.sleep(1.5 * SAVED_S)
        assert budget.left == kept


def test_a_way_that_is_none_is_refused() -> None:
    with pytest.raises(ConfigError, match="no 'sam3'"):
        find_propagator("sam3", live=False)
