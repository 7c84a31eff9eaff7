"""When two results count as the same.

Floating-point arithmetic gives other last bits with another processor, batch size or number of
threads. No test may rest on those bits: vectors and masks are compared here with the tolerance
that ``sam_detect.interfaces`` promises.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from sam_detect.types import Masks
from sam_detect.types.masks import intersection

VECTOR_TOLERANCE = 1e-6
"""Largest difference of a component, as ``Embedder.embed`` promises."""
SCORE_TOLERANCE = 1e-5
"""Of a confidence or quality: a steep function of similarities, it magnifies their last bits."""
MASK_IOU = 0.99


def assert_same_vectors(found: npt.NDArray[Any], expected: npt.NDArray[Any]) -> None:
    """Both are ``(N, D)`` or ``(D,)`` and equal within :data:`VECTOR_TOLERANCE`."""
    assert found.shape == expected.shape
    np.testing.assert_allclose(found, expected, rtol=0, atol=VECTOR_TOLERANCE)


def same_vectors(one: npt.NDArray[Any], other: npt.NDArray[Any]) -> bool:
    """Whether both are equal within :data:`VECTOR_TOLERANCE`."""
    return one.shape == other.shape and np.allclose(one, other, rtol=0, atol=VECTOR_TOLERANCE)


def same_masks(one: Masks, other: Masks) -> bool:
    """Whether two batches hold the same masks, in the same order, with the same scores.

    Pixels at a mask's edge may differ (IoU at least :data:`MASK_IOU`), since the edge is a
    threshold on floating-point values.
    """
    if len(one) != len(other) or one.size_hw != other.size_hw:
        return False
    for mine, my_box, theirs, their_box in zip(
        one.crops(), one.boxes_xyxy, other.crops(), other.boxes_xyxy, strict=True
    ):
        shared = intersection(mine, my_box, theirs, their_box)
        if shared < MASK_IOU * (mine.sum() + theirs.sum() - shared):
            return False
    return np.allclose(
        (one.predicted_ious, one.stabilities),
        (other.predicted_ious, other.stabilities),
        rtol=0,
        atol=SCORE_TOLERANCE,
        equal_nan=True,
    )
