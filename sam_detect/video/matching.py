"""Which masks of one frame are of the same object: those that overlap, one to one."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from sam_detect.masks import intersection
from sam_detect.types import Masks

SAME_IOU = 0.3
"""Masks that overlap more can be of one object."""


def assign(some: Masks, others: Masks) -> dict[int, int]:
    """Indices of some masks to those of the others that they are, for the most overlap in all
    (Hungarian method)."""
    if not len(some) or not len(others):
        return {}
    iou = ious(some, others)
    rows, columns = linear_sum_assignment(iou, maximize=True)
    return {
        int(row): int(column)
        for row, column in zip(rows, columns, strict=True)
        if iou[row, column] > SAME_IOU
    }


def ious(some: Masks, others: Masks) -> npt.NDArray[np.float64]:
    """``(len(some), len(others))`` float64; only masks whose boxes meet are drawn."""
    found = np.zeros((len(some), len(others)))
    low = np.maximum(some.boxes_xyxy[:, None, :2], others.boxes_xyxy[None, :, :2])
    high = np.minimum(some.boxes_xyxy[:, None, 2:], others.boxes_xyxy[None, :, 2:])
    shared = np.clip(high - low, 0, None).prod(axis=2)
    smaller = np.minimum(some.areas[:, None], others.areas[None])
    larger = np.maximum(some.areas[:, None], others.areas[None])
    possible = np.minimum(shared, smaller) > SAME_IOU * larger
    crops = {int(j): others.crop(j) for j in np.flatnonzero(possible.any(axis=0))}
    for i in np.flatnonzero(possible.any(axis=1)):
        crop = some.crop(i)
        for j in np.flatnonzero(possible[i]):
            common = intersection(crop, some.boxes_xyxy[i], crops[int(j)], others.boxes_xyxy[j])
            found[i, j] = common / (some.areas[i] + others.areas[j] - common)
    return found
