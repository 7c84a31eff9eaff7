"""A window on the screen: a picture above its caption; keys and clicks."""

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
from sam_detect.outputs.drawing import (
    PANEL_COLOR,
    PANEL_TEXT,
    BoxXYXY,
    ColorRGB,
    draw_alpha,
    draw_masks,
    line_height,
    text_alpha,
)
from sam_detect.types import ImageRGB, Masks
from sam_detect.video.controls import BACKSPACE, ENTER, ESCAPE, TAB

LEAST_SIDE = 64
"""A window of less is taken to be of this size."""
LEAST_WIDTH = 480
"""Initial width of a window: smaller images are enlarged, so that the caption is readable."""
LARGEST_HW = (700, 1280)
"""Initial size of the image in a window: common screens have room for it."""
MARK: ColorRGB = (255, 255, 255)
MARK_OPACITY = 0.25
MARK_LINE = 0.003
"""Width of the line around marked objects, relative to the image's longer side."""
CAPTION_PX = 14
MARGIN = CAPTION_PX // 2
CAPTION_HEIGHT = line_height(CAPTION_PX) + 2 * MARGIN
PROBE_S = 30
PROBE = "import cv2; cv2.namedWindow('a trial'); cv2.waitKey(1); cv2.destroyAllWindows()"
SHIFT = (0xFFE1, 0xFFE2)
KEYS = {8: BACKSPACE, 127: BACKSPACE, 9: TAB, 10: ENTER, 13: ENTER, 27: ESCAPE}


@dataclass(frozen=True)
class Click:
    """The left button went down there, in pixels of what is shown."""

    point_xy: tuple[int, int]


class Display:
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

    def events(self, wait_s: float) -> list[str | Click] | None:
        """Waits so long for a key; all keys and clicks since the last call; None once closed."""
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
        """Takes the window away; may be called twice."""
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

    def in_image(self, point_xy: tuple[int, int]) -> tuple[int, int] | None:
        """The image's pixel at a point of the window; None outside the image."""
        (high, wide), (left, top) = self.shown_hw, self.corner_xy
        x, y = point_xy[0] - left, point_xy[1] - top
        if not (0 <= x < wide and 0 <= y < high):
            return None
        height, width = self.size_hw
        return x * width // wide, y * height // high

    def mark(self, canvas: ImageRGB, box_xyxy: BoxXYXY) -> None:
        """Draws a bright frame around a box of the image, into the window's inside."""
        (high, wide), (left, top) = self.shown_hw, self.corner_xy
        height, width = self.size_hw
        x0, x1 = (left + x * wide // width for x in box_xyxy[::2])
        y0, y1 = (top + y * high // height for y in box_xyxy[1::2])
        cv2.rectangle(canvas, (x0 - 3, y0 - 3), (x1 + 2, y1 + 2), (0, 0, 0), 4)
        cv2.rectangle(canvas, (x0 - 3, y0 - 3), (x1 + 2, y1 + 2), MARK, 2)


def draw_outlined(image_rgb: ImageRGB, masks: Masks) -> ImageRGB:
    """A copy of the image in which these objects are highlighted."""
    canvas = np.array(image_rgb)
    line = max(1.5, MARK_LINE * max(canvas.shape[:2]))
    draw_masks(canvas, masks, MARK, line_px=line, fill_opacity=MARK_OPACITY)
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
