"""How object-like a region is, and which of many near-equal regions to keep."""

from __future__ import annotations

import itertools
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.masks import FloatArray, intersection
from sam_detect.segmentation._level_sets import Region
from sam_detect.types import ImageRGB

LOOKED_AT_SIDE = 48
"""Regions are looked at in a reduced picture in which they are at most this large."""
WEIGHTS = {
    "contrast": 0.04,
    "outline": 0.08,
    "solidity": 0.40,
    "size": 0.056,
    "unevenness": -0.12,
    "roundness": 0.08,
}
"""Share of each measure in the score. Fitted by least squares to the overlap with outlined objects
of four kinds of pictures at once, then rounded; see docs/segmentation.md."""
OFFSET = 0.36


class Ranker:
    """Scores regions of one picture."""

    def __init__(self, image_rgb: ImageRGB) -> None:
        self.size_hw = image_rgb.shape[:2]
        self._pyramid = []
        lab = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2LAB).astype(np.float32)
        lab = cv2.GaussianBlur(lab, (0, 0), 0.8)
        self._spread = lab.reshape(-1, 3).std(axis=0) + 2
        while True:
            self._pyramid.append((lab, _edges(lab)))
            if min(lab.shape[:2]) < 2 * LOOKED_AT_SIDE:
                break
            lab = cv2.pyrDown(lab)

    def score(self, region: Region, solidity: float) -> float:
        """0 to 1, higher for what looks like one whole object."""
        measures = self._measures(region)
        measures["solidity"] = solidity
        total = OFFSET + sum(WEIGHTS[name] * value for name, value in measures.items())
        return float(min(1.0, max(0.0, total)))

    def snapped(self, region: Region) -> Region:
        """The region grown or shrunk by up to two pixels to where its outline runs along the
        strongest gradient: a stable level set often ends a little inside or outside of it."""
        margin = 3
        height, width = region.crop.shape
        y0, x0 = max(0, region.y0 - margin), max(0, region.x0 - margin)
        y1 = min(self.size_hw[0], region.y0 + height + margin)
        x1 = min(self.size_hw[1], region.x0 + width + margin)
        mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
        top, left = region.y0 - y0, region.x0 - x0
        mask[top : top + height, left : left + width] = region.crop
        edges = self._pyramid[0][1][y0:y1, x0:x1]
        sizes = [mask]
        for _ in range(2):
            sizes.append(cv2.dilate(sizes[-1], _CROSS))
        inner = mask
        for _ in range(2):
            inner = cv2.erode(inner, _CROSS, borderType=cv2.BORDER_CONSTANT, borderValue=0)
            sizes.insert(0, inner)
        # Between one size and the next lies the ring that an outline runs through.
        strengths = [
            cv2.mean(edges, mask=larger - smaller)[0] if (larger != smaller).any() else 0.0
            for smaller, larger in itertools.pairwise(sizes)
        ]
        around = [a + b for a, b in zip([0.0, *strengths], [*strengths, 0.0], strict=True)]
        best = int(np.argmax(around[1:4])) + 1
        if best == 2 or not sizes[best].any():
            return region
        return Region(x0, y0, sizes[best].view(np.bool_))

    def _measures(self, region: Region) -> dict[str, float]:
        height, width = region.crop.shape
        level = 0
        while level + 1 < len(self._pyramid) and max(height, width) >> level > LOOKED_AT_SIDE:
            level += 1
        lab, edges = self._pyramid[level]
        mask, (y0, x0) = _placed(region, level, lab.shape[:2])
        window = (slice(y0, y0 + mask.shape[0]), slice(x0, x0 + mask.shape[1]))
        area = max(1, int(np.count_nonzero(mask)))
        reach = max(1, min(4, round(0.12 * area**0.5)))
        near = cv2.dilate(mask, _DISCS[1])
        ring = cv2.dilate(mask, _DISCS[reach + 1]) - near
        inner = cv2.erode(mask, _DISCS[1])
        outline = near - inner
        pixels = lab[window]
        mean, spread = cv2.meanStdDev(pixels, mask=mask)
        around = cv2.mean(pixels, mask=ring)[:3] if ring.any() else tuple(mean[:, 0])
        difference = (mean[:, 0] - around) / self._spread
        full_area = float(np.count_nonzero(region.crop))
        return {
            "contrast": min(3.0, float(np.linalg.norm(difference))),
            "outline": min(2.0, cv2.mean(edges[window], mask=outline)[0]),
            "size": float(np.log(full_area / (self.size_hw[0] * self.size_hw[1]))),
            "unevenness": float((spread[:, 0] / self._spread).mean()),
            "roundness": min(height, width) / max(height, width),
        }


