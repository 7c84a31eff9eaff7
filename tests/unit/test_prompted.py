"""From boxes and points to masks."""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import QUICK, BoolArray

from sam_detect.errors import MaskError
from sam_detect.interfaces import Segmenter
from sam_detect.segmentation import NaiveSegmenter
from sam_detect.segmentation.prompted import (
    box_problem,
    clip_box,
    masks_for_boxes,
    masks_for_points,
    outline,
)
from sam_detect.types import NO_HINTS, Frame, Hints, Masks

HEIGHT, WIDTH = 80, 120


def disc(center_xy: tuple[float, float], radius: float) -> BoolArray:
    y, x = np.ogrid[:HEIGHT, :WIDTH]
    return np.asarray((x - center_xy[0]) ** 2 + (y - center_xy[1]) ** 2 <= radius**2)


RED, BLUE = disc((30, 40), 15), disc((85, 40), 20)


def scene() -> Frame:
    """A red and a blue disc on a green ground with a little noise."""
    image = np.full((HEIGHT, WIDTH, 3), (60, 140, 60), np.int16)
    image[RED], image[BLUE] = (200, 40, 40), (40, 40, 200)
    image += np.random.default_rng(0).integers(-8, 9, image.shape, dtype=np.int16)
    return Frame(image.clip(0, 255).astype(np.uint8))


def proposals() -> Masks:
    """Best first: the red disc, the blue disc, a part of the blue disc."""
    return Masks.from_dense(np.stack([RED, BLUE, disc((85, 40), 8)]))


def none() -> Masks:
    return Masks.empty((HEIGHT, WIDTH))


def box_of(mask: BoolArray, grow: float = 0) -> list[float]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    return [
        columns[0] - grow, rows[0] - grow,
        columns[-1] + 1 - columns[0] + 2 * grow, rows[-1] + 1 - rows[0] + 2 * grow,
    ]  # fmt: skip


def iou(a: BoolArray, b: BoolArray) -> float:
    return float((a & b).sum() / (a | b).sum())


# Boxes


def turned_scene(kind: str, degrees: float) -> tuple[Frame, BoolArray, npt.NDArray[np.float64]]:
    """A thing on a ground with a little noise, its mask, and the corners of its turned box."""
    (a, b), (cx, cy) = {"disc": (30, 30), "stick": (60, 8), "ellipse": (60, 24)}[kind], (100, 80)
    image = np.random.default_rng(0).normal(190, 10, (160, 200, 3))
    y, x = np.mgrid[:160, :200] + 0.5
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    u, v = (x - cx) * cos + (y - cy) * sin, (y - cy) * cos - (x - cx) * sin
    there = np.maximum(abs(u) / a, abs(v) / b) <= 0.5
    if kind != "stick":
        there = (u / a) ** 2 + (v / b) ** 2 <= 0.25
    image[there] -= (120, 90, 60)
    corners = np.array([(-a, -b), (a, -b), (a, b), (-a, b)]) / 2 @ [(cos, sin), (-sin, cos)]
    return Frame(image.clip(0, 255).astype(np.uint8)), there, corners + np.array([cx, cy])


@pytest.mark.parametrize("mirrored", [False, True])
@pytest.mark.parametrize("degrees", [0, 20, 45, 70, 90, 135])
@pytest.mark.parametrize(("kind", "least"), [("disc", 0.94), ("stick", 0.8), ("ellipse", 0.92)])
def test_a_turned_box_takes_what_is_in_it(
    kind: str, least: float, degrees: float, *, mirrored: bool
) -> None:
    frame, there, corners = turned_scene(kind, degrees)
    given = corners[::-1] if mirrored else corners
    segmenter, upright = NaiveSegmenter(), [2, 2, 9, 9]
    found = outline(frame, segmenter, propose=segmenter.propose,
                    boxes_xywh=[upright, given.ravel().tolist()])  # fmt: skip
    assert len(found.masks) == 2
    assert iou(found.masks.dense(1), there) > least
    assert found.fits[1]


