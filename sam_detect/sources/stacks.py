"""Planes of stacks (TIFF, OME-TIFF, ImageJ hyperstacks): which of them ranges select, and one of
them as a frame. Only one plane is in memory at a time."""

from __future__ import annotations

import os
import re
import warnings
import zlib
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np
import numpy.typing as npt

from sam_detect.errors import ConfigError, ImageError, one_line
from sam_detect.sources._readers import quiet_readers
from sam_detect.sources.decoding import (
    DEFAULT_MAX_PIXELS,
    TIFF_MAGICS,
    check_file,
    check_pixels,
    unreadable,
)
from sam_detect.sources.pixels import own_stretch
from sam_detect.sources.tiff import names_of_channels, require_plain_ome
from sam_detect.types import Frame, ImageRGB, Location

AXES = {"Z": "z", "T": "t", "C": "channel", "S": "channel", "Q": "z", "I": "z"}
"""tifffile's axes. Pages of which a file says nothing (Q, I) count as Z."""
MOST_PLANES = 100_000
SAMPLED_PLANES = 3
"""So many planes of a selection decide the contrast of each channel, for all of its planes."""
GREY = (1.0, 1.0, 1.0)
COLOURS = (
    (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 0.0, 1.0), (0.0, 1.0, 1.0),
    (1.0, 1.0, 0.0), GREY,
)  # fmt: skip
"""Of several channels, in the order in which they are selected."""
RANGE = re.compile(r"\s*([0-9]{1,9})\s*(?:-\s*([0-9]{1,9})\s*)?", re.ASCII)


@dataclass(frozen=True)
class PlaneRanges:
    """Which planes and channels of stacks are read, as users write them: numbers from 1.

    Attributes:
        xy, z, t: numbers and ranges such as ``"1-3, 5-8"``; None takes the first.
        channel: a number or name, or several with commas, which are blended; None takes the first.

    Raises:
        ConfigError: a text that is no list of numbers and ranges.
    """

    xy: str | None = None
    z: str | None = None
    t: str | None = None
    channel: str | None = None

    def __post_init__(self) -> None:
        for name in ("xy", "z", "t"):
            _ranges(name, getattr(self, name))
        if self.channel is not None and not all(map(str.strip, self.channel.split(","))):
            raise ConfigError(f"--channel '{self.channel}' needs numbers or names, such as 1,3")

    def __bool__(self) -> bool:
        return any(each is not None for each in (self.xy, self.z, self.t, self.channel))

    def of(self, name: str, count: int, path: str) -> list[int]:
        """The selected planes of an axis, ascending, from 0; raises ``ImageError`` where the
        stack has not all of them."""
        selected: set[int] = set()
        for first, last in _ranges(name, getattr(self, name)):
            if last > count:
                raise ImageError(
                    f"{path}: --{name} asks for plane {last}, the file has {count} "
                    f"(1-{count}); ask for planes that it has"
                )
            selected.update(range(first - 1, last))
        return sorted(selected)


def _ranges(name: str, text: str | None) -> list[tuple[int, int]]:
    found = []
    for part in ["1"] if text is None else text.split(","):
        match = RANGE.fullmatch(part)
        first, last = (0, 0) if match is None else (int(match[1]), int(match[2] or match[1]))
        if not 1 <= first <= last:
            raise ConfigError(
                f"--{name} '{text}' is no list of planes: expected numbers and ranges from 1, "
                "such as '1-3, 5-8'"
            )
        found.append((first, last))
    return found


@dataclass(frozen=True)
class _Values:
    """Where the values of one channel of a plane lie, and how they are shown.

    Attributes:
        offset: of the page's directory; with ``stored`` of the values themselves.
        stored: shape and dtype of values that lie there as they are; None for a page.
        sample: which of a pixel's values it is; None where there is one.
        limits: the values that become 0 and full intensity.
        colour: red, green and blue at full intensity, 0 to 1.
    """

    offset: int
    stored: tuple[tuple[int, ...], str] | None
    sample: tuple[int, int] | None
    limits: tuple[float, float] = (0.0, 1.0)
    colour: tuple[float, float, float] = GREY


