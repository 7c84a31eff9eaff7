"""Planes of stacks: which of them ranges select, and one of them as a frame. Only one plane is in
memory at a time."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt

from sam_detect.errors import ImageError
from sam_detect.io.channels import COLOURS, WHITE, ChannelChoice, Colour, chosen_channels
from sam_detect.io.decoding import DEFAULT_MAX_PIXELS
from sam_detect.io.stack_axes import PlaneRanges, Position, StoredPlane
from sam_detect.io.tiff_stacks import open_tiff
from sam_detect.io.zarr_stacks import is_zarr, open_zarr
from sam_detect.types import Frame, ImageRGB, Location, PixelSize

MOST_PLANES = 100_000
SAMPLED_PLANES = 5
"""So many planes of a stack decide the contrast of each channel, for all of its planes."""
CAMERA_LIMITS = frozenset(2**bits - 1 for bits in (8, 10, 12, 14, 16))
SATURATED_SHARE = 0.1
"""Of the values. Sound pictures of microscopes have less than a hundredth at their highest one."""


@dataclass(frozen=True)
class _Channel:
    """One channel of a plane.

    Attributes:
        stored: where its values lie.
        limits: the values that become 0 and full intensity.
        colour: at full intensity.
    """

    stored: StoredPlane
    limits: tuple[float, float]
    colour: Colour


@dataclass(frozen=True)
class Plane:
    """One plane of a stack, not read yet.

    Attributes:
        path: the file, as it was given.
        location: (xy, z, t), from 0.
        channels: those that are blended.
        pixel_size_um: of its pixels, where the file says it.
    """

    path: str
    location: Location
    channels: tuple[_Channel, ...]
    pixel_size_um: PixelSize | None = None

    @property
    def name(self) -> str:
        """The plane as messages name it, with numbers from 1."""
        return plane_name(self.path, self.location)

    def values(self, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> npt.NDArray[Any]:
        """``(H, W, C)`` values of the channels in the file's own type; raises ``ImageError`` where
        the plane is damaged, or missing."""
        read = [each.stored.read(self.path, self.name, max_pixels) for each in self.channels]
        if len({values.shape for values in read}) > 1:
            raise ImageError(f"{self.name}: its channels differ in size; export it again")
        return np.stack(read, axis=-1)

    def read(self, *, max_pixels: int = DEFAULT_MAX_PIXELS, index: int = 0) -> Frame:
        """The plane as a frame; raises as :meth:`values`. Warns of values that show nothing:
        constant, saturated, NaN."""
        values = self.values(max_pixels=max_pixels)
        for problem in _problems(values):
            warnings.warn(f"{self.name}: {problem}", stacklevel=2)
        image = _blend(values, self.channels)
        finite = values[np.isfinite(values)]
        if finite.size and finite.min() < finite.max() and image.min() == image.max():
            warnings.warn(f"{self.name}: its values, {finite.min():g} to {finite.max():g}, lie "
                          "outside of the contrast of its channels, so nothing can be seen; choose "
                          "another one (--channel 1:LOW-HIGH)", stacklevel=2)  # fmt: skip
        return Frame(
            image, self.path, index, location=self.location, pixel_size_um=self.pixel_size_um
        )


def _problems(values: npt.NDArray[Any]) -> Iterator[str]:
    """Why little can be found in ``(H, W, C)`` values."""
    finite = np.isfinite(values)
    lost = int(finite.size - np.count_nonzero(finite))
    if lost:
        yield (f"{lost:,} of {finite.size:,} values are NaN or infinite, and shown black; replace "
               "them where they should be something else")  # fmt: skip
    known = values[finite] if lost else values
    if not known.size:
        return
    highest = known.max()
    if known.min() == highest:
        yield (f"all its pixels have the value {highest}, so nothing can be found in it; check the "
               "plane and the channel")  # fmt: skip
    elif values.dtype.kind == "u" and int(highest) in CAMERA_LIMITS:
        share = np.count_nonzero(known == highest) / known.size
        if share >= SATURATED_SHARE:
            yield (f"{share:.0%} of its values are saturated ({highest}), so objects there cannot "
                   "be told apart; expose it less")  # fmt: skip


def planes_of(
    path: str | os.PathLike[str], ranges: PlaneRanges, *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> list[Plane]:
    """The planes of a stack that ranges select, ordered by XY, T and Z.

    Each channel has one contrast in the whole file, that of some of its planes, whatever is
    selected: what was learnt of one plane looks alike in the others.

    Raises:
        ImageError: the file is no stack, is damaged, hostile or cut off, or does not have the
            planes or channels; or they are too large or too many.
    """
    name = os.fspath(path)
    with _opened(name, max_pixels) as (positions, names):
        wanted: list[Location] = []
        for xy in ranges.of("xy", len(positions), name):
            chosen = (ranges.of(axis, positions[xy].counts[axis], name) for axis in ("z", "t"))
            z, t = chosen
            if len(wanted) + len(z) * len(t) > MOST_PLANES:
                raise ImageError(
                    f"{name}: more than {MOST_PLANES:,} planes are selected; select fewer"
                )
            wanted += [(xy, at_z, at_t) for at_t, at_z in product(t, z)]
        return _located(
            positions, names, wanted, channel=ranges.channel, name=name, max_pixels=max_pixels
        )


def plane_count(path: str | os.PathLike[str], *, max_pixels: int = DEFAULT_MAX_PIXELS) -> int:
    """How many planes a stack has in all its positions; raises as :func:`planes_of`."""
    with _opened(os.fspath(path), max_pixels) as (positions, _):
        return sum(each.counts["z"] * each.counts["t"] for each in positions)


def first_plane(
    path: str | os.PathLike[str], *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> tuple[Plane, str]:
    """The first channel of the first plane of a stack, and which of how many it is, as part of a
    sentence; raises as :func:`planes_of`."""
    name = os.fspath(path)
    with _opened(name, max_pixels) as (positions, names):
        counts = {"position": len(positions)} | positions[0].counts
        several = [f"{axis} 1 of {count}" for axis, count in counts.items() if count > 1]
        (plane,) = _located(
            positions, names, [(0, 0, 0)], channel="1", name=name, max_pixels=max_pixels
        )
    return plane, f"only {', '.join(several)} was read" if several else ""


def planes_at(
    path: str | os.PathLike[str],
    locations: Iterable[Location],
    *,
    channel: str | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> list[Plane]:
    """The planes at locations (from 0), in their order; else as :func:`planes_of`."""
    name, wanted = os.fspath(path), list(locations)
    with _opened(name, max_pixels) as (positions, names):
        for xy, z, t in wanted:
            counts = positions[xy].counts if xy < len(positions) else {}
            if not (z < counts.get("z", 0) and t < counts.get("t", 0)):
                has = f", {counts['z']} Z and {counts['t']} T" if counts else ""
                raise ImageError(f"{plane_name(name, (xy, z, t))}: there is no such plane, the "
                                 f"file has {len(positions)} XY{has}")  # fmt: skip
        return _located(positions, names, wanted, channel=channel, name=name, max_pixels=max_pixels)


def _opened(
    name: str, max_pixels: int
) -> AbstractContextManager[tuple[Sequence[Position], Sequence[str]]]:
    opening = open_zarr if is_zarr(name) else open_tiff
    return opening(name, max_pixels=max_pixels)


def plane_name(path: str, location: Location) -> str:
    """A plane as messages name it, with numbers from 1."""
    xy, z, t = (number + 1 for number in location)
    return f"{path} (xy {xy}, z {z}, t {t})"


def _located(
    positions: Sequence[Position],
    names: Sequence[str],
    wanted: Sequence[Location],
    *,
    channel: str | None,
    name: str,
    max_pixels: int,
) -> list[Plane]:
    """Planes with the contrast of the file."""
    if not wanted:
        return []
    first = positions[wanted[0][0]]
    own_colours = first.colours and channel is None
    if own_colours:
        channels = [ChannelChoice(number) for number in range(3)]
    else:
        channels = chosen_channels(channel, first.counts["channel"], names, name)
    usual = list(COLOURS.values()) if own_colours or len(channels) > 1 else [WHITE]
    colours = [each.colour or usual[i % len(usual)] for i, each in enumerate(channels)]
    limits = [_limits(positions, each, name, max_pixels) for each in channels]
    highest = max(each.number for each in channels)
    planes = []
    for location in wanted:
        xy, z, t = location
        position = positions[xy]
        if position.counts["channel"] <= highest:
            raise ImageError(f"{plane_name(name, location)}: this position has "
                             f"{position.counts['channel']} channels, and {highest + 1} is "
                             "selected; select others")  # fmt: skip
        found = tuple(
            _Channel(position.locate(z=z, t=t, channel=each.number), limit, colour)
            for each, limit, colour in zip(channels, limits, colours, strict=True)
        )
        planes.append(Plane(name, location, found, position.pixel_size_um))
    return planes


def _limits(
    positions: Sequence[Position], channel: ChannelChoice, name: str, max_pixels: int
) -> tuple[float, float]:
    """The contrast of a channel: as a user says it, or from :data:`SAMPLED_PLANES` of the whole
    file."""
    given = channel.contrast
    if given is not None and given.limits is not None:
        return given.limits
    counts = [each.counts["z"] * each.counts["t"] for each in positions]
    ends = np.cumsum(counts)
    found: list[tuple[float, float]] = []
    for number in sorted({round(i) for i in np.linspace(0, int(ends[-1]) - 1, SAMPLED_PLANES)}):
        xy = int(np.searchsorted(ends, number, side="right"))
        t, z = divmod(number - int(ends[xy]) + counts[xy], positions[xy].counts["z"])
        try:
            stored = positions[xy].locate(z=z, t=t, channel=channel.number)
            values = stored.read(name, plane_name(name, (xy, z, t)), max_pixels)
        except (ImageError, ValueError):  # said when the plane is read
            continue
        if values.dtype == np.uint8 and given is None:
            return 0.0, 255.0
        finite = values[np.isfinite(values)]
        found += [channel.stretch(finite)] if finite.size else []
    if not found:
        return 0.0, 1.0
    lows, highs = zip(*found, strict=True)
    return min(lows), max(highs)


def _blend(values: npt.NDArray[Any], channels: Sequence[_Channel]) -> ImageRGB:
    """``(H, W, 3)`` uint8: the sum of the channels' colours. NaN and infinite values are black."""
    total = np.zeros((*values.shape[:2], 3), np.float32)
    for number, channel in enumerate(channels):
        own, (low, high) = values[..., number], channel.limits
        scaled = (own.astype(np.float64) - low) / (high - low if high > low else 1.0)
        unit = np.where(np.isfinite(own), np.clip(scaled, 0, 1), 0).astype(np.float32)
        for index, share in enumerate(channel.colour):
            if share:
                total[..., index] += share * unit
    image: ImageRGB = np.rint(255 * np.clip(total, 0, 1)).astype(np.uint8)
    return image
