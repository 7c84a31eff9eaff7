"""A fade with a sharp start and a long tail."""

from __future__ import annotations

import numpy as np

from sam_detect.fading._checks import fraction, positive
from sam_detect.interfaces import WeightFade
from sam_detect.masks import FloatArray


class ExponentialFade(WeightFade):
    """``max(min_fade, exp(-decay * d))``, and nothing beyond ``max_distance``.

    Args:
        decay: rate per pixel.
        max_distance: pixels beyond which the weight is 0, or None.
        min_fade: weight that is not gone below within ``max_distance``, 0 to 1.
    """

    def __init__(
        self, decay: float = 0.05, max_distance: float | None = 200.0, min_fade: float = 0.0
    ) -> None:
        self.decay = positive("decay", decay)
        self.max_distance = None if max_distance is None else positive("max_distance", max_distance)
        self.min_fade = fraction("min_fade", min_fade)

    def weights(self, distance_map: FloatArray) -> FloatArray:
        falling = np.exp(np.float32(-self.decay) * distance_map)
        weights = np.maximum(falling, np.float32(self.min_fade))
        if self.max_distance is not None:
            weights[distance_map > self.max_distance] = 0
        return np.asarray(weights, np.float32)
