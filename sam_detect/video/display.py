"""A window on the screen: shows pictures, and reports keys and clicks."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from dataclasses import dataclass
from typing import Protocol

import cv2

from sam_detect.errors import UnavailableError
from sam_detect.types import ImageRGB
from sam_detect.video.controls import BACKSPACE, ENTER, ESCAPE, TAB

LEAST_SIDE = 64
"""A window of less is taken to be of this size."""
PROBE_S = 30
PROBE = "import cv2; cv2.namedWindow('a trial'); cv2.waitKey(1); cv2.destroyAllWindows()"
SHIFT = (0xFFE1, 0xFFE2)
KEYS = {8: BACKSPACE, 127: BACKSPACE, 9: TAB, 10: ENTER, 13: ENTER, 27: ESCAPE}


@dataclass(frozen=True)
class Click:
    """The left button went down there, in pixels of what is shown."""

    point_xy: tuple[int, int]


class Display(Protocol):
    """Shows pictures and reports keys and clicks."""

    @property
    def room_hw(self) -> tuple[int, int]:
        """Height and width of what can be shown: the window's inside."""

    def resize(self, room_hw: tuple[int, int]) -> None:
        """Makes room; the user may change it at any time."""

    def show(self, image_rgb: ImageRGB) -> None:
        """Shows ``(H, W, 3)`` uint8, RGB, the size of the room."""

    def events(self, wait_s: float) -> list[str | Click] | None:
        """Waits so long for a key; all keys and clicks since the last call; None once closed."""

    def close(self) -> None:
        """Takes the window away; may be called twice."""


class CvDisplay:
    """OpenCV's window. It belongs to the thread that makes it, which should ask for events often:
    OpenCV keeps one key, and forgets it when another one comes.

    Raises:
        UnavailableError: there is no display, or OpenCV was built without windows.
    """

    TITLE = "sam-detect"

    def __init__(self) -> None:
        require_display()
        self._clicks: list[Click] = []
        self._is_capital = False
        self._shown_hw = (LEAST_SIDE, LEAST_SIDE)
        # Free: the pictures are made to fit, and are not to be scaled once more.
        cv2.namedWindow(
            self.TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_FREERATIO | cv2.WINDOW_GUI_NORMAL
        )
        cv2.setMouseCallback(self.TITLE, self._on_mouse)

    @property
    def room_hw(self) -> tuple[int, int]:
        _, _, width, height = cv2.getWindowImageRect(self.TITLE)
        if width <= 0 or height <= 0:  # this system does not say
            return self._shown_hw
        return max(LEAST_SIDE, height), max(LEAST_SIDE, width)

    def resize(self, room_hw: tuple[int, int]) -> None:
        self._shown_hw = room_hw
        cv2.resizeWindow(self.TITLE, room_hw[1], room_hw[0])

    def show(self, image_rgb: ImageRGB) -> None:
        self._shown_hw = image_rgb.shape[0], image_rgb.shape[1]
        cv2.imshow(self.TITLE, cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR))

    def events(self, wait_s: float) -> list[str | Click] | None:
        keys = []
        try:
            code = cv2.waitKeyEx(max(1, round(wait_s * 1000)))
            while code >= 0:
                keys.append(self._key(code))
                code = cv2.waitKeyEx(1)
            if cv2.getWindowProperty(self.TITLE, cv2.WND_PROP_VISIBLE) < 1:
                return None
        except cv2.error:  # the window is closed
            return None
        clicks, self._clicks = self._clicks, []
        return [*clicks, *(key for key in keys if key is not None)]

    def close(self) -> None:
        with contextlib.suppress(cv2.error):  # it is closed already
            cv2.destroyAllWindows()
            cv2.waitKey(1)  # some systems take the window away only then

    def _key(self, code: int) -> str | None:
        """The key, as a capital after Shift: Qt's windows give the small letter, and Shift as a key
        of its own."""
        key = key_of(code)
        if self._is_capital and key is not None and len(key) == 1:
            key = key.upper()
        self._is_capital = (code & 0xFFFF) in SHIFT
        return key

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
    """The error of a window that could not be opened; None where it could."""
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
