"""Objects that a pixel classifier finds, which is trained on the examples, in seconds.

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
   (another stain, another microscope), and only the proposals of others are left. Where all forests
   fit, they judge those as well, so that the better outline of an object wins.
6. In a picture that many of the examples are from, the IoU of each proposal with an object is
   predicted instead, by what was learnt from the examples (``_predicted_iou``).
"""

from __future__ import annotations

import functools
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
from scipy import ndimage
from skimage.segmentation import watershed

from sam_detect.segmentation._component_tree import ComponentTree, Values
from sam_detect.segmentation._level_sets import Basis, as_masks, propose
from sam_detect.segmentation._pixel_forest import (
    RIM,
    PixelForest,
    SeenPicture,
    ellipse_fill,
    resampled,
)
from sam_detect.segmentation._predicted_iou import PredictedIoU
from sam_detect.types import RATED_BY_EXAMPLES, Crop, Frame, ImageRGB, Masks
from sam_detect.types.masks import BoolArray, FloatArray, IntArray
from sam_detect.types.overlaps import Clashes, meeting_boxes, shared_pixels, sparse_nms

LEAST_REGION, MOST_REGIONS = 16, 1000
"""Pixels of the smallest region of an example's crop that is a proposal; most of them."""
ENOUGH_EXAMPLES = 3
"""With fewer examples of a label there is no forest."""
MOST_LABELS = 8
ENOUGH_OUTLINED_HERE = 8
"""Where so many examples are outlined in the picture itself, the IoU that is learnt from them ranks
the proposals. In other pictures it is predicted too low (nuclei: F1 .70 instead of .79)."""
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
DOUBLES = 0.65
"""Masks whose predicted IoU is lower than that of another one with which they have more IoU than
this are not proposed."""
LEAST_EXPLAINED = 0.8
"""Where objects explain less of the foreground, weighted with their qualities, the forest does not
fit the picture, and nothing of it is proposed. Set on nuclei; neurites, of which it explains .5 to
.8, then lose nothing (F1 .627 without a forest, .519 without this limit, .634 with it)."""
UNLIKELY = 0.25
"""Less probable pixels are no foreground to be explained."""
PEAKS = 0.35
"""Peaks of the distance from the background are apart by so much at least, as a share of the
typical example's side."""


@dataclass(frozen=True, eq=False)
class Forests:
    """What is learnt of the examples of a library.

    Attributes:
        learnt: of each label with enough examples.
        knows_all: whether each label has enough.
        outlined_here: how many of the examples are from the picture that is worked on.
    """

    learnt: tuple[Learnt, ...]
    knows_all: bool
    outlined_here: int = 0

    @classmethod
    def of(cls, crops: Mapping[str, Sequence[Crop]]) -> Forests:
        """Learnt of the crops of examples, by label."""
        learnt = trained_forests(crops)
        return cls(learnt, len(learnt) == len(crops))

    @property
    def judge(self) -> bool:
        """Whether they predict the IoU of all proposals, also of those of others."""
        return self.knows_all and self.outlined_here >= ENOUGH_OUTLINED_HERE

    def with_objects(self, frame: Frame, others: Masks) -> Masks:
        """Masks of a picture that others propose and the objects that the forests find, best
        first."""
        views = [View.of(learnt, frame) for learnt in self.learnt]
        if self.judge:
            together = Masks.concatenate([*map(objects, views), others])
            each = [view.predicted_ious(together) for view in views]
            rated = replace(together, predicted_ious=np.max(each, axis=0))
            return without_doubles(replace(_excluding(rated), rated_by=RATED_BY_EXAMPLES))
        found = [fitting_objects(view) for view in views]
        if self.knows_all and all(map(len, found)):
            # Then the forests judge all proposals alike.
            best = np.max([view.qualities(others) for view in views], axis=0, initial=0)
            others = _excluding(replace(others, predicted_ious=best))
        together = Masks.concatenate([*found, others])
        return together[np.argsort(-together.predicted_ious, kind="stable")]


def _excluding(rated: Masks) -> Masks:
    """Masks that the forests rated; those that are no object by any of them are excluded."""
    return replace(rated, excluded=rated.predicted_ious == 0)


