"""An object in a picture: its soft mask, and the colours that tell which part of it is visible.

At each key frame an object's colours are stored in a grid of cells. A cell whose colour later
matches none of the stored ones nearby is occluded. So a mask does not stay on a bar behind which
its object has gone.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.types import ImageRGB, Masks
from sam_detect.types.masks import BoolArray, FloatArray, tight_box_xyxy

EDGE = 0.5
"""A soft mask's value at the object's edge."""
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
class SoftMask:
    """An object's mask with a soft edge.

    Attributes:
        values: ``(h, w)`` float32 in 0..1, more than 0.5 on the object.
        corner_xy: where its upper left pixel lies in the picture; may be outside it.
    """

    values: FloatArray
    corner_xy: tuple[int, int]

    @classmethod
    def of(cls, masks: Masks, index: int) -> SoftMask:
        x, y = (int(v) for v in masks.boxes_xyxy[index, :2])
        return cls(masks.crop(index).astype(np.float32), (x, y))

    def cut(self, size_hw: tuple[int, int]) -> tuple[tuple[int, int, int, int], BoolArray] | None:
        """``(box_xyxy, crop)`` of its pixels that are in the picture; None where none is."""
        x, y = self.corner_xy
        left, top = max(0, -x), max(0, -y)
        inside = self.values[top : max(0, size_hw[0] - y), left : max(0, size_hw[1] - x)] > EDGE
        found = tight_box_xyxy(inside)
        if found is None:
            return None
        x0, y0, x1, y1 = found
        x, y = x + left, y + top
        return (x + x0, y + y0, x + x1, y + y1), np.ascontiguousarray(inside[y0:y1, x0:x1])

    @cached_property
    def area(self) -> int:
        """Its pixels, including those outside the picture."""
        return int(np.count_nonzero(self.values > EDGE))

    @cached_property
    def box_xyxy(self) -> tuple[int, int, int, int]:
        """Half-open, of its pixels; may reach beyond the picture; empty where there are none."""
        x, y = self.corner_xy
        x0, y0, x1, y1 = tight_box_xyxy(self.values > EDGE) or (0, 0, 0, 0)
        return x + x0, y + y0, x + x1, y + y1

    def moved(self, by_xy: tuple[int, int]) -> SoftMask:
        return replace(self, corner_xy=(self.corner_xy[0] + by_xy[0], self.corner_xy[1] + by_xy[1]))


def stack_masks(
    masks: Sequence[SoftMask | None], size_hw: tuple[int, int], qualities: npt.ArrayLike = 1.0
) -> tuple[list[int], Masks]:
    """Those masks that have pixels in a picture of this size: their indices, and themselves.

    Args:
        masks: None is left out.
        size_hw: of the picture.
        qualities: of each mask, 0 to 1.
    """
    cuts = [None if mask is None else mask.cut(size_hw) for mask in masks]
    kept = [index for index, cut in enumerate(cuts) if cut is not None]
    found = Masks.from_crops(
        size_hw=size_hw,
        boxes_xyxy=np.array([cut[0] for cut in cuts if cut], np.int64).reshape(-1, 4),
        crops=[cut[1] for cut in cuts if cut],
        predicted_ious=np.broadcast_to(np.asarray(qualities, np.float32), len(masks))[kept],
    )
    return kept, found


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


def spread_visible(visible: BoolArray, mask: SoftMask) -> FloatArray:
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