@pytest.mark.parametrize("where", [(30, 30), (6, 80), (194, 155), (40.5, 130)])
def test_a_turned_box_around_nothing_is_a_guess(where: tuple[float, float]) -> None:
    frame, _, corners = turned_scene("disc", 45)
    moved = corners + np.subtract(where, (100, 80))
    segmenter = NaiveSegmenter()
    found = outline(frame, segmenter, propose=segmenter.propose, boxes_xywh=[moved.ravel()])
    assert not found.fits[0]
    plain = Frame(np.full((160, 200, 3), 90, np.uint8))
    found = outline(plain, segmenter, propose=segmenter.propose, boxes_xywh=[moved.ravel()])
    assert len(found.masks) == 1


@pytest.mark.parametrize(
    ("corners", "word"),
    [
        ([10, 10, 40, 10, 40, 30, 10, 60], "rectangle"), ([10, 10] * 4, "rectangle"),
        ([10, 10, 40, 40, 40, 40, 10, 10], "rectangle"),
        ([-90, 10, -60, 10, -60, 30, -90, 30], "no pixel inside"),
        ([9e6, 0, 9.1e6, 1e5, 9e6, 2e5, 8.9e6, 1e5], "no pixel inside"),
        ([float("nan")] * 8, "four numbers"), ([1e300, 0, 2e300, 0, 2e300, 9, 1e300, 9], "box"),
    ],
)  # fmt: skip
def test_other_corners_are_no_turned_box(corners: list[float], word: str) -> None:
    segmenter = NaiveSegmenter()
    with pytest.raises(MaskError, match=word):
        outline(scene(), segmenter, propose=segmenter.propose, boxes_xywh=[corners])


@pytest.mark.parametrize("size", [2, 5, 400, 9000, 1e6])
def test_turned_boxes_of_any_size_are_outlined(size: float) -> None:
    segmenter, half = NaiveSegmenter(), size / 2
    corners = np.array([(0, -half), (half, 0), (0, half), (-half, 0)]) + (60, 40)  # noqa: RUF005
    found = outline(scene(), segmenter, propose=segmenter.propose, boxes_xywh=[corners.ravel()])
    assert len(found.masks) == 1


@pytest.mark.parametrize("grow", [0, 2, -2, 0.4])
def test_a_box_takes_the_proposal_that_fits_it(grow: float) -> None:
    found = masks_for_boxes(scene(), proposals(), [box_of(BLUE, grow), box_of(RED, grow)])
    assert len(found) == 2
    np.testing.assert_array_equal(found.dense(0), BLUE)
    np.testing.assert_array_equal(found.dense(1), RED)


def test_a_box_that_no_proposal_fits_takes_the_foreground_in_it() -> None:
    for those in (none(), proposals()[2:]):
        found = masks_for_boxes(scene(), those, [box_of(BLUE, 2)])
        assert iou(found.dense(0), BLUE) > 0.9
        x, y, w, h = (int(v) for v in box_of(BLUE, 2))
        outside = found.dense(0)
        outside[y : y + h, x : x + w] = False
        assert not outside.any(), "nothing beyond the box"


def test_the_foreground_is_the_same_each_time() -> None:
    first, again = (masks_for_boxes(scene(), none(), [box_of(RED, 3)]) for _ in range(2))
    np.testing.assert_array_equal(first.dense(0), again.dense(0))


def test_a_box_without_a_foreground_is_filled_by_its_ellipse() -> None:
    frame = Frame(np.full((HEIGHT, WIDTH, 3), 90, np.uint8))
    mask = masks_for_boxes(frame, none(), [[20, 10, 60, 40]]).dense(0)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    ellipse = ((x - 49.5) / 30) ** 2 + ((y - 29.5) / 20) ** 2 <= 1
    assert iou(mask, ellipse) > 0.9


