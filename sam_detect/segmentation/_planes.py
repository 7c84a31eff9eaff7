"""The channels that the segmenter ``naive`` searches for level sets."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.types import ImageRGB
from sam_detect.types.masks import FloatArray

LEAST_RANGE = 4
"""A channel that spans fewer grey levels contains only noise."""
BLUR, COARSE_BLUR = 1.0, 2.0
"""Sigma in pixels, before a plane is searched at full and at half size."""
DRAWN = 0.9
"""Share of equal neighbours above which an image is a drawing, not a photograph."""
DARK = 8
"""Grey levels below which the logarithm shows only the sensor's noise."""


@dataclass(frozen=True, eq=False)
class Plane:
    """One channel to search.

    Attributes:
        values: ``(h, w)`` uint8, stretched to the full range.
        factor: side of one of its pixels in pixels of the image, 1 or 2.
        stable: whether stable regions are searched.
        halves: whether the two sides of its Otsu threshold are regions.
        faint: whether regions of low contrast with a wide neighbourhood are searched; in
            photographs these are noise.
    """

    values: npt.NDArray[np.uint8]
    factor: int
    stable: bool = True
    halves: bool = True
    faint: bool = False


def planes(image_rgb: ImageRGB) -> Iterator[Plane]:
    """The planes of an image, in a fixed order; none for one without contrast."""
    lab = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2LAB)
    saturation = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2HSV)[..., 1]
    light = _stretched(lab[..., 0])
    if light is not None:
        yield from _lightness(light)
    fine = cv2.GaussianBlur(np.dstack([lab, saturation]), (0, 0), BLUR)
    for channel in cv2.split(fine)[1:]:
        stretched = _stretched(channel)
        if stretched is not None:
            yield Plane(eight_bit(stretched), 1, stable=False)
    drawn = _flat_share(image_rgb) > DRAWN
    rest = (COARSE_BLUR**2 - BLUR**2) ** 0.5
    coarse = cv2.GaussianBlur(fine, (0, 0), rest)[::2, ::2].astype(np.float32)
    for channel in (coarse[..., 1], coarse[..., 2], coarse[..., 3], _second_axis(coarse[..., :3])):
        stretched = _stretched(channel)
        if stretched is not None:
            yield Plane(eight_bit(stretched), 2, faint=drawn)


def _lightness(light: FloatArray) -> Iterator[Plane]:
    smooth = cv2.GaussianBlur(light, (0, 0), BLUR)
    yield Plane(eight_bit(smooth), 1)
    coarse = cv2.GaussianBlur(light, (0, 0), COARSE_BLUR)[::2, ::2]
    yield Plane(eight_bit(coarse), 2, halves=False)
    logarithm = np.log(np.clip(smooth, 0, 255) + DARK)
    stretched = _stretched(logarithm * (255 / np.log(255 + DARK)))
    if stretched is not None:
        yield Plane(eight_bit(stretched), 1, halves=False)


def _second_axis(lab: FloatArray) -> FloatArray:
    """``(h, w)`` the colours of ``(h, w, 3)`` along their second principal axis."""
    sample = lab[::2, ::2].reshape(-1, 3).astype(np.float64)
    sample -= sample.mean(axis=0)
    axis = np.linalg.eigh(sample.T @ sample)[1][:, 1]
    # an eigenvector's sign is arbitrary: fixed, so that results do not depend on the LAPACK used
    axis *= -1 if axis[np.abs(axis).argmax()] < 0 else 1
    return np.asarray(lab @ axis.astype(np.float32), np.float32)


def _flat_share(image_rgb: ImageRGB) -> float:
    """Share of horizontal neighbours, in every fourth row, of exactly the same colour."""
    rows = image_rgb[::4]
    return float((rows[:, 1:] == rows[:, :-1]).all(axis=2).mean()) if rows.shape[1] > 1 else 0.0


def _stretched(channel: npt.NDArray[Any]) -> FloatArray | None:
    """Stretched to 0..255 between robust extremes; None for noise only."""
    low, high = np.percentile(channel[::3, ::3], [0.2, 99.8])
    if high - low < LEAST_RANGE:
        return None
    scale = np.float32(255 / (high - low))
    return np.asarray((channel.astype(np.float32) - np.float32(low)) * scale, np.float32)


def eight_bit(values: FloatArray) -> npt.NDArray[np.uint8]:
    return np.ascontiguousarray(np.clip(values, 0, 255).astype(np.uint8))
