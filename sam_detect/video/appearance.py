"""Occlusion: which part of an object is visible.

At each key frame an object's colours are stored in a grid of cells. A cell whose colour later
matches none of the stored ones nearby is occluded. So a mask does not stay on a bar behind which
its object has gone.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np

from sam_detect.masks import BoolArray, FloatArray
from sam_detect.types import ImageRGB
from sam_detect.video.motion import SoftMask

CELLS = 12
"""Along each side of the object's box."""
TOLERANCE = 50.0
"""Levels of 255 by which a cell may differ from what was near it."""
LEAST_COVER = 0.5
"""Of a cell: where the mask covers less, the cell is not of the object."""
WHOLE_SHARE = 0.75
"""Least visible share of an object that counts as whole: colours vary a little."""
LEAST_PX = 5
"""Shortest side of a box, in pixels, that is divided into cells."""


@dataclass(frozen=True, eq=False)
class Appearance:
    """The colours of an object at a key frame.

    Attributes:
        cells: ``(CELLS, CELLS, 3)`` float32, the mean colour of each cell.
        low, high: ``(CELLS, CELLS, 3)`` float32, the darkest and lightest near each cell.
        cover: ``(CELLS, CELLS)`` bool, the cells of the object.
    """

    cells: FloatArray
    low: FloatArray
    high: FloatArray
    cover: BoolArray

    @classmethod
    def of(cls, image_rgb: ImageRGB, mask: SoftMask) -> Appearance | None:
        """That of a mask; None for one that is too small, or is not all in the picture."""
        x0, y0, x1, y1 = mask.box_xyxy
        if min(x1 - x0, y1 - y0) < LEAST_PX or not _in_picture(image_rgb, mask).all():
            return None
        cells = _cells(image_rgb, mask)
        near = np.ones((3, 3), np.uint8)
        x, y = mask.corner_xy
        solid = np.ascontiguousarray(mask.values[y0 - y : y1 - y, x0 - x : x1 - x])
        covered = cv2.resize(solid, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
        cover = np.asarray(covered > LEAST_COVER, np.bool_)
        if not cover.any():
            return None
        # The background does not count.
        low, high = cells.copy(), cells.copy()
        low[~cover], high[~cover] = 255, 0
        return cls(cells, cv2.erode(low, near), cv2.dilate(high, near), cover)

    def visible(self, image_rgb: ImageRGB, mask: SoftMask, gain: float) -> BoolArray:
        """``(CELLS, CELLS)``: the cells with the same colours; none outside the picture.

        Args:
            gain: how many times brighter the picture has become.
        """
        cells = _cells(image_rgb, mask)
        low, high = (np.minimum(255, bound * gain) for bound in (self.low, self.high))
        alike = ((cells > low - TOLERANCE) & (cells < high + TOLERANCE)).all(axis=2)
        alike |= ~self.cover
        solid = cv2.medianBlur(alike.astype(np.uint8), 3)
        seen: BoolArray = solid.astype(np.bool_)
        return np.asarray(seen & _in_picture(image_rgb, mask))

    def difference(self, image_rgb: ImageRGB, mask: SoftMask, gain: float) -> float:
        """Mean colour difference from the pixels under a mask, in levels of 255."""
        there = _cells(image_rgb, mask)
        return float(np.abs(there - np.minimum(255, self.cells * gain))[self.cover].mean())

    def share(self, visible: BoolArray) -> float:
        """The visible share of the object, 0 to 1."""
        return float(np.count_nonzero(visible & self.cover) / np.count_nonzero(self.cover))


def over(visible: BoolArray, mask: SoftMask) -> FloatArray:
    """Visible cells for each value of the mask, 0 to 1, with soft borders."""
    x0, y0, x1, y1 = mask.box_xyxy
    height, width = mask.values.shape
    spread = cv2.resize(
        visible.astype(np.float32), (x1 - x0, y1 - y0), interpolation=cv2.INTER_LINEAR
    )
    left, top = x0 - mask.corner_xy[0], y0 - mask.corner_xy[1]
    around = (top, height - top - (y1 - y0), left, width - left - (x1 - x0))
    return np.asarray(cv2.copyMakeBorder(spread, *around, cv2.BORDER_REPLICATE), np.float32)


def _cells(image_rgb: ImageRGB, mask: SoftMask) -> FloatArray:
    """Mean colours, ``(CELLS, CELLS, 3)``; outside the picture its border is repeated."""
    height, width = image_rgb.shape[:2]
    x0, y0, x1, y1 = mask.box_xyxy
    left, top = min(max(x0, 0), width - 1), min(max(y0, 0), height - 1)
    right, bottom = max(min(x1, width), left + 1), max(min(y1, height), top + 1)
    part = image_rgb[top:bottom, left:right]
    if (left, top, right, bottom) != (x0, y0, x1, y1):
        part = cv2.copyMakeBorder(
            part, max(0, top - y0), max(0, y1 - bottom), max(0, left - x0), max(0, x1 - right),
            cv2.BORDER_REPLICATE,
        )  # fmt: skip
    small = cv2.resize(part, (CELLS, CELLS), interpolation=cv2.INTER_AREA)
    return np.asarray(small, np.float32)


def _in_picture(image_rgb: ImageRGB, mask: SoftMask) -> BoolArray:
    """``(CELLS, CELLS)``: whether the middle of each cell is in the picture."""
    x0, y0, x1, y1 = mask.box_xyxy
    middles = (np.arange(CELLS) + 0.5) / CELLS
    xs, ys = x0 + middles * (x1 - x0), y0 + middles * (y1 - y0)
    height, width = image_rgb.shape[:2]
    rows, columns = (ys >= 0) & (ys < height), (xs >= 0) & (xs < width)
    return np.asarray(rows[:, None] & columns[None], np.bool_)
