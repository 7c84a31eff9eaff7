"""Polygons: which pixels they cover, and those of masks, which cover the same pixels again."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import pytest
import shapely
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco
from scipy.ndimage import binary_fill_holes
from strategies import QUICK, masks_hw, polygons_garbage

from sam_detect.errors import MaskError
from sam_detect.types.masks import BoolArray, tight_box_xyxy
from sam_detect.types.polygons import (
    Ring,
    checked_ring,
    coco_polygons,
    join_rings,
    mask_polygons,
    polygons_to_mask,
)


def test_a_polygon_covers_the_pixels_inside_it() -> None:
    mask = polygons_to_mask(coco_polygons([[2, 1, 6, 1, 6, 4, 2, 4]]), (6, 8))
    expected = np.zeros((6, 8), np.bool_)
    expected[1:4, 2:6] = True
    np.testing.assert_array_equal(mask, expected)


def test_several_polygons_are_their_union() -> None:
    squares = [[0, 0, 3, 0, 3, 3, 0, 3], [2, 2, 5, 2, 5, 5, 2, 5]]
    both = polygons_to_mask(coco_polygons(squares), (6, 6))
    apart = [polygons_to_mask(coco_polygons([square]), (6, 6)) for square in squares]
    np.testing.assert_array_equal(both, apart[0] | apart[1])
    assert both.sum() == 9 + 9 - 1


def slow_inside(ring: list[tuple[float, float]], x: float, y: float) -> bool:
    """Whether a ray from the point to the left crosses an odd number of edges."""
    inside = False
    for (x0, y0), (x1, y1) in zip(ring, [*ring[1:], ring[0]], strict=True):
        if (y0 <= y) != (y1 <= y) and x0 + (y - y0) * (x1 - x0) / (y1 - y0) <= x:
            inside = not inside
    return inside


@QUICK
@given(st.lists(st.tuples(st.integers(-5, 15), st.integers(-5, 15)), min_size=3, max_size=7))
def test_a_polygon_covers_the_pixels_whose_centres_are_inside(
    points: list[tuple[int, int]],
) -> None:
    flat = [float(v) for point in points for v in point]
    expected = [[slow_inside(points, x + 0.5, y + 0.5) for x in range(12)] for y in range(10)]
    np.testing.assert_array_equal(polygons_to_mask(coco_polygons([flat]), (10, 12)), expected)


def test_a_hole_is_left_out_and_an_island_in_it_is_not() -> None:
    square = [[0, 0], [9, 0], [9, 9], [0, 9]]
    outer = (np.array(square, float), np.array(square, float) / 3 + 3)
    inner = (np.array(square, float) / 9 + 4,)
    mask = polygons_to_mask([outer, inner], (9, 9))
    assert mask.sum() == 81 - 9 + 1
    assert mask[4, 4]


@pytest.mark.parametrize("ring", [
    [(2, 1), (6, 1), (6, 4), (2, 4), (2, 1)],
    [(2, 1), (6, 1), (6, 4), (2, 4)],
    [(2, 1, 0), (6, 1, 0), (6, 4, 0), (2, 4, 0)],
])  # fmt: skip
def test_rings_are_closed_or_open_and_may_have_a_z(ring: list[tuple[float, ...]]) -> None:
    assert checked_ring(ring).tolist() == [[2, 1], [6, 1], [6, 4], [2, 4]]


def test_a_polygon_that_crosses_itself_covers_both_of_its_parts() -> None:
    bow = checked_ring([(0, 0), (8, 8), (8, 0), (0, 8)])
    mask = polygons_to_mask([(bow,)], (8, 8))
    assert mask[4, 1]
    assert mask[4, 6]
    assert not mask[1, 4]


def test_a_polygon_outside_the_picture_has_no_pixel() -> None:
    assert not polygons_to_mask(coco_polygons([[20, 20, 30, 20, 30, 30]]), (6, 6)).any()


@pytest.mark.parametrize(
    "polygons",
    [
        [[]],
        [[1, 1, 2, 2]],
        [[1, 1, 2, 2, 3]],
        [[1, 1, 2, 2, 3, 3, 4]],
        [[1, 1, float("nan"), 2, 3, 3]],
        [[1, 1, float("inf"), 2, 3, 3]],
        [[1, 1, 1e300, 2, 3, 3]],
        [["a", "b", "c", "d", "e", "f"]],
        [[None] * 6],
        [[[1], [2, 3], [4], [5], [6], [7]]],
        [5],
        [],
        "outline",
        5,
    ],
    ids=str,
)
def test_a_malformed_polygon_is_refused(polygons: Any) -> None:
    with pytest.raises(MaskError):
        polygons_to_mask(coco_polygons(polygons), (6, 6))


@QUICK
@given(polygons_garbage)
def test_a_garbage_polygon_is_a_mask_or_a_mask_error(polygons: Any) -> None:
    try:
        mask = polygons_to_mask(coco_polygons(polygons), (8, 9))
    except MaskError:
        return
    assert mask.shape == (8, 9)


# Outlines


def outlines(crop: BoolArray, box_xyxy: tuple[int, int, int, int]) -> tuple[list[Ring], list[Ring]]:
    polygons = mask_polygons(crop, box_xyxy)
    return [parts[0] for parts in polygons], [hole for parts in polygons for hole in parts[1:]]


def noise_blobs(seed: int) -> BoolArray:
    """``(90, 110)``: connected shapes with bays and holes, in several parts."""
    noise = np.random.default_rng(seed).normal(size=(90, 110)).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 4) > 0.02, np.bool_)


def iou_of(first: BoolArray, second: BoolArray) -> float:
    return float(np.count_nonzero(first & second) / np.count_nonzero(first | second))


def rasterised(rings: list[Ring], size_hw: tuple[int, int]) -> BoolArray:
    """As pycocotools fills COCO's polygons."""
    flat = [ring.ravel().tolist() for ring in rings]
    return np.asarray(coco.decode(coco.merge(coco.frPyObjects(flat, *size_hw))), np.bool_)


