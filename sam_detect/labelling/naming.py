"""From the vectors of a picture's proposals to its detections: labels, and one mask per object.

Proposals are nested and overlap on purpose (a date, the date with its shadow, its highlight).
Named ones compete by confidence and quality; one that mostly lies inside or around a better one
gives way, unless several that a better one suppresses are worth more together: so no mask covers
several objects, and no part is kept in addition to its whole. Objects may lie inside others
(food on a plate) where the library's own examples do.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from sam_detect.interfaces import Labeller
from sam_detect.labelling.merging import with_voted_outlines
from sam_detect.types import (
    RATED_BY_EXAMPLES,
    Candidates,
    Classification,
    Detections,
    ExampleArrays,
    Explanation,
    LabelMemory,
    Masks,
    Neighbour,
    Taught,
)
from sam_detect.types.explanation import MOST_SUPPRESSED, Decision, Suppressed, replaced
from sam_detect.types.masks import FloatArray, IntArray, intersection
from sam_detect.types.overlaps import Clashes, meeting_boxes, shared_pixels, sparse_nms

DENIED_IOU = 0.65
"""In a picture that was corrected, what overlaps a negative by this share is the same wrong find:
else another proposal of it takes its place at once."""
HELD_SHARE = 0.9
"""So is what holds so much of a negative..."""
HELD_TIMES = 5.0
"""... and is not more than so many times larger: the wrong find with what lies around it."""
QUALITY, LEARNT_QUALITY = 2.0, 5.0
"""Weight of the proposal's log quality against the log-odds of its label: wholes outrank parts. A
quality that a segmenter learnt from the examples says more (F1 of neurites .724 to .739, of nuclei
.864 to .863)."""
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


class Naming:
    """Names proposals by the examples of a memory, and keeps one for each object.

    Args:
        labeller: names vectors.
        proposer: name of the segmenter whose qualities the proposals have.
        vote: whether an object's outline is the vote of the proposals that agree about it.
    """

    def __init__(self, labeller: Labeller, proposer: str, *, vote: bool = False) -> None:
        self._labeller, self._proposer, self._vote = labeller, proposer, vote
        # Of its own, since each keeps what it fitted to one library.
        self._labeller_here = copy.copy(labeller)
        self._nesting: tuple[str, Nesting] | None = None

    def with_threshold(self, threshold: float) -> Naming:
        """The same with another least confidence for a label, 0 to 1.

        Raises:
            ConfigError: a threshold out of that range.
        """
        named = copy.copy(self)
        named._labeller = self._labeller.with_threshold(threshold)
        named._labeller_here = self._labeller_here.with_threshold(threshold)
        return named

    def name(
        self,
        memory: LabelMemory,
        candidates: Candidates,
        *,
        source: str,
        taught: Taught | None = None,
        here: LabelMemory | None = None,
    ) -> tuple[Masks, list[Classification]]:
        """One mask for each object with what it is; named ones first, best first.

        Args:
            memory: the examples.
            candidates: whose masks without a vector are unknown.
            source: digest of the picture.
            taught: outlines of this picture whose labels are known. They suppress what
                overlaps them, and no candidate gets a label that its outline was denied.
            here: the examples of this very picture, where they are enough to name others by
                themselves.
        """
        masks, described = candidates.masks, candidates.described
        labelled = self.labelled(memory, candidates, source=source)
        if here is not None:
            by_others = self._by(self._labeller_here, here, candidates, source)
            labelled = with_labels_of_this_picture(labelled, by_others)
        classifications = [Classification(None, None, 0.0)] * len(masks)
        for index, classification in zip(described.tolist(), labelled, strict=True):
            classifications[index] = classification
        if taught is not None:
            negatives, positives = taught.of(negative=True), taught.of(negative=False)
            classifications = apply_negative_outlines(masks, classifications, negatives)
            outlines, labels = self._classify_taught(memory, positives, source)
            masks = Masks.concatenate([outlines, masks])
            classifications = [*labels, *classifications]
        keep, by = suppress(
            masks, classifications,
            nesting=self._observed_nesting(memory),
            quality_weight=LEARNT_QUALITY if masks.rated_by == RATED_BY_EXAMPLES else QUALITY,
        )  # fmt: skip
        kept = with_voted_outlines(masks, classifications, keep, by) if self._vote else masks[keep]
        return kept, _with_suppressed(keep, classifications, masks, by)

    def labelled(
        self, memory: LabelMemory, candidates: Candidates, *, source: str | None = None
    ) -> list[Classification]:
        """What each mask with a vector is, by itself; takes what :meth:`name` does."""
        return self._by(self._labeller, memory, candidates, source)

    def _by(
        self, labeller: Labeller, memory: LabelMemory, candidates: Candidates, source: str | None
    ) -> list[Classification]:
        compared = candidates.masks[candidates.described]
        # Qualities compare with those of the examples' proposals if these are rated alike.
        rated_by = compared.rated_by or self._proposer
        alike = set(memory.examples().proposers) - {""} == {rated_by}
        return labeller.label(
            candidates.vectors,
            memory,
            qualities=compared.predicted_ious if alike else None,
            areas=compared.areas,
            source=source,
        )

    def with_neighbours(
        self,
        memory: LabelMemory,
        found: Detections,
        *,
        embed: Callable[[Masks], FloatArray],
    ) -> Detections:
        """What :meth:`name` gave, with what is nearest to those that were not compared.

        Args:
            embed: makes the vectors of masks.
        """
        classifications = list(found.classifications)
        # A labelled object was compared, also where its labeller names no neighbours.
        missing = [i for i, v in enumerate(classifications) if v.label is None and not v.neighbours]
        if not missing or not memory.examples().labels:
            return found
        compared = self._labeller.label(embed(found.masks[missing]), memory)
        for index, classification in zip(missing, compared, strict=True):
            # It was not compared, whatever it is similar to.
            decision: Decision = "unlike" if found.masks.excluded[index] else "other size"
            classifications[index] = _unknown(classification, decision, classification.neighbours)
        return replace(found, classifications=tuple(classifications))

    def _classify_taught(
        self, memory: LabelMemory, taught: Taught, source: str
    ) -> tuple[Masks, list[Classification]]:
        """Taught outlines with their labels, as far as the labeller gives these."""
        asked = self._labeller.labels
        wanted = [i for i, e in enumerate(taught.examples) if asked is None or e.label in asked]
        if not wanted:
            return taught.masks[[]], []
        examples = [taught.examples[i] for i in wanted]
        vectors = memory.vectors([each.id for each in examples])
        compared = self._labeller.label(
            vectors, memory, qualities=None, areas=taught.masks.areas[wanted], source=source
        )
        return taught.masks[wanted], [
            Classification(
                each.label,
                each.label,
                1.0,
                _first(each, classification.neighbours),
                taught=True,
                explanation=Explanation("taught here", 1.0, self._labeller.threshold),
            )
            for each, classification in zip(examples, compared, strict=True)
        ]

    def _observed_nesting(self, memory: LabelMemory) -> Nesting:
        generation = memory.generation
        if self._nesting is None or self._nesting[0] != generation:
            self._nesting = (generation, observed_nesting(memory.examples()))
        return self._nesting[1]


def with_labels_of_this_picture(
    by_all: Sequence[Classification], here: Sequence[Classification]
) -> list[Classification]:
    """What all examples say of some masks; of those that they do not know, what the examples of
    the same picture say, if the label is what all find nearest, too. Pictures differ: objects of
    a new kind of picture are far from all that was learnt in others."""
    return [
        other if each.label is None and other.label == each.best_label else each
        for each, other in zip(by_all, here, strict=True)
    ]


def apply_negative_outlines(
    masks: Masks, classifications: Sequence[Classification], denied: Taught
) -> list[Classification]:
    """The classifications; unknown where a label was denied to about this outline."""
    answers = list(classifications)
    labels = np.array([classification.label for classification in classifications], dtype=object)
    areas = masks.areas
    for index, example in enumerate(denied.examples):
        one, wrong = denied.masks[[index]], int(denied.masks.areas[index])
        # Cheap and necessary first: the others are too small or too large.
        fits = (areas >= DENIED_IOU * wrong) & (areas <= HELD_TIMES * wrong)
        for i in np.flatnonzero(fits & (labels == example.label)).tolist():
            shared = intersection(
                masks.crop(i), masks.boxes_xyxy[i].tolist(), one.crop(0), one.boxes_xyxy[0].tolist()
            )
            if (
                shared >= HELD_SHARE * wrong
                or shared >= DENIED_IOU * (int(areas[i]) + wrong - shared)
            ):  # fmt: skip
                neighbours = _first(example, classifications[i].neighbours)
                answers[i] = _unknown(classifications[i], "corrected here", neighbours)
    return answers


def _first(example: Neighbour, neighbours: Sequence[Neighbour]) -> tuple[Neighbour, ...]:
    """As many neighbours, of which the example of this very outline is the first."""
    others = (each for each in neighbours if each.id != example.id)
    return (example, *others)[: max(1, len(neighbours))]


def _unknown(
    classification: Classification, decision: Decision, neighbours: tuple[Neighbour, ...]
) -> Classification:
    """The classification without its label, whatever it is similar to."""
    explanation = classification.explanation
    if explanation is not None:
        explanation = replaced(explanation, decision=decision, confidence=0.0)
    return replaced(
        classification, label=None, confidence=0.0, neighbours=neighbours, explanation=explanation
    )


def _with_suppressed(
    keep: IntArray, classifications: Sequence[Classification], masks: Masks, by: IntArray
) -> list[Classification]:
    """The classifications of what is kept; their explanations have the candidates that each
    suppressed.

    Args:
        keep, by: of :func:`suppress`.
    """
    gone: dict[int, list[int]] = {}
    for index in np.flatnonzero(by >= 0).tolist():
        gone.setdefault(int(by[index]), []).append(index)
    boxes_xywh, answers = masks.boxes_xywh, []
    for index in keep.tolist():
        classification = classifications[index]
        surest = sorted(gone.get(index, ()), key=lambda i: -classifications[i].confidence)
        if classification.explanation is not None and surest:
            suppressed = tuple(
                Suppressed(
                    classifications[i].best_label,
                    float(classifications[i].confidence),
                    boxes_xywh[i].tolist(),
                )
                for i in surest[:MOST_SUPPRESSED]
            )
            explanation = replaced(
                classification.explanation, suppressed=suppressed, suppressed_count=len(surest)
            )
            classification = replaced(classification, explanation=explanation)
        answers.append(classification)
    return answers


def observed_nesting(examples: ExampleArrays) -> Nesting:
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


def suppress(
    masks: Masks,
    classifications: Sequence[Classification],
    *,
    nesting: Nesting = frozenset(),
    quality_weight: float = QUALITY,
) -> tuple[IntArray, IntArray]:
    """Indices to keep: named detections without duplicates, and unknown ones that do not overlap
    them. And for each mask the index of the best kept one that suppresses it; -1 where it is kept.

    Named ones come first, best first; unknown ones follow in the segmenter's order, and give way
    to named ones and to better unknown ones. What was taught in this picture comes before all
    others, in the given order; of two taught outlines that are about the same the first is kept.

    Args:
        nesting: pairs of (inner, outer) labels of which the one may lie in the other.
        quality_weight: of a proposal's log quality against the log-odds of its label.
    """
    known = [i for i, each in enumerate(classifications) if each.label is not None]
    unknown = [i for i, each in enumerate(classifications) if each.label is None]
    taught = [i for i in known if classifications[i].taught]
    odds = {
        i: _rank_odds(classifications[i].confidence, float(masks.predicted_ious[i]), quality_weight)
        for i in known
    }
    rank = taught + sorted(set(known) - set(taught), key=lambda i: (-odds[i], i))
    order = rank + unknown
    if not order:
        return np.zeros(0, np.int64), np.zeros(0, np.int64)
    worth = np.array([1 / (1 + math.exp(-odds[i])) - EVEN for i in rank])
    worth[: len(taught)] = math.inf
    names = [classifications[i].label for i in order]
    pairs = _clashing(masks[order], names, taught=len(taught), nesting=nesting)
    clashes = Clashes(len(order), pairs)
    named = Clashes(len(rank), pairs[pairs[:, 1] < len(rank)])
    best = exchange_for_several(sparse_nms(range(len(rank)), named, len(rank)), named, worth)
    rest = np.setdiff1d(np.arange(len(order)), best)
    kept = sorted(sparse_nms([*best, *rest.tolist()], clashes, len(order)))
    places, alive = np.array(order, np.int64), np.zeros(len(order), np.bool_)
    alive[kept] = True
    by = np.full(len(order), -1, np.int64)
    for index in np.flatnonzero(~alive).tolist():
        # Kept ones are in the order of their rank, so the first that overlaps is the best.
        around = clashes.of(index)
        by[places[index]] = places[around[alive[around]][0]]
    return places[kept], by


def _clashing(
    masks: Masks, names: Sequence[str | None], *, taught: int, nesting: Nesting
) -> IntArray:
    """``(P, 2)`` indices ``i < j`` of the masks that cannot both be objects.

    Args:
        taught: how many of the first ones were taught in this picture.
    """
    pairs = _may_clash(masks, meeting_boxes(masks.boxes_xyxy))
    shared = shared_pixels(masks.crop, masks.boxes_xyxy, pairs)
    pairs, shared = pairs[shared > 0], shared[shared > 0]
    one, other = masks.areas[pairs].T
    iou = shared / (one + other - shared)
    inside = shared / np.minimum(one, other) > INSIDE_SHARE
    codes = {name: code for code, name in enumerate(dict.fromkeys(names))}
    coded = np.array([codes[name] for name in names], np.int64)[pairs]
    # the label of the smaller one, then of the larger one; of equal ones none lies in the other
    ordered = np.where((one < other)[:, None], coded, coded[:, ::-1])
    nested = np.zeros((len(codes), len(codes)), np.bool_)
    for inner, outer in nesting:
        if inner in codes and outer in codes:
            nested[codes[inner], codes[outer]] = True
    may_nest = nested[ordered[:, 0], ordered[:, 1]] & (one != other)
    sure = (pairs < taught).sum(axis=1)
    # what a taught object shares is not another one's
    same = (coded[:, 0] == coded[:, 1]) | ((sure > 0) & ~may_nest)
    clash = np.where(same, iou > SAME_OBJECT_IOU, iou > DIFFERENT_LABEL_IOU)
    clash |= inside & ~may_nest
    clash = np.where(sure == 2, iou > DIFFERENT_LABEL_IOU, clash)
    return np.asarray(pairs[clash], np.int64)


def _may_clash(masks: Masks, pairs: IntArray) -> IntArray:
    """Those of ``(P, 2)`` pairs whose boxes share enough for the masks to clash: the masks share no
    more than that, so their pixels need not be looked at."""
    one, other = masks.boxes_xyxy[pairs].transpose(1, 0, 2)
    sides = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    most = sides.prod(axis=1)
    areas = masks.areas[pairs]
    least_iou = min(SAME_OBJECT_IOU, DIFFERENT_LABEL_IOU)
    enough = np.minimum(
        INSIDE_SHARE * areas.min(axis=1), least_iou / (1 + least_iou) * areas.sum(axis=1)
    )
    return np.asarray(pairs[most > enough], np.int64)


def exchange_for_several(
    kept: Sequence[int], clashes: Clashes, worth: npt.NDArray[np.float64]
) -> list[int]:
    """What is kept, where several that only one suppresses take its place if they are worth more.

    The best of overlapping masks may be two objects in one. The masks kept are a set of which no
    two clash, and this step of local search makes it worth more in sum; it ends, since there are
    finitely many sets.

    Args:
        kept: indices of masks of which no two clash.
        clashes: of N masks.
        worth: ``(N,)`` of each mask, above 0 where it is more likely right than wrong.
    """
    chosen = np.zeros(len(worth), np.bool_)
    chosen[list(kept)] = True
    again = True
    while again:
        again = False
        for one in np.flatnonzero(chosen).tolist():
            around = clashes.of(one)
            several: list[int] = []
            for other in around[~chosen[around] & (worth[around] > 0)].tolist():
                rivals = clashes.of(other)
                alone = np.count_nonzero(chosen[rivals]) == 1
                if alone and not np.isin(rivals, several).any():
                    several.append(other)
            if len(several) > 1 and worth[several].sum() > worth[one]:
                chosen[one], chosen[several], again = False, True, True
    return [int(index) for index in np.flatnonzero(chosen)]


def _rank_odds(confidence: float, quality: float, weight: float) -> float:
    odds = math.log(max(confidence, 1e-12) / max(1 - confidence, 1e-12))
    return odds + weight * math.log(max(quality, 1e-6))
