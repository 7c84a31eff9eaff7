"""Geometry on cropped masks, against pycocotools and slow references on dense masks."""

from __future__ import annotations

import tracemalloc
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pycocotools import mask as coco
from strategies import (
    QUICK,
    BoolArray,
    Placed,
    counts_garbage,
    crops_placed,
    masks_hw,
    masks_nhw,
    overlaps_nn,
    rle_characters,
    sizes_garbage,
)

from sam_detect.errors import MaskError
from sam_detect.types import Masks
from sam_detect.types.masks import (
    compress_rle,
    crop_to_rle,
    decode_crop,
    encode_crop,
    intersection,
    rle_to_crop,
    rle_to_mask,
    tight_box_xyxy,
)
from scripts.dev.overlaps import intersection_matrix, iou_matrix, nms


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
