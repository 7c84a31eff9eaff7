"""Prompter ``forest``: SAM 2 is prompted at the objects that a pixel classifier finds, which is
trained on the examples (``forest``)."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
from scipy import ndimage

from sam_detect.models.sharing import WhileAlive
from sam_detect.segmentation._forest_objects import Learnt, View, regions_of, trained_forests
from sam_detect.segmentation._sam2_prompters import (
    BlobPrompter,
    Covered,
    GridPrompter,
    Prompter,
    clearest,
)
from sam_detect.types import ExampleCrops, Frame, Hints, ImageRGB
from sam_detect.types.masks import BoolArray, FloatArray

SHARE_OF_GRID = 0.1
"""Most prompts, as a share of the grid's; more only where the forests see more objects."""
PEAK_SCALE = 0.3
"""Of the smoothing of the probability whose peaks are asked, as a share of the radius of the
smallest example."""
LEAST_PEAK = 0.2
"""Lower peaks are not asked."""
MOST_PEAKS = 6554
"""A tenth of the finest grid."""
LEAST_AREA = 0.25
"""Regions of a smaller share of the smallest example are not asked."""
_LEARNT: WhileAlive[ExampleCrops, tuple[Learnt, ...]] = WhileAlive(8)


class ForestPrompter(Prompter):
    """One point in each region that looks like an object of the examples, the one farthest from its
    outline. Then, up to a tenth of the grid's points and outside of the largest discs in these
    regions, which may be several objects each: the peaks of the probability of an object's core,
    and the clearest blobs of the examples' sizes. Without forests: all points of the grid.

    Args:
        forests: one for each label.
        areas: least and most pixels of the objects; 0 if not known.
    """

    def __init__(self, forests: Sequence[Learnt] = (), areas: tuple[float, float] = (0, 0)) -> None:
        self.forests = tuple(forests)
        self.blobs = BlobPrompter(areas)

    uses = ("areas", "crops")

    def knowing(self, hints: Hints) -> ForestPrompter:
        crops = hints.crops
        changed = ForestPrompter(
            _LEARNT.of(crops, lambda: trained_forests(crops)) if crops else self.forests
        )
        changed.blobs = self.blobs.knowing(hints)
        return changed

    @property
    def finds_small(self) -> bool:
        return bool(self.forests)

    def rounds(self, image_rgb: ImageRGB, per_side: int, covered: Covered) -> Iterator[FloatArray]:
        if not self.forests:
            yield from GridPrompter().rounds(image_rgb, per_side, covered)
            return
        views = [View.of(forest, Frame(image_rgb)) for forest in self.forests]
        found = [_points_and_discs(view) for view in views]
        points = np.concatenate([points for points, _ in found])[: per_side**2]
        yield points
        most = int(SHARE_OF_GRID * per_side**2) - len(points)
        if most <= 0:
            return
        blobs = self.blobs.rounds(image_rgb, math.isqrt(most) + 1, covered)
        more = np.concatenate([*(_peaks(view) for view in views), *blobs])
        explained = np.any([_at(discs, more) for _, discs in found], axis=0)
        yield more[~explained][:most]


def _peaks(view: View) -> FloatArray:
    """``(B, 2)`` peaks of the probability of a core, as shares of width and height."""
    score = view.seen.cores
    radius = math.sqrt(math.exp(view.learnt.prior.log_areas[0]) / math.pi)
    smooth = np.asarray(cv2.GaussianBlur(score, (0, 0), PEAK_SCALE * radius), np.float32)
    places = clearest([smooth], np.array([radius]), np.array([LEAST_PEAK]), most=MOST_PEAKS)
    return np.asarray((places + 0.5) / score.shape[::-1], np.float32)


def _points_and_discs(view: View) -> tuple[FloatArray, BoolArray]:
    """``(B, 2)`` one point of each region, as shares of width and height, deepest first; and
    ``(h, w)`` the largest discs about them that the regions contain."""
    labels = regions_of(view)
    height, width = labels.shape
    least = LEAST_AREA * math.exp(view.learnt.prior.log_areas[0])
    points, depths, discs = [], [], np.zeros((height, width), np.uint8)
    for number, place in enumerate(ndimage.find_objects(labels), 1):
        if place is None:  # a core that the watershed gave no pixel
            continue
        crop = labels[place] == number
        if np.count_nonzero(crop) < least:
            continue
        distance = cv2.distanceTransform(
            np.pad(crop, 1).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_PRECISE
        )
        row, column = np.unravel_index(int(distance.argmax()), distance.shape)
        x, y = place[1].start + int(column) - 1, place[0].start + int(row) - 1
        points.append(((x + 0.5) / width, (y + 0.5) / height))
        depths.append(float(distance.max()))
        cv2.circle(discs, (x, y), int(depths[-1]), 1, thickness=-1)
    order = np.argsort(-np.array(depths), kind="stable")
    return np.array(points, np.float32).reshape(-1, 2)[order], discs > 0


def _at(discs: BoolArray, points: FloatArray) -> BoolArray:
    height, width = discs.shape
    columns, rows = (np.minimum(points * (width, height), (width - 1, height - 1)).astype(int)).T
    return np.asarray(discs[rows, columns])
