"""Editing outlines, against slow and obvious references."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sam_detect.errors import MaskError
from sam_detect.masks import BoolArray
from sam_detect.server import editing
from sam_detect.types import Masks

SIZE = (60, 80)


def disc(x: float, y: float, radius: float, size_hw: tuple[int, int] = SIZE) -> BoolArray:
    rows, columns = np.mgrid[: size_hw[0], : size_hw[1]] + 0.5
    return (columns - x) ** 2 + (rows - y) ** 2 <= radius**2


def swept(stroke: list[tuple[float, float]], radius: float) -> BoolArray:
    """What a round brush touches: pixel centres near a segment of the stroke."""
    rows, columns = np.mgrid[: SIZE[0], : SIZE[1]] + 0.5
    touched = np.zeros(SIZE, np.bool_)
    ends = [*stroke[1:], stroke[-1]] if len(stroke) > 1 else stroke
    for (ax, ay), (bx, by) in zip(stroke, ends, strict=False):
        dx, dy = bx - ax, by - ay
        length = dx * dx + dy * dy
        share = np.clip(((columns - ax) * dx + (rows - ay) * dy) / length, 0, 1) if length else 0.0
        touched |= np.hypot(columns - ax - share * dx, rows - ay - share * dy) <= radius
    return touched


places = st.tuples(st.floats(2, 78), st.floats(2, 58))


@given(st.lists(places, min_size=1, max_size=4), st.floats(2, 12))
def test_a_stroke_is_what_a_round_brush_touches(
    stroke: list[tuple[float, float]], radius: float
) -> None:
    wanted = swept(stroke, radius)
    found = editing.brush(Masks.empty(SIZE), stroke, radius, erase=False).dense(0)
    # Within a pixel of the border: the thickness of a line is a whole number.
    assert not (found & ~swept(stroke, radius + 1.6)).any()
    assert not (swept(stroke, radius - 1.6) & ~found).any() or radius < 2
    assert wanted.any()


def test_a_stroke_is_added_and_taken_away() -> None:
    start = Masks.from_dense(disc(30, 30, 12))
    more = editing.brush(start, [(44, 30), (60, 30)], 4, erase=False)
    assert more.areas[0] > start.areas[0] + 80
    assert (more.dense(0) & start.dense(0)).sum() == start.areas[0]
    less = editing.brush(more, [(52, 20), (52, 40)], 3, erase=True)
    assert not less.dense(0)[30, 52]
    assert less.dense(0)[30, 58], "what is cut off stays"
    specks = editing.brush(Masks.from_dense(disc(30, 30, 12)), [(40.6, 18), (40.6, 42)], 1.2,
                           erase=True)  # fmt: skip
    assert not specks.dense(0)[:, 42:].any(), "a speck does not"
    with pytest.raises(MaskError, match="nothing would be left"):
        editing.brush(start, [(30, 30)], 40, erase=True)


@pytest.mark.parametrize(
    ("stroke", "words"),
    [([], "points"), ([(1, 2, 3)], "points"), ([(np.nan, 2)], "usable"), ([(900, 9)], "outside")],
)
def test_a_stroke_that_is_none_is_said(stroke: list[tuple[float, ...]], words: str) -> None:
    with pytest.raises(MaskError, match=words):
        editing.brush(Masks.empty(SIZE), stroke, 4, erase=False)


def test_rings_are_outlines_and_holes() -> None:
    outer, hole = [(10, 10), (50, 10), (50, 50), (10, 50)], [(20, 20), (40, 20), (40, 40), (20, 40)]
    mask = editing.reshape([outer, hole], SIZE)
    assert mask.areas[0] == 40 * 40 - 20 * 20
    assert mask.boxes_xyxy[0].tolist() == [10, 10, 50, 50]
    crossed = editing.reshape([[(10, 10), (50, 50), (50, 10), (10, 50)]], SIZE)
    assert 700 < crossed.areas[0] < 900
    outside = editing.reshape([[(-20, -20), (30, -20), (30, 30), (-20, 30)]], SIZE)
    assert outside.areas[0] == 900
    for rings in ([], [[(1, 1), (2, 2)]], [[(-9, -9), (-5, -9), (-5, -5)]]):
        with pytest.raises(MaskError):
            editing.reshape(rings, SIZE)


@given(st.floats(-40, 40))
def test_a_line_divides_without_losing_a_pixel(slope: float) -> None:
    mask = Masks.from_dense(disc(40, 30, 20))
    parts = editing.split(mask, [(10, 30 - slope), (70, 30 + slope)])
    assert len(parts) == 2
    assert parts.areas.sum() == mask.areas[0]
    assert not (parts.dense(0) & parts.dense(1)).any()
    assert parts.areas[0] >= parts.areas[1] > 0.4 * mask.areas[0]


@pytest.mark.parametrize("line", [[(40, 30), (45, 30)], [(1, 1), (70, 1)]])
def test_a_line_that_does_not_divide_is_said(line: list[tuple[float, float]]) -> None:
    with pytest.raises(MaskError, match="does not divide"):
        editing.split(Masks.from_dense(disc(40, 30, 20)), line)


def test_merged_masks_are_their_union() -> None:
    masks = [disc(20, 30, 10), disc(34, 30, 10), disc(60, 30, 5)]
    whole = editing.merged([Masks.from_dense(each) for each in masks])
    assert (whole.dense(0) == np.logical_or.reduce(masks)).all()


def test_detail_gives_fewer_corners_of_the_same_outline() -> None:
    mask = Masks.from_dense(disc(30, 30, 20) & ~disc(30, 30, 8))
    exact = [ring for polygon in mask.polygons_with_holes(0) for ring in polygon]
    counts = []
    for detail in (1, 0.5, 0):
        rings = editing.with_detail(exact, detail)
        counts.append(sum(map(len, rings)))
        found = editing.reshape(rings, SIZE).dense(0)
        shared, union = (found & mask.dense(0)).sum(), (found | mask.dense(0)).sum()
        assert shared / union > {1: 0.999, 0.5: 0.9, 0: 0.7}[detail]
    assert counts[0] > counts[1] > counts[2] >= 3


def test_a_small_object_of_a_huge_picture_takes_little_memory() -> None:
    import tracemalloc

    size = (20_000, 20_000)
    tracemalloc.start()
    mask = editing.brush(Masks.empty(size), [(15_000, 15_000), (15_040, 15_000)], 20, erase=False)
    mask = editing.brush(mask, [(15_000, 15_000)], 5, erase=True)
    parts = editing.split(mask, [(15_020, 14_900), (15_020, 15_100)])
    editing.merged([parts[[0]], parts[[1]]])
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 30_000_000
