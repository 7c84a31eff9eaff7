"""Frames read ahead, on a thread of their own.

Of a file none may be lost: the reader waits when it is too far ahead. Of a live source the newest
counts: a frame that was not taken before the next one arrives is dropped and counted.
"""

from __future__ import annotations

import contextlib
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from typing import Generic, TypeVar

from sam_detect.errors import ImageError
from sam_detect.interfaces import Source
from sam_detect.types import Frame

WAKE_S = 0.5
"""Wake-up interval of a waiting thread: on some systems Ctrl-C does not interrupt a wait."""
SWITCH_S = 0.0002
"""Switch interval of Python's threads while a stream is live; the default is 5 ms."""
AHEAD = 16
"""Frames of a file that are read ahead; fewer where they are huge."""
HELD_BYTES = 200_000_000
"""Limit of the pixels in one queue: eight frames of 4K."""
FEWEST = 2
FRAMES_PER_SECOND = 25.0
"""Assumed for a source without time stamps."""

Prepared = TypeVar("Prepared")


@dataclass(frozen=True)
class Arrival(Generic[Prepared]):
    """A frame that was read.

    Attributes:
        frame: the picture.
        prepared: the result of ``prepare`` for it.
        at_s: its time of arrival, by ``time.monotonic()``.
    """

    frame: Frame
    prepared: Prepared
    at_s: float


@contextlib.contextmanager
def short_switch_interval() -> Iterator[None]:
    """Lets Python's threads switch more often.

    A frame needs the interpreter some thirty times, between calls of OpenCV. During a keyframe
    detection each of these would wait for a whole switch interval.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, SWITCH_S))
    try:
        yield
    finally:
        sys.setswitchinterval(before)


def room_for(frame: Frame, most: int) -> int:
    """Length of a queue for frames of this size: ``most``, or fewer where they are huge."""
    return max(FEWEST, min(most, HELD_BYTES // max(1, frame.image_rgb.nbytes)))


class Reader(Iterator[Arrival[Prepared]]):
    """Iterates over the frames of a source, which another thread reads.

    Args:
        source: read until it ends or fails.
        live: whether only the newest frame counts.
        prepare: called for each frame that is taken, in order: while it is read for a file; when it
            is taken for a live source, where most frames are dropped.

    Attributes:
        dropped: frames that a newer one replaced.
    """

    def __init__(self, source: Source, *, live: bool, prepare: Callable[[Frame], Prepared]) -> None:
        self.dropped = 0
        self._source, self._live, self._prepare = source, live, prepare
        self._waiting: deque[Callable[[], Arrival[Prepared]] | ImageError] = deque()
        self._changed = threading.Condition()
        self._room, self._index = AHEAD, -1
        self._ended = self._stopped = False
        self._error: BaseException | None = None
        # A daemon: a source may block forever, and stopping must not wait for it.
        self._thread = threading.Thread(target=self._read, name="sam-detect reader", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Frames that are read and not yet taken."""
        return len(self._waiting)

    def ahead(self) -> list[Arrival[Prepared]]:
        """Frames of a file that are read and not yet taken; empty for a live source."""
        if self._live:
            return []
        with self._changed:
            waiting = list(self._waiting)
        return [each() for each in waiting if not isinstance(each, ImageError)]

    def __next__(self) -> Arrival[Prepared]:
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
            return taken()
        if self._error is not None:
            error, self._error = self._error, None
            raise error
        raise StopIteration

    def stop(self) -> None:
        """Reads no further; what was read and not taken is given up."""
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

    def _next(self, frames: Iterator[Frame]) -> Callable[[], Arrival[Prepared]] | ImageError:
        try:
            frame = next(frames)
        except ImageError as error:
            return error
        at_s = time.monotonic()
        frame = self._counted(frame)
        # Shared with detection, outputs and learning: draw into a copy.
        frame.image_rgb.flags.writeable = False
        self._room = room_for(frame, AHEAD)
        if self._live:
            return lambda: Arrival(frame, self._prepare(frame), at_s)
        arrival = Arrival(frame, self._prepare(frame), at_s)
        return lambda: arrival

    def _counted(self, frame: Frame) -> Frame:
        """The frame with a number and a time: a user's own source may give neither."""
        index = frame.index if frame.index > self._index else self._index + 1
        self._index = index
        if index == frame.index and frame.time_s is not None:
            return frame
        time_s = index / FRAMES_PER_SECOND if frame.time_s is None else frame.time_s
        return replace(frame, index=index, time_s=time_s)

    def _put(self, item: Callable[[], Arrival[Prepared]] | ImageError) -> bool:
        """Queues a frame or an error; False once stopped."""
        with self._changed:
            if self._live and not isinstance(item, ImageError):
                errors = [each for each in self._waiting if isinstance(each, ImageError)]
                self.dropped += len(self._waiting) - len(errors)
                self._waiting = deque(errors)
            self._changed.wait_for(lambda: len(self._waiting) < self._room or self._stopped)
            if not self._stopped:
                self._waiting.append(item)
                self._changed.notify_all()
            return not self._stopped
