"""Editing outlines by hand, against slow references that say the same in a loop."""

from __future__ import annotations

import tracemalloc
from itertools import pairwise
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from strategies import QUICK, BoolArray, masks_hw

from sam_detect.errors import MaskError
from sam_detect.server.cutting import OFF_CENTRES, parts_along
from sam_detect.server.editing import (
    LEAST_RADIUS,
    brush,
    merged,
    reshape,
    simplified,
    split,
)
from sam_detect.types import Masks
from sam_detect.types.polygons import polygons_to_mask

LARGE = (10_000, 10_000)
coordinates = st.floats(-4, 16) | st.integers(-4, 16).map(float) | st.integers(-8, 32).map(
    lambda doubled: doubled / 2
)  # fmt: skip
points = st.tuples(coordinates, coordinates)


def disc(size_hw: tuple[int, int], center_xy: tuple[float, float], radius: float) -> BoolArray:
    y, x = np.ogrid[: size_hw[0], : size_hw[1]]
    cx, cy = center_xy
    return np.asarray((x + 0.5 - cx) ** 2 + (y + 0.5 - cy) ** 2 <= radius**2)


def square(size_hw: tuple[int, int], box_xyxy: tuple[int, int, int, int]) -> Masks:
    x0, y0, x1, y1 = box_xyxy
    crop = np.ones((y1 - y0, x1 - x0), np.bool_)
    return Masks.from_crops(size_hw=size_hw, boxes_xyxy=[box_xyxy], crops=[crop])


def distance(x: float, y: float, a: Any, b: Any) -> float:
    """From a point to a line segment."""
    along = np.subtract(b, a)
    length = float(along @ along)
    share = float(np.clip(np.subtract((x, y), a) @ along / length, 0, 1)) if length else 0.0
    return float(np.hypot(*(np.subtract((x, y), a) - share * along)))


def near_stroke(size_hw: tuple[int, int], stroke: Any, radius: float) -> Any:
    """``(H, W)`` distance of each pixel's centre to the stroke, less the radius."""
    pairs = list(pairwise(stroke)) or [(stroke[0], stroke[0])]
    return np.array([
        [min(distance(x + 0.5, y + 0.5, *pair) for pair in pairs) for x in range(size_hw[1])]
        for y in range(size_hw[0])
    ]) - radius  # fmt: skip


def assert_drawn(mask: Masks) -> None:
    assert len(mask) == 1
    assert mask.predicted_ious.tolist() == mask.stabilities.tolist() == [1.0]
    assert np.isnan(mask.prompts_xy).all()
    dense = mask.dense(0)
    rows, columns = np.flatnonzero(dense.any(axis=1)), np.flatnonzero(dense.any(axis=0))
    assert mask.boxes_xyxy[0].tolist() == [columns[0], rows[0], columns[-1] + 1, rows[-1] + 1]


# The brush


@QUICK
@given(masks_hw(some_pixel=True), st.lists(points, min_size=1, max_size=4), st.floats(0.1, 6))
def test_a_stroke_paints_the_pixels_that_are_near_its_line(
    dense: BoolArray, stroke: list[tuple[float, float]], radius: float
) -> None:
    gaps = near_stroke(dense.shape, stroke, max(radius, LEAST_RADIUS))
    sure = np.abs(gaps) > 1e-6
    painted = brush(Masks.from_dense(dense), stroke, radius, erase=False)
    assert_drawn(painted)
    np.testing.assert_array_equal(painted.dense(0)[sure], (dense | (gaps <= 0))[sure])


@QUICK
@given(masks_hw(some_pixel=True), st.lists(points, min_size=1, max_size=4), st.floats(0.1, 6))
def test_a_stroke_erases_the_pixels_that_are_near_its_line(
    dense: BoolArray, stroke: list[tuple[float, float]], radius: float
) -> None:
    gaps = near_stroke(dense.shape, stroke, max(radius, LEAST_RADIUS))
    assume((np.abs(gaps) > 1e-6).all())
    expected = dense & (gaps > 0)
    if not expected.any():
        with pytest.raises(MaskError, match="nothing would be left"):
            brush(Masks.from_dense(dense), stroke, radius, erase=True)
        return
    erased = brush(Masks.from_dense(dense), stroke, radius, erase=True)
    assert_drawn(erased)
    left = erased.dense(0)
    assert not (left & ~expected).any()
    # masks of fewer than 20 pixels have no specks; others lose 5 % at most for each
    assert expected.sum() >= 20 or (left == expected).all()


