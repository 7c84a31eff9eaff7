"""Videos with an end and without one: time stamps, and what breaks off is opened again."""

from __future__ import annotations

import contextlib
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from concurrent.futures import Future, wait
from typing import Any, TypeVar

from sam_detect.errors import ImageError
from sam_detect.interfaces import Source
from sam_detect.types import Frame, ImageRGB

TIMEOUT_S = 10.0
RETRIES = 8
FIRST_PAUSE_S = 0.5
LONGEST_PAUSE_S = 8.0
WAKE_UP_S = 0.5
"""Interval at which a wait wakes up: not every system lets Ctrl-C into one."""
SHORTEST_S = 0.001

Made = TypeVar("Made")


class BrokenError(Exception):
    """A source broke off; it may come back."""


class StoppedError(Exception):
    """The reader of a source was told to stop."""


class Retry:
    """Retries with exponential back-off: from half a second to 8 s between two tries.

    Args:
        name: of the source, as it may be shown.
        retries: tries in a row without success, before it is given up.

    Attributes:
        stopped: set when the source is not wanted any more; ends every pause.
        reconnects: how often it came back.
        interrupt: ends a wait for the source, if that is possible.
    """

    def __init__(self, name: str, retries: int) -> None:
        self.stopped = threading.Event()
        self.reconnects = 0
        self.interrupt: Callable[[], None] = lambda: None
        self._name, self._retries = name, retries
        self._tries = 0
        self._lost_s: float | None = None

    def stop(self) -> None:
        """The source is not wanted any more; called from another thread."""
        self.stopped.set()
        quietly(self.interrupt)

    def lost(self, reason: str) -> None:
        """Waits before the next try.

        Raises:
            ImageError: there were as many tries as were asked for.
            StoppedError: the source is not wanted any more.
        """
        now = time.monotonic()
        self._lost_s = now if self._lost_s is None else self._lost_s
        if self._tries >= self._retries:
            tries = f"{self._retries} tr{'y' if self._retries == 1 else 'ies'}"
            tried = f" and did not come back in {tries} over {now - self._lost_s:.0f} s"
            raise ImageError(f"'{self._name}' broke off ({reason}){tried if self._retries else ''}")
        pause_s = min(FIRST_PAUSE_S * 2**self._tries, LONGEST_PAUSE_S)
        self._tries += 1
        if self.stopped.wait(pause_s):
            raise StoppedError

    def received(self) -> None:
        """Something came. After a loss one line says so."""
        if self._lost_s is not None:
            self.reconnects += 1
            away_s = time.monotonic() - self._lost_s
            # The number keeps lines apart that Python would show once only.
            warnings.warn(
                f"reconnected to '{self._name}' after {away_s:.1f} s (time {self.reconnects})",
                stacklevel=2,
            )
        self._lost_s, self._tries = None, 0


class RecordingSource(Source):
    """A video that has an end; no frame is lost and none comes twice.

    Args:
        name: its path, or its address as it may be shown.
        retry: ends a wait when the source is stopped, and counts reconnects.
        open_video: opens it at its beginning
            (:class:`~sam_detect.io._video_decoding.DecodedVideo`).
        opened: the same, where it is open already.
    """

    def __init__(
        self, name: str, retry: Retry, open_video: Callable[[], Any], opened: Any = None
    ) -> None:
        self.name = name
        self._retry, self._open, self._opened = retry, open_video, opened

    def frames(self) -> Iterator[Frame]:
        """The frames in the order in which they are shown, each with its time stamp.

        Raises:
            ImageError: it broke off and could not be continued; or at the end, where it has no
                frame, is damaged or ends too early: what could be decoded has been given.
        """
        video, self._opened = self._opened or self._open(), None
        clock, count = Clock(from_zero=False), 0
        try:
            for image, stamp_s in video:
                if self._retry.stopped.is_set():
                    return
                self.reconnects, self.damaged = self._retry.reconnects, video.damaged
                yield Frame(image, self.name, count, time_s=clock.next_s(stamp_s, video.step_s))
                count += 1
            self._require_whole(video, count)
        except StoppedError:
            return
        except BrokenError as error:
            raise ImageError(f"'{self.name}' {error}") from None
        finally:
            self.damaged = video.damaged
            video.close()

    def stop(self) -> None:
        self._retry.stop()

    def _require_whole(self, video: Any, count: int) -> None:
        missing_s, done = video.missing_s(), f"the {count} frames that could be decoded are done"
        places = video.damaged - video.harmless
        if not count:
            raise ImageError(f"the video '{self.name}' has no frames")
        if missing_s:
            raise ImageError(
                f"the video '{self.name}' ends early, after {video.reached_s:.1f} s of "
                f"{video.reached_s + missing_s:.1f} s; {done}"
            )
        if places:
            raise ImageError(
                f"the video '{self.name}' is damaged in {places} "
                f"place{'s' if places > 1 else ''}; {done}"
            )


