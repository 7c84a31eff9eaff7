"""No fade: the context counts as much as the object."""

from __future__ import annotations

import numpy as np

from sam_detect.interfaces import WeightFade
from sam_detect.masks import FloatArray


class IdentityFade(WeightFade):
    """Weight 1 everywhere."""

    def weights(self, distance_map: FloatArray) -> FloatArray:
        return np.ones(distance_map.shape, np.float32)
