"""Masks as boxes and run lengths: geometry that never holds N full-size pictures at once.

A mask is stored as a *crop*, the boolean array of its bounding box, and the box says where the
crop lies. Boxes are ``xyxy`` in pixels, half-open: ``x0 <= x < x1``. Run lengths are COCO's
(column-major, first run counts zeros), compressed to COCO's text by ``pycocotools``.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypedDict

import numpy as np
import numpy.typing as npt

from sam_detect.errors import MaskError

BoolArray = npt.NDArray[np.bool_]
IntArray = npt.NDArray[np.int64]
FloatArray = npt.NDArray[np.float32]
Box = tuple[int, int, int, int]

MAX_RLE_PIXELS = 2**31  # refuses absurd sizes in a file before anything is allocated
SAME_OUTLINE_IOU = 0.8
"""Two outlines in one picture that overlap so much are of one object."""


class MaskRLE(TypedDict):
    """COCO's compressed run-length encoding of a full-size mask."""

    size: list[int]
    counts: str


def _pycocotools_mask() -> Any:
    from pycocotools import mask  # imported on use: `import sam_detect` stays light

    return mask


def tight_box_xyxy(mask: BoolArray) -> tuple[int, int, int, int] | None:
    """Half-open bounding box of the true pixels of a ``(H, W)`` mask; None without any."""
    rows = np.flatnonzero(mask.any(axis=1))
    if rows.size == 0:
        return None
    columns = np.flatnonzero(mask.any(axis=0))
    return int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1


def tightened(box_xyxy: Sequence[int], crop: BoolArray) -> tuple[Box, BoolArray] | None:
    """The tight half-open box xyxy and ``(h, w)`` crop of a mask whose box need not be tight; None
    without a true pixel."""
    tight = tight_box_xyxy(crop)
    if tight is None:
        return None
    (left, top, right, bottom), (x, y) = tight, (int(box_xyxy[0]), int(box_xyxy[1]))
    cut = np.ascontiguousarray(crop[top:bottom, left:right])
    return (x + left, y + top, x + right, y + bottom), cut


def union(placed: Sequence[tuple[Sequence[int], BoolArray]]) -> tuple[Box, BoolArray]:
    """The box xyxy around one or more boxes, and the union of their crops in it."""
    x0, y0 = (min(int(box[i]) for box, _ in placed) for i in (0, 1))
    x1, y1 = (max(int(box[i]) for box, _ in placed) for i in (2, 3))
    whole = np.zeros((y1 - y0, x1 - x0), np.bool_)
    for (left, top, right, bottom), crop in placed:
        whole[top - y0 : bottom - y0, left - x0 : right - x0] |= crop
    return (x0, y0, x1, y1), whole


def encode_crop(crop: BoolArray) -> bytes:
    """COCO-compressed run lengths of one ``(h, w)`` crop."""
    encoded = _pycocotools_mask().encode(np.asfortranarray(crop, dtype=np.uint8))
    counts: bytes = encoded["counts"]
    return counts


def decode_crop(counts: bytes, size_hw: tuple[int, int]) -> BoolArray:
    """The ``(h, w)`` boolean crop of :func:`encode_crop`."""
    decoded = _pycocotools_mask().decode({"size": list(size_hw), "counts": counts})
    return np.ascontiguousarray(decoded).view(np.bool_)


def crop_to_rle(crop: BoolArray, box_xyxy: Sequence[int], size_hw: tuple[int, int]) -> MaskRLE:
    """Full-size COCO RLE of a crop, without making the full-size mask.

    Each column's runs are shifted to their place in the column-major picture; runs that meet
    across a column border (the crop is as tall as the picture) are merged.
    """
    height, width = size_hw
    x0, y0, x1, y1 = (int(v) for v in box_xyxy)
    if not (0 <= x0 < x1 <= width and 0 <= y0 < y1 <= height):
        raise MaskError(f"box {[x0, y0, x1, y1]} does not lie inside a {width}x{height} picture")
    if crop.shape != (y1 - y0, x1 - x0):
        raise MaskError(f"a crop of shape {crop.shape} does not fill the box {[x0, y0, x1, y1]}")
    padded = np.zeros((crop.shape[1], crop.shape[0] + 2), dtype=np.int8)
    padded[:, 1:-1] = crop.T
    steps = np.diff(padded, axis=1)
    columns, starts = np.nonzero(steps == 1)
    _, ends = np.nonzero(steps == -1)
    offsets = (columns + x0) * height + y0
    edges = np.stack([starts + offsets, ends + offsets], axis=1).ravel()
    return compress_rle(runs_between(edges, height * width), size_hw)


def runs_between(edges: IntArray, pixels: int) -> list[int]:
    """Plain run lengths of so many pixels.

    Args:
        edges: ``(2 * K,)``, rising: where each of K runs of true pixels begins, and ends. One may
            begin where the one before it ends: then they are one.
    """
    touching = np.flatnonzero(edges[1:-1:2] == edges[2::2]) if edges.size else edges
    edges = np.delete(edges, np.concatenate([2 * touching + 1, 2 * touching + 2]))
    runs = np.diff(np.concatenate([[0], edges, [pixels]]))
    if edges.size and edges[-1] == pixels:
        runs = runs[:-1]
    counted: list[int] = runs.tolist()
    return counted


