"""Pictures worked on at another scale, where their objects are larger or smaller than the examples.

Vectors and areas of objects depend on how many pixels they have. ``--scale auto`` detects at
several scales, and takes the one at which the candidates fit the examples: where the confidences
of what is named add up to most.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Literal

import cv2
import numpy as np

from sam_detect.labelling.doubt import TRY_SCALES
from sam_detect.types import Detections, Frame, Masks
from sam_detect.types.masks import tightened
from sam_detect.types.scratch import reduced

Scale = Literal["auto"] | float | None

SCALES = (1.0, 0.5, 0.25, 0.125, 2.0)
"""That ``auto`` tries. Between two of them objects differ from the examples by less than a factor
of 1.5 in length, which the labels bear."""
AS_IT_IS = 1.25
"""Another scale must be better by so much than the picture as it is."""
LEAST_SIDE, MOST_PIXELS = 96, 4_000_000
"""Of a picture at another scale, in pixels; no more than the second when it is enlarged."""


def detect_at_scale(
    frame: Frame, scale: Literal["auto"] | float, detect: Callable[[Frame], Detections]
) -> Detections:
    """What is detected in a picture at another scale, in pixels of the picture.

    Args:
        scale: factor of the sides, or "auto": the one of :data:`SCALES` that fits best.
        detect: of a picture at its own scale.
    """
    if scale != "auto":
        return at_size(detect(rescaled(frame, scale)), frame)
    found = {each: detect(rescaled(frame, each)) for each in _scales(frame)}
    best = max(found, key=lambda each: _fit(found[each]) * (AS_IT_IS if each == 1 else 1))
    chosen = at_size(found[best], frame)
    return replace(chosen, check=chosen.check.removesuffix(TRY_SCALES))


def _scales(frame: Frame) -> Iterator[float]:
    height, width = frame.size_hw
    for scale in SCALES:
        least, pixels = min(height, width) * scale, height * width * scale**2
        if scale == 1 or (least >= LEAST_SIDE and (scale < 1 or pixels <= MOST_PIXELS)):
            yield scale


def _fit(found: Detections) -> float:
    return float(found.known.confidence.sum())


def rescaled(frame: Frame, scale: float) -> Frame:
    """The frame with sides ``scale`` times as long, at least one pixel."""
    height, width = frame.size_hw
    size_wh = max(1, round(width * scale)), max(1, round(height * scale))
    if size_wh == (width, height):
        return frame
    pixels = frame.image_rgb
    if scale < 1:
        pixels = reduced(pixels, size_wh)
    else:
        pixels = np.asarray(cv2.resize(pixels, size_wh, interpolation=cv2.INTER_CUBIC), np.uint8)
    return replace(frame, image_rgb=pixels, pixel_size_um=None)


def at_size(found: Detections, frame: Frame) -> Detections:
    """Detections of a frame at another scale as those of the frame itself."""
    if found.size_hw == frame.size_hw:
        return found
    masks, (height, width) = found.masks, frame.size_hw
    factors = np.tile([width / found.size_hw[1], height / found.size_hw[0]], 2)
    boxes, crops = [], []
    for index, box in enumerate((masks.boxes_xyxy * factors).round().astype(int)):
        x0, y0 = np.minimum(box[:2], [width - 1, height - 1])
        x1, y1 = np.maximum(box[2:], [x0 + 1, y0 + 1])
        share = masks.crop(index).astype(np.float32)
        crop = cv2.resize(share, (int(x1 - x0), int(y1 - y0)), interpolation=cv2.INTER_LINEAR) > 0.5
        # a thin mask that is reduced may have no pixel that it covers by half
        tight = tightened((x0, y0, x1, y1), crop if crop.any() else ~crop)
        assert tight is not None  # noqa: S101 - it has a pixel
        boxes.append(tight[0])
        crops.append(tight[1])
    placed = Masks.from_crops(
        size_hw=frame.size_hw, boxes_xyxy=boxes, crops=crops, predicted_ious=masks.predicted_ious,
        stabilities=masks.stabilities, prompts_xy=masks.prompts_xy * factors[:2],
    )  # fmt: skip
    return replace(found, masks=placed, pixel_size_um=frame.pixel_size_um)
