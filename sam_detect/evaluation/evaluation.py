"""The result of an evaluation: figures of its episodes, means over the seeds, and predictions."""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sam_detect.errors import OutputError
from sam_detect.evaluation.dataset import Dataset, Id
from sam_detect.evaluation.metrics import (
    Confusion,
    confusion,
    instance_scores,
    semantic_scores,
    spread,
)
from sam_detect.evaluation.metrics.calibration import reliability
from sam_detect.evaluation.metrics.coco import coco_scores
from sam_detect.evaluation.run import Episode, Protocol, Query
from sam_detect.io import write_atomically

AVERAGED = (
    "precision", "recall", "f1", "f1_macro", "mean_iou", "ap", "ap50", "msa", "ar100",
    "proposal_recall", "proposals_per_image", "expected_calibration_error",
)  # fmt: skip
"""Figures that are taken of each seed and averaged."""


@dataclass(frozen=True, eq=False)
class Evaluation:
    """A method's episodes on a dataset, and the figures taken from them.

    Attributes:
        dataset: the data.
        protocol: how examples were drawn.
        method: its name.
        recipe: how the method makes its vectors; empty for one without.
        episodes: one for each seed and group.
        embedding: ``separability``, ``knn_purity`` and ``silhouette``; None without vectors.
        learning_curve: ``{"shots", "f1", "f1_spread"}`` for several numbers of shots; may be empty.
        peak_memory_mb: most memory the process has had; None where the system cannot tell.
        variant: what a sweep changed for it, by name; empty outside of a sweep.
    """

    dataset: Dataset
    protocol: Protocol
    method: str
    recipe: dict[str, Any]
    episodes: tuple[Episode, ...]
    embedding: dict[str, float | None] | None = None
    learning_curve: tuple[dict[str, Any], ...] = ()
    peak_memory_mb: float | None = None
    variant: dict[str, str] = field(default_factory=dict)

    @cached_property
    def figures(self) -> dict[str, Any]:
        """Every averaged figure, ``per_class``, and the standard deviation of F1 over seeds."""
        seeds = list(self.by_seed.values())
        means = {name: spread(each.get(name) for each in seeds).mean for name in AVERAGED}
        labels = sorted({label for each in seeds for label in each["per_class"]})
        per_class = {
            label: _means([e["per_class"][label] for e in seeds if label in e["per_class"]])
            for label in labels
        }
        f1_spread = spread(each["f1"] for each in seeds).std
        return {**means, "per_class": per_class, "f1_spread": f1_spread}

    @cached_property
    def by_seed(self) -> dict[int, dict[str, Any]]:
        """The figures of each seed, over all its episodes, before they are averaged."""
        found: dict[int, list[Episode]] = defaultdict(list)
        for episode in self.episodes:
            found[episode.split.seed].append(episode)
        return {seed: self._scores(episodes) for seed, episodes in found.items()}

    @cached_property
    def confusion(self) -> Confusion:
        """What the objects of all episodes were taken for."""
        return confusion([query.comparison for query in self.queries], self.protocol.iou)

    @cached_property
    def seconds(self) -> dict[str, float]:
        """Mean seconds of a picture per stage."""
        sums: dict[str, float] = defaultdict(float)
        for query in self.queries:
            for stage, value in query.found.seconds.items():
                sums[stage] += value
        return {stage: value / len(self.queries) for stage, value in sums.items()}

    @property
    def queries(self) -> list[Query]:
        """All pictures of all episodes."""
        return [query for episode in self.episodes for query in episode.queries]

    @cached_property
    def problems(self) -> tuple[str, ...]:
        """What was skipped in the dataset, and labels with too few examples, each once."""
        of_splits = (line for e in self.episodes for line in e.split.problems)
        return tuple(dict.fromkeys([*self.dataset.problems, *of_splits]))

    def to_dict(self) -> dict[str, Any]:
        """The object of ``evaluate --json``."""
        figures = dict(self.figures)
        per_class = figures.pop("per_class")
        pixels = [q.picture.size_hw[0] * q.picture.size_hw[1] for q in self.queries]
        seconds = sum(self.seconds.values())
        return {
            "dataset": self.dataset.name,
            "method": self.method,
            **({"variant": self.variant} if self.variant else {}),
            "task": self.protocol.task,
            "protocol": self.protocol.draw,
            "shots": self.protocol.shots,
            "seeds": list(self.protocol.seeds),
            "iou": self.protocol.iou,
            "group_by": self.protocol.group_by,
            "exhaustive": self.protocol.exhaustive,
            "boxes_only": self.dataset.boxes_only,
            "recipe": self.recipe,
            "episodes": [{**_head(each), **self._scores([each])} for each in self.episodes],
            **figures,
            "per_class": per_class,
            "confusion": {
                "rows": list(self.confusion.rows),
                "columns": list(self.confusion.columns),
                "counts": self.confusion.table.tolist(),
            },
            "reliability": self._reliability(),
            "embedding": self.embedding,
            "candidate_similarity": self._candidate_similarity(),
            "learning_curve": list(self.learning_curve),
            "seconds_per_image": seconds,
            "seconds_per_megapixel": seconds * len(pixels) / (sum(pixels) / 1e6),
            "seconds": self.seconds,
            "peak_memory_mb": self.peak_memory_mb,
            "problems": list(self.problems),
        }

    def _reliability(self) -> list[dict[str, float]]:
        """The bins of the reliability curve of all episodes; none where pixels are counted."""
        if self.protocol.task == "semantic":
            return []
        bins = reliability([query.comparison for query in self.queries], self.protocol.iou)
        return [asdict(each) for each in bins]

    def _candidate_similarity(self) -> dict[str, Any] | None:
        """How alike the candidates of all pictures are to the examples, and which share of them got
        a label; None for a method that compares none."""
        found = np.concatenate([q.found.similarities for q in self.queries])
        if not len(found):
            return None
        shares = (0.0, 0.05, 0.25, 0.5, 0.75, 0.95, 1.0)
        named = sum(label is not None for q in self.queries for label in q.found.labels)
        return {
            "candidates": len(found),
            "mean": float(found.mean()),
            "quantiles": {str(q): float(np.quantile(found, q)) for q in shares},
            "passing": named / len(found),
        }

    def _scores(self, episodes: Sequence[Episode]) -> dict[str, Any]:
        """The figures of some episodes taken together."""
        items = [(q.picture, q.found, e.split.shown) for e in episodes for q in e.queries]
        if self.protocol.task == "semantic":
            return semantic_scores(items)
        comparisons = [query.comparison for episode in episodes for query in episode.queries]
        scores = instance_scores(comparisons, self.protocol.iou)
        coco = coco_scores(items, self.dataset.boxes_only)
        for label, ap in coco["per_class_ap"].items():
            scores["per_class"][label]["ap"] = ap
        return {**scores, "ap": coco["ap"], "ap50": coco["ap50"], "ar100": coco["ar100"]}