def compress_rle(runs: list[int], size_hw: tuple[int, int]) -> MaskRLE:
    """COCO's text form of plain run lengths (which must add up to ``H * W``)."""
    height, width = size_hw
    if any(run < 0 for run in runs) or sum(runs) != height * width:
        raise MaskError(f"run lengths must add up to {height * width} pixels ({height}x{width})")
    encoded = _pycocotools_mask().frPyObjects(
        {"size": [height, width], "counts": runs}, height, width
    )
    return {"size": [height, width], "counts": encoded["counts"].decode("ascii")}


def rle_to_mask(rle: MaskRLE | dict[str, Any]) -> BoolArray:
    """The full-size ``(H, W)`` mask of a COCO RLE, compressed (text, bytes) or plain (a list).

    Raises:
        MaskError: the RLE is malformed or describes another number of pixels than its size.
    """
    runs, (height, width) = _checked_runs(rle)
    values = np.zeros(len(runs), dtype=np.bool_)
    values[1::2] = True
    return np.array(np.repeat(values, runs).reshape((width, height)).T, order="C")


def rle_to_crop(rle: MaskRLE | dict[str, Any]) -> tuple[tuple[int, int, int, int], BoolArray]:
    """The tight half-open box xyxy of a COCO RLE's mask, and its ``(h, w)`` crop; only the columns
    of the box are ever decoded.

    Raises:
        MaskError: as :func:`rle_to_mask`, or the mask has no pixel.
    """
    runs, (height, _) = _checked_runs(rle)
    edges = np.cumsum([0, *runs])
    starts, ends = edges[1:-1:2], edges[2::2]
    some = np.flatnonzero(ends > starts)
    if not some.size:
        raise MaskError("a mask needs at least one pixel, this one has none")
    x0, x1 = int(starts[some[0]]) // height, (int(ends[some[-1]]) - 1) // height + 1
    lengths = np.diff(np.clip(edges, x0 * height, x1 * height))
    values = np.zeros(len(lengths), dtype=np.bool_)
    values[1::2] = True
    columns = np.repeat(values, lengths).reshape((x1 - x0, height))
    rows = np.flatnonzero(columns.any(axis=0))
    y0, y1 = int(rows[0]), int(rows[-1]) + 1
    return (x0, y0, x1, y1), np.ascontiguousarray(columns[:, y0:y1].T)


def checked_rle(rle: dict[str, Any]) -> MaskRLE:
    """A file's COCO RLE, compressed or plain, as COCO's text; raises as :func:`rle_to_mask`."""
    return compress_rle(*_checked_runs(rle))


def rle_box_xywh(rle: MaskRLE) -> tuple[int, int, int, int] | None:
    """The tight box of a well-formed RLE's mask, without decoding it; None without a pixel."""
    encoded = {"size": rle["size"], "counts": rle["counts"].encode("ascii")}
    x, y, w, h = (int(value) for value in _pycocotools_mask().toBbox(encoded))
    return (x, y, w, h) if w and h else None


def _checked_runs(rle: MaskRLE | dict[str, Any]) -> tuple[list[int], tuple[int, int]]:
    """Run lengths and ``(height, width)`` of a COCO RLE that may be malformed."""
    try:
        height, width = (int(v) for v in rle["size"])
        counts = rle["counts"]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise MaskError("an RLE mask needs 'size': [height, width] and 'counts'") from error
    if height < 1 or width < 1 or height * width > MAX_RLE_PIXELS:
        raise MaskError(f"an RLE mask of size {height}x{width} cannot be read")
    if isinstance(counts, str):
        counts = counts.encode("ascii", "replace")
    try:
        runs = [int(run) for run in counts] if isinstance(counts, list) else _runs_of(counts)
    except (TypeError, ValueError, OverflowError) as error:
        raise MaskError("an RLE's counts are COCO's text or a list of whole numbers") from error
    if any(run < 0 for run in runs) or sum(runs) != height * width:
        raise MaskError(f"the RLE's runs do not add up to its {height}x{width} pixels")
    return runs, (height, width)


def _runs_of(counts: bytes) -> list[int]:
    """Plain run lengths of COCO's text: 5 bits a character, little end first, sign-extended,
    and from the third run on the difference to the run before the last (pycocotools ``rleApi.c``).

    Decoded here rather than by pycocotools, whose C code trusts its input.
    """
    if not isinstance(counts, bytes):
        raise TypeError(f"counts of type {type(counts).__name__}")
    runs: list[int] = []
    value = shift = 0
    for byte in counts:
        code = byte - 48
        if not 0 <= code < 64 or shift > 60:
            raise MaskError("the RLE's counts hold characters that COCO's encoding never writes")
        value |= (code & 0x1F) << shift
        shift += 5
        if code & 0x20:
            continue
        if code & 0x10:
            value -= 1 << shift
        runs.append(value + (runs[-2] if len(runs) > 2 else 0))
        value = shift = 0
    if shift:
        raise MaskError("the RLE's counts end in the middle of a run")
    return runs


def intersection(
    crop_a: BoolArray, box_a: Sequence[int], crop_b: BoolArray, box_b: Sequence[int]
) -> int:
    """Number of pixels that two cropped masks share."""
    x0, y0 = max(box_a[0], box_b[0]), max(box_a[1], box_b[1])
    x1, y1 = min(box_a[2], box_b[2]), min(box_a[3], box_b[3])
    if x0 >= x1 or y0 >= y1:
        return 0
    part_a = crop_a[y0 - box_a[1] : y1 - box_a[1], x0 - box_a[0] : x1 - box_a[0]]
    part_b = crop_b[y0 - box_b[1] : y1 - box_b[1], x0 - box_b[0] : x1 - box_b[0]]
    return int(np.count_nonzero(part_a & part_b))
