"""How object-like a region is, and which of many near-equal regions to keep."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from sam_detect.masks import FloatArray, IntArray, intersection
from sam_detect.segmentation._outlines import Outlines
from sam_detect.segmentation._regions import Region, boxes_xyxy, whole_region
from sam_detect.types import ImageRGB

WEIGHTS = {
    "contrast": 0.05,
    "outline": 0.07,
    "solidity": 0.67,
    "size": 0.06,
    "unevenness": -0.06,
    "aspect": 0.08,
}
"""Share of each measure in the score. Fitted by least squares to the overlap with outlined objects
of four kinds of pictures at once, then rounded; see docs/segmentation.md."""
MOST_MOVED = 2
"""Pixels that an outline is moved by, at most."""
MOST_MOVED_SHARE = 0.12
"""The same as a share of the region's size (the root of its area)."""


class Ranker:
    """Scores the regions of one picture, and moves their outlines to its edges."""

    def __init__(self, image_rgb: ImageRGB) -> None:
        self.size_hw = (image_rgb.shape[0], image_rgb.shape[1])
        lab = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2LAB).astype(np.float32)
        lab = cv2.GaussianBlur(lab, (0, 0), 0.8)
        self._edges = _edges(lab).reshape(-1)
        mean, spread = cv2.meanStdDev(lab)
        lab = ((lab - mean[:, 0]) / (spread[:, 0] + 2)).astype(np.float32)
        squares = np.square(lab).sum(axis=2)
        self._colours = lab.reshape(-1, 3)
        self._picture = np.dstack([lab, squares]).astype(np.float32)
        self._row_sums = np.asarray(
            np.cumsum(self._picture, axis=1) - self._picture / 2, np.float32
        )

    def scores(self, regions: Sequence[Region]) -> FloatArray:
        """``(N,)`` 0 to 1, higher for what looks like one whole object."""
        if not regions:
            return np.zeros(0, np.float32)
        total = sum(WEIGHTS[name] * values for name, values in self._measures(regions).items())
        return np.clip(np.asarray(total, np.float32), 0, 1)

    def snapped(self, regions: Sequence[Region]) -> list[Region]:
        """The regions grown or shrunk to where their outlines run along the strongest gradient: a
        stable level set often ends a little inside or outside of it."""
        if not regions:
            return []
        rims = self._gradients(Outlines.of(regions), range(-MOST_MOVED, MOST_MOVED + 2))
        # A region ends between its outline's pixels and the next ones.
        strengths = rims[:-1] + rims[1:]
        moves = np.arange(-MOST_MOVED, MOST_MOVED + 1)
        furthest = MOST_MOVED_SHARE * np.sqrt([region.area for region in regions])
        strengths[np.abs(moves)[:, None] > furthest] = -1
        best = moves[strengths.argmax(axis=0)].tolist()
        return [self._grown(region, by) for region, by in zip(regions, best, strict=True)]

    def _measures(self, regions: Sequence[Region]) -> dict[str, FloatArray]:
        """What the score weighs, by name, ``(N,)`` each. Colours in units of their spread."""
        outlines = Outlines.of(regions)
        areas = np.array([region.area for region in regions], np.float32)
        sides = np.array([region.crop.shape for region in regions], np.float32)
        inside = outlines.mean_inside(self._picture, self._row_sums)
        variance = inside[:, 3] - np.square(inside[:, :3]).sum(axis=1)
        reach = 1 + np.clip(np.rint(0.12 * np.sqrt(areas)), 1, 4)
        around = outlines.places(self.size_hw, reach[outlines.owners].astype(np.float32))
        difference = inside[:, :3] - outlines.mean(self._colours[around])
        return {
            "contrast": np.minimum(3, np.sqrt(np.square(difference).sum(axis=1))),
            "outline": self._gradients(outlines, range(2)).mean(axis=0),
            "solidity": np.array([region.solidity for region in regions], np.float32),
            "size": np.log(areas / (self.size_hw[0] * self.size_hw[1])),
            "unevenness": np.sqrt(np.maximum(variance, 0)),
            "aspect": sides.min(axis=1) / sides.max(axis=1),
        }

    def _gradients(self, outlines: Outlines, steps: range) -> FloatArray:
        """``(S, N)`` mean gradient along the outlines moved outwards by each of S steps."""
        return np.stack(
            [outlines.mean(self._edges[outlines.places(self.size_hw, by)]) for by in steps]
        )

    def _grown(self, region: Region, by: int) -> Region:
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
        return whole_region(x0, y0, moved.view(np.bool_)) if moved.any() else region


def keep_best(
    regions: Sequence[Region], scores: FloatArray, *, iou_limit: float, most: int
) -> list[int]:
    """Greedy non-maximum suppression by mask IoU: indices, best first, at most ``most``.

    Only masks whose boxes and areas allow such an overlap are compared, so nested objects of
    different sizes cost nothing and survive.
    """
    order = np.argsort(-scores, kind="stable").tolist()
    ranked = [regions[index] for index in order]
    boxes = boxes_xyxy(ranked)
    areas = np.array([region.area for region in ranked], np.int64)
    rivals = _rivals(boxes, areas, iou_limit)
    alive = np.ones(len(ranked), np.bool_)
    kept: list[int] = []
    for rank, region in enumerate(ranked):
        if not alive[rank]:
            continue
        kept.append(order[rank])
        if len(kept) == most:
            break
        for other in rivals[rank]:
            if alive[other]:
                shared = intersection(region.crop, boxes[rank], ranked[other].crop, boxes[other])
                alive[other] = shared <= iou_limit * (areas[rank] + areas[other] - shared)
    return kept


def _rivals(boxes: IntArray, areas: IntArray, iou_limit: float) -> list[list[int]]:
    """For each region the later ones whose mask's IoU with it could be above the limit."""
    count = len(areas)
    by_area = np.argsort(areas, kind="stable")
    ascending = areas[by_area]
    # Pairs of areas of which the smaller one is more than this share of the larger one.
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
    rivals: list[list[int]] = [[] for _ in range(count)]
    for one, other in zip(early.tolist(), late.tolist(), strict=True):
        rivals[one].append(other)
    return rivals


def _overlap(boxes: IntArray, one: IntArray, other: IntArray, *, axis: int) -> IntArray:
    """``(K,)`` pixels that pairs of boxes share along an axis (0: x, 1: y); 0 for none."""
    ends = np.minimum(boxes[one, axis + 2], boxes[other, axis + 2])
    starts = np.maximum(boxes[one, axis], boxes[other, axis])
    return np.asarray(np.maximum(ends - starts, 0))


def _edges(lab: FloatArray) -> FloatArray:
    """Strength of the colour gradient, 1 where it is as strong as at the picture's edges."""
    total = np.zeros(lab.shape[:2], np.float32)
    for channel in cv2.split(lab):
        gx = cv2.Sobel(channel, cv2.CV_32F, 1, 0, scale=0.25)
        gy = cv2.Sobel(channel, cv2.CV_32F, 0, 1, scale=0.25)
        total += gx * gx + gy * gy
    strength = np.sqrt(total)
    usual = np.percentile(strength[::2, ::2], 90) + 1
    return np.asarray(np.minimum(strength / usual, 2), np.float32)


_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
