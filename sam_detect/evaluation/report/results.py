"""What a method did in each picture of each episode: the rows that tables and pictures share."""

from __future__ import annotations

import os
import re
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from sam_detect.evaluation.counts import Counts, total
from sam_detect.evaluation.dataset import AnnotatedPicture, Id
from sam_detect.evaluation.episodes import Split
from sam_detect.evaluation.evaluation import Evaluation
from sam_detect.evaluation.matching import Matches, match
from sam_detect.evaluation.metrics import pixel_counts
from sam_detect.evaluation.report.fates import Fates, fates
from sam_detect.evaluation.run import Query

ABSOLUTE_PATH = re.compile(r"(?<![\w.:/\\])(?:[A-Za-z]:[\\/]|/)(?:[^/\\\s:'\"]+[\\/])+")


@dataclass(frozen=True, eq=False)
class Result:
    """One picture of one episode.

    Attributes:
        split: the episode's examples.
        query: what was found.
        counts: of objects, or of pixels where the task counts those.
        matches: which detection found which object; None where pixels are counted.
        fates: why the others did not; None where pixels are counted.
    """

    split: Split
    query: Query
    counts: Counts
    matches: Matches | None
    fates: Fates | None

    @property
    def seconds(self) -> float:
        return sum(self.query.found.seconds.values())


def results_of(evaluation: Evaluation) -> list[Result]:
    """All pictures of all episodes, in the order they were done."""
    semantic = evaluation.protocol.task == "semantic"
    return [
        (_by_pixels if semantic else _by_objects)(evaluation, episode.split, query)
        for episode in evaluation.episodes
        for query in episode.queries
    ]


def _by_objects(evaluation: Evaluation, split: Split, query: Query) -> Result:
    iou = evaluation.protocol.iou
    matches = match(query.comparison, iou)
    return Result(split, query, matches.counts, matches, fates(query.comparison, matches, iou))


def _by_pixels(evaluation: Evaluation, split: Split, query: Query) -> Result:
    item = (query.picture, query.found, split.shown)
    return Result(split, query, total(pixel_counts([item])), None, None)


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
