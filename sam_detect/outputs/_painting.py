"""Anti-aliased shapes on ``(H, W, 3)`` uint8 pictures, changed in place."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.masks import BoolArray, FloatArray
from sam_detect.outputs._palette import ColorRGB
from sam_detect.types import ImageRGB

HALO_OPACITY = 0.55
BLACK: ColorRGB = (0, 0, 0)


def paint_object(
    canvas: ImageRGB,
    mask: BoolArray,
    box_xyxy: tuple[int, int, int, int],
    color: ColorRGB,
    *,
    line_px: float,
    line_opacity: float = 1.0,
    fill_opacity: float = 0.0,
) -> None:
    """A translucent fill, a crisp line along the edge and a dark rim that sets it off.

    Args:
        canvas: the picture, changed in place.
        mask: ``(h, w)`` bool, fills the box.
        box_xyxy: half-open, in pixels.
        line_px: width of the line, which lies on the edge.
        line_opacity: 0 to 1.
        fill_opacity: 0 to 1.
    """
    pad = int(np.ceil(line_px)) + 3
    x0, y0 = max(0, box_xyxy[0] - pad), max(0, box_xyxy[1] - pad)
    x1 = min(canvas.shape[1], box_xyxy[2] + pad)
    y1 = min(canvas.shape[0], box_xyxy[3] + pad)
    padded = np.zeros((y1 - y0, x1 - x0), np.uint8)
    top, left = box_xyxy[1] - y0, box_xyxy[0] - x0
    padded[top : top + mask.shape[0], left : left + mask.shape[1]] = mask
    depth = _smooth_depth(padded)
    half = line_px / 2
    line = np.clip(half + 0.5 - np.abs(depth), 0, 1) * line_opacity
    rim = np.clip(half + 1.5 + depth, 0, 1) * np.clip(-depth, 0, 1)
    rim *= HALO_OPACITY * line_opacity
    fill = np.clip(depth + 0.5, 0, 1) * fill_opacity
    part = canvas[y0:y1, x0:x1]
    _mix(part, rim, BLACK)
    _mix(part, 1 - (1 - fill) * (1 - line), color)


def paint_alpha(
    canvas: ImageRGB,
    alpha: npt.NDArray[Any],
    corner_xy: tuple[int, int],
    color: ColorRGB,
    opacity: float = 1.0,
) -> None:
    """A colour through an ``(h, w)`` uint8 coverage, cut off at the picture's edge."""
    x, y = corner_xy
    part = canvas[y : y + alpha.shape[0], x : x + alpha.shape[1]]
    weight = alpha[: part.shape[0], : part.shape[1]].astype(np.float32) * np.float32(opacity / 255)
    _mix(part, weight, color)


def rounded_rectangle(size_wh: tuple[int, int], radius: float) -> npt.NDArray[np.uint8]:
    """``(h, w)`` uint8 coverage of a rectangle with round corners."""
    width, height = size_wh
    radius = min(radius, width / 2, height / 2)
    dx = np.abs(np.arange(width) + 0.5 - width / 2) - (width / 2 - radius)
    dy = np.abs(np.arange(height) + 0.5 - height / 2) - (height / 2 - radius)
    outside = np.hypot(np.maximum(dx, 0)[None, :], np.maximum(dy, 0)[:, None])
    coverage: npt.NDArray[np.uint8] = np.rint(np.clip(radius + 0.5 - outside, 0, 1) * 255).astype(
        np.uint8
    )
    return coverage


def _smooth_depth(mask: npt.NDArray[np.uint8]) -> FloatArray:
    """Distance from the mask's edge, positive inside, smoothed so that steps become curves."""
    inside = cv2.distanceTransform(mask, cv2.DIST_L2, cv2.DIST_MASK_3)
    outside = cv2.distanceTransform(1 - mask, cv2.DIST_L2, cv2.DIST_MASK_3)
    # distances are to the next pixel's middle; the edge lies half a pixel before it
    depth = inside - outside - (mask - np.float32(0.5))
    return np.asarray(cv2.GaussianBlur(depth, (5, 5), 1.0), np.float32)


def _mix(part: ImageRGB, weight: FloatArray, color: ColorRGB) -> None:
    """Lays a colour over a part of a picture, by a weight of 0 to 1 for each pixel."""
    if not part.size:
        return
    flat = np.empty_like(part)
    flat[...] = color
    part[...] = cv2.blendLinear(part, flat, 1 - weight, weight)
