"""Segmenter ``forest``: what ``naive`` proposes, and objects found by a pixel classifier that is
trained on the examples, in seconds.

1. Of each label with enough examples, a forest says how likely each pixel is the core of an object,
   its rim, or neither (``_pixel_forest``).
2. The component tree of the core's probability has each object at some level, also those that
   touch (``_component_tree``). Disjoint nodes are chosen that are as large and as full as the
   examples.
3. They are grown to the rim by a watershed. Foreground that none covers is split at the peaks of
   its distance from the background.
4. What is then too unlike the examples in size and shape is left out. The quality of a proposal is
   the product of three shares: how well its size fits, how well its shape fits, and how much of it
   is object by the forest.
5. Where little of the foreground is explained by such objects, the forest does not fit the picture
   (another stain, another microscope), and only what ``naive`` proposes is left. Where all forests
   fit, they judge the proposals of ``naive`` as well, so that the better outline of an object wins.
"""

from __future__ import annotations

import copy
import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from sam_detect.masks import BoolArray, FloatArray, IntArray
from sam_detect.segmentation._component_tree import ComponentTree, Values
from sam_detect.segmentation._pixel_forest import (
    CORE,
    EDGE,
    RIM,
    PixelForest,
    ellipse_fill,
)
from sam_detect.segmentation.naive import NaiveSegmenter
from sam_detect.types import Crop, Frame, Masks

ENOUGH_EXAMPLES = 3
"""With fewer examples of a label there is no forest."""
MOST_LABELS = 8
USUAL_AREAS = (0.1, 0.9)
"""Quantiles of the examples' areas between which all sizes fit fully."""
AREA_SPREAD = 0.5
"""Log of the factor beyond them at which a size fits by exp(-1/2); more where the examples' areas
differ more."""
USUAL_FILL = 0.25
"""Quantile of the examples' shares of their ellipses from which on a shape fits fully."""
LEAST_FILL = 0.7
"""An object that fills its ellipse by this share of that, or less, has no quality."""
GROWTH = 0.8
"""Share of the rim's width by which a core is grown to judge its size."""
LEAST_SIDE = 3
"""Pixels; a smaller picture has no component tree."""
COST = 0.3
"""A node of less quality is not chosen."""
FOREGROUND = 0.5
LEAST_QUALITY, LEAST_QUALITY_UNCOVERED = 0.3, 0.5
AROUND, OUTSIDE_WEIGHT = 2, 0.5
"""Width in pixels of what lies around a mask; and the share of the quality that is lost where all
of that is object. Without it parts of objects win (nuclei: F1 .840 instead of .853)."""
LEAST_EXPLAINED = 0.8
"""Where objects explain less of the foreground, weighted with their qualities, the forest does not
fit the picture, and nothing of it is proposed. Set on nuclei; neurites, of which it explains .5 to
.8, then lose nothing (F1 .627 without a forest, .519 without this limit, .634 with it)."""
UNLIKELY = 0.25
"""Less probable pixels are no foreground to be explained."""
PEAKS = 0.35
"""Peaks of the distance from the background are apart by so much at least, as a share of the
typical example's side."""
SMOOTHING = 0.7
"""Of outlines that are enlarged or reduced, pixels."""


class ForestSegmenter(NaiveSegmenter):
    """Proposes what :class:`NaiveSegmenter` does and, once it has :meth:`for_examples`, objects
    like those. Deterministic; takes and raises what :class:`NaiveSegmenter` does."""

    uses_examples = True
    _forests: tuple[PixelForest, ...] = ()
    _knows_all = False
    """Whether each label has a forest."""

    def for_examples(self, crops: Mapping[str, Sequence[Crop]]) -> ForestSegmenter:
        found = copy.copy(self)
        found._forests = trained_forests(crops)
        found._knows_all = len(found._forests) == len(crops)
        return found

    def segment(self, frame: Frame) -> Masks:
        views = [View.of(forest, frame) for forest in self._forests]
        found = [objects(view) for view in views]
        naive = super().segment(frame)
        if self._knows_all and all(map(len, found)):
            # Then the forests judge all proposals alike.
            best = np.max([view.qualities(naive) for view in views], axis=0, initial=0)
            naive = replace(naive, predicted_ious=best)
        together = Masks.concatenate([*found, naive])
        return together[np.argsort(-together.predicted_ious, kind="stable")]


def trained_forests(crops: Mapping[str, Sequence[Crop]]) -> tuple[PixelForest, ...]:
    """One for each label that has enough examples, of at most :data:`MOST_LABELS` labels."""
    enough = {label: each for label, each in crops.items() if len(each) >= ENOUGH_EXAMPLES}
    largest = sorted(enough, key=lambda label: (-len(enough[label]), label))[:MOST_LABELS]
    return tuple(PixelForest(enough[label]) for label in largest)


@dataclass(frozen=True, eq=False)
class ForestMaps:
    """What a forest says of a picture's pixels, ``(h, w)`` each, 0 to 1.

    Attributes:
        score: high in the cores of objects, lower in their rims.
        foreground: whether it is an object's.
    """

    score: FloatArray
    foreground: FloatArray


