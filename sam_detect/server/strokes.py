"""The pixels of a brush stroke: those whose centre is near the line through its points."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from sam_detect.errors import MaskError
from sam_detect.types.masks import BoolArray

MAX_STROKE_ROWS = 50_000_000
"""Longest stroke: rows of pixels that its dabs cover, each dab for itself."""
ROWS_AT_ONCE = 1_000_000
PIXELS_AT_ONCE = 4_000_000

Stroke = npt.NDArray[np.float64]
"""``(N, 2)`` points x, y in pixels."""


def stroke_crop(stroke: Stroke, radius: float, box: tuple[int, int, int, int]) -> BoolArray:
    """The pixels of a box xyxy whose centre is at most ``radius`` from a line through points, as
    ``(h, w)`` bool.

    Two neighbouring points with what lies near the line between them are a convex shape, which has
    one run of pixels in each row. Sums of where runs begin and end are exact, and so fast that a
    wide brush costs its rows and not its pixels.

    Raises:
        MaskError: the stroke covers more than :data:`MAX_STROKE_ROWS`.
    """
    x0, y0, x1, y1 = box
    width = x1 - x0
    moving = np.append(True, (stroke[1:] != stroke[:-1]).any(axis=1))
    points = stroke[moving] - (x0, y0)
    starts = points[:-1] if len(points) > 1 else points
    ends = points[1:] if len(points) > 1 else points
    first, last = _row_spans(starts, ends, radius, y1 - y0)
    if int((last - first).sum()) > MAX_STROKE_ROWS:
        raise MaskError("the stroke is too long for its brush: draw it in shorter pieces")
    painted = np.empty((y1 - y0, width), np.bool_)
    band = max(1, PIXELS_AT_ONCE // (width + 1))
    for top in range(0, y1 - y0, band):
        rows = min(band, y1 - y0 - top)
        steps = np.zeros(rows * (width + 1), np.int32)
        for row, begin, end in _runs(starts - (0, top), ends - (0, top), radius, rows, width):
            steps += np.bincount(row * (width + 1) + begin, minlength=steps.size).astype(np.int32)
            steps -= np.bincount(row * (width + 1) + end, minlength=steps.size).astype(np.int32)
        painted[top : top + rows] = np.cumsum(steps.reshape(rows, -1)[:, :width], axis=1) > 0
    return painted


def _runs(
    starts: Stroke, ends: Stroke, radius: float, height: int, width: int
) -> Iterator[tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """For some segments at a time: the row, first column and column after the last of each run."""
    first, last = _row_spans(starts, ends, radius, height)
    counts = last - first
    groups = np.cumsum(counts) // ROWS_AT_ONCE
    for group in np.unique(groups):
        some = np.flatnonzero((groups == group) & (counts > 0))
        if not some.size:
            continue
        each = np.repeat(some, counts[some])
        offsets = np.cumsum(counts[some]) - counts[some]
        row = np.arange(len(each)) - np.repeat(offsets - first[some], counts[some])
        left, right = _run_ends(starts[each], ends[each], radius, row + 0.5)
        begin = np.clip(np.ceil(left - 0.5), 0, width)
        end = np.clip(np.floor(right - 0.5) + 1, 0, width)
        real = begin < end
        yield row[real], begin[real].astype(np.int64), end[real].astype(np.int64)


def _row_spans(starts: Stroke, ends: Stroke, radius: float, height: int) -> npt.NDArray[np.int64]:
    """``(2, N)``: the first row that each segment may cover, and the row after its last."""
    low, high = np.minimum(starts[:, 1], ends[:, 1]), np.maximum(starts[:, 1], ends[:, 1])
    spans = np.stack([np.ceil(low - radius - 0.5), np.floor(high + radius - 0.5) + 1])
    rows: npt.NDArray[np.int64] = np.clip(spans, 0, height).astype(np.int64)
    return rows


def _run_ends(
    start: Stroke, end: Stroke, radius: float, y: npt.NDArray[np.float64]
) -> tuple[npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """Where the lines ``y`` enter and leave two dabs and the rectangle between them; the first is
    larger than the second where they do not meet."""
    left, right = np.full(len(y), np.inf), np.full(len(y), -np.inf)
    for center in (start, end):
        square = radius**2 - (y - center[:, 1]) ** 2
        half = np.where(square >= 0, np.sqrt(np.maximum(square, 0)), -np.inf)
        left, right = np.minimum(left, center[:, 0] - half), np.maximum(right, center[:, 0] + half)
    along = end - start
    length = np.hypot(along[:, 0], along[:, 1])
    direction = along / np.where(length > 0, length, 1)[:, None]
    (dx, dy), above = direction.T, y - start[:, 1]
    first, last = np.full(len(y), -np.inf), np.full(len(y), np.inf)
    # Between the ends: 0 <= x * dx + above * dy <= length; near the line: |above * dx - x * dy|
    # <= radius, with x from the start.
    for slope, shift, lower, upper in (
        (dx, above * dy, np.zeros(len(y)), length),
        (-dy, above * dx, np.full(len(y), -radius), np.full(len(y), radius)),
    ):
        flat = np.abs(slope) < 1e-12
        divisor = np.where(flat, 1, slope)
        one, other = (lower - shift) / divisor, (upper - shift) / divisor
        outside = flat & ((shift < lower) | (shift > upper))
        first = np.where(flat, first, np.maximum(first, np.minimum(one, other)))
        last = np.where(flat, last, np.minimum(last, np.maximum(one, other)))
        first = np.where(outside, np.inf, first)
    inside = (first <= last) & (length > 0)
    left = np.where(inside, np.minimum(left, start[:, 0] + first), left)
    right = np.where(inside, np.maximum(right, start[:, 0] + last), right)
    return left, right
