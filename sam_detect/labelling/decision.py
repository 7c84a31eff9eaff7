"""What decides between a label and unknown, in addition to similarity: hard negatives, proposal
quality and the area prior.

Similarity to examples alone cannot tell an object from its parts or from the object with its
shadow. Around every example such regions are known
(:class:`~sam_detect.types.HardNegativeArrays`): an object should be more similar to examples than
to them. And where the segmenter gave the examples low quality, it may give the objects low quality.

The terms are added up as log-odds, as in a naive Bayes classifier; the weights were set once on
four data sets together (``docs/labelling.md``). The sum becomes the confidence
(:func:`sam_detect.types.explanation.confidence_of`), and the threshold of the labeller decides
(:meth:`sam_detect.types.Classification.decided`).
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sam_detect.labelling.similarity import Calibration, Metric
from sam_detect.types import Classification, ExampleArrays, Neighbour
from sam_detect.types.masks import BoolArray, FloatArray, IntArray

SIMILARITY_PRIOR = 5.0
"""Examples of a label with which what similarity says counts half: the more there are, the better
it is known how similar they are."""
FEW_EXAMPLES_PRIOR = 0.5
"""The log-odds of a label with n examples count n / (n + this): a few examples cannot justify much
confidence. Decides nothing between a label and unknown."""
HARD_NEGATIVE_WEIGHT = 1.3
"""Log-odds for each spread by which something is nearer to examples than to hard negatives."""
NEAREST_HARD_NEGATIVES = 3
QUALITY_WEIGHT = 20.0
"""Log-odds for a quality that is higher by 1."""
QUALITY_MARGIN = 0.02
"""An object's quality should be higher than the typical one by so much."""
PICTURE_QUANTILE = 0.9
"""Of what passes for a label in a picture most are parts and doubles of objects; the best proposed
ones are objects."""
PICTURE_PRIOR = 3.0
"""This number of passing candidates of a picture weighs as much as the quality of the examples."""
PRIOR_QUALITY = 0.65
SIZE_WEIGHT = 1.0
"""Log-odds for each factor of e by which something is larger or smaller than any example, beyond
the first ``SIZE_MARGIN``."""
SIZE_MARGIN = 0.3
PRIOR_COUNT = 10.0
"""A label's typical quality is drawn to all examples' as if by so many more of them."""
ONE_PICTURE = 3.5
"""Log-odds for labels known from one picture, whose examples are more alike than new objects; less
for few examples, which do not show how alike they are."""
SHIFT_KNOWN = 0.2
"""Share of examples from other pictures than the commonest one that shows how pictures differ."""
PERHAPS_UNNAMED = 0.3
"""Confidence from which a nearby region may be an object without a label."""
PERHAPS_UNNAMED_ELSEWHERE = 0.1
"""The same for the background, divided by the number of examples: what lies near an example is more
often a part of something, and a picture full of objects has many of them elsewhere. Several
examples from one picture are more alike than its other objects, which so seem to be unlike them."""
REACH = 1.0
"""Log of the factor by which an object may be larger than any example of its label, or smaller."""
REACH_OF_ONE_PICTURE = 2.8
"""The same for labels known from one picture: the next may be taken from much nearer. The more
examples come from other pictures, the less of it is left (:func:`expected_shift`)."""
NEGATIVE_REACH = 0.25
"""A negative acts where it is nearer than this share of the distance (1 - similarity) to the
nearest example of its label: half the way, as the distance grows with the square of it."""
LEAST_DISTANCE = 1e-6
"""What is nearer is the same."""
UNDECIDED = (0.2, 0.8)
"""Confidences between which a label is undecided, see
:attr:`~sam_detect.interfaces.Embedder.rechecks`."""
ENOUGH_EXAMPLES = 5
"""With fewer examples no label is certain: whatever is given one is checked again."""
AT_ONCE = 4096
"""So many hard negatives are compared with all examples at a time: a large library has 50,000."""


