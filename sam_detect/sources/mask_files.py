"""Mask files in: black-and-white masks, label maps and stacks of masks."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.errors import MaskError
from sam_detect.sources.decoding import PictureFile
from sam_detect.types import Masks

MAX_MASK_BYTES = 1 << 30
MOST_CLASSES = 64
"""A map with more values numbers objects."""
SPECK = 5
"""Pixels: smaller regions are no objects of a label map."""
LEFTOVER, LEFTOVER_SHARE = 16, 0.01
"""Pixels, and share of the largest region: a region of a mask that is smaller is no object."""


def read_masks(file: str | Path, size_hw: tuple[int, int]) -> Masks:
    """The objects of a mask file.

    A stack of several pages is refused: only its first would be read.

    With one value other than 0 each connected region is an object, but for specks next to a large
    one, which a warning names; with several (a label map) each value is. A ``.npy`` file may hold
    ``(N, H, W)``, one mask each. A map of classes, where most values lie in several places, is
    refused: its values are no objects.

    Raises:
        MaskError: the file cannot be read, is of another size, holds no object, or holds classes.
    """
    values = _read_mask_values(Path(file))
    if values.ndim == 3:
        if len(values) == 0:
            raise MaskError(f"the mask {file} is a stack of no masks: it outlines no object")
        return Masks.from_dense(values != 0, size_hw=size_hw)
    if values.shape != size_hw:
        raise MaskError(
            f"the mask {file} is {values.shape[1]}x{values.shape[0]}, "
            f"the picture {size_hw[1]}x{size_hw[0]}"
        )
    labels = np.unique(values[values != 0])
    if labels.size == 0:
        raise MaskError(f"the mask {file} is 0 everywhere: it outlines no object")
    if labels.size == 1:
        _, values, stats, _ = cv2.connectedComponentsWithStats((values != 0).astype(np.uint8))
        labels = _without_specks(stats[1:, cv2.CC_STAT_AREA], file)
    elif labels.size <= MOST_CLASSES:
        scattered = sum(_is_scattered(values == label) for label in labels)
        if 2 * scattered >= labels.size:
            shown = ", ".join(f"{label:g}" for label in labels[:8])
            raise MaskError(
                f"the mask {file} seems to hold classes ({shown}), not objects: most values lie in "
                "several places. Give each object a value of its own, or save a black-and-white "
                "mask for each class"
            )
    return Masks.concatenate([Masks.from_dense(values == label) for label in labels])


def _without_specks(areas: npt.NDArray[np.integer[Any]], file: str | Path) -> npt.NDArray[Any]:
    """The numbers, from 1, of regions that are no specks, such as a brush leaves over."""
    specks = areas < min(LEFTOVER, LEFTOVER_SHARE * areas.max())
    if specks.any():
        what = f"{specks.sum()} of {len(areas)} regions, of at most {areas[specks].max()} pixels"
        warnings.warn(f"the mask {file}: left out {what}, beside far larger ones", stacklevel=3)
    return np.flatnonzero(~specks) + 1


def _is_scattered(mask: npt.NDArray[np.bool_]) -> bool:
    """Whether it has two regions that are both no specks."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = np.sort(stats[1:, cv2.CC_STAT_AREA])
    return bool(len(areas) > 1 and areas[-2] >= max(SPECK, areas[-1] / 5))


def _read_mask_values(file: Path) -> npt.NDArray[np.generic]:
    try:
        if file.stat().st_size > MAX_MASK_BYTES:
            raise MaskError(f"the mask {file} is larger than {MAX_MASK_BYTES >> 20} MiB")
        if file.suffix.lower() == ".npy":
            values: npt.NDArray[Any] = np.lib.format.open_memmap(file, mode="r")
        else:
            if left_out := PictureFile(str(file)).left_out_of_tiff():
                raise MaskError(
                    f"the mask {file} is a stack, of which {left_out}: save the page that belongs "
                    "to the picture as a file of its own"
                )
            content = np.fromfile(file, np.uint8)
            decoded = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
            if decoded is None:
                raise MaskError(f"the mask {file} is not a picture that can be read")
            values = decoded if decoded.ndim == 2 else decoded[..., :3].max(axis=2)
    except (OSError, ValueError, cv2.error) as error:
        reason = getattr(error, "strerror", None) or " ".join(str(error).split())
        raise MaskError(f"the mask {file} cannot be read: {reason}") from error
    if values.ndim not in (2, 3) or values.dtype.kind not in "buif":
        raise MaskError(f"the mask {file} must have shape (H, W) or (N, H, W), got {values.shape}")
    return np.asarray(values)
