"""What the labellers that compare with examples share."""

from __future__ import annotations

import math
from abc import abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from sam_detect.errors import ConfigError
from sam_detect.interfaces import Labeller, LabelMemory
from sam_detect.labelling.calibration import Calibration, calibrate
from sam_detect.labelling.evidence import Evidence, confidence
from sam_detect.labelling.metric import Metric
from sam_detect.masks import FloatArray, IntArray
from sam_detect.types import ExampleArrays, Neighbour, Verdict

AUTO_THRESHOLD = 0.5
CANDIDATES = 50
"""So many of the nearest examples by plain cosine are compared again under the metric."""
FOLDS = 5


@dataclass(frozen=True)
class Fitted:
    """What was learnt from the examples of a library.

    Attributes:
        metric: what counts as similar.
        means: per label, the unit mean of its positives under the metric.
        calibration: how similar is similar enough.
        evidence: what else is known; None where nobody looked around the examples.
    """

    metric: Metric
    means: Mapping[str, FloatArray]
    calibration: Calibration
    evidence: Evidence | None = None


class ExampleLabeller(Labeller):
    """Compares vectors with examples; believes as far as the library's own examples allow.

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
        self._fitted: dict[tuple[str, bool], Fitted] = {}

    def label(
        self,
        vectors: FloatArray,
        memory: LabelMemory,
        *,
        qualities: FloatArray | None = None,
        areas: IntArray | None = None,
        source: str | None = None,
    ) -> list[Verdict]:
        if len(vectors) == 0:
            return []
        found = memory.nearest(vectors, max(CANDIDATES, self.top_k))
        if not any(found):
            return [unknown([]) for _ in vectors]
        fitted = self._fit(memory, source)
        mapped = fitted.metric(vectors)
        neighbours = self._compared_again(mapped, found, memory, fitted.metric)
        verdicts = [
            self.verdict(vector, nearest, fitted)
            for vector, nearest in zip(mapped, neighbours, strict=True)
        ]
        if fitted.evidence is None:
            return verdicts
        return self._weighed(verdicts, mapped, fitted.evidence, fitted, (qualities, areas))

    @abstractmethod
    def similarity(self, vector: FloatArray, examples: FloatArray) -> float:
        """Of one vector to the ``(n, D)`` examples of a label, n > 0, as :meth:`verdict` measures
        it."""

    @abstractmethod
    def verdict(self, vector: FloatArray, neighbours: list[Neighbour], fitted: Fitted) -> Verdict:
        """What one vector (under the metric) is."""

    def named(self, label: str, confidence: float, neighbours: list[Neighbour]) -> Verdict:
        """The verdict for a best label: known or, below the threshold, unknown."""
        confidence = min(1.0, max(0.0, confidence))
        return Verdict(
            label=label if confidence >= self.threshold else None,
            best_label=label,
            confidence=confidence,
            neighbours=tuple(neighbours),
        )

    def _weighed(
        self,
        verdicts: list[Verdict],
        vectors: FloatArray,
        evidence: Evidence,
        fitted: Fitted,
        looks: tuple[FloatArray | None, IntArray | None],
    ) -> list[Verdict]:
        """The verdicts of one picture with everything else that is known taken into account."""
        qualities, areas = looks
        odds = np.full(len(verdicts), -np.inf)
        doubts = np.ones(len(verdicts))
        best_labels = [verdict.best_label for verdict in verdicts]
        rivals = evidence.nearest_rivals(best_labels, vectors)
        for index, verdict in enumerate(verdicts):
            label, similar = verdict.best_label, list(verdict.neighbours)
            own = [n.similarity for n in similar if n.label == label and not n.negative]
            against = [n.similarity for n in similar if n.label == label and n.negative]
            if label is None or (against and not own):
                continue
            # Those that are not among the nearest are no nearer than the last of these.
            nearest = max(own, default=similar[-1].similarity)
            # A user's "no" is no evidence among others: its doubt counts in full.
            doubts[index] = doubt(label, nearest, similar, fitted.calibration.spread)
            odds[index] = evidence.odds(
                label,
                min(1.0, verdict.confidence / max(doubts[index], 1e-6)),
                similarity=nearest,
                rival=float(rivals[index]),
                look=(
                    None if qualities is None else float(qualities[index]),
                    None if areas is None else float(areas[index]),
                ),
            )
        if qualities is not None:
            odds += evidence.of_picture(best_labels, odds, qualities)
        return [
            verdict
            if verdict.best_label is None or math.isinf(total)
            else self.named(
                verdict.best_label, confidence(total) * doubted, list(verdict.neighbours)
            )
            for verdict, total, doubted in zip(verdicts, odds, doubts, strict=True)
        ]

    def _fit(self, memory: LabelMemory, source: str | None) -> Fitted:
        """What the examples say; kept until they change."""
        generation, examples = memory.generation, memory.examples()
        familiar = set(examples.sources) == {source}
        key = (generation, familiar)
        if key not in self._fitted:
            found = self._learn(examples, memory.prior_similarity, familiar=familiar)
            current = {k: v for k, v in self._fitted.items() if k[0] == generation}
            self._fitted = {**current, key: found}
        return self._fitted[key]

    def _learn(self, examples: ExampleArrays, prior_similarity: float, *, familiar: bool) -> Fitted:
        """What the examples say of things in the picture that they are all of (familiar), or in
        another one."""
        one_picture = len(set(examples.sources)) == 1
        weights = examples.scene_weights if one_picture and not familiar else None
        positive = ~np.asarray(examples.negatives, bool)
        vectors = examples.vectors[positive]
        labels = np.array(examples.labels, dtype=object)[positive]
        sources = np.array(examples.sources, dtype=object)[positive]
        metric = Metric.fit(vectors, labels.tolist(), weights)
        left_out: dict[str, list[float]] = {label: [] for label in sorted(set(labels))}
        for fold in range(min(FOLDS, len(vectors))):
            mine = np.arange(len(vectors)) % FOLDS == fold
            # The metric must not have seen what it is tried on, or it flatters itself.
            mapped = Metric.fit(vectors[~mine], labels[~mine].tolist(), weights)(vectors)
            for index in np.flatnonzero(mine):
                others = _others(index, labels, sources)
                if others.any():
                    found = self.similarity(mapped[index], mapped[others])
                    left_out[labels[index]].append(found)
        calibration = calibrate(
            {label: np.array(values, np.float64) for label, values in left_out.items()},
            prior_similarity=prior_similarity,
        )
        mapped = metric(vectors)
        means = {label: unit_mean(mapped[labels == label]) for label in left_out}
        evidence = Evidence.gather(examples, metric, calibration, familiar=familiar)
        return Fitted(metric, means, calibration, evidence)

    def _compared_again(
        self,
        mapped: FloatArray,
        found: list[list[Neighbour]],
        memory: LabelMemory,
        metric: Metric,
    ) -> list[list[Neighbour]]:
        """The ``top_k`` nearest under the metric, nearest first, with their similarity there."""
        ids = sorted({neighbour.id for row in found for neighbour in row})
        place = {example_id: index for index, example_id in enumerate(ids)}
        similarities = np.clip(mapped @ metric(memory.vectors(ids)).T, -1, 1)
        answers = []
        for row, candidates in zip(similarities, found, strict=True):
            columns = np.array([place[n.id] for n in candidates], np.int64)
            # Columns are in the order of ids, which decides among equals.
            nearest = np.lexsort((columns, -row[columns]))[: self.top_k]
            answers.append(
                [replace(candidates[i], similarity=float(row[columns[i]])) for i in nearest]
            )
        return answers


def unknown(neighbours: list[Neighbour]) -> Verdict:
    """The verdict where no positive example is near."""
    nearest = neighbours[0].label if neighbours else None
    return Verdict(None, nearest, 0.0, tuple(neighbours))


def doubt(label: str, similarity: float, neighbours: list[Neighbour], spread: float) -> float:
    """Factor (0 to 1) for negatives of the label: one half where one is as near as the label's
    own examples, so that what is nearest to a negative is never given the label."""
    against = [n.similarity for n in neighbours if n.negative and n.label == label]
    if not against:
        return 1.0
    ahead = (similarity - max(against)) / (spread / 2)
    return 1 / (1 + math.exp(-min(30.0, max(-30.0, ahead))))


def unit_mean(vectors: FloatArray) -> FloatArray:
    mean = vectors.mean(axis=0)
    return np.asarray(mean / max(float(np.linalg.norm(mean)), 1e-12), np.float32)


def _others(
    index: np.intp, labels: npt.NDArray[np.object_], sources: npt.NDArray[np.object_]
) -> npt.NDArray[np.bool_]:
    """The other examples of the label that are in *other* pictures, since new objects come from
    new pictures; all others of the label where it comes from one picture only."""
    alike = np.asarray(labels == labels[index], bool)
    elsewhere = alike & (sources != sources[index])
    if elsewhere.any():
        return np.asarray(elsewhere, bool)
    alike[index] = False
    return alike