def test_half_a_pixel_further_is_another_stroke() -> None:
    mask = square((20, 20), (0, 0, 1, 1))
    here = brush(mask, [(10.5, 10.5)], 0.8, erase=False)
    between = brush(mask, [(10.0, 10.5)], 0.8, erase=False)
    assert here.areas[0] == 1 + 1
    assert between.areas[0] == 1 + 2


def test_any_dab_covers_the_pixel_that_it_is_on() -> None:
    mask = square((20, 20), (0, 0, 1, 1))
    for point in [(10.01, 10.99), (10.99, 10.99), (10.5, 10.01)]:
        assert brush(mask, [point], 1e-9, erase=False).dense(0)[10, 10]


def test_a_wide_stroke_over_the_border_is_clipped() -> None:
    painted = brush(square((30, 40), (10, 10, 12, 12)), [(-1e6, 15), (1e6, 15)], 4, erase=False)
    assert painted.boxes_xyxy[0].tolist() == [0, 10, 40, 19]
    assert painted.areas[0] == 8 * 40 + 2


def test_a_stroke_that_misses_the_object_erases_nothing() -> None:
    mask = square((30, 40), (10, 10, 12, 12))
    for erase in (True, False):
        missed = brush(mask, [(-50, -50), (-60, -50)], 4, erase=erase)
        assert missed.boxes_xyxy.tolist() == mask.boxes_xyxy.tolist()
        assert missed.crop_rles == mask.crop_rles


def test_an_erased_stroke_leaves_both_halves_and_drops_its_specks() -> None:
    mask = square((60, 60), (5, 5, 55, 55))
    halves = brush(mask, [(30, 0), (30, 60)], 3, erase=True)
    assert halves.areas[0] == 50 * 44
    cornered = brush(mask, [(5, 9), (9, 5)], 1, erase=True).dense(0)
    assert not cornered[5:7, 5:7].any(), "a corner of a few pixels is cut off"
    before = mask.dense(0)
    before[0, 0] = True
    kept = brush(Masks.from_dense(before), [(30, 0), (30, 60)], 3, erase=True)
    assert kept.dense(0)[0, 0], "a pixel that the stroke did not cut off stays"


def test_a_hole_is_painted_shut_and_a_hole_is_erased() -> None:
    ring = disc((60, 60), (30, 30), 25) & ~disc((60, 60), (30, 30), 8)
    filled = brush(Masks.from_dense(ring), [(30, 30)], 9, erase=False)
    np.testing.assert_array_equal(filled.dense(0), disc((60, 60), (30, 30), 25))
    holed = brush(filled, [(30, 30)], 8, erase=True)
    np.testing.assert_array_equal(holed.dense(0), ring)


# Reshaping


def test_rings_with_holes_make_the_mask_they_came_from() -> None:
    dense = disc((50, 70), (30, 25), 20) & ~disc((50, 70), (33, 22), 7) | disc((50, 70), (60, 9), 6)
    rings = [ring for polygon in Masks.from_dense(dense).polygons_with_holes(0) for ring in polygon]
    assert len(rings) == 3
    again = reshape(rings[::-1], dense.shape)
    assert_drawn(again)
    np.testing.assert_array_equal(again.dense(0), dense)


@QUICK
@given(st.lists(st.lists(points, min_size=3, max_size=6), min_size=1, max_size=3))
def test_any_rings_are_their_even_odd_area(rings: list[list[tuple[float, float]]]) -> None:
    arrays = [np.array(ring) for ring in rings]
    expected = polygons_to_mask([tuple(arrays)], (12, 12))
    if not expected.any():
        with pytest.raises(MaskError, match="no pixel inside the picture"):
            reshape(rings, (12, 12))
        return
    np.testing.assert_array_equal(reshape(rings, (12, 12)).dense(0), expected)


def test_an_outline_that_crosses_itself_has_both_its_lobes() -> None:
    bow = [(0, 0), (20, 20), (20, 0), (0, 20)]
    dense = reshape([bow], (20, 20)).dense(0)
    assert dense[10, 2]
    assert dense[10, 17]
    assert not dense[2, 10]


# Splitting


