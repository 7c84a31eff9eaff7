"""Mask files in: mask pictures of any format, and arrays of masks."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sam_detect.errors import ConfigError, ImageError, MaskError
from sam_detect.io.decoding import DEFAULT_MAX_PIXELS, PictureFile
from sam_detect.io.label_map import KEY
from sam_detect.io.mask_pictures import objects_of, require_pieces
from sam_detect.types import Frame, Masks

MAX_MASK_BYTES = 1 << 30


def read_masks(file: str | Path, size_hw: tuple[int, int], *, pieces: str | None = None) -> Masks:
    """The objects of a mask file, by the rule of :mod:`sam_detect.io.mask_pictures`.

    A stack of several pages is refused: only its first would be read. A ``.npy`` file holds one
    array as :func:`masks_of_array` takes it.

    Args:
        pieces: see :func:`~sam_detect.io.mask_pictures.separate`.

    Raises:
        MaskError: the file cannot be read, is of another size, or shows no object.
    """
    path, given = Path(file), False
    try:
        if path.stat().st_size > MAX_MASK_BYTES:
            raise MaskError(f"the mask {file} is larger than {MAX_MASK_BYTES >> 20} MiB")
        if path.suffix.lower() == ".npy":
            values: npt.NDArray[Any] = np.lib.format.open_memmap(path, mode="r")
            _require_picture(values, size_hw, f"the mask {file}")
        else:
            most = max(DEFAULT_MAX_PIXELS, size_hw[0] * size_hw[1])
            picture = PictureFile(str(path), max_pixels=most)
            if left_out := picture.left_out_of_tiff():
                raise MaskError(
                    f"the mask {file} is a stack, of which {left_out}: save the page that belongs "
                    "to the picture as a file of its own"
                )
            require_size(picture.size_hw(), size_hw, f"the mask {file}")  # before it is decoded
            values, note = picture.values()
            given = KEY in note
    except (OSError, ValueError, ImageError) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        if "Python objects" in reason:  # of numpy, about a pickle
            reason = (
                "it holds Python objects, which are not read, since they may run code; of "
                "Cellpose's _seg.npy save the array 'masks' as a file of its own"
            )
        raise MaskError(f"the mask {file} cannot be read: {reason}") from error
    return masks_of_array(values, size_hw, f"the mask {file}", pieces=pieces, given=given)


def given_masks(
    frame: Frame,
    masks: npt.NDArray[Any] | Masks | str | Path | None,
    automatic: Callable[[Frame], Masks],
    pieces: str | None = None,
) -> Masks:
    """The masks that a caller gives in any form: a mask file or array, masks, none, or "auto" for
    what ``automatic`` returns; ``ConfigError`` for another word, or ``pieces`` without a mask."""
    require_pieces(pieces)
    automatically = isinstance(masks, str) and masks == "auto"
    if masks is None or automatically or isinstance(masks, Masks):
        if pieces is not None:
            raise ConfigError("pieces is about a mask picture: give its file or array as masks")
        if isinstance(masks, Masks):
            return masks
        return automatic(frame) if automatically else Masks.empty(frame.size_hw)
    if not isinstance(masks, (str, Path)):
        values = np.asarray(masks)
        _require_picture(values, frame.size_hw, "the mask")
        return masks_of_array(values, frame.size_hw, "the mask", pieces=pieces)
    if not Path(masks).exists():
        raise ConfigError(
            f"masks must be 'auto', a file that exists, an array or Masks, got {str(masks)!r}"
        )
    return read_masks(masks, frame.size_hw, pieces=pieces)


def masks_of_array(
    values: npt.NDArray[Any],
    size_hw: tuple[int, int],
    name: str,
    *,
    pieces: str | None = None,
    given: bool = False,
) -> Masks:
    """The objects of ``(H, W)`` or ``(H, W, C)`` values of a mask picture, or of ``(N, H, W)``, one
    mask each; as :func:`read_masks`."""
    if values.ndim not in (2, 3) or values.dtype.kind not in "buif":
        raise MaskError(f"{name} must have shape (H, W) or (N, H, W), got {values.shape}")
    stack = values.ndim == 3 and values.shape[:2] != size_hw
    require_size(values.shape[1:] if stack else values.shape[:2], size_hw, name)
    found = []
    for each in values if stack else [values]:
        try:
            objects = objects_of(each, name, "one" if stack else pieces, given=given)
        except MaskError as error:
            raise MaskError(f"{name}: {error}") from error
        if not objects:
            raise MaskError(f"{name} is 0 everywhere: it outlines no object")
        found += [place for _, place in objects]
    if not found:
        raise MaskError(f"{name} is a stack of no masks: it outlines no object")
    boxes, crops = zip(*found, strict=True)
    return Masks.from_crops(size_hw=size_hw, boxes_xyxy=boxes, crops=crops)


def _require_picture(values: npt.NDArray[Any], size_hw: tuple[int, int], name: str) -> None:
    """Raises ``MaskError`` for an ``(H, W, C)`` array that may be a stack of masks as well."""
    if values.ndim != 3 or values.shape[:2] != size_hw or values.dtype.kind not in "buif":
        return
    channels, colours, opacity = values.shape[2], values[..., :-1], values[..., -1]
    full = np.iinfo(values.dtype).max if values.dtype.kind in "ui" else 1
    if channels not in (2, 4) or opacity.min(initial=full) == full:
        return
    # masks are hardly alike, of one value everywhere, or the last one the area of the others
    alike = channels == 4 and (colours == colours[..., :1]).all()
    area = (colours == colours[0, 0]).all() or ((opacity > 0) == colours.any(axis=-1)).all()
    if opacity.max() not in (0, full) or (np.isin(values, (0, full)).all() and not (alike or area)):
        raise MaskError(
            f"{name} has shape {values.shape}: it may be {channels} masks, or a picture of which "
            "the last channel is the opacity. Give masks as (N, H, W), as of "
            "numpy.moveaxis(masks, -1, 0), and a picture as a PNG file"
        )


def require_size(found_hw: Sequence[int], size_hw: tuple[int, int], name: str) -> None:
    """Raises ``MaskError`` for a mask of another size than its picture."""
    if tuple(found_hw) != size_hw:
        found = "x".join(map(str, found_hw[::-1]))
        raise MaskError(f"{name} is {found}, the picture {size_hw[1]}x{size_hw[0]}")
