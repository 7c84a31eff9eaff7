"""How much each part of a vector counts, learnt from a library's own examples.

A vector of several parts (colour, size, learned features, ...) has the weighted mean of their
similarities. What tells dates from their shadows is not what tells nuclei from debris, so the
weights follow the library: each example, left out once, should be more similar to the examples of
its label than the hard negatives and the examples of other labels are. That is a logistic
regression on the similarities of the parts. Its weights stay near those of the embedder unless
the examples say otherwise (a Gaussian prior on the logarithm of each factor), so one example
changes nothing.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sam_detect.types import Classification, ExampleArrays, LabelMemory
from sam_detect.types.chunks import chunks
from sam_detect.types.explanation import replaced
from sam_detect.types.masks import BoolArray, FloatArray

PRIOR_PRECISION = 0.3
"""Of the logarithms of the factors: as strong as so many examples that contradict it."""
SLOPE, SLOPE_PRECISION = 30.0, 1.0
"""Of the logistic curve over similarity, and how strong this prior is. A curve that may be as steep
as it likes separates anything that can be separated, and learns nothing from it."""
MIDDLE = 0.85
"""Similarity at which it is one half, at first."""
MOST_COMPARED = 400
"""So many examples, and so many hard negatives, of a label are compared; an even sample of more."""

Numbers = npt.NDArray[np.float64]


def part_factors(examples: ExampleArrays) -> dict[str, float]:
    """The factor by which each part's weight in the similarity changes, by its name.

    The weighted sum of the parts keeps its length: with the embedder's weights ``w`` and the
    factors ``f``, the new weights are ``w * f``, which sum to 1. Empty for vectors of one part,
    and where nothing can be learnt: no label has two examples, or nothing is known that is not
    an object.
    """
    if len(examples.parts) < 2 or not len(examples.vectors):
        return {}
    slices = _slices(examples.parts)
    usual = np.array([float((examples.vectors[0, s] ** 2).sum()) for s in slices])
    rows, is_object, counts = [], [], []
    positive = ~np.asarray(examples.negatives, bool)
    labels = np.array(examples.labels, dtype=object)
    for label in sorted(set(labels[positive])):
        own = positive & (labels == label)
        if np.count_nonzero(own) < 2:
            continue
        true, false = _compared(examples, own, positive & (labels != label), slices, usual)
        if len(true) and len(false):
            rows += [true, false]
            is_object += [np.ones(len(true), bool), np.zeros(len(false), bool)]
            # Objects and the rest weigh the same, as much as there are examples.
            counts += [np.full(len(each), 0.5 * len(true) / len(each)) for each in (true, false)]
    if not rows:
        return {}
    factors = _fitted(
        np.concatenate(rows), np.concatenate(is_object), np.concatenate(counts), usual
    )
    return dict(zip(examples.parts, factors.tolist(), strict=True))


def part_weights(examples: ExampleArrays, weights: FloatArray | None) -> dict[str, float]:
    """How much each part counts in the similarity of the examples, by its name; the sum is 1. Empty
    for vectors of one part, and without examples.

    Args:
        weights: ``(D,)`` that vectors are multiplied by; None for ones.
    """
    if len(examples.parts) < 2 or not len(examples.vectors):
        return {}
    weighted = examples.vectors if weights is None else examples.vectors * weights
    shares = np.array([float((weighted[:, s] ** 2).sum()) for s in _slices(examples.parts)])
    return dict(zip(examples.parts, (shares / shares.sum()).tolist(), strict=True))


def explain_parts(
    classifications: Sequence[Classification],
    vectors: FloatArray,
    memory: LabelMemory,
    weights: Mapping[str, float],
) -> list[Classification]:
    """The classifications; their explanations have the weight of each part, and how similar in it
    the nearest example of the best label is.

    Args:
        vectors: ``(N, D)``, as the embedder made them.
        weights: of :func:`part_weights`; if empty, nothing is added.
    """
    answers = list(classifications)
    parts = _slices(memory.examples().parts)
    for rows in chunks(len(answers) if weights else 0):
        nearest = {
            index: key
            for index in range(rows.start, rows.stop)
            if (key := _nearest_of_best(answers[index])) is not None
        }
        ids = sorted(set(nearest.values()))
        if not ids:
            continue
        place = {key: index for index, key in enumerate(ids)}
        known = memory.vectors(ids)[[place[key] for key in nearest.values()]]
        by_part = _cosines(vectors[list(nearest)], known, parts)
        for index, similar in zip(nearest, by_part.tolist(), strict=True):
            explanation = answers[index].explanation
            if explanation is not None:
                named = dict(zip(weights, similar, strict=True))
                explanation = replaced(explanation, part_weights=weights, part_similarities=named)
                answers[index] = replaced(answers[index], explanation=explanation)
    return answers


def _nearest_of_best(each: Classification) -> str | None:
    """The id of the nearest example of the best label."""
    known = (n.id for n in each.neighbours if n.label == each.best_label and not n.negative)
    return next(known, None)


def _cosines(ones: FloatArray, others: FloatArray, slices: list[slice]) -> Numbers:
    """``(N, P)`` cosines of the parts of N pairs of vectors."""
    pairs = [(ones[:, s], others[:, s]) for s in slices]
    dots = np.stack([np.einsum("nd,nd->n", one, other) for one, other in pairs], axis=1)
    lengths = [np.linalg.norm(one, axis=1) * np.linalg.norm(other, axis=1) for one, other in pairs]
    return np.asarray(np.clip(dots / np.maximum(np.stack(lengths, axis=1), 1e-12), -1, 1))


def spread_over(factors: Mapping[str, float], parts: Mapping[str, int]) -> FloatArray | None:
    """``(D,)`` that vectors are multiplied by, so that the weights of their parts change by the
    factors; None for no factors."""
    if not factors:
        return None
    each = np.repeat([factors[name] for name in parts], list(parts.values()))
    return np.asarray(np.sqrt(each), np.float32)


def _slices(parts: Mapping[str, int]) -> list[slice]:
    ends = np.cumsum([0, *parts.values()]).tolist()
    return [slice(start, end) for start, end in itertools.pairwise(ends)]


def _compared(
    examples: ExampleArrays, own: BoolArray, others: BoolArray, slices: list[slice], usual: Numbers
) -> tuple[Numbers, Numbers]:
    """``(n, P)`` similarities by part to the nearest example of a label: of its examples, each
    left out once, and of what is none of them (hard negatives, examples of other labels)."""
    mine, rivals = _sample(np.flatnonzero(own)), _sample(np.flatnonzero(others))
    known = examples.hard_negatives
    regions = _sample(np.flatnonzero(own[known.owners] & known.touching))
    of_mine = examples.vectors[mine]

    def nearest(vectors: FloatArray, without: npt.NDArray[np.int64]) -> Numbers:
        """Those of each vector to the nearest of the label's examples but one."""
        if not len(vectors):  # where nothing is known, not even their length is
            return np.zeros((0, len(slices)))
        by_part = np.stack([vectors[:, s] @ of_mine[:, s].T for s in slices], axis=-1)
        total = by_part.sum(axis=-1)
        total[without[:, None] == mine[None, :]] = -np.inf
        best = total.argmax(axis=1)
        return np.asarray(by_part[np.arange(len(vectors)), best] / usual, np.float64)

    no_owner = np.full(len(rivals), -1)
    false = [
        nearest(examples.vectors[rivals], no_owner),
        nearest(known.vectors[regions], known.owners[regions]),
    ]
    return nearest(of_mine, mine), np.concatenate(false)


