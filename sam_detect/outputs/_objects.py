"""The objects of a picture painted into it, and how large lines and letters are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sam_detect.outputs._painting import paint_object
from sam_detect.outputs._palette import UNKNOWN, ColorRGB
from sam_detect.types import Detections, ImageRGB

FILL_OPACITY = 0.32
UNKNOWN_OPACITY = 0.75

Counts = list[tuple[str | None, int, ColorRGB]]
"""Label (None for unknown), number and colour, in the order to show."""


def paint_objects(
    canvas: ImageRGB,
    detections: Detections,
    shown: Sequence[int],
    colors: Mapping[str, ColorRGB],
    *,
    line: float,
) -> npt.NDArray[np.uint8]:
    """Draws the objects, the large ones first, and returns ``(H, W)``: 1 where one with a label is.

    Args:
        canvas: the picture, changed in place.
        detections: of this picture.
        shown: indices of those to draw.
        colors: of their labels.
        line: width of the outlines in pixels.
    """
    masks = detections.masks
    objects = np.zeros(detections.size_hw, np.uint8)
    # objects without a label first: they must not cross those that have one
    order = sorted(shown, key=lambda i: (detections.verdicts[i].label is not None, -masks.areas[i]))
    for i in order:
        crop = masks.crop(i)
        x0, y0, x1, y1 = (int(v) for v in masks.boxes_xyxy[i])
        label = detections.verdicts[i].label
        if label is None:
            paint_object(
                canvas, crop, (x0, y0, x1, y1), UNKNOWN,
                line_px=max(1.0, line * 0.5), line_opacity=UNKNOWN_OPACITY,
            )  # fmt: skip
        else:
            objects[y0:y1, x0:x1] |= crop
            paint_object(
                canvas, crop, (x0, y0, x1, y1), colors[label],
                line_px=line, fill_opacity=FILL_OPACITY,
            )  # fmt: skip
    return objects


def counts_of(names: Sequence[str | None], colors: Mapping[str, ColorRGB]) -> Counts:
    """The most frequent first, the unknown ones last."""
    counted = Counter(names)
    known = sorted(
        ((name, number) for name, number in counted.items() if name is not None),
        key=lambda pair: (-pair[1], pair[0]),
    )
    rows: Counts = [(n, c, colors[n]) for n, c in known]
    return [*rows, (None, counted[None], UNKNOWN)] if counted[None] else rows


def legend_px(canvas: ImageRGB) -> int:
    """Text size of the legend, by the picture's size."""
    side = (canvas.shape[0] * canvas.shape[1]) ** 0.5
    return int(np.clip(round(side * 0.02), 11, 90))


def text_px(detections: Detections, shown: Sequence[int]) -> int:
    """Text size by the picture's, smaller where the objects are small beside it."""
    height, width = detections.size_hw
    by_picture = (height * width) ** 0.5 * 0.022
    by_object = _typical_side(detections, shown) * 0.4
    wanted = float(np.clip(by_object, 0.6 * by_picture, by_picture))
    return int(np.clip(round(wanted), 9 if min(height, width) < 160 else 11, 90))


def line_px(detections: Detections, shown: Sequence[int]) -> float:
    """Width of the outlines, by the picture's size, finer on small objects."""
    height, width = detections.size_hw
    by_picture = (height * width) ** 0.5 * 0.003
    return float(np.clip(min(by_picture, _typical_side(detections, shown) * 0.07), 1.2, 14))


def _typical_side(detections: Detections, shown: Sequence[int]) -> float:
    return float(np.sqrt(np.median(detections.area[list(shown)])))
