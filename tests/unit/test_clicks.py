"""From clicks on and off an object to its mask."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import QUICK, BoolArray

from sam_detect import SAMDetect
from sam_detect.errors import MaskError
from sam_detect.interfaces import ClickedSegmenter, PromptedSegmenter, Segmenter
from sam_detect.segmentation.clicks import mask_for_clicks, outline_clicks
from sam_detect.segmentation.prompted import masks_for_boxes
from sam_detect.types import NO_HINTS, Frame, Hints, Masks

HEIGHT, WIDTH = 90, 140


def disc(center_xy: tuple[float, float], radius: float) -> BoolArray:
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    return np.asarray((x - center_xy[0]) ** 2 + (y - center_xy[1]) ** 2 <= radius**2)


LEFT, RIGHT = disc((45, 45), 22), disc((90, 45), 22)
"""They touch."""
BOTH = LEFT | RIGHT | disc((67, 45), 4)


def scene() -> Frame:
    """Two touching discs, a red and a yellow one, on a green ground with a little noise."""
    image = np.full((HEIGHT, WIDTH, 3), (60, 140, 60), np.int16)
    image[BOTH] = (200, 40, 40)
    image[RIGHT] = (210, 200, 40)
    image += np.random.default_rng(0).integers(-8, 9, image.shape, dtype=np.int16)
    return Frame(image.clip(0, 255).astype(np.uint8))


def of(*dense: BoolArray) -> Masks:
    return Masks.from_dense(np.stack(dense)) if dense else Masks.empty((HEIGHT, WIDTH))


def iou(mask: Masks, true: BoolArray) -> float:
    dense = mask.dense(0)
    return float((dense & true).sum() / (dense | true).sum())


def assert_agrees(mask: Masks, clicks_xy: Any, positive: Any) -> None:
    assert len(mask) == 1
    dense = mask.dense(0)
    for (x, y), flag in zip(clicks_xy, positive, strict=True):
        assert dense[int(y), int(x)] == flag


# Among proposals


def test_a_negative_click_on_one_of_two_touching_discs_leaves_the_other() -> None:
    proposals = of(BOTH, LEFT, RIGHT)
    clicks = [(45, 45), (90, 45)]
    both = mask_for_clicks(scene(), proposals, clicks[:1], [True])
    np.testing.assert_array_equal(both.dense(0), BOTH)
    one = mask_for_clicks(scene(), proposals, clicks, [True, False])
    np.testing.assert_array_equal(one.dense(0), LEFT)
    other = mask_for_clicks(scene(), proposals, clicks, [False, True])
    np.testing.assert_array_equal(other.dense(0), RIGHT)
    again = mask_for_clicks(scene(), of(LEFT, RIGHT, BOTH), clicks, [True, True])
    np.testing.assert_array_equal(again.dense(0), BOTH)


def test_without_a_proposal_of_one_disc_the_other_is_cut_off() -> None:
    one = mask_for_clicks(scene(), of(BOTH), [(45, 45), (90, 45)], [True, False])
    assert iou(one, LEFT) > 0.9
    assert_agrees(one, [(45, 45), (90, 45)], [True, False])


def test_two_halves_are_joined_by_a_second_click() -> None:
    upper, lower = LEFT.copy(), LEFT.copy()
    upper[45:], lower[:45] = False, False
    clicks = [(45, 35), (45, 58)]
    found = mask_for_clicks(scene(), of(upper, lower), clicks, [True, True])
    assert iou(found, LEFT) > 0.9
    assert_agrees(found, clicks, [True, True])


def test_a_click_near_the_outline_changes_only_what_is_near_it() -> None:
    bump = disc((45, 20), 6)
    clicks = [(45, 45), (45, 19)]
    found = mask_for_clicks(scene(), of(LEFT | bump, RIGHT), clicks, [True, False])
    changed = found.dense(0) ^ (LEFT | bump)
    assert iou(found, LEFT) > 0.97
    assert not changed[45:].any(), "the other side is as it was"


def test_a_background_is_taken_only_if_there_is_nothing_else() -> None:
    ground = ~BOTH
    ground[:, 130:] = True
    assert ground.sum() > 0.2 * ground.size
    small = disc((120, 10), 5)
    found = mask_for_clicks(scene(), of(ground, small), [(120, 10)], [True])
    np.testing.assert_array_equal(found.dense(0), small)


def test_a_click_that_the_mask_agrees_with_changes_nothing() -> None:
    clicks = [(45, 45), (50, 50), (5, 5)]
    found = mask_for_clicks(scene(), of(LEFT, BOTH), clicks, [True, True, False])
    np.testing.assert_array_equal(found.dense(0), LEFT)


# Boxes


def test_a_box_alone_is_as_any_box() -> None:
    proposals, box = of(BOTH, LEFT, RIGHT), [66, 21, 50, 50]
    found = mask_for_clicks(scene(), proposals, [], [], box)
    same = masks_for_boxes(scene(), proposals, [box])
    assert found.crop_rles == same.crop_rles
    np.testing.assert_array_equal(found.dense(0), RIGHT)


def test_clicks_correct_the_mask_of_a_box() -> None:
    box = [20, 20, 95, 50]
    whole = mask_for_clicks(scene(), of(BOTH), [], [], box)
    assert iou(whole, BOTH) > 0.95
    clicks = [(90, 45)]
    one = mask_for_clicks(scene(), of(BOTH), clicks, [False], box)
    assert iou(one, LEFT) > 0.85
    assert_agrees(one, clicks, [False])


def test_an_object_that_was_removed_can_be_clicked_again() -> None:
    box = [44, 44, 2, 2]
    clicks = [(44.5, 44.5), (45.5, 45.5), (44.5, 45.5), (45.5, 44.5)]
    with pytest.raises(MaskError, match="no object was found at the box"):
        mask_for_clicks(scene(), of(), clicks, [False] * 4, box)
    clicks.append((90, 45))
    found = mask_for_clicks(scene(), of(), clicks, [False] * 4 + [True], box)
    assert_agrees(found, clicks, [False] * 4 + [True])


def test_a_proposal_that_does_not_fit_the_box_is_not_taken() -> None:
    everything = np.ones((HEIGHT, WIDTH), np.bool_)
    everything[0, 0] = False
    clicks = [(45, 45), (60, 28)]
    found = mask_for_clicks(scene(), of(everything, LEFT), clicks, [True, True], [22, 22, 46, 46])
    assert iou(found, LEFT) > 0.9
    assert_agrees(found, clicks, [True, True])


# Nothing proposed


def test_without_proposals_the_foreground_around_the_click_is_found() -> None:
    for point, true in (((45, 45), LEFT), ((90, 45), RIGHT)):
        assert iou(mask_for_clicks(scene(), of(), [point], [True]), true) > 0.85


def test_clicks_tell_the_foreground_from_what_touches_it() -> None:
    clicks = [(90, 45), (45, 45), (90, 10)]
    found = mask_for_clicks(scene(), of(), clicks, [True, False, False])
    assert iou(found, RIGHT) > 0.9
    assert_agrees(found, clicks, [True, False, False])


def test_where_nothing_is_the_message_says_what_to_do() -> None:
    flat = Frame(np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    with pytest.raises(MaskError, match=r"no object was found at 30,40; outline it with a box"):
        mask_for_clicks(flat, of(), [(30, 40)], [True])
    with pytest.raises(MaskError, match=r"no object was found"):
        mask_for_clicks(flat, of(), [(0, 0)], [False], [0, 0, 1, 1])


clicked = st.tuples(
    st.integers(0, WIDTH * 2 - 1).map(lambda x: x / 2),
    st.integers(0, HEIGHT * 2 - 1).map(lambda y: y / 2),
)


@QUICK
@given(st.lists(clicked, min_size=1, max_size=6, unique_by=lambda p: (int(p[0]), int(p[1]))),
       st.data(), st.booleans(), st.booleans())  # fmt: skip
def test_the_mask_holds_every_positive_click_and_no_negative_one(
    clicks: list[tuple[float, float]], data: st.DataObject, boxed: bool, proposed: bool
) -> None:
    count = len(clicks)
    flags = data.draw(st.lists(st.booleans(), min_size=count, max_size=count))
    box = [15, 10, 70, 70] if boxed else None
    proposals = of(BOTH, LEFT, RIGHT, disc((20, 20), 4)) if proposed else of()
    try:
        found = mask_for_clicks(scene(), proposals, clicks, flags, box)
    except MaskError as error:
        said = "was found" if any(flags) or boxed else "needs a click on it"
        if said not in str(error):
            raise
        return
    assert_agrees(found, clicks, flags)
    again = mask_for_clicks(scene(), proposals, clicks, flags, box)
    assert again.crop_rles == found.crop_rles


@pytest.mark.parametrize("radius", [2, 20, 600])
def test_objects_of_any_size_are_corrected(radius: int) -> None:
    side = 2 * radius + 40
    y, x = np.ogrid[:side, :side]
    true = (x - side / 2) ** 2 + (y - side / 2) ** 2 <= radius**2
    image = np.where(true[..., None], (200, 60, 60), (60, 140, 60)).astype(np.uint8)
    half = true.copy()
    half[: side // 2] = False
    clicks = [(side / 2, side / 2 + radius / 2), (side / 2, side / 2 - radius / 2)]
    masks = Masks.from_dense(half)
    found = mask_for_clicks(Frame(image), masks, clicks, [True, True])
    before = float((half & true).sum() / true.sum())
    assert iou(found, true) > before + 0.2


# Which segmenter draws


class Proposing(Segmenter):
    def propose(self, frame: Frame, hints: Hints = NO_HINTS) -> Masks:
        return of(BOTH, LEFT, RIGHT)


class Pointed(Proposing):
    """Draws the right disc at any point, and the left one in any box."""

    def segment_boxes(self, frame: Frame, boxes_xywh: Any) -> Masks:
        return of(*[LEFT for _ in boxes_xywh])

    def segment_points(self, frame: Frame, points_xy: Any) -> Masks:
        return of(*[RIGHT for _ in points_xy])


class Clicked(Pointed):
    """Draws a disc of ten pixels at the first click."""

    def segment_clicks(
        self, frame: Frame, clicks_xy: Any, positive: Any, box_xywh: Any = None
    ) -> Masks:
        x, y = np.asarray(clicks_xy)[0]
        return of(disc((x, y), 10))


def drawn(segmenter: Segmenter, **given: Any) -> Masks:
    given = {"clicks_xy": [(45, 45)], "positive": [True], **given}
    return outline_clicks(scene(), segmenter, propose=segmenter.propose, **given)


def test_each_segmenter_draws_what_it_can() -> None:
    assert isinstance(Clicked(), ClickedSegmenter)
    assert not isinstance(Pointed(), ClickedSegmenter)
    assert isinstance(Pointed(), PromptedSegmenter)
    assert iou(drawn(Proposing()), BOTH) == 1
    assert iou(drawn(Pointed()), RIGHT) == 1
    two: dict[str, Any] = {"clicks_xy": [(45, 45), (90, 45)], "positive": [True, False]}
    assert iou(drawn(Pointed(), **two), LEFT) == 1, "it cannot draw from two clicks"
    assert iou(drawn(Clicked(), **two), disc((45, 45), 10)) == 1
    boxed: dict[str, Any] = {"clicks_xy": [], "positive": [], "box_xywh": [66, 21, 50, 50]}
    for segmenter in (Pointed(), Clicked()):
        assert iou(drawn(segmenter, **boxed), LEFT) == 1
    assert iou(drawn(Proposing(), **boxed), RIGHT) == 1


def test_the_pipeline_outlines_clicks() -> None:
    pipeline = SAMDetect(segmenter="naive", embedder="average", vector_store="memory").pipeline
    clicks, flags = [(90, 45), (45, 45)], [True, False]
    found = pipeline.outline_clicks(scene(), clicks, flags)
    assert iou(found, RIGHT) > 0.85
    assert_agrees(found, clicks, flags)
    boxed = pipeline.outline_clicks(scene(), [], [], [66, 21, 50, 50])
    usual = pipeline.outline(scene(), [[66, 21, 50, 50]]).masks
    assert boxed.crop_rles == usual.crop_rles


# Bad input


@pytest.mark.parametrize(
    ("clicks", "flags", "box", "said"),
    [
        ([], [], None, "needs a click on it or a box"),
        ([(5, 5)], [False], None, "needs a click on it or a box"),
        ([(5, 5)], [], None, "each of the 1 clicks needs a flag"),
        ([(5, 5)], [True, False], None, "each of the 1 clicks needs a flag"),
        ([(5, 5)], [2], None, "each of the 1 clicks needs a flag"),
        ([(5, 5)], ["yes"], None, "each of the 1 clicks needs a flag"),
        ([(5, 5)], None, None, "each of the 1 clicks needs a flag"),
        ([(WIDTH, 5)], [True], None, "lies outside the 140x90 picture"),
        ([(5, -0.1)], [True], None, "lies outside the 140x90 picture"),
        ([(float("nan"), 5)], [True], None, "two numbers x,y"),
        ([(5,)], [True], None, "two numbers x,y"),
        ([5, 5], [True, True], None, "two numbers x,y"),
        (None, [True], None, "clicks are a list of points"),
        (7, [True], None, "clicks are a list of points"),
        ([(5.2, 5), (5.8, 5)], [True, False], None, "5,5 is both on the object and off it"),
        ([(5, 5)], [True], [1, 2, 3], "a box is four numbers"),
        ([(5, 5)], [True], [500, 2, 3, 4], "no pixel inside the 140x90 picture"),
    ],
)
def test_what_cannot_be_a_click_is_refused(clicks: Any, flags: Any, box: Any, said: str) -> None:
    with pytest.raises(MaskError, match=said) as caught:
        mask_for_clicks(scene(), of(LEFT), clicks, flags, box)
    assert "\n" not in str(caught.value)
