"""What all stacks have: positions with planes and channels, which ranges select."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Protocol

import numpy.typing as npt

from sam_detect.errors import ConfigError, ImageError
from sam_detect.types import Location, PixelSize

RANGE = re.compile(r"\s*([0-9]{1,9})\s*(?:-\s*([0-9]{1,9})\s*)?", re.ASCII)


@dataclass(frozen=True)
class PlaneRanges:
    """Which planes and channels of stacks are read, as users write them: numbers from 1.

    Attributes:
        xy, z, t: numbers and ranges such as ``"1-3, 5-8"``; None takes the first.
        channel: a number or name, or several with commas, which are blended; a colour and a
            contrast may follow (``2:green:100-4000``). None takes the first.

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

    def has(self, location: Location) -> bool:
        """Whether a plane (from 0) lies in the ranges of those axes that have some."""
        return all(
            getattr(self, name) is None
            or any(first <= at + 1 <= last for first, last in _ranges(name, getattr(self, name)))
            for name, at in zip(("xy", "z", "t"), location, strict=True)
        )


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


class StoredPlane(Protocol):
    """Where the values of one channel of a plane lie in a file; goes to other processes."""

    def read(self, path: str, name: str, max_pixels: int) -> npt.NDArray[Any]:
        """``(H, W)`` values in the file's own type.

        Args:
            path: the file.
            name: of the plane, for messages.
            max_pixels: more are refused before they are read.

        Raises:
            ImageError: it is damaged, cut off, missing, or has no grey values.
        """
        ...


class Position(Protocol):
    """One XY position of an open stack.

    Attributes:
        counts: of the axes ``z``, ``t`` and ``channel``.
        colours: whether its channels are red, green and blue.
        pixel_size_um: of a pixel, where the file says it.
    """

    @property
    def counts(self) -> dict[str, int]: ...
    @property
    def colours(self) -> bool: ...
    @property
    def pixel_size_um(self) -> PixelSize | None: ...

    def locate(self, *, z: int, t: int, channel: int) -> StoredPlane:
        """One plane, from 0; raises ``ImageError`` where the file does not have it."""
        ...
