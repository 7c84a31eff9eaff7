"""Evaluations of drawn pictures, for the tests of reports: every number can be counted by hand."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sam_detect.evaluation.comparison import compare
from sam_detect.evaluation.dataset import AnnotatedObject, AnnotatedPicture, Dataset
from sam_detect.evaluation.evaluation import Evaluation
from sam_detect.evaluation.methods import Predictions
from sam_detect.evaluation.run import Episode, Protocol, Query, Split
from sam_detect.types import Masks

SIZE_HW = (90, 120)
Rectangle = tuple[int, int, int, int]
Detection = tuple[str | None, float, Rectangle]

A, B, C, D, E, F = (
    (10, 10, 20, 20), (40, 10, 20, 20), (70, 10, 20, 20),
    (10, 50, 20, 20), (40, 50, 20, 20), (70, 50, 20, 20),
)  # fmt: skip
OBJECTS: tuple[tuple[str, Rectangle], ...] = (
    ("bolt", A), ("bolt", B), ("nut", C), ("nut", D), ("bolt", E), ("nut", F)
)  # fmt: skip
ON_D: Rectangle = (10, 60, 20, 20)
ASIDE: Rectangle = (100, 70, 10, 10)
DETECTIONS: tuple[Detection, ...] = (
    ("bolt", 0.9, A), ("bolt", 0.5, A), ("nut", 0.8, B), (None, 0.3, C), ("nut", 0.7, D),
    ("bolt", 0.6, ON_D), ("nut", 0.4, ASIDE),
)  # fmt: skip
"""2 true, 4 false (one of each kind), 4 missed (one of each kind)."""


def masks(rectangles: Sequence[Rectangle], size_hw: tuple[int, int] = SIZE_HW) -> Masks:
    return Masks.from_crops(
        size_hw=size_hw,
        boxes_xyxy=[[x, y, x + w, y + h] for x, y, w, h in rectangles],
        crops=[np.ones((h, w), np.bool_) for _, _, w, h in rectangles],
    )


def found(detections: Sequence[Detection], more: Sequence[Rectangle] = ()) -> Predictions:
    """Detections; each is a proposal, and so are ``more``."""
    seen = [rectangle for _, _, rectangle in detections]
    return Predictions(
        masks(seen),
        tuple(label for label, _, _ in detections),
        np.array([score for _, score, _ in detections], np.float32),
        masks([*seen, *more]),
        seconds={"propose": 0.25, "embed": 0.5},
    )


def picture(
    path: Path, number: int, objects: Sequence[tuple[str, Rectangle]], *, boxes: bool = False
) -> AnnotatedPicture:
    """Draws the objects into a file, and annotates them."""
    drawn = np.full((*SIZE_HW, 3), 120, np.uint8)
    for _, (x, y, w, h) in objects:
        drawn[y : y + h, x : x + w] = 200
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(drawn).save(path)
    annotated = tuple(
        AnnotatedObject(
            100 * number + index,
            label,
            (float(box[0]), float(box[1]), float(box[2]), float(box[3])),
            None if boxes else masks([box]).rle(0),
        )
        for index, (label, box) in enumerate(objects)
    )
    return AnnotatedPicture(number, path, SIZE_HW, annotated, {"light": "day"})


def episode(
    seed: int,
    support: AnnotatedPicture,
    queries: Sequence[tuple[AnnotatedPicture, Predictions]],
    *,
    boxes: bool = False,
    group: str | None = None,
) -> Episode:
    split = Split(
        seed, group, ((support, support.objects[:2]),), tuple(each for each, _ in queries)
    )
    compared = (
        Query(each, seen, compare(each, seen, shown=split.shown, boxes=boxes))
        for each, seen in queries
    )
    return Episode(split, tuple(compared))


def evaluation(
    folder: Path,
    *,
    names: Sequence[str] = ("1.png", "2.png", "3.png"),
    rename: dict[str, str] | None = None,
    boxes: bool = False,
    **changed: Any,
) -> Evaluation:
    """Two seeds over three pictures: the first is the examples', the second is found without a
    mistake, and the third as in :data:`DETECTIONS`, by the second seed a little better."""
    said = rename or {}
    objects = [(said.get(label, label), box) for label, box in OBJECTS]
    named = [(said.get(label, label) if label else None, s, box) for label, s, box in DETECTIONS]
    pictures = [
        picture(folder / name, number, objects, boxes=boxes)
        for number, name in enumerate(names, start=1)
    ]
    perfect = found([(label, 0.9, box) for label, box in objects])
    episodes = [
        episode(seed, pictures[0], [(pictures[1], perfect), (pictures[2], worse)], boxes=boxes)
        for seed, worse in ((0, found(named, [F])), (1, found(named[:-1], [F])))
    ]
    made = Evaluation(
        dataset=Dataset("drawn", tuple(pictures), {"bolt": 1, "nut": 2}),
        protocol=Protocol(shots=2, seeds=(0, 1)),
        method="sam-detect",
        recipe={"embedder": "appearance", "crop_side": 256},
        episodes=tuple(episodes),
        embedding={"separability": 0.9, "knn_purity": 0.8, "silhouette": None},
        learning_curve=(
            {"shots": 1, "f1": 0.4, "f1_spread": 0.1},
            {"shots": 2, "f1": 0.6, "f1_spread": None},
            {"shots": 8, "f1": None, "f1_spread": None},
        ),
        peak_memory_mb=321.5,
    )
    return replace(made, **changed)
