"""Arrays and Pillow images of every mode and number type to 8-bit RGB, and the mask that an alpha
channel carries."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from sam_detect.errors import ImageError
from sam_detect.types import ImageRGB
from sam_detect.types.masks import BoolArray
from sam_detect.types.scratch import release, scratch, strips

ColorOrder = Literal["bgr", "rgb"]
NUMBER_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")
VOID = (224, 224, 192)
"""The last colour of PASCAL VOC's palette: pixels at outlines that count for no object."""
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


def without_nan(
    array: npt.NDArray[Any], name: str, stretch: Stretch
) -> tuple[npt.NDArray[Any], Stretch]:
    """A file's values with the lowest one in the place of NaN and infinity, and the stretch of the
    others. A ``UserWarning`` says how many there were."""
    finite = np.isfinite(array) if array.dtype.kind == "f" else np.True_
    if finite.all():
        return array, stretch
    known = array[finite]
    lost = f"{array.size - known.size:,} of {array.size:,} values"
    warnings.warn(f"{name}: {lost} are NaN or infinite, and shown black", stacklevel=2)
    limits = stretch(known) if known.size else (0.0, 1.0)
    return np.where(finite, array, known.min() if known.size else 0), lambda _: limits


def array_to_rgb(
    array: npt.NDArray[Any],
    *,
    color_order: ColorOrder = "bgr",
    name: str = "array",
    stretch: Stretch = own_stretch,
) -> ImageRGB:
    """``(H, W, 3)`` uint8 RGB of an array; always a copy, contiguous.

    Args:
        array: ``(H, W)`` or ``(H, W, 1)`` grey, ``(H, W, 3)`` colour, or ``(H, W, 4)`` colour and
            opacity, which is seen on a white page. Any real type, see :func:`to_8_bits`.
        color_order: order of the colours, ``bgr`` (OpenCV's) or ``rgb``; the opacity is last.
        name: what an error calls the picture.
        stretch: see :func:`to_8_bits`.

    Raises:
        ImageError: another shape, no pixels, or values that are no numbers, NaN or infinite.
    """
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    shape = array.shape
    if array.ndim not in (2, 3) or (array.ndim == 3 and shape[2] not in (3, 4)):
        hint = ""
        if len(shape) == 3 and shape[0] in (1, 3, 4):
            hint = "; channels come last, use numpy.moveaxis(array, 0, -1)"
        elif len(shape) == 4:
            hint = "; give one picture at a time, or a list of them"
        raise ImageError(
            f"the picture '{name}' has shape {shape}, "
            f"expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4){hint}"
        )
    if array.size == 0:
        raise ImageError(f"the picture '{name}' has no pixels (shape {shape})")
    if array.ndim == 2:
        return np.repeat(to_8_bits(array, name, stretch=stretch)[:, :, None], 3, axis=2)
    colours = array[:, :, 2::-1] if color_order == "bgr" else array[:, :, :3]
    rgb = np.ascontiguousarray(to_8_bits(colours, name, stretch=stretch))
    if shape[2] == 3:
        return rgb
    opacities = array[:, :, 3]
    if not np.isfinite(opacities).all():
        raise ImageError(f"the opacity (4th channel) of the picture '{name}' is NaN or infinite")
    if not opacities.any():
        _warn_of_transparency(name)
    return over_white(rgb, alpha_to_unit(opacities))


def large_array_to_rgb(
    array: npt.NDArray[Any], name: str, *, stretch: Stretch = own_stretch
) -> ImageRGB:
    """As :func:`array_to_rgb` of ``(H, W, 1 or 3)`` uint8 or uint16 (RGB) in a scratch file: that
    itself, or another one, made some rows at a time."""
    if array.dtype == np.uint8 and array.shape[2] == 3:
        return array
    limits = stretch(array) if array.dtype != np.uint8 else (0.0, 255.0)
    rgb = scratch((*array.shape[:2], 3), np.uint8, name)
    for rows in strips(array):
        rgb[rows] = to_8_bits(array[rows], name, stretch=lambda _: limits)
        release(rgb)
    return rgb


def large_picture_to_rgb(image: Image.Image, name: str) -> ImageRGB:
    """As :func:`picture_to_rgb` of a picture with 8-bit values, into a scratch file."""
    image.load()
    rgb = scratch((image.height, image.width, 3), np.uint8, name)
    visible = False
    for rows in strips(rgb):
        part = image.crop((0, rows.start, image.width, rows.stop))
        rgb[rows] = _to_rgb(part, name)
        visible = visible or _is_visible(part)
    if not visible:
        _warn_of_transparency(name)
    return rgb


def picture_to_rgb(
    image: Image.Image, name: str = "picture", *, stretch: Stretch = own_stretch
) -> ImageRGB:
    """``(H, W, 3)`` uint8 RGB of a Pillow image of any mode.

    What is transparent shows a white page behind it, as in a browser. 16-bit, integer and float
    pictures are brought to 8 bits by :func:`to_8_bits`. Colour profiles
    are not applied. A ``UserWarning`` says that all of it is transparent.

    Raises:
        ImageError: no pixels, or values that are no picture (NaN).
    """
    rgb = _to_rgb(image, name, stretch)
    if not _is_visible(image):
        _warn_of_transparency(name)
    return rgb


