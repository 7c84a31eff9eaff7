"""What was found in each picture of each episode, and at which stage each lost object was lost."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np

from sam_detect.evaluation.comparison import Comparison, Counts, Matches, match, total
from sam_detect.evaluation.dataset import AnnotatedPicture, Id
from sam_detect.evaluation.evaluation import Evaluation
from sam_detect.evaluation.metrics import pixel_counts
from sam_detect.evaluation.run import Query, Split

FOUND = "found"
MISNAMED = "misnamed"
UNNAMED = "unnamed"
LEFT_OUT = "left out"
NOT_PROPOSED = "not proposed"
OBJECT_OUTCOMES = (FOUND, MISNAMED, UNNAMED, LEFT_OUT, NOT_PROPOSED)

TRUE = "true"
WRONG_NAME = "wrong name"
DUPLICATE = "duplicate"
PART = "part"
BACKGROUND = "background"
FALSE_OUTCOMES = (WRONG_NAME, DUPLICATE, PART, BACKGROUND)
NOT_COUNTED = "not counted"

TOUCHING_IOU = 0.1
"""From this overlap on a false detection is part of an object (or holds one), not background."""


@dataclass(frozen=True, eq=False)
class Outcomes:
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
        false = (word for word in self.detections if word in FALSE_OUTCOMES)
        return Counter([*self.objects, *false])


def outcomes(comparison: Comparison, matches: Matches, iou_threshold: float) -> Outcomes:
    """Tells why objects were missed and why detections are false.

    "Covers" is an IoU of at least the threshold.
    """
    count = len(comparison.object_labels)
    detections = range(len(comparison.labels))
    return Outcomes(
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


ABSOLUTE_PATH = re.compile(r"(?<![\w.:/\\])(?:[A-Za-z]:[\\/]|/)(?:[^/\\\s:'\"]+[\\/])+")


@dataclass(frozen=True, eq=False)
class Result:
    """One picture of one episode.

    Attributes:
        split: the episode's examples.
        query: what was found.
        counts: of objects, or of pixels where the task counts those.
        matches: which detection found which object; None where pixels are counted.
        outcomes: why the others did not; None where pixels are counted.
    """

    split: Split
    query: Query
    counts: Counts
    matches: Matches | None
    outcomes: Outcomes | None

    @property
    def seconds(self) -> float:
        return sum(self.query.found.seconds.values())


def results_of(evaluation: Evaluation) -> list[Result]:
    """All pictures of all episodes, in the order they were done."""
    return [
        _result(evaluation, episode.split, query)
        for episode in evaluation.episodes
        for query in episode.queries
    ]


def _result(evaluation: Evaluation, split: Split, query: Query) -> Result:
    if evaluation.protocol.task == "semantic":
        item = (query.picture, query.found, split.shown)
        return Result(split, query, total(pixel_counts([item])), None, None)
    iou = evaluation.protocol.iou
    matches = match(query.comparison, iou)
    return Result(split, query, matches.counts, matches, outcomes(query.comparison, matches, iou))


@dataclass(frozen=True)
class Names:
    """Pictures and messages without the folders of the machine they were made on.

    Args:
        pictures: of the dataset.
    """

    pictures: Sequence[AnnotatedPicture]

    @cached_property
    def folder(self) -> Path:
        """The deepest folder that holds all pictures."""
        return Path(os.path.commonpath([p.path.absolute().parent for p in self.pictures]))

    @cached_property
    def _by_id(self) -> dict[Id, str]:
        return {p.id: p.path.absolute().relative_to(self.folder).as_posix() for p in self.pictures}

    def of(self, picture: AnnotatedPicture) -> str:
        """Its path below the folder of the pictures."""
        return self._by_id[picture.id]

    def without_folders(self, text: str) -> str:
        """A message in which absolute paths have lost their folders."""
        for folder in (self.folder, self.folder.parent):
            if folder != folder.parent:
                text = text.replace(f"{folder}{os.sep}", "")
        return ABSOLUTE_PATH.sub("", text)