def reference_parts(dense: BoolArray, line: Any) -> list[set[tuple[int, int]]]:
    """Flood fill over links (sides and corners) that cross the line an even number of times."""
    moved = np.asarray(line, float) + OFF_CENTRES

    def cross(a: Any, b: Any, c: Any) -> float:
        return float((b[0] - a[0]) * (c[1] - a[1]) - (b[1] - a[1]) * (c[0] - a[0]))

    def crossings(one: Any, other: Any) -> int:
        a, b = np.add(one[::-1], 0.5), np.add(other[::-1], 0.5)
        return sum(
            (cross(a, b, p) > 0) != (cross(a, b, q) > 0)
            and (cross(p, q, a) > 0) != (cross(p, q, b) > 0)
            for p, q in pairwise(moved)
        )

    waiting, parts = {(int(y), int(x)) for y, x in np.argwhere(dense)}, []
    while waiting:
        part, border = set(), [waiting.pop()]
        while border:
            y, x = border.pop()
            part.add((y, x))
            for dy, dx in [(0, 1), (1, 0), (0, -1), (-1, 0)]:
                there = (y + dy, x + dx)
                if there in waiting and crossings((y, x), there) % 2 == 0:
                    waiting.remove(there)
                    border.append(there)
        parts.append(part)
    return parts


@QUICK
@given(st.integers(1, 12), st.integers(1, 12), st.lists(points, min_size=2, max_size=4))
def test_a_line_cuts_where_no_way_leads_around_it(
    height: int, width: int, line: list[tuple[float, float]]
) -> None:
    dense = np.ones((height, width), np.bool_)
    labels = parts_along(dense, np.array(line))
    ours = {frozenset(map(tuple, np.argwhere(labels == i).tolist())) for i in np.unique(labels)}
    assert ours == {frozenset(part) for part in reference_parts(dense, line)}


@QUICK
@given(masks_hw(some_pixel=True), st.lists(points, min_size=2, max_size=4))
def test_the_parts_of_a_mask_are_the_mask(
    dense: BoolArray, line: list[tuple[float, float]]
) -> None:
    labels = parts_along(dense, np.array(line))
    sizes = np.sort(np.bincount(labels.ravel())[1:])[::-1]
    if len(sizes) < 2:
        with pytest.raises(MaskError, match="does not separate"):
            split(Masks.from_dense(dense), line, dense.shape)
        return
    if sizes[1] <= 0.05 * sizes.sum():
        return  # perhaps all but the largest are specks, which may join it
    parts = split(Masks.from_dense(dense), line, dense.shape)
    assert len(parts) >= 2
    for part in parts:
        assert_drawn(part)
    shown = np.sum([part.dense(0) for part in parts], axis=0)
    np.testing.assert_array_equal(shown, dense)
    areas = [int(part.areas[0]) for part in parts]
    assert areas == sorted(areas, reverse=True)


@pytest.mark.parametrize("x", [30, 30.25, 30.5, 30.75])
def test_a_line_between_or_through_pixels_loses_none(x: float) -> None:
    left, right = split(square((60, 60), (10, 10, 50, 50)), [(x, 0), (x, 60)], (60, 60))
    assert left.areas[0] + right.areas[0] == 1600
    assert {int(left.boxes_xyxy[0][2]), int(right.boxes_xyxy[0][2])} in ({30, 50}, {31, 50})


def test_two_touching_discs_are_cut_where_they_touch() -> None:
    one, other = disc((60, 100), (30, 30), 20), disc((60, 100), (68, 30), 20)
    first, second = split(Masks.from_dense(one | other), [(49, 0), (49, 60)], (60, 100))
    found = sorted([first, second], key=lambda m: int(m.boxes_xyxy[0][0]))
    for mask, true in zip(found, (one, other), strict=True):
        dense = mask.dense(0)
        assert (dense & true).sum() / (dense | true).sum() > 0.98


def test_a_line_into_a_hole_separates_only_with_a_second_one() -> None:
    ring = Masks.from_dense(disc((60, 60), (30, 30), 25) & ~disc((60, 60), (30, 30), 10))
    with pytest.raises(MaskError, match="does not separate the object"):
        split(ring, [(30, 0), (30, 30)], (60, 60))
    assert len(split(ring, [(30, 0), (30, 30), (60, 30)], (60, 60))) == 2
    assert len(split(ring, [(30, 0), (30, 60)], (60, 60))) == 2


