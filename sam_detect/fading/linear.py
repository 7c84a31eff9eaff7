"""A fade that falls off in a straight line."""

from __future__ import annotations

import numpy as np

from sam_detect.fading._checks import fraction, positive
from sam_detect.interfaces import WeightFade
from sam_detect.masks import FloatArray


class LinearFade(WeightFade):
    """``max(min_fade, 1 - d / max_distance)``; ``min_fade`` holds to the crop's border.

    Args:
        max_distance: pixels at which the line reaches 0.
        min_fade: weight that is never gone below, 0 to 1.
    """

    def __init__(self, max_distance: float = 100.0, min_fade: float = 0.0) -> None:
        self.max_distance = positive("max_distance", max_distance)
        self.min_fade = fraction("min_fade", min_fade)

    def weights(self, distance_map: FloatArray) -> FloatArray:
        line = 1 - distance_map / np.float32(self.max_distance)
        return np.asarray(np.maximum(line, np.float32(self.min_fade)), np.float32)