@dataclass(frozen=True)
class Plane:
    """One plane of a stack, not read yet.

    Attributes:
        path: the file, as it was given.
        location: (xy, z, t), from 0.
        channels: those that are blended.
    """

    path: str
    location: Location
    channels: tuple[_Values, ...]

    @property
    def name(self) -> str:
        """The plane as messages name it, with numbers from 1."""
        xy, z, t = (number + 1 for number in self.location)
        return f"{self.path} (xy {xy}, z {z}, t {t})"

    def read(self, *, max_pixels: int = DEFAULT_MAX_PIXELS, index: int = 0) -> Frame:
        """The plane as a frame; raises ``ImageError`` where it is damaged, or missing."""
        with _reading(self.path) as file:
            planes = [_read(file, each, self, max_pixels) for each in self.channels]
            if len({values.shape for values in planes}) > 1:
                raise ImageError(f"{self.name}: its channels differ in size; export it again")
            image = _blend(planes, self.channels)
        return Frame(image, self.path, index, location=self.location)


def planes_of(
    path: str | os.PathLike[str], ranges: PlaneRanges, *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> list[Plane]:
    """The planes of a TIFF that ranges select, ordered by XY, T and Z.

    Each channel has one contrast in all of them, that of some planes of the selection.

    Raises:
        ImageError: the file is no TIFF, is damaged, hostile or cut off, or does not have the
            planes or channels; or they are too large or too many.
    """
    import tifffile

    name = os.fspath(path)
    # Nothing that a file names is opened: an OME-TIFF may name further files.
    with _reading(name) as file, tifffile.TiffFile(file, _multifile=False) as tiff:
        require_plain_ome(tiff, name)
        positions = [each for each in tiff.series
                     if not each.keyframe.is_reduced and not each.keyframe.is_mask]  # fmt: skip
        _require_all_planes(tiff, positions[0], name)
        names = names_of_channels(tiff)
        planes: list[Plane] = []
        for xy in ranges.of("xy", len(positions), name):
            planes += _planes_of_position(
                positions[xy], xy, ranges, names=names, name=name, max_pixels=max_pixels
            )
    return _with_contrast(planes, max_pixels)


def _require_all_planes(tiff: Any, series: Any, name: str) -> None:
    """Raises ``ImageError`` for an ImageJ hyperstack that ends early: tifffile gives its first
    plane only."""
    declared = int((tiff.imagej_metadata or {}).get("images", 1)) if tiff.is_imagej else 1
    there = len(series.pages)
    if declared > 1 and there == 1 and len(series.shape) == len(series.keyframe.shape):
        raise ImageError(f"the stack '{name}' is cut off: 1 of its {declared} planes is there; "
                         "copy or export it again")  # fmt: skip


def _planes_of_position(
    series: Any,
    xy: int,
    ranges: PlaneRanges,
    *,
    names: Sequence[str],
    name: str,
    max_pixels: int,
) -> list[Plane]:
    page = series.keyframe
    check_pixels((int(page.imagewidth), int(page.imagelength)), max_pixels, name)
    page_axes = page.axes
    leading = series.axes[: len(series.axes) - len(page_axes)]
    shape = series.shape[: len(leading)]
    roles = [AXES.get(axis, "") for axis in leading]
    if "" in roles or len(set(roles)) < len(roles):
        raise ImageError(f"{name}: its axes {series.axes} are not known, expected some of TZCYX; "
                         "export it as OME-TIFF")  # fmt: skip
    counts = {"z": 1, "t": 1, "channel": 1} | dict(zip(roles, map(int, shape), strict=True))
    samples = int(page.samplesperpixel)
    if samples > 1 and counts["channel"] > 1:
        raise ImageError(f"{name}: it has channels of colours; export channels of grey values")
    sampled = samples > 1
    counts["channel"] = max(samples, counts["channel"])
    selected_z, selected_t = (ranges.of(axis, counts[axis], name) for axis in ("z", "t"))
    if len(selected_z) * len(selected_t) > MOST_PLANES:
        raise ImageError(f"{name}: more than {MOST_PLANES:,} planes are selected; select fewer")
    if sampled and ranges.channel is None and page.photometric == 2:  # RGB
        channels, colours = [0, 1, 2], list(COLOURS[:3])
    else:
        channels = _channels(ranges.channel, counts["channel"], names, name)
        colours = [GREY] if len(channels) == 1 else list(COLOURS)
    planes = []
    for t in selected_t:
        for z in selected_z:
            values = []
            for number, channel in enumerate(channels):
                at = {"z": z, "t": t, "channel": channel}
                index = np.ravel_multi_index([at[role] for role in roles], shape) if roles else 0
                sample = (channel, page_axes.index("S")) if sampled else None
                values.append(
                    _located(series, int(index), sample, colours[number % len(colours)], name)
                )
            planes.append(Plane(name, (xy, z, t), tuple(values)))
    return planes


def _channels(text: str | None, count: int, names: Sequence[str], name: str) -> list[int]:
    if text is None:
        if count > 1:
            warnings.warn(f"{name}: only channel 1 of {count} is read; --channel selects others",
                          stacklevel=5)  # fmt: skip
        return [0]
    known = [each.casefold() for each in names]
    found: list[int] = []
    for each in map(str.strip, text.split(",")):
        number = int(each) - 1 if re.fullmatch("[0-9]{1,9}", each) else -1
        if each.casefold() in known:
            number = known.index(each.casefold())
        if not 0 <= number < count:
            called = f" ({', '.join(names[:8])})" if names else ""
            raise ImageError(f"{name}: there is no channel '{each}', the file has channels "
                             f"1-{count}{called}")  # fmt: skip
        found.append(number)
    return list(dict.fromkeys(found))


def _located(
    series: Any,
    index: int,
    sample: tuple[int, int] | None,
    colour: tuple[float, float, float],
    name: str,
) -> _Values:
    page = series.keyframe
    if series.dataoffset is not None:
        bytes_each = int(np.prod(page.shape)) * page.dtype.itemsize
        dtype = page.dtype.newbyteorder(page.parent.byteorder).str
        offset = int(series.dataoffset) + index * bytes_each
        return _Values(offset, (tuple(page.shape), dtype), sample, colour=colour)
    pages = series.pages
    found = pages[index] if index < len(pages) else None
    if found is None:
        raise ImageError(f"{name}: page {index + 1} is missing (it may lie in another file, and "
                         "those are not opened); export the stack into one file")  # fmt: skip
    return _Values(int(found.offset), None, sample, colour=colour)


def _with_contrast(planes: list[Plane], max_pixels: int) -> list[Plane]:
    """The planes with the limits of each channel, from :data:`SAMPLED_PLANES` of them."""
    sampled = sorted({round(i) for i in np.linspace(0, len(planes) - 1, SAMPLED_PLANES)})
    count = min(len(each.channels) for each in planes)
    limits: list[tuple[float, float]] = []
    with _reading(planes[0].path) as file:
        for channel in range(count):
            found = []
            for number in sampled:
                plane = planes[number]
                try:
                    values = _read(file, plane.channels[channel], plane, max_pixels)
                except ImageError:  # said when the plane is read
                    continue
                if values.dtype == np.uint8:
                    found.append((0.0, 255.0))
                    continue
                finite = values[np.isfinite(values)]
                found += [own_stretch(finite)] if finite.size else []
            lows, highs = zip(*found, strict=True) if found else ((0.0,), (1.0,))
            limits.append((min(lows), max(highs)))
    return [
        Plane(each.path, each.location, tuple(
            _Values(v.offset, v.stored, v.sample, limit, v.colour)
            for v, limit in zip(each.channels, limits, strict=True)
        ))
        for each in planes
    ]  # fmt: skip


def _read(file: BinaryIO, where: _Values, plane: Plane, max_pixels: int) -> npt.NDArray[Any]:
    """``(H, W)`` values in the file's own type."""
    import tifffile

    end = file.seek(0, os.SEEK_END)
    if where.stored is not None:
        shape, dtype = where.stored
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        _require_whole(where.offset + size, end, plane)
        file.seek(where.offset)
        array: npt.NDArray[Any] = np.frombuffer(file.read(size), dtype).reshape(shape)
    else:
        file.seek(0)
        with tifffile.TiffFile(file, _multifile=False) as tiff:
            tiff.filehandle.seek(where.offset)
            page = tifffile.TiffPage(tiff, index=0)
            check_pixels((int(page.imagewidth), int(page.imagelength)), max_pixels, plane.name)
            pieces = zip(page.dataoffsets, page.databytecounts, strict=True)
            _require_whole(max(map(sum, pieces), default=0), end, plane)
            try:
                array = page.asarray()
            except (ValueError, RuntimeError, OSError, zlib.error) as error:
                if "imagecodecs" in str(error):
                    raise
                raise ImageError(f"{plane.name} is damaged ({one_line(error)}); copy or export the "
                                 "stack again") from error  # fmt: skip
    if where.sample is not None:
        array = np.take(array, where.sample[0], axis=where.sample[1])
    if array.ndim != 2 or array.dtype.kind not in "buif":
        raise ImageError(f"{plane.name}: its values have shape {array.shape} and type "
                         f"{array.dtype}, expected grey values; export it again")  # fmt: skip
    return array


def _require_whole(needed: int, end: int, plane: Plane) -> None:
    if needed > end:
        raise ImageError(f"{plane.name} is cut off (the file has {end:,} bytes of at least "
                         f"{needed:,}); copy or export it again")  # fmt: skip


def _blend(planes: Sequence[npt.NDArray[Any]], channels: Sequence[_Values]) -> ImageRGB:
    """``(H, W, 3)`` uint8: the sum of the channels' colours. NaN and infinite values are black."""
    total = np.zeros((*planes[0].shape, 3), np.float32)
    for values, channel in zip(planes, channels, strict=True):
        low, high = channel.limits
        scaled = (values.astype(np.float64) - low) / (high - low if high > low else 1.0)
        unit = np.where(np.isfinite(values), np.clip(scaled, 0, 1), 0).astype(np.float32)
        for index, share in enumerate(channel.colour):
            if share:
                total[..., index] += share * unit
    image: ImageRGB = np.rint(255 * np.clip(total, 0, 1)).astype(np.uint8)
    return image


@contextmanager
def _reading(name: str) -> Iterator[BinaryIO]:
    """The file of a stack; what is wrong with it becomes an ``ImageError``."""
    check_file(name)
    try:
        with quiet_readers(), open(name, "rb") as file:
            if file.read(4) not in TIFF_MAGICS:
                raise ImageError(
                    f"'{name}' is no TIFF, and planes and channels are selected of TIFF, OME-TIFF "
                    "and ImageJ hyperstacks; leave out --xy, --z, --t and --channel for it"
                )
            file.seek(0)
            yield file
    except ImageError:
        raise
    except PermissionError as error:
        raise unreadable(name, error) from error
    except MemoryError as error:
        raise ImageError(f"the stack '{name}' does not fit into memory; reduce it") from error
    except Exception as error:  # a damaged file makes tifffile raise nearly anything
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        if "imagecodecs" in detail:
            raise ImageError(
                f"the stack '{name}' is compressed in a way that is not read ({detail}); save it "
                "without, or with deflate"
            ) from error
        raise ImageError(
            f"the stack '{name}' is damaged or cut off ({detail}); copy or export it again"
        ) from error
