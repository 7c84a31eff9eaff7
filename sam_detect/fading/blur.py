"""Context that loses its detail instead of its brightness.

Blurring what lies outside the mask kept more of CLIP's accuracy than cutting it away in
Yang et al., "Fine-Grained Visual Prompting" (NeurIPS 2023).
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.fading._checks import positive
from sam_detect.masks import BoolArray, FloatArray
from sam_detect.types import ImageRGB


class BlurFade:
    """The object stays sharp, everything else is blurred by a gaussian.

    Args:
        sigma: width of the blur in pixels of the crop; more than its longest side counts as that.
    """

    def __init__(self, sigma: float = 10.0) -> None:
        self.sigma = positive("sigma", sigma)

    def apply(self, image: ImageRGB, mask: BoolArray, distance_map: FloatArray) -> npt.NDArray[Any]:
        # A blur wider than the crop changes little, and its time rises with its width.
        sigma = min(self.sigma, max(image.shape[:2]))
        blurred = cv2.GaussianBlur(image, (0, 0), sigma, borderType=cv2.BORDER_REPLICATE)
        return np.where(mask[:, :, None], image, blurred).astype(np.uint8, copy=False)
