"""What the examples of a library say about the regions of a picture, pixel by pixel.

Where an object is a texture or composed of parts, the outlines of its parts are often stronger
than its own. A map of the similarity to the examples is even inside such an object, and low around
it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.segmentation._planes import BLUR, Plane, eight_bit
from sam_detect.segmentation._regions import RegionProposal
from sam_detect.types import SimilarityMap
from sam_detect.types.masks import BoolArray, FloatArray

LEVELS = (40, 70, 100, 128, 155, 180, 205, 225, 240, 250)
"""Of 255, above which regions are taken: an object lies on an even ground of any similarity."""
RING = 0.15
"""Width of what surrounds a region, as a share of the root of its area; at least 2 pixels."""
ABOUT_AS_LARGE = 4.0
"""So many times smaller or larger than the examples of a label a region may be one of its objects.
"""


def similarity_plane(similarity: Sequence[SimilarityMap]) -> Plane | None:
    """The highest of all maps as a plane to search for level sets; None without a map. (Level sets
    of each map by itself found no more.)"""
    maps = [each.values for each in similarity if each.values is not None]
    if not maps:
        return None
    smooth = cv2.GaussianBlur(np.maximum.reduce(maps), (0, 0), BLUR)
    return Plane(eight_bit(np.asarray(smooth * 255, np.float32)), 1)


def at_levels(searched: Plane) -> list[npt.NDArray[np.uint8]]:
    """``(h, w)`` each, 1 where the plane reaches a level."""
    return [np.asarray(searched.values >= level, np.uint8) for level in LEVELS]


def unlike(regions: Sequence[RegionProposal], similarity: Sequence[SimilarityMap]) -> BoolArray:
    """``(N,)`` which regions are no object of any label: none where nothing can be said."""
    return np.array([_is_unlike(region, similarity) for region in regions], np.bool_)


def _is_unlike(region: RegionProposal, similarity: Sequence[SimilarityMap]) -> bool:
    # Each label by itself: around food is the plate, which is like examples, too.
    for each in similarity:
        if each.values is not None:
            if is_similar(region, each.values, each.least, each.least_step):
                return False
        elif each.areas[0] <= region.area * ABOUT_AS_LARGE and (
            region.area <= each.areas[1] * ABOUT_AS_LARGE
        ):
            return False
    return True


def is_similar(region: RegionProposal, values: FloatArray, least: float, least_step: float) -> bool:
    """Whether a region is like the examples, and more so than what surrounds it.

    Args:
        values: ``(H, W)`` 0..1 how much each pixel is like them.
        least: mean of the region.
        least_step: by so much it is higher than around the region.
    """
    height, width = region.crop.shape
    own = values[region.y0 : region.y0 + height, region.x0 : region.x0 + width]
    inside = float(own[region.crop].mean())
    if inside < least:
        return False
    reach = max(2, round(RING * math.sqrt(region.area)))
    y0, x0 = max(0, region.y0 - reach), max(0, region.x0 - reach)
    part = values[y0 : region.y0 + height + reach, x0 : region.x0 + width + reach]
    mask = np.zeros(part.shape, np.uint8)
    top, left = region.y0 - y0, region.x0 - x0
    mask[top : top + height, left : left + width] = region.crop
    around = cv2.dilate(mask, np.ones((2 * reach + 1, 2 * reach + 1), np.uint8)) > mask
    # What fills the picture has no surroundings.
    return not around.any() or inside - float(part[around].mean()) >= least_step