BOXES = {
    "one pixel": [5, 5, 1, 1],
    "less than a pixel": [5.2, 5.2, 0.1, 0.1],
    "one row": [5, 5, 60, 1],
    "one column": [5, 5, 1, 60],
    "two rows across": [0, 40, WIDTH, 2],
    "the whole picture": [0, 0, WIDTH, HEIGHT],
    "beyond the picture": [-1000, -1000, 3000, 3000],
    "over an edge": [100, 60, 50, 50],
    "the last pixel": [WIDTH - 1, HEIGHT - 1, 1, 1],
    "endless": [0, 0, 1e308, 1e308],
    "starting far away": [-1e308, 0, 1.7e308, 10],
}


@pytest.mark.parametrize("what", BOXES)
def test_any_box_with_a_pixel_in_the_picture_has_a_mask_inside_it(what: str) -> None:
    box = BOXES[what]
    mask = masks_for_boxes(scene(), none(), [box]).dense(0)
    assert mask.shape == (HEIGHT, WIDTH)
    x0, y0, x1, y1 = clip_box(box, (HEIGHT, WIDTH))
    inside = mask[y0:y1, x0:x1].sum()
    assert inside == mask.sum() > 0


@pytest.mark.parametrize("size_hw", [(1, 1), (1, 50), (50, 1), (2, 2000), (2000, 2), (3, 3)])
def test_a_box_in_a_picture_of_any_shape_has_a_mask(size_hw: tuple[int, int]) -> None:
    image = np.random.default_rng(0).integers(0, 256, (*size_hw, 3), dtype=np.uint8)
    height, width = size_hw
    for box in ([0, 0, width, height], [0, 0, max(1, width - 8), max(1, height - 8)]):
        found = masks_for_boxes(Frame(image), Masks.empty(size_hw), [box])
        assert found.areas[0] > 0


@QUICK
@given(st.floats(-50, 200), st.floats(-50, 150), st.floats(0.5, 150), st.floats(0.5, 150))
def test_a_clipped_box_covers_what_the_box_covers_of_the_picture(
    x: float, y: float, w: float, h: float
) -> None:
    columns = [i for i in range(WIDTH) if i + 1 > x and i < x + w]
    rows = [i for i in range(HEIGHT) if i + 1 > y and i < y + h]
    if not columns or not rows:
        with pytest.raises(MaskError, match="no pixel inside the 120x80 picture"):
            clip_box([x, y, w, h], (HEIGHT, WIDTH))
        return
    expected = (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)
    assert clip_box([x, y, w, h], (HEIGHT, WIDTH)) == expected


@pytest.mark.parametrize(
    "box",
    [
        [10, 10, 0, 5],
        [10, 10, 5, 0],
        [10, 10, -5, 5],
        [WIDTH, 0, 5, 5],
        [0, HEIGHT, 5, 5],
        [-10, 0, 10, 5],
        [1.7e308, 0, 1.7e308, 5],
        [float("nan"), 0, 5, 5],
        [0, 0, float("inf"), 5],
        [1, 2, 3],
        [1, 2, 3, 4, 5],
        [[1, 2, 3, 4]],
        [],
        ["a", "b", "c", "d"],
        [None] * 4,
        [[1], 2, 3, 4],
        None,
        7,
        "1,2,3,4",
    ],
    ids=repr,
)
def test_a_malformed_or_empty_box_is_refused(box: Any) -> None:
    with pytest.raises(MaskError, match="box") as caught:
        masks_for_boxes(scene(), proposals(), [box])
    assert "\n" not in str(caught.value)


# Thin things, and things with holes


