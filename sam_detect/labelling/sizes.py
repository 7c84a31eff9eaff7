"""Which sizes something that a library knows could have."""

from __future__ import annotations

import numpy as np

from sam_detect.labelling.evidence import expected_shift
from sam_detect.masks import BoolArray, IntArray
from sam_detect.types import ExampleArrays

REACH = 1.0
"""Log of the factor by which an object may be larger than any example of its label, or smaller."""
REACH_OF_ONE_PICTURE = 2.8
"""The same for labels known from one picture: the next may be taken from much nearer. The more
examples come from other pictures, the less of it is left (:func:`expected_shift`)."""


def areas_sought(examples: ExampleArrays) -> tuple[int, int] | None:
    """Pixels of the smallest and of the largest positive example; None where none is known."""
    known = examples.areas > 0
    if len(known):
        known &= ~np.asarray(examples.negatives, bool)
    return span(examples.areas[known])


def span(areas: IntArray) -> tuple[int, int] | None:
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
