"""The detector's looks at key frames, beside the stream."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from sam_detect.detector import SAMDetect
from sam_detect.library.making import outlines_in
from sam_detect.types import Detections, Frame, Masks
from sam_detect.video.tracks import Snapshot

Made = TypeVar("Made")


@dataclass(frozen=True)
class Look:
    """A look at a frame, under way or done.

    Attributes:
        frame: the key frame.
        then: where the tracks were in it.
        found: what the detector finds.
    """

    frame: Frame
    then: Snapshot
    found: Future[Detections]


class Looker:
    """Works on one key frame, or on one thing to learn, at a time, on a thread of its own."""

    def __init__(self, detector: SAMDetect) -> None:
        self._detector = detector
        self._work: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        # A daemon: a look may take long, and whoever wants to stop must not wait for it.
        self._thread = threading.Thread(target=self._run, name="sam-detect looker", daemon=True)
        self._thread.start()

    def look(self, frame: Frame, then: Snapshot) -> Look:
        """Starts a look.

        Carried masks, and outlines that somebody drew in this very picture, are named beside the
        detector's own proposals, and win or lose against them: so a track whose mask is still the
        best keeps it, and what was learnt from the first frame is followed as it was outlined.
        """
        return Look(frame, then, self.run(lambda: self._found(frame, then.masks)))

    def _found(self, frame: Frame, carried: Masks) -> Detections:
        known = Masks.concatenate([outlines_in(frame, self._detector.library), carried])
        return self._detector.detect_frame(frame, also=known)

    def run(self, work: Callable[[], Made]) -> Future[Made]:
        """Something that must not happen during a look, such as learning."""
        promise: Future[Made] = Future()
        self._work.put(lambda: _fulfil(promise, work))
        return promise

    def stop(self, *, wait_s: float) -> bool:
        """Starts nothing more; whether the thread ended within the time."""
        self._work.put(None)
        self._thread.join(wait_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            work()


def _fulfil(promise: Future[Any], work: Callable[[], Any]) -> None:
    if not promise.set_running_or_notify_cancel():
        return
    try:
        promise.set_result(work())
    except BaseException as error:  # belongs to whoever waits for it
        promise.set_exception(error)
