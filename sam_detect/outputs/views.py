"""A good view of each new object of a video, cut out with what lies around it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from sam_detect.types import Detections, Frame, Masks, TrackedFrame, Verdict

CONTEXT = 3.0
"""Side of a view, in sides of its object: more than a crop of an example needs."""
LEAST_SIDE_PX = 96
PATIENCE = 25
"""Frames that a view without the picture's border in the way is waited for."""


@dataclass(frozen=True, eq=False)
class View:
    """One object, cut out of a frame.

    Attributes:
        track_id: its track.
        frame: the cut, with the index and the time of the frame that it is of.
        masks: the object in it, alone.
        verdict: what its track was called when it was last seen.
        cut_off: whether it reached the border of the picture.
    """

    track_id: int
    frame: Frame
    masks: Masks
    verdict: Verdict
    cut_off: bool


@dataclass
class _Candidate:
    view: View
    seen: int
    last_seen: int


class FirstViews:
    """Chooses a view of each track: the first one in which the object lies wholly in the picture.

    Args:
        settled: frames that a track must have been seen in before its view is given.
    """

    def __init__(self, *, settled: int) -> None:
        self._settled = settled
        self._frames = 0
        self._waiting: dict[int, _Candidate] = {}
        self._given: set[int] = set()

    def add(self, tracked: TrackedFrame) -> Iterator[View]:
        """Takes the next frame; gives the views that are settled by it."""
        self._frames += 1
        for index, track in enumerate(tracked.track_ids.tolist()):
            if track and track not in self._given:
                self._see(track, tracked, index)
        yield from self._give([t for t, c in self._waiting.items() if self._is_settled(c)])

    def rest(self) -> Iterator[View]:
        """The views of tracks that had not settled when the video ended."""
        yield from self._give(list(self._waiting))

    def _see(self, track: int, tracked: TrackedFrame, index: int) -> None:
        before = self._waiting.get(track)
        verdict = tracked.detections.verdicts[index]
        if before is None or (before.view.cut_off and not _cut_off(tracked.detections, index)):
            view = cut(tracked, index)
        else:
            view = replace(before.view, verdict=verdict)
        seen = 1 if before is None else before.seen + 1
        self._waiting[track] = _Candidate(view, seen, self._frames)

    def _is_settled(self, candidate: _Candidate) -> bool:
        waited = max(candidate.seen, self._frames - candidate.last_seen)
        enough = candidate.seen >= self._settled and not candidate.view.cut_off
        return enough or waited > max(PATIENCE, self._settled)

    def _give(self, tracks: list[int]) -> Iterator[View]:
        for track in tracks:
            self._given.add(track)
            yield self._waiting.pop(track).view


def cut(tracked: TrackedFrame, index: int) -> View:
    """The view of one object of a frame."""
    found, frame = tracked.detections, tracked.frame
    x0, y0, x1, y1 = found.boxes_xyxy[index].tolist()
    height, width = frame.size_hw
    half = max(CONTEXT * max(x1 - x0, y1 - y0), LEAST_SIDE_PX) / 2
    left, top = max(0, int((x0 + x1) / 2 - half)), max(0, int((y0 + y1) / 2 - half))
    right = min(width, int((x0 + x1) / 2 + half) + 1)
    bottom = min(height, int((y0 + y1) / 2 + half) + 1)
    # A copy: a view of the array would keep the whole frame.
    part = replace(frame, image_rgb=np.array(frame.image_rgb[top:bottom, left:right]))
    masks = Masks.from_crops(
        size_hw=part.size_hw,
        boxes_xyxy=np.array([[x0 - left, y0 - top, x1 - left, y1 - top]]),
        crops=[found.masks.crop(index)],
    )
    return View(
        int(tracked.track_ids[index]), part, masks, found.verdicts[index], _cut_off(found, index)
    )


def _cut_off(found: Detections, index: int) -> bool:
    x0, y0, x1, y1 = found.boxes_xyxy[index].tolist()
    height, width = found.size_hw
    return bool(x0 <= 0 or y0 <= 0 or x1 >= width or y1 >= height)
