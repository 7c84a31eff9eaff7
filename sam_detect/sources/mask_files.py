"""Masks from a file: a black-and-white mask, a label map, or a numpy array of either."""

from __future__ import annotations

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
"""Pixels: smaller regions are no objects."""


def read_masks(file: str | Path, size_hw: tuple[int, int]) -> Masks:
    """The objects of a mask file.

    A stack of several pages is refused: only its first would be read.

    With one value other than 0 each connected region is an object; with several (a label map) each
    value is. A ``.npy`` file may hold ``(N, H, W)``, one mask each. A map of classes, where most
    values lie in several places, is refused: its values are no objects.

    Raises:
        MaskError: the file cannot be read, is of another size, holds no object, or holds classes.
    """
    values = _read(Path(file))
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
        count, values = cv2.connectedComponents((values != 0).astype(np.uint8), connectivity=8)
        labels = np.arange(1, count)
    elif labels.size <= MOST_CLASSES:
        scattered = sum(_lies_in_several_places(values == label) for label in labels)
        if 2 * scattered >= labels.size:
            shown = ", ".join(f"{label:g}" for label in labels[:8])
            raise MaskError(
                f"the mask {file} seems to hold classes ({shown}), not objects: most values lie in "
                "several places. Give each object a value of its own, or save a black-and-white "
                "mask for each class"
            )
    parts = [Masks.from_dense(values == label) for label in labels]
    return Masks.concatenate(parts)


def _lies_in_several_places(mask: npt.NDArray[np.bool_]) -> bool:
    """Whether it has two regions that are both no specks."""
    _, _, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8), connectivity=8)
    areas = np.sort(stats[1:, cv2.CC_STAT_AREA])
    return bool(len(areas) > 1 and areas[-2] >= max(SPECK, areas[-1] / 5))


def _read(file: Path) -> npt.NDArray[np.generic]:
    try:
        if file.stat().st_size > MAX_MASK_BYTES:
            raise MaskError(f"the mask {file} is larger than {MAX_MASK_BYTES >> 20} MiB")
        if file.suffix.lower() == ".npy":
            values: npt.NDArray[Any] = np.lib.format.open_memmap(file, mode="r")
        else:
            left_out = PictureFile(str(file)).left_out_of_tiff()
            if left_out:
                raise MaskError(
                    f"the mask {file} is a stack, of which {left_out}: save the page that belongs "
                    "to the picture as a file of its own"
                )
            content = np.fromfile(file, np.uint8)
            decoded = cv2.imdecode(content, cv2.IMREAD_UNCHANGED) if content.size else None
            if decoded is None:
                raise MaskError(f"the mask {file} is not a picture that can be read")
            values = decoded if decoded.ndim == 2 else decoded[..., :3].max(axis=2)
    except OSError as error:
        raise MaskError(f"the mask {file} cannot be read: {error.strerror}") from error
    except (ValueError, cv2.error) as error:
        raise MaskError(
            f"the mask {file} cannot be read: {' '.join(str(error).split())}"
        ) from error
    if values.ndim not in (2, 3) or values.dtype.kind not in "buif":
        raise MaskError(f"the mask {file} must have shape (H, W) or (N, H, W), got {values.shape}")
    return np.asarray(values)