class LiveSource(Source):
    """Frames as they come. If the source breaks off it is opened again: indices and times go on.

    Args:
        name: becomes the frames' ``source_id``.
        retry: how often to try to open it again.
        session: the source, open. It iterates over pictures and their times in seconds (None:
            unknown), has ``step_s`` (about how long a picture lasts), ``damaged`` (parts so far
            that could not be decoded) and ``close``. It raises ``BrokenError`` or ``ImageError``
            where it breaks off.
        reopen: opens it again; raises the same if that fails.
    """

    live = True

    def __init__(self, name: str, retry: Retry, session: Any, reopen: Callable[[], Any]) -> None:
        self.name = name
        self._retry, self._session, self._reopen = retry, session, reopen
        self._damaged = 0

    def frames(self) -> Iterator[Frame]:
        """The frames, as they come, until the source ends or is stopped.

        Raises:
            ImageError: it broke off and did not come back.
        """
        clock, count = Clock(from_zero=True), 0
        with contextlib.suppress(StoppedError):
            while True:
                try:
                    for image, stamp_s, step_s in self._pictures():
                        yield Frame(image, self.name, count, time_s=clock.next_s(stamp_s, step_s))
                        count += 1
                    break
                except (BrokenError, ImageError) as error:
                    reason = without_name(self.name, error)
                self._retry.lost(reason)
                clock.begin_anew()
            if not count:
                raise ImageError(f"'{self.name}' ended without a picture")

    def stop(self) -> None:
        self._retry.stop()

    def _pictures(self) -> Iterator[tuple[ImageRGB, float | None, float]]:
        """Pictures, their times and about how long they last, of one session."""
        session, self._session = self._session or self._reopen(), None
        try:
            for image, stamp_s in session:
                if self._retry.stopped.is_set():
                    raise StoppedError
                self._retry.received()
                self.reconnects = self._retry.reconnects
                self.damaged = self._damaged + session.damaged
                yield image, stamp_s, session.step_s
        finally:
            self._damaged += session.damaged
            quietly(session.close)


def without_name(name: str, error: Exception) -> str:
    """What an error says, without the source's name, with which errors of a source begin."""
    return str(error).removeprefix(f"'{name}' ")


class Clock:
    """Gives each frame of a source a later time than the one before.

    What a video says is kept. A time that is missing, repeated or a little early becomes one just
    after the last; if times start again (parts that were put together, a stream that was
    interrupted) they go on from there.

    Args:
        from_zero: whether the first frame is at 0 s, whatever the video says: that of a live
            source.
    """

    def __init__(self, *, from_zero: bool) -> None:
        self._from_zero, self._anew = from_zero, False
        self._offset_s = self._began_s = 0.0
        self._last_s: float | None = None

    def begin_anew(self) -> None:
        """The next time has nothing to do with those before: the time that has really passed
        counts."""
        self._anew = True

    def next_s(self, stamp_s: float | None, step_s: float) -> float:
        """The time of the next frame, in seconds.

        Args:
            stamp_s: what the video says, in seconds.
            step_s: about how long a frame lasts.
        """
        if self._last_s is not None:
            self._last_s = self._after(self._last_s, stamp_s, step_s)
            return self._last_s
        first_s = stamp_s or 0.0
        self._began_s, self._anew = time.monotonic(), False
        self._offset_s = -first_s if self._from_zero else max(0.0, -first_s)
        self._last_s = first_s + self._offset_s
        return self._last_s

    def _after(self, last_s: float, stamp_s: float | None, step_s: float) -> float:
        if stamp_s is None:
            return last_s + step_s
        time_s = stamp_s + self._offset_s
        to_s: float | None = None
        if self._anew:
            self._anew, to_s = False, max(last_s + step_s, time.monotonic() - self._began_s)
        elif last_s - time_s > step_s:
            to_s = last_s + step_s
        if to_s is not None:
            self._offset_s += to_s - time_s
            return to_s
        return time_s if time_s > last_s else last_s + SHORTEST_S


def interruptibly(work: Callable[[], Made]) -> Made:
    """Runs on a thread, while this one waits, what the system would not let Ctrl-C into."""
    promise: Future[Made] = Future()

    def run() -> None:
        try:
            promise.set_result(work())
        except BaseException as error:  # raised again in the thread that waits
            promise.set_exception(error)

    threading.Thread(target=run, name="sam-detect opener", daemon=True).start()
    while not promise.done():
        wait([promise], WAKE_UP_S)
    return promise.result()


def quietly(close: Callable[[], Any]) -> None:
    """Closes what may be broken already."""
    with contextlib.suppress(Exception):
        close()
