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
