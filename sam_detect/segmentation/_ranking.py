"""Scores regions along their outlines, and keeps one of many near-equal regions.

The outlines of all regions are in one table, so that an image is measured along all of them at
once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.segmentation._regions import RegionProposal, boxes_xyxy, whole_region
from sam_detect.types import ImageRGB
from sam_detect.types.masks import BoolArray, FloatArray, IntArray, intersection

MOST_POINTS = 200
"""Longer outlines are subsampled."""


@dataclass(frozen=True, eq=False)
class Outlines:
    """P outline pixels of N regions, region after region.

    Attributes:
        points_xy: ``(P, 2)`` float32, in the image.
        outward_xy: ``(P, 2)`` float32, unit vectors away from the region.
        following: ``(P,)`` index of the next point around the region.
        owners: ``(P,)`` index of the region.
        starts: ``(N,)`` index of each region's first point.
        lengths: ``(N,)`` number of its points.
        pixels: ``(N,)`` number of its outline's pixels, before subsampling.
        turns: ``(N,)`` 1 or -1: the orientation of the outline.
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
    def of(cls, regions: Sequence[RegionProposal]) -> Outlines:
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
        # twice the area, by the shoelace formula; its sign is the orientation
        twice = np.add.reduceat(points[:, 0] * after[:, 1] - points[:, 1] * after[:, 0], starts)
        turns = np.where(twice < 0, -1, 1).astype(np.float32)
        # adjacent points alone would give multiples of 45 degrees
        reach = np.clip(lengths // 6, 1, 3)[owners]
        along = points[first + (place + reach) % count] - points[first + (place - reach) % count]
        along *= (turns[owners] / np.maximum(np.hypot(along[:, 0], along[:, 1]), 1e-6))[:, None]
        outward = np.column_stack([along[:, 1], -along[:, 0]]).astype(np.float32)
        corners = np.array([(region.x0, region.y0) for region in regions], np.float32)
        points += corners[owners]
        return cls(points, outward, following, owners, starts, lengths, pixels, turns)

    def places(self, size_hw: tuple[int, int], outwards: FloatArray | float = 0) -> IntArray:
        """``(P,)`` flat indices of the image's pixels at a distance from the outline.

        Args:
            outwards: distance in pixels, one or ``(P,)``; negative: inside.
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

    def mean_inside(self, image: FloatArray, row_sums: FloatArray) -> FloatArray:
        """``(N, C)`` means over the pixels of each region, from its outline alone.

        By Green's theorem the integral of f over a polygon is that of f's running sum along the
        rows, taken around the polygon. The polygon here runs through the centres of the outline's
        pixels; half of each of them lies outside of it (Pick 1899).

        Args:
            image: ``(H, W, C)``.
            row_sums: ``(H, W, C)``, summed along the rows up to the centre of each pixel.
        """
        height, width, channels = image.shape
        here = self.places((height, width))
        across = self.points_xy[:, 0] - self.points_xy[self.starts, 0][self.owners]
        sums = np.column_stack([row_sums.reshape(-1, channels)[here], across])
        down = (self.points_xy[self.following, 1] - self.points_xy[:, 1]) * self.turns[self.owners]
        sums = (sums + sums[self.following]) * (down / 2)[:, None]
        polygons = np.add.reduceat(sums, self.starts, axis=0)
        halves = self.pixels[:, None] / 2
        rims = self.mean(image.reshape(-1, channels)[here]) * halves
        areas = polygons[:, -1:] + halves
        return np.asarray((polygons[:, :-1] + rims) / np.maximum(areas, 0.5), np.float32)


WEIGHTS = {
    "contrast": 0.05,
    "outline": 0.07,
    "solidity": 0.67,
    "size": 0.06,
    "unevenness": -0.06,
    "aspect": 0.08,
}
"""Weight of each measure in the score. Fitted by least squares to the IoU with annotated objects in
four kinds of images, then rounded; see docs/segmentation.md."""
MOST_DEVIATIONS = 3
"""Contrast and unevenness count up to so many standard deviations of the picture. A few small
objects on an even ground are far beyond it: their own outlines are all that varies."""
HOLE_SHIFT, HOLE_REACH, HOLE_SAMPLES = 0.1, 0.2, 2000
"""A hole shows what is around its region, perhaps shaded or soiled: its colour is so far on the way
from there to the region's own, or off by that much at most. A reflection on a disc is no hole."""
SOLIDITY_OF_LINES = 0.7
"""What a curved or crossed line (a hook, an asterisk) counts as: its own is that of texture."""
EVEN_WIDTH, LEAST_WIDTH, CLEAR_CONTRAST = 0.8, 2.5, 2.0
"""A line is about as wide everywhere: its mean width is at least this share of its largest one. It
has this width (pixels) and this contrast (standard deviations) at least, which texture rarely has:
eleven regions of 60 photographs and micrographs of seven kinds."""
MAX_SHIFT = 2
"""Pixels that an outline may be moved."""
MAX_SHIFT_SHARE = 0.12
"""The same relative to the region's size: the root of its area, or twice the width of one that is
less solid than :data:`SOLIDITY_OF_LINES`."""


class Ranker:
    """Scores the regions of one image, and moves their outlines to its edges."""

    def __init__(self, image_rgb: ImageRGB) -> None:
        self.size_hw = (image_rgb.shape[0], image_rgb.shape[1])
        lab = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2LAB).astype(np.float32)
        lab = cv2.GaussianBlur(lab, (0, 0), 0.8)
        self._edges = _edges(lab).reshape(-1)
        mean, spread = cv2.meanStdDev(lab)
        lab = ((lab - mean[:, 0]) / (spread[:, 0] + 2)).astype(np.float32)
        squares = np.square(lab).sum(axis=2)
        self._colours = lab.reshape(-1, 3)
        self._image = np.dstack([lab, squares]).astype(np.float32)
        self._row_sums = np.asarray(np.cumsum(self._image, axis=1) - self._image / 2, np.float32)

    def scores(self, regions: Sequence[RegionProposal]) -> FloatArray:
        """``(N,)`` 0 to 1, higher for a region that is like one whole object."""
        if not regions:
            return np.zeros(0, np.float32)
        total = sum(WEIGHTS[name] * values for name, values in self._measures(regions).items())
        return np.clip(np.asarray(total, np.float32), 0, 1)

    def snapped(self, regions: Sequence[RegionProposal]) -> list[RegionProposal]:
        """The regions dilated or eroded until their outlines follow the strongest gradient.

        A stable level set often ends slightly inside or outside of it.
        """
        if not regions:
            return []
        rims = self._gradients(Outlines.of(regions), range(-MAX_SHIFT, MAX_SHIFT + 2))
        # a region ends between its outline's pixels and the next ones
        strengths = rims[:-1] + rims[1:]
        moves = np.arange(-MAX_SHIFT, MAX_SHIFT + 1)
        areas = np.array([region.area for region in regions])
        widths = 4 * areas / [len(region.outline_xy) for region in regions]
        solid = np.array([region.solidity for region in regions]) >= SOLIDITY_OF_LINES
        furthest = MAX_SHIFT_SHARE * np.where(solid, np.sqrt(areas), widths)
        strengths[np.abs(moves)[:, None] > furthest] = -1
        best = moves[strengths.argmax(axis=0)].tolist()
        return [self._grown(region, by) for region, by in zip(regions, best, strict=True)]

    def _measures(self, regions: Sequence[RegionProposal]) -> dict[str, FloatArray]:
        """The measures of the score, ``(N,)`` each; colours are in standard deviations."""
        outlines = Outlines.of(regions)
        areas = np.array([region.area for region in regions], np.float32)
        sides = np.array([region.crop.shape for region in regions], np.float32)
        inside = outlines.mean_inside(self._image, self._row_sums)
        reach = 1 + np.clip(np.rint(0.12 * np.sqrt(areas)), 1, 4)
        places = outlines.places(self.size_hw, reach[outlines.owners].astype(np.float32))
        around = outlines.mean(self._colours[places])
        solidity = np.array([region.solidity for region in regions], np.float32)
        for index, region in enumerate(regions):
            if region.holes is not None:
                inside[index] = self._pixels(region, region.crop).mean(axis=0)
                own = inside[index, :3] - around[index]
                hole = np.median(self._pixels(region, region.holes)[:, :3], axis=0)
                off = hole - around[index] - HOLE_SHIFT * own
                if np.linalg.norm(off) > HOLE_REACH * np.linalg.norm(own):
                    solidity[index] = -np.inf  # no object
        variance = inside[:, 3] - np.square(inside[:, :3]).sum(axis=1)
        contrast = np.linalg.norm(inside[:, :3] - around, axis=1)
        rough = (solidity < SOLIDITY_OF_LINES) & (contrast >= CLEAR_CONTRAST)
        for index in np.flatnonzero(rough).tolist():
            if regions[index].holes is None and _is_line(regions[index]):
                solidity[index] = SOLIDITY_OF_LINES
        return {
            "contrast": np.minimum(MOST_DEVIATIONS, contrast),
            "outline": self._gradients(outlines, range(2)).mean(axis=0),
            "solidity": solidity,
            "size": np.log(areas / (self.size_hw[0] * self.size_hw[1])),
            "unevenness": np.minimum(MOST_DEVIATIONS, np.sqrt(np.maximum(variance, 0))),
            "aspect": sides.min(axis=1) / sides.max(axis=1),
        }

    def _pixels(self, region: RegionProposal, mask: BoolArray) -> FloatArray:
        """``(K, 4)`` of the image in a mask of a region's crop; of a large one some."""
        pixels = np.flatnonzero(mask)
        rows, columns = np.divmod(pixels[:: 1 + len(pixels) // HOLE_SAMPLES], mask.shape[1])
        return np.asarray(self._image[rows + region.y0, columns + region.x0])

    def _gradients(self, outlines: Outlines, steps: range) -> FloatArray:
        """``(S, N)`` mean gradient along the outlines moved outwards by each of S steps."""
        return np.stack(
            [outlines.mean(self._edges[outlines.places(self.size_hw, by)]) for by in steps]
        )

    def _grown(self, region: RegionProposal, by: int) -> RegionProposal:
        """The region with its outline moved outwards by so many pixels; whole if that is none."""
        if by == 0:
            return region
        margin = max(0, by)
        height, width = region.crop.shape
        y0, x0 = max(0, region.y0 - margin), max(0, region.x0 - margin)
        y1 = min(self.size_hw[0], region.y0 + height + margin)
        x1 = min(self.size_hw[1], region.x0 + width + margin)
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        top, left = region.y0 - y0, region.x0 - x0
        mask[top : top + height, left : left + width] = region.crop
        if by > 0:
            moved = cv2.dilate(mask, _CROSS, iterations=by)
        else:
            border = {"borderType": cv2.BORDER_CONSTANT, "borderValue": 0}
            moved = cv2.erode(mask, _CROSS, iterations=-by, **border)
        kept, hollow = moved.view(np.bool_), region.holes is not None
        return whole_region(x0, y0, kept, hollow=hollow) if moved.any() else region


def keep_best(
    regions: Sequence[RegionProposal], scores: FloatArray, *, iou_limit: float, most: int
) -> list[int]:
    """Greedy non-maximum suppression by mask IoU: indices, best first, at most ``most``.

    Only masks whose boxes and areas allow such an overlap are compared, so nested objects of
    different sizes cost nothing and survive.
    """
    order = np.argsort(-scores, kind="stable").tolist()
    ranked = [regions[index] for index in order]
    boxes = boxes_xyxy(ranked)
    areas = np.array([region.area for region in ranked], np.int64)
    overlapping = _overlapping_pairs(boxes, areas, iou_limit)
    alive = np.ones(len(ranked), np.bool_)
    kept: list[int] = []
    for rank, region in enumerate(ranked):
        if not alive[rank]:
            continue
        kept.append(order[rank])
        if len(kept) == most:
            break
        for other in overlapping[rank]:
            if alive[other]:
                shared = intersection(region.crop, boxes[rank], ranked[other].crop, boxes[other])
                alive[other] = shared <= iou_limit * (areas[rank] + areas[other] - shared)
    return kept


def _overlapping_pairs(boxes: IntArray, areas: IntArray, iou_limit: float) -> list[list[int]]:
    """For each region the later ones whose mask IoU with it could be above the limit."""
    count = len(areas)
    by_area = np.argsort(areas, kind="stable")
    ascending = areas[by_area]
    # pairs whose smaller area is more than this share of the larger one
    ends = np.searchsorted(ascending, ascending / iou_limit)
    runs = np.maximum(ends - np.arange(count) - 1, 0)
    first = np.repeat(np.arange(count), runs)
    second = first + 1 + np.arange(len(first)) - np.repeat(np.cumsum(runs) - runs, runs)
    small, large = by_area[first], by_area[second]
    met = _overlap(boxes, small, large, axis=0) > 0
    small, large = small[met], large[met]
    shared = _overlap(boxes, small, large, axis=0) * _overlap(boxes, small, large, axis=1)
    possible = np.minimum(shared, areas[small]) > iou_limit * areas[large]
    early = np.minimum(small, large)[possible]
    late = np.maximum(small, large)[possible]
    overlapping: list[list[int]] = [[] for _ in range(count)]
    for one, other in zip(early.tolist(), late.tolist(), strict=True):
        overlapping[one].append(other)
    return overlapping


def _overlap(boxes: IntArray, one: IntArray, other: IntArray, *, axis: int) -> IntArray:
    """``(K,)`` pixels that pairs of boxes share along an axis (0: x, 1: y); 0 for none."""
    ends = np.minimum(boxes[one, axis + 2], boxes[other, axis + 2])
    starts = np.maximum(boxes[one, axis], boxes[other, axis])
    return np.asarray(np.maximum(ends - starts, 0))


def _is_line(region: RegionProposal) -> bool:
    """Whether a region is a line, straight or not."""
    mean = 2 * region.area / len(region.outline_xy)
    depth = cv2.distanceTransform(
        np.pad(region.crop, 1).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5
    ).max()
    widest = 2 * float(depth) - 1
    return widest >= LEAST_WIDTH and mean >= EVEN_WIDTH * widest


def _edges(lab: FloatArray) -> FloatArray:
    """Strength of the colour gradient, relative to its 90th percentile; at most 2."""
    total = np.zeros(lab.shape[:2], np.float32)
    for channel in cv2.split(lab):
        gx = cv2.Sobel(channel, cv2.CV_32F, 1, 0, scale=0.25)
        gy = cv2.Sobel(channel, cv2.CV_32F, 0, 1, scale=0.25)
        total += gx * gx + gy * gy
    strength = np.sqrt(total)
    usual = np.percentile(strength[::2, ::2], 90) + 1
    return np.asarray(np.minimum(strength / usual, 2), np.float32)


_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