@pytest.mark.parametrize("seed", range(5))
def test_outlines_give_the_mask_again(seed: int) -> None:
    mask = noise_blobs(seed)
    parts, holes = outlines(mask, (0, 0, 110, 90))
    assert len(parts) > 1
    assert len(parts) == cv2.connectedComponents(mask.astype(np.uint8), connectivity=8)[0] - 1
    assert iou_of(rasterised(parts, mask.shape), binary_fill_holes(mask)) > 0.998
    assert iou_of(rasterised([join_rings([*parts, *holes])], mask.shape), mask) > 0.998


@QUICK
@given(masks_hw(some_pixel=True))
def test_polygons_of_any_mask_are_valid_and_give_exactly_its_pixels(mask: BoolArray) -> None:
    box = tight_box_xyxy(mask)
    assert box is not None
    x0, y0, x1, y1 = box
    polygons = mask_polygons(np.ascontiguousarray(mask[y0:y1, x0:x1]), box)
    for polygon in polygons:
        assert shapely.Polygon(polygon[0], polygon[1:]).is_valid
        for ring in polygon:
            assert (ring >= (x0, y0)).all()
            assert (ring <= (x1, y1)).all()
    np.testing.assert_array_equal(polygons_to_mask(polygons, mask.shape), mask)


@pytest.mark.parametrize("seed", range(5))
def test_a_tolerance_leaves_fewer_corners_near_the_outline(seed: int) -> None:
    mask = noise_blobs(seed)
    exact = mask_polygons(mask, (0, 0, 110, 90))
    simple = mask_polygons(mask, (0, 0, 110, 90), tolerance_px=1.5)
    corners = [sum(len(ring) for polygon in each for ring in polygon) for each in (exact, simple)]
    assert corners[1] < 0.5 * corners[0]
    assert len(simple) == len(exact)
    assert all(shapely.Polygon(each[0], each[1:]).is_valid for each in simple)
    assert iou_of(polygons_to_mask(simple, mask.shape), mask) > 0.9


def test_squares_that_touch_at_a_corner_are_one_valid_polygon() -> None:
    mask = np.zeros((12, 12), np.bool_)
    mask[:6, :6] = mask[6:, 6:] = True
    [polygon] = mask_polygons(mask, (0, 0, 12, 12))
    assert shapely.Polygon(polygon[0]).is_valid
    np.testing.assert_array_equal(polygons_to_mask([polygon], (12, 12)), mask)


def test_an_outline_follows_the_edges_of_pixels() -> None:
    parts, holes = outlines(np.ones((10, 12), np.bool_), (3, 4, 15, 14))
    assert {tuple(point) for point in parts[0].tolist()} == {(3, 4), (15, 4), (15, 14), (3, 14)}
    assert holes == []
    [pixel], _ = outlines(np.ones((1, 1), np.bool_), (2, 2, 3, 3))
    assert {tuple(point) for point in pixel.tolist()} == {(2, 2), (3, 2), (3, 3), (2, 3)}


def test_outlines_come_the_largest_first_parts_apart_from_holes() -> None:
    mask = np.zeros((20, 40), np.bool_)
    mask[2:6, 2:6] = True
    mask[2:18, 10:30] = True
    mask[4:6, 12:14] = False
    mask[8:14, 12:24] = False
    parts, holes = outlines(mask, (0, 0, 40, 20))
    assert [np.ptp(ring, axis=0).tolist() for ring in parts] == [[20, 16], [4, 4]]
    assert [np.ptp(ring, axis=0).tolist() for ring in holes] == [[12, 6], [2, 2]]


def test_an_outline_is_no_longer_than_it_has_to_be() -> None:
    y, x = np.mgrid[-40:41, -40:41]
    [ring], _ = outlines(x * x + y * y <= 40 * 40, (0, 0, 81, 81))
    assert len(ring) < 130, "a circle of 251 pixels' length has 320 edges of pixels"
