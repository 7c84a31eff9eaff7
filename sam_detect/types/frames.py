"""Images and crops of them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from sam_detect.errors import ImageError, MaskError
from sam_detect.masks import BoolArray, FloatArray

ImageRGB = npt.NDArray[np.uint8]


@dataclass(frozen=True, eq=False)
class Frame:
    """One image in the pipeline.

    Attributes:
        image_rgb: ``(H, W, 3)`` uint8, RGB.
        source_id: its source as the user named it (a path, ``array``, ...).
        index: position in its source (0 for a single image).
        location: (xy, z, t) in a stack, or None.
        time_s: seconds since the start of its video, or None.
        left_out: the parts of its file that were not read, such as "only channel 1 of 3 was read".
    """

    image_rgb: ImageRGB
    source_id: str = "array"
    index: int = 0
    location: tuple[int, int, int] | None = None
    time_s: float | None = None
    left_out: str = ""

    def __post_init__(self) -> None:
        image = self.image_rgb
        if image.ndim != 3 or image.shape[2] != 3 or image.dtype != np.uint8:
            raise ImageError(
                f"a frame needs a (H, W, 3) uint8 array, got {image.shape} {image.dtype}"
            )
        if image.shape[0] < 1 or image.shape[1] < 1:
            raise ImageError(f"a frame needs at least one pixel, got shape {image.shape}")

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.image_rgb.shape[0], self.image_rgb.shape[1]


@dataclass(frozen=True, eq=False)
class Crop:
    """The image cut around one mask with its context, before fading: what a library stores.

    Attributes:
        image_rgb: ``(h, w, 3)`` uint8; pixels beyond the image repeat its border.
        mask: ``(h, w)`` bool, the object.
        scale: crop pixels per image pixel, below 1 if a large object was reduced. A distance in
            the crop divided by it is a distance in the image.
        window_xyxy: the window in the image, half-open; may extend beyond it.
    """

    image_rgb: ImageRGB
    mask: BoolArray
    scale: float
    window_xyxy: tuple[int, int, int, int]

    def __post_init__(self) -> None:
        if self.image_rgb.shape != (*self.mask.shape, 3):
            raise MaskError(
                f"a crop's mask {self.mask.shape} must have its image's size {self.image_rgb.shape}"
            )
        if not self.mask.any():
            raise MaskError("a crop's mask needs at least one pixel")

    @property
    def area(self) -> float:
        """The object's area in pixels of the image."""
        return float(np.count_nonzero(self.mask)) / self.scale**2


@dataclass(frozen=True, eq=False)
class FadedCrop:
    """The input of an embedder: a crop, its faded image and the weight of each pixel.

    Attributes:
        crop: the crop before fading.
        image_rgb: ``(h, w, 3)`` uint8, the faded image.
        weights: ``(h, w)`` float32 in 0..1: the fade's weight if it is a plain weight,
            else 1 on the object and 0 elsewhere.
        plain: whether the fade is a plain weight: ``image_rgb`` is then ``crop.image_rgb`` times
            ``weights``.
    """

    crop: Crop
    image_rgb: ImageRGB
    weights: FloatArray
    plain: bool
