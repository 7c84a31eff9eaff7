"""Pixels instead of objects: how much of each class's area is found (``--task semantic``)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from sam_detect.evaluation.comparison import Counts, Item, macro, pooled, total
from sam_detect.evaluation.dataset import masks_of
from sam_detect.masks import BoolArray
from sam_detect.types import Masks


def semantic_scores(items: Iterable[Item]) -> dict[str, Any]:
    """Every pixel figure of the pictures of an episode, as plain data.

    Returns:
        ``precision``, ``recall``, ``f1`` (Dice) and ``iou`` over all pixels of all classes
        (micro); ``precision_macro``, ``recall_macro``, ``f1_macro`` and ``mean_iou``, the means
        over classes; and ``per_class`` with counts of pixels and the four figures.
    """
    per_class = pixel_counts(items)
    counts = total(per_class)
    return {
        "precision": counts.precision,
        "recall": counts.recall,
        "f1": counts.f1,
        "iou": counts.jaccard,
        "precision_macro": macro(per_class, "precision"),
        "recall_macro": macro(per_class, "recall"),
        "f1_macro": macro(per_class, "f1"),
        "mean_iou": macro(per_class, "jaccard"),
        "per_class": {
            label: {**counts.to_dict(), "iou": counts.jaccard}
            for label, counts in per_class.items()
        },
    }


@dataclass(frozen=True, eq=False)
class Regions:
    """Where one class was found in a picture; ``(H, W)`` bool each.

    Attributes:
        true: found, and there.
        false: found, and not there.
        missed: there, and not found.
    """

    true: BoolArray
    false: BoolArray
    missed: BoolArray

    @property
    def counts(self) -> Counts:
        """Their pixels."""
        regions = (self.true, self.false, self.missed)
        return Counts(*(int(np.count_nonzero(region)) for region in regions))


def pixel_counts(items: Iterable[Item]) -> dict[str, Counts]:
    """Pixels of each class over all pictures; :func:`regions` defines which count."""
    return pooled({k: v.counts for k, v in regions(item).items()} for item in items)


def regions(item: Item) -> dict[str, Regions]:
    """The pixels of each class in a picture: the union of what was found under its name against
    the union of its objects.

    A pixel may be of several classes. Pixels of a class's crowds and shown examples count neither
    way for that class, unless an object to be found covers them too. Scores do not matter;
    unknown detections are left out. A box without an outline counts as filled.
    """
    picture, found, shown = item
    labels = {o.label for o in picture.objects} | {
        name for name in found.labels if name is not None
    }
    named = {}
    for label in sorted(labels):
        own = [o for o in picture.objects if o.label == label]
        wanted = [o for o in own if not o.crowd and o.id not in shown]
        excused = [o for o in own if o.crowd or o.id in shown]
        there = _union(masks_of(picture, wanted))
        counted = there | ~_union(masks_of(picture, excused))
        said = [i for i, name in enumerate(found.labels) if name == label]
        covered = _union(found.masks[said]) & counted
        named[label] = Regions(covered & there, covered & ~there, there & ~covered)
    return named


def _union(masks: Masks) -> BoolArray:
    """``(H, W)``: every pixel that some mask covers."""
    covered = np.zeros(masks.size_hw, np.bool_)
    for index, (x0, y0, x1, y1) in enumerate(masks.boxes_xyxy):
        covered[y0:y1, x0:x1] |= masks.crop(index)
    return covered
