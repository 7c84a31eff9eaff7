"""The fades: how much the context of an object counts, by its distance ``d`` from the object.

``d`` is 0 on the object, in pixels of the image.
"""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.errors import ConfigError
from sam_detect.interfaces import WeightFade
from sam_detect.options import require_number
from sam_detect.types import ImageRGB
from sam_detect.types.masks import BoolArray, FloatArray

SIGMA_PER_DIAMETER = 0.05
"""Default width of the gaussian relative to the object's diameter; see docs/fading.md."""


class IdentityFade(WeightFade):
    """Weight 1 everywhere: the context counts as much as the object."""

    def weights(self, distance_map: FloatArray) -> FloatArray:
        return np.ones(distance_map.shape, np.float32)


class GaussianFade(WeightFade):
    """``max(min_fade, exp(-(d / sigma)^2))``, the default.

    Args:
        sigma: width in pixels. None follows the object: 0.05 of the diameter of a disc of its
            area, so that the context does not depend on the distance of the camera.
        min_fade: least weight, 0 to 1.
        max_distance: pixels beyond which the weight is 0, or None.
        sigma_per_diameter: width relative to the diameter, without ``sigma``.

    Raises:
        ConfigError: a value out of range.
    """

    def __init__(
        self,
        sigma: float | None = None,
        min_fade: float = 0.0,
        max_distance: float | None = None,
        sigma_per_diameter: float = SIGMA_PER_DIAMETER,
    ) -> None:
        self.sigma = _optional("sigma", sigma)
        self.min_fade = require_number("min_fade", min_fade, 0, 1)
        self.max_distance = _optional("max_distance", max_distance)
        self.sigma_per_diameter = require_number(
            "sigma_per_diameter", sigma_per_diameter, 0, above=True
        )

    def for_area(self, area: float) -> GaussianFade:
        if self.sigma is not None:
            return self
        diameter = 2 * math.sqrt(area / math.pi)
        sigma = max(1.0, self.sigma_per_diameter * diameter)
        return GaussianFade(sigma, self.min_fade, self.max_distance, self.sigma_per_diameter)

    def weights(self, distance_map: FloatArray) -> FloatArray:
        if self.sigma is None:
            raise ConfigError("a gaussian fade without sigma needs for_area(area) first")
        gaussian = np.exp(-np.square(distance_map / np.float32(self.sigma)))
        return _limited(gaussian, distance_map, self.min_fade, self.max_distance)


class LinearFade(WeightFade):
    """``max(min_fade, 1 - d / max_distance)``; ``min_fade`` holds up to the crop's border.

    Args:
        max_distance: pixels at which the line reaches 0.
        min_fade: least weight, 0 to 1.

    Raises:
        ConfigError: a value out of range.
    """

    def __init__(self, max_distance: float = 100.0, min_fade: float = 0.0) -> None:
        self.max_distance = require_number("max_distance", max_distance, 0, above=True)
        self.min_fade = require_number("min_fade", min_fade, 0, 1)

    def weights(self, distance_map: FloatArray) -> FloatArray:
        line = 1 - distance_map / np.float32(self.max_distance)
        return _limited(line, distance_map, self.min_fade, None)


class ExponentialFade(WeightFade):
    """``max(min_fade, exp(-decay * d))``, and 0 beyond ``max_distance``.

    Args:
        decay: rate per pixel.
        max_distance: pixels beyond which the weight is 0, or None.
        min_fade: least weight within ``max_distance``, 0 to 1.

    Raises:
        ConfigError: a value out of range.
    """

    def __init__(
        self, decay: float = 0.05, max_distance: float | None = 200.0, min_fade: float = 0.0
    ) -> None:
        self.decay = require_number("decay", decay, 0, above=True)
        self.max_distance = _optional("max_distance", max_distance)
        self.min_fade = require_number("min_fade", min_fade, 0, 1)

    def weights(self, distance_map: FloatArray) -> FloatArray:
        falling = np.exp(np.float32(-self.decay) * distance_map)
        return _limited(falling, distance_map, self.min_fade, self.max_distance)


class BlurFade:
    """The object stays sharp, its context is blurred by a gaussian.

    For CLIP, blurring the context kept more accuracy than removing it in Yang et al.,
    "Fine-Grained Visual Prompting" (NeurIPS 2023).

    Args:
        sigma: width of the blur in pixels of the crop; at most the crop's longest side.

    Raises:
        ConfigError: a value out of range.
    """

    def __init__(self, sigma: float = 10.0) -> None:
        self.sigma = require_number("sigma", sigma, 0, above=True)

    def apply(self, image: ImageRGB, mask: BoolArray, distance_map: FloatArray) -> npt.NDArray[Any]:
        # a blur wider than the crop changes little, and its time grows with its width
        sigma = min(self.sigma, max(image.shape[:2]))
        blurred = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        return np.where(mask[:, :, None], image, blurred).astype(np.uint8, copy=False)


def _limited(
    weights: FloatArray, distance_map: FloatArray, least: float, max_distance: float | None
) -> FloatArray:
    """The weights, at least ``least`` up to ``max_distance`` and 0 beyond it."""
    limited = np.maximum(weights, np.float32(least))
    if max_distance is not None:
        limited[distance_map > max_distance] = 0
    return np.asarray(limited, np.float32)


def _optional(name: str, value: float | None) -> float | None:
    return None if value is None else require_number(name, value, 0, above=True)
