"""From a mask to the faded crop that an embedder gets.

The window is cut first, and everything else happens inside it: the cost of a fade depends on the
size of the object, never on that of the image.
"""

from __future__ import annotations

import math
import os
from collections.abc import Sequence
from typing import Any, cast

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from sam_detect.contracts import failure
from sam_detect.errors import ExtensionError, SamDetectError
from sam_detect.interfaces import Fade, WeightFade
from sam_detect.types import Crop, FadedCrop, ImageRGB, Masks
from sam_detect.types.masks import BoolArray, FloatArray

CROP_VERSION = 1
"""Incremented when the same mask would give another crop: old libraries then need `reindex`."""
VISIBLE = 16
"""A value (0 to 255) of an object that no useful fade reduces to 1."""
WITHOUT_TRANSPARENCY = {"JPEG", "MPO", "PPM", "PCX", "EPS"}
"""Pillow's names of formats without an alpha channel."""


def cut(
    image_rgb: ImageRGB,
    mask_crop: BoolArray,
    box_xyxy: Sequence[int],
    *,
    occupancy: float,
    crop_side: int,
) -> Crop:
    """The square window around a mask, of which the object takes about ``occupancy``.

    The side is ``sqrt(area / occupancy)``, at least that of the mask's box with a margin of 2
    pixels. Beyond the image its border is repeated. A window larger than ``crop_side`` is reduced
    to it; a smaller one keeps its size.

    Args:
        image_rgb: ``(H, W, 3)`` uint8.
        mask_crop: the mask within its box.
        box_xyxy: half-open box in pixels.
        occupancy: share of the window's area, 0 to 1.
        crop_side: longest side of the result, pixels.
    """
    x0, y0, x1, y1 = (int(v) for v in box_xyxy)
    area = np.count_nonzero(mask_crop)
    side = max(math.ceil(math.sqrt(area / occupancy)), x1 - x0 + 4, y1 - y0 + 4)
    left, top = (x0 + x1 - side) // 2, (y0 + y1 - side) // 2
    size = min(side, crop_side)
    image = _window(image_rgb, (left, top), side, size, border=cv2.BORDER_REPLICATE)
    solid = mask_crop.view(np.uint8) * np.uint8(255)
    share = _window(solid, (left - x0, top - y0), side, size, border=cv2.BORDER_CONSTANT)
    return Crop(
        image_rgb=image,
        mask=_mostly(share),
        scale=size / side,
        window_xyxy=(left, top, left + side, top + side),
    )


def reduced(crop: Crop, side: int) -> Crop:
    """The crop with its longest side reduced to ``side``; itself if it is smaller."""
    longest = max(crop.mask.shape)
    if longest <= side:
        return crop
    size = (max(1, round(crop.mask.shape[1] * side / longest)),
            max(1, round(crop.mask.shape[0] * side / longest)))  # fmt: skip
    image = cv2.resize(crop.image_rgb, size, interpolation=cv2.INTER_AREA)
    solid = crop.mask.view(np.uint8) * np.uint8(255)
    return Crop(
        image_rgb=np.asarray(image, np.uint8),
        mask=_mostly(np.asarray(cv2.resize(solid, size, interpolation=cv2.INTER_AREA), np.uint8)),
        scale=crop.scale * side / longest,
        window_xyxy=crop.window_xyxy,
    )


class CutOut(Image.Image):
    """An RGBA image that also saves in formats without transparency, such as JPEG: there it
    fades to black, as embedders get it."""

    def save(self, fp: Any, format: str | None = None, **params: Any) -> None:  # noqa: A002
        ending = os.path.splitext(str(getattr(fp, "name", fp)))[1].lower()
        wanted = format or Image.registered_extensions().get(ending, "")
        if wanted.upper() in WITHOUT_TRANSPARENCY and self.mode == "RGBA":
            black = Image.new("RGB", self.size)
            black.paste(self, mask=self.getchannel("A"))
            black.save(fp, format, **params)
        else:
            super().save(fp, format, **params)


def cut_out(
    image_rgb: ImageRGB, masks: Masks, fade: Fade | WeightFade, *, occupancy: float
) -> CutOut:
    """The first mask's object with its context at full size, as an RGBA image: its alpha is the
    fade's weight, 255 exactly on the object."""
    box, side = masks.boxes_xyxy[0].tolist(), max(masks.size_hw) * 4
    crop = cut(image_rgb, masks.crop(0), box, occupancy=occupancy, crop_side=side)
    alpha = np.minimum(np.rint(faded(crop, fade).weights * 255), 254).astype(np.uint8)
    alpha[crop.mask] = 255
    picture = Image.fromarray(np.dstack([crop.image_rgb, alpha]), "RGBA")
    picture.__class__ = CutOut  # Pillow has no public way to make an image of a subclass
    return cast(CutOut, picture)


