"""Shapes and intensities of objects, for tables."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from sam_detect.types import Detection, ImageRGB
from sam_detect.types.masks import BoolArray

PIXEL_VARIANCE = 1 / 12
"""Of a coordinate within a pixel: without it a row of pixels has no width."""

PERIMETER_TOLERANCE_PX = 0.7
"""Along the pixels an outline is 5 % longer than the disc's; so 1 %, or 3 % below a radius of 6."""


@dataclass(frozen=True)
class Shape:
    """What is measured of an object.

    Attributes:
        perimeter: length of the outlines of all parts in pixels, holes left out.
        circularity: ``4 pi area / perimeter^2``, 1 for a circle, at most 1.
        aspect_ratio: length by width of the ellipse with the same second moments, from 1.
        solidity: area by that of the convex hull, at most 1.
        means: the mean of each channel in the object.
    """

    perimeter: float
    circularity: float
    aspect_ratio: float
    solidity: float
    means: tuple[float, ...]


def measured(detection: Detection, image: ImageRGB) -> Shape:
    """The shape of an object, and its means in the ``(H, W, C)`` image that it was found in."""
    import cv2  # imported on use: `sam-detect --help` stays light

    [x0, y0, width, height] = detection.bbox
    crop = detection.masks.crop(0)
    rings = [ring.astype(np.float32) for ring in detection.masks.polygons(0)]
    simple = [cv2.approxPolyDP(ring[:, None], PERIMETER_TOLERANCE_PX, True) for ring in rings]
    perimeter = sum(cv2.arcLength(ring, True) for ring in simple)
    hull = cv2.contourArea(cv2.convexHull(np.concatenate(rings)))
    values = image[y0 : y0 + height, x0 : x0 + width][crop].reshape(detection.area, -1)
    return Shape(
        perimeter=perimeter,
        circularity=min(1.0, 4 * math.pi * detection.area / perimeter**2),
        aspect_ratio=_aspect_ratio(crop),
        solidity=min(1.0, detection.area / hull),
        means=tuple(values.mean(axis=0, dtype=np.float64).tolist()),
    )


def _aspect_ratio(crop: BoolArray) -> float:
    y, x = np.nonzero(crop)
    spread = np.cov(np.stack([x, y]), bias=True) + PIXEL_VARIANCE * np.eye(2)
    least, most = np.linalg.eigvalsh(spread)
    return float(np.sqrt(most / least))
