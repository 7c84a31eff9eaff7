"""What the labellers that compare with examples share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sam_detect.errors import ConfigError
from sam_detect.interfaces import Labeller, LabelMemory
from sam_detect.labelling.calibration import Calibration, calibrate
from sam_detect.labelling.decision import DecisionModel, expected_shift
from sam_detect.labelling.metric import Metric
from sam_detect.masks import FloatArray, IntArray
from sam_detect.types import Classification, ExampleArrays, Explanation, Neighbour
from sam_detect.types.explanation import confidence_of

AUTO_THRESHOLD = 0.5
CANDIDATES = 50
"""So many of the nearest examples by plain cosine are compared again under the metric."""
MOST_NEGATIVES = 200
"""So many negatives may be among the nearest before they keep examples from being compared."""
NEGATIVE_REACH = 0.25
"""A negative acts where it is nearer than this share of the distance (1 - similarity) to the
nearest example of its label: half the way, as the distance grows with the square of it."""
LEAST_DISTANCE = 1e-6
"""What is nearer is the same."""
EVEN = 0.5
"""A label of whose confidence less is left gives way to the next best."""
FOLDS = 5
MOST_FITTED = 4
"""So many fits of one library are kept: each picture of a small one may have its own."""

Shifts = tuple[tuple[str, float], ...]
"""Each label with the shift that is expected of it; first, under no label, that of all."""


@dataclass(frozen=True)
class Fitted:
    """What was learnt from the examples of a library.

    Attributes:
        metric: what counts as similar.
        means: per label, the unit mean of its positives under the metric.
        calibration: how similar is similar enough.
        decision: what else is known; None if the examples have no hard negatives.
    """

    metric: Metric
    means: Mapping[str, FloatArray]
    calibration: Calibration
    decision: DecisionModel | None = None


class ExampleLabeller(Labeller):
    """Compares vectors with examples; calibrated on the left-out examples of the library.

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
        try:
            limit = AUTO_THRESHOLD if threshold == "auto" else float(threshold)
        except (TypeError, ValueError):
            limit = math.nan
        if not 0 <= limit <= 1:
            raise ConfigError(
                f"threshold must be 'auto' or a number from 0 to 1, got {threshold!r}"
            )
        self.top_k = int(top_k)
        self.threshold = limit
        self._fitted: dict[tuple[str, Shifts], Fitted] = {}

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
        count = max(CANDIDATES, self.top_k)
        negatives = int(np.count_nonzero(memory.examples().negatives))
        found = memory.nearest(vectors, count + min(negatives, MOST_NEGATIVES))
        if not any(found):
            return [self.unknown([]) for _ in vectors]
        fitted = self._fit(memory, source)
        mapped = fitted.metric(vectors)
        neighbours = self._compared_again(mapped, found, memory, fitted.metric)
        given = [denials(near) for near in neighbours]
        denied = [{name for name, left in each.items() if left < EVEN} for each in given]
        classifications = [
            self.classify(vector, near, fitted, labels)
            for vector, near, labels in zip(mapped, neighbours, denied, strict=True)
        ]
        if fitted.decision is not None:
            evidence = qualities, areas
            classifications = self._weighed(
                classifications, mapped, neighbours, fitted.decision, evidence
            )
        return [
            self._corrected(classification, left, near)
            for classification, left, near in zip(classifications, given, neighbours, strict=True)
        ]

    @abstractmethod
    def similarity(self, vector: FloatArray, examples: FloatArray) -> float:
        """Of one vector to the ``(n, D)`` examples of a label, n > 0, as :meth:`classify`
        measures it."""

    @abstractmethod
    def classify(
        self,
        vector: FloatArray,
        neighbours: list[Neighbour],
        fitted: Fitted,
        denied: Collection[str],
    ) -> Classification:
        """What one vector (under the metric) is.

        Args:
            denied: labels that it has only if there is no other; negatives say no more than this.
        """

    def named(
        self,
        label: str,
        confidence: float,
        neighbours: list[Neighbour],
        explanation: Explanation | None,
    ) -> Classification:
        """The classification for a best label: known or, below the threshold, unknown."""
        return Classification.decided(
            label,
            confidence,
            threshold=self.threshold,
            neighbours=neighbours[: self.top_k],
            explanation=explanation,
        )

    def compared(
        self,
        label: str,
        similarity: float,
        votes: Mapping[str, float],
        neighbours: list[Neighbour],
        fitted: Fitted,
    ) -> Classification:
        """The classification by similarity alone.

        Args:
            label: the best label.
            similarity: to its examples, under the metric.
            votes: share of each label, adding up to 1.
        """
        calibrated = fitted.calibration.confidence(label, similarity)
        explanation = Explanation(
            votes=dict(sorted(votes.items(), key=lambda each: (-each[1], each[0]))),
            similarity=similarity,
            half_similarity=fitted.calibration.thresholds[label],
            calibrated=calibrated,
        )
        return self.named(label, votes[label] * calibrated, neighbours, explanation)

    def unknown(self, neighbours: list[Neighbour]) -> Classification:
        """The classification where no positive example is near."""
        nearest = neighbours[0].label if neighbours else None
        explanation = Explanation(threshold=self.threshold)
        near = tuple(neighbours[: self.top_k])
        return Classification(None, nearest, 0.0, near, explanation=explanation)

    def _corrected(
        self, classification: Classification, left: Mapping[str, float], neighbours: list[Neighbour]
    ) -> Classification:
        """The classification with what the negatives leave of it (:func:`denials`)."""
        label, explanation = classification.best_label, classification.explanation
        if label is None or label not in left or explanation is None:
            return classification
        explanation = replace(explanation, negative_factor=left[label])
        return self.named(label, classification.confidence * left[label], neighbours, explanation)

    def _weighed(
        self,
        classifications: list[Classification],
        vectors: FloatArray,
        neighbours: list[list[Neighbour]],
        decision: DecisionModel,
        evidence: tuple[FloatArray | None, IntArray | None],
    ) -> list[Classification]:
        """The classifications of one picture, with size, quality and hard negatives weighed in."""
        qualities, areas = evidence
        odds = np.full(len(classifications), -np.inf)
        terms: list[dict[str, float]] = [{} for _ in classifications]
        best_labels = [classification.best_label for classification in classifications]
        hard_negatives = decision.nearest_hard_negatives(best_labels, vectors)
        for index, (classification, near) in enumerate(
            zip(classifications, neighbours, strict=True)
        ):
            label = classification.best_label
            if label is None or not classification.confidence:
                continue
            terms[index] = decision.odds(
                label,
                classification.confidence,
                similarity=nearest_of(label, near),
                hard_negative=float(hard_negatives[index]),
                look=(
                    None if qualities is None else float(qualities[index]),
                    None if areas is None else float(areas[index]),
                ),
            )
            odds[index] = sum(terms[index].values())
        if qualities is not None:
            of_image = decision.of_picture(best_labels, odds, qualities)
            for place in np.flatnonzero(of_image).tolist():
                terms[place]["image_quality"] = float(of_image[place])
        answers = []
        for index, (classification, near) in enumerate(
            zip(classifications, neighbours, strict=True)
        ):
            label, explanation = classification.best_label, classification.explanation
            if label is None or explanation is None or math.isinf(odds[index]):
                answers.append(classification)
                continue
            hard_negative = float(hard_negatives[index])
            explanation = replace(
                explanation,
                log_odds=terms[index],
                hard_negative=None if math.isnan(hard_negative) else hard_negative,
                quality=None if qualities is None else float(qualities[index]),
                typical_quality=decision.qualities.get(label),
            )
            total = confidence_of(sum(terms[index].values()))
            answers.append(self.named(label, total, near, explanation))
        return answers

    def _fit(self, memory: LabelMemory, source: str | None) -> Fitted:
        """What the examples say; kept until they change."""
        generation, examples = memory.generation, memory.examples()
        shifts = _shifts(examples, source)
        key = (generation, shifts)
        found = self._fitted.get(key)
        if found is None:
            found = self._learn(examples, memory.prior_similarity, dict(shifts))
            current = [(k, v) for k, v in self._fitted.items() if k[0] == generation]
            self._fitted = {**dict(current[1 - MOST_FITTED :]), key: found}
        return found

    def _learn(
        self, examples: ExampleArrays, prior_similarity: float, shifts: Mapping[str, float]
    ) -> Fitted:
        """What the examples say of things in a picture of which such shifts are expected."""
        weights = examples.scene_weights
        if weights is not None:
            weights = 1 - shifts[""] * (1 - weights) if shifts[""] else None
        positive = ~np.asarray(examples.negatives, bool)
        vectors = examples.vectors[positive]
        labels = np.array(examples.labels, dtype=object)[positive]
        sources = np.array(examples.sources, dtype=object)[positive]
        metric = Metric.fit(vectors, labels.tolist(), weights)
        left_out: dict[str, list[float]] = {label: [] for label in sorted(set(labels))}
        shift = {label: expected_shift(sources[labels == label].tolist()) for label in left_out}
        for fold in range(min(FOLDS, len(vectors))):
            mine = np.arange(len(vectors)) % FOLDS == fold
            # The metric must not have seen what it is tried on, or it flatters itself.
            mapped = Metric.fit(vectors[~mine], labels[~mine].tolist(), weights)(vectors)
            for index in np.flatnonzero(mine):
                similarity = self._left_out(index, mapped, labels, sources, shift[labels[index]])
                if similarity is not None:
                    left_out[labels[index]].append(similarity)
        calibration = calibrate(
            {label: np.array(values, np.float64) for label, values in left_out.items()},
            prior_similarity=prior_similarity,
        )
        mapped = metric(vectors)
        means = {label: unit_mean(mapped[labels == label]) for label in left_out}
        decision = DecisionModel.gather(examples, metric, calibration, shift=shifts)
        return Fitted(metric, means, calibration, decision)

    def _left_out(
        self,
        index: np.intp,
        vectors: FloatArray,
        labels: npt.NDArray[np.object_],
        sources: npt.NDArray[np.object_],
        shift: float,
    ) -> float | None:
        """Similarity of an example to the others of its label; None where there are none.

        Those in *other* pictures count, since new objects come from new pictures. As long as too
        few come from there to tell (:func:`expected_shift`), all others count in part."""
        alike = np.asarray(labels == labels[index], bool)
        elsewhere = alike & (sources != sources[index])
        alike[index] = False
        if not alike.any():
            return None
        if not elsewhere.any():
            return self.similarity(vectors[index], vectors[alike])
        found = (1 - shift) * self.similarity(vectors[index], vectors[elsewhere])
        return found + shift * self.similarity(vectors[index], vectors[alike]) if shift else found

    def _compared_again(
        self,
        mapped: FloatArray,
        found: list[list[Neighbour]],
        memory: LabelMemory,
        metric: Metric,
    ) -> list[list[Neighbour]]:
        """The ``top_k`` nearest positives under the metric and the negatives that are nearer than
        the last of them, nearest first, with their similarity there."""
        ids = sorted({neighbour.id for row in found for neighbour in row})
        place = {example_id: index for index, example_id in enumerate(ids)}
        similarities = np.clip(mapped @ metric(memory.vectors(ids)).T, -1, 1)
        answers = []
        for row, asked in zip(similarities, found, strict=True):
            candidates = _candidates(asked, max(CANDIDATES, self.top_k))
            columns = np.array([place[n.id] for n in candidates], np.int64)
            # Columns are in the order of ids, which decides among equals.
            nearest = np.lexsort((columns, -row[columns])).tolist()
            own = [rank for rank, i in enumerate(nearest) if not candidates[i].negative]
            last = own[: self.top_k][-1] + 1 if own else self.top_k
            answers.append([
                replace(candidates[i], similarity=float(row[columns[i]])) for i in nearest[:last]
            ])  # fmt: skip
        return answers