def _means(rows: Sequence[dict[str, Any]]) -> dict[str, float | None]:
    names: Iterable[str] = dict.fromkeys(name for row in rows for name in row)
    return {name: spread(row.get(name) for row in rows).mean for name in names}


def _head(episode: Episode) -> dict[str, Any]:
    """What an episode was made of."""
    split = episode.split
    return {
        "seed": split.seed,
        "group": split.group,
        "support_annotation_ids": [o.id for _, objects in split.support for o in objects],
        "query_image_ids": [query.picture.id for query in episode.queries],
    }


def write_predictions(path: Path, dataset: Dataset, episodes: Sequence[Episode]) -> None:
    """Writes named detections in COCO's terms (ids of the dataset's own file), best first.

    Unknown ones have no category and are left out.

    Raises:
        OutputError: the file cannot be written.
    """
    rows = [
        {
            **_head(each),
            "detections": [r for q in each.queries for r in _rows(q, dataset.categories)],
        }
        for each in episodes
    ]
    text = json.dumps({"episodes": rows})
    write_atomically(path, lambda file: file.write(text.encode()))


def check_output_file(option: str, path: Path, annotations: Path, dataset: Dataset) -> None:
    """Says before anything is measured that a file would take the place of another.

    Args:
        option: that named the file.
        annotations: the file or folder that the dataset was read from.

    Raises:
        OutputError: it is a folder, or a file of the dataset.
    """
    if path.is_dir():
        raise OutputError(f"'{path}' is a folder; name a file in it with {option}")
    files = [annotations, annotations / "annotations.json", annotations / "data.yaml"]
    files += [picture.path for picture in dataset.pictures]
    if path.exists() and any(each.exists() and path.samefile(each) for each in files):
        raise OutputError(f"'{path}' is a file of the dataset; choose another with {option}")


def _rows(query: Query, categories: dict[str, Id]) -> list[dict[str, Any]]:
    found = query.found
    named = [i for i, label in enumerate(found.labels) if label is not None]
    rows = []
    for index in sorted(named, key=lambda i: (-float(found.scores[i]), i)):
        x0, y0, x1, y1 = (int(v) for v in found.masks.boxes_xyxy[index])
        rows.append(
            {
                "image_id": query.picture.id,
                "category_id": categories[str(found.labels[index])],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "segmentation": found.masks.rle(index),
                "score": round(float(found.scores[index]), 6),
            }
        )
    return rows
