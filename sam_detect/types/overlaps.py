"""Which of very many masks overlap, and non-maximum suppression among them.

Only pairs whose boxes meet are ever looked at, so memory and time grow with the masks and their
neighbours, not with the square of their number: a large picture has a hundred thousand.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from sam_detect.types import Masks
from sam_detect.types.masks import BoolArray, IntArray, intersection

AT_ONCE = 4_000_000
"""Pairs of boxes compared at a time."""
CROPS_KEPT = 512
"""Decoded crops at hand while pairs are compared."""


def meeting_boxes(boxes_xyxy: IntArray) -> IntArray:
    """``(P, 2)`` indices ``i < j`` of all pairs of boxes that share a pixel, by ``i``, then ``j``.

    Args:
        boxes_xyxy: ``(N, 4)`` half-open, in pixels.
    """
    by_left = np.argsort(boxes_xyxy[:, 0], kind="stable")
    x0, y0, x1, y1 = boxes_xyxy[by_left].T
    # a box meets only those of the following ones that begin before it ends
    counts = np.searchsorted(x0, x1) - np.arange(len(x0)) - 1
    ends = np.cumsum(counts)
    found = [np.zeros((0, 2), np.int64)]
    start = 0
    while start < len(counts):
        before = int(ends[start - 1]) if start else 0
        stop = max(start + 1, int(np.searchsorted(ends, before + AT_ONCE)))
        one = np.repeat(np.arange(start, stop), counts[start:stop])
        firsts = np.repeat(ends[start:stop] - counts[start:stop], counts[start:stop])
        other = one + 1 + np.arange(before, before + len(one)) - firsts
        meet = (y0[one] < y1[other]) & (y0[other] < y1[one])
        found.append(np.stack([by_left[one[meet]], by_left[other[meet]]], axis=1))
        start = stop
    pairs = np.sort(np.concatenate(found), axis=1)
    return np.asarray(pairs[np.lexsort((pairs[:, 1], pairs[:, 0]))], np.int64)


def shared_pixels(
    crop: Callable[[int], BoolArray], boxes_xyxy: IntArray, pairs: IntArray
) -> IntArray:
    """``(P,)`` pixels that the masks of each pair share.

    Args:
        crop: the ``(h, w)`` mask of one box, by index; only the last few are kept.
        boxes_xyxy: ``(N, 4)`` half-open, in pixels.
        pairs: ``(P, 2)`` indices.
    """
    kept, boxes = lru_cache(CROPS_KEPT)(crop), boxes_xyxy.tolist()
    return np.array(
        [intersection(kept(i), boxes[i], kept(j), boxes[j]) for i, j in pairs.tolist()], np.int64
    )


class Clashes:
    """Which of N masks clash: an undirected graph, as lists of neighbours.

    Args:
        count: N.
        pairs: ``(P, 2)`` indices of those that clash, each pair once.
    """

    def __init__(self, count: int, pairs: IntArray) -> None:
        both = np.concatenate([pairs, pairs[:, ::-1]])
        both = both[np.lexsort((both[:, 1], both[:, 0]))]
        self._neighbours = both[:, 1]
        self._starts = np.searchsorted(both[:, 0], np.arange(count + 1))

    def of(self, index: int) -> IntArray:
        """The masks that clash with one, ascending."""
        return self._neighbours[self._starts[index] : self._starts[index + 1]]


def sparse_nms(order: Iterable[int], clashes: Clashes, count: int) -> list[int]:
    """Greedy non-maximum suppression: of N masks the kept ones, best first.

    Args:
        order: indices, best first.
        clashes: a mask is dropped when it clashes with a kept one.
        count: N.
    """
    free = np.ones(count, np.bool_)
    kept: list[int] = []
    for index in order:
        if free[index]:
            kept.append(int(index))
            free[clashes.of(index)] = False
    return kept


def ious(some: Masks, others: Masks) -> npt.NDArray[np.float64]:
    """``(len(some), len(others))`` intersection over union."""
    shared = shared_areas(some, others)
    return shared / np.maximum(some.areas[:, None] + others.areas[None] - shared, 1)


def shared_areas(some: Masks, others: Masks) -> npt.NDArray[np.float64]:
    """``(len(some), len(others))`` pixels in common; only what may have some is drawn."""
    found = np.zeros((len(some), len(others)))
    low = np.maximum(some.boxes_xyxy[:, None, :2], others.boxes_xyxy[None, :, :2])
    high = np.minimum(some.boxes_xyxy[:, None, 2:], others.boxes_xyxy[None, :, 2:])
    meet = np.asarray((high > low).all(axis=2), np.bool_)
    crops = {int(j): others.crop(j) for j in np.flatnonzero(np.any(meet, axis=0))}
    for i in np.flatnonzero(np.any(meet, axis=1)):
        crop = some.crop(i)
        for j in np.flatnonzero(meet[i]):
            found[i, j] = intersection(
                crop, some.boxes_xyxy[i].tolist(), crops[int(j)], others.boxes_xyxy[j].tolist()
            )
    return found