def drawn_on(ground: str, mask: BoolArray, ink: tuple[int, int, int]) -> Frame:
    """A thing on light paper, on a dark one, or on a cloth of uneven light."""
    random = np.random.default_rng(3)
    if ground == "cloth":
        shade = cv2.GaussianBlur(random.normal(0, 1, mask.shape), (0, 0), 3)
        image = 150 + 10 * (shade / shade.std())[..., None] + random.normal(0, 4, (*mask.shape, 3))
    else:
        image = random.normal(220 if ground == "light" else 40, 5, (*mask.shape, 3))
    image[mask] = np.array(ink) + random.normal(0, 5, (int(mask.sum()), 1))
    return Frame(image.clip(0, 255).astype(np.uint8))


def lines(*ends: tuple[int, int, int, int], width: int) -> BoolArray:
    mask = np.zeros((140, 160), np.uint8)
    for x0, y0, x1, y1 in ends:
        cv2.line(mask, (x0, y0), (x1, y1), 1, width)
    return mask > 0


THIN = {
    **{
        f"stick of {width} at {angle}": lines(
            (80 - round(length * math.cos(math.radians(angle))),
             70 - round(length * math.sin(math.radians(angle))),
             80 + round(length * math.cos(math.radians(angle))),
             70 + round(length * math.sin(math.radians(angle)))), width=width)
        for width, length in ((3, 50), (6, 30))
        for angle in (15, 45)
    },
    "L": lines((50, 30, 50, 110), (50, 110, 120, 110), width=5),
    "Y": lines((80, 70, 80, 115), (80, 70, 45, 30), (80, 70, 115, 30), width=5),
}  # fmt: skip


@pytest.mark.parametrize("ground", ["light", "dark", "cloth"])
def test_a_box_around_a_thin_thing_takes_that_thing(ground: str) -> None:
    for name, mask in THIN.items():
        frame = drawn_on(ground, mask, (215, 205, 190) if ground == "dark" else (40, 50, 90))
        boxes = [box_of(mask), box_of(mask, 2)]
        for those in (Masks.empty(frame.size_hw), NaiveSegmenter().propose(frame)):
            found = outline(frame, Proposing(), propose=lambda _, m=those: m, boxes_xywh=boxes)
            assert found.fits.all(), f"{name} is no guess"
            for index in range(2):
                assert iou(found.masks.dense(index), mask) >= 0.5, f"{name}, box {index}"


def test_where_the_colours_say_nothing_the_box_chooses() -> None:
    """A stick among many: what is around the box has its colours, too."""
    frame = Frame(np.full((140, 160, 3), 90, np.uint8))
    for name, mask in THIN.items():
        part = mask.copy()
        part[:, 80:] = False
        those = Masks.from_dense(np.stack([part, mask]))
        found = outline(frame, Proposing(), propose=lambda _, m=those: m, boxes_xywh=[box_of(mask)])
        np.testing.assert_array_equal(found.masks.dense(0), mask, err_msg=name)
        assert found.fits.all()


@pytest.mark.parametrize("ground", ["light", "dark", "cloth"])
@pytest.mark.parametrize("hole", [13, 18, 24, 27])
def test_a_box_and_a_point_keep_the_hole_of_a_ring(ground: str, hole: int) -> None:
    y, x = np.mgrid[:140, :160]
    mask = (np.hypot(x - 80, y - 70) <= 30) & (np.hypot(x - 80, y - 70) > hole)
    frame = drawn_on(ground, mask, (215, 205, 190) if ground == "dark" else (40, 50, 90))
    those = NaiveSegmenter().propose(frame)
    boxes, point = [box_of(mask), box_of(mask, 3)], (80 - 28, 70)
    found = outline(frame, NaiveSegmenter(), propose=lambda _: those,
                    boxes_xywh=boxes, points_xy=[point])  # fmt: skip
    for index in range(3):
        assert iou(found.masks.dense(index), mask) > 0.65
    assert found.fits.all()


