"""``SAMDetect.stream``: the objects of a video, frame by frame, each with its track.

The detector runs at key frames only, on a background thread (``key_frames``). In between, masks are
carried by optical flow (``motion``), and carried masks keep their identity (``tracks``).

* Of a file no frame is lost and the result is always the same: a key frame waits for its
  detection, while the frames after it are read and compared.
* Of a live source the newest frame counts: the stream continues during a detection, whose result
  is carried from its key frame to the present frame.
"""

from __future__ import annotations

import contextlib
import copy
import threading
import time
import weakref
from collections.abc import Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from sam_detect.config import Settings
from sam_detect.errors import ConfigError
from sam_detect.interfaces import Source
from sam_detect.io.video import PacedSource, open_source
from sam_detect.library.history import LearningBatch
from sam_detect.pipeline.flow import Pipeline
from sam_detect.pipeline.scheduling import short_switch_interval
from sam_detect.types import Frame, Masks, TrackedFrame
from sam_detect.video.appearance import SoftMask
from sam_detect.video.key_frames import KeyFrameDetector, Schedule
from sam_detect.video.motion import Flows, Motion
from sam_detect.video.propagators import find_propagator
from sam_detect.video.statistics import Statistics
from sam_detect.video.teaching import Taught, Teacher
from sam_detect.video.threads import WAKE_S, Arrival, Reader
from sam_detect.video.tracks import KeyFrameResult, Tracks, TrackSnapshot

STOP_S = 0.8
"""How long closing waits for the reading and the detecting thread."""
FIRST_S = 2.0
"""How long the detector of a live source leaves the processor to those that are followed already,
where they were taught in its first picture."""
REST = 1.0
"""How long it rests after a key frame, as a share of the time that it took, where a propagator
carries what it found."""


