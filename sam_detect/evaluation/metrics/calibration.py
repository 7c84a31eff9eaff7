"""Whether confidence is the share of right names: reliability curve, expected calibration error.

Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, section 2 (the estimate of
Naeini et al., AAAI 2015). For detectors, precision takes the place of accuracy (Küppers et al.,
"Multivariate Confidence Calibration for Object Detection", CVPR Workshops 2020).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np

from sam_detect.evaluation.comparison import Comparison, match

BINS = 10
"""Bins of equal width, over confidences of 0 to 1."""


@dataclass(frozen=True)
class ReliabilityBin:
    """The labelled detections whose confidence is above ``low`` and at most ``high``.

    Attributes:
        count: how many; at least one.
        confidence: their mean confidence, 0 to 1.
        precision: the share of them that are right, 0 to 1.
    """

    low: float
    high: float
    count: int
    confidence: float
    precision: float


def reliability(
    comparisons: Iterable[Comparison], iou_threshold: float
) -> tuple[ReliabilityBin, ...]:
    """The bins that have detections, by confidence.

    Right is what :func:`~sam_detect.evaluation.comparison.match` pairs with an object of its label.
    Unknown detections have no name that could be right, and excused ones that find no object count
    neither way: both are left out.
    """
    confidences, right = [np.zeros(0)], [np.zeros(0, np.bool_)]
    for each in comparisons:
        matches = match(each, iou_threshold)
        found = matches.objects >= 0
        counted = found | matches.false
        confidences.append(each.scores[counted])
        right.append(found[counted])
    confidence, hit = np.concatenate(confidences), np.concatenate(right)
    edges = np.linspace(0, 1, BINS + 1)
    place = np.clip(np.searchsorted(edges, confidence) - 1, 0, BINS - 1)
    return tuple(
        ReliabilityBin(
            float(edges[index]),
            float(edges[index + 1]),
            int(np.count_nonzero(mine)),
            float(confidence[mine].mean()),
            float(hit[mine].mean()),
        )
        for index in range(BINS)
        if (mine := place == index).any()
    )


def expected_calibration_error(bins: Sequence[ReliabilityBin]) -> float | None:
    """``sum_b n_b / N |precision_b - confidence_b|``, 0 to 1; None without detections."""
    total = sum(each.count for each in bins)
    if not total:
        return None
    return sum(each.count * abs(each.precision - each.confidence) for each in bins) / total
