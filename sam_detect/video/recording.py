"""Writes a stream's frames on a thread of its own, so that encoding does not hold up the stream."""

from __future__ import annotations

import queue
import threading
from collections.abc import Sequence
from pathlib import Path

from sam_detect.interfaces import VideoSink
from sam_detect.types import TrackedFrame

BEHIND = 16
"""Frames that may wait to be written; then the stream waits, or of a live one they are left out."""


class Recorder:
    """Hands frames to sinks in their order.

    Args:
        sinks: each gets every frame.
        live: leave frames out rather than wait for slow sinks.

    Attributes:
        left_out: frames that were not written.
    """

    def __init__(self, sinks: Sequence[VideoSink], *, live: bool) -> None:
        self.left_out = 0
        self._sinks, self._live = sinks, live
        self._frames: queue.Queue[TrackedFrame | None] = queue.Queue(BEHIND)
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._write, name="sam-detect writer", daemon=True)
        self._thread.start()

    @property
    def waiting(self) -> int:
        """Frames that are not written yet."""
        return self._frames.qsize()

    def write(self, tracked: TrackedFrame) -> None:
        """Takes a frame; raises what a sink raised meanwhile."""
        self._raise()
        try:
            self._frames.put(tracked, block=not self._live)
        except queue.Full:
            self.left_out += 1

    def close(self) -> list[Path]:
        """Writes what waits and completes every output, whatever happened; raises what a sink
        raised."""
        self._frames.put(None)
        self._thread.join()
        written: list[Path] = []
        for sink in self._sinks:
            try:
                written += sink.close()
            except BaseException as error:  # the others are closed, too
                self._error = self._error or error
        self._raise()
        return written

    def _raise(self) -> None:
        if self._error is not None:
            error, self._error = self._error, None
            raise error

    def _write(self) -> None:
        while (tracked := self._frames.get()) is not None:
            try:
                for sink in self._sinks if self._error is None else ():
                    sink.write(tracked)
            except BaseException as error:  # belongs to whoever writes or closes
                self._error = error