def without_doubles(masks: Masks) -> Masks:
    """The masks, best first; of those that overlap by more than :data:`DOUBLES` the best."""
    masks = masks[np.argsort(-masks.predicted_ious, kind="stable")]
    pairs = meeting_boxes(masks.boxes_xyxy)
    smaller, larger = np.sort(masks.areas[pairs], axis=1).T
    pairs = pairs[smaller > DOUBLES * larger]
    shared = shared_pixels(masks.crop, masks.boxes_xyxy, pairs)
    pairs = pairs[shared > DOUBLES * (masks.areas[pairs].sum(axis=1) - shared)]
    return masks[sparse_nms(range(len(masks)), Clashes(len(masks), pairs), len(masks))]


def trained_forests(crops: Mapping[str, Sequence[Crop]]) -> tuple[Learnt, ...]:
    """One for each label that has enough examples, of at most :data:`MOST_LABELS` labels."""
    enough = {label: each for label, each in crops.items() if len(each) >= ENOUGH_EXAMPLES}
    largest = sorted(enough, key=lambda label: (-len(enough[label]), label))[:MOST_LABELS]
    return tuple(Learnt.of(enough[label]) for label in largest)


@dataclass(frozen=True, eq=False)
class Learnt:
    """What is learnt of the examples of a label.

    Attributes:
        forest: of pixels.
        prior: of sizes and shapes.
    """

    forest: PixelForest
    prior: Prior

    @classmethod
    def of(cls, crops: Sequence[Crop]) -> Learnt:
        forest = PixelForest(crops)
        return cls(forest, Prior.of(forest))

    @functools.cached_property
    def predicted_iou(self) -> PredictedIoU:
        """Trained when it is first asked for."""

        def proposed(image_rgb: ImageRGB, views: Sequence[SeenPicture]) -> list[Masks]:
            size_hw = image_rgb.shape[0], image_rgb.shape[1]
            limits = LEAST_REGION, size_hw[0] * size_hw[1]
            basis = Basis.of(image_rgb, limits)
            found = propose(basis, limits=limits, max_proposals=MOST_REGIONS)
            regions = as_masks(size_hw, *found)
            return [Masks.concatenate([objects(View(self, seen)), regions]) for seen in views]

        return PredictedIoU(self.forest, proposed)


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
    """A picture as a forest sees it."""

    learnt: Learnt
    seen: SeenPicture

    @classmethod
    def of(cls, learnt: Learnt, frame: Frame) -> View:
        return cls(learnt, learnt.forest.see(frame.image_rgb))

    def predicted_ious(self, masks: Masks) -> FloatArray:
        """``(N,)`` float32 in 0..1 of any masks of the picture: learnt from the examples."""
        return self.learnt.predicted_iou(self.seen, masks)

    def qualities(self, masks: Masks) -> FloatArray:
        """``(N,)`` float32 in 0..1 of any masks of the picture: less where the forest takes what
        lies around them for an object, too, so for parts of objects."""
        height, width = self.seen.size_hw
        likely = self.seen.foreground
        foreground = cv2.resize(likely, (width, height))
        enlarged = likely.size / foreground.size
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
        return self.learnt.prior.quality(areas, fills, shares).astype(np.float32)


def fitting_objects(view: View) -> Masks:
    """:func:`objects`; none of a picture that the forest does not fit."""
    found, foreground = objects(view), view.seen.foreground
    reduced = foreground.size / (view.seen.size_hw[0] * view.seen.size_hw[1])
    explained = float((found.predicted_ious * found.areas).sum()) * reduced
    if explained < LEAST_EXPLAINED * foreground[foreground > UNLIKELY].sum():
        return Masks.empty(view.seen.size_hw)
    found = _excluding(replace(found, predicted_ious=view.qualities(found)))
    return found[np.argsort(-found.predicted_ious, kind="stable")]


