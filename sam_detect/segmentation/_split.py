"""Regions made whole, and touching objects taken apart."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt
from skimage.morphology import h_maxima
from skimage.segmentation import watershed

from sam_detect.masks import BoolArray, tight_box_xyxy
from sam_detect.segmentation._level_sets import Region

CONVEX = 0.9
"""Solidity above which a region is one thing."""
LEAST_DIP = 0.08
"""Depth of the neck between two peaks of the distance transform, as a share of the higher one."""
WORKING_AREA = 2000
"""Larger regions are taken apart at a reduced scale, in pixels."""
MOST_PARTS = 60


def filled(region: Region) -> tuple[Region, float]:
    """The region with its holes filled, and its solidity (area over that of its convex hull)."""
    height, width = region.crop.shape
    padded = np.zeros((height + 2, width + 2), np.uint8)
    padded[1:-1, 1:-1] = region.crop
    contours, _ = cv2.findContours(padded, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contour = max(contours, key=len)
    whole = np.zeros_like(padded)
    cv2.drawContours(whole, [contour], -1, 1, cv2.FILLED)
    area = int(np.count_nonzero(whole))
    # The hull of pixel centres lacks half a pixel all around.
    hull = cv2.contourArea(cv2.convexHull(contour)) + len(contour) / 2 + 1
    return Region(region.x0, region.y0, whole[1:-1, 1:-1].view(np.bool_)), min(1.0, area / hull)


def split_touching(region: Region, *, min_area: int) -> list[Region]:
    """The parts of a region between the necks of its outline; none for one thing.

    A watershed of the distance transform, flooded from its h-maxima (Vincent and Soille 1991;
    Soille 2003), so that the ripples of an outline make no parts.
    """
    mask = np.pad(region.crop, 1).view(np.uint8)
    area = int(np.count_nonzero(mask))
    if area < 2 * min_area:
        return []
    factor = min(1.0, (WORKING_AREA / area) ** 0.5)
    small = _at_scale(mask, factor)
    depth = cv2.distanceTransform(small, cv2.DIST_L2, cv2.DIST_MASK_5)
    depth = cv2.GaussianBlur(depth, (0, 0), 1.0)
    peaks = h_maxima(depth, max(0.3, LEAST_DIP * float(depth.max())))
    count, markers = cv2.connectedComponents(peaks.astype(np.uint8))
    if not 2 < count <= MOST_PARTS:
        return []
    basins = watershed(-depth, markers, mask=small > 0).astype(np.uint8)
    if factor < 1:
        basins = cv2.resize(basins, mask.shape[::-1], interpolation=cv2.INTER_NEAREST) * mask
    parts = [_placed(region, basins == label, min_area) for label in range(1, count)]
    return [part for part in parts if part is not None]


def _at_scale(mask: npt.NDArray[np.uint8], factor: float) -> npt.NDArray[np.uint8]:
    if factor == 1:
        return mask
    size = (max(3, round(mask.shape[1] * factor)), max(3, round(mask.shape[0] * factor)))
    return np.asarray(cv2.resize(mask, size, interpolation=cv2.INTER_NEAREST), np.uint8)


def _placed(region: Region, padded: BoolArray, min_area: int) -> Region | None:
    """A part of a region, given in the region's crop with a border of one pixel."""
    box = tight_box_xyxy(padded)
    if box is None or np.count_nonzero(padded) < min_area:
        return None
    x0, y0, x1, y1 = box
    crop = np.ascontiguousarray(padded[y0:y1, x0:x1])
    return Region(region.x0 + x0 - 1, region.y0 + y0 - 1, crop)
