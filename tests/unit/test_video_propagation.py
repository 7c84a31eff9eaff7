"""Masks carried by features: an object that turns, hides and comes back, and who is carried so."""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np
import pytest

from sam_detect.errors import ConfigError
from sam_detect.types import Classification, Detections, Frame, ImageRGB, Masks
from sam_detect.video import propagation
from sam_detect.video import tracks as tracks_module
from sam_detect.video.appearance import SoftMask
from sam_detect.video.motion import Flow
from sam_detect.video.propagation import FeatureMemory, find_propagator, guided, remember
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
    return FeatureMemory(frame.image_rgb, start), start


def test_an_object_that_turns_in_its_place_is_followed(
    turned: tuple[FeatureMemory, SoftMask],
) -> None:
    memory, mask = turned
    for angle in range(12, 72, 12):
        frame, truth = _turning(angle)
        found = memory.carry(frame.image_rgb, mask)
        assert found is not None
        assert _iou(found, truth) > 0.8, angle
        mask = found


def test_a_jump_is_followed_where_the_motion_leads(turned: tuple[FeatureMemory, SoftMask]) -> None:
    memory, mask = turned
    frame, truth = _turning(0, (150, 80))
    found = memory.carry(frame.image_rgb, mask.moved((60, 0)))
    assert _iou(found, truth) > 0.8


def test_what_is_gone_is_nothing_and_is_found_again(turned: tuple[FeatureMemory, SoftMask]) -> None:
    memory, mask = turned
    gone, _ = _turning(0, (-200, 80))
    for _ in range(max(propagation.RECENT) + 2):
        assert memory.carry(gone.image_rgb, mask, least_px=0.35 * mask.area) is None
    frame, truth = _turning(10)
    assert _iou(memory.carry(frame.image_rgb, mask), truth) > 0.8


def test_less_than_the_least_of_an_object_is_not_the_object(
    turned: tuple[FeatureMemory, SoftMask],
) -> None:
    memory, mask = turned
    frame, _ = _turning(5)
    assert memory.carry(frame.image_rgb, mask, least_px=2 * mask.area) is None
    assert memory.carry(frame.image_rgb, mask, least_px=0.5 * mask.area) is not None


@pytest.mark.parametrize("middle_x", [20, 220])
def test_an_object_at_the_border_is_followed(
    turned: tuple[FeatureMemory, SoftMask], middle_x: int
) -> None:
    memory, mask = turned
    frame, truth = _turning(0, (middle_x, 80))
    found = memory.carry(frame.image_rgb, mask.moved((middle_x - 90, 0)))
    assert _iou(found, truth) > 0.7


def test_an_object_that_grows_is_followed_from_frame_to_frame(
    turned: tuple[FeatureMemory, SoftMask],
) -> None:
    memory, mask = turned
    for side in range(44, 77, 4):
        frame, truth = _turning(0, side=side)
        found = memory.carry(frame.image_rgb, mask)
        assert found is not None
        assert _iou(found, truth) > 0.8, side
        mask = found


def test_the_same_frames_give_the_same_masks() -> None:
    def followed() -> np.ndarray:
        frame, masks = _turning(0)
        memory = FeatureMemory(frame.image_rgb, SoftMask.of(masks, 0))
        found = memory.carry(_turning(8)[0].image_rgb, SoftMask.of(masks, 0))
        assert found is not None
        return found.values

    assert np.array_equal(followed(), followed())


def test_a_large_object_is_reduced_and_a_small_one_is_left_to_the_flow() -> None:
    frame, masks = _turning(0)
    large = cv2.resize(frame.image_rgb, None, fx=4, fy=4, interpolation=cv2.INTER_CUBIC)
    solid = cv2.resize(masks.dense(0).astype(np.float32), None, fx=4, fy=4)
    memory = remember(large, SoftMask(solid, (0, 0)))
    assert memory is not None
    found = memory.carry(large, SoftMask(solid, (0, 0)))
    assert found is not None
    assert found.area == pytest.approx(16 * masks.areas[0], rel=0.1)
    tiny, outline = _turning(0, side=20)
    assert remember(tiny.image_rgb, SoftMask.of(outline, 0)) is None


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
    tracks, (frame, masks) = Tracks(remember=remember), _turning(0)
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
    tracks, (frame, masks) = Tracks(remember=remember), _turning(0)
    _join(tracks, frame, masks)
    tracks.advance(_still(), _turning(0, (-200, 80))[0], 0.04)
    assert not len(tracks.snapshot(SIZE).ids)
    back, truth = _turning(10)
    tracks.advance(_still(), back, 0.08)
    assert tracks.snapshot(SIZE).ids == (1,)
    assert _iou(SoftMask.of(tracks.snapshot(SIZE).masks, 0), truth) > 0.8


def test_features_carry_only_so_many_objects_and_none_without_a_name(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(tracks_module, "MOST_REMEMBERED", 1)
    asked = []

    def counted(image_rgb: ImageRGB, mask: SoftMask) -> FeatureMemory | None:
        asked.append(mask.box_xyxy)
        return remember(image_rgb, mask)

    frame, masks = _turning(0)
    _, others = _turning(90, (190, 80))
    tracks = Tracks(remember=counted)
    _join(tracks, frame, Masks.concatenate([masks, others]))
    assert len(asked) == 1
    assert len(tracks.snapshot(SIZE).ids) == 2
    unnamed = Tracks(remember=counted, unknown=True)
    found = Detections("turning", masks, (Classification(None, "leaf", 0.1),))
    unnamed.join(KeyFrameResult(frame, found, ((),), first=True), unnamed.snapshot(SIZE), [], frame)
    assert len(unnamed.snapshot(SIZE).ids) == 1
    assert len(asked) == 1


@pytest.mark.parametrize(
    ("name", "live", "carries"),
    [
        ("flow", False, False),
        ("auto", True, False),
        ("auto", False, True),
        ("features", False, True),
    ],
)
def test_what_carries_masks_is_chosen(name: str, live: bool, carries: bool) -> None:
    assert (find_propagator(name, live=live) is not None) == carries


def test_without_the_network_the_flow_carries(monkeypatch: pytest.MonkeyPatch) -> None:
    absent: Callable[[], list[str]] = lambda: ["openvino"]  # noqa: E731
    monkeypatch.setattr(propagation, "missing_packages", absent)
    assert find_propagator("auto", live=False) is None


def test_a_way_that_is_none_and_features_of_a_live_source_are_refused() -> None:
    with pytest.raises(ConfigError, match="no 'sam3'"):
        find_propagator("sam3", live=False)
    with pytest.raises(ConfigError, match="--propagate flow"):
        find_propagator("features", live=True)
