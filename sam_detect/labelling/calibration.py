"""What a library's own examples say about how similar is similar enough.

Every example is left out once and looked up among the rest. How near it comes to its own label
gives the similarities to expect of new objects of that label; a new object that comes nowhere
near as close is unknown.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sam_detect.types import ExampleArrays

TOLERANCE = 2.5
"""Spreads below the typical similarity at which the chance of "same" has fallen to one half."""
LEAST_SPREAD = 0.01
PRIOR_WEIGHT = 2.0
"""The prior counts as much as this many examples."""


@dataclass(frozen=True)
class Calibration:
    """Per label: the similarity at which belief is one half, and how fast belief grows."""

    thresholds: dict[str, float]
    scales: dict[str, float]

    def belief(self, label: str, similarity: float) -> float:
        """Chance (0 to 1) that an object this similar to the label's examples is one of them."""
        scaled = (similarity - self.thresholds[label]) / self.scales[label]
        return float(1 / (1 + np.exp(-np.clip(scaled, -30, 30))))


def calibrate(examples: ExampleArrays, *, prior_similarity: float) -> Calibration:
    """Thresholds from leave-one-out similarities, shrunk to a prior where examples are few.

    Args:
        examples: all examples.
        prior_similarity: similarity expected of two objects of one label, for labels whose
            examples are too few to tell.
    """
    labels = np.array(examples.labels, dtype=object)
    positive = ~np.asarray(examples.negatives, bool)
    left_out: dict[str, npt.NDArray[np.float64]] = {}
    for label in sorted(set(labels[positive])):
        vectors = examples.vectors[positive & (labels == label)]
        left_out[label] = _nearest_other(vectors)
    spread = _pooled_spread(list(left_out.values()))
    thresholds, scales = {}, {}
    for label, values in left_out.items():
        count = len(values)
        typical = float(np.median(values)) if count else prior_similarity
        shrunk = (count * typical + PRIOR_WEIGHT * prior_similarity) / (count + PRIOR_WEIGHT)
        thresholds[label] = min(shrunk, typical) - TOLERANCE * spread
        scales[label] = spread
    return Calibration(thresholds=thresholds, scales=scales)


def _nearest_other(vectors: npt.NDArray[np.float32]) -> npt.NDArray[np.float64]:
    """Each row's highest similarity to another row; nothing for a single row."""
    if len(vectors) < 2:
        return np.zeros(0)
    similarities = (vectors @ vectors.T).astype(np.float64)
    np.fill_diagonal(similarities, -np.inf)
    nearest: npt.NDArray[np.float64] = similarities.max(axis=1)
    return nearest


def _pooled_spread(groups: list[npt.NDArray[np.float64]]) -> float:
    deviations = [np.abs(group - np.median(group)) for group in groups if len(group) > 1]
    if not deviations:
        return 2 * LEAST_SPREAD
    # 1.4826 makes the median absolute deviation of a normal sample its standard deviation.
    return max(LEAST_SPREAD, 1.4826 * float(np.median(np.concatenate(deviations))))
