"""A window on the screen: a picture above its caption; keys."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from sam_detect.errors import UnavailableError
from sam_detect.io.drawing import (
    PANEL_COLOR,
    PANEL_TEXT,
    draw_alpha,
    line_height,
    text_alpha,
)
from sam_detect.types import ImageRGB

ESCAPE, ESCAPE_CODE = "escape", 27
LEAST_SIDE = 64
"""A window of less is taken to be of this size."""
LEAST_WIDTH = 480
"""Initial width of a window: smaller images are enlarged, so that the caption is readable."""
LARGEST_HW = (700, 1280)
"""Initial size of the image in a window: common screens have room for it."""
CAPTION_PX = 14
MARGIN = CAPTION_PX // 2
CAPTION_HEIGHT = line_height(CAPTION_PX) + 2 * MARGIN
PROBE_S = 30
PROBE = "import cv2; cv2.namedWindow('a trial'); cv2.waitKey(1); cv2.destroyAllWindows()"


class Display:
    """OpenCV's window. It belongs to the thread that makes it, which should ask for events often:
    OpenCV keeps one key, and forgets it when another one comes.

    Raises:
        UnavailableError: there is no display, or OpenCV was built without windows.
    """

    TITLE = "sam-detect"

    def __init__(self) -> None:
        require_display()
        self._shown_hw = (LEAST_SIDE, LEAST_SIDE)
        # Free: the pictures are made to fit, and are not to be scaled once more.
        cv2.namedWindow(
            self.TITLE, cv2.WINDOW_NORMAL | cv2.WINDOW_FREERATIO | cv2.WINDOW_GUI_NORMAL
        )

    @property
    def room_hw(self) -> tuple[int, int]:
        """Height and width of what can be shown: the window's inside."""
        _, _, width, height = cv2.getWindowImageRect(self.TITLE)
        if width <= 0 or height <= 0:  # this system does not say
            return self._shown_hw
        return max(LEAST_SIDE, height), max(LEAST_SIDE, width)

    def resize(self, room_hw: tuple[int, int]) -> None:
        """Makes room; the user may change it at any time."""
        self._shown_hw = room_hw
        cv2.resizeWindow(self.TITLE, room_hw[1], room_hw[0])

    def show(self, image_rgb: ImageRGB) -> None:
        """Shows ``(H, W, 3)`` uint8, RGB, the size of the room."""
        self._shown_hw = image_rgb.shape[0], image_rgb.shape[1]
        cv2.imshow(self.TITLE, cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR))

    def events(self, wait_s: float) -> list[str] | None:
        """Waits so long for a key; all keys since the last call; None once closed."""
        keys = []
        try:
            code = cv2.waitKeyEx(max(1, round(wait_s * 1000)))
            while code >= 0:
                keys.append(key_of(code))
                code = cv2.waitKeyEx(1)
            if cv2.getWindowProperty(self.TITLE, cv2.WND_PROP_VISIBLE) < 1:
                return None
        except cv2.error:  # the window is closed
            return None
        return [key for key in keys if key is not None]

    def close(self) -> None:
        """Takes the window away; may be called twice."""
        with contextlib.suppress(cv2.error):  # it is closed already
            cv2.destroyAllWindows()
            cv2.waitKey(1)  # some systems take the window away only then


def key_of(code: int) -> str | None:
    """The key that OpenCV's code stands for; None for one that says nothing here."""
    low = code & 0xFFFF  # above are shift, number lock and the like
    if code < 0 or low >= 0xFF00:
        return None
    if low == ESCAPE_CODE:
        return ESCAPE
    return chr(low) if chr(low).isprintable() else None


def require_display() -> None:
    """Raises ``UnavailableError`` where OpenCV cannot open a window.

    Tried in a process of its own: without a display OpenCV ends the whole process.
    """
    named = any(os.environ.get(name) for name in ("DISPLAY", "WAYLAND_DISPLAY"))
    if sys.platform.startswith("linux") and not named:
        raise UnavailableError(
            "there is no display here to show a window on: use --page instead of --show, or write "
            "the video with --output FILE.mp4"
        )
    said = _probe_window()
    if said is None:
        return
    if "not implemented" in said:
        raise UnavailableError(
            "this OpenCV was built without windows: pip uninstall opencv-python-headless, and "
            "pip install --force-reinstall opencv-python"
        )
    raise UnavailableError(f"OpenCV cannot open a window here ({said}): leave --show out")


def _probe_window() -> str | None:
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


def window_for(size_hw: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a window for an image of this size, with a caption."""
    height, width = size_hw
    scale = max(1.0, LEAST_WIDTH / width)
    scale = min(scale, LARGEST_HW[0] / height, LARGEST_HW[1] / width)
    return max(1, round(height * scale)) + CAPTION_HEIGHT, max(1, round(width * scale))


@dataclass(frozen=True)
class WindowLayout:
    """How an image is shown in a window: as large as possible, above the caption.

    Attributes:
        size_hw: of the image.
        room_hw: of the window's inside.
    """

    size_hw: tuple[int, int]
    room_hw: tuple[int, int]

    @property
    def shown_hw(self) -> tuple[int, int]:
        """The image's size in the window."""
        (height, width), (high, wide) = self.size_hw, self.room_hw
        scale = min(max(1, high - CAPTION_HEIGHT) / height, wide / width)
        return max(1, round(height * scale)), max(1, round(width * scale))

    @property
    def corner_xy(self) -> tuple[int, int]:
        """Its upper left corner in the window."""
        high, wide = self.shown_hw
        free = self.room_hw[0] - CAPTION_HEIGHT - high
        return (self.room_hw[1] - wide) // 2, max(0, free // 2)

    def render(self, image_rgb: ImageRGB) -> ImageRGB:
        """``(H, W, 3)`` uint8, RGB: the window's inside with the image in it."""
        canvas = np.full((*self.room_hw, 3), PANEL_COLOR, np.uint8)
        (high, wide), (x, y) = self.shown_hw, self.corner_xy
        how = cv2.INTER_AREA if high < self.size_hw[0] else cv2.INTER_CUBIC
        shown = cv2.resize(image_rgb, (wide, high), interpolation=how)
        part = canvas[y : y + high, x : x + wide]
        part[...] = shown[: part.shape[0], : part.shape[1]]
        return canvas


def draw_caption(canvas: ImageRGB, text: str) -> None:
    """Writes a text at the bottom of a window's inside, over as many lines as it needs."""
    lines = list(_wrap(text, canvas.shape[1] - 2 * MARGIN))
    step = line_height(CAPTION_PX)
    top = max(0, canvas.shape[0] - step * len(lines) - 2 * MARGIN)
    canvas[top:] = PANEL_COLOR
    for number, line in enumerate(lines):
        corner = MARGIN, top + MARGIN + number * step
        draw_alpha(canvas, text_alpha(line, CAPTION_PX), corner, PANEL_TEXT)


def _wrap(text: str, width: int) -> Iterator[str]:
    """The text in lines of at most this width in pixels, wrapped at spaces if possible."""
    line = ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if line and text_alpha(longer, CAPTION_PX).shape[1] > width:
            yield line
            longer = word
        line = longer
    yield line