@dataclass(frozen=True, eq=False)
class Prior:
    """What the examples say of the size and the shape of an object.

    Attributes:
        log_areas: between which sizes fit fully.
        spread: log of the factor beyond them at which a size fits by exp(-1/2).
        side: root of the typical area.
        typical: log of it.
        fill: usual :func:`ellipse_fill`.
    """

    log_areas: tuple[float, float]
    spread: float
    side: float
    typical: float
    fill: float

    @classmethod
    def of(cls, forest: PixelForest) -> Prior:
        low, high = np.quantile(forest.log_areas, USUAL_AREAS).tolist()
        spread = max(AREA_SPREAD, float(np.std(forest.log_areas)))
        fill = float(np.quantile(forest.ellipse_fills, USUAL_FILL))
        return cls((low, high), spread, forest.side, float(np.median(forest.log_areas)), fill)

    def quality_of(self, mask: BoolArray, share: float) -> float:
        """:meth:`quality` of one region."""
        area = np.log(np.array([np.count_nonzero(mask)], np.float64))
        return float(self.quality(area, np.array([ellipse_fill(mask)]), share)[0])

    def quality(self, log_areas: Values, fills: Values, shares: Values | float) -> Values:
        """``(N,)`` of regions, 0 to 1.

        Args:
            log_areas: of their pixels.
            fills: :func:`ellipse_fill` of each.
            shares: mean probability that their pixels are an object's.
        """
        low, high = self.log_areas
        small, large = (low - log_areas) / AREA_SPREAD, (log_areas - high) / self.spread
        off = np.maximum(0, np.maximum(small, large))
        shape = (np.minimum(fills, 1) / self.fill - LEAST_FILL) / (1 - LEAST_FILL)
        return np.asarray(np.exp(-(off**2) / 2) * np.clip(shape, 0, 1) * shares)


@dataclass(frozen=True, eq=False)
class View:
    """A picture as a forest sees it.

    Attributes:
        size_hw: of the picture.
        maps: what the forest says of its pixels.
        prior: what the examples say of objects.
    """

    size_hw: tuple[int, int]
    maps: ForestMaps
    prior: Prior

    @classmethod
    def of(cls, forest: PixelForest, frame: Frame) -> View:
        kinds = forest.probabilities(frame.image_rgb)
        core, edge = kinds[..., CORE], kinds[..., EDGE]
        score = np.asarray(core + edge / 2, np.float32)
        foreground = np.asarray(core + edge, np.float32)
        return cls(frame.size_hw, ForestMaps(score, foreground), Prior.of(forest))

    def qualities(self, masks: Masks) -> FloatArray:
        """``(N,)`` float32 in 0..1 of any masks of the picture: less where the forest takes what
        lies around them for an object, too, so for parts of objects."""
        height, width = self.size_hw
        foreground = cv2.resize(self.maps.foreground, (width, height))
        enlarged = self.maps.foreground.size / foreground.size
        fills, shares = np.zeros(len(masks)), np.zeros(len(masks))
        for index, crop in enumerate(masks.crops()):
            x0, y0, x1, y1 = masks.boxes_xyxy[index].tolist()
            left, top = max(0, x0 - AROUND), max(0, y0 - AROUND)
            part = foreground[top : y1 + AROUND, left : x1 + AROUND]
            mask = np.zeros(part.shape, np.uint8)
            mask[y0 - top : y1 - top, x0 - left : x1 - left] = crop
            around = cv2.dilate(mask, np.ones((2 * AROUND + 1,) * 2, np.uint8)) > mask
            outside = float(part[around].mean()) if around.any() else 0.0
            inside = float(part[mask > 0].mean())
            fills[index], shares[index] = (
                ellipse_fill(crop),
                inside * (1 - OUTSIDE_WEIGHT * outside),
            )
        areas = np.log(masks.areas * enlarged)
        return self.prior.quality(areas, fills, shares).astype(np.float32)


def objects(view: View) -> Masks:
    """The disjoint objects of a picture that are like the examples of a forest, best first; none of
    a picture that it does not fit."""
    maps, prior = view.maps, view.prior
    if min(maps.score.shape) < LEAST_SIDE:
        return Masks.empty(view.size_hw)
    regions = _labelled_regions(maps, prior)
    boxes, crops, explained = [], [], 0.0
    for number, place in enumerate(ndimage.find_objects(regions.labels), 1):
        if place is None:
            continue
        crop = ndimage.binary_fill_holes(regions.labels[place] == number)
        share, area = float(maps.foreground[place][crop].mean()), np.count_nonzero(crop)
        quality = prior.quality_of(crop, share)
        if quality < (LEAST_QUALITY if number <= regions.nodes else LEAST_QUALITY_UNCOVERED):
            continue
        explained += quality * area
        whole = _in_picture(crop, place, regions.labels.shape, view.size_hw)
        if whole is not None:
            boxes.append(whole[0])
            crops.append(whole[1])
    foreground = maps.foreground[maps.foreground > UNLIKELY].sum()
    if explained < LEAST_EXPLAINED * foreground:
        return Masks.empty(view.size_hw)
    found = Masks.from_crops(size_hw=view.size_hw, boxes_xyxy=boxes, crops=crops)
    found = replace(found, predicted_ious=view.qualities(found))
    return found[np.argsort(-found.predicted_ious, kind="stable")]


