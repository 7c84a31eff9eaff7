"""What differs among examples of one label does not count; what tells labels apart does.

Within-class covariance normalisation (Hatch, Kajarekar and Stolcke 2006, after Fisher 1936):
directions in which objects of one label scatter are shrunk. If the dates of a library are of all
sizes, size stops mattering for it; if they are all of one brown, brown counts fully.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sam_detect.masks import FloatArray

SHRINKAGE = 3.0
"""Variance that every direction is assumed to have in addition to what was seen, in units of the
mean one. Keeps few examples from ruling out whatever they happen not to show."""


@dataclass(frozen=True, eq=False)
class Metric:
    """A linear map that keeps all directions but the scattered ones, which it shrinks.

    Attributes:
        directions: ``(R, D)`` orthonormal rows.
        factors: ``(R,)`` in 0..1, what is left of each.
        weights: ``(D,)`` that vectors are multiplied by before; None for ones.
    """

    directions: FloatArray
    factors: FloatArray
    weights: FloatArray | None = None

    @classmethod
    def fit(
        cls, vectors: FloatArray, labels: Sequence[str], weights: FloatArray | None = None
    ) -> Metric:
        """The metric of ``(N, D)`` examples; the plain cosine where no label has two."""
        vectors = _weighted(vectors, weights)
        names = np.array(labels, dtype=object)
        groups = [vectors[names == name] for name in sorted(set(labels))]
        centred = [group - group.mean(axis=0) for group in groups if len(group) > 1]
        dimension = vectors.shape[1]
        if not centred:
            return cls(np.zeros((0, dimension), np.float32), np.zeros(0, np.float32), weights)
        scatter = np.concatenate(centred).astype(np.float64)
        _, singular, directions = np.linalg.svd(scatter, full_matrices=False)
        variances = singular**2 / len(scatter)
        mean = max(float(variances.sum()) / dimension, 1e-12)
        factors = np.sqrt(SHRINKAGE / (variances / mean + SHRINKAGE))
        return cls(directions.astype(np.float32), factors.astype(np.float32), weights)

    def __call__(self, vectors: FloatArray) -> FloatArray:
        """``(N, D)`` vectors under the metric, each of length 1."""
        vectors = _weighted(vectors, self.weights)
        parts = vectors @ self.directions.T
        mapped = vectors - (parts * (1 - self.factors)) @ self.directions
        return _unit(mapped)


def _weighted(vectors: FloatArray, weights: FloatArray | None) -> FloatArray:
    return vectors if weights is None else _unit(vectors * weights)


def _unit(vectors: FloatArray) -> FloatArray:
    lengths: npt.NDArray[np.float32] = np.linalg.norm(vectors, axis=1, keepdims=True)
    return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)
