"""From a mask to the faded crop that an embedder sees.

The window is cut first, and everything else happens inside it: the cost of a fade follows the
object's size, never the picture's.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np

from sam_detect.errors import ExtensionError, SamDetectError
from sam_detect.interfaces import Fade, WeightFade
from sam_detect.masks import BoolArray, FloatArray
from sam_detect.types import Crop, FadedCrop, ImageRGB

CROP_VERSION = 1
"""Raised whenever the same mask would get another crop: old libraries then say `reindex`."""


def cut(
    image_rgb: ImageRGB,
    mask_crop: BoolArray,
    box_xyxy: Sequence[int],
    *,
    occupancy: float,
    crop_side: int,
) -> Crop:
    """The square window around a mask, of which the object takes about ``occupancy``.

    The side is ``sqrt(area / occupancy)``, but never less than the mask's own box with a
    margin of 2 pixels. Beyond the picture its border is repeated. A window larger than
    ``crop_side`` is reduced to it; a smaller one is kept as it is.

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
    window = (left, top, left + side, top + side)
    image = _padded_window(image_rgb, window)
    mask = np.zeros((side, side), np.uint8)
    mask[y0 - top : y1 - top, x0 - left : x1 - left] = mask_crop
    crop = Crop(image_rgb=image, mask=mask.view(np.bool_), scale=1.0, window_xyxy=window)
    return reduced(crop, crop_side)


def reduced(crop: Crop, side: int) -> Crop:
    """The crop with its longest side brought down to ``side``; itself where it is smaller."""
    longest = max(crop.mask.shape)
    if longest <= side:
        return crop
    size = (max(1, round(crop.mask.shape[1] * side / longest)),
            max(1, round(crop.mask.shape[0] * side / longest)))  # fmt: skip
    image = cv2.resize(crop.image_rgb, size, interpolation=cv2.INTER_AREA)
    share = cv2.resize(crop.mask.astype(np.float32), size, interpolation=cv2.INTER_AREA)
    # A thin object may cover less than half of every reduced pixel; it must not vanish.
    mask = share >= min(0.5, float(share.max()) / 2)
    return Crop(
        image_rgb=np.asarray(image, np.uint8),
        mask=mask,
        scale=crop.scale * side / longest,
        window_xyxy=crop.window_xyxy,
    )


def faded(crop: Crop, fade: Fade | WeightFade) -> FadedCrop:
    """The crop with its context faded.

    Raises:
        ExtensionError: the fade raised, or returned something that is not an image of this size.
    """
    distances = distance_map(crop)
    if isinstance(fade, WeightFade):
        fitted = fade.for_area(crop.area)
        weights = fitted.weights(distances)
        image = np.rint(crop.image_rgb * weights[:, :, None]).astype(np.uint8)
        return FadedCrop(crop=crop, image_rgb=image, weights=weights, plain=True)
    image = _custom_fade(crop, fade, distances)
    own_weights = getattr(fade, "weights", None)
    if callable(own_weights):
        weights = np.asarray(own_weights(distances), np.float32)
        if weights.shape != crop.mask.shape or not np.isfinite(weights).all():
            raise ExtensionError(
                f"{type(fade).__name__}.weights must return finite weights of shape "
                f"{crop.mask.shape}, got {weights.shape}"
            )
    else:
        weights = crop.mask.astype(np.float32)
    return FadedCrop(crop=crop, image_rgb=image, weights=weights, plain=False)


def distance_map(crop: Crop) -> FloatArray:
    """``(h, w)`` float32: Euclidean distance from the object in pixels of the picture, 0 on it."""
    outside = (~crop.mask).view(np.uint8)
    if not outside.any():
        return np.zeros(crop.mask.shape, np.float32)
    distances = cv2.distanceTransform(outside, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
    # OpenCV's last bit differs with its threads; the square of a distance is a whole number.
    distances = np.sqrt(np.rint(np.square(distances)))
    return np.asarray(distances / crop.scale, np.float32)


def _padded_window(image_rgb: ImageRGB, window: tuple[int, int, int, int]) -> ImageRGB:
    height, width = image_rgb.shape[:2]
    left, top, right, bottom = window
    inside = image_rgb[max(top, 0) : min(bottom, height), max(left, 0) : min(right, width)]
    if inside.shape[:2] == (bottom - top, right - left):
        return np.ascontiguousarray(inside)
    return np.asarray(
        cv2.copyMakeBorder(
            inside,
            max(-top, 0),
            max(bottom - height, 0),
            max(-left, 0),
            max(right - width, 0),
            cv2.BORDER_REPLICATE,
        ),
        np.uint8,
    )


def _custom_fade(crop: Crop, fade: Fade, distances: FloatArray) -> ImageRGB:
    name = type(fade).__name__
    try:
        # Copies: a user's fade may work in place, and the kept crop must not change.
        image = fade.apply(crop.image_rgb.copy(), crop.mask.copy(), distances.copy())
        result = np.asarray(image) if image is not None else np.zeros(0)
    except SamDetectError:
        raise
    except Exception as error:
        raise ExtensionError(f"the fade {name} failed: {type(error).__name__}: {error}") from error
    if result.shape != crop.image_rgb.shape or result.dtype.kind not in "uif":
        got = "nothing" if image is None else f"{result.shape} {result.dtype}"
        raise ExtensionError(
            f"the fade {name} must return an image of shape {crop.image_rgb.shape}, got {got}"
        )
    if not np.isfinite(result).all():
        raise ExtensionError(f"the fade {name} returned an image with NaN or infinite values")
    return np.clip(np.rint(result), 0, 255).astype(np.uint8)