def nearest_of(label: str, neighbours: Sequence[Neighbour]) -> float:
    """Similarity of the nearest example of a label among neighbours, nearest first; where none of
    it is among them, that of the last, than which it is no nearer."""
    own = (n.similarity for n in neighbours if n.label == label and not n.negative)
    return next(own, neighbours[-1].similarity)


def denials(neighbours: Sequence[Neighbour]) -> dict[str, float]:
    """What negatives leave of the confidence in each label, 0 to 1; labels not named keep all.

    A negative is a local exception: it says what this thing is not, and nothing of the things
    around it. Nothing is left at the negative itself. More is left the farther away it is beside
    the nearest example of its label (the ratio test of Lowe, 2004), and all of it from
    ``NEGATIVE_REACH`` on, so also of whatever is nearer to an example than to the negative.
    """
    left: dict[str, float] = {}
    for each in neighbours:
        if each.negative:
            far = max(1 - nearest_of(each.label, neighbours), LEAST_DISTANCE)
            share = max(0.0, 1 - each.similarity) / (NEGATIVE_REACH * far)
            if share < 1:
                left[each.label] = min(left.get(each.label, 1.0), share)
    return left


def unit_mean(vectors: FloatArray) -> FloatArray:
    mean = vectors.mean(axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), np.float32)


def _candidates(found: list[Neighbour], count: int) -> list[Neighbour]:
    """The first ``count`` positives and the negatives among them: the same positives, however many
    negatives there are."""
    positives = [place for place, each in enumerate(found) if not each.negative]
    return found[: positives[count - 1] + 1] if len(positives) >= count else found


def _shifts(examples: ExampleArrays, source: str | None) -> Shifts:
    """The shift to expect of each label, by its positives. Where a user corrects says nothing of
    the examples."""
    of_label: dict[str, list[str]] = {"": []}
    for label, picture, negative in zip(
        examples.labels, examples.sources, examples.negatives, strict=True
    ):
        if not negative:
            of_label[""].append(picture)
            of_label.setdefault(label, []).append(picture)
    return tuple((label, expected_shift(of_label[label], source)) for label in sorted(of_label))
