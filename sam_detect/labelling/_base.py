"""What the labellers that compare with examples share."""

from __future__ import annotations

import math
from abc import abstractmethod
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sam_detect.errors import ConfigError
from sam_detect.interfaces import Labeller, LabelMemory
from sam_detect.labelling.calibration import Calibration, Similarities, calibrate
from sam_detect.masks import FloatArray
from sam_detect.types import ExampleArrays, Neighbour, Verdict

DOUBT = 0.05
"""A negative example that is nearer by this much cuts the confidence by a factor of e."""


@dataclass(frozen=True)
class Groups:
    """What was learnt from a library: per label the unit mean of its positives, and how similar
    is similar enough."""

    means: dict[str, FloatArray]
    calibration: Calibration


class ExampleLabeller(Labeller):
    """Compares vectors with examples; believes as far as the library's own examples allow.

    Args:
        top_k: how many of the nearest examples are looked at.
        threshold: least confidence for a label; "auto" is one half, the point that the library's
            own left-out examples set.

    Raises:
        ConfigError: a value out of its range.
    """

    def __init__(self, top_k: int = 5, threshold: float | str = "auto") -> None:
        if top_k < 1:
            raise ConfigError(f"top_k must be at least 1, got {top_k}")
        limit = 0.5 if threshold == "auto" else float(threshold)
        if not 0 <= limit <= 1:
            raise ConfigError(f"threshold must be 'auto' or a number from 0 to 1, got {threshold}")
        self.top_k = int(top_k)
        self.threshold = limit
        self._fitted: tuple[str, Groups] | None = None

    def label(self, vectors: FloatArray, memory: LabelMemory) -> list[Verdict]:
        if len(vectors) == 0:
            return []
        groups = self._groups(memory)
        found = memory.nearest(vectors, self.top_k)
        return [
            self.verdict(vector, neighbours, groups)
            for vector, neighbours in zip(vectors, found, strict=True)
        ]

    @abstractmethod
    def similarity(self, vector: FloatArray, examples: FloatArray) -> float:
        """Of one vector to the ``(n, D)`` examples of a label, n > 0, as :meth:`verdict` measures
        it."""

    @abstractmethod
    def verdict(self, vector: FloatArray, neighbours: list[Neighbour], groups: Groups) -> Verdict:
        """What one vector is."""

    def named(self, label: str, confidence: float, neighbours: list[Neighbour]) -> Verdict:
        """The verdict for a best label: known or, below the threshold, unknown."""
        confidence = min(1.0, max(0.0, confidence))
        return Verdict(
            label=label if confidence >= self.threshold else None,
            best_label=label,
            confidence=confidence,
            neighbours=tuple(neighbours),
        )

    def _groups(self, memory: LabelMemory) -> Groups:
        generation = memory.generation
        if self._fitted is None or self._fitted[0] != generation:
            positives = _positives(memory.examples())
            left_out = {
                label: self._left_out(vectors, sources)
                for label, (vectors, sources) in positives.items()
            }
            calibration = calibrate(left_out, prior_similarity=memory.prior_similarity)
            means = {label: unit_mean(vectors) for label, (vectors, _) in positives.items()}
            self._fitted = (generation, Groups(means, calibration))
        return self._fitted[1]


    def _left_out(self, vectors: FloatArray, sources: npt.NDArray[np.object_]) -> Similarities:
        """Each example's similarity to those of its label in *other* pictures, since new objects
        come from new pictures; to all others where the label comes from one picture only."""
        several = len(set(sources)) > 1
        found = []
        for index in range(len(vectors)):
            others = sources != sources[index] if several else np.arange(len(vectors)) != index
            if others.any():
                found.append(self.similarity(vectors[index], vectors[others]))
        return np.array(found, np.float64)


def unknown(neighbours: list[Neighbour]) -> Verdict:
    """The verdict where no positive example is near."""
    nearest = neighbours[0].label if neighbours else None
    return Verdict(None, nearest, 0.0, tuple(neighbours))


def doubt(label: str, similarity: float, neighbours: list[Neighbour]) -> float:
    """Factor (0 to 1) for negatives of the label that are nearer than its positives."""
    against = [n.similarity for n in neighbours if n.negative and n.label == label]
    return math.exp(-max(0.0, max(against, default=-1.0) - similarity) / DOUBT)


def _positives(
    examples: ExampleArrays,
) -> dict[str, tuple[FloatArray, npt.NDArray[np.object_]]]:
    """Vectors and sources of the positive examples of each label."""
    positive = ~np.asarray(examples.negatives, bool)
    labels = np.array(examples.labels, dtype=object)
    sources = np.array(examples.sources, dtype=object)
    groups = {label: positive & (labels == label) for label in sorted(set(labels[positive]))}
    return {label: (examples.vectors[mine], sources[mine]) for label, mine in groups.items()}


def unit_mean(vectors: FloatArray) -> FloatArray:
    mean = vectors.mean(axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), np.float32)
