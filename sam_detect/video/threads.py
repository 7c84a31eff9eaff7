"""The threads around a stream: one reads frames ahead, one writes the results.

Of a file no frame may be lost: reader and stream wait when they are too far ahead. Of a live source
the newest frame counts: one that was not taken before the next one arrives is dropped and counted.
"""

from __future__ import annotations

import atexit
import threading
import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from sam_detect.errors import ImageError, OutputError
from sam_detect.interfaces import Source, VideoSink
from sam_detect.types import Frame, TrackedFrame
from sam_detect.video.motion import Flow

WAKE_S = 0.5
"""Wake-up interval of a waiting thread: on some systems Ctrl-C does not interrupt a wait."""
QUEUED = 16
"""Frames that are read ahead, and frames that wait to be written; fewer where they are huge."""
HELD_BYTES = 200_000_000
"""Limit of the pixels in one queue: eight frames of 4K."""
FEWEST = 2
FRAMES_PER_SECOND = 25.0
"""Assumed for a source without time stamps."""
DROPPED_S = 0.7
"""How long outputs may take to be completed when everything is to stop."""
LEAVE_S = 5.0
"""How long the end of the program waits for all daemons together."""
_DAEMONS: weakref.WeakSet[threading.Thread] = weakref.WeakSet()


def start_daemon(target: Callable[[], None], name: str) -> threading.Thread:
    """Starts a thread that nothing needs to wait for: what it does may take long, or block.

    Only the end of the program gives it a few seconds. A thread that Python ends while it is in
    native code, such as a network's, takes the whole process down with it (``abort``).
    """
    thread = threading.Thread(target=target, name=name, daemon=True)
    _DAEMONS.add(thread)
    thread.start()
    return thread


@atexit.register
def _let_daemons_leave() -> None:
    until_s = time.monotonic() + LEAVE_S
    for thread in list(_DAEMONS):
        thread.join(max(0.0, until_s - time.monotonic()))


@dataclass(frozen=True)
class Arrival:
    """A frame that was read.

    Attributes:
        frame: the picture.
        prepared: the result of ``prepare`` for it.
        at_s: its time of arrival, by ``time.monotonic()``.
    """

    frame: Frame
    prepared: Flow | None
    at_s: float


