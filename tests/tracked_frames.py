"""Tracked frames drawn by hand, and small sequences of them, for the tests of video outputs."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from sam_detect.types import Classification, Detections, Frame, Masks, Neighbour, TrackedFrame

SIDE = 12
"""Of the square that stands for each object, in pixels."""


def tracked(
    index: int = 0,
    objects: Mapping[int, tuple[str | None, tuple[int, int]]] | None = None,
    *,
    size_hw: tuple[int, int] = (48, 64),
    time_s: float | None = None,
    source_id: str = "clip.mp4",
    side: int = SIDE,
    key: bool = False,
) -> TrackedFrame:
    """A frame with a square for each object.

    Args:
        objects: track number to label and upper left corner; by default one nut that moves.
        time_s: 25 frames a second by default.
    """
    there = {1: ("nut", (4 + 2 * index, 10))} if objects is None else objects
    grey = 60 + (index * 7) % 120
    image = np.full((*size_hw, 3), grey, np.uint8)
    boxes, crops = [], []
    for track, (_, (x, y)) in there.items():
        x1, y1 = min(x + side, size_hw[1]), min(y + side, size_hw[0])
        boxes.append((x, y, x1, y1))
        crops.append(np.ones((y1 - y, x1 - x), np.bool_))
        image[y:y1, x:x1] = (200, (track * 40) % 256, 30)
    labels = [label for label, _ in there.values()]
    detections = Detections(
        source_id=source_id,
        masks=Masks.from_crops(size_hw=size_hw, boxes_xyxy=boxes, crops=crops),
        classifications=tuple(
            Classification(label, label or "nut", 0.75, (Neighbour("0a", "nut", 0.9),))
            for label in labels
        ),
    )
    frame = Frame(image, source_id, index, time_s=index / 25 if time_s is None else time_s)
    return TrackedFrame(frame, detections, np.array(list(there), np.int64), key)
