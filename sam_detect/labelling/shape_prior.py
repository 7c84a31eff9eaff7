"""Whether something has the shape of a label's examples, whatever else it is like.

Vectors with a part that describes the shape of the mask (those of the embedder ``lite``:
elongation, solidity and others) tell how alike the shapes of two objects are. Each example, left
out once, shows how alike shapes of its label usually are.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from sam_detect.types import ExampleArrays
from sam_detect.types.masks import FloatArray

PART = "shape"
LEAST_SPREAD = 0.03
"""Of similarities; those of a few drawn or machined objects hardly differ."""
FEWEST = 2
"""Examples of a label: a single one does not show how shapes vary."""


@dataclass(frozen=True)
class ShapePrior:
    """The shapes of the examples of each label with enough of them.

    Attributes:
        start, stop: of the part of a vector that describes the shape.
        shapes: of each label, ``(n, stop - start)`` with rows of length 1.
        usual: similarity of a left-out example's shape to the most similar other one, the median.
        spread: of these similarities.
    """

    start: int
    stop: int
    shapes: Mapping[str, FloatArray]
    usual: Mapping[str, float]
    spread: Mapping[str, float]

    @classmethod
    def of(cls, examples: ExampleArrays) -> ShapePrior | None:
        """None for vectors without a part for shapes, and without enough examples."""
        if PART not in examples.parts or not len(examples.vectors):
            return None
        names = list(examples.parts)
        start = sum(examples.parts[name] for name in names[: names.index(PART)])
        stop = start + examples.parts[PART]
        labels = np.array(examples.labels, dtype=object)
        positive = ~np.asarray(examples.negatives, bool)
        shapes, usual, spread = {}, {}, {}
        for label in sorted(set(labels[positive])):
            own = _unit_rows(examples.vectors[positive & (labels == label)][:, start:stop])
            if len(own) < FEWEST:
                continue
            alike = own @ own.T
            np.fill_diagonal(alike, -1)
            nearest = alike.max(axis=1)
            shapes[label], usual[label] = own, float(np.median(nearest))
            off = np.abs(nearest - usual[label])
            spread[label] = max(LEAST_SPREAD, 1.4826 * float(np.median(off)))
        return cls(start, stop, shapes, usual, spread) if shapes else None

    def odds(self, label: str, vector: FloatArray) -> float:
        """By how many spreads a shape is less similar to the nearest of a label's than usual, as
        log-odds: 0 or less.

        Args:
            vector: ``(D,)`` as it was embedded.
        """
        if label not in self.shapes:
            return 0.0
        shape = _unit_rows(vector[None, self.start : self.stop])[0]
        nearest = float((self.shapes[label] @ shape).max())
        return min(0.0, (nearest - self.usual[label]) / self.spread[label])


def _unit_rows(vectors: FloatArray) -> FloatArray:
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)
