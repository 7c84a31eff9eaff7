"""A region: one candidate object as a filled crop, with its outline."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.masks import BoolArray, IntArray

MOST_HULL_POINTS = 200
"""Of longer outlines every so many-th pixel is enough for the hull."""


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
    mask = crop.view(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = contours[0] if len(contours) == 1 else max(contours, key=len)
    # Pick 1899: the pixels in and on a polygon through pixel centres.
    area = round(cv2.contourArea(outline) + len(outline) / 2) + 1
    x, y, width, height = cv2.boundingRect(outline)
    points = outline.reshape(-1, 2)
    if (height, width) != mask.shape:
        points = points - np.array((x, y), np.int32)
    if (height, width) != mask.shape or area != cv2.countNonZero(mask):
        mask = np.zeros((height, width), np.uint8)
        cv2.drawContours(mask, [outline], -1, 1, cv2.FILLED, offset=(-x, -y))
    solidity = min(1.0, area / _hull_area(outline))
    return Region(x0 + x, y0 + y, mask.view(np.bool_), points, area, solidity)


def _hull_area(outline: npt.NDArray[Any]) -> float:
    """Pixels of the convex hull of an outline."""
    hull = cv2.convexHull(outline[:: 1 + len(outline) // MOST_HULL_POINTS].copy())
    # It runs through pixel centres: Steiner's formula adds the half pixel around it.
    return cv2.contourArea(hull) + cv2.arcLength(hull, True) / 2 + math.pi / 4


def boxes_xyxy(regions: Sequence[Region]) -> IntArray:
    """``(N, 4)`` half-open boxes."""
    rows = [(r.x0, r.y0, r.x0 + r.crop.shape[1], r.y0 + r.crop.shape[0]) for r in regions]
    return np.array(rows, np.int64).reshape(-1, 4)


def distinct(boxes_xywh: IntArray, areas: IntArray) -> IntArray:
    """``(M,)`` ascending indices of those that are not near-equal to an earlier one: corners that
    differ by up to some 6 % of the size, and areas that differ by up to some 20 %."""
    unit = np.maximum(1.0, 0.06 * np.sqrt(boxes_xywh[:, 2] * boxes_xywh[:, 3]))
    corners = np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1)
    places = np.rint(corners / unit[:, None])
    keys = np.column_stack([places, np.rint(5 * np.log(areas + 1)), np.rint(unit)])
    _, first = np.unique(keys, axis=0, return_index=True)
    return np.sort(first)
