"""Geometry on cropped masks, against pycocotools and slow references on dense masks."""

from __future__ import annotations

import tracemalloc
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco
from scipy.ndimage import binary_fill_holes
from strategies import (
    QUICK,
    BoolArray,
    Placed,
    counts_garbage,
    crops_placed,
    masks_hw,
    masks_nhw,
    overlaps_nn,
    polygons_garbage,
    rle_characters,
    sizes_garbage,
)

from sam_detect.errors import MaskError
from sam_detect.masks import (
    Ring,
    compress_rle,
    crop_to_rle,
    decode_crop,
    encode_crop,
    intersection,
    intersection_matrix,
    iou_matrix,
    join_rings,
    nms,
    outlines,
    polygons_to_mask,
    rle_to_crop,
    rle_to_mask,
    tight_box_xyxy,
)
from sam_detect.types import Masks


def coco_rle(mask: BoolArray) -> dict[str, Any]:
    """pycocotools' own encoding of a dense mask, as text."""
    encoded = coco.encode(np.asfortranarray(mask, dtype=np.uint8))
    return {"size": encoded["size"], "counts": encoded["counts"].decode("ascii")}


def plain_runs(mask: BoolArray) -> list[int]:
    """Run lengths of the column-major pixels, counted one by one; the first counts zeros."""
    runs, value = [0], False
    for pixel in mask.T.ravel().tolist():
        if pixel == value:
            runs[-1] += 1
        else:
            runs.append(1)
            value = pixel
    return runs


def placed_dense(placed: Placed) -> BoolArray:
    size, (x0, y0, x1, y1), crop = placed
    dense = np.zeros(size, np.bool_)
    dense[y0:y1, x0:x1] = crop
    return dense


@QUICK
@given(masks_hw())
def test_a_tight_box_is_the_smallest_that_holds_every_pixel(mask: BoolArray) -> None:
    box = tight_box_xyxy(mask)
    pixels = [(x, y) for y in range(mask.shape[0]) for x in range(mask.shape[1]) if mask[y, x]]
    if not pixels:
        assert box is None
        return
    xs, ys = zip(*pixels, strict=True)
    assert box == (min(xs), min(ys), max(xs) + 1, max(ys) + 1)


@QUICK
@given(masks_hw())
def test_a_crop_survives_encoding_and_decoding(crop: BoolArray) -> None:
    decoded = decode_crop(encode_crop(crop), crop.shape)
    assert decoded.dtype == np.bool_
    np.testing.assert_array_equal(decoded, crop)


def test_a_crop_that_is_not_contiguous_survives_as_well() -> None:
    crop = np.arange(48).reshape(6, 8)[::2, 1::3] % 2 == 0
    np.testing.assert_array_equal(decode_crop(encode_crop(crop), crop.shape), crop)


@QUICK
@given(crops_placed())
def test_crop_to_rle_equals_pycocotools_on_the_dense_mask(placed: Placed) -> None:
    size, box, crop = placed
    assert crop_to_rle(crop, box, size) == coco_rle(placed_dense(placed))


@pytest.mark.parametrize(
    ("size_hw", "box", "what"),
    [
        ((1, 9), (2, 0, 7, 1), "one row"),
        ((9, 1), (0, 2, 1, 7), "one column"),
        ((7, 9), (3, 0, 5, 7), "full-height columns that meet"),
        ((7, 9), (7, 0, 9, 7), "full-height columns to the end"),
        ((7, 9), (0, 0, 9, 7), "the full picture"),
        ((1, 1), (0, 0, 1, 1), "one pixel"),
        ((7, 9), (8, 6, 9, 7), "the last pixel"),
        ((7, 9), (0, 0, 1, 1), "the first pixel"),
    ],
)
def test_filled_boxes_encode_like_pycocotools(
    size_hw: tuple[int, int], box: tuple[int, int, int, int], what: str
) -> None:
    crop = np.ones((box[3] - box[1], box[2] - box[0]), np.bool_)
    expected = coco_rle(placed_dense((size_hw, box, crop)))
    assert crop_to_rle(crop, box, size_hw) == expected, what
    masks = Masks.from_crops(size_hw=size_hw, boxes_xyxy=[box], crops=[crop])
    assert masks.rle(0) == expected, what


@QUICK
@given(masks_nhw())
def test_rles_of_a_batch_equal_pycocotools_on_each_dense_mask(dense: BoolArray) -> None:
    masks = Masks.from_dense(dense)
    assert [masks.rle(i) for i in range(len(masks))] == [coco_rle(mask) for mask in dense]