def regions_of(view: View) -> IntArray:
    """``(h, w)`` labels of the disjoint regions that a forest takes for objects, whether or not
    they are like its examples, in the picture as the forest sees it; 0 is none."""
    if min(view.maps.score.shape) < LEAST_SIDE:
        return np.zeros(view.maps.score.shape, np.int32)
    return _labelled_regions(view.maps, view.prior).labels


@dataclass(frozen=True, eq=False)
class Regions:
    """Disjoint regions of a picture.

    Attributes:
        labels: ``(h, w)`` from 1; 0 is none.
        nodes: so many of the first ones are nodes of the component tree.
    """

    labels: IntArray
    nodes: int


def _labelled_regions(maps: ForestMaps, prior: Prior) -> Regions:
    """The objects' regions, before what is unlike the examples is left out."""
    tree = ComponentTree.of(maps.score)
    chosen = tree.best_disjoint(_values(tree, maps, prior))
    nodes, numbers = np.unique(chosen, return_inverse=True)
    none = int(nodes[0] < 0)
    cores = (numbers.reshape(chosen.shape) + (1 - none)).astype(np.int32)
    foreground = maps.foreground > FOREGROUND
    labels = watershed(-maps.score, cores, mask=foreground | (cores > 0))
    rest = foreground & (labels == 0)
    distance = cv2.distanceTransform(rest.view(np.uint8), cv2.DIST_L2, 5)
    reach = np.ones((2 * int(PEAKS * prior.side) + 1,) * 2, np.uint8)
    peaks = (distance == cv2.dilate(distance, reach)) & (distance > 1)
    markers = ndimage.label(peaks, np.ones((3, 3)))[0]
    parts = watershed(-distance, markers, mask=rest)
    count = len(nodes) - none
    return Regions(np.where(labels > 0, labels, np.where(parts > 0, parts + count, 0)), count)


def _values(tree: ComponentTree, maps: ForestMaps, prior: Prior) -> Values:
    """``(N,)`` worth of each node as an object: its quality beyond :data:`COST` times its area, so
    that one whole object is worth as much as all of its parts, if these fit as well."""
    height, width = maps.score.shape
    y, x = np.mgrid[:height, :width].astype(np.float64)
    area = tree.sums(np.ones((height, width)))
    mean = functools.partial(_mean, tree, area)
    mean_x, mean_y = mean(x), mean(y)
    xx, yy = mean(x * x) - mean_x**2 + 1 / 12, mean(y * y) - mean_y**2 + 1 / 12
    xy = mean(x * y) - mean_x * mean_y
    fill = area / (4 * math.pi * np.sqrt(np.maximum(xx * yy - xy**2, 1e-6)))
    grown = np.log(np.pi * (np.sqrt(area / np.pi) + GROWTH * RIM * prior.side) ** 2)
    quality = prior.quality(grown, fill, mean(maps.foreground))
    return np.asarray((quality - COST) * np.exp(grown - prior.typical))


def _mean(tree: ComponentTree, area: Values, values: Any) -> Values:
    return np.asarray(tree.sums(values) / area)


def _in_picture(
    crop: BoolArray, place: Any, seen_hw: tuple[int, ...], size_hw: tuple[int, int]
) -> tuple[tuple[int, int, int, int], BoolArray] | None:
    """A region as the forest sees it, in the picture: half-open box xyxy and crop; None where it
    has no pixel there."""
    top, left = place[0].start, place[1].start
    by_y, by_x = size_hw[0] / seen_hw[0], size_hw[1] / seen_hw[1]
    x0, y0 = max(0, math.floor(left * by_x) - 1), max(0, math.floor(top * by_y) - 1)
    x1 = min(size_hw[1], math.ceil((left + crop.shape[1]) * by_x) + 1)
    y1 = min(size_hw[0], math.ceil((top + crop.shape[0]) * by_y) + 1)
    soft = np.pad(crop.astype(np.float32), 2)
    if (by_y, by_x) != (1, 1):
        soft = cv2.GaussianBlur(soft, (0, 0), SMOOTHING)
    # From the middle of a pixel of the picture to that of the crop.
    to_crop = np.array([
        [1 / by_x, 0, (x0 + 0.5) / by_x - 0.5 - left + 2],
        [0, 1 / by_y, (y0 + 0.5) / by_y - 0.5 - top + 2],
    ])  # fmt: skip
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    drawn = cv2.warpAffine(soft, to_crop, (x1 - x0, y1 - y0), flags=flags) > 0.5
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    if not len(rows):
        return None
    tight = drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    box = (x0 + columns[0], y0 + rows[0], x0 + columns[-1] + 1, y0 + rows[-1] + 1)
    return (int(box[0]), int(box[1]), int(box[2]), int(box[3])), np.ascontiguousarray(tight)
