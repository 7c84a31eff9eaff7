"""A picture in a window: where it lies, what is marked in it, and the line of text below it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import cv2
import numpy as np

from sam_detect.outputs._painting import paint_alpha, paint_object
from sam_detect.outputs._palette import ColorRGB
from sam_detect.outputs._tags import PANEL_COLOR, PANEL_TEXT
from sam_detect.outputs._text import line_height, text_alpha
from sam_detect.types import ImageRGB, Masks

LEAST_WIDTH = 480
"""Of a window at first: smaller pictures are enlarged, so that the caption can be read."""
LARGEST_HW = (700, 1280)
"""Of the picture in a window at first: common screens have room for it."""
MARK: ColorRGB = (255, 255, 255)
MARK_OPACITY = 0.25
MARK_SHARE = 0.003
"""Width of the line around what is marked, of the picture's longer side."""
CAPTION_PX = 14
MARGIN = CAPTION_PX // 2
Box = tuple[int, int, int, int]
CAPTION_HEIGHT = line_height(CAPTION_PX) + 2 * MARGIN


def window_for(size_hw: tuple[int, int]) -> tuple[int, int]:
    """Height and width of a window that shows a picture of this size well, with a caption."""
    height, width = size_hw
    scale = max(1.0, LEAST_WIDTH / width)
    scale = min(scale, LARGEST_HW[0] / height, LARGEST_HW[1] / width)
    return max(1, round(height * scale)) + CAPTION_HEIGHT, max(1, round(width * scale))


@dataclass(frozen=True)
class Framing:
    """How a picture lies in a window: as large as possible, above the line for the caption.

    Attributes:
        size_hw: of the picture.
        room_hw: of the window's inside.
    """

    size_hw: tuple[int, int]
    room_hw: tuple[int, int]

    @property
    def shown_hw(self) -> tuple[int, int]:
        """The picture's size in the window."""
        (height, width), (high, wide) = self.size_hw, self.room_hw
        scale = min(max(1, high - CAPTION_HEIGHT) / height, wide / width)
        return max(1, round(height * scale)), max(1, round(width * scale))

    @property
    def corner_xy(self) -> tuple[int, int]:
        """Where its upper left corner is in the window."""
        high, wide = self.shown_hw
        free = self.room_hw[0] - CAPTION_HEIGHT - high
        return (self.room_hw[1] - wide) // 2, max(0, free // 2)

    def framed(self, image_rgb: ImageRGB) -> ImageRGB:
        """``(H, W, 3)`` uint8, RGB: the window's inside with the picture in it."""
        canvas = np.full((*self.room_hw, 3), PANEL_COLOR, np.uint8)
        (high, wide), (x, y) = self.shown_hw, self.corner_xy
        smaller = high < self.size_hw[0]
        how = cv2.INTER_AREA if smaller else cv2.INTER_CUBIC
        shown = cv2.resize(image_rgb, (wide, high), interpolation=how)
        part = canvas[y : y + high, x : x + wide]
        part[...] = shown[: part.shape[0], : part.shape[1]]
        return canvas

    def in_picture(self, point_xy: tuple[int, int]) -> tuple[int, int] | None:
        """The picture's pixel at a point of the window; None where the picture is not."""
        (high, wide), (left, top) = self.shown_hw, self.corner_xy
        x, y = point_xy[0] - left, point_xy[1] - top
        if not (0 <= x < wide and 0 <= y < high):
            return None
        height, width = self.size_hw
        return x * width // wide, y * height // high

    def mark(self, canvas: ImageRGB, box_xyxy: Box) -> None:
        """Draws a bright frame around a box of the picture, into the window's inside."""
        (high, wide), (left, top) = self.shown_hw, self.corner_xy
        height, width = self.size_hw
        x0, x1 = (left + x * wide // width for x in box_xyxy[::2])
        y0, y1 = (top + y * high // height for y in box_xyxy[1::2])
        cv2.rectangle(canvas, (x0 - 3, y0 - 3), (x1 + 2, y1 + 2), (0, 0, 0), 4)
        cv2.rectangle(canvas, (x0 - 3, y0 - 3), (x1 + 2, y1 + 2), MARK, 2)


def with_outline(image_rgb: ImageRGB, masks: Masks) -> ImageRGB:
    """A copy of the picture in which the objects are set off from everything else."""
    canvas = np.array(image_rgb)
    line = max(1.5, MARK_SHARE * max(canvas.shape[:2]))
    for index in range(len(masks)):
        x0, y0, x1, y1 = (int(v) for v in masks.boxes_xyxy[index])
        paint_object(
            canvas, masks.crop(index), (x0, y0, x1, y1), MARK,
            line_px=line, fill_opacity=MARK_OPACITY,
        )  # fmt: skip
    return canvas


def draw_caption(canvas: ImageRGB, text: str) -> None:
    """Writes a text at the foot of a window's inside, over as many lines as it needs."""
    lines = list(_lines(text, canvas.shape[1] - 2 * MARGIN))
    step = line_height(CAPTION_PX)
    top = max(0, canvas.shape[0] - step * len(lines) - 2 * MARGIN)
    canvas[top:] = PANEL_COLOR
    for number, line in enumerate(lines):
        corner = MARGIN, top + MARGIN + number * step
        paint_alpha(canvas, text_alpha(line, CAPTION_PX), corner, PANEL_TEXT)


def _lines(text: str, width: int) -> Iterator[str]:
    """The text in lines that are no wider, broken at spaces where that is possible."""
    line = ""
    for word in text.split(" "):
        longer = f"{line} {word}" if line else word
        if line and text_alpha(longer, CAPTION_PX).shape[1] > width:
            yield line
            longer = word
        line = longer
    yield line
