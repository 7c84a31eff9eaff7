"""Nearest-prototype labelling: each label is the mean of its examples."""

from __future__ import annotations

import math
from collections.abc import Collection

from sam_detect.labelling._base import ExampleLabeller, Fitted, unit_mean
from sam_detect.masks import FloatArray
from sam_detect.types import Classification, Neighbour

SHARPNESS = 20.0


class PrototypeLabeller(ExampleLabeller):
    """The label whose mean vector is nearest (Snell et al., "Prototypical Networks", 2017).

    The confidence is the label's share of a softmax over all labels, times the confidence that
    something as similar to the mean has the label. The nearest examples are given as the reason.
    """

    def similarity(self, vector: FloatArray, examples: FloatArray) -> float:
        return float(unit_mean(examples) @ vector)

    def classify(
        self,
        vector: FloatArray,
        neighbours: list[Neighbour],
        fitted: Fitted,
        denied: Collection[str],
    ) -> Classification:
        labels = fitted.means.keys() - set(denied) or fitted.means.keys()
        if not labels:
            return self.unknown(neighbours)
        similarities = {label: float(vector @ fitted.means[label]) for label in labels}
        winner = max(similarities, key=lambda label: (similarities[label], label))
        best = similarities[winner]
        weights = {n: math.exp(SHARPNESS * (s - best)) for n, s in similarities.items()}
        total = sum(weights.values())
        shares = {label: weight / total for label, weight in weights.items()}
        return self.compared(winner, best, shares, neighbours, fitted)