def _to_rgb(image: Image.Image, name: str, stretch: Stretch = own_stretch) -> ImageRGB:
    if image.width < 1 or image.height < 1:
        raise ImageError(f"the picture '{name}' has no pixels ({image.width}x{image.height})")
    if image.mode in NUMBER_MODES:
        return array_to_rgb(np.asarray(image), name=name, stretch=stretch)
    if _has_alpha(image):
        layer = _with_alpha(image)
        page = Image.new("RGB", layer.size, "white")
        page.paste(layer, mask=layer.getchannel("A"))
        return np.array(page)
    if image.mode == "LAB":  # the one mode that Pillow's own convert() does not know
        profiles = ImageCms.createProfile("LAB"), ImageCms.createProfile("sRGB")
        converted = ImageCms.profileToProfile(image, *profiles, outputMode="RGB")
        if converted is None:
            raise ImageError(f"the picture '{name}' cannot be converted from LAB to RGB")
        return np.array(converted)
    return np.array(image if image.mode == "RGB" else image.convert("RGB"))


def _is_visible(image: Image.Image) -> bool:
    return not _has_alpha(image) or _with_alpha(image).getchannel("A").getbbox() is not None


def _warn_of_transparency(name: str) -> None:
    warnings.warn(f"{name}: the picture is transparent everywhere, so it is all white; save it "
                  "without transparency if it has colours", stacklevel=4)  # fmt: skip


def alpha_mask(image: Image.Image) -> BoolArray | None:
    """The object that a picture's transparency cuts out: ``(H, W)`` bool, or None.

    True where the picture is fully opaque if some pixels are and some are not, else (only
    half-transparent ones) where it is more opaque than not. None when there is no alpha channel,
    it has one value, or no pixel would be in the mask. The image is taken as it lies in memory.
    """
    if not _has_alpha(image):
        return None
    alpha = np.asarray(_with_alpha(image).getchannel("A"))
    if alpha.size == 0 or alpha.min() == alpha.max():
        return None
    mask = alpha == 255 if alpha.max() == 255 else alpha > 127
    return mask if mask.any() else None


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ALPHA_MODES or (
        # one colour (or palette entries) that a PNG or GIF calls transparent
        "transparency" in image.info and image.mode in ("1", "L", "P", "RGB")
    )


def _with_alpha(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # premultiplied: Pillow knows one step at a time
        image = image.convert("LA")
    return image if image.mode == "RGBA" else image.convert("RGBA")


def mask_values(image: Image.Image, *, as_stored: bool = False) -> npt.NDArray[Any]:
    """``(H, W)`` or ``(H, W, C)`` values of a mask picture, its opacity last where it has one.

    Of a palette they are the numbers of its entries; but 0 is the black one where the entries that
    are used differ, and the void of PASCAL VOC is 0, unless ``as_stored``.
    """
    if image.mode == "P" and (as_stored or not _has_alpha(image)):
        numbers = np.asarray(image)
        used = np.flatnonzero(np.bincount(numbers.ravel(), minlength=256))
        listed = image.getpalette("RGB") or []
        entries = {int(i): tuple(listed[3 * i : 3 * i + 3]) for i in used}
        table = np.arange(256, dtype=np.uint8)
        if not as_stored and len({*entries.values()}) == len(used):
            if black := [i for i, colour in entries.items() if not any(colour)]:
                table[0], table[black[0]] = black[0], 0
            table[255] = 0 if entries.get(255) == VOID else table[255]
        return np.asarray(table[numbers])
    if _has_alpha(image):
        image = image if image.mode == "LA" else _with_alpha(image)
    elif image.mode not in ("1", "L", "RGB", *NUMBER_MODES):
        image = image.convert("RGB")
    values: npt.NDArray[Any] = np.asarray(image)
    return values.view(np.uint8) if values.dtype.kind == "b" else values


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
    if values.dtype == np.uint8 or kind == "b":
        scale = 255 if kind == "b" else 1
        return np.asarray(np.multiply(values, scale, dtype=np.uint8))
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
    full = 1.0 if alpha.dtype.kind in "bf" and alpha.max() <= 1 else 255.0
    if alpha.dtype.kind in "ui" and alpha.dtype.itemsize <= 2:
        full = float(np.iinfo(alpha.dtype).max)
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
    if low < 0 or high > 255:
        return False
    if values.dtype.kind in "ui":
        return values.dtype.itemsize >= 4
    flat = values.reshape(-1)
    blocks = (flat[i : i + BLOCK_VALUES] for i in range(0, flat.size, BLOCK_VALUES))
    return all(bool((block == np.rint(block)).all()) for block in blocks)


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
