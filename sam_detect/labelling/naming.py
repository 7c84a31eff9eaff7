"""From the vectors of a picture's proposals to its detections."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np

from sam_detect.interfaces import Labeller, LabelMemory
from sam_detect.labelling.decision import plausible_sizes
from sam_detect.labelling.suppression import Nesting, seen_nesting, suppressed_by
from sam_detect.masks import FloatArray, IntArray, intersection_matrix
from sam_detect.types import (
    Candidates,
    Classification,
    Detections,
    Explanation,
    Masks,
    Neighbour,
    Taught,
)
from sam_detect.types.explanation import MOST_SUPPRESSED, Decision, Suppressed

DENIED_IOU = 0.65
"""In a picture that was corrected, what overlaps a negative so much is the same wrong find:
else another proposal of it takes its place at once."""
HELD_SHARE = 0.9
"""So is what holds so much of a negative..."""
HELD_TIMES = 5.0
"""... and is not more than so many times larger: the wrong find with what lies around it."""


def plausible(masks: Masks, memory: LabelMemory) -> IntArray:
    """Indices of the masks that are of a size which something in the memory could have."""
    return np.flatnonzero(plausible_sizes(masks.areas, memory.examples()))


def _without_denied(
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
            both = Masks.concatenate([masks[[i]], one])
            shared = intersection_matrix(both.crops(), both.boxes_xyxy, both.areas)[0, 1]
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
        explanation = replace(explanation, decision=decision, confidence=0.0)
    return replace(
        classification, label=None, confidence=0.0, neighbours=neighbours, explanation=explanation
    )


def _with_suppressed(
    index: int, classifications: Sequence[Classification], masks: Masks, by: IntArray
) -> Classification:
    """A detection's classification; its explanation has the candidates that it suppressed.

    Args:
        by: of :func:`~sam_detect.labelling.suppression.suppressed_by`.
    """
    classification = classifications[index]
    gone = sorted(
        np.flatnonzero(by == index).tolist(), key=lambda i: -classifications[i].confidence
    )
    if classification.explanation is None or not gone:
        return classification
    corners = masks.boxes_xyxy
    suppressed = tuple(
        Suppressed(
            classifications[i].best_label,
            float(classifications[i].confidence),
            [*corners[i, :2].tolist(), *(corners[i, 2:] - corners[i, :2]).tolist()],
        )
        for i in gone[:MOST_SUPPRESSED]
    )
    explanation = replace(
        classification.explanation, suppressed=suppressed, suppressed_count=len(gone)
    )
    return replace(classification, explanation=explanation)


class Naming:
    """Names proposals by the examples of a memory, and keeps one for each object.

    Args:
        labeller: names vectors.
        proposer: name of the segmenter whose proposals are named.
    """

    def __init__(self, labeller: Labeller, proposer: str) -> None:
        self._labeller = labeller
        self._proposer = proposer
        self._nesting: tuple[str, Nesting] | None = None

    def name(
        self,
        memory: LabelMemory,
        candidates: Candidates,
        *,
        source: str,
        taught: Taught | None = None,
    ) -> tuple[Masks, list[Classification]]:
        """One mask for each object with what it is; named ones first, best first.

        Args:
            memory: the examples.
            candidates: whose masks without a vector are unknown.
            source: digest of the picture.
            taught: outlines of this picture whose labels are known. They win against what
                overlaps them, and no candidate gets a label that its outline was denied.
        """
        masks, described = candidates.masks, candidates.described
        given = None if taught is None else self._given(memory, taught.of(negative=False), source)
        compared = masks[described]
        labelled = self._labeller.label(
            candidates.vectors,
            memory,
            qualities=self._comparable_qualities(memory, compared),
            areas=compared.areas,
            source=source,
        )
        classifications = [Classification(None, None, 0.0)] * len(masks)
        for index, classification in zip(described.tolist(), labelled, strict=True):
            classifications[index] = classification
        if taught is not None and given is not None:
            classifications = _without_denied(masks, classifications, taught.of(negative=True))
            masks = Masks.concatenate([given[0], masks])
            classifications = [*given[1], *classifications]
        keep, by = suppressed_by(masks, classifications, nesting=self._seen_nesting(memory))
        return masks[keep], [_with_suppressed(i, classifications, masks, by) for i in keep.tolist()]

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
            # Its size alone made it unknown, whatever it looks like.
            classifications[index] = _unknown(
                classification, "other size", classification.neighbours
            )
        return replace(found, classifications=tuple(classifications))

    def _given(
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

    def _comparable_qualities(self, memory: LabelMemory, masks: Masks) -> FloatArray | None:
        """The proposals' qualities, if the examples' are of the same segmenter."""
        known = set(memory.examples().proposers) - {""}
        return masks.predicted_ious if known == {self._proposer} else None

    def _seen_nesting(self, memory: LabelMemory) -> Nesting:
        """Which labels lie inside which in the memory's own pictures, looked at once."""
        generation = memory.generation
        if self._nesting is None or self._nesting[0] != generation:
            self._nesting = (generation, seen_nesting(memory.examples()))
        return self._nesting[1]
