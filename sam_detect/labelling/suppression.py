"""One detection per object: which of many overlapping proposals to keep.

Proposals are nested and overlap on purpose (a date, the date with its shadow, its highlight).
Named ones compete by confidence and quality; one that mostly lies inside or around a better one
gives way, unless several that a better one keeps out are worth more together: so no mask swallows
several objects, and no part is kept in addition to its whole. Objects may lie inside others
(food on a plate) where the library's own examples do.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from collections.abc import Set as AbstractSet

import numpy as np
import numpy.typing as npt

from sam_detect.masks import IntArray, intersection_matrix, nms
from sam_detect.types import Classification, ExampleArrays, Masks

QUALITY = 2.0
"""Weight of the proposal's log quality against the log-odds of its label: wholes outrank parts."""
EVEN = 0.5
"""What is as likely an object as not is worth nothing."""
SAME_OBJECT_IOU = 0.3
"""Two masks of one label that overlap more are one object."""
INSIDE_SHARE = 0.6
"""A mask of which more lies within a better one is a part of it."""
DIFFERENT_LABEL_IOU = 0.5
"""Masks of two labels that may nest must still not coincide."""
WITHIN = 0.9
"""Share of an example's box that must lie in another's to say that the one lies in the other."""

Nesting = AbstractSet[tuple[str, str]]


def seen_nesting(examples: ExampleArrays) -> Nesting:
    """``{(inner label, outer label)}`` of examples of one picture that lie inside another."""
    groups: dict[str, list[int]] = {}
    for index, source in enumerate(examples.sources):
        if not examples.negatives[index]:
            groups.setdefault(source, []).append(index)
    found = set()
    for members in groups.values():
        boxes = examples.boxes_xywh[members].astype(np.float64)
        low, high = boxes[:, :2], boxes[:, :2] + boxes[:, 2:]
        shared = np.clip(
            np.minimum(high[:, None], high[None]) - np.maximum(low[:, None], low[None]), 0, None
        ).prod(axis=2)
        areas = boxes[:, 2:].prod(axis=1)
        inside = (shared > WITHIN * areas[:, None]) & (areas[:, None] < areas[None, :])
        for inner, outer in np.argwhere(inside):
            found.add((examples.labels[members[inner]], examples.labels[members[outer]]))
    return found


def one_per_object(
    masks: Masks, classifications: Sequence[Classification], *, nesting: Nesting = frozenset()
) -> IntArray:
    """Indices to keep, the first part of what :func:`suppressed_by` gives."""
    return suppressed_by(masks, classifications, nesting=nesting)[0]


def suppressed_by(
    masks: Masks, classifications: Sequence[Classification], *, nesting: Nesting = frozenset()
) -> tuple[IntArray, IntArray]:
    """Indices to keep: named detections without duplicates, and unknown ones that do not overlap
    them. And for each mask the index of the best kept one that suppresses it; -1 where it is kept.

    Named ones come first, best first; unknown ones follow in the segmenter's order, and give way
    to named ones and to better unknown ones. What was taught in this picture comes before all
    others, in the given order; of two taught outlines that are about the same the first is kept.

    Args:
        nesting: pairs of (inner, outer) labels of which the one may lie in the other.
    """
    known = [
        i for i, classification in enumerate(classifications) if classification.label is not None
    ]
    unknown = [
        i for i, classification in enumerate(classifications) if classification.label is None
    ]
    taught = [i for i in known if classifications[i].taught]
    odds = {i: _rank(classifications[i].confidence, float(masks.predicted_ious[i])) for i in known}
    rank = taught + sorted(set(known) - set(taught), key=lambda i: (-odds[i], i))
    order = rank + unknown
    if not order:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    chosen = masks[order]
    areas = chosen.areas
    shared = intersection_matrix(chosen.crops(), chosen.boxes_xyxy, areas)
    iou = shared / np.maximum(areas[:, None] + areas[None, :] - shared, 1)
    inside = shared / np.minimum(areas[:, None], areas[None, :]) > INSIDE_SHARE
    names = np.array([classifications[i].label for i in order], dtype=object)
    may_nest = _may_nest(names, areas, nesting)
    same = np.equal(names[:, None], names[None, :]).astype(np.bool_)
    sure = slice(0, len(taught))
    same[sure, :] |= ~may_nest[sure, :]  # what a taught object shares is not another one's
    same[:, sure] |= ~may_nest[:, sure]
    clash = np.where(same, iou > SAME_OBJECT_IOU, iou > DIFFERENT_LABEL_IOU)
    clash |= inside & ~may_nest
    clash[sure, sure] = iou[sure, sure] > DIFFERENT_LABEL_IOU
    np.fill_diagonal(clash, False)
    worth = np.array([1 / (1 + math.exp(-odds[i])) - EVEN for i in rank])
    worth[sure] = math.inf
    named = clash[: len(rank), : len(rank)]
    best = _several_for_one(_greedy(range(len(rank)), named), named, worth)
    rest = np.setdiff1d(np.arange(len(order)), best)
    kept = _greedy([*best, *rest.tolist()], clash)
    places, places_kept = np.array(order, np.int64), np.array(sorted(kept), np.int64)
    by = np.full(len(order), -1, np.int64)
    gone = np.setdiff1d(np.arange(len(order)), places_kept)
    # Kept ones are in the order of their rank, so the first that overlaps is the best.
    by[places[gone]] = places[places_kept[clash[np.ix_(gone, places_kept)].argmax(axis=1)]]
    return places[places_kept], by


def _greedy(order: Iterable[int], clash: npt.NDArray[np.bool_]) -> list[int]:
    return nms(order, clash.astype(np.float64), 0.5)


def _several_for_one(
    kept: Sequence[int], clash: npt.NDArray[np.bool_], worth: npt.NDArray[np.float64]
) -> list[int]:
    """What is kept, where several that only one keeps out take its place if they are worth more.

    The best of overlapping masks may be two objects in one. The masks kept are a set of which no
    two clash, and this step of local search makes it worth more in sum; it ends, since there are
    finitely many sets.

    Args:
        kept: indices of masks of which no two clash.
        clash: ``(N, N)``, symmetric.
        worth: ``(N,)`` of each mask, above 0 where it is more likely right than wrong.
    """
    chosen = np.zeros(len(worth), np.bool_)
    chosen[list(kept)] = True
    again = True
    while again:
        again = False
        for one in np.flatnonzero(chosen):
            several: list[int] = []
            for other in np.flatnonzero(clash[one] & ~chosen & (worth > 0)):
                alone = np.count_nonzero(clash[other] & chosen) == 1
                if alone and not clash[other, several].any():
                    several.append(int(other))
            if len(several) > 1 and worth[several].sum() > worth[one]:
                chosen[one], chosen[several], again = False, True, True
    return [int(index) for index in np.flatnonzero(chosen)]


def _rank(confidence: float, quality: float) -> float:
    odds = math.log(max(confidence, 1e-12) / max(1 - confidence, 1e-12))
    return odds + QUALITY * math.log(max(quality, 1e-6))


def _may_nest(
    names: npt.NDArray[np.object_], areas: npt.NDArray[np.int64], nesting: Nesting
) -> npt.NDArray[np.bool_]:
    """``(N, N)``: whether the smaller of two masks may lie inside the larger one."""
    inner = np.zeros((len(names), len(names)), dtype=bool)
    for one, other in nesting:
        inner |= np.logical_and.outer(names == one, names == other)
    smaller = areas[:, None] < areas[None, :]
    return np.asarray((inner & smaller) | (inner.T & smaller.T))
