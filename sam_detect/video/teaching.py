"""What is taught while a video runs: learnt in the background, and tied to its track.

An object that is taught is on a track from then on: on that which it was on in the frame where it
was shown, or on a new one. The track has its label at once, and keeps it until another one is
taught or this one is taken back. What was learnt from a track can be taken back from the library.
"""

from __future__ import annotations

import queue
import weakref
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from itertools import count
from typing import Any

import numpy as np

from sam_detect.errors import ConfigError
from sam_detect.library.history import Added, LearningBatch
from sam_detect.pipeline.flow import Pipeline
from sam_detect.types import Frame, Masks, TrackedFrame
from sam_detect.types.labels import normalised_label
from sam_detect.types.masks import IntArray
from sam_detect.types.overlaps import ious
from sam_detect.video.appearance import SoftMask
from sam_detect.video.association import SAME_IOU
from sam_detect.video.motion import Flow
from sam_detect.video.track import carry_mask
from sam_detect.video.tracks import Tracks

UNDOABLE = 16
"""Learnt objects for which a negative teaches negatives, the latest ones; each holds its frame."""
KEPT_FRAMES = 64
"""Frames after which an object that was shown in one is no longer carried to the present one, but
is found at the next key frame."""


@dataclass(frozen=True, kw_only=True)
class Taught(Added):
    """What teaching an object did.

    Attributes:
        track_id: its track; 0 where objects are not followed, or a negative was on no track.
    """

    track_id: int = 0


@dataclass(frozen=True, eq=False)
class _LearntObject:
    """An object that is learnt, with its track (0: untracked) and its outline."""

    track_id: int
    label: str
    frame: Frame
    masks: Masks


@dataclass(frozen=True, eq=False)
class _GivenFrame:
    """A frame that was given: its objects, and the coarse flow from the frame before.

    It does not hold the picture.
    """

    frame: weakref.ref[Frame]
    masks: Masks
    track_ids: IntArray
    flow: Flow | None


@dataclass(frozen=True, eq=False)
class _TaughtObject:
    """What the tracks are told: that an object has a label.

    Attributes:
        given: the object.
        redraw: whether its outline replaces that of its track.
    """

    given: _LearntObject
    redraw: bool


@dataclass(frozen=True, eq=False)
class _DeniedLabel:
    """What the tracks are told: that a track does not have a label, or with None not the one that
    it was taught. Key frames name it again."""

    track_id: int
    label: str | None


