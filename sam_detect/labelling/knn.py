"""k-nearest-neighbour labelling."""

from __future__ import annotations

from collections import defaultdict

import numpy as np

from sam_detect.errors import ConfigError
from sam_detect.interfaces import Labeller, LabelMemory
from sam_detect.labelling.calibration import Calibration, calibrate
from sam_detect.masks import FloatArray
from sam_detect.types import Neighbour, Verdict

SHARPNESS = 20.0
"""A neighbour that is less similar by 1/20 votes with a weight lower by a factor of e."""


class KNNLabeller(Labeller):
    """The top-k examples vote, each with a weight that grows with its similarity.

    The confidence is the winner's share of the vote times the belief (see
    :class:`~sam_detect.labelling.calibration.Calibration`) that anything this similar has the label.

    Args:
        top_k: how many examples vote.
        threshold: least confidence for a label; "auto" is one half, the point that the library's
            own left-out examples set.
    """

    def __init__(self, top_k: int = 5, threshold: float | str = "auto") -> None:
        if top_k < 1:
            raise ConfigError(f"top_k must be at least 1, got {top_k}")
        self.top_k = int(top_k)
        self.threshold = 0.5 if threshold == "auto" else float(threshold)
        self._calibrations: dict[str, Calibration] = {}

    def label(self, vectors: FloatArray, memory: LabelMemory) -> list[Verdict]:
        if len(vectors) == 0:
            return []
        calibration = self._calibrations.get(memory.generation)
        if calibration is None:
            calibration = calibrate(memory.examples(), prior_similarity=memory.prior_similarity)
            self._calibrations = {memory.generation: calibration}
        found = memory.nearest(vectors, self.top_k)
        return [self._verdict(neighbours, calibration) for neighbours in found]

    def _verdict(self, neighbours: list[Neighbour], calibration: Calibration) -> Verdict:
        if not neighbours:
            return Verdict(label=None, best_label=None, confidence=0.0)
        best = neighbours[0].similarity
        votes: dict[str, float] = defaultdict(float)
        nearest: dict[str, float] = {}
        total = 0.0
        for neighbour in neighbours:
            weight = float(np.exp(SHARPNESS * (neighbour.similarity - best)))
            total += weight
            if not neighbour.negative:
                votes[neighbour.label] += weight
                nearest.setdefault(neighbour.label, neighbour.similarity)
        if not votes:
            return Verdict(
                label=None, best_label=None, confidence=0.0, neighbours=tuple(neighbours)
            )
        winner = max(votes, key=lambda name: (votes[name], name))
        confidence = votes[winner] / total * calibration.belief(winner, nearest[winner])
        return Verdict(
            label=winner if confidence >= self.threshold else None,
            best_label=winner,
            confidence=confidence,
            neighbours=tuple(neighbours),
        )
