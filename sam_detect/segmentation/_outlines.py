"""The outlines of many regions in one table: a picture is measured along all of them at once."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sam_detect.masks import FloatArray, IntArray
from sam_detect.segmentation._regions import Region

MOST_POINTS = 200
"""Of longer outlines every so many-th pixel is a point."""


@dataclass(frozen=True, eq=False)
class Outlines:
    """P outline pixels of N regions, region after region.

    Attributes:
        points_xy: ``(P, 2)`` float32, in the picture.
        outward_xy: ``(P, 2)`` float32, unit vectors away from the region.
        following: ``(P,)`` index of the next point around the region.
        owners: ``(P,)`` index of the region.
        starts: ``(N,)`` index of each region's first point.
        lengths: ``(N,)`` number of its points.
        pixels: ``(N,)`` number of its outline's pixels; of long outlines not all are points.
        turns: ``(N,)`` 1 or -1: the sense in which they run around the region.
    """

    points_xy: FloatArray
    outward_xy: FloatArray
    following: IntArray
    owners: IntArray
    starts: IntArray
    lengths: IntArray
    pixels: IntArray
    turns: FloatArray

    @classmethod
    def of(cls, regions: Sequence[Region]) -> Outlines:
        """The outlines of at least one region."""
        pixels = np.array([len(region.outline_xy) for region in regions], np.int64)
        strides = 1 + pixels // MOST_POINTS
        lengths = -(-pixels // strides)
        starts = np.cumsum(lengths) - lengths
        owners = np.repeat(np.arange(len(regions)), lengths)
        sampled = [
            region.outline_xy[::stride]
            for region, stride in zip(regions, strides.tolist(), strict=True)
        ]
        points = np.concatenate(sampled).astype(np.float32)
        first, count = starts[owners], lengths[owners]
        place = np.arange(len(points)) - first
        following = np.asarray(first + (place + 1) % count, np.int64)
        after = points[following]
        # Twice the area, by the shoelace formula; its sign is the sense of the outline.
        twice = np.add.reduceat(points[:, 0] * after[:, 1] - points[:, 1] * after[:, 0], starts)
        turns = np.where(twice < 0, -1, 1).astype(np.float32)
        # Adjacent points alone would only give multiples of 45 degrees.
        reach = np.clip(lengths // 6, 1, 3)[owners]
        along = points[first + (place + reach) % count] - points[first + (place - reach) % count]
        along *= (turns[owners] / np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-6))[:, None]
        outward = np.column_stack([along[:, 1], -along[:, 0]]).astype(np.float32)
        corners = np.array([(region.x0, region.y0) for region in regions], np.float32)
        points += corners[owners]
        return cls(points, outward, following, owners, starts, lengths, pixels, turns)

    def places(self, size_hw: tuple[int, int], outwards: FloatArray | float = 0) -> IntArray:
        """``(P,)`` flat indices of the pixels of a picture so far outside the outline.

        Args:
            outwards: pixels, of all points or ``(P,)`` of each; negative: inside.
        """
        height, width = size_hw
        away = self.outward_xy * np.asarray(outwards, np.float32).reshape(-1, 1)
        xy = np.rint(self.points_xy + away).astype(np.int64)
        columns, rows = np.clip(xy[:, 0], 0, width - 1), np.clip(xy[:, 1], 0, height - 1)
        return np.asarray(rows * width + columns)

    def mean(self, values: npt.NDArray[Any]) -> FloatArray:
        """``(N,)`` or ``(N, C)`` means along each outline of ``(P,)`` or ``(P, C)`` values."""
        sums = np.add.reduceat(values, self.starts, axis=0)
        counts = self.lengths if values.ndim == 1 else self.lengths[:, None]
        return np.asarray(sums / counts, np.float32)

    def mean_inside(self, picture: FloatArray, row_sums: FloatArray) -> FloatArray:
        """``(N, C)`` means over the pixels of each region, from its outline alone.

        By Green's theorem the integral of f over a polygon is that of f's running sum along the
        rows, taken around the polygon. The polygon here runs through the centres of the outline's
        pixels; half of each of them lies outside of it (Pick 1899).

        Args:
            picture: ``(H, W, C)``.
            row_sums: ``(H, W, C)``, summed along the rows up to the centre of each pixel.
        """
        height, width, channels = picture.shape
        here = self.places((height, width))
        across = self.points_xy[:, 0] - self.points_xy[self.starts, 0][self.owners]
        sums = np.column_stack([row_sums.reshape(-1, channels)[here], across])
        down = (self.points_xy[self.following, 1] - self.points_xy[:, 1]) * self.turns[self.owners]
        sums = (sums + sums[self.following]) * (down / 2)[:, None]
        polygons = np.add.reduceat(sums, self.starts, axis=0)
        halves = self.pixels[:, None] / 2
        rims = self.mean(picture.reshape(-1, channels)[here]) * halves
        areas = polygons[:, -1:] + halves
        return np.asarray((polygons[:, :-1] + rims) / np.maximum(areas, 0.5), np.float32)
