"""Pixels of large pictures, in files that are mapped into memory.

The operating system reads what is used and drops the rest, so a picture of any size takes the
memory of the part that is worked on. A file has no name, and disappears with its array.
"""

from __future__ import annotations

import contextlib
import mmap
import shutil
import tempfile
from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from sam_detect.errors import ImageError

LARGE = 32_000_000
"""Pictures of more pixels are kept so."""
ROWS_BYTES = 32_000_000
"""Bytes that are worked on at a time."""


def scratch(shape: tuple[int, ...], dtype: npt.DTypeLike, name: str) -> npt.NDArray[Any]:
    """An array of zeros in a file of the folder for temporary files (``TMPDIR``).

    Args:
        name: the picture, for the error.

    Raises:
        ImageError: the folder has no room for it.
    """
    needed = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
    folder = tempfile.gettempdir()
    free = shutil.disk_usage(folder).free
    if needed > free:
        raise ImageError(
            f"the picture '{name}' needs {needed / 1e9:.1f} GB in {folder}, which has "
            f"{free / 1e9:.1f} GB left: make room, or name another folder in TMPDIR"
        )
    with tempfile.TemporaryFile(dir=folder) as file:
        file.truncate(needed)
        return np.memmap(file, dtype, "r+", shape=shape)


def is_scratch(array: npt.NDArray[Any]) -> bool:
    """Whether an array, or the one it is a part of, is in a scratch file."""
    return _mapping(array) is not None


def release(array: npt.NDArray[Any]) -> None:
    """Gives back the memory of an array in a scratch file, or of a part of one; its values stay.
    Does nothing to other arrays, and where the system cannot."""
    mapping = _mapping(array)
    if mapping is not None and hasattr(mmap, "MADV_DONTNEED"):
        with contextlib.suppress(OSError, ValueError):
            mapping.madvise(mmap.MADV_DONTNEED)


def reduced(image_rgb: npt.NDArray[Any], size_wh: tuple[int, int]) -> npt.NDArray[Any]:
    """A ``(H, W, 3)`` uint8 picture reduced to a width and height, by the mean of what a pixel
    covers. One in a scratch file is first reduced by a whole number, some rows at a time.
    """
    import cv2  # imported on use: `import sam_detect` stays light

    height, width = image_rgb.shape[:2]
    # a width that was rounded up must not halve the number
    times = int(min(width / size_wh[0], height / size_wh[1]) + 1e-2)
    if is_scratch(image_rgb) and times > 1:
        small = np.empty((-(-height // times), -(-width // times), 3), np.uint8)
        rows = max(1, ROWS_BYTES // (times * image_rgb[:1].nbytes))
        for start in range(0, len(small), rows):
            part = image_rgb[start * times : (start + rows) * times]
            # the last row and column stand for what is missing to the whole number
            missing = -part.shape[0] % times, -width % times
            filled = cv2.copyMakeBorder(part, 0, missing[0], 0, missing[1], cv2.BORDER_REPLICATE)
            size = small.shape[1], filled.shape[0] // times
            small[start : start + size[1]] = cv2.resize(filled, size, interpolation=cv2.INTER_AREA)
            release(image_rgb)
        image_rgb = small
    if image_rgb.shape[1::-1] == size_wh:
        return image_rgb
    return np.asarray(cv2.resize(image_rgb, size_wh, interpolation=cv2.INTER_AREA), np.uint8)


def _mapping(array: Any) -> mmap.mmap | None:
    while array is not None and not isinstance(array, mmap.mmap):
        array = getattr(array, "base", None)
    return array


def strips(array: npt.NDArray[Any]) -> Iterator[slice]:
    """Rows to work on one after the other; between them the memory is given back."""
    rows = max(1, ROWS_BYTES // max(1, array[:1].nbytes))
    for start in range(0, len(array), rows):
        yield slice(start, min(len(array), start + rows))
        release(array)
