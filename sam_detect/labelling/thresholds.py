"""Thresholds that follow the candidates of a picture instead of the library's own examples."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sam_detect.errors import ConfigError
from sam_detect.labelling import ADAPTIVE
from sam_detect.types import Classification
from sam_detect.types.explanation import MOST_LOG_ODDS, TEMPERATURE

BINS = 256
FEWEST = 10
"""Fewer candidates have no distribution: then the usual threshold holds."""


@dataclass(frozen=True)
class AdaptiveThreshold:
    """A threshold for the confidences of one picture's candidates.

    Attributes:
        share: of the candidates, the surest, that keep their labels, 0 to 1; None: those beyond the
            threshold that best splits the confidences into two groups (Otsu 1979).
    """

    share: float | None

    @classmethod
    def parsed(cls, given: object) -> AdaptiveThreshold | None:
        """``otsu`` or ``top:N%``; None for anything else."""
        if not isinstance(given, str) or not re.fullmatch(ADAPTIVE, given):
            return None
        share = None if given == "otsu" else float(given.removeprefix("top:")[:-1]) / 100
        if share == 0:
            raise ConfigError(f"threshold '{given}' names nothing: ask for more than 0 %")
        return cls(share)

    def of(self, confidences: npt.NDArray[np.floating[Any]]) -> float | None:
        """The least confidence for a label, 0 to 1; None where there are too few to tell.

        Args:
            confidences: ``(N,)`` of the candidates of a picture, 0 to 1.
        """
        if len(confidences) < FEWEST:
            return None
        if self.share is not None:
            wanted = max(1, math.floor(self.share * len(confidences) + 0.5))
            return float(np.sort(confidences)[-wanted])
        # Confidences crowd at 0 and 1; their log-odds have two groups with room in between.
        limit = MOST_LOG_ODDS / TEMPERATURE
        bounded = np.clip(confidences.astype(np.float64), 1e-12, 1 - 1e-12)
        odds = np.clip(np.log(bounded / (1 - bounded)), -limit, limit)
        return 1 / (1 + math.exp(-_otsu(odds)))

    def decide(self, found: Sequence[Classification]) -> list[Classification]:
        """The classifications of a picture's candidates, decided again by their own threshold."""
        compared = [each.confidence for each in found if each.best_label is not None]
        threshold = self.of(np.array(compared, np.float64))
        if threshold is None:
            return list(found)
        return [
            each if each.best_label is None else Classification.decided(
                each.best_label, each.confidence, threshold=threshold,
                neighbours=each.neighbours, explanation=each.explanation,
            )
            for each in found
        ]  # fmt: skip


def _otsu(values: npt.NDArray[np.float64]) -> float:
    """The threshold with the largest variance between the groups on its two sides; the middle of
    those between which no value lies."""
    counts, edges = np.histogram(values, BINS)
    middles = (edges[:-1] + edges[1:]) / 2
    below = np.cumsum(counts)[:-1]
    above = len(values) - below
    sums = np.cumsum(counts * middles)
    means = sums[:-1] / np.maximum(below, 1), (sums[-1] - sums[:-1]) / np.maximum(above, 1)
    between = below * above * (means[1] - means[0]) ** 2
    best = np.flatnonzero(between >= between.max() * (1 - 1e-9))
    return float((edges[best[0] + 1] + edges[best[-1] + 1]) / 2)
