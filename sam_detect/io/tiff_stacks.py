"""Stacks in TIFF, OME-TIFF and ImageJ hyperstacks, by ``tifffile``."""

from __future__ import annotations

import os
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from sam_detect.errors import ImageError, SamDetectError, one_line
from sam_detect.io._readers import at_once, quiet_readers
from sam_detect.io.decoding import TIFF_MAGICS, check_file, check_pixels, unreadable
from sam_detect.io.physical_sizes import size_in_tiff
from sam_detect.io.stack_axes import Position
from sam_detect.io.tiff import (
    bytes_of_pixel,
    lacks_codec,
    names_of_channels,
    require_fitting,
    require_plain_ome,
)
from sam_detect.types import PixelSize

AXES = {"Z": "z", "T": "t", "C": "channel", "S": "channel", "Q": "z", "I": "z"}
"""tifffile's axes. Pages of which a file says nothing (Q, I) count as Z."""
RGB = 2
"""Of a page's photometric interpretation."""


@contextmanager
def open_tiff(name: str, *, max_pixels: int) -> Iterator[tuple[Sequence[Position], Sequence[str]]]:
    """The positions of a TIFF, and the names of its channels.

    Raises:
        ImageError: the file is no TIFF, is damaged, hostile or cut off, or its planes are too
            large.
    """
    import tifffile

    # Nothing that a file names is opened: an OME-TIFF may name further files.
    with _reading(name) as file, tifffile.TiffFile(file, _multifile=False) as tiff:
        require_plain_ome(tiff, name)
        series = [each for each in tiff.series
                  if not each.keyframe.is_reduced and not each.keyframe.is_mask]  # fmt: skip
        _require_all_planes(tiff, series[0], name)
        positions = [
            _TiffPosition(each, name, max_pixels, size_in_tiff(tiff, number))
            for number, each in enumerate(series)
        ]
        yield positions, names_of_channels(tiff)


def _require_all_planes(tiff: Any, series: Any, name: str) -> None:
    """Raises ``ImageError`` for an ImageJ hyperstack that ends early: tifffile gives its first
    plane only."""
    declared = int((tiff.imagej_metadata or {}).get("images", 1)) if tiff.is_imagej else 1
    there = len(series.pages)
    if declared > 1 and there == 1 and len(series.shape) == len(series.keyframe.shape):
        raise ImageError(f"the stack '{name}' is cut off: 1 of its {declared} planes is there; "
                         "copy or export it again")  # fmt: skip


class _TiffPosition:
    def __init__(
        self, series: Any, name: str, max_pixels: int, pixel_size_um: PixelSize | None
    ) -> None:
        self._series, self._name, self.pixel_size_um = series, name, pixel_size_um
        page = series.keyframe
        check_pixels((int(page.imagewidth), int(page.imagelength)), max_pixels, name)
        leading = series.axes[: len(series.axes) - len(page.axes)]
        self._shape = tuple(map(int, series.shape[: len(leading)]))
        self._roles = [AXES.get(axis, "") for axis in leading]
        if "" in self._roles or len(set(self._roles)) < len(self._roles):
            raise ImageError(f"{name}: its axes {series.axes} are not known, expected some of "
                             "TZCYX; export it as OME-TIFF")  # fmt: skip
        self.counts = {"z": 1, "t": 1, "channel": 1} | dict(
            zip(self._roles, self._shape, strict=True)
        )
        samples = int(page.samplesperpixel)
        if samples > 1 and self.counts["channel"] > 1:
            raise ImageError(f"{name}: it has channels of colours; export channels of grey values")
        self._sample_axis = page.axes.index("S") if samples > 1 else None
        self.counts["channel"] = max(samples, self.counts["channel"])
        self.colours = samples > 1 and page.photometric == RGB

    def locate(self, *, z: int, t: int, channel: int) -> TiffPlane:
        at = {"z": z, "t": t, "channel": channel}
        place = [at[role] for role in self._roles]
        index = int(np.ravel_multi_index(place, self._shape)) if place else 0
        sample = None if self._sample_axis is None else (channel, self._sample_axis)
        page = self._series.keyframe
        if self._series.dataoffset is not None:
            bytes_each = int(np.prod(page.shape)) * page.dtype.itemsize
            dtype = page.dtype.newbyteorder(page.parent.byteorder).str
            offset = int(self._series.dataoffset) + index * bytes_each
            return TiffPlane(offset, (tuple(page.shape), dtype), sample)
        pages = self._series.pages
        found = pages[index] if index < len(pages) else None
        if found is None:
            raise ImageError(f"{self._name}: page {index + 1} is missing (it may lie in another "
                             "file, and those are not opened); export the stack into one "
                             "file")  # fmt: skip
        return TiffPlane(int(found.offset), None, sample)


