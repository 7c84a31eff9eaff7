"""A window that shows a video's objects while they are followed, and teaches their names."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future
from dataclasses import dataclass
from typing import Protocol

import cv2
import numpy as np

from sam_detect.errors import SamDetectError, UnavailableError, one_line
from sam_detect.library.library import Added
from sam_detect.outputs.tracked import TrackPainter, draw_caption
from sam_detect.types import ImageRGB, TrackedFrame
from sam_detect.video.controls import BACKSPACE, ENTER, ESCAPE, TAB, Controls, Learn, Quit
from sam_detect.video.stream import Stream

HELD_MS = 30
"""How long a picture that stands still waits for a key before it is drawn again."""
LONGEST_WAIT_S = 0.1
LEAST_WIDTH = 480
"""Smaller pictures are enlarged, so that the caption can be read."""
LARGEST_SIDE = 1280
PROBE_S = 30
PROBE = "import cv2; cv2.namedWindow('sam-detect'); cv2.waitKey(1); cv2.destroyAllWindows()"
KEYS = {8: BACKSPACE, 127: BACKSPACE, 9: TAB, 10: ENTER, 13: ENTER, 27: ESCAPE}


@dataclass(frozen=True)
class Click:
    """The left button went down there, in pixels of the picture that is shown."""

    point_xy: tuple[int, int]


class Display(Protocol):
    """What shows pictures and says what was pressed."""

    def show(self, image_rgb: ImageRGB) -> None:
        """Shows ``(H, W, 3)`` uint8, RGB."""

    def events(self, wait_s: float) -> list[str | Click] | None:
        """Waits so long for a key; all keys and clicks since the last call; None once closed."""

    def close(self) -> None:
        """Takes the window away."""


class Viewer:
    """Shows each frame of a stream, and does what keys and clicks ask for.

    Args:
        stream: learns what is named.
        display: where it is shown.
        labels: names that are known, for completing.
        paced: whether frames wait for their time stamps: a file's, which would fly by.
    """

    def __init__(
        self, stream: Stream, display: Display, *, labels: Sequence[str] = (), paced: bool = False
    ) -> None:
        self.controls = Controls(labels)
        self._stream, self._display, self._paced = stream, display, paced
        self._painter = TrackPainter()
        self._learning: list[tuple[Learn, Future[Added]]] = []
        self._began_s: float | None = None

    def show(self, tracked: TrackedFrame) -> bool:
        """Shows the stream's last frame, as long as it is held; False where the user wants to end.

        Args:
            tracked: the frame that the stream gave last.
        """
        wait_s = self._wait_s(tracked.frame.time_s or 0.0)
        scale = self._draw(tracked)
        while True:
            events = self._display.events(wait_s)
            if events is None or self._is_end(events, tracked, scale):
                return False
            if not self.controls.held:
                return True
            self._began_s, wait_s = None, HELD_MS / 1000
            scale = self._draw(tracked)

    def _draw(self, tracked: TrackedFrame) -> int:
        """Draws and shows the frame; returns how many times it was enlarged."""
        self._report()
        drawn = self._painter.draw(tracked, chosen=self.controls.chosen)
        scale = -(-LEAST_WIDTH // drawn.shape[1]) if drawn.shape[1] < LEAST_WIDTH else 1
        shown = np.repeat(np.repeat(drawn, scale, axis=0), scale, axis=1)
        self._display.show(draw_caption(shown, self.controls.caption))
        return scale

    def _is_end(self, events: Sequence[str | Click], tracked: TrackedFrame, scale: int) -> bool:
        for event in events:
            if isinstance(event, Click):
                x, y = event.point_xy
                self.controls.click((x // scale, y // scale), tracked)
                continue
            action = self.controls.key(event, tracked)
            if isinstance(action, Quit):
                return True
            if action is not None:
                self._learn(action)
        return False

    def _learn(self, asked: Learn) -> None:
        try:
            promise = self._stream.learn(asked.track_id, asked.label, negative=asked.negative)
        except SamDetectError as error:
            self.controls.message = one_line(error)
            return
        self._learning.append((asked, promise))
        self.controls.message = f"learning #{asked.track_id} ..."

    def _report(self) -> None:
        """Says what was learnt meanwhile, or why it was not."""
        for asked, promise in [each for each in self._learning if each[1].done()]:
            self._learning.remove((asked, promise))
            error = promise.exception()
            what = f"#{asked.track_id} is {'not ' if asked.negative else ''}'{asked.label}'"
            if error is None:
                total = promise.result().total
                self.controls.message = f"learnt: {what}; the library has {total} examples"
            else:
                self.controls.message = f"not learnt: {one_line(error)}"

    def _wait_s(self, time_s: float) -> float:
        now = time.monotonic()
        if self._began_s is None:
            self._began_s = now - time_s
        ahead = self._began_s + time_s - now
        return min(max(ahead, 0.001), LONGEST_WAIT_S) if self._paced else 0.001


class CvDisplay:
    """OpenCV's window.

    Raises:
        UnavailableError: there is no display, or OpenCV was built without windows.
    """

    TITLE = "sam-detect"

    def __init__(self) -> None:
        require_display()
        self._clicks: list[Click] = []
        self._sized = False
        cv2.namedWindow(
            self.TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_KEEPRATIO | cv2.WINDOW_GUI_NORMAL
        )
        cv2.setMouseCallback(self.TITLE, self._on_mouse)

    def show(self, image_rgb: ImageRGB) -> None:
        if not self._sized:
            height, width = image_rgb.shape[:2]
            scale = min(1.0, LARGEST_SIDE / max(height, width))
            cv2.resizeWindow(self.TITLE, round(width * scale), round(height * scale))
            self._sized = True
        cv2.imshow(self.TITLE, cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR))

    def events(self, wait_s: float) -> list[str | Click] | None:
        code = cv2.waitKeyEx(max(1, round(wait_s * 1000)))
        if cv2.getWindowProperty(self.TITLE, cv2.WND_PROP_VISIBLE) < 1:
            return None
        clicks, self._clicks = self._clicks, []
        key = key_of(code)
        return [*clicks, *([] if key is None else [key])]

    def close(self) -> None:
        cv2.destroyAllWindows()
        cv2.waitKey(1)  # some systems take the window away only then

    def _on_mouse(self, event: int, x: int, y: int, *_: object) -> None:
        if event == cv2.EVENT_LBUTTONDOWN:
            self._clicks.append(Click((x, y)))


def key_of(code: int) -> str | None:
    """The key that OpenCV's code stands for; None for one that says nothing here."""
    low = code & 0xFFFF  # above are shift, number lock and the like
    if code < 0 or low >= 0xFF00:
        return None
    if low in KEYS:
        return KEYS[low]
    return chr(low) if chr(low).isprintable() else None


