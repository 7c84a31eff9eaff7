"""Comparisons and annotated pictures made by hand or drawn, for the tests of the metrics.

Everything in pictures is a rectangle ``(x, y, w, h)``, so that overlaps are counted in the head.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import strategies as st

from sam_detect.evaluation.comparison import Comparison, Item
from sam_detect.evaluation.dataset import AnnotatedObject, AnnotatedPicture
from sam_detect.evaluation.methods import Predictions
from sam_detect.types import Masks
from sam_detect.types.masks import BoolArray

SIZE_HW = (8, 12)
Rectangle = tuple[int, int, int, int]

LABELS = ("a", "b")
found_labels = st.sampled_from([*LABELS, "a", None, "never annotated"])
shares = st.sampled_from([0.0, 0.0, 0.3, 0.5, 0.5, 0.55, 0.6, 0.75, 0.9, 0.95, 1.0])
"""IoUs on the steps that metrics look at, so that ties and borders are met."""
scores = st.sampled_from([0.1, 0.5, 0.5, 0.9])


def comparison(
    iou: npt.ArrayLike,
    *,
    labels: Sequence[str | None],
    scores: Sequence[float],
    objects: Sequence[str],
    excused: Sequence[bool] | None = None,
    best: Sequence[float] | None = None,
    proposals: int = 0,
) -> Comparison:
    shape = (len(labels), len(objects))
    return Comparison(
        iou=np.asarray(iou, np.float64).reshape(shape),
        labels=np.array(labels, dtype=object),
        scores=np.asarray(scores, np.float64),
        object_labels=np.array(objects, dtype=object),
        excused=np.asarray([False] * len(labels) if excused is None else excused, bool),
        best_proposal_iou=np.asarray([0.0] * len(objects) if best is None else best, np.float64),
        proposals=proposals,
    )


def perfect(*labels: str) -> Comparison:
    """Every object found exactly, under its own name."""
    return comparison(
        np.eye(len(labels)), labels=labels, scores=[0.9] * len(labels), objects=labels
    )


@st.composite
def comparisons(draw: st.DrawFn, *, most: int = 6) -> Comparison:
    """Any IoUs (detections and objects may overlap each other as they please)."""
    labels = draw(st.lists(found_labels, max_size=most))
    objects = draw(st.lists(st.sampled_from(LABELS), max_size=most))
    count = len(labels)
    return comparison(
        [draw(shares) for _ in range(count * len(objects))],
        labels=labels,
        scores=[draw(scores) for _ in range(count)],
        objects=objects,
        excused=[draw(st.booleans()) for _ in range(count)],
        best=[draw(shares) for _ in objects],
        proposals=draw(st.integers(0, 9)),
    )


def filled(rectangle: Rectangle) -> BoolArray:
    """``(H, W)``, true inside."""
    x, y, w, h = rectangle
    mask = np.zeros(SIZE_HW, np.bool_)
    mask[y : y + h, x : x + w] = True
    return mask


def masks(rectangles: Sequence[Rectangle]) -> Masks:
    none = Masks.empty(SIZE_HW)
    return Masks.concatenate([none, *(Masks.from_dense(filled(r)) for r in rectangles)])


def picture(
    objects: Sequence[tuple[str, Rectangle]], *, crowds: Sequence[tuple[str, Rectangle]] = ()
) -> AnnotatedPicture:
    """Objects with ids 1, 2, ...; then the crowds."""
    every = [(*each, False) for each in objects] + [(*each, True) for each in crowds]
    return AnnotatedPicture(
        id=1,
        path=Path("drawn.png"),
        size_hw=SIZE_HW,
        objects=tuple(
            AnnotatedObject(
                id=number,
                label=label,
                bbox_xywh=tuple(map(float, rectangle)),  # type: ignore[arg-type]
                mask_rle=masks([rectangle]).rle(0),
                crowd=crowd,
            )
            for number, (label, rectangle, crowd) in enumerate(every, start=1)
        ),
    )


def found(detections: Sequence[tuple[str | None, float, Rectangle]]) -> Predictions:
    """Detections as ``(label, score, rectangle)``; every one is a proposal too."""
    return Predictions(
        masks=masks([rectangle for _, _, rectangle in detections]),
        labels=tuple(label for label, _, _ in detections),
        scores=np.array([score for _, score, _ in detections], np.float32),
        proposals=masks([rectangle for _, _, rectangle in detections]),
    )


@st.composite
def rectangles(draw: st.DrawFn) -> Rectangle:
    height, width = SIZE_HW
    x, y = draw(st.integers(0, width - 1)), draw(st.integers(0, height - 1))
    return x, y, draw(st.integers(1, min(6, width - x))), draw(st.integers(1, min(5, height - y)))


@st.composite
def items(draw: st.DrawFn, *, crowds: bool = True, shown: bool = True) -> Item:
    """A picture of a few rectangles, and detections that are objects, near them, or anywhere."""
    objects = draw(st.lists(st.tuples(st.sampled_from(LABELS), rectangles()), max_size=4))
    many = draw(st.lists(st.tuples(st.sampled_from(LABELS), rectangles()), max_size=int(crowds)))
    places: Any = rectangles()
    if objects or many:
        known = [rectangle for _, rectangle in (*objects, *many)]
        places = st.one_of(rectangles(), st.sampled_from(known), st.sampled_from(known))
    detections = draw(st.lists(st.tuples(found_labels, scores, places), max_size=6))
    ids = st.sets(st.integers(1, len(objects)), max_size=2) if objects and shown else st.just(set())
    return picture(objects, crowds=many), found(detections), frozenset(draw(ids))
