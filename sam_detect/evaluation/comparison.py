"""Detections of one picture against its annotated objects: overlaps, counts, and matching.

A figure that does not apply is None (``null`` in JSON), and 0 only where it is truly 0:

=================================  =========  ======  =====  =======
what there is                      precision  recall  F1     Jaccard
=================================  =========  ======  =====  =======
nothing to find, nothing found     None       None    None   None
nothing to find, something found   0          None    0      0
something to find, nothing found   None       0       0      0
=================================  =========  ======  =====  =======
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sam_detect.errors import ConfigError
from sam_detect.evaluation.dataset import AnnotatedObject, AnnotatedPicture, Id, masks_of
from sam_detect.evaluation.methods import Predictions
from sam_detect.types import Masks
from sam_detect.types.masks import BoolArray, IntArray

Figure = Literal["precision", "recall", "f1", "jaccard"]


@dataclass(frozen=True)
class Counts:
    """What was found of what is there.

    Attributes:
        tp: found, and there.
        fp: found, and not there.
        fn: there, and not found.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def precision(self) -> float | None:
        """``TP / (TP + FP)``; None where nothing was found."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float | None:
        """``TP / (TP + FN)``; None where there was nothing to find."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float | None:
        """``2 TP / (2 TP + FP + FN)``, of pixels Dice's coefficient; None without anything."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def jaccard(self) -> float | None:
        """``TP / (TP + FP + FN)``, of pixels the IoU; None without anything."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    def to_dict(self) -> dict[str, float | None]:
        """Counts, precision, recall and F1 as plain data."""
        counted = {"tp": self.tp, "fp": self.fp, "fn": self.fn}
        return {**counted, "precision": self.precision, "recall": self.recall, "f1": self.f1}


def pooled(parts: Iterable[Mapping[str, Counts]]) -> dict[str, Counts]:
    """The counts of several pictures added up, per class, in the order of the names."""
    sums: dict[str, Counts] = {}
    for part in parts:
        for label, counts in part.items():
            sums[label] = sums.get(label, Counts()) + counts
    return dict(sorted(sums.items()))


def total(per_class: Mapping[str, Counts]) -> Counts:
    """All classes added up: what micro figures are made of."""
    return sum(per_class.values(), Counts())


def macro(per_class: Mapping[str, Counts], figure: Figure) -> float | None:
    """The mean of a figure over the classes that have something to find.

    A class of which nothing was found has no precision, and is left out of its mean; its recall,
    F1 and Jaccard index are 0 and count. None where no class has anything to find.
    """
    there = [counts for counts in per_class.values() if counts.tp + counts.fn]
    figures = [getattr(counts, figure) for counts in there]
    known = [value for value in figures if value is not None]
    return sum(known) / len(known) if known else None


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None


Floats = npt.NDArray[np.float64]
Item = tuple[AnnotatedPicture, Predictions, frozenset[Id]]
"""A picture, what was found in it, and the ids of its objects that were shown as examples."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """N detections against G objects of one picture.

    Attributes:
        iou: ``(N, G)`` in 0..1, of masks, or of boxes where the data has boxes only.
        labels: ``(N,)`` names found; None for unknown.
        scores: ``(N,)`` in 0..1.
        object_labels: ``(G,)`` names annotated.
        excused: ``(N,)`` bool: detections of what is neither to be found nor false to find: mostly
            in a crowd region, or of an example that was shown, and named like it or unknown.
            Counts only where they find no object.
        best_proposal_iou: ``(G,)`` IoU of each object with its best proposal.
        proposals: number of proposals.
    """

    iou: Floats
    labels: npt.NDArray[np.object_]
    scores: Floats
    object_labels: npt.NDArray[np.object_]
    excused: npt.NDArray[np.bool_]
    best_proposal_iou: Floats
    proposals: int


def compare(
    picture: AnnotatedPicture,
    found: Predictions,
    *,
    shown: frozenset[Id] = frozenset(),
    boxes: bool = False,
    iou_threshold: float = 0.5,
) -> Comparison:
    """Compares what was found with the objects that have to be found.

    Args:
        shown: ids of the picture's objects that were examples: not to be found again.
        boxes: compare boxes instead of masks.
        iou_threshold: from which overlap on a detection counts as one of a shown example.
    """
    wanted = tuple(o for o in picture.objects if not o.crowd and o.id not in shown)
    examples = tuple(o for o in picture.objects if not o.crowd and o.id in shown)
    crowds = tuple(o for o in picture.objects if o.crowd)
    on_examples = overlap(found.masks, picture, examples, boxes)
    in_crowds = overlap(found.masks, picture, crowds, boxes, crowd=True)
    excused = _covers(on_examples >= iou_threshold, found, examples)
    excused |= _covers(in_crowds >= iou_threshold, found, crowds)
    proposed = overlap(found.proposals, picture, wanted, boxes)
    return Comparison(
        iou=overlap(found.masks, picture, wanted, boxes),
        labels=np.array(found.labels, dtype=object),
        scores=np.asarray(found.scores, np.float64),
        object_labels=np.array([o.label for o in wanted], dtype=object),
        excused=excused,
        best_proposal_iou=proposed.max(axis=0, initial=0.0),
        proposals=len(found.proposals),
    )


def mask_rles(masks: Masks) -> list[Any]:
    """Full-size COCO RLEs."""
    return [masks.rle(index) for index in range(len(masks))]


def object_rles(picture: AnnotatedPicture, objects: Sequence[AnnotatedObject]) -> list[Any]:
    """The same of objects; a filled box where only the box is known."""
    return [o.mask_rle or masks_of(picture, [o]).rle(0) for o in objects]


def _covers(
    overlaps: BoolArray, found: Predictions, objects: tuple[AnnotatedObject, ...]
) -> BoolArray:
    """``(N,)``: detections that overlap an object and do not call it by another name."""
    agrees = [[label in (None, o.label) for o in objects] for label in found.labels]
    agreeing = np.array(agrees, np.bool_).reshape(overlaps.shape)
    return np.asarray((overlaps & agreeing).any(axis=1))


def overlap(
    masks: Masks,
    picture: AnnotatedPicture,
    objects: tuple[AnnotatedObject, ...],
    boxes: bool,
    *,
    crowd: bool = False,
) -> Floats:
    """``(N, G)`` IoU; for crowds the share of the detection that lies in them."""
    if len(masks) == 0 or not objects:
        return np.zeros((len(masks), len(objects)))
    from pycocotools import mask as coco

    if boxes:
        corners = masks.boxes_xyxy.astype(np.float64)
        mine: Any = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        theirs: Any = np.array([o.bbox_xywh for o in objects], np.float64)
    else:
        mine, theirs = mask_rles(masks), object_rles(picture, objects)
    shared = coco.iou(mine, theirs, [int(crowd)] * len(objects))
    return np.asarray(shared, np.float64).reshape(len(masks), len(objects))


@dataclass(frozen=True, eq=False)
class Matches:
    """Which of N detections and G objects of one picture belong together.

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
    per_class: dict[str, Counts] = {}
    for labels, one in (
        (comparison.labels[found], Counts(tp=1)),
        (comparison.labels[false], Counts(fp=1)),
        (comparison.object_labels[missed], Counts(fn=1)),
    ):
        for label in labels:
            per_class[label] = per_class.get(label, Counts()) + one
    return Matches(objects, ious, false, missed, dict(sorted(per_class.items())))


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
