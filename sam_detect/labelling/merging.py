"""The outline of an object as the vote of all proposals that agree about it.

Of several proposals of one object the best is kept, and the others are suppressed. Their outlines
differ by a pixel here and there, and where most of them agree the object is. Each has as many votes
as it is likely to be right: its confidence times its quality.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from sam_detect.types import Classification, Masks
from sam_detect.types.masks import BoolArray, FloatArray, IntArray, encode_crop

AGREE = 0.6
"""IoU from which on a suppressed proposal is of the same object as the kept one."""


def with_voted_outlines(
    masks: Masks, classifications: Sequence[Classification], kept: IntArray, by: IntArray
) -> Masks:
    """The kept masks of N candidates; those with a label, but for taught ones, have the outline of
    the vote.

    Args:
        masks: of all candidates.
        classifications: of all candidates.
        kept: indices of those that were kept.
        by: ``(N,)`` the index of the kept one that suppresses each; -1 for none.
    """
    found = masks[kept]
    boxes, rles, areas = found.boxes_xyxy.copy(), list(found.crop_rles), found.areas.copy()
    for place, index in enumerate(kept.tolist()):
        classification = classifications[index]
        if classification.label is None or classification.taught:
            continue
        others = [
            i for i in np.flatnonzero(by == index).tolist()
            if classifications[i].label == classification.label
        ]  # fmt: skip
        voted = _vote(masks, index, others, [classifications[i].confidence for i in others],
                      classification.confidence)  # fmt: skip
        if voted is not None:
            (x, y), crop = voted
            boxes[place] = x, y, x + crop.shape[1], y + crop.shape[0]
            rles[place], areas[place] = encode_crop(crop), np.count_nonzero(crop)
    return replace(found, boxes_xyxy=boxes, crop_rles=tuple(rles), areas=areas)


def _vote(
    masks: Masks, index: int, others: list[int], confidences: Sequence[float], confidence: float
) -> tuple[tuple[int, int], BoolArray] | None:
    """Corner xy and crop of the outline; None where no other proposal agrees."""
    if not others:
        return None
    boxes = masks.boxes_xyxy[[index, *others]]
    (x0, y0), (x1, y1) = boxes[:, :2].min(axis=0).tolist(), boxes[:, 2:].max(axis=0).tolist()

    def drawn(which: int) -> BoolArray:
        mask = np.zeros((y1 - y0, x1 - x0), np.bool_)
        left, top, right, bottom = masks.boxes_xyxy[which].tolist()
        mask[top - y0 : bottom - y0, left - x0 : right - x0] = masks.crop(which)
        return mask

    own = drawn(index)
    votes: FloatArray = np.zeros(own.shape, np.float32)
    total, agreeing = 0.0, 0
    for which, sure in zip([index, *others], [confidence, *confidences], strict=True):
        mask = own if which == index else drawn(which)
        if np.count_nonzero(mask & own) < AGREE * np.count_nonzero(mask | own):
            continue
        weight = sure * float(masks.predicted_ious[which])
        votes += np.float32(weight) * mask
        total, agreeing = total + weight, agreeing + 1
    voted = votes > total / 2
    if agreeing < 2 or not voted.any():
        return None
    rows, columns = np.flatnonzero(voted.any(axis=1)), np.flatnonzero(voted.any(axis=0))
    crop = voted[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return (x0 + int(columns[0]), y0 + int(rows[0])), np.ascontiguousarray(crop)