def _sample(indices: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
    """At most ``MOST_COMPARED`` of them, evenly."""
    if len(indices) <= MOST_COMPARED:
        return indices
    places = np.linspace(0, len(indices) - 1, MOST_COMPARED).round().astype(np.int64)
    return np.asarray(indices[places], np.int64)


def _fitted(rows: Numbers, is_object: BoolArray, counts: Numbers, usual: Numbers) -> Numbers:
    """``(P,)`` factors by the maximum of the posterior; slope and middle of the logistic curve are
    fitted with them."""
    from scipy.optimize import minimize

    side = np.where(is_object, 1.0, -1.0)

    def loss(free: Numbers) -> tuple[float, Numbers]:
        """The negative logarithm of the posterior, and its gradient."""
        log_factors, slope, middle = free[:-2], np.exp(free[-2]), free[-1]
        raw = usual * np.exp(log_factors)
        weights = raw / raw.sum()
        similar = rows @ weights
        margin = side * slope * (similar - middle)
        steeper = free[-2] - np.log(SLOPE)
        value = counts @ np.logaddexp(0, -margin) + PRIOR_PRECISION * (log_factors @ log_factors)
        value += SLOPE_PRECISION * steeper**2
        by_score = -counts * side / (1 + np.exp(np.clip(margin, -500, 500)))
        by_weight = slope * (by_score @ rows)
        gradient = np.concatenate([
            weights * (by_weight - weights @ by_weight) + 2 * PRIOR_PRECISION * log_factors,
            [
                by_score @ (slope * (similar - middle)) + 2 * SLOPE_PRECISION * steeper,
                -slope * by_score.sum(),
            ],
        ])  # fmt: skip
        return float(value), gradient

    start = np.concatenate([np.zeros(len(usual)), [np.log(SLOPE), MIDDLE]])
    found = minimize(loss, start, jac=True, method="L-BFGS-B").x[:-2]
    raw = usual * np.exp(found)
    return np.asarray(raw / raw.sum() / usual, np.float64)
