"""Candidate regions as filled crops, and touching objects split into parts.

Many regions are split at once: they are drawn next to each other into one image, an atlas. Its
distance transform, the components of its levels and its watershed cost little more than those of
one region.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.segmentation import watershed

from sam_detect.types.masks import BoolArray, FloatArray, IntArray

MOST_HULL_POINTS = 200
"""Longer outlines are subsampled for the hull."""
LEAST_HOLE, LEAST_HOLES = 0.05, 0.1
"""Holes of a smaller share of what the outline encloses are filled: each, and all that are left."""


@dataclass(frozen=True, eq=False)
class RegionProposal:
    """A connected part of an image, usually without holes.

    Attributes:
        x0: left edge of the crop in the image, pixels.
        y0: its top edge.
        crop: ``(h, w)`` bool, tight.
        outline_xy: ``(n, 2)`` int32, its outer boundary pixels in order, in the crop.
        area: its pixels.
        solidity: area in its outline over that of its convex hull, 0 to 1.
        holes: ``(h, w)`` bool, what is left out of the crop inside of the outline; None for none.
    """

    x0: int
    y0: int
    crop: BoolArray
    outline_xy: npt.NDArray[np.int32]
    area: int
    solidity: float
    holes: BoolArray | None = None


def whole_region(x0: int, y0: int, crop: BoolArray, *, hollow: bool = False) -> RegionProposal:
    """The part with the longest outline of a crop that is not empty, its holes filled; those that
    are large are left open if it is ``hollow``."""
    mask = crop.view(np.uint8)
    contours, _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    outline = contours[0] if len(contours) == 1 else max(contours, key=len)
    # Pick 1899: the pixels in and on a polygon through pixel centres.
    area = round(cv2.contourArea(outline) + len(outline) / 2) + 1
    x, y, width, height = cv2.boundingRect(outline)
    points = outline.reshape(-1, 2)
    if (height, width) != mask.shape:
        points = points - np.array((x, y), np.int32)
    if (height, width) != mask.shape or area != cv2.countNonZero(mask):
        mask = np.zeros((height, width), np.uint8)
        cv2.drawContours(mask, [outline], -1, 1, cv2.FILLED, offset=(-x, -y))
    solidity = min(1.0, area / _hull_area(outline))
    region = RegionProposal(x0 + x, y0 + y, mask.view(np.bool_), points, area, solidity)
    holes = large_holes(crop[y : y + height, x : x + width] & region.crop) if hollow else None
    if holes is None:
        return region
    left = area - int(np.count_nonzero(holes))
    return replace(region, crop=region.crop & ~holes, area=left, holes=holes)


def large_holes(crop: BoolArray) -> BoolArray | None:
    """``(h, w)`` bool: the holes of a mask that are no blemishes; None without."""
    filled = ndimage.binary_fill_holes(crop)
    gaps, area = filled & ~crop, np.count_nonzero(filled)
    _, labels, stats, _ = cv2.connectedComponentsWithStats(gaps.view(np.uint8), connectivity=4)
    large = stats[:, cv2.CC_STAT_AREA] >= LEAST_HOLE * area
    large[0] = False
    holes = large[labels]
    return holes if holes.any() and np.count_nonzero(holes) >= LEAST_HOLES * area else None


def enlarged(
    region: RegionProposal, from_hw: tuple[int, ...], to_hw: tuple[int, int]
) -> RegionProposal:
    """The region of a reduced image in the full one, its outline smooth."""
    by_y, by_x = to_hw[0] / from_hw[0], to_hw[1] / from_hw[1]
    rows, columns = region.crop.shape
    y0, x0 = round(region.y0 * by_y), round(region.x0 * by_x)
    width = min(max(1, round(columns * by_x)), to_hw[1] - x0)
    height = min(max(1, round(rows * by_y)), to_hw[0] - y0)
    soft = cv2.resize(
        region.crop.astype(np.float32), (width, height), interpolation=cv2.INTER_LINEAR
    )
    inside = soft >= min(0.5, float(soft.max()))
    return whole_region(x0, y0, inside, hollow=region.holes is not None)


def _hull_area(outline: npt.NDArray[Any]) -> float:
    """Pixels of the convex hull of an outline."""
    hull = cv2.convexHull(outline[:: 1 + len(outline) // MOST_HULL_POINTS].copy())
    # it runs through pixel centres: Steiner's formula adds the half pixel around it
    return cv2.contourArea(hull) + cv2.arcLength(hull, True) / 2 + math.pi / 4


def boxes_xyxy(regions: Sequence[RegionProposal]) -> IntArray:
    """``(N, 4)`` half-open boxes."""
    rows = [(r.x0, r.y0, r.x0 + r.crop.shape[1], r.y0 + r.crop.shape[0]) for r in regions]
    return np.array(rows, np.int64).reshape(-1, 4)


def distinct(boxes_xywh: IntArray, areas: IntArray) -> IntArray:
    """``(M,)`` ascending indices without near-duplicates of earlier ones.

    Their corners differ by up to about 6 % of the size, and their areas by up to about 20 %.
    """
    unit = np.maximum(1.0, 0.06 * np.sqrt(boxes_xywh[:, 2] * boxes_xywh[:, 3]))
    corners = np.concatenate([boxes_xywh[:, :2], boxes_xywh[:, :2] + boxes_xywh[:, 2:]], axis=1)
    places = np.rint(corners / unit[:, None])
    keys = np.column_stack([places, np.rint(5 * np.log(areas + 1)), np.rint(unit)])
    _, first = np.unique(keys, axis=0, return_index=True)
    return np.sort(first)


CONVEX = 0.9
"""Solidity above which a region is one object."""
DIP = 0.04
"""Step between depth levels, as a share of the region's largest depth. A peak counts if it rises by
more than one step (at most two) above the neck between it and others."""
LEAST_DEPTH = 4.0
"""Least depth (pixels) that the step is a share of, so that a rough outline makes no parts of thin
regions."""
WORKING_AREA = 1500
"""Pixels: larger regions are split at a reduced scale."""
THINNEST = 8
"""Regions whose box is larger than this multiple of their area are not split: nets and spirals have
no necks, and would make the atlas large."""
MOST_PARTS = 60
ATLAS_WIDTH = 1024

Small = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.int32]


def split_touching(regions: Sequence[RegionProposal], *, min_area: int) -> list[RegionProposal]:
    """The parts of regions between the necks of their outlines; none of a single object.

    A watershed of the distance transform (Vincent and Soille 1991), flooded from its h-maxima
    (Soille 2003). Near-duplicate parts are dropped.
    """
    large = [
        region
        for region in regions
        if region.area >= 2 * min_area
        and region.crop.size < THINNEST * max(region.area, WORKING_AREA)
    ]
    if not large:
        return []
    small = [_reduced(region) for region in large]
    corners, height = _packed([mask.shape for mask in small])
    basins = _basins(_depths(small, corners, height))
    pieces = []
    for region, mask, (x, y) in zip(large, small, corners, strict=True):
        window = basins[y : y + mask.shape[0], x : x + mask.shape[1]]
        pieces += list(_pieces(region, window, min_area))
    boxes = np.array([(x, y, c.shape[1], c.shape[0]) for x, y, c in pieces], np.int64)
    areas = np.array([np.count_nonzero(crop) for *_, crop in pieces], np.int64)
    chosen = distinct(boxes.reshape(-1, 4), areas).tolist()
    return [whole_region(*pieces[index]) for index in chosen]


def _reduced(region: RegionProposal) -> Small:
    """The region's crop (0 or 1) at the working scale."""
    crop = region.crop.view(np.uint8)
    factor = (WORKING_AREA / region.area) ** 0.5
    if factor >= 1:
        return crop
    size = (max(1, round(crop.shape[1] * factor)), max(1, round(crop.shape[0] * factor)))
    return np.asarray(cv2.resize(crop, size, interpolation=cv2.INTER_NEAREST), np.uint8)


