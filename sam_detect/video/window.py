"""A window that shows a video's objects while they are followed.

The thread of the window does nothing but the window: frames are taken, worked on and drawn on
another one. So the window moves and closes, however long a detection takes.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from concurrent.futures import Future

import numpy as np

from sam_detect.io.video_sinks import TrackPainter
from sam_detect.types import ImageRGB, TrackedFrame
from sam_detect.video.display import ESCAPE, Display, WindowLayout, draw_caption, window_for
from sam_detect.video.threads import start_daemon

WAIT_S = 0.005
"""Time to wait for a key before checking for the next frame."""
LATE_S = 0.3
"""A frame of a file that is later than this restarts the pacing: later frames are not shown faster
to make up for a slow detection."""
WAITING = "waiting for the first frame ...   q: quit"
HELP = "q: quit"
_NOTHING = np.full((270, 480, 3), 24, np.uint8)
"""Is shown until the first frame is there."""

Drawn = tuple[TrackedFrame, ImageRGB]
"""A frame, and a copy of its picture with its objects drawn in."""


class Viewer(Iterator[TrackedFrame]):
    """Shows frames as they are taken from it.

    Taking the next frame waits until it is there and until the one before has been shown long
    enough. It ends with the frames, or when the user quits: with q, Esc, or by closing the window.

    Args:
        frames: are taken on another thread, one ahead.
        display: where they are shown. It is left open.
        paced: whether frames wait for their time stamps: a file's, which would fly by.
    """

    def __init__(
        self, frames: Iterator[TrackedFrame], display: Display, *, paced: bool = False
    ) -> None:
        self._frames, self._paced = frames, paced
        self._painter = TrackPainter()
        self._display = display
        self._coming: Future[Drawn] | None = None
        self._shown: Drawn | None = None
        self._began_s: float | None = None
        self._is_over = False
        display.resize(window_for(_NOTHING.shape[:2]))
        self._room_hw = display.room_hw
        self._draw()

    def __next__(self) -> TrackedFrame:
        """The next frame, which is on the screen from now on; raises what taking it raised."""
        coming = self._coming or self._take()
        self._attend(0)
        while not self._is_over and not self._is_due(coming):
            self._attend(WAIT_S)
        if self._is_over:
            raise StopIteration
        self._coming = None
        drawn = coming.result()
        if self._shown is None:
            self._display.resize(window_for(drawn[0].frame.size_hw))
        self._shown = drawn
        self._draw()
        self._take()
        return drawn[0]

    def _take(self) -> Future[Drawn]:
        """Begins to take and draw the next frame."""
        future: Future[Drawn] = Future()
        self._coming = future

        def work() -> None:
            try:
                tracked = next(self._frames)
                future.set_result((tracked, self._painter.draw(tracked)))
            except BaseException as error:  # raised where the frame is taken
                future.set_exception(error)

        start_daemon(work, "sam-detect viewer")  # a source may block for long
        return future

    def _is_due(self, coming: Future[Drawn]) -> bool:
        """Whether the frame is there and its time has come."""
        if not coming.done():
            return False
        if not self._paced or coming.exception() is not None:
            return True
        time_s, now = coming.result()[0].frame.time_s or 0.0, time.monotonic()
        if self._began_s is None or now - (self._began_s + time_s) > LATE_S:
            self._began_s = now - time_s
        return now >= self._began_s + time_s

    def _attend(self, wait_s: float) -> None:
        """Handles keys, and draws again where the window has another size."""
        keys = self._display.events(wait_s)
        if keys is None or "q" in keys or ESCAPE in keys:
            self._is_over = True
        elif self._display.room_hw != self._room_hw:
            self._draw()

    def _draw(self) -> None:
        """Shows the picture and the caption."""
        image = _NOTHING if self._shown is None else self._shown[1]
        self._room_hw = self._display.room_hw
        canvas = WindowLayout((image.shape[0], image.shape[1]), self._room_hw).render(image)
        draw_caption(canvas, WAITING if self._shown is None else HELP)
        self._display.show(canvas)
