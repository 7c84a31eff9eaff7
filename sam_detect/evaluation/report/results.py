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
from sam_detect.io.files import plane_suffix

OBJECT_OUTCOMES = {
    "found": "and rightly named",
    "misnamed": "labelling: the region was given another name",
    "unnamed": "labelling: the region was given no name",
    "left out": "suppression: the region was given up for another, or counts for another object",
    "not proposed": "segmentation: no region covers the object",
}
FALSE_OUTCOMES = {
    "wrong name": "covers an object of another name",
    "duplicate": "covers an object that another detection found",
    "part": "overlaps an object too little",
    "background": "overlaps no annotated object",
}
TOUCHING_IOU = 0.1
"""From this overlap on a false detection is part of an object (or holds one), not background."""


@dataclass(frozen=True, eq=False)
class Outcomes:
    """One word for each object and detection of a picture. "Covers" is an IoU of at least the
    protocol's threshold.

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


def results_of(evaluation: Evaluation) -> list[Result]:
    """All pictures of all episodes, in the order they were done."""
    iou, found = evaluation.protocol.iou, []
    for episode in evaluation.episodes:
        for query in episode.queries:
            if evaluation.protocol.task == "semantic":
                counts = total(pixel_counts([(query.picture, query.found, episode.split.shown)]))
                found.append(Result(episode.split, query, counts, None, None))
            else:
                matches = match(query.comparison, iou)
                why = _outcomes(query.comparison, matches, iou)
                found.append(Result(episode.split, query, matches.counts, matches, why))
    return found


def _outcomes(comparison: Comparison, matches: Matches, iou_threshold: float) -> Outcomes:
    most = comparison.iou.max(axis=1, initial=0.0)
    touching = most >= TOUCHING_IOU
    nearest = [int(row.argmax()) if near else -1
               for row, near in zip(comparison.iou, touching, strict=True)]  # fmt: skip
    return Outcomes(
        tuple(
            _of_object(comparison, matches, iou_threshold, index)
            for index in range(len(comparison.object_labels))
        ),
        tuple(
            _of_detection(comparison, matches, iou_threshold, index)
            for index in range(len(comparison.labels))
        ),
        tuple(nearest),
    )


def _of_object(comparison: Comparison, matches: Matches, iou_threshold: float, index: int) -> str:
    if not matches.missed[index]:
        return "found"
    covering = np.flatnonzero(comparison.iou[:, index] >= iou_threshold)
    names = {comparison.labels[i] for i in covering}
    if names - {None, comparison.object_labels[index]}:
        return "misnamed"
    if None in names:
        return "unnamed"
    if names or comparison.best_proposal_iou[index] >= iou_threshold:
        return "left out"
    return "not proposed"


def _of_detection(
    comparison: Comparison, matches: Matches, iou_threshold: float, index: int
) -> str:
    if not matches.false[index]:
        return "true" if matches.objects[index] >= 0 else "not counted"
    row = comparison.iou[index]
    covered = comparison.object_labels[row >= iou_threshold]
    if comparison.labels[index] in covered:
        return "duplicate"
    if len(covered):
        return "wrong name"
    return "part" if row.max(initial=0.0) >= TOUCHING_IOU else "background"


ABSOLUTE_PATH = re.compile(r"(?<![\w.:/\\])(?:[A-Za-z]:[\\/]|/)(?:[^/\\\s:'\"]+[\\/])+")


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
        return {
            p.id: self._shown(p.path.absolute().relative_to(self.folder), p) for p in self.pictures
        }

    @staticmethod
    def _shown(path: Path, picture: AnnotatedPicture) -> str:
        if picture.plane is None:
            return path.as_posix()
        name = f"{path.stem}{plane_suffix(picture.plane.location)}{path.suffix}"
        return path.with_name(name).as_posix()

    def of(self, picture: AnnotatedPicture) -> str:
        """Its path below the folder of the pictures, with the plane of a stack in its name."""
        return self._by_id[picture.id]

    def without_folders(self, text: str) -> str:
        """A message in which absolute paths have lost their folders."""
        for folder in (self.folder, self.folder.parent):
            if folder != folder.parent:
                text = text.replace(f"{folder}{os.sep}", "")
        return ABSOLUTE_PATH.sub("", text)
