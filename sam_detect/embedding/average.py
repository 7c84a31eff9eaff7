"""The simplest embedder: the mean colour, weighted by the fade."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sam_detect.interfaces import Embedder
from sam_detect.types import FadedCrop
from sam_detect.types.masks import FloatArray


class AverageEmbedder(Embedder):
    """The fade-weighted mean colour as a point of the unit sphere in four dimensions.

    The RGB cube is centred and scaled into the unit ball, and the fourth coordinate lifts it onto
    the sphere: the cosine then falls with the distance of two colours, dark and bright greys apart.
    """

    name = "average"
    version = 1
    input_side = 64
    cheap = True

    @property
    def dimension(self) -> int:
        return 4

    def embed(self, crops: Sequence[FadedCrop]) -> FloatArray:
        vectors = np.zeros((len(crops), 4), np.float64)
        for row, crop in zip(vectors, crops, strict=True):
            image = crop.crop.image_rgb if crop.plain else crop.image_rgb
            mean = np.average(image.reshape(-1, 3), axis=0, weights=crop.weights.ravel())
            row[:3] = (mean / 127.5 - 1) / math.sqrt(3)
            row[3] = math.sqrt(max(0.0, 1 - float(row[:3] @ row[:3])))
        return vectors.astype(np.float32)
