"""k-nearest-neighbour labelling."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Collection

from sam_detect.labelling._base import ExampleLabeller, Fitted
from sam_detect.masks import FloatArray
from sam_detect.types import Classification, Neighbour

SHARPNESS = 20.0
"""An example that is less similar by 1/20 votes with a weight lower by a factor of e."""


class KNNLabeller(ExampleLabeller):
    """The nearest examples vote, each with a weight that grows with its similarity.

    The confidence is the winner's share of the vote, times the confidence that something as similar
    as the winner's nearest example has its label
    (:class:`~sam_detect.labelling.calibration.Calibration`). Negatives have no vote.
    """

    def similarity(self, vector: FloatArray, examples: FloatArray) -> float:
        return float((examples @ vector).max())

    def classify(
        self,
        vector: FloatArray,
        neighbours: list[Neighbour],
        fitted: Fitted,
        denied: Collection[str],
    ) -> Classification:
        positives = [n for n in neighbours if not n.negative]
        voters = [n for n in positives if n.label not in denied] or positives
        votes: dict[str, float] = defaultdict(float)
        nearest: dict[str, float] = {}
        for neighbour in voters:
            weight = math.exp(SHARPNESS * (neighbour.similarity - voters[0].similarity))
            votes[neighbour.label] += weight
            nearest.setdefault(neighbour.label, neighbour.similarity)
        if not votes:
            return self.unknown(neighbours)
        winner = max(votes, key=lambda label: (votes[label], nearest[label], label))
        total = sum(votes.values())
        shares = {label: vote / total for label, vote in votes.items()}
        return self.compared(winner, nearest[winner], shares, neighbours, fitted)
