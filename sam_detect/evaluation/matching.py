"""Which detection found which object: one for one, best score first."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sam_detect.errors import ConfigError
from sam_detect.evaluation.comparison import Comparison, Floats
from sam_detect.evaluation.counts import Counts, total
from sam_detect.masks import BoolArray, IntArray


@dataclass(frozen=True, eq=False)
class Matches:
    """The N detections and G objects of one picture, told apart.

    Attributes:
        objects: ``(N,)`` index of the object that each detection found; -1 for none.
        ious: ``(N,)`` IoU with that object; 0 for none.
        false: ``(N,)`` named, found no object, and not excused.
        missed: ``(G,)`` objects that no detection found.
        per_class: counts of every label that was to be found, or found true or false.
    """

    objects: IntArray
    ious: Floats
    false: BoolArray
    missed: BoolArray
    per_class: dict[str, Counts]

    @property
    def counts(self) -> Counts:
        """Counts of all labels together."""
        return total(self.per_class)


def match(comparison: Comparison, iou_threshold: float) -> Matches:
    """Gives each object to at most one detection of its own label, best score first.

    A detection takes, of the objects of its label that are left, the one it overlaps most, if their
    IoU reaches the threshold. Unknown detections (label None) find nothing and are not false. An
    excused detection may find an object like any other, and is not false if it finds none.
    This is how COCO's evaluation matches, to the ties: equal scores keep the order of detections,
    and of objects that are overlapped equally the last is taken (``COCOeval.evaluateImg``).

    Raises:
        ConfigError: the threshold is not above 0 and at most 1.
    """
    named = np.array([label is not None for label in comparison.labels], np.bool_)
    same = np.equal.outer(comparison.labels, comparison.object_labels).astype(np.bool_)
    order = np.argsort(-comparison.scores, kind="stable")
    objects = assign(np.where(same, comparison.iou, 0.0), order.tolist(), iou_threshold)
    found = objects >= 0
    ious = np.zeros(len(objects))
    ious[found] = comparison.iou[found, objects[found]]
    false = named & ~found & ~comparison.excused
    missed: BoolArray = np.ones(len(comparison.object_labels), np.bool_)
    missed[objects[found]] = False
    per_class = _per_class(
        true=comparison.labels[found],
        false=comparison.labels[false],
        missed=comparison.object_labels[missed],
    )
    return Matches(objects, ious, false, missed, per_class)


def assign(iou: Floats, order: Iterable[int], iou_threshold: float) -> IntArray:
    """Objects to detections, greedily.

    Args:
        iou: ``(N, G)``; 0 for pairs that must not meet.
        order: the detections that may take an object, first come, first served.
        iou_threshold: least IoU, above 0 and at most 1.

    Returns:
        ``(N,)`` int64 index of the object that each detection takes; -1 for none.
    """
    if not 0 < iou_threshold <= 1:
        raise ConfigError(f"an IoU threshold must be above 0 and at most 1, got {iou_threshold}")
    free = np.array(iou, np.float64)
    taken = np.full(len(free), -1, np.int64)
    hopeful: BoolArray = np.any(free >= iou_threshold, axis=1)
    for index in order:
        if not hopeful[index]:
            continue
        row = free[index]
        best = int(np.flatnonzero(row == row.max())[-1])
        if row[best] >= iou_threshold:
            taken[index] = best
            free[:, best] = 0.0
    return taken


def _per_class(
    *,
    true: npt.NDArray[np.object_],
    false: npt.NDArray[np.object_],
    missed: npt.NDArray[np.object_],
) -> dict[str, Counts]:
    counts: dict[str, Counts] = {}
    for labels, one in ((true, Counts(tp=1)), (false, Counts(fp=1)), (missed, Counts(fn=1))):
        for label in labels:
            counts[label] = counts.get(label, Counts()) + one
    return dict(sorted(counts.items()))
