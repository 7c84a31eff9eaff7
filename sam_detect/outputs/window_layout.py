"""A picture in a window: its place, what is marked in it, and the caption below it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from sam_detect.outputs.colors import ColorRGB
from sam_detect.outputs.drawing import (
    PANEL_COLOR,
    PANEL_TEXT,
    BoxXYXY,
    draw_alpha,
    draw_masks,
    line_height,
    text_alpha,
)
from sam_detect.types import ImageRGB, Masks

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


def with_outline(image_rgb: ImageRGB, masks: Masks) -> ImageRGB:
    """A copy of the image in which these objects are highlighted."""
    canvas = np.array(image_rgb)
    line = max(1.5, MARK_LINE * max(canvas.shape[:2]))
    draw_masks(canvas, masks, MARK, line_px=line, fill_opacity=MARK_OPACITY)
    return canvas


def draw_caption(canvas: ImageRGB, text: str) -> None:
    """Writes a text at the bottom of a window's inside, over as many lines as it needs."""
    lines = list(_wrapped(text, canvas.shape[1] - 2 * MARGIN))
    step = line_height(CAPTION_PX)
    top = max(0, canvas.shape[0] - step * len(lines) - 2 * MARGIN)
    canvas[top:] = PANEL_COLOR
    for number, line in enumerate(lines):
        corner = MARGIN, top + MARGIN + number * step
        draw_alpha(canvas, text_alpha(line, CAPTION_PX), corner, PANEL_TEXT)


def _wrapped(text: str, width: int) -> Iterator[str]:
    """The text in lines of at most this width in pixels, wrapped at spaces if possible."""
    line = ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if line and text_alpha(longer, CAPTION_PX).shape[1] > width:
            yield line
            longer = word
        line = longer
    yield line
