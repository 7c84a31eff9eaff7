"""Time stamps that rise from frame to frame, whatever a video says of them."""

from __future__ import annotations

import time

SHORTEST_S = 0.001


class Clock:
    """Gives each frame of a source a later time than the one before.

    What a video says is kept. A time that is missing, repeated or a little early becomes one just
    after the last; where times begin anew (parts that were put together, a stream that was
    interrupted) they go on from there.

    Args:
        from_zero: whether the first frame is at 0 s, whatever is said of it: that of a live source.
    """

    def __init__(self, *, from_zero: bool) -> None:
        self._from_zero, self._anew = from_zero, False
        self._offset_s = self._began_s = 0.0
        self._last_s: float | None = None

    def begin_anew(self) -> None:
        """What is said next has nothing to do with what was said before: the time that has really
        passed counts."""
        self._anew = True

    def next_s(self, said_s: float | None, step_s: float) -> float:
        """The time of the next frame, in seconds.

        Args:
            said_s: what the video says of it, in seconds.
            step_s: about how long a frame lasts.
        """
        last_s = self._last_s
        self._last_s = (
            self._first(said_s or 0.0) if last_s is None else self._after(last_s, said_s, step_s)
        )
        return self._last_s

    def _first(self, said_s: float) -> float:
        self._began_s, self._anew = time.monotonic(), False
        self._offset_s = -said_s if self._from_zero else max(0.0, -said_s)
        return said_s + self._offset_s

    def _after(self, last_s: float, said_s: float | None, step_s: float) -> float:
        if said_s is None:
            return last_s + step_s
        time_s = said_s + self._offset_s
        if self._anew:
            self._anew = False
            time_s = self._shift(time_s, max(last_s + step_s, time.monotonic() - self._began_s))
        if time_s > last_s:
            return time_s
        if last_s - time_s > step_s:
            return self._shift(time_s, last_s + step_s)
        return last_s + SHORTEST_S

    def _shift(self, time_s: float, to_s: float) -> float:
        self._offset_s += to_s - time_s
        return to_s
