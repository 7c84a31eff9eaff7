"""The content of the page for one evaluation: texts, shares and plots for its template."""

from __future__ import annotations

import json
import math
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from sam_detect.evaluation.evaluation import Evaluation
from sam_detect.evaluation.metrics import spread
from sam_detect.evaluation.report.pictures import Album, Drawing, ends, worst_first
from sam_detect.evaluation.report.results import (
    BACKGROUND,
    DUPLICATE,
    FALSE_OUTCOMES,
    FOUND,
    LEFT_OUT,
    MISNAMED,
    NOT_PROPOSED,
    OBJECT_OUTCOMES,
    PART,
    UNNAMED,
    WRONG_NAME,
    Result,
)
from sam_detect.evaluation.report.tables import ABSENT, number, plus_minus

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 38, 22, 22, 40


@dataclass(frozen=True)
class CurvePoint:
    """F1 at some number of shots, where it lies in the plot.

    Attributes:
        shots: examples of each label.
        f1: the mean over the seeds.
        deviation: over the seeds; None below two.
        x, y: of the mean.
        low, high: y of the ends of the band.
    """

    shots: int
    f1: float
    deviation: float | None
    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """A learning curve over a logarithmic axis of shots and an F1 of 0 to 1.

    Attributes:
        points: from the fewest shots to the most; at least one.
    """

    points: tuple[CurvePoint, ...]
    size_wh: tuple[int, int] = (WIDTH, HEIGHT)

    @property
    def line(self) -> str:
        return " ".join(f"{p.x:.1f},{p.y:.1f}" for p in self.points)

    @property
    def band(self) -> str:
        """The outline of mean and deviation."""
        there = [f"{p.x:.1f},{p.high:.1f}" for p in self.points]
        back = [f"{p.x:.1f},{p.low:.1f}" for p in reversed(self.points)]
        return " ".join([*there, *back])

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """y and text of each line across."""
        return [(_y(value / 4), f"{value / 4:g}") for value in range(5)]

    @property
    def ends(self) -> tuple[int, int]:
        """x of the lines' ends."""
        return LEFT, WIDTH - RIGHT


def learning_curve(points: Sequence[dict[str, Any]]) -> Curve | None:
    """The plot of ``Evaluation.learning_curve``; None where no point has an F1."""
    known = sorted((p for p in points if p["f1"] is not None), key=lambda p: int(p["shots"]))
    if not known:
        return None
    first, last = math.log(known[0]["shots"]), math.log(known[-1]["shots"])
    placed = []
    for point in known:
        share = (math.log(point["shots"]) - first) / (last - first) if last > first else 0.5
        f1, deviation = point["f1"], point["f1_spread"]
        placed.append(
            CurvePoint(
                shots=point["shots"],
                f1=f1,
                deviation=deviation,
                x=LEFT + 14 + share * (WIDTH - LEFT - RIGHT - 28),
                y=_y(f1),
                low=_y(max(0.0, f1 - (deviation or 0.0))),
                high=_y(min(1.0, f1 + (deviation or 0.0))),
            )
        )
    return Curve(tuple(placed))


def _y(share: float) -> float:
    return TOP + (1 - share) * (HEIGHT - TOP - BOTTOM)


MOST_EXAMPLES = 12
SHOWN_PROBLEMS = 5

FIGURES = {
    "f1": ("F1", "precision and recall in one: 2 TP / (2 TP + FP + FN)"),
    "precision": ("precision", "share of the named detections that are right"),
    "recall": ("recall", "share of the objects that were found and rightly named"),
    "ap50": ("AP50", "COCO average precision at IoU .50"),
    "proposal_recall": ("proposal recall", "share of the objects that were proposed at all"),
    "f1_macro": ("macro F1", "F1 of each label, averaged"),
    "mean_iou": ("mean IoU", "overlap of the right ones with their objects"),
    "ap": ("AP", "COCO average precision, IoU .50 to .95"),
    "ar100": ("AR100", "COCO average recall, at most 100 detections a picture"),
    "msa": ("mSA", "TP / (TP + FP + FN), averaged over IoU .50 to .95"),
    "proposals_per_image": ("proposals per image", "regions proposed"),
}
"""Headings and meanings; the page's order."""
HEADLINES = ("f1", "precision", "recall", "ap50", "proposal_recall", "mean_iou")
"""At most five of them are shown large."""
OF_PIXELS = {"mean_iou": ("mean IoU", "TP / (TP + FP + FN) of each label's pixels, averaged")}