def test_a_line_that_ends_inside_or_misses_does_not_separate() -> None:
    mask = square((60, 60), (10, 10, 50, 50))
    for line in ([(30, 0), (30, 40)], [(0, 5), (60, 5)], [(20, 20), (40, 40)]):
        with pytest.raises(MaskError, match="does not separate"):
            split(mask, line, (60, 60))


def test_a_cut_off_speck_stays_with_its_neighbour() -> None:
    mask = square((60, 60), (10, 10, 50, 50))
    with pytest.raises(MaskError, match="does not separate"):
        split(mask, [(8, 14), (14, 8)], (60, 60))
    parts = split(mask, [(8, 14), (14, 8), (30, 0), (30, 60)], (60, 60))
    assert [int(part.areas[0]) for part in parts] == [800, 800]


def test_parts_that_lie_apart_are_separated_only_by_a_line_between_them() -> None:
    dense = np.zeros((60, 100), np.bool_)
    dense[10:50, 10:50], dense[20:40, 60:80] = True, True
    mask = Masks.from_dense(dense)
    assert [int(m.areas[0]) for m in split(mask, [(55, 0), (55, 60)], (60, 100))] == [1600, 400]
    halves = split(mask, [(0, 20), (52, 20)], (60, 100))
    assert [int(m.areas[0]) for m in halves] == [1200 + 400, 400]


def test_an_object_of_few_pixels_can_be_split() -> None:
    parts = split(square((9, 9), (2, 2, 6, 4)), [(4, 0), (4, 9)], (9, 9))
    assert [int(part.areas[0]) for part in parts] == [4, 4]


# Merging


@QUICK
@given(st.data(), st.integers(1, 4))
def test_a_merged_mask_is_the_union(data: st.DataObject, count: int) -> None:
    first = data.draw(masks_hw(some_pixel=True))
    dense = [first] + [np.roll(first, (i, 2 * i), (0, 1)) for i in range(1, count)]
    found = merged(Masks.from_dense(np.stack(dense)))
    assert_drawn(found)
    np.testing.assert_array_equal(found.dense(0), np.logical_or.reduce(dense))


def test_nothing_is_merged_of_nothing() -> None:
    with pytest.raises(MaskError, match="at least one object"):
        merged(Masks.empty((5, 5)))


# Simplifying


def test_less_detail_has_fewer_corners_and_a_bounded_error() -> None:
    import shapely

    dense = disc((200, 200), (100, 100), 80) & ~disc((200, 200), (110, 100), 30)
    polygons = Masks.from_dense(dense).polygons_with_holes(0)
    rings = [ring for polygon in polygons for ring in polygon]
    assert [each.tolist() for each in simplified(polygons, 1)] == [each.tolist() for each in rings]
    corners = []
    for detail in (1, 0.8, 0.5, 0.2, 0):
        simple = simplified(polygons, detail)
        assert len(simple) == 2
        shape = shapely.Polygon(simple[0], simple[1:])
        assert shape.is_valid
        limit = 0.1 * (1 - detail) ** 2 * np.sqrt(dense.sum()) * 1.01
        for before, after in zip(rings, simple, strict=True):
            gaps = shapely.distance(shapely.points(before), shapely.linearrings(after))
            assert gaps.max() <= limit
        corners.append(sum(map(len, simple)))
    assert corners == sorted(corners, reverse=True)
    assert corners[-1] < corners[0] / 5


@QUICK
@given(masks_hw(some_pixel=True), st.floats(0, 1))
def test_simplified_outlines_stay_valid(dense: BoolArray, detail: float) -> None:
    import shapely

    mask = Masks.from_dense(dense)
    rings = [ring for polygon in mask.polygons_with_holes(0) for ring in polygon]
    simple = simplified(mask.polygons_with_holes(0), detail)
    assert len(simple) == len(rings), "no part and no hole vanishes"
    assert all(len(ring) >= 3 for ring in simple)
    assert shapely.is_valid(shapely.polygons([shapely.linearrings(r) for r in simple])).all()
    assert sum(map(len, simple)) <= sum(map(len, rings)) + 8


# Large pictures and bad input


