"""What a library's other examples say of each example: which of them may have a wrong label."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from sam_detect.interfaces import Labeller
from sam_detect.masks import FloatArray
from sam_detect.types import (
    Classification,
    ExampleArrays,
    HardNegativeArrays,
    LabelMemory,
    Neighbour,
)
from sam_detect.types.memory import Fit


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

    The metric and the calibration are those of all examples, which one example changes little; the
    neighbours are those without it. What surrounds the examples does not count: the question is
    which label an example has, not whether it is an object.
    """
    arrays = memory.examples()
    if not arrays.ids:
        return []
    # The copy fits to these arrays, and the labeller keeps what it is fitted to.
    judge = copy.copy(labeller)
    plain = replace(arrays, hard_negatives=HardNegativeArrays.none(arrays.vectors.shape[1]))
    # Examples with one vector and one label have one answer. Those that share only the vector
    # are asked about one after the other, since the vector alone says who is left out.
    answers: dict[tuple[bytes, str, bool], Classification] = {}
    rounds: list[dict[bytes, int]] = []
    seen: dict[bytes, int] = {}
    keys = [
        (vector.tobytes(), label, negative)
        for vector, label, negative in zip(
            plain.vectors, plain.labels, plain.negatives.tolist(), strict=True
        )
    ]
    for row, key in enumerate(keys):
        if key in answers:
            continue
        answers[key] = Classification(None, None, 0.0)
        turn = seen[key[0]] = seen.get(key[0], -1) + 1
        if turn == len(rounds):
            rounds.append({})
        rounds[turn][key[0]] = row
    for asked in rounds:
        rows = list(asked.values())
        without = _WithoutOwn(memory, plain, {data: plain.ids[row] for data, row in asked.items()})
        found = judge.label(plain.vectors[rows], without)
        answers |= {keys[row]: each for row, each in zip(rows, found, strict=True)}
    return [_judged(answers[key], key[1], key[2]) for key in keys]


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

    def __init__(self, memory: LabelMemory, examples: ExampleArrays, own: dict[bytes, str]) -> None:
        self._memory, self._examples, self._own = memory, examples, own
        self.generation = f"{memory.generation} leave-one-out"
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
