"""How well objects or pixels are found, what objects are confused with, and the spread over seeds.

Pure functions of comparisons and pictures. None stands for a figure that does not apply (see
:mod:`sam_detect.evaluation.comparison`).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sam_detect.evaluation.comparison import (
    Comparison,
    Counts,
    Item,
    Matches,
    assign,
    macro,
    match,
    pooled,
    total,
)
from sam_detect.evaluation.dataset import masks_of
from sam_detect.evaluation.metrics.calibration import expected_calibration_error, reliability
from sam_detect.types import Masks
from sam_detect.types.masks import BoolArray, IntArray

IOU_THRESHOLDS: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())
""".50, .55, ... .95, to the last bit those of COCO's evaluation."""


def instance_scores(comparisons: Sequence[Comparison], iou_threshold: float) -> dict[str, Any]:
    """Every figure of the pictures of an episode that comes from matching, as plain data.

    Returns:
        ``precision``, ``recall`` and ``f1`` over all objects (micro), ``f1_macro``, ``mean_iou``,
        ``msa``, ``proposal_recall``, ``proposals_per_image``, ``expected_calibration_error``, and
        ``per_class`` with the counts, precision, recall and F1 of every label that was to be found
        or was found.
    """
    matches = [match(comparison, iou_threshold) for comparison in comparisons]
    per_class = pooled(each.per_class for each in matches)
    counts = total(per_class)
    return {
        "precision": counts.precision,
        "recall": counts.recall,
        "f1": counts.f1,
        "f1_macro": macro(per_class, "f1"),
        "mean_iou": mean_iou(matches),
        "msa": msa(comparisons),
        "proposal_recall": proposal_recall(comparisons, iou_threshold),
        "proposals_per_image": proposals_per_image(comparisons),
        "expected_calibration_error": expected_calibration_error(
            reliability(comparisons, iou_threshold)
        ),
        "per_class": {label: counts.to_dict() for label, counts in per_class.items()},
    }


def mean_iou(matches: Iterable[Matches]) -> float | None:
    """The mean IoU of detections with the objects they found; None where none found any."""
    ious = [each.ious[each.objects >= 0] for each in matches]
    found = np.concatenate([np.zeros(0), *ious])
    return float(found.mean()) if found.size else None


def msa(comparisons: Iterable[Comparison]) -> float | None:
    """Mean segmentation accuracy: ``TP / (TP + FP + FN)``, averaged over IoU .50:.05:.95, then
    over pictures.

    The score of the 2018 Data Science Bowl (Caicedo et al. 2019), Cellpose's "average precision"
    (Stringer et al. 2021) averaged over thresholds, and micro-sam's mSA (Archit et al. 2025).
    Labels count as in :func:`match`; those papers have one class. They pair masks so that most
    match, which is the same wherever neither detections nor objects overlap each other.

    Pictures with nothing to find and nothing falsely found do not apply and are left out; None
    where no picture is left. What is excused is so at every threshold.
    """
    accuracies = []
    for each in comparisons:
        scores = [match(each, threshold).counts.jaccard for threshold in IOU_THRESHOLDS]
        if scores[0] is not None:  # whether it applies is the same at every threshold
            accuracies.append(np.mean(np.array(scores, np.float64)))
    return float(np.mean(accuracies)) if accuracies else None


def proposal_recall(comparisons: Iterable[Comparison], iou_threshold: float) -> float | None:
    """The share of objects that some proposal overlaps by at least the threshold, whatever it was
    named afterwards; None without objects. No labelling can find more (one proposal may serve
    several objects here, so it may find fewer)."""
    best = np.concatenate([np.zeros(0), *(each.best_proposal_iou for each in comparisons)])
    return float((best >= iou_threshold).mean()) if best.size else None


def proposals_per_image(comparisons: Iterable[Comparison]) -> float | None:
    """The mean number of proposals of a picture; None without pictures."""
    counts = [each.proposals for each in comparisons]
    return float(np.mean(counts)) if counts else None


NOTHING = "nothing"
UNKNOWN = "unknown"
MISSED = "missed"


@dataclass(frozen=True, eq=False)
class Confusion:
    """How often each kind of object was found under each name.

    Attributes:
        labels: L names, sorted.
        table: ``(L + 1, L + 2)`` int64. Rows are what was there: the labels, then ``nothing`` for
            detections where no object is. Columns are what was found: the labels, then ``unknown``
            for regions without a name, then ``missed`` for objects that no region covered.
    """

    labels: tuple[str, ...]
    table: IntArray

    @property
    def rows(self) -> tuple[str, ...]:
        return (*self.labels, NOTHING)

    @property
    def columns(self) -> tuple[str, ...]:
        return (*self.labels, UNKNOWN, MISSED)


def confusion(comparisons: Sequence[Comparison], iou_threshold: float) -> Confusion:
    """Matches detections to objects whatever their labels, and counts the pairs.

    Named detections choose first, best score first, each the free object it overlaps most, at the
    threshold or above; then the unknown ones. Every object stands in one cell of its row. Excused
    detections that cover no object are not counted. ``nothing`` taken for ``unknown`` are the
    regions that were rightly given no name.

    The diagonal may be below the true positives of :func:`match`, where a better scored detection
    of another name took the object.
    """
    named = {name for each in comparisons for name in (*each.labels, *each.object_labels)}
    labels = tuple(sorted(named - {None}))
    numbers = {label: number for number, label in enumerate(labels)}
    last = len(labels)
    table = np.zeros((last + 1, last + 2), np.int64)
    for comparison in comparisons:
        said = np.array([numbers.get(label, last) for label in comparison.labels], np.int64)
        there = np.array([*(numbers[label] for label in comparison.object_labels), last], np.int64)
        order = np.lexsort((-comparison.scores, said == last))
        objects = assign(comparison.iou, order.tolist(), iou_threshold)
        counted = (objects >= 0) | ~comparison.excused
        # Index -1 of `there` is its last entry: nothing.
        np.add.at(table, (there[objects[counted]], said[counted]), 1)
        missed = np.setdiff1d(np.arange(len(comparison.object_labels)), objects)
        np.add.at(table[:, last + 1], there[missed], 1)
    return Confusion(labels, table)


@dataclass(frozen=True)
class Spread:
    """One figure, measured several times.

    Attributes:
        mean: over the seeds for which the figure applies; None where there is none.
        std: sample standard deviation (divided by one less than the count); None below two.
        count: seeds for which the figure applies.
    """

    mean: float | None
    std: float | None
    count: int


def spread(values: Iterable[float | None]) -> Spread:
    """Mean and sample standard deviation of what applies; None is left out."""
    known = [float(value) for value in values if value is not None]
    mean = statistics.fmean(known) if known else None
    std = statistics.stdev(known) if len(known) > 1 else None
    return Spread(mean, std, len(known))


# -- pixels -----------------------------------------------------------------------------------


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
