"""The labellers that compare with examples: ``knn`` and ``prototype``, and what they share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np
from typing_extensions import Self

from sam_detect.errors import ConfigError
from sam_detect.interfaces import Labeller
from sam_detect.labelling.decision import DecisionModel, nearest_of, negative_factors
from sam_detect.labelling.fitting import Fitted, Shifts, expected_shifts, fit
from sam_detect.labelling.part_weights import explain_parts
from sam_detect.labelling.similarity import Metric, decided_by_prototype, unit_mean
from sam_detect.labelling.thresholds import AdaptiveThreshold
from sam_detect.options import require_number
from sam_detect.types import Classification, Explanation, LabelMemory, Neighbour
from sam_detect.types.chunks import chunks
from sam_detect.types.explanation import confidence_of, replaced
from sam_detect.types.masks import FloatArray, IntArray

AUTO_THRESHOLD = 0.5
CANDIDATES = 50
"""How many of the nearest examples by plain cosine are compared again under the metric."""
MOST_NEGATIVES = 200
"""So many negatives may be among the nearest before they keep examples from being compared."""
EVEN = 0.5
"""A label of whose confidence less is left gives way to the next best."""
MOST_FITTED = 4
"""So many fits of one library are kept: each picture of a small one may have its own."""

SHARPNESS = 20.0
"""A vote that is less similar by 1/20 has a weight lower by a factor of e."""

Votes = Sequence[tuple[str, float]]


class ExampleLabeller(Labeller):
    """Compares vectors with examples; calibrated on the left-out examples of the library.

    Args:
        top_k: how many of the nearest examples are compared.
        threshold: least confidence for a label; "auto" is one half, the point that the library's
            own left-out examples set; "otsu" and "top:N%" follow the candidates of each picture
            (:mod:`~sam_detect.labelling.thresholds`), and are one half for videos.
        similarity_threshold: least plain cosine to a label's prototype, which then decides instead
            of the confidence; None: the confidence decides.
        negatives: "local": a negative takes confidence from what is much nearer to it than to any
            example of its label; "margin": it is one of the hard negatives, and the margin between
            them and the examples decides everywhere.
        shape_prior: log-odds for each spread by which a shape is less like those of a label's
            examples than they are like one another; 0: shapes count only as parts of the vectors.

    Raises:
        ConfigError: a value out of its range.
    """

    def __init__(
        self,
        top_k: int = 5,
        threshold: float | str = "auto",
        similarity_threshold: float | None = None,
        negatives: str = "local",
        shape_prior: float = 0.0,
    ) -> None:
        if top_k < 1:
            raise ConfigError(f"top_k must be at least 1, got {top_k}")
        self.top_k = int(top_k)
        self.adaptive = AdaptiveThreshold.parsed(threshold)
        if self.adaptive is not None and similarity_threshold is not None:
            raise ConfigError(f"threshold '{threshold}' and similarity_threshold both decide: "
                              "give one of them")  # fmt: skip
        given = AUTO_THRESHOLD if threshold == "auto" or self.adaptive is not None else threshold
        other = "'auto', 'otsu', 'top:N%' or "
        self.threshold = require_number("threshold", given, 0, 1, other=other)
        if negatives not in ("local", "margin"):
            raise ConfigError(f"negatives '{negatives}' is neither 'local' nor 'margin'")
        self.negatives = negatives
        self.shape_prior = require_number("shape_prior", shape_prior, 0)
        self._least = similarity_threshold
        if self._least is not None:
            self._least = require_number("similarity_threshold", self._least, -1, 1)
        self._fitted: dict[tuple[str, Shifts], Fitted] = {}

    def with_threshold(self, threshold: float) -> Self:
        found = super().with_threshold(threshold)
        found.adaptive = None
        return found

    @abstractmethod
    def similarity(self, vector: FloatArray, examples: FloatArray) -> float:
        """Of one vector to the ``(n, D)`` examples of a label, n > 0, as :meth:`votes` has it."""

    @abstractmethod
    def votes(self, vector: FloatArray, neighbours: list[Neighbour], fitted: Fitted) -> Votes:
        """Label and similarity of each vote on one vector (under the metric)."""

    def label(
        self,
        vectors: FloatArray,
        memory: LabelMemory,
        *,
        qualities: FloatArray | None = None,
        areas: IntArray | None = None,
        source: str | None = None,
    ) -> list[Classification]:
        if len(vectors) == 0:
            return []
        if not memory.examples().labels:
            return [self._unknown([]) for _ in vectors]
        fitted = self.fitted_to(memory, source)
        mapped, neighbours = np.zeros_like(vectors), list[list[Neighbour]]()
        for rows in chunks(len(vectors)):  # a picture may have very many, each with many candidates
            mapped[rows] = fitted.metric(vectors[rows])
            neighbours += self._neighbours(vectors[rows], mapped[rows], memory, fitted.metric)
        local = self.negatives == "local"
        factors = [negative_factors(near) if local else {} for near in neighbours]
        classifications = [
            self._classify(self.votes(vector, near, fitted), near, fitted, factor)
            for vector, near, factor in zip(mapped, neighbours, factors, strict=True)
        ]
        if fitted.decision is not None:
            classifications = self._combine_evidence(
                fitted.decision,
                classifications,
                mapped,
                neighbours,
                qualities=qualities,
                areas=areas,
                shapes=self._shape_odds(fitted, classifications, vectors),
            )
        answers = zip(classifications, factors, neighbours, strict=True)
        classifications = [self._apply_negatives(*each) for each in answers]
        if self.adaptive is not None:
            classifications = self.adaptive.decide(classifications)
        decided = decided_by_prototype(classifications, vectors, fitted.prototypes, self._least)
        return explain_parts(decided, vectors, memory, fitted.part_weights)

    def _classify(
        self,
        votes: Votes,
        neighbours: list[Neighbour],
        fitted: Fitted,
        factors: Mapping[str, float],
    ) -> Classification:
        """The classification by similarity alone.

        A label whose negatives leave less than ``EVEN`` is the best only if there is no other.
        """
        votes = [vote for vote in votes if factors.get(vote[0], 1.0) >= EVEN] or votes
        if not votes:
            return self._unknown(neighbours)
        highest = max(similarity for _, similarity in votes)
        weights: dict[str, float] = {}
        nearest: dict[str, float] = {}
        for label, similarity in votes:
            weight = math.exp(SHARPNESS * (similarity - highest))
            weights[label] = weights.get(label, 0.0) + weight
            nearest[label] = max(nearest.get(label, -1.0), similarity)
        total = sum(weights.values())
        shares = {label: weight / total for label, weight in weights.items()}
        best = max(shares, key=lambda label: (shares[label], nearest[label], label))
        calibrated = float(fitted.calibration.confidence(best, nearest[best]))
        explanation = Explanation(
            votes=dict(sorted(shares.items(), key=lambda each: (-each[1], each[0]))),
            similarity=nearest[best],
            half_similarity=fitted.calibration.thresholds[best],
            calibrated=calibrated,
        )
        return self._decide(best, shares[best] * calibrated, neighbours, explanation)

    def _decide(
        self,
        label: str,
        confidence: float,
        neighbours: list[Neighbour],
        explanation: Explanation,
    ) -> Classification:
        """The classification for a best label: known or, below the threshold, unknown."""
        near = neighbours[: self.top_k]
        return Classification.decided(
            label, confidence, threshold=self.threshold, neighbours=near, explanation=explanation
        )

    def _unknown(self, neighbours: list[Neighbour]) -> Classification:
        """The classification where no positive example is near."""
        nearest = neighbours[0].label if neighbours else None
        explanation = Explanation(threshold=self.threshold)
        near = tuple(neighbours[: self.top_k])
        return Classification(None, nearest, 0.0, near, explanation=explanation)

    def _apply_negatives(
        self,
        classification: Classification,
        factors: Mapping[str, float],
        neighbours: list[Neighbour],
    ) -> Classification:
        label, explanation = classification.best_label, classification.explanation
        if label is None or label not in factors or explanation is None:
            return classification
        explanation = replaced(explanation, negative_factor=factors[label])
        confidence = classification.confidence * factors[label]
        return self._decide(label, confidence, neighbours, explanation)

    def _combine_evidence(
        self,
        decision: DecisionModel,
        classifications: list[Classification],
        vectors: FloatArray,
        neighbours: list[list[Neighbour]],
        *,
        qualities: FloatArray | None,
        areas: IntArray | None,
        shapes: list[float] | None,
    ) -> list[Classification]:
        """The classifications of one picture, by all terms of the decision."""
        none: list[Any] = [None] * len(vectors)
        own_quality = none if qualities is None else qualities.tolist()
        own_area = none if areas is None else areas.tolist()
        labels = [each.best_label for each in classifications]
        similar, background = decision.nearest_hard_negatives(labels, vectors)
        terms: list[dict[str, float]] = [{} for _ in labels]
        for index, (label, near) in enumerate(zip(labels, neighbours, strict=True)):
            confidence = classifications[index].confidence
            if label is not None and confidence:
                terms[index] = decision.odds(
                    label,
                    confidence,
                    similarity=nearest_of(label, near),
                    hard_negative=float(similar[index]),
                    quality=own_quality[index],
                    area=own_area[index],
                )
                if shapes is not None:
                    terms[index]["shape"] = shapes[index]
        if qualities is not None:
            odds = np.array([sum(each.values()) if each else -np.inf for each in terms])
            shifts = decision.shift_of_picture(labels, odds, qualities)
            for index in np.flatnonzero(shifts).tolist():
                terms[index]["image_quality"] = float(shifts[index])
        answers = []
        for index, (label, near) in enumerate(zip(labels, neighbours, strict=True)):
            explanation, hard_negative = classifications[index].explanation, float(similar[index])
            if label is None or explanation is None or "similarity" not in terms[index]:
                answers.append(classifications[index])
                continue
            terms[index]["few_examples"] = decision.few_examples(label, sum(terms[index].values()))
            explanation = replaced(
                explanation,
                log_odds=terms[index],
                hard_negative=None if math.isnan(hard_negative) else hard_negative,
                nearest_is_background=bool(background[index]),
                quality=own_quality[index],
                typical_quality=decision.qualities.get(label),
            )
            confidence = confidence_of(sum(terms[index].values()))
            answers.append(self._decide(label, confidence, near, explanation))
        return answers

    def _shape_odds(
        self, fitted: Fitted, found: list[Classification], vectors: FloatArray
    ) -> list[float] | None:
        """Log-odds of each by its shape; None where shapes are not asked for, or not known."""
        prior = fitted.shapes
        if not self.shape_prior or prior is None:
            return None
        return [
            self.shape_prior * prior.odds(each.best_label or "", vector)
            for each, vector in zip(found, vectors, strict=True)
        ]

    def fitted_to(self, memory: LabelMemory, source: str | None) -> Fitted:
        """What the examples say of a picture (given by its digest); cached until they change."""
        generation, examples = memory.generation, memory.examples()
        shifts = expected_shifts(examples, source)
        key = (generation, shifts)
        found = self._fitted.get(key)
        if found is None:
            fitting = partial(
                fit, examples, memory.prior_similarity, dict(shifts),
                similarity=self.similarity, margin=self.negatives == "margin",
            )  # fmt: skip
            name = f"{type(self).__module__}:{type(self).__qualname__} {shifts} {self.negatives}"
            usual = shifts == expected_shifts(examples, None)
            found = memory.kept(name, Fitted, fitting) if usual else fitting()
            current = [(k, v) for k, v in self._fitted.items() if k[0] == generation]
            self._fitted = {**dict(current[1 - MOST_FITTED :]), key: found}
        return found

    def _neighbours(
        self, vectors: FloatArray, mapped: FloatArray, memory: LabelMemory, metric: Metric
    ) -> list[list[Neighbour]]:
        """The ``top_k`` nearest positives under the metric and the negatives that are nearer than
        the last of them, nearest first, with their similarity there."""
        count = max(CANDIDATES, self.top_k)
        negatives = int(np.count_nonzero(memory.examples().negatives))
        found = memory.nearest(vectors, count + min(negatives, MOST_NEGATIVES))
        ids = sorted({neighbour.id for row in found for neighbour in row})
        place = {example_id: index for index, example_id in enumerate(ids)}
        similarities = np.clip(mapped @ metric(memory.vectors(ids)).T, -1, 1)
        answers = []
        for row, asked in zip(similarities, found, strict=True):
            candidates = _candidates(asked, count)
            columns = np.array([place[n.id] for n in candidates], np.int64)
            # Columns are in the order of ids, which decides among equals.
            nearest = np.lexsort((columns, -row[columns])).tolist()
            own = [rank for rank, i in enumerate(nearest) if not candidates[i].negative]
            last = own[: self.top_k][-1] + 1 if own else self.top_k
            under_metric = row[columns].tolist()
            answers.append([
                Neighbour(near.id, near.label, under_metric[i], near.negative)
                for i, near in ((i, candidates[i]) for i in nearest[:last])
            ])  # fmt: skip
        return answers


def _candidates(found: list[Neighbour], count: int) -> list[Neighbour]:
    """The first ``count`` positives and the negatives among them: the same positives, however many
    negatives there are."""
    positives = [place for place, each in enumerate(found) if not each.negative]
    return found[: positives[count - 1] + 1] if len(positives) >= count else found


class KNNLabeller(ExampleLabeller):
    """The nearest examples vote, each with a weight that grows with its similarity.

    The confidence is the winner's share of the vote, times the confidence that something as similar
    as the winner's nearest example has its label
    (:class:`~sam_detect.labelling.similarity.Calibration`). Negatives have no vote.
    """

    def similarity(self, vector: FloatArray, examples: FloatArray) -> float:
        return float((examples @ vector).max())

    def votes(self, vector: FloatArray, neighbours: list[Neighbour], fitted: Fitted) -> Votes:
        return [(each.label, each.similarity) for each in neighbours if not each.negative]


class PrototypeLabeller(ExampleLabeller):
    """The label whose mean vector is nearest (Snell et al., "Prototypical Networks", 2017).

    The confidence is the label's share of a softmax over all labels, times the confidence that
    something as similar to the mean has the label. The nearest examples are given as the reason.
    """

    def similarity(self, vector: FloatArray, examples: FloatArray) -> float:
        return float(unit_mean(examples) @ vector)

    def votes(self, vector: FloatArray, neighbours: list[Neighbour], fitted: Fitted) -> Votes:
        return [(label, float(vector @ mean)) for label, mean in fitted.means.items()]
