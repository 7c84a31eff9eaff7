"""What labellers that compare with examples learn from them: what counts as similar, and how much
of it is enough, by examples that are left out."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from sam_detect.labelling.decision import DecisionModel, expected_shift
from sam_detect.labelling.part_weights import part_factors, part_weights, spread_over
from sam_detect.labelling.shape_prior import ShapePrior
from sam_detect.labelling.similarity import Calibration, Metric, calibrate, unit_mean
from sam_detect.types import ExampleArrays
from sam_detect.types.masks import FloatArray

FOLDS = 5
Codes = npt.NDArray[np.intp]
Shifts = tuple[tuple[str, float], ...]
"""Each label with the shift that is expected of it; first, under no label, that of all."""
Similarity = Callable[[FloatArray, FloatArray], float]
"""Of one vector to the ``(n, D)`` examples of a label, n > 0, under the metric."""


@dataclass(frozen=True)
class Fitted:
    """What was learnt from the examples of a library.

    Attributes:
        metric: what counts as similar.
        means, prototypes: per label, the unit mean of its positives: under the metric, and of the
            vectors as they are.
        calibration: how similar is similar enough.
        decision: what else is known; None if the examples have no hard negatives.
        part_weights: of :func:`~sam_detect.labelling.part_weights.part_weights`.
        shapes: of the examples; None where vectors do not tell shapes.
    """

    metric: Metric
    means: Mapping[str, FloatArray]
    prototypes: Mapping[str, FloatArray]
    calibration: Calibration
    decision: DecisionModel | None = None
    part_weights: Mapping[str, float] = field(default_factory=dict)
    shapes: ShapePrior | None = None


def fit(
    examples: ExampleArrays,
    prior_similarity: float,
    shifts: Mapping[str, float],
    *,
    similarity: Similarity,
    margin: bool,
) -> Fitted:
    """What the examples say of things in a picture of which such shifts are expected.

    Args:
        prior_similarity: of two objects of a label, while there are too few to tell.
        shifts: of :func:`expected_shifts`.
        similarity: the labeller's.
        margin: whether negatives are among the hard negatives.
    """
    weights = examples.scene_weights
    if weights is not None:
        weights = 1 - shifts[""] * (1 - weights) if shifts[""] else None
    by_part = spread_over(part_factors(examples), examples.parts)
    if by_part is not None:
        weights = by_part if weights is None else by_part * weights
    positive = ~np.asarray(examples.negatives, bool)
    vectors = examples.vectors[positive]
    labels = np.array(examples.labels, dtype=object)[positive]
    sources = np.array(examples.sources, dtype=object)[positive]
    metric = Metric.fit(vectors, labels.tolist(), weights)
    left_out: dict[str, list[float]] = {label: [] for label in sorted(set(labels))}
    shift = {label: expected_shift(sources[labels == label].tolist()) for label in left_out}
    # Numbers compare faster than names.
    of_label, of_source = (np.unique(n.astype(str), return_inverse=True)[1]
                           for n in (labels, sources))  # fmt: skip
    for fold in range(min(FOLDS, len(vectors))):
        mine = np.arange(len(vectors)) % FOLDS == fold
        # The metric must not be fitted to what it is tested on.
        mapped = Metric.fit(vectors[~mine], labels[~mine].tolist(), weights)(vectors)
        for index in np.flatnonzero(mine):
            found = _left_out(
                index, mapped, of_label, of_source,
                shift=shift[labels[index]], similarity=similarity,
            )  # fmt: skip
            if found is not None:
                left_out[labels[index]].append(found)
    calibration = calibrate(
        {label: np.array(values, np.float64) for label, values in left_out.items()},
        prior_similarity=prior_similarity,
    )
    mapped = metric(vectors)
    means = {label: unit_mean(mapped[labels == label]) for label in left_out}
    decision = DecisionModel.gather(examples, metric, calibration, shift=shifts, negatives=margin)
    plain = {label: unit_mean(vectors[labels == label]) for label in left_out}
    weighted = part_weights(examples, weights)
    shapes = ShapePrior.of(examples)
    return Fitted(metric, means, plain, calibration, decision, weighted, shapes)


def _left_out(
    index: np.intp,
    vectors: FloatArray,
    labels: Codes,
    sources: Codes,
    *,
    shift: float,
    similarity: Similarity,
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
        return similarity(vectors[index], vectors[alike])
    found = (1 - shift) * similarity(vectors[index], vectors[elsewhere])
    return found + shift * similarity(vectors[index], vectors[alike]) if shift else found


def expected_shifts(examples: ExampleArrays, source: str | None) -> Shifts:
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
