"""What objects are taken for."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sam_detect.evaluation.comparison import Comparison
from sam_detect.evaluation.matching import assign
from sam_detect.masks import IntArray

NOTHING = "nothing"
UNKNOWN = "unknown"
MISSED = "missed"


@dataclass(frozen=True, eq=False)
class Confusion:
    """How often each kind of object was found under each name.

    Attributes:
        labels: L names, sorted.
        table: ``(L + 1, L + 2)`` int64. Rows are what was there: the labels, then ``nothing`` for
            detections where no object is. Columns are what was said: the labels, then ``unknown``
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
