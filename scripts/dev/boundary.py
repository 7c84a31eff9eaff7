"""How well the edge of a mask agrees with the edge of the truth."""

from __future__ import annotations

import math

import cv2
import numpy as np

from sam_detect.errors import MaskError
from sam_detect.types.masks import BoolArray

TOLERANCE = 0.008
"""Distance within which two edges agree, as a share of the picture's diagonal, as in DAVIS."""


def boundary_f(mask: BoolArray, truth: BoolArray, *, tolerance: float = TOLERANCE) -> float:
    """F measure of the edge of a mask, 0 to 1 (Perazzi et al. 2016, DAVIS: "contour accuracy").

    Precision is the share of the mask's edge that lies within the tolerance of the truth's edge,
    recall the share of the truth's edge within the tolerance of the mask's; F is their harmonic
    mean. Two masks without an edge agree: 1.

    Args:
        mask, truth: ``(H, W)`` bool.
        tolerance: in shares of the picture's diagonal, rounded up to whole pixels.

    Raises:
        MaskError: the two have different sizes.
    """
    if mask.shape != truth.shape:
        raise MaskError(f"a mask has the size of its truth, {truth.shape}; got {mask.shape}")
    radius = max(1, math.ceil(tolerance * math.hypot(*mask.shape)))
    edges = [_edge(each) for each in (mask, truth)]
    across = np.arange(-radius, radius + 1)
    disk = (across[:, None] ** 2 + across**2 <= radius**2).astype(np.uint8)
    near = [cv2.dilate(each.view(np.uint8), disk).view(np.bool_) for each in edges]
    counts = [int(np.count_nonzero(each)) for each in edges]
    if not all(counts):
        return float(not any(counts))
    precision = np.count_nonzero(edges[0] & near[1]) / counts[0]
    recall = np.count_nonzero(edges[1] & near[0]) / counts[1]
    return float(2 * precision * recall / (precision + recall)) if precision + recall else 0.0


def _edge(mask: BoolArray) -> BoolArray:
    """The pixels that differ from the one to the right, below, or below to the right."""
    beyond = np.pad(mask, ((0, 1), (0, 1)), mode="edge")
    here = np.ascontiguousarray(mask, np.bool_)
    right, below, both = beyond[:-1, 1:], beyond[1:, :-1], beyond[1:, 1:]
    return np.asarray((here != right) | (here != below) | (here != both), np.bool_)
