"""Arrays and Pillow images of every mode to RGB, and the mask that an alpha channel carries."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageCms

from sam_detect.errors import ImageError
from sam_detect.masks import BoolArray
from sam_detect.sources.scaling import Stretch, alpha_to_unit, over_white, own_stretch, to_8_bits
from sam_detect.types import ImageRGB

ColorOrder = Literal["bgr", "rgb"]
NUMBER_MODES = ("I", "F", "I;16", "I;16L", "I;16B", "I;16N")
ALPHA_MODES = ("RGBA", "LA", "PA", "RGBa", "La")


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
            opacity, which is seen on a white page. Any real type, see
            :func:`sam_detect.sources.scaling.to_8_bits`.
        color_order: order of the colours, ``bgr`` (OpenCV's) or ``rgb``; the opacity is last.
        name: what an error calls the picture.
        stretch: see :func:`sam_detect.sources.scaling.to_8_bits`.

    Raises:
        ImageError: another shape, no pixels, or values that are no numbers, NaN or infinite.
    """
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (3, 4)):
        raise ImageError(_shape_message(array.shape, name))
    if array.size == 0:
        raise ImageError(f"the picture '{name}' has no pixels (shape {array.shape})")
    if array.ndim == 2:
        return grey_to_rgb(to_8_bits(array, name, stretch=stretch))
    colours = array[:, :, 2::-1] if color_order == "bgr" else array[:, :, :3]
    rgb = np.ascontiguousarray(to_8_bits(colours, name, stretch=stretch))
    if array.shape[2] == 3:
        return rgb
    opacities = array[:, :, 3]
    if not np.isfinite(opacities).all():
        raise ImageError(f"the opacity (4th channel) of the picture '{name}' is NaN or infinite")
    return over_white(rgb, alpha_to_unit(opacities))


def _shape_message(shape: tuple[int, ...], name: str) -> str:
    hint = ""
    if len(shape) == 3 and shape[0] in (1, 3, 4):
        hint = "; channels come last, use numpy.moveaxis(array, 0, -1)"
    elif len(shape) == 4:
        hint = "; give one picture at a time, or a list of them"
    return (
        f"the picture '{name}' has shape {shape}, "
        f"expected (H, W), (H, W, 1), (H, W, 3) or (H, W, 4){hint}"
    )


def picture_to_rgb(
    image: Image.Image, name: str = "picture", *, stretch: Stretch = own_stretch
) -> ImageRGB:
    """``(H, W, 3)`` uint8 RGB of a Pillow image of any mode.

    What is transparent shows a white page behind it, as in a browser. 16-bit, integer and float
    pictures are brought to 8 bits by :func:`sam_detect.sources.scaling.to_8_bits`. Colour profiles
    are not applied.

    Raises:
        ImageError: no pixels, or values that are no picture (NaN).
    """
    if image.width < 1 or image.height < 1:
        raise ImageError(f"the picture '{name}' has no pixels ({image.width}x{image.height})")
    if image.mode in NUMBER_MODES:
        return grey_to_rgb(to_8_bits(np.asarray(image), name, stretch=stretch))
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


def alpha_mask(image: Image.Image) -> BoolArray | None:
    """The object that a picture's transparency cuts out: ``(H, W)`` bool, or None.

    True where the picture is fully opaque if some pixels are and some are not, else (only
    half-transparent ones) where it is more opaque than not. None when there is no alpha channel,
    it has one value, or no pixel would be in the mask. A Pillow image is taken as it lies;
    :func:`sam_detect.sources.load_mask_from_alpha` turns that of a file by its EXIF orientation.
    """
    if not _has_alpha(image):
        return None
    alpha = np.asarray(_with_alpha(image).getchannel("A"))
    if alpha.size == 0 or alpha.min() == alpha.max():
        return None
    mask = alpha == 255 if alpha.max() == 255 else alpha > 127
    return mask if mask.any() else None


def grey_to_rgb(grey: npt.NDArray[np.uint8]) -> ImageRGB:
    """``(H, W)`` to ``(H, W, 3)``."""
    return np.repeat(grey[:, :, None], 3, axis=2)


def _has_alpha(image: Image.Image) -> bool:
    return image.mode in ALPHA_MODES or (
        # one colour (or palette entries) that a PNG or GIF calls transparent
        "transparency" in image.info and image.mode in ("1", "L", "P", "RGB")
    )


def _with_alpha(image: Image.Image) -> Image.Image:
    if image.mode == "La":  # premultiplied: Pillow knows one step at a time
        image = image.convert("LA")
    return image if image.mode == "RGBA" else image.convert("RGBA")
