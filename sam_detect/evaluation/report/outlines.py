"""Masks as SVG paths."""

from __future__ import annotations

import cv2
import numpy as np

from sam_detect.masks import BoolArray
from sam_detect.types import Masks

TOLERANCE = 0.4
"""A path may be so far from its outline, in units of the drawing."""


def box_path(box_xyxy: tuple[float, float, float, float], scale: float) -> str:
    """A rectangle, scaled."""
    x0, y0, x1, y1 = (f"{value * scale:.4g}" for value in box_xyxy)
    return f"M{x0} {y0}H{x1}V{y1}H{x0}Z"


def mask_path(masks: Masks, index: int, scale: float) -> str:
    """The outlines of one mask and of its holes."""
    x0, y0, _, _ = (int(value) for value in masks.boxes_xyxy[index])
    return region_path(masks.crop(index), scale, (x0, y0))


def region_path(region: BoolArray, scale: float, corner_xy: tuple[int, int] = (0, 0)) -> str:
    """The outlines of ``(h, w)`` pixels and of the holes in them.

    Filled by the rule ``evenodd`` the path gives the pixels back, but for a quarter of a pixel
    and :data:`TOLERANCE`.

    Args:
        region: where the pixels are.
        scale: units of the drawing per pixel.
        corner_xy: the region's place in the picture, in pixels.
    """
    # findContours runs through the middles of pixels, and would give a line of pixels no area:
    # doubled, it stays a quarter of a pixel inside their edges
    doubled = np.kron(region.astype(np.uint8), np.ones((2, 2), np.uint8))
    padded = np.pad(doubled, ((1, 1), (1, 1)))
    contours, _ = cv2.findContours(padded, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    corner = np.array(corner_xy, np.float64)
    return "".join(_ring((ring[:, 0] - 0.5) / 2 + corner, scale) for ring in contours)


def _ring(points_xy: np.ndarray[tuple[int, ...], np.dtype[np.float64]], scale: float) -> str:
    scaled = (points_xy * scale).astype(np.float32)
    kept = cv2.approxPolyDP(scaled[:, None], TOLERANCE, True)[:, 0]
    return "M" + "L".join(f"{x:.4g} {y:.4g}" for x, y in kept.tolist()) + "Z"