@pytest.mark.parametrize("box", [(-1, 0, 3, 3), (0, 0, 10, 3), (0, 0, 3, 8), (3, 3, 3, 6)])
def test_a_box_that_leaves_its_picture_is_refused(box: tuple[int, int, int, int]) -> None:
    crop = np.ones((max(1, box[3] - box[1]), max(1, box[2] - box[0])), np.bool_)
    with pytest.raises(MaskError, match="does not lie inside a 9x7 picture"):
        crop_to_rle(crop, box, (7, 9))


def test_a_crop_that_does_not_fill_its_box_is_refused() -> None:
    with pytest.raises(MaskError, match=r"shape \(2, 3\) does not fill"):
        crop_to_rle(np.ones((2, 3), np.bool_), (0, 0, 3, 3), (7, 9))


def test_a_small_crop_of_a_huge_picture_is_encoded_without_the_picture() -> None:
    size = (30_000, 30_000)  # dense it would be 900 MB
    tracemalloc.start()
    rle = crop_to_rle(np.ones((5, 5), np.bool_), (20_000, 20_000, 20_005, 20_005), size)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
    assert coco.area(rle) == 25
    assert coco.toBbox(rle).tolist() == [20_000, 20_000, 5, 5]


@QUICK
@given(masks_hw())
def test_rle_to_mask_reads_text_bytes_and_plain_runs_like_pycocotools(mask: BoolArray) -> None:
    rle = coco_rle(mask)
    size = list(mask.shape)
    for counts in (rle["counts"], rle["counts"].encode("ascii"), plain_runs(mask)):
        decoded = rle_to_mask({"size": size, "counts": counts})
        assert decoded.dtype == np.bool_
        np.testing.assert_array_equal(decoded, mask)


@QUICK
@given(masks_hw())
def test_rle_to_crop_is_what_the_box_of_the_whole_mask_shows(mask: BoolArray) -> None:
    rle = {"size": list(mask.shape), "counts": plain_runs(mask)}
    expected = tight_box_xyxy(mask)
    if expected is None:
        with pytest.raises(MaskError, match="at least one pixel"):
            rle_to_crop(rle)
        return
    box, crop = rle_to_crop(rle)
    assert box == expected
    np.testing.assert_array_equal(crop, mask[box[1] : box[3], box[0] : box[2]])


def test_rle_to_crop_never_makes_the_whole_mask() -> None:
    size = (30_000, 30_000)  # whole it would be 900 MB
    rle = crop_to_rle(np.ones((5, 5), np.bool_), (20_000, 20_000, 20_005, 20_005), size)
    tracemalloc.start()
    box, crop = rle_to_crop(rle)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 1_000_000
    assert box == (20_000, 20_000, 20_005, 20_005)
    assert crop.all()


def test_rle_to_mask_reads_long_runs_like_pycocotools() -> None:
    """Runs of several characters, and differences that are negative."""
    mask = np.zeros((900, 700), np.bool_)
    mask[10:800, 3:600] = True
    mask[300:333, 100:650] = False
    rle = coco_rle(mask)
    np.testing.assert_array_equal(rle_to_mask(rle), coco.decode(rle).astype(bool))


@QUICK
@given(masks_hw())
def test_compress_rle_equals_pycocotools(mask: BoolArray) -> None:
    assert compress_rle(plain_runs(mask), mask.shape) == coco_rle(mask)


@pytest.mark.parametrize("runs", [[3], [3, 4], [8, -2], [7, -1], [], [2**40]])
def test_compress_rle_refuses_runs_of_another_picture(runs: list[int]) -> None:
    with pytest.raises(MaskError, match="add up to 6 pixels"):
        compress_rle(runs, (2, 3))


@QUICK
@given(masks_hw(), st.data())
def test_truncated_counts_are_refused(mask: BoolArray, data: st.DataObject) -> None:
    counts = coco_rle(mask)["counts"]
    shorter = counts[: data.draw(st.integers(0, len(counts) - 1))]
    with pytest.raises(MaskError):
        rle_to_mask({"size": list(mask.shape), "counts": shorter})


@QUICK
@given(masks_hw(), st.sampled_from("PQo"))
def test_counts_that_end_in_the_middle_of_a_run_are_refused(mask: BoolArray, more: str) -> None:
    with pytest.raises(MaskError, match="in the middle of a run"):
        rle_to_mask({"size": list(mask.shape), "counts": coco_rle(mask)["counts"] + more})


@QUICK
@given(masks_hw(), st.integers(1, 5))
def test_counts_of_another_size_are_refused(mask: BoolArray, more: int) -> None:
    height, width = mask.shape
    with pytest.raises(MaskError, match="do not add up"):
        rle_to_mask({"size": [height, width + more], "counts": coco_rle(mask)["counts"]})


