"""Pixels instead of objects: how much of each class's area is found (``--task semantic``)."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

import numpy as np

from sam_detect.evaluation.comparison import Item
from sam_detect.evaluation.counts import Counts, macro, pooled, total
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


def pixel_counts(items: Iterable[Item]) -> dict[str, Counts]:
    """Pixels of each class over all pictures: the union of what was found under its name against
    the union of its objects.

    A pixel may be of several classes. Pixels of a class's crowds and shown examples count neither
    way for that class, unless an object to be found covers them too. Scores do not matter;
    unknown detections are left out. A box without an outline counts as filled.
    """
    return pooled(_of_picture(item) for item in items)


def _of_picture(item: Item) -> dict[str, Counts]:
    picture, found, shown = item
    labels = {o.label for o in picture.objects} | {
        name for name in found.labels if name is not None
    }
    counts = {}
    for label in sorted(labels):
        own = [o for o in picture.objects if o.label == label]
        wanted = [o for o in own if not o.crowd and o.id not in shown]
        aside = [o for o in own if o.crowd or o.id in shown]
        there = _union(masks_of(picture, wanted))
        counted = there | ~_union(masks_of(picture, aside))
        named = [i for i, name in enumerate(found.labels) if name == label]
        said = _union(found.masks[named]) & counted
        counts[label] = Counts(
            tp=int(np.count_nonzero(said & there)),
            fp=int(np.count_nonzero(said & ~there)),
            fn=int(np.count_nonzero(there & ~said)),
        )
    return counts


def _union(masks: Masks) -> BoolArray:
    """``(H, W)``: every pixel that some mask covers."""
    covered = np.zeros(masks.size_hw, np.bool_)
    for index, (x0, y0, x1, y1) in enumerate(masks.boxes_xyxy):
        covered[y0:y1, x0:x1] |= masks.crop(index)
    return covered
