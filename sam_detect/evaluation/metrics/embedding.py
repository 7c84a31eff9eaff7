"""How well vectors tell labels apart, whatever is made of them.

Vectors are ``(N, D)`` float, of length 1, so that their products are cosines. Labels are N names;
None stands for a region that is no object: objects must be distinguished from it, but it is not a
class of its own. Pictures are N ids: objects of one picture share its light and its background, and
are similar for that reason.

Nothing here holds ``N x N`` numbers: 10,000 vectors need some 100 MB.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from sam_detect.types.masks import FloatArray, IntArray

BLOCK_PAIRS = 2_000_000
"""Similarities held at once."""
BINS = 2**18 + 1
"""Steps of similarity from -1 to 1; an odd number, so that 0 and the halves are in the middle of
one. Similarities within a step (8e-6) count as equal."""
NO_OBJECT = -1


def separability(
    vectors: FloatArray, labels: Sequence[str | None], pictures: Sequence[Hashable]
) -> float | None:
    """How often two things of one label are more alike than two of different labels.

    The area under the ROC curve that separates pairs of one label from pairs of two by cosine:
    the chance that a random pair of the first kind is more similar than one of the second, ties
    counting half (Hanley and McNeil 1982). .5 is chance, 1 perfect. Pairs of two non-objects are of
    neither kind; an object and a non-object are of two labels.

    Only pairs of different pictures count, if there are such pairs of both kinds; else all.
    None where there are no pairs of both kinds at all.
    """
    names, places = _codes(labels), _codes(pictures)
    counts = np.zeros((2, 2, BINS), np.int64)  # (apart, same label, similarity)
    for rows, cosines in _blocks(vectors):
        same = names[rows, None] == names[None, :]
        pairs = np.arange(len(names))[None, :] > np.arange(len(names))[rows, None]
        pairs &= (names[rows, None] != NO_OBJECT) | (names[None, :] != NO_OBJECT)
        apart = places[rows, None] != places[None, :]
        steps = np.floor((np.clip(cosines, -1, 1) + 1) / 2 * (BINS - 1) + 0.5).astype(np.int64)
        kinds = (2 * apart + same) * BINS + steps
        counts += np.bincount(kinds[pairs], minlength=counts.size).reshape(counts.shape)
    both_kinds_apart = counts[1].any(axis=1).all()
    different, same_label = counts[1] if both_kinds_apart else counts.sum(axis=0)
    return _auc(same_label, different)


def knn_purity(
    vectors: FloatArray,
    labels: Sequence[str | None],
    pictures: Sequence[Hashable],
    k: int = 5,
) -> float | None:
    """The share of an object's k nearest neighbours that have its label, averaged over objects.

    Neighbours are searched in other pictures if those hold at least k vectors, else everywhere;
    never the object itself. Non-objects may be neighbours. Of equally near ones the first is taken.
    Objects whose label no candidate bears are left out; None where no object is left.
    """
    names, places = _codes(labels), _codes(pictures)
    shares: list[float] = []
    for rows, block in _blocks(vectors):
        cosines = block.copy()
        inside = places[rows, None] == places[None, :]
        elsewhere = np.count_nonzero(~inside, axis=1) >= k
        cosines[inside & elsewhere[:, None]] = -np.inf
        cosines[np.arange(len(cosines)), np.arange(len(names))[rows]] = -np.inf
        same = names[rows, None] == names[None, :]
        asked = (names[rows] != NO_OBJECT) & (same & np.isfinite(cosines)).any(axis=1)
        shares += _shares(cosines[asked], same[asked], k).tolist()
    return float(np.mean(shares)) if shares else None


def silhouette(vectors: FloatArray, labels: Sequence[str | None]) -> float | None:
    """How much nearer objects are to their own label than to the next: -1 to 1, averaged.

    Rousseeuw's silhouette (1987), with ``1 - cosine`` for distance: ``(b - a) / max(a, b)`` with
    ``a`` the mean distance to the others of the own label, ``b`` the least mean distance to another
    label, 0 where the label has no others. Non-objects are one more label to be near to, and are
    not averaged over. None without objects, or with a single label.
    """
    names = _codes(labels)
    kinds, names = np.unique(names, return_inverse=True)
    objects = kinds[names] != NO_OBJECT
    if len(kinds) < 2 or not objects.any():
        return None
    exact = np.asarray(vectors, np.float64)
    members = np.eye(len(kinds))[names]  # (N, K)
    sizes = members.sum(axis=0)
    # The mean product with a label's vectors is the product with their mean: no pairs are needed.
    products = exact @ (members.T @ exact).T  # (N, K)
    row = np.arange(len(names))
    others = sizes[names] - 1
    own = products[row, names] - np.einsum("nd,nd->n", exact, exact)
    inner = 1 - own / np.maximum(others, 1)
    distances = 1 - products / sizes
    distances[row, names] = np.inf
    outer = distances.min(axis=1)
    widest = np.maximum(inner, outer)
    fits = objects & (others > 0) & (widest > 0)
    values = np.divide(outer - inner, widest, out=np.zeros(len(names)), where=fits)
    return float(values[objects].mean())


def _auc(positive: IntArray, negative: IntArray) -> float | None:
    """Area under the ROC curve from counts per similarity, lowest first."""
    if not positive.any() or not negative.any():
        return None
    below = np.cumsum(negative) - negative
    won = (positive * (below + negative / 2)).sum()
    return float(won / positive.sum() / negative.sum())


def _shares(cosines: FloatArray, same: npt.NDArray[np.bool_], k: int) -> npt.NDArray[np.float64]:
    """``(Q,)`` share of the same among the k nearest finite ones. Uses up ``cosines``."""
    row = np.arange(len(cosines))
    hits, seen = np.zeros(len(cosines)), np.zeros(len(cosines))
    for _ in range(min(k, cosines.shape[1])):
        nearest = cosines.argmax(axis=1)
        is_candidate = np.isfinite(cosines[row, nearest])
        hits += is_candidate & same[row, nearest]
        seen += is_candidate
        cosines[row, nearest] = -np.inf
    return hits / seen


def _blocks(vectors: FloatArray) -> Iterator[tuple[slice, FloatArray]]:
    """Rows, and their ``(B, N)`` cosines with all vectors."""
    single = np.asarray(vectors, np.float32)
    step = max(BLOCK_PAIRS // max(len(single), 1), 1)
    for start in range(0, len(single), step):
        rows = slice(start, start + step)
        yield rows, single[rows] @ single.T


def _codes(values: Sequence[Hashable]) -> IntArray:
    """``(N,)`` a number for each different value; ``NO_OBJECT`` for None."""
    numbers: dict[Hashable, int] = {None: NO_OBJECT}
    return np.array([numbers.setdefault(each, len(numbers)) for each in values], np.int64)