def test_a_box_fills_a_disc_with_a_reflection() -> None:
    y, x = np.mgrid[:140, :160]
    mask, spot = np.hypot(x - 80, y - 70) <= 30, np.hypot(x - 88, y - 64) <= 11
    for ground, ink in (
        ("light", (50, 50, 60)),
        ("cloth", (60, 70, 120)),
        ("dark", (150, 140, 130)),
    ):
        image = drawn_on(ground, mask, ink).image_rgb.copy()
        image[spot] = 252
        frame = Frame(image)
        those = NaiveSegmenter().propose(frame)
        found = masks_for_boxes(frame, those, [box_of(mask)])
        assert iou(found.dense(0), mask) > 0.9, ground


# Whoever draws them


class Proposing(Segmenter):
    """Proposes the discs; draws nothing."""

    def propose(self, frame: Frame, hints: Hints = NO_HINTS) -> Masks:
        return proposals()


class Drawing(Proposing):
    """Fills boxes that begin right of 50 and finds nothing in others; points are a pixel."""

    def segment_boxes(self, frame: Frame, boxes_xywh: Any) -> Masks:
        dense = np.zeros((len(boxes_xywh), HEIGHT, WIDTH), np.bool_)
        for mask, (x, y, w, h) in zip(dense, boxes_xywh, strict=True):
            mask[int(y) : int(y + h), int(x) : int(x + w)] = x > 50
        return Masks.from_dense(dense, size_hw=frame.size_hw)

    def segment_points(self, frame: Frame, points_xy: Any) -> Masks:
        dense = np.zeros((len(points_xy), HEIGHT, WIDTH), np.bool_)
        for mask, (x, y) in zip(dense, points_xy, strict=True):
            mask[y, x] = True
        return Masks.from_dense(dense, size_hw=frame.size_hw)


def test_a_segmenter_that_draws_is_asked_and_nothing_is_proposed() -> None:
    boxes = [[60, 10, 20, 30], [90, 50, 10, 10]]
    found = outline(scene(), Drawing(), propose=pytest.fail, boxes_xywh=boxes,
                    points_xy=[(30, 40)]).masks  # fmt: skip
    assert found.boxes_xyxy.tolist() == [[60, 10, 80, 40], [90, 50, 100, 60], [30, 40, 31, 41]]


def test_a_box_in_which_nothing_is_drawn_takes_its_foreground() -> None:
    boxes = [box_of(BLUE, 2), box_of(RED, 2)]
    found = outline(scene(), Drawing(), propose=pytest.fail, boxes_xywh=boxes).masks
    assert found.boxes_xyxy[0].tolist() == [63, 18, 108, 63], "drawn: the box itself"
    assert iou(found.dense(1), RED) > 0.9
    with pytest.raises(MaskError, match="no pixel inside"):
        outline(scene(), Drawing(), propose=pytest.fail, boxes_xywh=[boxes[0], [500, 0, 5, 5]])


def test_of_boxes_that_fit_their_outlines_nothing_is_said() -> None:
    boxes = [box_of(BLUE, 2), box_of(RED, -2)]
    found = outline(scene(), Proposing(), propose=Proposing().propose, boxes_xywh=boxes,
                    points_xy=[(30, 40)])  # fmt: skip
    assert found.fits.all()
    assert (found.box_ious[:2] > 0.7).all()
    assert np.isnan(found.box_ious[2])
    assert found.problems(boxes) == []


def test_a_box_that_no_proposal_fits_is_named() -> None:
    boxes = [box_of(BLUE), [50, 5, 12, 12]]
    found = outline(scene(), Proposing(), propose=Proposing().propose, boxes_xywh=boxes)
    assert found.fits.tolist() == [True, False]
    [line] = found.problems(boxes)
    assert line.startswith("box 2 (50,5,12,12): no object that was proposed fits it")


