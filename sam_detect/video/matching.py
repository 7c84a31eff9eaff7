"""Data association: matches the masks of one frame one to one by their overlap."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from scipy.optimize import linear_sum_assignment

from sam_detect.masks import BoolArray, intersection
from sam_detect.types import Masks
from sam_detect.video.motion import EDGE, SoftMask

SAME_IOU = 0.3
"""Least IoU of two masks of one object."""
INSIDE_SHARE = 0.6
"""Least share of a mask inside the other one for it to count as a part of that one."""


def assign(some: Masks, others: Masks, *, alike: BoolArray | None = None) -> dict[int, int]:
    """Index of each matched mask to the index of its match, with the largest total overlap
    (Hungarian method).

    Args:
        alike: ``(len(some), len(others))``, which pairs have the same label. In these one mask
            may also be a part of the other, since occlusion may have changed.
    """
    if not len(some) or not len(others):
        return {}
    shared = shared_areas(some, others)
    areas, other_areas = some.areas[:, None], others.areas[None]
    iou = shared / (areas + other_areas - shared)
    likely = np.where(iou > SAME_IOU, 1 + iou, 0.0)
    if alike is not None:
        inside = shared / np.minimum(areas, other_areas)
        likely = np.maximum(likely, np.where(alike & (inside > INSIDE_SHARE), iou, 0))
    rows, columns = linear_sum_assignment(likely, maximize=True)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return {row: column for row, column in pairs if likely[row, column] > 0}


def ious(some: Masks, others: Masks) -> npt.NDArray[np.float64]:
    """``(len(some), len(others))`` intersection over union."""
    shared = shared_areas(some, others)
    return shared / np.maximum(some.areas[:, None] + others.areas[None] - shared, 1)


def shared_areas(some: Masks, others: Masks) -> npt.NDArray[np.float64]:
    """``(len(some), len(others))`` pixels in common; only what may have some is drawn."""
    found = np.zeros((len(some), len(others)))
    low = np.maximum(some.boxes_xyxy[:, None, :2], others.boxes_xyxy[None, :, :2])
    high = np.minimum(some.boxes_xyxy[:, None, 2:], others.boxes_xyxy[None, :, 2:])
    meet = np.asarray((high > low).all(axis=2), np.bool_)
    crops = {int(j): others.crop(j) for j in np.flatnonzero(np.any(meet, axis=0))}
    for i in np.flatnonzero(np.any(meet, axis=1)):
        crop = some.crop(i)
        for j in np.flatnonzero(meet[i]):
            found[i, j] = intersection(
                crop, some.boxes_xyxy[i].tolist(), crops[int(j)], others.boxes_xyxy[j].tolist()
            )
    return found


def shared_of_smaller(one: SoftMask, other: SoftMask) -> float:
    """Intersection of two masks over the area of the smaller one."""
    smaller = min(one.area, other.area)
    a, b = np.array(one.box_xyxy), np.array(other.box_xyxy)
    if not smaller or (np.maximum(a, b)[:2] >= np.minimum(a, b)[2:]).any():
        return 0.0
    crops = [
        np.asarray(mask.values[box[1] - y : box[3] - y, box[0] - x : box[2] - x] > EDGE, np.bool_)
        for mask, box, (x, y) in ((one, a, one.corner_xy), (other, b, other.corner_xy))
    ]
    return intersection(crops[0], a.tolist(), crops[1], b.tolist()) / smaller