def keep_best(
    regions: Sequence[Region], scores: FloatArray, *, iou_limit: float, most: int
) -> list[int]:
    """Greedy non-maximum suppression by mask IoU: indices, best first, at most ``most``.

    Only masks whose boxes and areas allow such an overlap are compared, so nested objects of
    different sizes cost nothing and survive.
    """
    boxes = np.array(
        [(r.x0, r.y0, r.x0 + r.crop.shape[1], r.y0 + r.crop.shape[0]) for r in regions], np.int64
    ).reshape(-1, 4)
    areas = np.array([np.count_nonzero(r.crop) for r in regions], np.int64)
    kept: list[int] = []
    kept_boxes = np.zeros((most, 4), np.int64)
    kept_areas = np.zeros(most, np.int64)
    for index in np.argsort(-scores, kind="stable"):
        if len(kept) == most:
            break
        box, area, count = boxes[index], areas[index], len(kept)
        for other in _comparable(box, area, kept_boxes[:count], kept_areas[:count], iou_limit):
            shared = intersection(
                regions[index].crop, box, regions[kept[other]].crop, kept_boxes[other]
            )
            if shared > iou_limit * (area + kept_areas[other] - shared):
                break
        else:
            kept_boxes[count], kept_areas[count] = box, area
            kept.append(int(index))
    return kept


def _comparable(
    box: npt.NDArray[np.int64],
    area: int,
    boxes: npt.NDArray[np.int64],
    areas: npt.NDArray[np.int64],
    iou_limit: float,
) -> npt.NDArray[np.intp]:
    """Those whose IoU with the box's mask could be above the limit."""
    shared = np.clip(
        np.minimum(boxes[:, 2:], box[2:]) - np.maximum(boxes[:, :2], box[:2]), 0, None
    ).prod(axis=1)
    most = np.minimum(np.minimum(areas, area), shared)
    return np.flatnonzero(most > iou_limit * np.maximum(areas, area))


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


def _placed(
    region: Region, level: int, size_hw: tuple[int, int]
) -> tuple[npt.NDArray[np.uint8], tuple[int, int]]:
    """The region's mask at a level of the pyramid with a margin, and its window's corner (y, x)."""
    height, width = region.crop.shape
    small = (max(1, round(width / 2**level)), max(1, round(height / 2**level)))
    crop = region.crop.view(np.uint8)
    if level:
        crop = cv2.resize(crop, small, interpolation=cv2.INTER_NEAREST)
        if not crop.any():
            crop = np.ones_like(crop)
    margin = 6
    y, x = min(region.y0 >> level, size_hw[0] - 1), min(region.x0 >> level, size_hw[1] - 1)
    crop = crop[: size_hw[0] - y, : size_hw[1] - x]
    y0, x0 = max(0, y - margin), max(0, x - margin)
    y1 = min(size_hw[0], y + crop.shape[0] + margin)
    x1 = min(size_hw[1], x + crop.shape[1] + margin)
    mask = np.zeros((y1 - y0, x1 - x0), np.uint8)
    mask[y - y0 : y - y0 + crop.shape[0], x - x0 : x - x0 + crop.shape[1]] = crop
    return mask, (y0, x0)


_CROSS = cv2.getStructuringElement(cv2.MORPH_CROSS, (3, 3))
_DISCS = {
    reach: cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    for reach in range(1, 6)
}