def test_a_drawn_outline_that_does_not_fit_its_box_is_named() -> None:
    class Elsewhere(Drawing):
        def segment_boxes(self, frame: Frame, boxes_xywh: Any) -> Masks:
            return Masks.from_dense(np.stack([RED] * len(boxes_xywh)))

    boxes = [box_of(RED), [60, 5, 30, 30]]
    found = outline(scene(), Elsewhere(), propose=pytest.fail, boxes_xywh=boxes)
    assert found.fits.tolist() == [True, False]


def test_of_two_proposals_in_one_box_the_one_in_the_colours_of_the_object_is_taken() -> None:
    wall = np.zeros((HEIGHT, WIDTH), np.bool_)
    wall[20:60, 65:105] = True
    for order in ([wall, BLUE], [BLUE, wall]):
        box = box_of(wall)
        found = masks_for_boxes(scene(), Masks.from_dense(np.stack(order)), [box])
        np.testing.assert_array_equal(found.dense(0), BLUE)


@pytest.mark.parametrize(
    ("box", "words"),
    [
        ([10, 10, 20, 20], ""),
        ([2, 0, WIDTH - 2, HEIGHT], ""),
        ([0, 0, WIDTH, HEIGHT - 2], ""),
        ([0, 0, WIDTH, HEIGHT], "covers the whole picture"),
        ([-1, -0.5, WIDTH + 1, HEIGHT + 1], "covers the whole picture"),
        ([60, 30, 110, 70], "two corners: as x,y,w,h it would be 60,30,50,40"),
        ([-5, 10, 20, 20], "leaves the 120x80 picture: only"),
        ([60, 30, 50, 70], "leaves the 120x80 picture: only"),
        ([100, 10, 40, 20], "leaves the 120x80 picture: only"),
        (["a", 1, 2, 3], ""),
    ],
    ids=repr,
)
def test_a_box_that_may_not_mean_what_it_says(box: Any, words: str) -> None:
    said = box_problem(box, (HEIGHT, WIDTH))
    assert words in said
    assert bool(words) == bool(said)


@pytest.mark.parametrize("segmenter", [Proposing(), Drawing()])
@pytest.mark.parametrize(
    ("box", "pixels"),
    [([0.5, 0.25, 0.1, 0.5], "60,20,12,40"), ([0, 0, 1, 1], "0,0,120,80")],
    ids=repr,
)
def test_a_box_in_fractions_is_refused(segmenter: Segmenter, box: Any, pixels: str) -> None:
    with pytest.raises(MaskError, match=f"fractions of the picture: give it in pixels, {pixels}$"):
        outline(scene(), segmenter, propose=Proposing().propose, boxes_xywh=[box_of(RED), box])


def test_the_box_of_a_find_means_that_find_and_no_other_outline_in_it() -> None:
    wall = np.zeros((HEIGHT, WIDTH), np.bool_)
    wall[20:60, 64:105] = True
    for order in ([wall, BLUE], [BLUE, wall]):
        propose = partial(lambda masks, _: masks, Masks.from_dense(np.stack(order)))
        for segmenter in (Proposing(), Drawing()):
            boxes = [box_of(RED, 1), box_of(wall)]
            found = outline(scene(), segmenter, propose=propose, boxes_xywh=boxes, of_finds=True)
            np.testing.assert_array_equal(found.masks.dense(1), wall)
            assert found.box_ious[1] == 1
            assert found.fits[1]
            assert iou(found.masks.dense(0), RED) > 0.7
            taught = outline(scene(), Proposing(), propose=propose, boxes_xywh=boxes)
            np.testing.assert_array_equal(taught.masks.dense(1), BLUE)


def test_for_another_segmenter_its_proposals_are_chosen_among() -> None:
    found = outline(scene(), Proposing(), propose=Proposing().propose,
                    boxes_xywh=[box_of(BLUE, 2)], points_xy=[(30, 40)]).masks  # fmt: skip
    np.testing.assert_array_equal(found.dense(0), BLUE)
    np.testing.assert_array_equal(found.dense(1), RED)