def objects(view: View) -> Masks:
    """The disjoint objects of a picture that are like the examples of a forest, best first."""
    seen, prior, foreground = view.seen, view.learnt.prior, view.seen.foreground
    if min(foreground.shape) < LEAST_SIDE:
        return Masks.empty(seen.size_hw)
    regions = _labelled_regions(seen.cores, foreground, prior)
    boxes, crops, qualities = [], [], []
    for number, place in enumerate(ndimage.find_objects(regions.labels), 1):
        if place is None:
            continue
        crop = ndimage.binary_fill_holes(regions.labels[place] == number)
        quality = prior.quality_of(crop, float(foreground[place][crop].mean()))
        if quality < (LEAST_QUALITY if number <= regions.nodes else LEAST_QUALITY_UNCOVERED):
            continue
        corner_xy = place[1].start, place[0].start
        whole = resampled(crop, corner_xy, seen_hw=regions.labels.shape, size_hw=seen.size_hw)
        if whole is not None:
            (x, y), drawn = whole
            boxes.append((x, y, x + drawn.shape[1], y + drawn.shape[0]))
            crops.append(drawn)
            qualities.append(quality)
    found = Masks.from_crops(
        size_hw=seen.size_hw, boxes_xyxy=boxes, crops=crops, predicted_ious=qualities
    )
    return found[np.argsort(-found.predicted_ious, kind="stable")]


def regions_of(view: View) -> IntArray:
    """``(h, w)`` labels of the disjoint regions that a forest takes for objects, whether or not
    they are like its examples, in the picture as the forest sees it; 0 is none."""
    cores = view.seen.cores
    if min(cores.shape) < LEAST_SIDE:
        return np.zeros(cores.shape, np.int32)
    return _labelled_regions(cores, view.seen.foreground, view.learnt.prior).labels


@dataclass(frozen=True, eq=False)
class Regions:
    """Disjoint regions of a picture.

    Attributes:
        labels: ``(h, w)`` from 1; 0 is none.
        nodes: how many of the first ones are nodes of the component tree.
    """

    labels: IntArray
    nodes: int


def _labelled_regions(cores: FloatArray, foreground: FloatArray, prior: Prior) -> Regions:
    """The objects' regions, before what is unlike the examples is left out."""
    tree = ComponentTree.of(cores)
    chosen = tree.best_disjoint(_values(tree, foreground, prior))
    nodes, numbers = np.unique(chosen, return_inverse=True)
    none = int(nodes[0] < 0)
    markers = (numbers.reshape(chosen.shape) + (1 - none)).astype(np.int32)
    likely = foreground > FOREGROUND
    labels = watershed(-cores, markers, mask=likely | (markers > 0))
    rest = likely & (labels == 0)
    distance = cv2.distanceTransform(rest.view(np.uint8), cv2.DIST_L2, 5)
    reach = np.ones((2 * int(PEAKS * prior.side) + 1,) * 2, np.uint8)
    peaks = (distance == cv2.dilate(distance, reach)) & (distance > 1)
    parts = watershed(-distance, ndimage.label(peaks, np.ones((3, 3)))[0], mask=rest)
    count = len(nodes) - none
    return Regions(np.where(labels > 0, labels, np.where(parts > 0, parts + count, 0)), count)


def _values(tree: ComponentTree, foreground: FloatArray, prior: Prior) -> Values:
    """``(N,)`` worth of each node as an object: its quality beyond :data:`COST` times its area, so
    that one whole object is worth as much as all of its parts, if these fit as well."""
    height, width = foreground.shape
    y, x = np.mgrid[:height, :width].astype(np.float64)
    area = tree.sums(np.ones((height, width)))
    mean = functools.partial(_mean, tree, area)
    mean_x, mean_y = mean(x), mean(y)
    xx, yy = mean(x * x) - mean_x**2 + 1 / 12, mean(y * y) - mean_y**2 + 1 / 12
    xy = mean(x * y) - mean_x * mean_y
    fill = area / (4 * math.pi * np.sqrt(np.maximum(xx * yy - xy**2, 1e-6)))
    grown = np.log(np.pi * (np.sqrt(area / np.pi) + GROWTH * RIM * prior.side) ** 2)
    quality = prior.quality(grown, fill, mean(foreground))
    return np.asarray((quality - COST) * np.exp(grown - prior.typical))


def _mean(tree: ComponentTree, area: Values, values: Any) -> Values:
    return np.asarray(tree.sums(values) / area)
