"""What a library's own examples say about how similar is similar enough.

Every example is left out once and compared with the rest of its label. How near it comes gives
the similarity to expect of a new object of that label; an object that comes nowhere near is
unknown. Where a label has too few examples to tell, all labels together, and a prior, help out.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

Similarities = npt.NDArray[np.float64]

TOLERANCE = 2.5
"""Spreads below the typical similarity at which confidence has fallen to one half."""
LEAST_SPREAD = 0.01
PRIOR_SPREAD = 0.025
"""Spread to expect of similarities while there are too few examples to tell."""
PRIOR_COUNT = 3.0
"""The priors count as much as this many examples."""


@dataclass(frozen=True)
class Calibration:
    """Per label: the similarity at which confidence is one half, and the spread it grows with."""

    thresholds: dict[str, float]
    spread: float

    def confidence(self, label: str, similarity: float) -> float:
        """Probability, 0 to 1, that something this similar to the examples of a label is one.

        A logistic curve: one half at the label's threshold, .88 at the typical similarity of the
        label's own examples.
        """
        return float(self.confidences(label, similarity))

    def confidences(self, label: str, similarities: npt.ArrayLike) -> Similarities:
        """:meth:`confidence` of each of many similarities."""
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
