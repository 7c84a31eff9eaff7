"""The objects of a picture painted into it, and how large lines and letters are there."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from sam_detect.outputs._painting import paint_object
from sam_detect.outputs._palette import UNKNOWN, ColorRGB, extend_colors
from sam_detect.types import Detections, ImageRGB

FILL_OPACITY = 0.3
LEAST_FILL_OPACITY = 0.12
"""Of an object as large as the picture: what is under it stays to be seen."""
SAMPLED_OBJECTS = 12
SAMPLES = np.stack(np.meshgrid(*[np.linspace(-0.6, 0.6, 7)] * 2), axis=-1).reshape(-1, 2)
"""Places in and near a box where its colours are looked at, in shares of its sides."""
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
            side = (float(masks.areas[i]) / objects.size) ** 0.5  # as a share of the picture's
            fill = FILL_OPACITY + side * (LEAST_FILL_OPACITY - FILL_OPACITY)
            paint_object(
                canvas, crop, (x0, y0, x1, y1), colors[label], line_px=line, fill_opacity=fill
            )
    return objects


def color_labels(colors: dict[str, ColorRGB], image_rgb: ImageRGB, detections: Detections) -> None:
    """Adds a colour for each label of a picture that ``colors`` lacks, one that is seen there."""
    height, width = detections.size_hw
    around: dict[str, npt.NDArray[np.uint8]] = {}
    labels = detections.label
    for label in {str(label) for label in labels if label is not None}.difference(colors):
        boxes = detections.boxes_xyxy[labels == label]
        chosen = boxes[np.linspace(0, len(boxes) - 1, min(len(boxes), SAMPLED_OBJECTS)).astype(int)]
        low, high = chosen[:, None, :2], chosen[:, None, 2:]
        places = np.round((low + high) / 2 + SAMPLES * (high - low)).astype(int)
        xs = np.clip(places[..., 0], 0, width - 1)
        ys = np.clip(places[..., 1], 0, height - 1)
        around[label] = image_rgb[ys, xs].reshape(-1, 3)
    extend_colors(colors, around, around)


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
