"""The default fade: a gaussian of the distance from the object."""

from __future__ import annotations

import math

import numpy as np

from sam_detect.errors import ConfigError
from sam_detect.fading._checks import fraction, positive
from sam_detect.interfaces import WeightFade
from sam_detect.masks import FloatArray

SIGMA_PER_DIAMETER = 0.05
"""Default width as a share of the object's diameter; docs/fading.md says how it was chosen."""


class GaussianFade(WeightFade):
    """``max(min_fade, exp(-(d / sigma)^2))`` for the distance d in pixels.

    Args:
        sigma: width in pixels. None follows the object: 0.05 of the diameter of a disc of its
            area, so that a nut keeps as much context near the camera as far from it.
        min_fade: weight that is never gone below, 0 to 1.
        max_distance: pixels beyond which the weight is 0, or None.
        sigma_per_diameter: width without sigma, as a share of the diameter.
    """

    def __init__(
        self,
        sigma: float | None = None,
        min_fade: float = 0.0,
        max_distance: float | None = None,
        sigma_per_diameter: float = SIGMA_PER_DIAMETER,
    ) -> None:
        self.sigma = None if sigma is None else positive("sigma", sigma)
        self.min_fade = fraction("min_fade", min_fade)
        self.max_distance = None if max_distance is None else positive("max_distance", max_distance)
        self.sigma_per_diameter = positive("sigma_per_diameter", sigma_per_diameter)

    def for_area(self, area: float) -> GaussianFade:
        if self.sigma is not None:
            return self
        diameter = 2 * math.sqrt(area / math.pi)
        sigma = max(1.0, self.sigma_per_diameter * diameter)
        return GaussianFade(sigma, self.min_fade, self.max_distance, self.sigma_per_diameter)

    def weights(self, distance_map: FloatArray) -> FloatArray:
        if self.sigma is None:
            raise ConfigError("a gaussian fade without sigma needs for_area(area) first")
        squared = np.square(distance_map / np.float32(self.sigma))
        weights = np.maximum(np.exp(-squared), np.float32(self.min_fade))
        if self.max_distance is not None:
            weights[distance_map > self.max_distance] = 0
        return np.asarray(weights, np.float32)