def require_display() -> None:
    """Raises ``UnavailableError`` where OpenCV cannot open a window.

    Tried in a process of its own: without a display OpenCV ends the whole process.
    """
    named = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if sys.platform.startswith("linux") and not named:
        raise UnavailableError(
            "there is no display here to show a window on: leave --show out, and write the video "
            "with --output FILE.mp4"
        )
    said = _said_by_probe()
    if said is None:
        return
    if "not implemented" in said:
        raise UnavailableError(
            "this OpenCV was built without windows: pip uninstall opencv-python-headless, and "
            "pip install --force-reinstall opencv-python"
        )
    raise UnavailableError(f"OpenCV cannot open a window here ({said}): leave --show out")


def _said_by_probe() -> str | None:
    """What a window that could not be opened said; None where it could."""
    try:
        tried = subprocess.run(  # noqa: S603 - our own interpreter and our own text
            [sys.executable, "-c", PROBE], capture_output=True, timeout=PROBE_S, check=False
        )
    except subprocess.TimeoutExpired:
        return "it did not answer"
    if tried.returncode == 0:
        return None
    lines = tried.stderr.decode(errors="replace").split("\n")
    telling = [line for line in lines if "not implemented" in line] or [*filter(None, lines)]
    return " ".join(telling[0].split()) if telling else "it failed"