@QUICK
@given(rle_characters, st.integers(1, 30), st.integers(1, 30))
def test_text_of_cocos_alphabet_is_a_mask_of_its_size_or_a_mask_error(
    counts: str, height: int, width: int
) -> None:
    try:
        mask = rle_to_mask({"size": [height, width], "counts": counts})
    except MaskError:
        return
    assert mask.shape == (height, width)


@QUICK
@given(sizes_garbage, counts_garbage)
def test_a_garbage_rle_is_a_mask_or_a_mask_error(size: Any, counts: Any) -> None:
    try:
        mask = rle_to_mask({"size": size, "counts": counts})
    except MaskError:
        return
    assert mask.dtype == np.bool_
    assert mask.ndim == 2


@pytest.mark.parametrize(
    "rle",
    [
        {},
        {"size": [2, 3]},
        {"counts": "6"},
        {"size": [2, 3], "counts": None},
        {"size": [2, 3], "counts": 6},
        {"size": [2, 3], "counts": [None]},
        {"size": [2, 3], "counts": ["six"]},
        {"size": [2, 3], "counts": [float("inf")]},
        {"size": [2, 3], "counts": [float("nan")]},
        {"size": [2, 3], "counts": [[6]]},
        {"size": [2, 3], "counts": {"a": 6}},
        {"size": [float("inf"), 3], "counts": "6"},
        {"size": [float("nan"), 3], "counts": "6"},
        {"size": [2, 3, 4], "counts": "6"},
        {"size": [0, 3], "counts": ""},
        {"size": [-2, -3], "counts": [6]},
        {"size": None, "counts": "6"},
        {"size": [2, 3], "counts": [8, -2]},
        {"size": [2, 3], "counts": "\N{SNOWMAN}6"},
        {"size": [2, 3], "counts": "o" * 100_000},
        {"size": [2, 3], "counts": "P" * 100_000},
        {"size": [2**40, 2**40], "counts": [2**80]},
        {"size": [2**16, 2**16], "counts": [2**32]},
    ],
    ids=str,
)
def test_a_malformed_rle_is_refused_without_allocating_it(rle: dict[str, Any]) -> None:
    tracemalloc.start()
    try:
        with pytest.raises(MaskError):
            rle_to_mask(rle)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 20_000_000


@pytest.mark.parametrize("thing", [None, [], "rle", 5])
def test_what_is_no_rle_at_all_is_refused(thing: Any) -> None:
    with pytest.raises(MaskError, match="needs 'size'"):
        rle_to_mask(thing)


def test_a_polygon_covers_the_pixels_inside_it() -> None:
    mask = polygons_to_mask([[2, 1, 6, 1, 6, 4, 2, 4]], (6, 8))
    expected = np.zeros((6, 8), np.bool_)
    expected[1:4, 2:6] = True
    np.testing.assert_array_equal(mask, expected)


def test_several_polygons_are_their_union() -> None:
    squares = [[0, 0, 3, 0, 3, 3, 0, 3], [2, 2, 5, 2, 5, 5, 2, 5]]
    both = polygons_to_mask(squares, (6, 6))
    apart = [polygons_to_mask([square], (6, 6)) for square in squares]
    np.testing.assert_array_equal(both, apart[0] | apart[1])
    assert both.sum() == 9 + 9 - 1


@QUICK
@given(st.lists(st.tuples(st.integers(-5, 15), st.integers(-5, 15)), min_size=3, max_size=7))
def test_polygons_equal_pycocotools(points: list[tuple[int, int]]) -> None:
    flat = [float(v) for point in points for v in point]
    expected = coco.decode(coco.merge(coco.frPyObjects([flat], 10, 12))).astype(bool)
    np.testing.assert_array_equal(polygons_to_mask([flat], (10, 12)), expected)


def test_a_polygon_outside_the_picture_has_no_pixel() -> None:
    assert not polygons_to_mask([[20, 20, 30, 20, 30, 30]], (6, 6)).any()


