"""How well objects are found, what they are confused with, and the spread over seeds."""

from __future__ import annotations

import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sam_detect.evaluation.comparison import (
    Comparison,
    Matches,
    assign,
    f1_macro,
    match,
    pooled,
    total,
)
from sam_detect.masks import IntArray

IOU_THRESHOLDS: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())
""".50, .55, ... .95, to the last bit those of COCO's evaluation."""


def instance_scores(comparisons: Sequence[Comparison], iou_threshold: float) -> dict[str, Any]:
    """Every figure of the pictures of an episode that comes from matching, as plain data.

    Returns:
        ``precision``, ``recall`` and ``f1`` over all objects (micro), ``f1_macro``, ``mean_iou``,
        ``msa``, ``proposal_recall``, ``proposals_per_image``, and ``per_class`` with the counts,
        precision, recall and F1 of every label that was to be found or was found.
    """
    matches = [match(comparison, iou_threshold) for comparison in comparisons]
    per_class = pooled(each.per_class for each in matches)
    counts = total(per_class)
    return {
        "precision": counts.precision,
        "recall": counts.recall,
        "f1": counts.f1,
        "f1_macro": f1_macro(per_class),
        "mean_iou": mean_iou(matches),
        "msa": msa(comparisons),
        "proposal_recall": proposal_recall(comparisons, iou_threshold),
        "proposals_per_image": proposals_per_image(comparisons),
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
    accuracies = [_accuracy(comparison) for comparison in comparisons]
    known = [accuracy for accuracy in accuracies if accuracy is not None]
    return float(np.mean(known)) if known else None


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


def _accuracy(comparison: Comparison) -> float | None:
    """mSA of one picture. Whether it applies is the same at every threshold."""
    scores = [match(comparison, threshold).counts.jaccard for threshold in IOU_THRESHOLDS]
    known = [score for score in scores if score is not None]
    return float(np.mean(known)) if known else None


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
    table = np.zeros((len(labels) + 1, len(labels) + 2), np.int64)
    for comparison in comparisons:
        _count(comparison, iou_threshold, numbers, table)
    return Confusion(labels, table)


def _count(
    comparison: Comparison, iou_threshold: float, numbers: dict[str, int], table: IntArray
) -> None:
    """Adds one picture to the table."""
    last = len(numbers)
    said = np.array([numbers.get(label, last) for label in comparison.labels], np.int64)
    there = np.array([*(numbers[label] for label in comparison.object_labels), last], np.int64)
    order = np.lexsort((-comparison.scores, said == last))
    objects = assign(comparison.iou, order.tolist(), iou_threshold)
    counted = (objects >= 0) | ~comparison.excused
    # Index -1 of `there` is its last entry: nothing.
    np.add.at(table, (there[objects[counted]], said[counted]), 1)
    missed = np.setdiff1d(np.arange(len(comparison.object_labels)), objects)
    np.add.at(table[:, last + 1], there[missed], 1)


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
