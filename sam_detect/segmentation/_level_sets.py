"""Regions of an image that differ from their surroundings, from its level sets.

1. Find stable level sets of several channels at several scales (:func:`level_sets`).
2. Crop the promising ones, fill their holes, and score them by contrast, outline and compactness
   (``_ranking``). One with large holes is a region with these, too, if they show what is around it.
3. Drop near-duplicates, and split touching objects at their necks (``_regions``).
4. Score again, and drop a mask that nearly equals a better one; nested masks stay.
5. Snap outlines to the strongest gradient near them.

A level set is a connected region of the pixels above (or below) a threshold; one that hardly
changes while the threshold moves has an outline that does not depend on it: the maximally stable
extremal regions of Matas et al. 2002, in the linear-time form of Nister and Stewenius 2008 that
OpenCV has. A dim object next to a bright one never gets a stable level of its own, so pixels that
stand out from their neighbourhood's mean are taken as regions too (Bradley and Roth 2007).

Searched are lightness, chroma, saturation and a principal colour axis. Lightness is searched at
full and half size, and once more as its logarithm: in dark images with a few bright objects the dim
ones span too few grey levels to be stable. Colours are searched at half size: chroma is noisy and,
in JPEG, stored at half size. The second principal axis of the colours (Ohta, Kanade and Sakai 1980)
is what best separates two objects of one brightness in *this* image.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.segmentation._planes import Plane, planes
from sam_detect.segmentation._ranking import Ranker, keep_best
from sam_detect.segmentation._regions import (
    CONVEX,
    RegionProposal,
    boxes_xyxy,
    distinct,
    split_touching,
    whole_region,
)
from sam_detect.segmentation._similar_regions import at_levels, similarity_plane, unlike
from sam_detect.types import ImageRGB, Masks, SimilarityMap
from sam_detect.types.masks import BoolArray, FloatArray, IntArray

MOST_FILLED = 0.86
"""A region with holes is proposed besides the filled one if it has at most this share of its area;
with less of a hole the filled one is as good. (Blood cells with pale centres, F1 at 5 shots: .593
at .9, .599 here, .600 at .8, where drawn rings with a hole of a sixth are not found.)"""
LEAST_SCORE = 0.24
"""Below this score a region is texture more often than an object."""
MOST_SPLIT = 250
"""Of the regions that are not convex this many of the best are split: it is the slowest step."""
TOO_ALIKE = 0.8
"""A mask whose IoU with a better one is above this is dropped."""
STEP = 5
"""Grey levels that a region must stay stable over, of 255."""
MAX_VARIATION, MIN_DIVERSITY = 0.5, 0.2
NARROW, WIDE = (1 / 40, 1 / 20), (1 / 8, 1 / 3)
"""Sides of the local means, as shares of the image's shorter side, at full and at half size."""
PROMISE_WEIGHTS, PROMISE_OFFSET = {"extent": 0.465, "aspect": 0.114, "size": 0.077}, 0.369
"""Expected IoU with an object by box and area alone. Fitted like the score (``_ranking``)."""
LEAST_PROMISE = 0.0
MOST_CANDIDATES = 2000
WORKERS = 2
DISC = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))

Binary = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Basis:
    """What an image gives, whatever the examples.

    Attributes:
        regions: its promising level sets.
        ranker: scores regions of it.
    """

    regions: Sequence[RegionProposal]
    ranker: Ranker

    @classmethod
    def of(cls, image_rgb: ImageRGB, limits: tuple[int, int]) -> Basis:
        """Level sets of an area between two limits, in pixels."""
        with ThreadPoolExecutor(1) as pool:
            # the ranker is prepared while other threads find level sets
            preparing = pool.submit(Ranker, image_rgb)
            regions = level_sets(image_rgb, min_area=limits[0], max_area=limits[1])
            return cls(regions, preparing.result())