def test_small_objects_of_a_large_picture_take_little_memory() -> None:
    mask = square(LARGE, (9_000, 9_000, 9_040, 9_040))
    tracemalloc.start()
    try:
        painted = brush(mask, [(8_990, 9_020), (9_050, 9_020)], 5, erase=False)
        erased = brush(mask, [(9_020, 9_020), (0, 9_020)], 5, erase=True)
        parts = split(mask, [(0, 0), (9_020, 9_000), (9_020, 9_999)], LARGE)
        shown = reshape(mask.polygons(0), LARGE)
        whole = merged(Masks.concatenate([painted, *parts]))
        simplified(mask.polygons_with_holes(0), 0.1)
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < 4_000_000
    assert all(each.size_hw == LARGE for each in (painted, erased, *parts, shown, whole))
    assert [int(part.areas[0]) for part in parts] == [800, 800]
    assert whole.areas[0] == painted.areas[0] > 1600 > erased.areas[0]


NUMBERS: list[Any] = [None, "x", [], [[1]], [[1, 2, 3]], [[float("nan"), 1]], [[1e300, 1]], 7]


@pytest.mark.parametrize("given_points", NUMBERS, ids=repr)
def test_malformed_points_are_refused_in_one_line(given_points: Any) -> None:
    mask = square((20, 20), (5, 5, 15, 15))
    for edit in (
        lambda: brush(mask, given_points, 2, erase=False),
        lambda: split(mask, given_points, (20, 20)),
        lambda: reshape([given_points], (20, 20)),
    ):
        with pytest.raises(MaskError) as caught:
            edit()
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize("radius", [0, -1, float("nan"), float("inf")])
def test_a_brush_without_a_radius_is_refused(radius: float) -> None:
    with pytest.raises(MaskError, match="radius"):
        brush(square((20, 20), (5, 5, 15, 15)), [(3, 3)], radius, erase=False)


def test_what_cannot_be_edited_is_said() -> None:
    mask = square((20, 20), (5, 5, 15, 15))
    two = Masks.concatenate([mask, mask])
    with pytest.raises(MaskError, match="one mask is edited at a time, got 2"):
        brush(two, [(3, 3)], 2, erase=False)
    with pytest.raises(MaskError, match="20x20 picture does not fit one of 30x20"):
        split(mask, [(0, 0), (9, 9)], (20, 30))
    with pytest.raises(MaskError, match="at least one ring"):
        reshape([], (20, 20))
    with pytest.raises(MaskError, match="too long"):
        brush(
            square(LARGE, (5, 5, 9, 9)), np.tile([[0, 0], [9e3, 9e3]], (9_000, 1)), 9, erase=False
        )


def test_a_stroke_on_nothing_is_a_new_object() -> None:
    none = Masks.empty((40, 50))
    made = brush(none, [(10, 10), (30, 10)], 4, erase=False)
    assert made.boxes_xyxy[0].tolist() == [6, 6, 34, 14]
    with pytest.raises(MaskError, match="outside"):
        brush(none, [(900, 10)], 4, erase=False)
    with pytest.raises(MaskError, match="one mask"):
        brush(none, [(10, 10)], 4, erase=True)


def hatching(side: int, step: float) -> list[tuple[float, float]]:
    """A line that goes up and down, then from side to side, over all of a square."""
    points: list[tuple[float, float]] = []
    for number, at in enumerate(np.arange(1.5, side, step)):
        ends = [(at, -5.0), (at, side + 5.0)]
        points += ends if number % 2 else ends[::-1]
    return points + [(y, x) for x, y in points]


@pytest.mark.parametrize(("side", "step"), [(400, 4), (1000, 1), (150, 2.5), (2000, 40)])
def test_a_line_that_hatches_an_object_is_refused(side: int, step: float) -> None:
    mask = square((side, side), (5, 5, side - 5, side - 5))
    with pytest.raises(MaskError, match=r"into \d+ parts"):
        split(mask, hatching(side, step), (side, side))


def test_many_parts_are_cut_each_in_its_place() -> None:
    mask = square((600, 600), (5, 5, 595, 595))
    parts = split(mask, hatching(600, 40), (600, 600))
    assert len(parts) > 100
    together = np.zeros((600, 600), int)
    for part in parts:
        together += part.dense(0)
    assert (together == mask.dense(0)).all(), "together they are the mask"
    assert [int(p.areas[0]) for p in parts] == sorted(
        (int(p.areas[0]) for p in parts), reverse=True
    )


def test_an_object_of_very_many_parts_is_not_split() -> None:
    dense = np.zeros((300, 300), bool)
    dense[::4, ::4] = True
    with pytest.raises(MaskError, match=r"parts that lie apart|into"):
        split(Masks.from_dense(dense), [(149.6, -1), (149.6, 301)], (300, 300))