def faded(crop: Crop, fade: Fade | WeightFade) -> FadedCrop:
    """The crop with its context faded.

    Raises:
        ExtensionError: the fade raised, or returned something that is not an image of this size,
            or weights that are not numbers from 0 to 1.
    """
    distances = distance_map(crop)
    # a subclass with its own apply() fades by its image, not by its weights
    if isinstance(fade, WeightFade) and type(fade).apply is WeightFade.apply:
        weights = _weights(fade.for_area(crop.area), crop, distances)
        image = cv2.multiply(crop.image_rgb, cv2.merge([weights] * 3), dtype=cv2.CV_8U)
        return FadedCrop(
            crop=crop, image_rgb=np.asarray(image, np.uint8), weights=weights, plain=True
        )
    image = _custom_image(crop, fade, distances)
    if callable(getattr(fade, "weights", None)):
        weights = _weights(fade, crop, distances)
    else:
        weights = crop.mask.astype(np.float32)
    return FadedCrop(crop=crop, image_rgb=image, weights=weights, plain=False)


def distance_map(crop: Crop) -> FloatArray:
    """``(h, w)`` float32: Euclidean distance from the object in pixels of the image, 0 on it."""
    outside = (~crop.mask).view(np.uint8)
    if not outside.any():
        return np.zeros(crop.mask.shape, np.float32)
    distances = np.asarray(
        cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE), np.float32
    )
    # OpenCV's last bit depends on its threads; the square of a distance is an integer
    np.square(distances, out=distances)
    np.rint(distances, out=distances)
    np.sqrt(distances, out=distances)
    if crop.scale != 1:
        distances /= np.float32(crop.scale)
    return distances


def _window(
    array: npt.NDArray[np.uint8], corner_xy: tuple[int, int], side: int, size: int, *, border: int
) -> npt.NDArray[np.uint8]:
    """The square of ``side`` pixels at a corner, reduced to ``size`` and padded by ``border``.

    The part inside the array is reduced before it is padded, so that a window far larger than the
    image costs no more than the image.
    """
    spans = []
    for corner, length in zip(corner_xy, (array.shape[1], array.shape[0]), strict=True):
        low, high = max(corner, 0), min(corner + side, length)
        start = round((low - corner) * size / side)
        stop = max(start + 1, round((high - corner) * size / side))
        spans.append((low, high, min(start, size - 1), min(stop, size)))
    (x0, x1, left, right), (y0, y1, top, bottom) = spans
    inside = array[y0:y1, x0:x1]
    if size < side:
        inside = cv2.resize(inside, (right - left, bottom - top), interpolation=cv2.INTER_AREA)
    if inside.shape[:2] == (size, size):
        return np.ascontiguousarray(inside)
    return np.asarray(
        cv2.copyMakeBorder(inside, top, size - bottom, left, size - right, border), np.uint8
    )


def _mostly(share: npt.NDArray[np.uint8]) -> BoolArray:
    """A reduced mask (0 to 255) as bool: true where the object covers half of a pixel.

    If a thin object covers less of every pixel the limit is lower: it must neither vanish nor
    break into parts.
    """
    return np.asarray(share >= min(128, max(1, (int(share.max()) + 1) // 2)))


def _weights(fade: Any, crop: Crop, distances: FloatArray) -> FloatArray:
    """The fade's weights, checked."""
    name = type(fade).__name__
    try:
        weights = np.asarray(fade.weights(distances.copy()), np.float32)
    except SamDetectError:
        raise
    except Exception as error:
        raise failure(f"the fade {name}", "weights", error) from error
    if weights.shape != crop.mask.shape:
        raise ExtensionError(
            f"{name}.weights must return weights of shape {crop.mask.shape}, got {weights.shape}"
        )
    lowest, highest = weights.min(), weights.max()
    if not (lowest >= 0 and highest <= 1):
        raise ExtensionError(f"{name}.weights must return numbers from 0 to 1")
    if highest == 0:
        raise ExtensionError(f"{name}.weights must be above 0 somewhere on the object")
    return weights


def _custom_image(crop: Crop, fade: Fade, distances: FloatArray) -> ImageRGB:
    """The image of a fade without plain weights, checked."""
    name = type(fade).__name__
    try:
        # copies: a user's fade may work in place, and the kept crop must not change
        image = fade.apply(crop.image_rgb.copy(), crop.mask.copy(), distances.copy())
        result = np.asarray(image) if image is not None else np.zeros(0)
    except SamDetectError:
        raise
    except Exception as error:
        raise failure(f"the fade {name}", "apply", error) from error
    if result.shape != crop.image_rgb.shape or result.dtype.kind not in "uif":
        got = "nothing" if image is None else f"{result.shape} {result.dtype}"
        raise ExtensionError(
            f"the fade {name} must return an image of shape {crop.image_rgb.shape}, got {got}"
        )
    if not np.isfinite(result).all():
        raise ExtensionError(f"the fade {name} returned an image with NaN or infinite values")
    brightest = int(crop.image_rgb[crop.mask].max(initial=0))
    if 0 < result.max() <= 1 and brightest >= VISIBLE:
        raise ExtensionError(
            f"the fade {name} returned an image of values from 0 to 1, where 0 to 255 is expected "
            f"(the object has values up to {brightest}): multiply what it returns by 255"
        )
    return np.asarray(np.clip(np.rint(result), 0, 255), np.uint8)