def propose(
    basis: Basis,
    *,
    limits: tuple[int, int],
    max_proposals: int,
    similarity: Sequence[SimilarityMap] = (),
) -> tuple[list[RegionProposal], FloatArray, BoolArray]:
    """Regions, best first, their scores (0 to 1), and which of them are excluded: unlike the
    examples, with score 0.

    Args:
        limits: least and most pixels.
        similarity: to the examples of each label, where they choose; maps are ``(H, W)``.
    """
    ranker = basis.ranker
    similar = similar_regions(similarity, min_area=limits[0], max_area=limits[1])
    regions = [*basis.regions, *similar]
    scores = ranker.scores(regions)
    chosen = keep_best(regions, scores, iou_limit=TOO_ALIKE, most=2 * max_proposals)
    regions = [regions[i] for i in chosen]
    rough = [r for r in regions if r.solidity < CONVEX and r.holes is None][:MOST_SPLIT]
    parts = split_touching(rough, min_area=limits[0])
    regions += parts
    scores = np.concatenate([scores[chosen], ranker.scores(parts)])
    areas = np.array([region.area for region in regions], np.int64)
    good = np.flatnonzero((areas >= limits[0]) & (areas <= limits[1]) & (scores >= LEAST_SCORE))
    regions, scores = [regions[i] for i in good], scores[good]
    kept = keep_best(regions, scores, iou_limit=TOO_ALIKE, most=max_proposals)
    found, scores = ranker.snapped([regions[i] for i in kept]), scores[kept]
    no_object = unlike(found, similarity) if similarity else np.zeros(len(found), np.bool_)
    scores[no_object] = 0
    order = np.argsort(no_object, kind="stable")
    return [found[i] for i in order.tolist()], scores[order], no_object[order]


def as_masks(
    size_hw: tuple[int, int],
    regions: Sequence[RegionProposal],
    scores: FloatArray,
    excluded: BoolArray,
) -> Masks:
    """Regions of an image as masks; takes what :func:`propose` gives."""
    crops, boxes = [region.crop for region in regions], boxes_xyxy(regions)
    return Masks.from_crops(
        size_hw=size_hw, boxes_xyxy=boxes, crops=crops, predicted_ious=scores, excluded=excluded
    )


@dataclass(frozen=True, eq=False)
class LevelSets:
    """N level sets of one plane, not cropped yet.

    Attributes:
        boxes_xywh: ``(N, 4)`` in pixels of the plane.
        areas: ``(N,)`` pixels of the plane.
        factor: side of one of its pixels in pixels of the image.
        crop: returns the ``(h, w)`` crop (0 or 1) of the one at an index.
    """

    boxes_xywh: IntArray
    areas: IntArray
    factor: int
    crop: Callable[[int], Binary]


def level_sets(image_rgb: ImageRGB, *, min_area: int, max_area: int) -> list[RegionProposal]:
    """The promising level sets of all channels and scales, near-duplicates dropped.

    Areas are limited before holes are filled. The order is fixed.
    """
    limits = (min_area, max_area)
    jobs: list[Future[list[LevelSets]]] = []
    # OpenCV releases the interpreter lock; the results keep the order of the jobs
    with ThreadPoolExecutor(WORKERS) as pool:
        for plane in planes(image_rgb):
            if plane.stable:
                jobs.append(pool.submit(_stable, plane, *limits))
            if plane.halves:
                jobs.append(pool.submit(_halves, plane, *limits))
            if plane.faint:
                values = plane.values.astype(np.float32)
                jobs.append(pool.submit(_standing_out, values, plane.factor, WIDE[-1], *limits))
        grey = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY).astype(np.float32)
        smooth = cv2.GaussianBlur(grey, (0, 0), 1.0)
        half = np.ascontiguousarray(cv2.GaussianBlur(grey, (0, 0), 2.0)[::2, ::2])
        jobs += [pool.submit(_standing_out, smooth, 1, share, *limits) for share in NARROW]
        jobs += [pool.submit(_standing_out, half, 2, share, *limits) for share in WIDE]
        found = [sets for job in jobs for sets in job.result()]
    return _cut_out(found, (image_rgb.shape[0], image_rgb.shape[1]))


def similar_regions(
    similarity: Sequence[SimilarityMap], *, min_area: int, max_area: int
) -> list[RegionProposal]:
    """The promising level sets of the similarity to examples; none where it is not known."""
    searched = similarity_plane(similarity)
    if searched is None:
        return []
    found = _stable(searched, min_area, max_area)
    found += [_components(each, 1, min_area, max_area) for each in at_levels(searched)]
    return _cut_out(found, (searched.values.shape[0], searched.values.shape[1]))


