"""Pixel values of any type to 8 bits, in one documented and deterministic way."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from sam_detect.errors import ImageError
from sam_detect.types import ImageRGB

STRETCH_PERCENTILES = (0.1, 99.9)
SAMPLED_VALUES = 4_000_000  # of a larger picture, evenly spaced values decide the stretch
BLOCK_VALUES = 1_000_000  # values converted at a time, so that a copy in float64 stays small


Stretch = Callable[[npt.NDArray[Any]], tuple[float, float]]
"""Says of the values of a picture which one becomes 0 and which one 255."""


def own_stretch(values: npt.NDArray[Any]) -> tuple[float, float]:
    """The two :data:`STRETCH_PERCENTILES` of the values; where these are equal the extremes."""
    flat = values.reshape(-1)
    sample = flat[:: -(-flat.size // SAMPLED_VALUES)]
    # values that are there, not between them: sums of huge ones would overflow
    low = float(np.percentile(sample, STRETCH_PERCENTILES[0], method="lower"))
    high = float(np.percentile(sample, STRETCH_PERCENTILES[1], method="higher"))
    return (low, high) if low < high else (float(flat.min()), float(flat.max()))


class FirstStretch:
    """Stretches every picture as the first one that has more than one value: in a video the same
    value stays the same grey, whatever comes into the picture."""

    def __init__(self) -> None:
        self._limits: tuple[float, float] | None = None

    def __call__(self, values: npt.NDArray[Any]) -> tuple[float, float]:
        limits = self._limits or own_stretch(values)
        if limits[0] < limits[1]:
            self._limits = limits
        return limits


def to_8_bits(
    values: npt.NDArray[Any], name: str = "array", *, stretch: Stretch = own_stretch
) -> npt.NDArray[np.uint8]:
    """``values`` as uint8, in the same shape; always a new array.

    ===========================================  ============================================
    given                                        becomes
    ===========================================  ============================================
    uint8                                        itself
    bool                                         0 and 255
    float, all in 0..1                           ``round(255 * x)``
    float or 32/64-bit integers, all of them     themselves: 8-bit values in a wider type
    whole numbers in 0..255
    everything else (16-bit pictures, other      stretched: the 0.1 percentile becomes 0 and
    ranges)                                      the 99.9 percentile 255, or as ``stretch`` says
    ===========================================  ============================================

    The stretch is what microscopes need: their 12- or 14-bit values would be nearly black on the
    type's full range, and one hot pixel would darken the picture if the extremes decided. The
    channels of a colour picture are stretched alike. Where the two percentiles are equal the
    extremes decide; a picture of one value becomes 0.

    Raises:
        ImageError: the type is no number, or a value is NaN or infinite.
    """
    kind = values.dtype.kind
    if values.dtype == np.uint8:
        return np.array(values, np.uint8)
    if kind == "b":
        ones = np.array(values, np.uint8)
        ones *= 255
        return ones
    if kind not in "uif":
        raise ImageError(
            f"the picture '{name}' has values of type {values.dtype}; "
            "give whole or real numbers, such as uint8, uint16 or float32"
        )
    low, high = float(values.min()), float(values.max())
    if not (np.isfinite(low) and np.isfinite(high)):
        raise ImageError(
            f"the picture '{name}' has values that are NaN or infinite; "
            "replace them first, for example with numpy.nan_to_num"
        )
    if kind == "f" and low >= 0 and high <= 1:
        return _scaled(values, 0.0, 1.0)
    if _is_8_bit_in_disguise(values, low, high):
        return np.asarray(values, np.uint8)
    return _scaled(values, *stretch(values))


def alpha_to_unit(alpha: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    """Opacity as float32 in 0..1: whole numbers by their type's (or 8 bits') full range."""
    if alpha.dtype.kind == "f":
        full = 1.0 if alpha.max() <= 1 else 255.0
    elif alpha.dtype.kind == "b":
        full = 1.0
    else:
        full = float(np.iinfo(alpha.dtype).max) if alpha.dtype.itemsize <= 2 else 255.0
    unit: npt.NDArray[np.float32] = np.clip(alpha.astype(np.float32) / np.float32(full), 0, 1)
    return unit


def over_white(colours: npt.NDArray[np.uint8], alpha: npt.NDArray[np.float32]) -> ImageRGB:
    """``(H, W, 3)`` colours seen through ``(H, W)`` opacities (0..1) on a white page."""
    result = np.empty(colours.shape, np.uint8)
    rows = max(1, BLOCK_VALUES // max(1, colours.shape[1] * 3))
    for start in range(0, len(colours), rows):
        part = slice(start, start + rows)
        weight = alpha[part, :, None]
        result[part] = np.rint(colours[part] * weight + 255 * (1 - weight))
    return result


def _is_8_bit_in_disguise(values: npt.NDArray[Any], low: float, high: float) -> bool:
    if low < 0 or high > 255 or (values.dtype.kind in "ui" and values.dtype.itemsize < 4):
        return False
    if values.dtype.kind in "ui":
        return True
    flat = values.reshape(-1)
    blocks = range(0, flat.size, BLOCK_VALUES)
    return all(bool((b == np.rint(b)).all()) for b in (flat[i : i + BLOCK_VALUES] for i in blocks))


def _scaled(values: npt.NDArray[Any], low: float, high: float) -> npt.NDArray[np.uint8]:
    """``low`` to 0 and ``high`` to 255, clipped."""
    result = np.zeros(values.shape, np.uint8)
    if not low < high:
        return result
    source, target = values.reshape(-1), result.reshape(-1)
    half_span = high / 2 - low / 2  # halves: the span of the largest floats would overflow
    for start in range(0, source.size, BLOCK_VALUES):
        part = slice(start, start + BLOCK_VALUES)
        unit = (source[part].astype(np.float64) / 2 - low / 2) / half_span
        target[part] = np.rint(np.clip(unit, 0, 1) * 255)
    return result
