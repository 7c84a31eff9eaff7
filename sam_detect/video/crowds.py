"""Similar objects that overlap: which of them is in front, and where the other one goes."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import numpy as np

from sam_detect.types import ImageRGB
from sam_detect.types.masks import IntArray
from sam_detect.video.association import shared_of_smaller
from sam_detect.video.track import Track

ONE_SIZE = 0.5
"""Least size ratio of two objects that can be confused when they overlap."""
TOUCHING_SHARE, COVERED_SHARE = 0.1, 0.6
"""Overlap of two objects that touch, and of two where one covers the other, as a share of the
smaller."""


def keep_apart(tracks: Sequence[Track], image_rgb: ImageRGB) -> None:
    """Resolves overlaps of similar objects, which the flow cannot tell apart: both keep their
    last velocity. While one covers the other, the one that deviates more from it is behind."""
    met: set[int] = set()
    boxes = np.array([track.body.box_xyxy for track in tracks], np.int64).reshape(-1, 4)
    for place, one in enumerate(tracks):
        for later in _overlapping_later(boxes, place):
            other = tracks[later]
            common = _overlap_of_similar(one, other, image_rgb)
            if not common:
                continue
            back = max(one, other, key=lambda t: (t.behind, t.hidden, t.deviation_px))
            for each in (one, other):
                each.keep_going(behind=each is back and common > COVERED_SHARE)
            boxes[place], boxes[later] = one.body.box_xyxy, other.body.box_xyxy
            met |= {one.id, other.id}
    for track in tracks:
        track.crowded = track.id in met
        track.behind &= track.crowded
        if track.crowded:  # a propagator does not tell the two apart, either
            track.memory = None


def _overlapping_later(boxes_xyxy: IntArray, place: int) -> Iterator[int]:
    """Indices of the later boxes that overlap one, by their state when each is reached. So hundreds
    of objects need not be compared pairwise."""
    after = place
    while True:
        box, rest = boxes_xyxy[place], boxes_xyxy[after + 1 :]
        lowest, highest = np.maximum(rest[:, :2], box[:2]), np.minimum(rest[:, 2:], box[2:])
        found = np.flatnonzero((lowest < highest).all(axis=1))
        if not len(found):
            return
        after += 1 + int(found[0])
        yield after


def _overlap_of_similar(one: Track, other: Track, image_rgb: ImageRGB) -> float:
    """Overlap of two objects of one label, as a share of the smaller, if they are similar and did
    not touch at the last key frame; 0 otherwise."""
    sizes = sorted((one.body.area, other.body.area))
    if one.classification.label != other.classification.label or sizes[0] < ONE_SIZE * sizes[1]:
        return 0.0
    common = shared_of_smaller(one.body, other.body)
    if common < TOUCHING_SHARE or (one.hidden and other.hidden):
        return 0.0
    apart = shared_of_smaller(one.anchor, other.anchor) < TOUCHING_SHARE
    met_before = one.crowded and other.crowded
    return common if apart and (met_before or one.resembles(other, image_rgb)) else 0.0