@dataclass(frozen=True)
class DecisionModel:
    """Per label what was learnt from the examples and the regions around them.

    Attributes:
        hard_negatives: ``(K, D)`` vectors under the metric, of all labels.
        background: ``(K,)`` bool: which of them lie elsewhere in the picture of an example.
        not_of: which of these regions do not have the label, as ``(n,)`` int64 rows.
        around: the labels of which some of these regions is no background.
        qualities: typical quality of the examples' proposals; empty where none is known.
        log_areas: of the examples, where known.
        counts: number of examples.
        shift: :func:`expected_shift` of each label's examples.
        spread: of similarities, see :class:`~sam_detect.labelling.similarity.Calibration`.
    """

    hard_negatives: FloatArray
    background: BoolArray
    not_of: Mapping[str, IntArray]
    around: tuple[str, ...]
    qualities: Mapping[str, float]
    log_areas: Mapping[str, FloatArray]
    counts: Mapping[str, int]
    shift: Mapping[str, float]
    spread: float

    @classmethod
    def gather(
        cls,
        examples: ExampleArrays,
        metric: Metric,
        calibration: Calibration,
        *,
        shift: Mapping[str, float],
        negatives: bool = False,
    ) -> DecisionModel | None:
        """The decision model of a library; None if no example has hard negatives around it.

        Args:
            shift: :func:`expected_shift` of each label's examples.
            negatives: whether the library's negatives are hard negatives of their labels, too.
        """
        positive = ~np.asarray(examples.negatives, bool)
        elsewhere = examples.hard_negatives.background
        known_around = positive[examples.hard_negatives.owners[~elsewhere]].any()
        if not known_around and (positive.all() or not negatives):
            return None
        labels = np.array(examples.labels, dtype=object)
        names = sorted(set(labels[positive]))
        mapped, own = metric(examples.hard_negatives.vectors), metric(examples.vectors)
        confidences = {
            n: calibration.confidence(n, _nearest(mapped, own[positive & (labels == n)]))
            for n in names
        }
        counts = {n: int(np.count_nonzero(positive & (labels == n))) for n in names}
        known = examples.hard_negatives.touching.copy()
        limits = {n: np.where(elsewhere, PERHAPS_UNNAMED_ELSEWHERE / counts[n], PERHAPS_UNNAMED)
                  for n in names}  # fmt: skip
        known |= np.all([confidences[n] < limits[n] for n in names], axis=0)
        # What touches a negative may well be the object that it is not.
        known &= positive[examples.hard_negatives.owners]
        owners = labels[examples.hard_negatives.owners]
        # A part of one object may be an object of another label (food on a plate).
        not_of = {n: np.flatnonzero(((owners == n) | (confidences[n] < 0.5))[known]) for n in names}
        vectors, background = mapped[known], elsewhere[known]
        if negatives:
            denied = np.flatnonzero(~positive)
            for n in names:
                own_rows = len(vectors) + np.flatnonzero(labels[denied] == n)
                not_of[n] = np.concatenate([not_of[n], own_rows])
            vectors = np.concatenate([vectors, own[denied]])
            background = np.concatenate([background, np.zeros(len(denied), np.bool_)])
        return cls(
            hard_negatives=vectors,
            background=background,
            not_of=not_of,
            around=tuple(n for n in names if not background[not_of[n]].all()),
            qualities=_typical_qualities(examples, names),
            log_areas=_log_areas(examples, names),
            counts=counts,
            shift=shift,
            spread=calibration.spread,
        )

    def odds(
        self,
        label: str,
        calibrated: float,
        *,
        similarity: float,
        hard_negative: float,
        quality: float | None = None,
        area: float | None = None,
    ) -> dict[str, float]:
        """The terms, by name, whose sum is the log-odds that something has a label.

        Args:
            label: the label.
            calibrated: what similarity to examples alone says, 0 to 1.
            similarity: to the nearest example of the label, under the metric.
            hard_negative: to the nearest ones of the label; NaN for none.
            quality, area: of its proposal; None where it cannot be compared.
        """
        calibrated = min(max(calibrated, 1e-6), 1 - 1e-6)
        count = self.counts[label]
        similar = count / (count + SIMILARITY_PRIOR) * math.log(calibrated / (1 - calibrated))
        odds = {"similarity": similar}
        shift = self.shift[label]
        if shift:
            odds["one_image"] = shift * ONE_PICTURE * (2 * count - 1) / (2 * count + 1)
        if not math.isnan(hard_negative):
            margin = HARD_NEGATIVE_WEIGHT * (similarity - hard_negative) / self.spread
            # To differ from all background says little: nearly everything does.
            odds["hard_negatives"] = margin if label in self.around else min(margin, 0.0)
        if area and label in self.log_areas:
            off = float(np.abs(self.log_areas[label] - math.log(area)).min())
            odds["area"] = (shift - 1) * SIZE_WEIGHT * max(0.0, off - SIZE_MARGIN)
        if quality is not None and label in self.qualities:
            margin = self.qualities[label] + QUALITY_MARGIN
            odds["quality"] = QUALITY_WEIGHT * (quality - margin)
        return odds

    def few_examples(self, label: str, total: float) -> float:
        """The log-odds to add to the sum of all others, which draw the confidence to one half as
        far as a label has few examples."""
        return -total * FEW_EXAMPLES_PRIOR / (self.counts[label] + FEW_EXAMPLES_PRIOR)

    def nearest_hard_negatives(
        self, labels: Sequence[str | None], vectors: FloatArray
    ) -> tuple[FloatArray, BoolArray]:
        """``(N,)`` mean similarity of each vector to the nearest hard negatives of its label (NaN
        for none), and ``(N,)`` whether the very nearest is background.

        Background counts where it is nearer than the others: it can only take confidence away.

        Args:
            labels: N labels.
            vectors: ``(N, D)`` under the metric.
        """
        names = np.array(labels, dtype=object)
        found = np.full(len(names), np.nan, np.float32)
        background = np.zeros(len(names), np.bool_)
        for some in np.array_split(
            np.arange(len(names)), len(names) * len(self.hard_negatives) // AT_ONCE**2 + 1
        ):
            similar = vectors[some] @ self.hard_negatives.T
            for label, rows in self.not_of.items():
                mine = np.flatnonzero(names[some] == label)
                if len(rows) and len(mine):
                    of_label = similar[np.ix_(mine, rows)]
                    around = of_label[:, ~self.background[rows]]
                    found[some[mine]] = np.fmax(
                        _mean_of_nearest(around), _mean_of_nearest(of_label)
                    )
                    background[some[mine]] = self.background[rows[of_label.argmax(axis=1)]]
        return found, background

    def shift_of_picture(
        self, labels: Sequence[str | None], odds: FloatArray, qualities: FloatArray
    ) -> FloatArray:
        """``(N,)`` log-odds to add to those of all proposals of one picture.

        Things stand out more in some pictures than in others. As far as a shift is expected, the
        typical quality of a label's examples gives way to that of what passes for them here.

        Args:
            labels: N labels that they came closest to.
            odds: ``(N,)`` of :meth:`odds`.
            qualities: ``(N,)`` of their proposals.
        """
        names = np.array(labels, dtype=object)
        added = np.zeros(len(names), np.float32)
        for label in sorted(self.qualities):
            mine = names == label
            passing = qualities[mine & (odds >= 0)]
            if len(passing):
                off = float(np.quantile(passing, PICTURE_QUANTILE)) - self.qualities[label]
                weight = self.shift[label] * len(passing) / (len(passing) + PICTURE_PRIOR)
                added[mine] = -QUALITY_WEIGHT * off * weight
        return added


