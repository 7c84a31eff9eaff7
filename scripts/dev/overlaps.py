"""Overlaps of all pairs of a few masks, and plain non-maximum suppression: the reference of
``sam_detect.types.overlaps``."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sam_detect.types.masks import BoolArray, IntArray, intersection


def intersection_matrix(
    crops: Sequence[BoolArray], boxes_xyxy: IntArray, areas: IntArray
) -> npt.NDArray[np.int64]:
    """``(N, N)`` shared pixels of every pair of cropped masks."""
    count = len(crops)
    shared = np.zeros((count, count), dtype=np.int64)
    np.fill_diagonal(shared, areas)
    x0, y0, x1, y1 = boxes_xyxy.T
    for i in range(count):
        rest = slice(i + 1, count)
        overlapping = (
            (x0[rest] < x1[i]) & (x1[rest] > x0[i]) & (y0[rest] < y1[i]) & (y1[rest] > y0[i])
        )
        for j in np.flatnonzero(overlapping) + i + 1:
            shared[i, j] = shared[j, i] = intersection(
                crops[i], boxes_xyxy[i], crops[int(j)], boxes_xyxy[j]
            )
    return shared


def iou_matrix(crops: Sequence[BoolArray], boxes_xyxy: IntArray) -> npt.NDArray[np.float64]:
    """``(N, N)`` intersection over union of every pair of cropped masks."""
    areas = np.array([np.count_nonzero(crop) for crop in crops], dtype=np.int64)
    shared = intersection_matrix(crops, boxes_xyxy, areas)
    union = areas[:, None] + areas[None, :] - shared
    return np.asarray(shared / np.maximum(union, 1))


def nms(
    order: Iterable[int], overlaps: npt.NDArray[np.floating[Any] | np.bool_], limit: float
) -> list[int]:
    """Greedy non-maximum suppression.

    Args:
        order: indices, best first.
        overlaps: ``(N, N)`` overlap of each pair (IoU, or any other measure), 0 to 1.
        limit: a mask is dropped when its overlap with a kept one is above this.

    Returns:
        The kept indices, best first.
    """
    kept: list[int] = []
    for index in order:
        if not kept or overlaps[index, kept].max() <= limit:
            kept.append(int(index))
    return kept