def queue_length(frame: Frame) -> int:
    """Length of a queue for frames of this size."""
    return max(FEWEST, min(QUEUED, HELD_BYTES // max(1, frame.image_rgb.nbytes)))


class Reader(Iterator[Arrival]):
    """Iterates over the frames of a source, which another thread reads.

    Args:
        source: read until it ends or fails.
        live: whether only the newest frame counts.
        prepare: called for each frame that is taken, in order: while it is read for a file; when it
            is taken for a live source, where most frames are dropped.

    Attributes:
        dropped: frames that a newer one replaced.
    """

    def __init__(
        self, source: Source, *, live: bool, prepare: Callable[[Frame], Flow | None]
    ) -> None:
        self.dropped = 0
        self._source, self._live, self._prepare = source, live, prepare
        self._waiting: deque[Arrival | ImageError] = deque()
        self._changed = threading.Condition()
        self._room, self._index = QUEUED, -1
        self._ended = self._stopped = False
        self._error: BaseException | None = None
        # A source may block forever, and stopping must not wait for it.
        self._thread = start_daemon(self._read, "sam-detect reader")

    @property
    def waiting(self) -> int:
        """Frames that are read and not yet taken."""
        return len(self._waiting)

    def ahead(self) -> list[Arrival]:
        """Frames of a file that are read and not yet taken; empty for a live source."""
        if self._live:
            return []
        with self._changed:
            return [each for each in self._waiting if isinstance(each, Arrival)]

    def __next__(self) -> Arrival:
        """The next frame, as soon as there is one.

        Raises:
            ImageError: a frame could not be read; asking again gives the one after it.
        """
        with self._changed:
            while not self._changed.wait_for(lambda: self._waiting or self._ended, WAKE_S):
                pass
            taken = self._waiting.popleft() if self._waiting else None
            self._changed.notify_all()
        if isinstance(taken, ImageError):
            raise taken
        if taken is not None:
            live = self._live
            return replace(taken, prepared=self._prepare(taken.frame)) if live else taken
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        raise StopIteration

    def stop(self) -> None:
        """Reads no further; frames that were not taken are dropped."""
        with self._changed:
            self._stopped = self._ended = True
            self._waiting.clear()
            self._changed.notify_all()
        self._source.stop()

    def wait(self, wait_s: float) -> bool:
        """Whether the thread ended within the time."""
        self._thread.join(wait_s)
        return not self._thread.is_alive()

    def _read(self) -> None:
        try:
            frames = iter(self._source.frames())
            while self._put(self._next(frames)):
                pass
        except StopIteration:
            pass
        except BaseException as error:  # raised where the frames are taken
            self._error = error
        with self._changed:
            self._ended = True
            self._changed.notify_all()

    def _next(self, frames: Iterator[Frame]) -> Arrival | ImageError:
        try:
            frame = next(frames)
        except ImageError as error:
            return error
        at_s = time.monotonic()
        # A user's own source may give neither a number nor a time.
        self._index = frame.index if frame.index > self._index else self._index + 1
        time_s = self._index / FRAMES_PER_SECOND if frame.time_s is None else frame.time_s
        if (frame.index, frame.time_s) != (self._index, time_s):
            frame = replace(frame, index=self._index, time_s=time_s)
        # Shared with detection, outputs and learning: draw into a copy.
        frame.image_rgb.flags.writeable = False
        self._room = queue_length(frame)
        return Arrival(frame, None if self._live else self._prepare(frame), at_s)

    def _put(self, item: Arrival | ImageError) -> bool:
        """Queues a frame or an error; False once stopped."""
        with self._changed:
            if self._live and isinstance(item, Arrival):
                errors = [each for each in self._waiting if isinstance(each, ImageError)]
                self.dropped += len(self._waiting) - len(errors)
                self._waiting = deque(errors)
            self._changed.wait_for(lambda: len(self._waiting) < self._room or self._stopped)
            if not self._stopped:
                self._waiting.append(item)
                self._changed.notify_all()
            return not self._stopped


class Recorder:
    """Hands frames to sinks in their order, on another thread, and closes them.

    Args:
        sinks: each gets every frame.
        live: drop frames rather than wait for slow sinks.

    Attributes:
        dropped: frames that were not written.
    """

    def __init__(self, sinks: Sequence[VideoSink], *, live: bool) -> None:
        self.dropped = 0
        self._sinks, self._live = sinks, live
        self._frames: deque[TrackedFrame] = deque()
        self._changed = threading.Condition()
        self._ending = False
        self._error: BaseException | None = None
        self._failed = False
        self._written: list[Path] = []
        # A daemon: a disk may block forever, and stopping must not wait for it.
        self._thread = threading.Thread(target=self._work, name="sam-detect writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Frames that are not written yet."""
        return len(self._frames)

    def write(self, tracked: TrackedFrame) -> None:
        """Takes a frame; raises what a sink raised meanwhile. After that no frame is written."""
        room = queue_length(tracked.frame)
        with self._changed:
            while not self._live and len(self._frames) >= room:
                self._changed.wait(WAKE_S)
            if self._failed or len(self._frames) >= room:
                self.dropped += 1
            else:
                self._frames.append(tracked)
                self._changed.notify_all()
        self._raise()

    def close(self, *, drop_pending: bool = False) -> list[Path]:
        """Completes every output, whatever happened; may be called twice.

        Args:
            drop_pending: drops the frames that wait, and does not wait long for the outputs.

        Returns:
            The files that are complete.

        Raises:
            OutputError: with ``drop_pending``, where an output is not complete.
            Exception: what a sink raised, unless :meth:`write` did.
        """
        with self._changed:
            self._ending = True
            if drop_pending:
                self._drop_waiting()
            self._changed.notify_all()
        self._thread.join(DROPPED_S if drop_pending else WAKE_S)
        while self._thread.is_alive() and not drop_pending:
            self._thread.join(WAKE_S)
        self._raise()
        if self._thread.is_alive():
            raise OutputError("an output is not complete: its last frames could not be written")
        return self._written

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

    def _drop_waiting(self) -> None:
        self.dropped += len(self._frames)
        self._frames.clear()

    def _work(self) -> None:
        while (tracked := self._next()) is not None:
            try:
                for sink in self._sinks:
                    sink.write(tracked)
            except BaseException as error:  # raised by write or close
                self._fail(error)
        for sink in self._sinks:
            try:
                self._written += sink.close()
            except BaseException as error:  # the others are closed, too
                self._fail(error)

    def _next(self) -> TrackedFrame | None:
        """The next frame to write; None at the end."""
        with self._changed:
            self._changed.wait_for(lambda: self._frames or self._ending)
            tracked = self._frames.popleft() if self._frames else None
            self._changed.notify_all()
            return tracked

    def _fail(self, error: BaseException) -> None:
        with self._changed:
            if not self._failed:
                self._failed, self._error = True, error
            self._drop_waiting()
            self._changed.notify_all()