class Teacher:
    """Learns the objects that are shown in frames of a stream, and names their tracks.

    Args:
        pipeline: learns.
        run: runs work that must not overlap with a detection, in the background.
        follow: whether objects are followed.
    """

    def __init__(
        self, pipeline: Pipeline, run: Callable[[Callable[[], Any]], Future[Any]], *, follow: bool
    ) -> None:
        self._pipeline, self._run, self._follow = pipeline, run, follow
        self._given: tuple[_GivenFrame, ...] = ()
        self._changes: queue.SimpleQueue[_TaughtObject | _DeniedLabel] = queue.SimpleQueue()
        self._learnt: list[_LearntObject] = []
        self._batches: list[tuple[int, str]] = []
        self.track_ids = count(1)

    def note(self, tracked: TrackedFrame, flow: Flow | None) -> None:
        """A frame is given, with the flow from the one before; None after a cut."""
        latest = _GivenFrame(
            weakref.ref(tracked.frame), tracked.detections.masks, tracked.track_ids,
            None if flow is None else flow.coarse(),
        )  # fmt: skip
        before = () if flow is None else self._given
        self._given = (*before, latest)[-KEPT_FRAMES:]  # never changed: other threads read it

    def teach(
        self,
        frame: Frame,
        outline: Masks | Future[Masks],
        label: str,
        *,
        negative: bool = False,
        track_id: int = 0,
    ) -> Future[Taught]:
        """What :meth:`sam_detect.video.stream.Stream.learn_outlined` does."""
        label = normalised_label(label)

        def tell(masks: Masks) -> _LearntObject:
            on = track_id or self._track_of(frame, masks, begin=not negative)
            given = _LearntObject(on, label, frame, masks)
            if on:
                redraw = not track_id
                change = (
                    _DeniedLabel(on, label) if negative else _TaughtObject(given, redraw=redraw)
                )
                self._changes.put(change)
            return given

        told = tell(outline) if isinstance(outline, Masks) else None

        def work() -> Taught:
            given = told or tell(outline if isinstance(outline, Masks) else outline.result())
            try:
                return self._learn(given, negative=negative)
            except BaseException:
                self._changes.put(_DeniedLabel(given.track_id, label))
                raise

        return self._run(work)

    def take_back(self, track_id: int | None) -> Future[list[LearningBatch]]:
        """What :meth:`sam_detect.video.stream.Stream.take_back` does."""

        def work() -> list[LearningBatch]:
            if not self._batches or track_id not in {None, *(on for on, _ in self._batches)}:
                which = "any track" if track_id is None else f"track {track_id}"
                raise ConfigError(
                    f"nothing was taught on {which} in this session that could be taken back"
                )
            track = self._batches[-1][0] if track_id is None else track_id
            library = self._pipeline.library
            there = {entry.id for entry in library.log()}
            mine = [batch for on, batch in reversed(self._batches) if on == track]
            undone = [library.undo(batch) for batch in mine if batch in there]
            self._batches = [each for each in self._batches if each[0] != track]
            self._learnt = [each for each in self._learnt if each.track_id != track]
            self._changes.put(_DeniedLabel(track, None))
            return undone

        return self._run(work)

    def tell(self, tracks: Tracks, frame: Frame, flow: Flow | None) -> None:
        """Tells the tracks what was taught since the last frame.

        Args:
            tracks: in the present frame.
            frame: the present one.
            flow: from the frame that was given last; None after a cut.
        """
        for _ in range(self._changes.qsize()):  # more may come meanwhile, from other threads
            change = self._changes.get()
            if isinstance(change, _DeniedLabel):
                tracks.remove_label(change.track_id, change.label)
                continue
            given, outline, taught_in = change.given, None, None
            if change.redraw or given.track_id not in tracks:
                outline = self._carried(given, flow)
            if outline is not None:
                taught_in = given.frame, SoftMask.of(given.masks, 0)
            tracks.name(given.track_id, given.label, frame, outline, taught_in=taught_in)

    def _carried(self, taught: _LearntObject, flow: Flow | None) -> SoftMask | None:
        """The outline in the present frame; None where it is too old, or of another scene."""
        given = self._given
        place = _place(given, taught.frame)
        if flow is None or place is None or not len(taught.masks):
            return None
        flows = [each.flow for each in given[place + 1 :] if each.flow is not None]
        return carry_mask(SoftMask.of(taught.masks, 0), [*flows, flow])[0]

    def _learn(self, given: _LearntObject, *, negative: bool) -> Taught:
        learnt = [given]
        if negative:  # all that was learnt from the same track under the same label was wrong
            of = given.track_id, given.label
            wrong = [each for each in self._learnt if (each.track_id, each.label) == of]
            self._learnt = [each for each in self._learnt if each not in wrong]
            learnt = [*wrong, given]
        elif given.track_id:
            self._learnt = [*self._learnt, given][-UNDOABLE:]
        for each in learnt:
            labels = [each.label] * len(each.masks)
            added = self._pipeline.learn(each.frame, each.masks, labels, negative=negative)
            if given.track_id:
                self._batches.append((given.track_id, added.batch))
        return Taught(**vars(added), track_id=given.track_id)

    def _track_of(self, frame: Frame, masks: Masks, *, begin: bool) -> int:
        """The track of an outline in a frame that was given lately; a new one, or 0, where it is on
        none."""
        given = self._given
        place = _place(given, frame)
        if not self._follow or place is None or not len(masks):
            return 0
        overlaps = ious(masks, given[place].masks)[0]
        if overlaps.max(initial=0) > SAME_IOU:
            return int(given[place].track_ids[int(np.argmax(overlaps))])
        return next(self.track_ids) if begin else 0


def _place(given: tuple[_GivenFrame, ...], frame: Frame) -> int | None:
    """Where a frame is among those that were given lately."""
    return next((place for place, each in enumerate(given) if each.frame() is frame), None)