WHY = {
    FOUND: "and rightly named",
    MISNAMED: "labelling: the region was given another name",
    UNNAMED: "labelling: the region was given no name",
    LEFT_OUT: "suppression: the region was given up for another, or counts for another object",
    NOT_PROPOSED: "segmentation: no region covers the object",
    WRONG_NAME: "covers an object of another name",
    DUPLICATE: "covers an object that another detection found",
    PART: "overlaps an object too little",
    BACKGROUND: "overlaps no annotated object",
}
TONES = {
    FOUND: "good",
    MISNAMED: "misnamed",
    WRONG_NAME: "misnamed",
    UNNAMED: "half",
    PART: "half",
    LEFT_OUT: "twice",
    DUPLICATE: "twice",
    NOT_PROPOSED: "nowhere",
    BACKGROUND: "nowhere",
}
"""Colours of the bars: related ones have the same."""
EMBEDDING = {
    "separability": "how often two objects of one label are more alike than two things of "
    "different labels; 0.5 is chance",
    "knn_purity": "share of the nearest neighbours, in other pictures, that have the same label",
    "silhouette": "how tight the labels' clusters are, from -1 to 1",
}
TIME_TONES = 6
STAGES = ("propose", "fade", "embed", "search", "label")


@dataclass(frozen=True)
class Figure:
    """One averaged figure: its key in ``to_dict()``, heading, value and deviation."""

    key: str
    name: str
    meaning: str
    value: float
    deviation: float | None
    digits: int = 3

    @property
    def text(self) -> str:
        return number(self.value, self.digits)

    @property
    def both(self) -> str:
        return plus_minus(self.value, self.deviation, self.digits)


@dataclass(frozen=True)
class BarPart:
    """One part of a bar: its value as text, share in percent, colour, and its meaning."""

    name: str
    value: str
    share: float
    tone: str
    meaning: str = ""


@dataclass(frozen=True)
class Cell:
    """One cell of the confusion table: its count and the percent of its row."""

    count: int
    share: float
    right: bool


@dataclass(frozen=True)
class Group:
    """The means of one group's episodes."""

    name: str
    figures: dict[str, float | None]


class Section:
    """One evaluation.

    Args:
        id: unique in the page.
        evaluation: what is shown.
        whole: its ``to_dict()``.
        results: its pictures.
        album: draws them.
        most: pictures to show at most.
    """

    def __init__(
        self,
        id: str,  # noqa: A002 - what HTML calls it
        evaluation: Evaluation,
        whole: Mapping[str, Any],
        results: Sequence[Result],
        *,
        album: Album,
        most: int,
    ) -> None:
        self.id = id
        self.whole = whole
        self.pixels = evaluation.protocol.task == "semantic"
        self.boxes = evaluation.dataset.boxes_only
        self.title = ", ".join(f"{k} {v}" for k, v in evaluation.variant.items())
        self.figures = _figures(evaluation, whole)
        self.headlines = [f for name in HEADLINES for f in self.figures if f.key == name][:5]
        counted = sum(
            (r.outcomes.counts for r in results if r.outcomes is not None), Counter[str]()
        )
        self.objects = _parts(counted, OBJECT_OUTCOMES)
        self.false = _parts(counted, FALSE_OUTCOMES)
        self.counted = counted
        self.lost = sum(counted[name] for name in OBJECT_OUTCOMES if name != FOUND)
        self.false_count = sum(counted[name] for name in FALSE_OUTCOMES)
        self.groups = _groups(whole)
        self.confusion = _cells(whole["confusion"])
        self.curve: Curve | None = learning_curve(whole["learning_curve"])
        self.stages = _stages(whole["seconds"])
        self.embedding = _embedding(whole["embedding"])
        plain = album.names.without_folders
        self.recipe = [(name, plain(_text(value))) for name, value in whole["recipe"].items()]
        self.problems = [plain(line) for line in whole["problems"]]
        self.pictures = len({query.picture.id for query in evaluation.queries})
        ranked = worst_first(results)
        self.ranked = len(ranked)
        self.drawings = [album.of_result(each) for each in ends(ranked, most)]
        self.examples, self.example_count = _examples(evaluation, album) if most else ([], 0)

    @property
    def unreadable(self) -> int:
        """Pictures that could not be read again to be shown."""
        return sum(each.base.uri is None for each in [*self.drawings, *self.examples])