def _stable(plane: Plane, min_area: int, max_area: int) -> list[LevelSets]:
    if min(plane.values.shape) < 3:
        return []
    least, most = max(8, min_area // plane.factor**2), max(9, max_area // plane.factor**2)
    detector = cv2.MSER.create(STEP, least, most, MAX_VARIATION, MIN_DIVERSITY)
    pixels, found = detector.detectRegions(plane.values)
    boxes = np.asarray(found, np.int64).reshape(-1, 4)

    def crop(index: int) -> Binary:
        x, y, width, height = boxes[index].tolist()
        mask = np.zeros((height, width), np.uint8)
        points = np.asarray(pixels[index])
        mask[points[:, 1] - y, points[:, 0] - x] = 1
        return mask

    areas = np.array([len(listed) for listed in pixels], np.int64)
    return [LevelSets(boxes, areas, plane.factor, crop)]


def _standing_out(
    smooth: FloatArray, factor: int, share: float, min_area: int, max_area: int
) -> list[LevelSets]:
    """Regions of a smooth image that are brighter or darker than their neighbourhood's mean."""
    side = 2 * max(3, round(share * min(smooth.shape))) + 1
    excess = smooth - cv2.boxFilter(smooth, -1, (side, side))
    # half the standard deviation excludes noise and includes dim objects
    limit = max(2.0, 0.5 * float(excess.std()))
    found = []
    for beyond in (excess > limit, excess < -limit):
        opened = cv2.morphologyEx(beyond.view(np.uint8), cv2.MORPH_OPEN, DISC)
        found.append(_components(np.asarray(opened, np.uint8), factor, min_area, max_area))
    return found


def _halves(plane: Plane, min_area: int, max_area: int) -> list[LevelSets]:
    """Regions above and below Otsu's threshold (Otsu 1979).

    In a drawing or a very clean image no level set is more stable than its neighbours, and the
    detector of stable ones finds none.
    """
    _, above = cv2.threshold(plane.values, 0, 1, cv2.THRESH_BINARY | cv2.THRESH_OTSU)
    sides = (np.asarray(above, np.uint8), np.asarray(1 - above, np.uint8))
    return [_components(side, plane.factor, min_area, max_area) for side in sides]


def _components(binary: Binary, factor: int, min_area: int, max_area: int) -> LevelSets:
    """Connected regions of ones within the area limits."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(binary, connectivity=4)
    areas = stats[1:, cv2.CC_STAT_AREA] * factor**2
    chosen = np.flatnonzero((areas >= min_area) & (areas <= max_area)) + 1
    boxes = stats[chosen, :4].astype(np.int64)

    def crop(index: int) -> Binary:
        x, y, width, height = boxes[index].tolist()
        inside = labels[y : y + height, x : x + width] == chosen[index]
        return np.asarray(inside.view(np.uint8))

    return LevelSets(boxes, stats[chosen, cv2.CC_STAT_AREA].astype(np.int64), factor, crop)


def _cut_out(found: Sequence[LevelSets], size_hw: tuple[int, int]) -> list[RegionProposal]:
    """The promising level sets, as regions of the image."""
    counts = np.array([len(sets.areas) for sets in found], np.int64)
    if not counts.sum():
        return []
    factors = np.repeat([sets.factor for sets in found], counts)
    boxes = np.concatenate([sets.boxes_xywh for sets in found]) * factors[:, None]
    areas = np.concatenate([sets.areas for sets in found]) * factors**2
    chosen = distinct(boxes, areas)
    promise = _promise(boxes[chosen], areas[chosen], size_hw)
    best = np.argsort(-promise, kind="stable")[:MOST_CANDIDATES]
    chosen = chosen[np.sort(best[promise[best] > LEAST_PROMISE])]
    owners = np.repeat(np.arange(len(found)), counts)
    indices = np.arange(len(areas)) - np.repeat(np.cumsum(counts) - counts, counts)
    regions = []
    for index in chosen.tolist():
        sets, (x, y) = found[owners[index]], boxes[index, :2].tolist()
        crop = _at_full_size(sets.crop(int(indices[index])), sets.factor)
        crop = np.ascontiguousarray(crop[: size_hw[0] - y, : size_hw[1] - x])
        if crop.any():
            region = whole_region(x, y, crop.view(np.bool_))
            regions.append(region)
            if np.count_nonzero(crop) <= MOST_FILLED * region.area:
                hollow = whole_region(x, y, crop.view(np.bool_), hollow=True)
                regions += [hollow] if hollow.area <= MOST_FILLED * region.area else []
    return regions


def _promise(boxes_xywh: IntArray, areas: IntArray, size_hw: tuple[int, int]) -> FloatArray:
    """``(N,)`` expected IoU of each level set with an object, from its box and area."""
    width, height = boxes_xywh[:, 2], boxes_xywh[:, 3]
    measures = {
        "extent": areas / (width * height),
        "aspect": np.minimum(width, height) / np.maximum(width, height),
        "size": np.log(areas / (size_hw[0] * size_hw[1])),
    }
    total = sum(weight * measures[name] for name, weight in PROMISE_WEIGHTS.items())
    return np.asarray(total + PROMISE_OFFSET, np.float32)


def _at_full_size(crop: Binary, factor: int) -> Binary:
    """A crop (0 or 1) enlarged, its outline smooth."""
    if factor == 1:
        return crop
    size = (crop.shape[1] * factor, crop.shape[0] * factor)
    soft = cv2.resize(crop * np.uint8(255), size, interpolation=cv2.INTER_LINEAR)
    return np.asarray((soft > 127).view(np.uint8))
