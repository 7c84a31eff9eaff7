"""Masks from a file: a black-and-white mask, a label map, or a numpy array of either."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.errors import MaskError
from sam_detect.sources.decoding import Origin, left_out_of_tiff
from sam_detect.types import Masks

MAX_MASK_BYTES = 1 << 30


def read_masks(file: str | Path, size_hw: tuple[int, int]) -> Masks:
    """The objects of a mask file.

    A stack of several pages is refused: only its first would be read.

    With one value beside 0 each connected region is an object; with several (a label map) each
    value is. A ``.npy`` file may hold ``(N, H, W)``, one mask each.

    Raises:
        MaskError: the file cannot be read, is of another size, or holds no object.
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
    parts = [Masks.from_dense(values == label) for label in labels]
    return Masks.concatenate(parts)


def _read(file: Path) -> npt.NDArray[np.generic]:
    try:
        if file.stat().st_size > MAX_MASK_BYTES:
            raise MaskError(f"the mask {file} is larger than {MAX_MASK_BYTES >> 20} MiB")
        if file.suffix.lower() == ".npy":
            values: npt.NDArray[Any] = np.lib.format.open_memmap(file, mode="r")
        else:
            left_out = left_out_of_tiff(Origin(str(file)))
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