def _packed(shapes: Sequence[tuple[int, ...]]) -> tuple[list[tuple[int, int]], int]:
    """Corners (x, y) of rectangles packed in shelves, two pixels apart, and the total height."""
    corners = [(0, 0)] * len(shapes)
    x, y, shelf = 1, 1, 0
    for index in sorted(range(len(shapes)), key=lambda i: -shapes[i][0]):
        height, width = shapes[index]
        if x > 1 and x + width >= ATLAS_WIDTH:
            x, y, shelf = 1, y + shelf + 2, 0
        corners[index] = (x, y)
        x, shelf = x + width + 2, max(shelf, height)
    return corners, y + shelf + 1


def _depths(small: Sequence[Small], corners: Sequence[tuple[int, int]], height: int) -> FloatArray:
    """Distances to the outline, relative to the largest of each region."""
    width = max(ATLAS_WIDTH, *(mask.shape[1] + 2 for mask in small))
    atlas = np.zeros((height, width), np.uint8)
    for mask, (x, y) in zip(small, corners, strict=True):
        atlas[y : y + mask.shape[0], x : x + mask.shape[1]] = mask
    depth = cv2.distanceTransform(atlas, cv2.DIST_L2, cv2.DIST_MASK_5)
    depth = np.asarray(cv2.GaussianBlur(depth, (0, 0), 1.0) * atlas, np.float32)
    for mask, (x, y) in zip(small, corners, strict=True):
        window = depth[y : y + mask.shape[0], x : x + mask.shape[1]]
        window /= max(LEAST_DEPTH, float(window.max()))
    return depth