@dataclass(frozen=True)
class TiffPlane:
    """A plane of a TIFF: see :class:`~sam_detect.io.stack_axes.StoredPlane`.

    Attributes:
        offset: of the page's directory; with ``stored`` of the values themselves.
        stored: shape and dtype of values that lie there as they are; None for a page.
        sample: which of a pixel's values it is, and their axis; None where there is one.
    """

    offset: int
    stored: tuple[tuple[int, ...], str] | None
    sample: tuple[int, int] | None

    def read(self, path: str, name: str, max_pixels: int) -> npt.NDArray[Any]:
        with _reading(path) as file:
            array = self._read(file, name, max_pixels)
        if self.sample is not None:
            array = np.take(array, self.sample[0], axis=self.sample[1])
        if array.ndim != 2 or array.dtype.kind not in "buif":
            raise ImageError(f"{name}: its values have shape {array.shape} and type "
                             f"{array.dtype}, expected grey values; export it again")  # fmt: skip
        return array

    def _read(self, file: BinaryIO, name: str, max_pixels: int) -> npt.NDArray[Any]:
        import tifffile

        end = file.seek(0, os.SEEK_END)
        if self.stored is not None:
            shape, dtype = self.stored
            size = int(np.prod(shape)) * np.dtype(dtype).itemsize
            _require_whole(self.offset + size, end, name)
            file.seek(self.offset)
            return np.frombuffer(file.read(size), dtype).reshape(shape)
        file.seek(0)
        with tifffile.TiffFile(file, _multifile=False) as tiff:
            tiff.filehandle.seek(self.offset)
            page = tifffile.TiffPage(tiff, index=0)
            size_wh = int(page.imagewidth), int(page.imagelength)
            check_pixels(size_wh, max_pixels, name, bytes_of_pixel(page))
            pieces = zip(page.dataoffsets, page.databytecounts, strict=True)
            _require_whole(max(map(sum, pieces), default=0), end, name)
            try:
                require_fitting(page)
                with at_once(page.nbytes):
                    array: npt.NDArray[Any] = page.asarray()
            except (ValueError, RuntimeError, OSError, zlib.error) as error:
                raise lacks_codec(name, error) or ImageError(
                    f"{name} is damaged ({one_line(error)}); copy or export the stack again"
                ) from error
            return array


def _require_whole(needed: int, end: int, name: str) -> None:
    if needed > end:
        raise ImageError(f"{name} is cut off (the file has {end:,} bytes of at least "
                         f"{needed:,}); copy or export it again")  # fmt: skip


@contextmanager
def _reading(name: str) -> Iterator[BinaryIO]:
    """The file of a stack; what is wrong with it becomes an ``ImageError``."""
    check_file(name)
    try:
        with quiet_readers(), open(name, "rb") as file:
            if file.read(4) not in TIFF_MAGICS:
                raise ImageError(
                    f"'{name}' is no TIFF, and planes and channels are selected of TIFF, OME-TIFF, "
                    "ImageJ hyperstacks and OME-Zarr; leave out --xy, --z, --t and --channel for it"
                )
            file.seek(0)
            yield file
    except SamDetectError:
        raise
    except PermissionError as error:
        raise unreadable(name, error) from error
    except MemoryError as error:
        raise ImageError(f"the stack '{name}' does not fit into memory; reduce it") from error
    except Exception as error:  # a damaged file makes tifffile raise nearly anything
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        raise lacks_codec(name, error) or ImageError(
            f"the stack '{name}' is damaged or cut off ({detail}); copy or export it again"
        ) from error
