"""What a library's other examples say of each example: which of them may have a wrong label."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

import numpy as np

from sam_detect.interfaces import Labeller
from sam_detect.types import (
    Classification,
    ExampleArrays,
    HardNegativeArrays,
    LabelMemory,
    Neighbour,
)
from sam_detect.types.masks import BoolArray, FloatArray
from sam_detect.types.memory import Fit

FITTING = 200_000_000
"""Multiplications that fitting to all folds may take, about."""


@dataclass(frozen=True)
class LeftOut:
    """What the others say of one example.

    Attributes:
        label: the label that they give it; None for unknown.
        best_label: the nearest one.
        confidence: of ``best_label``, 0 to 1.
        doubt: 0 to 1: of a positive, how little the others confirm its label; of a negative, how
            sure they are of the label that it is said not to have.
    """

    label: str | None
    best_label: str | None
    confidence: float
    doubt: float


def leave_one_out(labeller: Labeller, memory: LabelMemory) -> list[LeftOut]:
    """Labels each example of a memory by all others, in the order of its arrays.

    What the labeller is fitted to lacks the example, too: the metric of a small library would
    otherwise bring a wrong example near to its label. Of larger libraries it lacks all examples of
    a fold, since fitting takes time: :func:`fold_count`. What surrounds the examples does not
    count: the question is which label an example has, not whether it is an object.
    """
    arrays = memory.examples()
    count = len(arrays.ids)
    if not count:
        return []
    folds = fold_count(*arrays.vectors.shape)
    order = sorted(range(count), key=lambda row: (arrays.labels[row], bool(arrays.negatives[row])))
    # Neighbours in this order are in different folds: a label that has two examples is always
    # known to one of them.
    fold_of = np.zeros(count, np.int64)
    fold_of[order] = np.arange(count) % folds
    found: dict[int, Classification] = {}
    for fold in range(folds):
        rows = np.flatnonzero(fold_of == fold)
        rest = _some(arrays, fold_of != fold if count > 1 else fold_of == fold)
        found |= _labelled(labeller, memory, rows.tolist(), rest, fold)
    return [
        _judged(found[row], arrays.labels[row], bool(arrays.negatives[row])) for row in range(count)
    ]


def fold_count(examples: int, dimension: int) -> int:
    """In how many folds so many examples are left out: one by one where fitting is cheap."""
    cost = examples * dimension * min(examples, dimension)
    return min(examples, max(2, FITTING // max(1, cost)))


def _labelled(
    labeller: Labeller, memory: LabelMemory, rows: Sequence[int], rest: ExampleArrays, fold: int
) -> dict[int, Classification]:
    """What the others say of the examples of a fold, by a labeller that is fitted to the rest."""
    judge = copy.copy(labeller)  # the original keeps what it is fitted to
    arrays = memory.examples()
    found: dict[int, Classification] = {}
    waiting = list(rows)
    while waiting:
        # The vector alone says who is left out, so those that share one wait for the next round.
        now: dict[bytes, int] = {}
        for row in waiting:
            now.setdefault(arrays.vectors[row].tobytes(), row)
        asked = list(now.values())
        own = {data: arrays.ids[row] for data, row in now.items()}
        answers = judge.label(arrays.vectors[asked], _WithoutOwn(memory, rest, own, fold))
        found |= dict(zip(asked, answers, strict=True))
        same = {_content(arrays, row): row for row in asked}
        for row in waiting:  # with the same label, too, they have the same answer
            if row not in found and (twin := same.get(_content(arrays, row))) is not None:
                found[row] = found[twin]
        waiting = [row for row in waiting if row not in found]
    return found


def _content(arrays: ExampleArrays, row: int) -> tuple[bytes, str, bool]:
    return arrays.vectors[row].tobytes(), arrays.labels[row], bool(arrays.negatives[row])


def _some(arrays: ExampleArrays, chosen: BoolArray) -> ExampleArrays:
    """Some of the examples, without what surrounds them."""

    def taken(values: Sequence[str]) -> tuple[str, ...]:
        return tuple(value for value, one in zip(values, chosen, strict=True) if one)

    return replace(
        arrays,
        ids=taken(arrays.ids),
        labels=taken(arrays.labels),
        sources=taken(arrays.sources),
        boxes_xywh=arrays.boxes_xywh[chosen],
        negatives=arrays.negatives[chosen],
        vectors=arrays.vectors[chosen],
        areas=arrays.areas[chosen] if len(arrays.areas) else arrays.areas,
        qualities=arrays.qualities[chosen] if len(arrays.qualities) else arrays.qualities,
        proposers=taken(arrays.proposers) if arrays.proposers else (),
        hard_negatives=HardNegativeArrays.none(arrays.vectors.shape[1]),
    )


def _judged(found: Classification, label: str, negative: bool) -> LeftOut:
    agrees = found.best_label == label
    if negative:
        doubt = found.confidence if agrees else 0.0
    else:
        # Another label is worse than none, the surer the worse.
        doubt = (1 - found.confidence) / 2 if agrees else (1 + found.confidence) / 2
    return LeftOut(found.label, found.best_label, found.confidence, doubt)


class _WithoutOwn:
    """A memory in which no example is among its own neighbours."""

    def __init__(
        self, memory: LabelMemory, examples: ExampleArrays, own: dict[bytes, str], fold: int
    ) -> None:
        self._memory, self._examples, self._own = memory, examples, own
        self.generation = f"{memory.generation} without fold {fold}"
        self.prior_similarity = memory.prior_similarity

    def nearest(self, vectors: FloatArray, limit: int) -> list[list[Neighbour]]:
        found = self._memory.nearest(vectors, limit + 1)
        return [
            [near for near in row if near.id != self._own.get(vector.tobytes())][:limit]
            for vector, row in zip(vectors, found, strict=True)
        ]

    def vectors(self, ids: Sequence[str]) -> FloatArray:
        return self._memory.vectors(ids)

    def examples(self) -> ExampleArrays:
        return self._examples

    def kept(self, name: str, form: type[Fit], make: Callable[[], Fit]) -> Fit:
        return make()
