"""k-nearest-neighbour labelling."""

from __future__ import annotations

import math
from collections import defaultdict

from sam_detect.labelling._base import ExampleLabeller, Fitted, doubt, unknown
from sam_detect.masks import FloatArray
from sam_detect.types import Neighbour, Verdict

SHARPNESS = 20.0
"""An example that is less similar by 1/20 votes with a weight lower by a factor of e."""


class KNNLabeller(ExampleLabeller):
    """The nearest examples vote, each with a weight that grows with its similarity.

    The confidence is the winner's share of the vote, times the belief that something as similar
    as the winner's nearest example has its label
    (:class:`~sam_detect.labelling.calibration.Calibration`). Negatives take part in the vote
    without ever winning it.
    """

    def similarity(self, vector: FloatArray, examples: FloatArray) -> float:
        return float((examples @ vector).max())

    def verdict(self, vector: FloatArray, neighbours: list[Neighbour], fitted: Fitted) -> Verdict:
        votes: dict[str, float] = defaultdict(float)
        nearest: dict[str, float] = {}
        total = 0.0
        for neighbour in neighbours:
            weight = math.exp(SHARPNESS * (neighbour.similarity - neighbours[0].similarity))
            total += weight
            if not neighbour.negative:
                votes[neighbour.label] += weight
                nearest.setdefault(neighbour.label, neighbour.similarity)
        if not votes:
            return unknown(neighbours)
        winner = max(votes, key=lambda label: (votes[label], nearest[label], label))
        similarity = nearest[winner]
        confidence = votes[winner] / total * fitted.calibration.belief(winner, similarity)
        confidence *= doubt(winner, similarity, neighbours, fitted.calibration.spread)
        return self.named(winner, confidence, neighbours)