def expected_shift(sources: Sequence[str], at_hand: str | None = None) -> float:
    """How far new pictures must be expected to differ from those of the examples, 0 to 1.

    1 where all examples come from one picture: they do not show how scale and light vary (domain
    shift). It falls with the share of examples from other pictures than the commonest one, to 0 at
    :data:`SHIFT_KNOWN`: so one more example does not change all at once.

    Args:
        sources: the picture of each example.
        at_hand: the picture that is labelled. What its own examples show needs no shift, so it
            counts by the share of the others.
    """
    if not sources:
        return 0.0
    counts = Counter(sources)
    count = len(sources)
    others = count - max(counts.values())
    shift = 1 - others / (SHIFT_KNOWN * count)
    return max(0.0, shift) * (1 - counts[at_hand or ""] / count)


def undecided(found: Sequence[Classification], examples: ExampleArrays) -> IntArray:
    """Indices of the classifications whose label better vectors could give or take."""
    positive = ~np.asarray(examples.negatives, bool)
    counts = Counter(np.array(examples.labels, dtype=object)[positive].tolist())
    confidences = np.array([each.confidence for each in found], float)
    known = np.array([counts[each.best_label or ""] for each in found], int)
    certain = (confidences >= UNDECIDED[1]) & (known >= ENOUGH_EXAMPLES)
    return np.flatnonzero((confidences > UNDECIDED[0]) & ~certain)


