"""What became of each object and each detection: which room lost it."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import numpy as np

from sam_detect.evaluation.comparison import Comparison
from sam_detect.evaluation.matching import Matches

FOUND = "found"
MISNAMED = "misnamed"
UNNAMED = "unnamed"
LEFT_OUT = "left out"
NOT_PROPOSED = "not proposed"
OBJECT_FATES = (FOUND, MISNAMED, UNNAMED, LEFT_OUT, NOT_PROPOSED)

TRUE = "true"
WRONG_NAME = "wrong name"
DUPLICATE = "duplicate"
PART = "part"
BACKGROUND = "background"
FALSE_KINDS = (WRONG_NAME, DUPLICATE, PART, BACKGROUND)
NOT_COUNTED = "not counted"

TOUCHING_IOU = 0.1
"""From this overlap on a false detection is part of an object (or holds one), not background."""


@dataclass(frozen=True, eq=False)
class Fates:
    """One word for each object and detection of a picture.

    Attributes:
        objects: G words. ``found``: rightly named. Of the missed, the first that holds:
            ``misnamed``: a detection of another name covers it. ``unnamed``: a region without a
            name does. ``left out``: it was proposed, but the region was given up or counts for
            another object. ``not proposed``: no region covers it.
        detections: N words. ``true``; of the false ones ``wrong name`` (it covers an object of
            another name), ``duplicate`` (it covers an object that another detection found),
            ``part`` (it overlaps an object too little), ``background`` (it hardly overlaps any);
            ``not counted`` for unknown and excused ones.
        nearest: N indices of the object that each detection overlaps most; -1 where it hardly
            overlaps any.
    """

    objects: tuple[str, ...]
    detections: tuple[str, ...]
    nearest: tuple[int, ...]

    @property
    def counts(self) -> Counter[str]:
        """How often each word of the objects and of the false detections applies."""
        false = (word for word in self.detections if word in FALSE_KINDS)
        return Counter([*self.objects, *false])


def fates(comparison: Comparison, matches: Matches, iou_threshold: float) -> Fates:
    """Tells why objects were missed and why detections are false.

    "Covers" is an IoU of at least the threshold.
    """
    count = len(comparison.object_labels)
    detections = range(len(comparison.labels))
    return Fates(
        tuple(_of_object(comparison, matches, iou_threshold, index) for index in range(count)),
        tuple(_of_detection(comparison, matches, iou_threshold, index) for index in detections),
        tuple(_nearest(comparison.iou[index]) for index in detections),
    )


def _of_object(comparison: Comparison, matches: Matches, iou_threshold: float, index: int) -> str:
    if not matches.missed[index]:
        return FOUND
    covering = np.flatnonzero(comparison.iou[:, index] >= iou_threshold)
    names = {comparison.labels[i] for i in covering}
    if names - {None, comparison.object_labels[index]}:
        return MISNAMED
    if None in names:
        return UNNAMED
    if names or comparison.best_proposal_iou[index] >= iou_threshold:
        return LEFT_OUT
    return NOT_PROPOSED


def _of_detection(
    comparison: Comparison, matches: Matches, iou_threshold: float, index: int
) -> str:
    if not matches.false[index]:
        return TRUE if matches.objects[index] >= 0 else NOT_COUNTED
    row = comparison.iou[index]
    covered = comparison.object_labels[row >= iou_threshold]
    if comparison.labels[index] in covered:
        return DUPLICATE
    if len(covered):
        return WRONG_NAME
    return PART if _nearest(row) >= 0 else BACKGROUND


def _nearest(row: np.ndarray[tuple[int], np.dtype[np.float64]]) -> int:
    if not len(row) or row.max() < TOUCHING_IOU:
        return -1
    return int(row.argmax())
