"""Outlines drawn into a picture, for somebody who wants to see what was learnt."""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np

from sam_detect.masks import BoolArray
from sam_detect.outputs._painting import BLACK, paint_alpha, paint_object, rounded_rectangle
from sam_detect.outputs._palette import ColorRGB, ink_on
from sam_detect.outputs._text import line_height, text_alpha
from sam_detect.types import ImageRGB, Masks

OUTLINE: ColorRGB = (255, 64, 160)
GIVEN: ColorRGB = (255, 255, 255)
LEAST_SIDE = 640
"""Pixels of the longer side: smaller pictures are enlarged, so that a line hides no object."""
FILL_OPACITY = 0.18


def draw_outlines(
    image_rgb: ImageRGB, masks: Masks, boxes_xywh: Sequence[Sequence[float]] = ()
) -> ImageRGB:
    """The picture with masks outlined and boxes dashed; the given one stays as it is.

    Where there are boxes they carry their number, from 1, as messages count them.

    Args:
        image_rgb: ``(H, W, 3)`` uint8, RGB.
        masks: of this picture.
        boxes_xywh: ``x, y, width, height`` in pixels of the picture; may reach beyond it.

    Returns:
        ``(H * k, W * k, 3)`` uint8, RGB; ``k`` is 1 unless the picture is small.
    """
    times = max(1, round(LEAST_SIDE / max(image_rgb.shape[:2])))
    canvas = np.repeat(np.repeat(image_rgb, times, axis=0), times, axis=1)
    height, width = canvas.shape[:2]
    line = float(np.clip((height * width) ** 0.5 * 0.004, 2, 14))
    for index in np.argsort(-masks.areas, kind="stable").tolist():
        crop: BoolArray = np.repeat(np.repeat(masks.crop(index), times, axis=0), times, axis=1)
        x0, y0, x1, y1 = (masks.boxes_xyxy[index] * times).tolist()
        paint_object(
            canvas, crop, (x0, y0, x1, y1), OUTLINE, line_px=line, fill_opacity=FILL_OPACITY
        )
    for number, box in enumerate(boxes_xywh, start=1):
        x, y, w, h = (float(np.clip(value * times, -1e6, 1e6)) for value in box)
        x0, y0 = max(0, round(x)), max(0, round(y))
        x1, y1 = min(width, round(x + w)), min(height, round(y + h))
        _dashed(canvas, (x0, y0, x1, y1), max(1, round(line * 0.6)))
        _numbered(canvas, str(number), (x0, y0), round(float(np.clip(line * 6, 13, 90))))
    return canvas


def _dashed(canvas: ImageRGB, box: tuple[int, int, int, int], px: int) -> None:
    """A box in dashes of white and black, which is seen on any ground."""
    x0, y0, x1, y1 = box
    ring = np.zeros((max(1, y1 - y0), max(1, x1 - x0)), np.uint8)
    cv2.rectangle(ring, (0, 0), (ring.shape[1] - 1, ring.shape[0] - 1), 255, 2 * px - 1)
    rows, columns = np.indices(ring.shape, sparse=True)
    light = ((rows + columns) // (6 * px)) % 2 == 0
    for shown, color in ((light, GIVEN), (~light, BLACK)):
        paint_alpha(canvas, ring * shown, (x0, y0), color)


def _numbered(canvas: ImageRGB, text: str, corner_xy: tuple[int, int], size_px: int) -> None:
    """A small tag with a number, above the corner where there is room, else in it."""
    letters = text_alpha(text, size_px)
    pad = max(2, size_px // 4)
    size = letters.shape[1] + 2 * pad, line_height(size_px)
    x = max(0, min(corner_xy[0], canvas.shape[1] - size[0]))
    above = corner_xy[1] - size[1]
    y = above if above >= 0 else min(corner_xy[1], max(0, canvas.shape[0] - size[1]))
    paint_alpha(canvas, rounded_rectangle(size, pad), (x, y), GIVEN)
    paint_alpha(canvas, letters, (x + pad, y), ink_on(GIVEN))