def _figures(evaluation: Evaluation, whole: Mapping[str, Any]) -> list[Figure]:
    texts = FIGURES | (OF_PIXELS if evaluation.protocol.task == "semantic" else {})
    return [
        Figure(
            name,
            *texts[name],
            value=whole[name],
            deviation=spread(seed.get(name) for seed in evaluation.by_seed.values()).std,
            digits=1 if name == "proposals_per_image" else 3,
        )
        for name in texts
        if whole[name] is not None
    ]


def _parts(counts: Mapping[str, int], names: Iterable[str]) -> list[BarPart]:
    """The counts that are not 0, as shares of them all."""
    there = {name: counts[name] for name in names if counts[name]}
    total = sum(there.values())
    return [
        BarPart(name, f"{count:,}", 100 * count / total, TONES[name], WHY[name])
        for name, count in there.items()
    ]


def _stages(seconds: Mapping[str, float]) -> list[BarPart]:
    order = {name: place for place, name in enumerate(STAGES)}
    names = sorted(seconds, key=lambda name: order.get(name, len(order)))
    total = sum(seconds.values()) or 1.0
    return [
        BarPart(name, _time(seconds[name]), 100 * seconds[name] / total, f"s{index % TIME_TONES}")
        for index, name in enumerate(names)
    ]


def _time(seconds: float) -> str:
    return f"{seconds:.2f} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"


def _groups(whole: Mapping[str, Any]) -> list[Group]:
    """Means over the seeds; nothing where there are no groups."""
    if whole["group_by"] is None:
        return []
    by_group: dict[str, list[dict[str, Any]]] = defaultdict(list)
    for episode in whole["episodes"]:
        by_group[episode["group"]].append(episode)
    names = ("f1", "precision", "recall", "ap50", "proposal_recall")
    return [
        Group(group, {name: spread(e.get(name) for e in episodes).mean for name in names})
        for group, episodes in by_group.items()
    ]


def _cells(table: Mapping[str, Any]) -> list[tuple[str, list[Cell]]]:
    """The rows of the confusion table with their names."""
    rows = []
    for index, (name, counts) in enumerate(zip(table["rows"], table["counts"], strict=True)):
        total = sum(counts) or 1
        cells = [
            # right are the diagonal, and nothing that was taken for nothing known
            Cell(count, 100 * count / total, column == index)
            for column, count in enumerate(counts)
        ]
        rows.append((name, cells))
    return rows


def _embedding(found: Mapping[str, float | None] | None) -> list[tuple[str, str, str]]:
    """Name, value and meaning of each figure."""
    return [
        (name.replace("_", " "), number(found[name]), meaning)
        for name, meaning in EMBEDDING.items()
        if found is not None and found.get(name) is not None
    ]


def _text(value: Any) -> str:
    if value is None:
        return ABSENT
    return value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)


def _examples(evaluation: Evaluation, album: Album) -> tuple[list[Drawing], int]:
    """Drawings of the first support pictures, and how many there are."""
    shown = [
        (picture, objects, episode.split.seed)
        for episode in evaluation.episodes
        for picture, objects in episode.split.support
    ]
    return [album.of_examples(*each) for each in shown[:MOST_EXAMPLES]], len(shown)