@pytest.mark.parametrize("segmenter", [Proposing(), Drawing()])
def test_where_nobody_points_nothing_is_proposed(segmenter: Segmenter) -> None:
    found = outline(scene(), segmenter, propose=pytest.fail).masks
    assert (len(found), found.size_hw) == (0, (HEIGHT, WIDTH))


# Points


def test_a_point_takes_the_best_proposal_that_covers_it() -> None:
    found = masks_for_points(scene(), proposals(), [(85, 40), (30, 40), (85.9, 58.2)])
    np.testing.assert_array_equal(found.dense(0), BLUE)
    np.testing.assert_array_equal(found.dense(1), RED)
    np.testing.assert_array_equal(found.dense(2), BLUE)
    reversed_ = masks_for_points(scene(), proposals()[::-1], [(85, 40)])
    np.testing.assert_array_equal(reversed_.dense(0), disc((85, 40), 8))


def test_a_point_means_what_lies_on_the_ground_and_not_the_ground() -> None:
    ground = np.ones((HEIGHT, WIDTH), bool)
    both = Masks.from_dense(np.stack([ground, RED]))
    assert np.array_equal(masks_for_points(scene(), both, [(30, 40)]).dense(0), RED)
    only = masks_for_points(scene(), both, [(100, 70)])
    assert only.areas[0] == HEIGHT * WIDTH, "where nothing lies the ground is meant"
    large = np.zeros((HEIGHT, WIDTH), bool)
    large[10:70, 10:110] = True
    found = masks_for_points(scene(), Masks.from_dense(np.stack([large, RED])), [(30, 40)])
    assert found.areas[0] == large.sum(), "an object may be large, if it is whole"


def test_a_point_in_a_proposals_box_but_not_on_it_is_not_covered() -> None:
    assert not RED[26, 16]
    with pytest.raises(MaskError, match="no object was found at 16,26"):
        masks_for_points(scene(), proposals(), [(16, 26)])


def test_a_point_that_nothing_covers_names_the_way_out() -> None:
    for those in (none(), proposals()):
        with pytest.raises(MaskError, match=r"no object was found at 3,4.*--box"):
            masks_for_points(scene(), those, [(3, 4)])


@pytest.mark.parametrize(
    "point",
    [(-1, 5), (5, -1), (WIDTH, 5), (5, HEIGHT), (-0.5, 5), (5, -0.01), (1e300, 5)],
    ids=repr,
)
def test_a_point_outside_the_picture_is_refused(point: tuple[float, float]) -> None:
    everything = Masks.from_dense(np.ones((HEIGHT, WIDTH), np.bool_))
    with pytest.raises(MaskError, match="outside the 120x80 picture"):
        masks_for_points(scene(), everything, [point])


@pytest.mark.parametrize(
    "point",
    [(float("nan"), 5), (5, float("inf")), (5,), (5, 5, 5), (), ("a", "b"), None, 5, (None, 1)],
    ids=repr,
)
def test_a_malformed_point_is_refused(point: Any) -> None:
    with pytest.raises(MaskError, match="point"):
        masks_for_points(scene(), proposals(), [point])


@pytest.mark.parametrize("ask", [masks_for_boxes, masks_for_points])
def test_asking_for_nothing_gives_nothing(ask: Any) -> None:
    found = ask(scene(), proposals(), [])
    assert len(found) == 0
    assert found.size_hw == (HEIGHT, WIDTH)


def test_neither_the_picture_nor_the_proposals_change() -> None:
    frame, those = scene(), proposals()
    image: npt.NDArray[np.uint8] = frame.image_rgb.copy()
    boxes = those.boxes_xyxy.copy()
    masks_for_boxes(frame, those, [box_of(BLUE), [1, 1, 70, 30]])
    masks_for_points(frame, those, [(85, 40)])
    np.testing.assert_array_equal(frame.image_rgb, image)
    np.testing.assert_array_equal(those.boxes_xyxy, boxes)
