"""Segmenter ``naive``: proposals without weights, from the level sets of the image.

1. Find stable regions of several channels at several scales (``_level_sets``).
2. Crop the promising ones, fill their holes, and score them by contrast, outline and compactness
   (``_ranking``).
3. Drop near-duplicates, and split touching objects at their necks (``_regions``).
4. Score again, and drop a mask that nearly equals a better one; nested masks stay.
5. Snap outlines to the strongest gradient near them.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from sam_detect.errors import ConfigError
from sam_detect.interfaces import Segmenter
from sam_detect.masks import FloatArray
from sam_detect.segmentation._level_sets import level_sets
from sam_detect.segmentation._ranking import Ranker, keep_best
from sam_detect.segmentation._regions import (
    CONVEX,
    RegionProposal,
    boxes_xyxy,
    split_touching,
    whole_region,
)
from sam_detect.types import Frame, ImageRGB, Masks

WORKING_PIXELS = 700_000
"""Larger images are reduced to this many pixels; the masks have full resolution."""
AREA_SHARES = (4e-5, 0.7)
"""Automatic area limits, as shares of the image."""
LEAST_AREA = 16
LEAST_SCORE = 0.24
"""Below this score a region is texture more often than an object."""
MOST_SPLIT = 250
"""Of the regions that are not convex this many of the best are split: it is the slowest step."""
TOO_ALIKE = 0.8
"""A mask whose IoU with a better one is above this is dropped."""


class NaiveSegmenter(Segmenter):
    """Proposes regions that differ from their surroundings. Deterministic.

    Args:
        min_area: smallest mask in pixels; 0 or None: 0.004 % of the image, at least 16 pixels.
        max_area: largest mask in pixels; 0 or None: 70 % of the image.
        max_proposals: at most this many masks, the best.

    Raises:
        ConfigError: a negative area, or less than one proposal.
    """

    def __init__(
        self,
        *,
        min_area: int | None = None,
        max_area: int | None = None,
        max_proposals: int = 1000,
    ) -> None:
        if (min_area or 0) < 0 or (max_area or 0) < 0:
            raise ConfigError("min_area and max_area are numbers of pixels: 0 or more")
        if min_area and max_area and min_area > max_area:
            raise ConfigError(f"min_area {min_area} is larger than max_area {max_area}")
        if max_proposals < 1:
            raise ConfigError(f"max_proposals must be at least 1, got {max_proposals}")
        self.min_area = min_area or 0
        self.max_area = max_area or 0
        self.max_proposals = max_proposals

    def segment(self, frame: Frame) -> Masks:
        height, width = frame.size_hw
        factor = min(1.0, math.sqrt(WORKING_PIXELS / (height * width)))
        image = frame.image_rgb
        if factor < 1:
            size = (max(1, round(width * factor)), max(1, round(height * factor)))
            image = np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA), np.uint8)
        pixels = image.shape[0] * image.shape[1]
        least = self._least_area(pixels, factor**2)
        most = self.max_area * factor**2 or AREA_SHARES[1] * pixels
        limits = (max(1, math.floor(least)), max(1, math.ceil(most)))
        regions, scores = propose(image, limits=limits, max_proposals=self.max_proposals)
        if factor < 1:
            regions = [_enlarged(region, image, frame) for region in regions]
        masks = Masks.from_crops(
            size_hw=frame.size_hw,
            boxes_xyxy=boxes_xyxy(regions),
            crops=[region.crop for region in regions],
            predicted_ious=scores,
        )
        wanted = masks.areas >= self.min_area
        if self.max_area:
            wanted &= masks.areas <= self.max_area
        return masks[wanted]

    def smallest_area(self, size_hw: tuple[int, int]) -> float:
        share = self.worked_pixels(size_hw) / (size_hw[0] * size_hw[1])
        return max(1, math.floor(self._least_area(self.worked_pixels(size_hw), share))) / share

    def worked_pixels(self, size_hw: tuple[int, int]) -> int:
        return min(size_hw[0] * size_hw[1], WORKING_PIXELS)

    def _least_area(self, pixels: int, share: float) -> float:
        """Pixels of the smallest mask in an image of this many pixels, a share of the given one."""
        return self.min_area * share or max(LEAST_AREA, AREA_SHARES[0] * pixels)


def propose(
    image_rgb: ImageRGB, *, limits: tuple[int, int], max_proposals: int
) -> tuple[list[RegionProposal], FloatArray]:
    """Regions, best first, and their scores (0 to 1)."""
    with ThreadPoolExecutor(1) as pool:
        # the ranker is prepared while other threads find level sets
        preparing = pool.submit(Ranker, image_rgb)
        regions = level_sets(image_rgb, min_area=limits[0], max_area=limits[1])
        ranker = preparing.result()
    scores = ranker.scores(regions)
    chosen = keep_best(regions, scores, iou_limit=TOO_ALIKE, most=2 * max_proposals)
    regions = [regions[i] for i in chosen]
    rough = [region for region in regions if region.solidity < CONVEX][:MOST_SPLIT]
    parts = split_touching(rough, min_area=limits[0])
    regions += parts
    scores = np.concatenate([scores[chosen], ranker.scores(parts)])
    areas = np.array([region.area for region in regions], np.int64)
    good = np.flatnonzero((areas >= limits[0]) & (areas <= limits[1]) & (scores >= LEAST_SCORE))
    regions, scores = [regions[i] for i in good], scores[good]
    kept = keep_best(regions, scores, iou_limit=TOO_ALIKE, most=max_proposals)
    return ranker.snapped([regions[i] for i in kept]), scores[kept]


def _enlarged(region: RegionProposal, small: ImageRGB, frame: Frame) -> RegionProposal:
    """The region in the full image, its outline smooth."""
    height, width = frame.size_hw
    by_y, by_x = height / small.shape[0], width / small.shape[1]
    rows, columns = region.crop.shape
    y0, x0 = round(region.y0 * by_y), round(region.x0 * by_x)
    size = (
        min(max(1, round(columns * by_x)), width - x0),
        min(max(1, round(rows * by_y)), height - y0),
    )
    soft = cv2.resize(region.crop.astype(np.float32), size, interpolation=cv2.INTER_LINEAR)
    crop = soft >= min(0.5, float(soft.max()))
    return whole_region(x0, y0, crop)
