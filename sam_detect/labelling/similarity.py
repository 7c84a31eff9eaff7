"""What a library's own examples say of similarity: what counts for it, and how much is enough.

**Metric.** Within-class covariance normalisation (Hatch, Kajarekar and Stolcke 2006, after Fisher
1936): directions in which objects of one label scatter are shrunk. If the dates of a library are of
all sizes, size stops mattering for it; if they are all of one brown, brown counts fully.

**Calibration.** Every example is left out once and compared with the rest of its label. How near it
comes gives the similarity to expect of a new object of that label; an object that comes nowhere
near is unknown. Where a label has too few examples to tell, all labels together, and a prior, help.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sam_detect.types import Classification
from sam_detect.types.explanation import replaced
from sam_detect.types.masks import FloatArray

Similarities = npt.NDArray[np.float64]

SHRINKAGE = 3.0
"""Variance that every direction is assumed to have in addition to what was seen, in units of the
mean one. Keeps few examples from ruling out whatever they happen not to show."""
TOLERANCE = 2.5
"""Spreads below the typical similarity at which confidence has fallen to one half."""
LEAST_SPREAD = 0.01
PRIOR_SPREAD = 0.025
"""Spread to expect of similarities while there are too few examples to tell."""
NEGATIVES_LEAVE = 0.5
"""Where negatives leave less of a confidence, what is similar to the prototype is no object."""
PRIOR_COUNT = 3.0
"""The priors count as much as this many examples."""


@dataclass(frozen=True, eq=False)
class Metric:
    """A linear map that keeps all directions but the scattered ones, which it shrinks.

    Attributes:
        directions: ``(R, D)`` orthonormal rows.
        factors: ``(R,)`` in 0..1, what is left of each.
        weights: ``(D,)`` that vectors are multiplied by before; None for ones.
    """

    directions: FloatArray
    factors: FloatArray
    weights: FloatArray | None = None

    @classmethod
    def fit(
        cls, vectors: FloatArray, labels: Sequence[str], weights: FloatArray | None = None
    ) -> Metric:
        """The metric of ``(N, D)`` examples; the plain cosine where no label has two."""
        vectors = _weighted(vectors, weights)
        names = np.array(labels, dtype=object)
        groups = [vectors[names == name] for name in sorted(set(labels))]
        centred = [group - group.mean(axis=0) for group in groups if len(group) > 1]
        dimension = vectors.shape[1]
        if not centred:
            return cls(np.zeros((0, dimension), np.float32), np.zeros(0, np.float32), weights)
        scatter = np.concatenate(centred).astype(np.float64)
        if len(scatter) > dimension:  # the same directions, in a fraction of the time
            squares, columns = np.linalg.eigh(scatter.T @ scatter)
            squares, directions = np.maximum(squares, 0), columns.T
        else:
            _, singular, directions = np.linalg.svd(scatter, full_matrices=False)
            squares = singular**2
        variances = squares / len(scatter)
        mean = max(float(variances.sum()) / dimension, 1e-12)
        factors = np.sqrt(SHRINKAGE / (variances / mean + SHRINKAGE))
        return cls(directions.astype(np.float32), factors.astype(np.float32), weights)

    def __call__(self, vectors: FloatArray) -> FloatArray:
        """``(N, D)`` vectors under the metric, each of length 1."""
        vectors = _weighted(vectors, self.weights)
        parts = vectors @ self.directions.T
        mapped = vectors - (parts * (1 - self.factors)) @ self.directions
        return _unit(mapped)


def _weighted(vectors: FloatArray, weights: FloatArray | None) -> FloatArray:
    return vectors if weights is None else _unit(vectors * weights)


def unit_mean(vectors: FloatArray) -> FloatArray:
    """The mean of ``(n, D)`` vectors, n > 0, of length 1."""
    mean = vectors.mean(axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), np.float32)


def _unit(vectors: FloatArray) -> FloatArray:
    lengths: npt.NDArray[np.float32] = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)


@dataclass(frozen=True)
class Calibration:
    """Per label: the similarity at which confidence is one half, and the spread it grows with."""

    thresholds: dict[str, float]
    spread: float

    def confidence(self, label: str, similarities: npt.ArrayLike) -> Similarities:
        """Probabilities, 0 to 1, that things this similar to the examples of a label are such.

        A logistic curve: one half at the label's threshold, .88 at the typical similarity of the
        label's own examples.
        """
        scaled = (np.asarray(similarities, np.float64) - self.thresholds[label]) / (
            self.spread * TOLERANCE / 2
        )
        return np.asarray(1 / (1 + np.exp(-np.clip(scaled, -30, 30))))


def calibrate(left_out: dict[str, Similarities], *, prior_similarity: float) -> Calibration:
    """Thresholds from leave-one-out similarities.

    Args:
        left_out: per label, the similarity of each of its examples to the others; empty for a
            label with one example.
        prior_similarity: similarity to expect where no label has two examples.
    """
    counts = {label: len(values) for label, values in left_out.items()}
    medians = {label: float(np.median(v)) for label, v in left_out.items() if len(v)}
    weights = [counts[label] for label in medians]
    overall = (
        float(np.average(list(medians.values()), weights=weights)) if medians else prior_similarity
    )
    spread = _pooled_spread(list(left_out.values()))
    thresholds = {}
    for label, count in counts.items():
        own = medians.get(label, overall)
        typical = (count * own + PRIOR_COUNT * min(own, overall)) / (count + PRIOR_COUNT)
        thresholds[label] = typical - TOLERANCE * spread
    return Calibration(thresholds=thresholds, spread=spread)


def _pooled_spread(groups: list[Similarities]) -> float:
    """Standard deviation within labels, by absolute deviations, shrunk to the prior."""
    deviations = [np.abs(group - np.median(group)) for group in groups if len(group) > 1]
    count = sum(len(group) for group in deviations)
    # The mean absolute deviation of a normal sample is 0.7979 standard deviations.
    measured = float(np.concatenate(deviations).mean()) / 0.7979 if deviations else PRIOR_SPREAD
    spread = (count * measured + PRIOR_COUNT * PRIOR_SPREAD) / (count + PRIOR_COUNT)
    return max(LEAST_SPREAD, spread)


def decided_by_prototype(
    classifications: Sequence[Classification],
    vectors: FloatArray,
    prototypes: Mapping[str, FloatArray],
    threshold: float | None,
) -> list[Classification]:
    """The classifications, of which each knows its plain cosine to the prototype of its best label.

    Args:
        vectors: ``(Q, D)``, one for each.
        prototypes: of each label, ``(D,)`` of length 1.
        threshold: least cosine for a label, -1 to 1, which then decides instead of the confidence;
            None: only the explanations change.
    """
    answers = []
    for each, vector in zip(classifications, vectors, strict=True):
        prototype, explanation = prototypes.get(each.best_label or ""), each.explanation
        if prototype is None or explanation is None:
            answers.append(each)
            continue
        similarity = float(vector @ prototype)
        explanation = replaced(explanation, prototype_similarity=similarity)
        if threshold is None:
            answers.append(replaced(each, explanation=explanation))
            continue
        enough = similarity >= threshold and explanation.negative_factor >= NEGATIVES_LEAVE
        answers.append(each.decided_otherwise(enough, explanation))
    return answers
