"""One detection per object: which of many overlapping proposals to keep.

Proposals are nested and overlap on purpose (a date, the date with its shadow, its highlight).
Named ones compete by confidence and quality; one that mostly lies inside or around a better one
gives way, so that no mask swallows several objects and no part stands beside its whole.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from sam_detect.masks import intersection_matrix, nms
from sam_detect.types import Masks, Verdict

SAME_OBJECT_IOU = 0.3
"""Two masks of one label that overlap more are one object."""
INSIDE_SHARE = 0.6
"""A mask of which more lies within a better one of the same label is a part of it."""
DIFFERENT_LABEL_IOU = 0.5
"""Masks of different labels may nest (food on a plate), but not coincide."""


def one_per_object(masks: Masks, verdicts: Sequence[Verdict]) -> npt.NDArray[np.int64]:
    """Indices to keep: named detections without duplicates, and unknown ones that none covers.

    Named ones come first, best first; unknown ones follow in the segmenter's order.
    """
    known = [i for i, verdict in enumerate(verdicts) if verdict.label is not None]
    unknown = [i for i, verdict in enumerate(verdicts) if verdict.label is None]
    rank = sorted(
        known, key=lambda i: (-verdicts[i].confidence * masks.predicted_ious[i] ** 0.5, i)
    )
    order = rank + unknown
    if not order:
        return np.zeros(0, np.int64)
    chosen = masks[order]
    shared = intersection_matrix(chosen.crops(), chosen.boxes_xyxy, chosen.areas)
    areas = chosen.areas
    iou = shared / np.maximum(areas[:, None] + areas[None, :] - shared, 1)
    inside = shared / np.minimum(areas[:, None], areas[None, :])
    labels = np.array([verdicts[i].label for i in order], dtype=object)
    same = labels[:, None] == labels[None, :]
    nested = (inside > INSIDE_SHARE) & same
    limits = np.where(same, SAME_OBJECT_IOU, DIFFERENT_LABEL_IOU)
    clash = ((iou > limits) | nested).astype(np.float64)
    named = np.arange(len(order)) < len(rank)
    # Unknown proposals only give way to named ones: what is unknown may be anything.
    clash[np.ix_(~named, ~named)] = iou[np.ix_(~named, ~named)] > DIFFERENT_LABEL_IOU
    kept = nms(range(len(order)), clash, 0.5)
    return np.array([order[i] for i in kept], dtype=np.int64)