def _basins(depth: FloatArray) -> Labels:
    """``(H, W)`` labels from 1 of the parts; 0 outside, and in regions of one part."""
    steps = np.ceil(depth * (1 / DIP)).astype(np.uint8)
    peaks = np.flatnonzero((depth == cv2.dilate(depth, _SQUARE)) & (steps > 0))
    levels = range(int(steps.max(initial=1)))
    first = _components(steps, 0)
    at_peaks = [first.reshape(-1)[peaks]]
    at_peaks += [_components(steps, level).reshape(-1)[peaks] for level in levels[1:]]
    tops = steps.reshape(-1)[peaks].astype(np.int64) - 1
    markers = np.zeros(depth.shape, np.int32)
    # the peaks are enough as seeds: a part is flooded before any neck is
    seeds = markers.reshape(-1)
    count = 0
    for labels, chosen in zip(at_peaks, _cores(at_peaks, tops), strict=True):
        if len(chosen):
            table = np.zeros(int(labels.max()) + 1, np.int32)
            table[chosen] = np.arange(count + 1, count + len(chosen) + 1)
            seeds[peaks] += table[labels]
            count += len(chosen)
    parted = np.zeros(int(first.max()) + 1, np.bool_)
    parted[first.reshape(-1)[peaks[seeds[peaks] > 0]]] = True
    return np.asarray(watershed(-depth, markers, mask=parted[first]), np.int32)


def _components(steps: Small, level: int) -> Labels:
    """``(H, W)`` labels of the components above a depth level."""
    return np.asarray(cv2.connectedComponents((steps > level).view(np.uint8))[1], np.int32)


def _cores(at_peaks: Sequence[Labels], tops: IntArray) -> list[IntArray]:
    """For each level the components that contain exactly one part.

    The components of all levels form a tree by inclusion. One that reaches no more than a step
    above its parent is noise. Two others with the same parent are separated by a neck.

    Args:
        at_peaks: for each level from the lowest the component's label at P peaks, 0 for none.
        tops: ``(P,)`` the highest level that each peak is in.
    """
    highest = [_highest(labels, tops) for labels in at_peaks]
    parts = [np.ones(len(high), np.int64) for high in highest]
    parents = [np.zeros_like(parts[0])]
    for level in range(1, len(at_peaks)):
        parent = np.zeros(len(highest[level]), np.int64)
        parent[at_peaks[level]] = at_peaks[level - 1]
        parents.append(parent)
    stands_out = [high > level for level, high in enumerate(highest)]
    for level in range(len(at_peaks) - 1, 0, -1):
        counted = np.where(stands_out[level], parts[level], 0)
        above = np.bincount(parents[level], counted, len(parts[level - 1])).astype(np.int64)
        parts[level - 1] = np.maximum(1, above)
    cores = [np.zeros(0, np.int64)]
    parted = parts[0] > 1
    for level in range(1, len(at_peaks)):
        inside = stands_out[level] & parted[parents[level]]
        cores.append(np.flatnonzero(inside & (parts[level] == 1)))
        parted = inside & (parts[level] > 1)
    return cores


def _highest(labels: Labels, tops: IntArray) -> IntArray:
    """``(C,)`` the highest level that each component reaches; -1 for the background, label 0."""
    highest = np.full(int(labels.max(initial=0)) + 1, -1, np.int64)
    np.maximum.at(highest, labels, tops)
    highest[0] = -1
    return highest


def _pieces(
    region: RegionProposal, window: Labels, min_area: int
) -> Iterator[tuple[int, int, BoolArray]]:
    """Left, top and tight crop in the image of each part in a region's window of the atlas."""
    found = np.unique(window[window > 0])
    if not 2 <= len(found) <= MOST_PARTS:
        return
    table = np.zeros(int(found[-1]) + 1, np.uint8)
    table[found] = np.arange(1, len(found) + 1)
    local = table[window]
    if local.shape != region.crop.shape:
        size = region.crop.shape[::-1]
        local = np.asarray(cv2.resize(local, size, interpolation=cv2.INTER_NEAREST), np.uint8)
        local *= region.crop
    for label, place in enumerate(ndimage.find_objects(local), start=1):
        if place is None:
            continue
        crop = np.ascontiguousarray(local[place] == label)
        if np.count_nonzero(crop) >= min_area:
            yield region.x0 + place[1].start, region.y0 + place[0].start, crop


_SQUARE = np.ones((3, 3), np.uint8)
