"""A region: one candidate object as a filled crop, with its outline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.masks import BoolArray, IntArray


@dataclass(frozen=True, eq=False)
class Region:
    """One connected part of a picture, without holes.

    Attributes:
        x0: left edge of the crop in the picture, pixels.
        y0: its top edge.
        crop: ``(h, w)`` bool, tight.
        outline_xy: ``(n, 2)`` int32, its outermost pixels in order around it, in the crop.
        area: its pixels.
        solidity: its area over that of its convex hull, 0 to 1.
    """

    x0: int
    y0: int
    crop: BoolArray
    outline_xy: npt.NDArray[np.int32]
    area: int
    solidity: float


def whole_region(x0: int, y0: int, crop: BoolArray) -> Region:
    """The part with the longest outline of a crop that is not empty, its holes filled."""
    contours, _ = cv2.findContours(crop.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = contours[0] if len(contours) == 1 else max(contours, key=len)
    x, y, width, height = cv2.boundingRect(outline)
    filled = np.zeros((height, width), np.uint8)
    cv2.drawContours(filled, [outline], -1, 1, cv2.FILLED, offset=(-x, -y))
    area = cv2.countNonZero(filled)
    hull = cv2.convexHull(outline)
    # The hull runs through pixel centres: Steiner's formula adds the half pixel around it.
    hull_area = cv2.contourArea(hull) + cv2.arcLength(hull, True) / 2 + math.pi / 4
    points = outline.reshape(-1, 2)
    if x or y:
        points = points - np.array((x, y), np.int32)
    solidity = min(1.0, area / hull_area)
    return Region(x0 + x, y0 + y, filled.view(np.bool_), points, area, solidity)


def boxes_xyxy(regions: Sequence[Region]) -> IntArray:
    """``(N, 4)`` half-open boxes."""
    rows = [(r.x0, r.y0, r.x0 + r.crop.shape[1], r.y0 + r.crop.shape[0]) for r in regions]
    return np.array(rows, np.int64).reshape(-1, 4)


def distinct(boxes_xywh: IntArray, areas: IntArray) -> IntArray:
    """``(M,)`` ascending indices of those that are not near-equal to an earlier one: corners that
    differ by up to some 4 % of the size, and areas that differ by up to some 15 %."""
    unit = np.maximum(1.0, 0.04 * np.sqrt(boxes_xywh[:, 2] * boxes_xywh[:, 3]))
    corners = np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1)
    places = np.rint(corners / unit[:, None])
    keys = np.column_stack([places, np.rint(6 * np.log(areas + 1)), np.rint(unit)])
    _, first = np.unique(keys, axis=0, return_index=True)
    return np.sort(first)
