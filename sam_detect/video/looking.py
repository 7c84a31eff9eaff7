"""The detector's looks at key frames, beside the stream."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Any, TypeVar

from sam_detect.detector import SAMDetect
from sam_detect.errors import ConfigError
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
        self._work: queue.SimpleQueue[_Work | None] = queue.SimpleQueue()
        self._stopped = False
        self._asking = threading.Lock()
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
        """Something that must not happen during a look, such as learning.

        Raises:
            ConfigError: from the promise: the looker was stopped before.
        """
        promise: Future[Made] = Future()
        with self._asking:
            if not self._stopped:
                self._work.put((promise, work))
                return promise
        promise.set_exception(ConfigError("the stream is closed; open it anew"))
        return promise

    def stop(self) -> None:
        """Takes no more work; what was asked for before is still done."""
        with self._asking:
            self._stopped = True
            self._work.put(None)

    def wait(self, wait_s: float) -> bool:
        """Whether the thread ended within the time."""
        self._thread.join(wait_s)
        return not self._thread.is_alive()

    def _run(self) -> None:
        while (item := self._work.get()) is not None:
            _fulfil(*item)


_Work = tuple[Future[Any], Callable[[], Any]]


def _fulfil(promise: Future[Any], work: Callable[[], Any]) -> None:
    if not promise.set_running_or_notify_cancel():
        return
    try:
        promise.set_result(work())
    except BaseException as error:  # belongs to whoever waits for it
        promise.set_exception(error)
