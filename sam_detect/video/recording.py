"""Writes a stream's frames on a thread of its own, so that encoding does not delay the stream."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Sequence
from pathlib import Path

from sam_detect.errors import OutputError
from sam_detect.interfaces import VideoSink
from sam_detect.types import TrackedFrame
from sam_detect.video.reading import WAKE_S, room_for

BEHIND = 16
"""Frames that may wait to be written, fewer where they are huge. When the queue is full a file's
stream waits, and frames of a live one are left out."""
HURRY_S = 0.7
"""How long outputs may take to be completed when everything is to stop."""


class Recorder:
    """Hands frames to sinks in their order, and closes them.

    Args:
        sinks: each gets every frame.
        live: leave frames out rather than wait for slow sinks.

    Attributes:
        left_out: frames that were not written.
    """

    def __init__(self, sinks: Sequence[VideoSink], *, live: bool) -> None:
        self.left_out = 0
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
        room = room_for(tracked.frame, BEHIND)
        with self._changed:
            while not self._live and len(self._frames) >= room:
                self._changed.wait(WAKE_S)
            if self._failed or len(self._frames) >= room:
                self.left_out += 1
            else:
                self._frames.append(tracked)
                self._changed.notify_all()
        self._raise()

    def close(self, *, hurry: bool = False) -> list[Path]:
        """Completes every output, whatever happened; may be called twice.

        Args:
            hurry: give up the frames that wait, and do not wait long for the outputs.

        Returns:
            The files that are complete.

        Raises:
            OutputError: in a hurry, and an output is not complete.
            Exception: what a sink raised, unless :meth:`write` did.
        """
        with self._changed:
            self._ending = True
            if hurry:
                self.left_out += len(self._frames)
                self._frames.clear()
            self._changed.notify_all()
        self._thread.join(HURRY_S if hurry else WAKE_S)
        while self._thread.is_alive() and not hurry:
            self._thread.join(WAKE_S)
        self._raise()
        if self._thread.is_alive():
            raise OutputError("an output is not complete: its last frames could not be written")
        return self._written

    def _raise(self) -> None:
        error, self._error = self._error, None
        if error is not None:
            raise error

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
            self.left_out += len(self._frames)
            self._frames.clear()
            self._changed.notify_all()
