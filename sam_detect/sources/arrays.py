"""Arrays to frames."""

from __future__ import annotations

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from sam_detect.errors import ImageError
from sam_detect.sources.pictures import grey_to_rgb
from sam_detect.sources.scaling import Stretch, alpha_to_unit, over_white, own_stretch, to_8_bits
from sam_detect.types import ImageRGB

ColorOrder = Literal["bgr", "rgb"]


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