class Stream(Iterator[TrackedFrame]):
    """The objects of a video's frames, in order. Close it, or use it in ``with``.

    Args:
        pipeline: detects in the key frames.
        source: gives the frames.
        every: frames from one key frame to the next, at most.
        live: whether the newest frame counts and others may be dropped.
        unknown: whether unknown objects are tracked, too.
        track: whether objects are tracked at all; otherwise every frame is a key frame.
        propagate: what carries masks, one of :data:`sam_detect.video.propagators.PROPAGATE`.

    Attributes:
        statistics: what happened so far.
        name: of the source, without the secrets of an address.
        live: whether the newest frame counts.

    Raises:
        ConfigError: ``every`` is less than 1, or masks cannot be carried in this way.
    """

    def __init__(
        self,
        pipeline: Pipeline,
        source: Source,
        *,
        every: int = 10,
        live: bool = False,
        unknown: bool = False,
        track: bool = True,
        propagate: str = "auto",
    ) -> None:
        if every < 1:
            raise ConfigError(f"every must be at least 1 frame, got {every}")
        self._pipeline, self._unknown, self._track = pipeline, unknown, track
        propagator = find_propagator(propagate, live=live, segmenter=pipeline.segmenter)
        threshold = pipeline.labeller.threshold
        self._motion = Motion()
        self._key_frames = KeyFrameDetector(pipeline, separate=not track, live=live)
        self._teacher = Teacher(pipeline, self._key_frames.run, follow=track)
        self._tracks = Tracks(
            threshold=threshold, unknown=unknown, propagator=propagator, ids=self._teacher.track_ids
        )
        self._pending: Future[KeyFrameResult] | None = None
        self._outdated: Future[KeyFrameResult] | None = None
        self._then = TrackSnapshot(Masks.empty((0, 0)), ())
        self._since = Flows()
        self._schedule = Schedule(every)
        self._lookahead: Schedule | None = None
        self._present: TrackedFrame | None = None
        self._learnt = False
        self._rest = 0.0 if propagator is None else REST
        self._asked_s = self._rest_until_s = 0.0
        self._stopping = threading.Lock()
        self._closing: Future[None] = Future()
        self._leave_s = 0.0
        self.statistics = Statistics()
        self.name, self.live = source.name, live
        self._source = source
        threads = contextlib.ExitStack()
        if live:
            threads.enter_context(short_switch_interval())
        threads.callback(self._key_frames.stop)
        self._reader = Reader(source, live=live, prepare=self._motion.next)
        threads.callback(self._reader.stop)
        # A stream that is not closed leaves no thread behind.
        self._stop_threads = weakref.finalize(self, threads.close)

    def __next__(self) -> TrackedFrame:
        """The next frame, as soon as it is there.

        Raises:
            ImageError: a frame could not be read; asking again gives the one after it.
        """
        try:
            arrival = next(self._reader)
        finally:
            self.statistics.reconnects = self._source.reconnects
            self.statistics.damaged = self._source.damaged
        try:
            return self._tracked(arrival)
        except BaseException:
            self.close()
            raise

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """Stops reading and detecting, within about a second; may be called twice, and from another
        thread, whose wait for the next frame then ends the iteration."""
        with self._stopping:
            if not self._closing.done():
                self._closing.set_result(None)
                self._leave_s = time.monotonic() + STOP_S
        pending = self._pending
        if pending is not None:
            pending.cancel()  # where it has not begun
        self._stop_threads()
        for each in (self._reader, self._key_frames):
            each.wait(max(0.0, self._leave_s - time.monotonic()))

    def learn(self, track_id: int, label: str, *, negative: bool = False) -> Future[Taught]:
        """Learns the object of a track as it is in the last frame that was given.

        The track has this label from the next frame on, whatever key frames say of it. Learning
        runs in the background; the next frames use it, and so does the library. Earlier votes of
        the tracks are discarded: the next key frames label the others again.

        Args:
            track_id: of an object of that frame.
            label: its label, or with ``negative`` a label it does *not* have: then all that was
                learnt from this track under it becomes a negative, too.

        Raises:
            ConfigError: no object of that frame has this track, or objects are not followed.
            LibraryError: the name is empty.
        """
        if not self._track:
            raise ConfigError("objects are on no track where the stream does not follow them")
        given = self._present  # read once: another thread may be taking the next frame
        places = [] if given is None else np.flatnonzero(given.track_ids == track_id).tolist()
        if given is None or not places:
            raise ConfigError(f"no object of the last frame is on track {track_id}")
        mask = given.detections.masks[places]
        return self.learn_outlined(given.frame, mask, label, negative=negative, track_id=track_id)

    def outline(
        self,
        frame: Frame,
        point_xy: tuple[int, int] | None = None,
        *,
        box_xywh: tuple[float, float, float, float] | None = None,
    ) -> Future[Masks]:
        """The object at a point or in a box of a frame, tracked or not, outlined in the background.

        The future raises ``MaskError`` where nothing is there. May be called from any thread.
        """
        outline = self._pipeline.outline
        points = [] if point_xy is None else [point_xy]
        boxes = [] if box_xywh is None else [box_xywh]
        return self._key_frames.run(lambda: outline(frame, boxes, points).masks)

    def learn_outlined(
        self,
        frame: Frame,
        outline: Masks | Future[Masks],
        label: str,
        *,
        negative: bool = False,
        track_id: int = 0,
    ) -> Future[Taught]:
        """Learns an object of any frame, as :meth:`learn` does; may be called from any thread.

        An object of one of the last 64 frames is on a track from the next frame on: on the one it
        was on, with this outline, or on a new one. The result names it.

        Args:
            frame: as the stream gave it.
            outline: of the object, or the future of :meth:`outline`.
            track_id: its track; 0 if that is not known.

        Raises:
            LibraryError: the name is empty.
        """
        taught = self._teacher.teach(frame, outline, label, negative=negative, track_id=track_id)
        self._learnt = True
        return taught

    def take_back(self, track_id: int | None = None) -> Future[list[LearningBatch]]:
        """Takes back all that was learnt from a track since the stream was opened, in the
        background: the library is as if it had not been learnt, and key frames name the track.

        May be called from any thread. The future raises ``ConfigError`` where nothing was learnt
        from the track.

        Args:
            track_id: also of an object that is gone; None is the one that was taught last.

        Returns:
            What was taken back, the newest first.
        """
        taken_back = self._teacher.take_back(track_id)
        self._learnt = True
        return taken_back

    @property
    def waiting(self) -> int:
        """Frames that are read and not yet taken."""
        return self._reader.waiting

    def _tracked(self, arrival: Arrival) -> TrackedFrame:
        frame, flow = arrival.frame, arrival.prepared
        time_s = frame.time_s or 0.0
        if not self._track:
            return self._separate(frame, arrival.at_s)
        if self._learnt:  # this is a key frame, and earlier votes no longer count
            self._learnt, self._rest_until_s = False, 0.0
            self._schedule.bring_forward()
            self._tracks.forget_votes()
            self._outdated = self._pending
        self._tracks.advance(flow, frame, time_s)
        self._teacher.tell(self._tracks, frame, flow)
        self._schedule.note(flow)
        if flow is None:  # a cut: the pending key frame is of another scene
            self._pending, self._since = None, Flows()
        elif self._pending is not None:
            self._since.add(flow)
        if self._pending is not None and self._pending.done():
            self._join(self._pending, frame)
        if self.live and flow is None:
            self._begin_taught(frame)
        rests = self.live and time.monotonic() < self._rest_until_s
        key = self._pending is None and self._schedule.due and not rests
        if key:
            self._asked_s = time.monotonic()
            self._then = self._tracks.snapshot(frame.size_hw)
            self._pending = self._key_frames.detect(frame, self._then, self._schedule.moved)
            self._schedule.restart()
            self._since = Flows()
        if not self.live and self._pending is not None:
            self._join(self._pending, frame)
        self._propose_ahead()
        detections, track_ids = self._tracks.present(frame, time_s=time_s)
        recipe = self._pipeline.recipe.to_dict()
        self._present = TrackedFrame(frame, replace(detections, recipe=recipe), track_ids, key)
        self._teacher.note(self._present, flow)
        self.statistics.count(arrival.at_s, dropped=self._reader.dropped, key=key)
        return self._present

    def _begin_taught(self, frame: Frame) -> None:
        """Begins the tracks of what was taught in this very picture, before the detector has
        looked at it."""
        taught = self._pipeline.snapshot().taught(frame).of(negative=False)
        self._rest_until_s = time.monotonic() + FIRST_S if len(taught) else 0.0
        for index, example in enumerate(taught.examples):
            outline = SoftMask.of(taught.masks, index)
            self._tracks.name(next(self._teacher.track_ids), example.label, frame, outline)

    def _separate(self, frame: Frame, arrived_s: float) -> TrackedFrame:
        """A frame on its own."""
        nothing = TrackSnapshot(Masks.empty(frame.size_hw), ())
        self._pending = self._key_frames.detect(frame, nothing, None)
        found = self._wait_for(self._pending).found
        self._pending = None
        shown = found if self._unknown else found.known
        self.statistics.count(arrived_s, dropped=self._reader.dropped, key=True)
        return TrackedFrame(frame, shown, np.zeros(len(shown), np.int64), key=True)

    def _join(self, pending: Future[KeyFrameResult], frame: Frame) -> None:
        self._tracks.join(self._wait_for(pending), self._then, self._since.all(), frame)
        if pending is self._outdated:
            self._tracks.forget_votes()
        self._pending, self._since = None, Flows()
        self._rest_until_s = time.monotonic() + self._rest * (time.monotonic() - self._asked_s)
        self._schedule.undecided = self._tracks.undecided
        self._lookahead = None if self.live else copy.copy(self._schedule)

    def _propose_ahead(self) -> None:
        """Starts on the next key frame as soon as it is known, between detections."""
        if self._lookahead is None:
            return
        frame = self._lookahead.first_due(self._reader.ahead())
        if frame is not None:
            self._key_frames.propose_ahead(frame)
            self._lookahead = None

    def _wait_for(self, pending: Future[KeyFrameResult]) -> KeyFrameResult:
        """The result of a detection; ends the iteration where the stream is closed meanwhile."""
        either: tuple[Future[Any], ...] = (pending, self._closing)
        while not any(each.done() for each in either):
            wait(either, WAKE_S, return_when=FIRST_COMPLETED)
        if self._closing.done():
            raise StopIteration
        return pending.result()


def open_stream(
    pipeline: Pipeline,
    source: int | str | Path | Source,
    settings: Settings,
    *,
    live: bool | None = None,
    **options: Any,
) -> Stream:
    """What :meth:`sam_detect.SAMDetect.stream` does."""
    opened = (
        source
        if isinstance(source, Source)
        else open_source(
            source,
            max_pixels=settings.max_image_pixels,
            frame_rate=settings.frame_rate,
            timeout_s=settings.stream_timeout_s,
            retries=settings.stream_retries,
            playlist_hosts=settings.playlist_hosts,
        )
    )
    newest = opened.live if live is None else live
    if newest and not opened.live:
        opened = PacedSource(opened)
    return Stream(pipeline, opened, live=newest, **options)