@pytest.mark.parametrize(
    "polygons",
    [
        [[]],
        [[1, 1, 2, 2]],
        [[1, 1, 2, 2, 3]],
        [[1, 1, 2, 2, 3, 3, 4]],
        [[[1, 1], [2, 2], [3, 3]]],
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
        polygons_to_mask(polygons, (6, 6))


@QUICK
@given(polygons_garbage)
def test_a_garbage_polygon_is_a_mask_or_a_mask_error(polygons: Any) -> None:
    try:
        mask = polygons_to_mask(polygons, (8, 9))
    except MaskError:
        return
    assert mask.shape == (8, 9)


def dense_intersections(dense: BoolArray) -> npt.NDArray[np.int64]:
    count = len(dense)
    shared = np.zeros((count, count), np.int64)
    for i in range(count):
        for j in range(count):
            shared[i, j] = np.count_nonzero(dense[i] & dense[j])
    return shared


@QUICK
@given(masks_nhw())
def test_intersections_and_ious_equal_those_of_the_dense_masks(dense: BoolArray) -> None:
    masks = Masks.from_dense(dense)
    crops, boxes = masks.crops(), masks.boxes_xyxy
    shared = dense_intersections(dense)
    np.testing.assert_array_equal(intersection_matrix(crops, boxes, masks.areas), shared)
    areas = shared.diagonal()
    union = areas[:, None] + areas[None, :] - shared
    np.testing.assert_allclose(iou_matrix(crops, boxes), shared / np.maximum(union, 1))


@QUICK
@given(crops_placed(), crops_placed())
def test_intersection_of_two_placed_crops_counts_their_shared_pixels(a: Placed, b: Placed) -> None:
    height, width = max(a[0][0], b[0][0]), max(a[0][1], b[0][1])
    dense_a = placed_dense(((height, width), a[1], a[2]))
    dense_b = placed_dense(((height, width), b[1], b[2]))
    expected = int(np.count_nonzero(dense_a & dense_b))
    assert intersection(a[2], a[1], b[2], b[1]) == expected
    assert intersection(b[2], b[1], a[2], a[1]) == expected


def slow_nms(order: list[int], overlaps: npt.NDArray[np.float64], limit: float) -> list[int]:
    """Takes the best that is left and strikes out all that overlap it too much, until none is."""
    left, kept = list(order), []
    while left:
        best = left.pop(0)
        kept.append(best)
        left = [other for other in left if overlaps[other, best] <= limit]
    return kept


@QUICK
@given(overlaps_nn(), st.floats(0, 1), st.randoms(use_true_random=False))
def test_nms_equals_the_slow_reference_and_keeps_its_promises(
    overlaps: npt.NDArray[np.float64], limit: float, random: Any
) -> None:
    order = list(range(len(overlaps)))
    random.shuffle(order)
    kept = nms(order, overlaps, limit)
    assert kept == slow_nms(order, overlaps, limit)
    assert kept[:1] == order[:1], "the best is always kept"
    assert kept == [i for i in order if i in kept], "best first"
    assert all(overlaps[i, j] <= limit for i in kept for j in kept if i != j)
    for dropped in set(order) - set(kept):
        better = [i for i in kept if order.index(i) < order.index(dropped)]
        assert any(overlaps[dropped, i] > limit for i in better)
    assert nms(kept, overlaps, limit) == kept, "a second round drops nothing"


def test_nms_keeps_an_overlap_that_is_exactly_the_limit() -> None:
    overlaps = np.array([[1, 0.5], [0.5, 1]])
    assert nms([0, 1], overlaps, 0.5) == [0, 1]
    assert nms([1, 0], overlaps, 0.49) == [1]


# Outlines


def noise_blobs(seed: int) -> BoolArray:
    """``(90, 110)``: connected shapes with bays and holes, in several parts."""
    noise = np.random.default_rng(seed).normal(size=(90, 110)).astype(np.float32)
    return np.asarray(cv2.GaussianBlur(noise, (0, 0), 4) > 0.02, np.bool_)


def iou_of(first: BoolArray, second: BoolArray) -> float:
    return float(np.count_nonzero(first & second) / np.count_nonzero(first | second))


def rasterised(rings: list[Ring], size_hw: tuple[int, int]) -> BoolArray:
    return polygons_to_mask([ring.ravel().tolist() for ring in rings], size_hw)


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
def test_outlines_of_any_mask_lie_in_its_box_and_give_nearly_all_of_it(mask: BoolArray) -> None:
    height, width = mask.shape
    parts, holes = outlines(mask, (5, 7, 5 + width, 7 + height))
    for ring in [*parts, *holes]:
        assert ring.shape[0] >= 3
        assert (ring >= (5, 7)).all()
        assert (ring <= (5 + width, 7 + height)).all()
    drawn = rasterised([join_rings([*parts, *holes])], (7 + height, 5 + width))[7:, 5:]
    assert iou_of(drawn, mask) > 0.95


def test_an_outline_follows_the_edges_of_pixels() -> None:
    parts, holes = outlines(np.ones((10, 12), np.bool_), (3, 4, 15, 14))
    assert {tuple(point) for point in parts[0].tolist()} == {(3, 4), (15, 4), (15, 14), (3, 14)}
    assert holes == []
    [[pixel], _] = outlines(np.ones((1, 1), np.bool_), (2, 2, 3, 3))
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
    [[ring], _] = outlines(x * x + y * y <= 40 * 40, (0, 0, 81, 81))
    assert len(ring) < 130, "a circle of 251 pixels' length has 320 edges of pixels"
