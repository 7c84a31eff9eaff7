"""Segmenter ``naive``: proposals without weights, from the level sets of the picture.

1. Stable regions of several channels at several scales (``_level_sets``).
2. Holes filled; each region scored by contrast, outline, compactness (``_ranking``).
3. Near-equal ones dropped; touching objects taken apart at their necks (``_split``).
4. Ranked again; a mask that nearly equals a better one is dropped, nested ones stay.
5. Outlines snapped to the strongest gradient near them.
"""

from __future__ import annotations

import math
from concurrent.futures import ThreadPoolExecutor

import cv2
import numpy as np

from sam_detect.errors import ConfigError
from sam_detect.interfaces import Segmenter
from sam_detect.masks import FloatArray, tight_box_xyxy
from sam_detect.segmentation._level_sets import WORKERS, Region, level_sets
from sam_detect.segmentation._ranking import Ranker, keep_best
from sam_detect.segmentation._split import CONVEX, filled, split_touching
from sam_detect.types import Frame, ImageRGB, Masks

WORKING_PIXELS = 700_000
"""Larger pictures are worked on at a reduced scale; the masks come in full resolution."""
AREA_SHARES = (4e-5, 0.7)
"""Automatic area limits, as shares of the picture."""
LEAST_AREA = 16
LEAST_SCORE = 0.4
"""What scores less is texture more often than a thing."""
MOST_SPLIT = 500
"""So many of the best regions that are not convex are taken apart: it is the slowest step."""
TOO_ALIKE = 0.8
"""A mask whose IoU with a better one is above this is dropped."""


class NaiveSegmenter(Segmenter):
    """Proposes regions that stand out from what is around them. Deterministic.

    Args:
        min_area: smallest mask in pixels; 0 or None: 0.004 % of the picture, at least 16 pixels.
        max_area: largest mask in pixels; 0 or None: 70 % of the picture.
        max_proposals: at most this many masks, the best ones.

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
        least = self.min_area * factor**2 or max(LEAST_AREA, AREA_SHARES[0] * pixels)
        most = self.max_area * factor**2 or AREA_SHARES[1] * pixels
        limits = (max(1, math.floor(least)), max(1, math.ceil(most)))
        regions, scores = propose(image, limits=limits, max_proposals=self.max_proposals)
        if factor < 1:
            regions = [_enlarged(region, image, frame) for region in regions]
        boxes = [(r.x0, r.y0, r.x0 + r.crop.shape[1], r.y0 + r.crop.shape[0]) for r in regions]
        masks = Masks.from_crops(
            size_hw=frame.size_hw,
            boxes_xyxy=np.array(boxes, np.int64).reshape(-1, 4),
            crops=[region.crop for region in regions],
            predicted_ious=scores,
        )
        wanted = masks.areas >= self.min_area
        if self.max_area:
            wanted &= masks.areas <= self.max_area
        return masks[wanted]


def propose(
    image_rgb: ImageRGB, *, limits: tuple[int, int], max_proposals: int
) -> tuple[list[Region], FloatArray]:
    """Regions, best first, and their scores (0 to 1)."""
    found = level_sets(image_rgb, min_area=limits[0], max_area=limits[1])
    ranker = Ranker(image_rgb)
    regions, solidities, scores = _scored(found, ranker)
    chosen = keep_best(regions, scores, iou_limit=TOO_ALIKE, most=2 * max_proposals)
    rough = [regions[i] for i in chosen if solidities[i] < CONVEX][:MOST_SPLIT]
    with ThreadPoolExecutor(WORKERS) as pool:
        split = pool.map(lambda region: split_touching(region, min_area=limits[0]), rough)
        parts, _, part_scores = _scored([part for found in split for part in found], ranker)
    regions = [regions[i] for i in chosen] + parts
    scores = np.concatenate([scores[chosen], part_scores])
    areas = np.array([np.count_nonzero(region.crop) for region in regions], np.int64)
    scores[(areas < limits[0]) | (areas > limits[1])] = -1
    kept = keep_best(regions, scores, iou_limit=TOO_ALIKE, most=max_proposals)
    kept = [i for i in kept if scores[i] >= LEAST_SCORE]
    with ThreadPoolExecutor(WORKERS) as pool:
        # Twice: a step is one pixel, and two are seldom needed.
        snapped = list(pool.map(lambda i: ranker.snapped(ranker.snapped(regions[i])), kept))
    return [_tight(region) for region in snapped], scores[kept]


def _scored(found: list[Region], ranker: Ranker) -> tuple[list[Region], list[float], FloatArray]:
    def work(region: Region) -> tuple[Region, float, float]:
        whole, solidity = filled(region)
        return whole, solidity, ranker.score(whole, solidity)

    with ThreadPoolExecutor(WORKERS) as pool:
        done = list(pool.map(work, found))
    scores = np.array([score for _, _, score in done], np.float32)
    return [region for region, _, _ in done], [solidity for _, solidity, _ in done], scores


def _enlarged(region: Region, small: ImageRGB, frame: Frame) -> Region:
    """The region in the full picture, its outline smooth."""
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
    return _tight(Region(x0, y0, crop))


def _tight(region: Region) -> Region:
    box = tight_box_xyxy(region.crop)
    if box is None or box == (0, 0, region.crop.shape[1], region.crop.shape[0]):
        return region
    x0, y0, x1, y1 = box
    crop = np.ascontiguousarray(region.crop[y0:y1, x0:x1])
    return Region(region.x0 + x0, region.y0 + y0, crop)
