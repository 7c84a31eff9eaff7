"""The pictures whose level sets are searched: principal colours, CIELAB and local contrast.

* **Principal colour axes** (Ohta, Kanade, Sakai 1980): the first holds most of what separates the
  objects of *this* picture from its ground, the second what brightness alone misses.
* **CIELAB** at half size: chroma ignores shading and shadows, and half size ignores fine texture.
* **Local contrast** (a pixel's difference to its neighbourhood mean, in units of the neighbourhood's
  spread, as in Niblack 1986 and Sauvola 2000): a dim nucleus counts as much as a bright one.

Every channel is stretched to 8 bits between robust percentiles. A channel that hardly varies (the
chroma of a grey picture) is left out.
"""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.masks import FloatArray
from sam_detect.types import ImageRGB

UInt8Array = npt.NDArray[np.uint8]

STRETCH_PERCENTILES = (0.1, 99.9)
LEAST_RANGE = 4.0
"""Grey levels (of 256) between the percentiles below which a channel holds nothing but noise."""
FINE_WINDOW, COARSE_WINDOW = 0.03, 0.10
"""Neighbourhoods of the local contrast, as a share of the longer side."""
SMOOTHING_SIGMA = 1.0


@dataclass(frozen=True, eq=False)
class Channel:
    """One picture to take level sets of.

    Attributes:
        values: ``(h, w)`` uint8.
        zoom: pixels of the working picture per pixel of ``values``, along each side.
    """

    values: UInt8Array
    zoom: int


def lab_float(image_rgb: ImageRGB) -> FloatArray:
    """``(H, W, 3)`` float32 CIELAB, each axis in 0..255 grey levels as OpenCV scales it."""
    lab: FloatArray = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2LAB).astype(np.float32)
    return lab


def channels(lab: FloatArray) -> list[Channel]:
    """Channels of a ``(H, W, 3)`` CIELAB picture: fine ones at full, coarse ones at half size."""
    found: list[UInt8Array | None] = []
    smooth = cv2.GaussianBlur(lab, (0, 0), SMOOTHING_SIGMA)
    first, second = principal_axes(smooth)
    fine = [first, local_contrast(smooth[..., 0], FINE_WINDOW)]
    result = [Channel(values, 1) for values in map(_stretched, fine) if values is not None]
    height, width = lab.shape[0] // 2, lab.shape[1] // 2
    if min(height, width) < 2:
        return result
    half = cv2.resize(
        lab[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA
    )
    half = cv2.GaussianBlur(half, (0, 0), SMOOTHING_SIGMA)
    coarse = [
        *cv2.split(half),
        principal_axes(half)[1],
        local_contrast(half[..., 0], COARSE_WINDOW),
    ]
    found = [_stretched(values) for values in coarse]
    return result + [Channel(values, 2) for values in found if values is not None]


def principal_axes(lab: FloatArray) -> tuple[FloatArray, FloatArray]:
    """The picture along its two directions of largest colour variance, each ``(H, W)``."""
    sample = lab[::3, ::3].reshape(-1, 3).astype(np.float64)
    _, axes = np.linalg.eigh(np.cov(sample, rowvar=False) if len(sample) > 1 else np.eye(3))
    # An eigenvector's sign is arbitrary: fixed here, so that results do not depend on LAPACK.
    signs = np.sign(axes[np.abs(axes).argmax(axis=0), np.arange(3)])
    projected = lab @ (axes * signs)[:, :0:-1].astype(np.float32)
    return projected[..., 0], projected[..., 1]


def local_contrast(lightness: FloatArray, window: float) -> FloatArray:
    """Difference to the local mean over the local spread; noise is not blown up to contrast."""
    sigma = max(2.0, window * max(lightness.shape))
    difference = lightness - _wide_blur(lightness, sigma)
    spread = np.sqrt(_wide_blur(np.square(difference), sigma))
    contrast: FloatArray = difference / (spread + 2.0)
    return contrast


def _wide_blur(values: FloatArray, sigma: float) -> FloatArray:
    """A gaussian blur; a wide one is made of three box blurs (Kovesi 2010), cost without sigma."""
    side = int(np.sqrt(4 * sigma * sigma + 1)) | 1
    for _ in range(3):
        values = cv2.blur(values, (side, side), borderType=cv2.BORDER_REFLECT)
    return values


def _stretched(values: FloatArray) -> UInt8Array | None:
    low, high = np.percentile(values[::2, ::2], STRETCH_PERCENTILES)
    # Local contrast is in units of spread, where a range of LEAST_RANGE is real structure too.
    if not high - low > 0:
        return None
    scaled = (values - np.float32(low)) * np.float32(255 / (high - low))
    result: UInt8Array = cv2.convertScaleAbs(np.clip(scaled, 0, 255))
    return result