def nearest_of(label: str, neighbours: Sequence[Neighbour]) -> float:
    """Similarity of the nearest example of a label among neighbours, nearest first; where none of
    it is among them, that of the last, than which it is no nearer."""
    own = (n.similarity for n in neighbours if n.label == label and not n.negative)
    return next(own, neighbours[-1].similarity)


def negative_factors(neighbours: Sequence[Neighbour]) -> dict[str, float]:
    """What negatives leave of the confidence in each label, 0 to 1; labels not named keep all.

    A negative is a local exception: it says what this thing is not, and nothing of the things
    around it. Nothing is left at the negative itself. More is left the farther away it is than
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


def _mean_of_nearest(similar: FloatArray) -> FloatArray:
    """``(N,)`` of ``(N, K)`` similarities; NaN for none."""
    count = min(NEAREST_HARD_NEGATIVES, similar.shape[1])
    if not count:
        return np.full(len(similar), np.nan, np.float32)
    return np.asarray(np.partition(similar, -count, axis=1)[:, -count:].mean(axis=1), np.float32)


def _nearest(vectors: FloatArray, examples: FloatArray) -> FloatArray:
    """``(K,)`` similarity of each vector to the nearest of some examples."""
    parts = range(0, len(vectors), AT_ONCE)
    return np.concatenate([(vectors[k : k + AT_ONCE] @ examples.T).max(axis=1) for k in parts])


def _log_areas(examples: ExampleArrays, names: list[str]) -> dict[str, FloatArray]:
    if not len(examples.areas):
        return {}
    labels = np.array(examples.labels, dtype=object)
    known = ~np.asarray(examples.negatives, bool) & (examples.areas > 0)
    areas = {name: examples.areas[known & (labels == name)] for name in names}
    return {name: np.log(found).astype(np.float32) for name, found in areas.items() if len(found)}


def _typical_qualities(examples: ExampleArrays, names: list[str]) -> dict[str, float]:
    """The median quality of each label's examples, drawn to what is usual."""
    if not len(examples.qualities):
        return {}
    qualities = np.asarray(examples.qualities, np.float64)
    labels = np.array(examples.labels, dtype=object)
    known = ~np.asarray(examples.negatives, bool) & np.isfinite(qualities)
    if not known.any():
        return {}
    usual = min(float(np.median(qualities[known])), PRIOR_QUALITY)
    typical = {}
    for name in names:
        own = qualities[known & (labels == name)]
        total = float(np.median(own)) * len(own) if len(own) else 0.0
        typical[name] = (total + PRIOR_COUNT * usual) / (len(own) + PRIOR_COUNT)
    return typical


def example_areas(examples: ExampleArrays) -> tuple[int, int] | None:
    """Pixels of the smallest and of the largest positive example; None where none is known."""
    known = examples.areas > 0
    if len(known):
        known &= ~np.asarray(examples.negatives, bool)
    return area_range(examples.areas[known])


def area_range(areas: IntArray) -> tuple[int, int] | None:
    """The least and the most of areas; None where there are none."""
    return (int(areas.min()), int(areas.max())) if len(areas) else None


def plausible_sizes(areas: IntArray, examples: ExampleArrays) -> BoolArray:
    """``(Q,)``: whether some label has examples of about this area.

    Args:
        areas: ``(Q,)`` pixels.
        examples: of the library; where their areas are not known, every size is plausible.
    """
    if not len(examples.areas):
        return np.ones(len(areas), np.bool_)
    labels = np.array(examples.labels, dtype=object)
    sources = np.array(examples.sources, dtype=object)
    positive = ~np.asarray(examples.negatives, bool)
    logs = np.log(np.maximum(areas, 1))
    found = np.zeros(len(areas), np.bool_)
    for label in set(labels[positive]):
        mine = positive & (labels == label)
        own = np.log(np.maximum(examples.areas[mine], 1))
        shift = expected_shift(sources[mine].tolist())
        reach = REACH + shift * (REACH_OF_ONE_PICTURE - REACH)
        found |= (logs > own.min() - reach) & (logs < own.max() + reach)
    return found
