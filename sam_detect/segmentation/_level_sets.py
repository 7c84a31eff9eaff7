"""Candidate regions: the stable level sets of several channels, at several scales.

A level set is a connected region of the pixels above (or below) a threshold; one that hardly
changes while the threshold moves has an outline that does not depend on it: the maximally stable
extremal regions of Matas et al. 2002, in the linear-time form of Nister and Stewenius 2008 that
OpenCV has. What is dim beside something bright never gets a stable level of its own, so pixels
that stand out from their neighbourhood's mean are taken as regions too (Bradley and Roth 2007).
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.masks import BoolArray
from sam_detect.types import ImageRGB

Plane = npt.NDArray[np.uint8]

STEP = 5
"""Grey levels that a region must stay stable over, of 255."""
MAX_VARIATION = 0.5
MIN_DIVERSITY = 0.2
SCALES = ((1, 1.0), (2, 2.0))
"""Reduction of the picture, and the blur before it, in pixels."""
NEIGHBOURHOODS = (1 / 20, 1 / 8, 1 / 3)
"""Sides of the local means, as shares of the picture's shorter side."""
LEAST_RANGE = 4
"""A channel that spans fewer grey levels holds noise only."""
WORKERS = 2


@dataclass(frozen=True, eq=False)
class Region:
    """A crop and where it lies: ``(h, w)`` bool, its top left corner in the picture."""

    x0: int
    y0: int
    crop: BoolArray


def level_sets(image_rgb: ImageRGB, *, min_area: int, max_area: int) -> list[Region]:
    """Stable regions of every channel and scale, near-duplicates dropped, in a fixed order."""
    grey = np.asarray(cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY), np.uint8)
    limits = (min_area, max_area)
    # OpenCV lets go of the interpreter's lock; the results keep the order of the jobs.
    with ThreadPoolExecutor(WORKERS) as pool:
        planes = list(_planes(image_rgb))
        jobs = [pool.submit(_stable, plane, factor, *limits) for plane, factor in planes]
        jobs += [pool.submit(_halves, plane, *limits) for plane, factor in planes if factor == 1]
        jobs += [
            pool.submit(_standing_out, grey, sign, share, *limits)
            for sign in (1, -1)
            for share in NEIGHBOURHOODS
        ]
        found = [region for job in jobs for region in job.result()]
    return _without_near_duplicates(found)


def _planes(image_rgb: ImageRGB) -> Iterator[tuple[Plane, int]]:
    """Stretched channels with the factor they are reduced by: L, a, b, saturation."""
    lab = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2LAB)
    saturation = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2HSV)[..., 1]
    for channel in (lab[..., 0], lab[..., 1], lab[..., 2], saturation):
        low, high = np.percentile(channel[::3, ::3], [0.2, 99.8])
        if high - low < LEAST_RANGE:
            continue
        scaled = (channel.astype(np.float32) - low) * (255 / (high - low))
        for factor, blur in SCALES:
            plane = cv2.GaussianBlur(scaled, (0, 0), blur)[::factor, ::factor]
            yield np.ascontiguousarray(np.clip(plane, 0, 255).astype(np.uint8)), factor


def _stable(plane: Plane, factor: int, min_area: int, max_area: int) -> list[Region]:
    if min(plane.shape) < 3:
        return []
    least, most = max(8, min_area // factor**2), max(9, max_area // factor**2)
    detector = cv2.MSER.create(STEP, least, most, MAX_VARIATION, MIN_DIVERSITY)
    pixels, boxes_xywh = detector.detectRegions(plane)
    found, seen = [], set()
    for listed, (x, y, width, height) in zip(pixels, boxes_xywh, strict=True):
        points = np.asarray(listed)
        key = _place(x, y, width, height, len(points))
        if key in seen:
            continue
        seen.add(key)
        crop = np.zeros((height, width), np.uint8)
        crop[points[:, 1] - y, points[:, 0] - x] = 1
        if factor > 1:
            size = (int(width) * factor, int(height) * factor)
            soft = cv2.resize(crop * 255, size, interpolation=cv2.INTER_LINEAR)
            crop = (soft > 127).view(np.uint8)
        found.append(Region(int(x) * factor, int(y) * factor, crop.view(np.bool_)))
    return found


def _standing_out(
    grey: Plane, sign: int, share: float, min_area: int, max_area: int
) -> list[Region]:
    """Regions brighter (sign 1) or darker (-1) than the mean of their neighbourhood."""
    side = 2 * max(3, round(share * min(grey.shape))) + 1
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0).astype(np.float32)
    excess = sign * (smooth - cv2.boxFilter(smooth, -1, (side, side)))
    # Half the spread of what stands out keeps noise away and dim things in.
    limit = max(2.0, 0.5 * float(excess.std()))
    above = cv2.morphologyEx((excess > limit).view(np.uint8), cv2.MORPH_OPEN, _DISC)
    return _components(above, min_area, max_area)


def _halves(plane: Plane, min_area: int, max_area: int) -> list[Region]:
    """Regions above and below the level that parts the plane best (Otsu 1979).

    In a drawn or very clean picture no level set is more stable than its neighbours, and the
    detector of stable ones finds none.
    """
    _, above = cv2.threshold(plane, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    return [
        *_components(above, min_area, max_area),
        *_components(1 - above, min_area, max_area),
    ]


def _components(binary: Plane, min_area: int, max_area: int) -> list[Region]:
    """Connected regions of ones within the area limits."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(binary, connectivity=4)
    chosen = np.flatnonzero((stats[1:, 4] >= min_area) & (stats[1:, 4] <= max_area)) + 1
    found = []
    for label in chosen:
        x, y, width, height, _ = (int(v) for v in stats[label])
        found.append(Region(x, y, labels[y : y + height, x : x + width] == label))
    return found


def _without_near_duplicates(regions: list[Region]) -> list[Region]:
    seen: set[tuple[int, ...]] = set()
    kept = []
    for region in regions:
        height, width = region.crop.shape
        key = _place(region.x0, region.y0, width, height, int(np.count_nonzero(region.crop)))
        if key not in seen:
            seen.add(key)
            kept.append(region)
    return kept


def _place(x: int, y: int, width: int, height: int, area: int) -> tuple[int, ...]:
    """Equal for regions whose corners differ by some 4 % and whose areas differ by some 15 %."""
    unit = max(1.0, 0.04 * (width * height) ** 0.5)
    corners = (x, y, x + width, y + height)
    return (*(round(v / unit) for v in corners), round(6 * np.log(area + 1)), round(unit))


_DISC = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
