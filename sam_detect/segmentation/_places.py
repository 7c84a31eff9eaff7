"""Where a cropped mask lies, and what it covers around a point."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sam_detect.types import Masks
from sam_detect.types.masks import BoolArray, Box

Place = tuple[Box, BoolArray]
"""The half-open box xyxy of a mask, and its ``(h, w)`` crop."""


def place_of(masks: Masks, index: int) -> Place:
    x0, y0, x1, y1 = masks.boxes_xyxy[index].tolist()
    return (x0, y0, x1, y1), masks.crop(index)


def value_at(place: Place, x: int, y: int) -> bool:
    (x0, y0, x1, y1), crop = place
    return x0 <= x < x1 and y0 <= y < y1 and bool(crop[y - y0, x - x0])


def distance_to_outline(place: Place, x: float, y: float) -> float:
    """From a point to the nearest pixel on the other side of a mask's outline, in pixels; it is
    sought in growing squares, for an outline may be as large as the picture."""
    inside = value_at(place, int(x), int(y))
    (x0, y0, x1, y1), _ = place
    limits = (x0 - 1, y0 - 1, x1 + 1, y1 + 1)
    half = 32 + max(x0 - x, x - x1, y0 - y, y - y1, 0)
    while True:
        square = square_around(x, y, half, limits)
        rows, columns = np.nonzero(in_box(*place, square) != inside)
        gaps = np.hypot(columns + square[0] + 0.5 - x, rows + square[1] + 0.5 - y)
        nearest = float(gaps.min(initial=np.inf))
        if nearest <= half or square == limits:
            return nearest
        half *= 2


def square_around(x: float, y: float, half: float, limits: Box) -> Box:
    """The whole pixels of a square around a point, as far as they lie inside the limits."""
    left, top = math.floor(x - half), math.floor(y - half)
    right, bottom = math.ceil(x + half), math.ceil(y + half)
    x0, y0, x1, y1 = limits
    return max(left, x0), max(top, y0), min(right, x1), min(bottom, y1)


def disc(x: float, y: float, radius: float, box: Box) -> BoolArray:
    """The pixels of a box whose centre is at most so far from a point."""
    rows, columns = np.ogrid[box[1] : box[3], box[0] : box[2]]
    return np.asarray((columns + 0.5 - x) ** 2 + (rows + 0.5 - y) ** 2 <= radius**2)


def in_box(own: Sequence[int], crop: BoolArray, box: Sequence[int]) -> BoolArray:
    """What a crop of one box covers of another box."""
    found = np.zeros((box[3] - box[1], box[2] - box[0]), np.bool_)
    x0, y0, x1, y1 = (
        max(own[0], box[0]), max(own[1], box[1]), min(own[2], box[2]), min(own[3], box[3])
    )  # fmt: skip
    if x0 < x1 and y0 < y1:
        found[y0 - box[1] : y1 - box[1], x0 - box[0] : x1 - box[0]] = crop[
            y0 - own[1] : y1 - own[1], x0 - own[0] : x1 - own[0]
        ]
    return found
