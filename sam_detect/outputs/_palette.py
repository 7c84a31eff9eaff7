"""A colour for each label, the same in every run."""

from __future__ import annotations

import zlib
from collections.abc import Iterable

ColorRGB = tuple[int, int, int]

PALETTE: tuple[ColorRGB, ...] = (
    (230, 159, 0),
    (86, 180, 233),
    (0, 178, 129),
    (240, 228, 66),
    (38, 122, 214),
    (230, 92, 0),
    (222, 135, 184),
    (238, 51, 119),
    (160, 123, 255),
    (168, 224, 95),
)
"""Okabe and Ito's colours for colour-blind readers (their darkest three lightened, so that they
stand out on dark micrographs), and three more of other lightness."""

UNKNOWN: ColorRGB = (205, 205, 205)


def extend_colors(colors: dict[str, ColorRGB], labels: Iterable[str]) -> None:
    """Adds a colour for each label that ``colors`` lacks; those that are there keep theirs.

    A label's colour is decided by its name. Where another has it already (of several new ones the
    first in the alphabet), it takes the next free one; when all are taken, lighter and then darker
    ones; after thirty labels, colours come again.
    """
    for label in sorted(set(labels) - set(colors)):
        first = zlib.crc32(label.encode("utf-8", "replace")) % len(PALETTE)
        rotated = PALETTE[first:] + PALETTE[:first]
        lighter = [_mixed(color, 255, 0.55) for color in rotated]
        darker = [_mixed(color, 0, 0.45) for color in rotated]
        taken = set(colors.values())
        candidates = (color for color in [*rotated, *lighter, *darker] if color not in taken)
        colors[label] = next(candidates, rotated[0])


def _mixed(color: ColorRGB, other: int, share: float) -> ColorRGB:
    red, green, blue = (round(value + share * (other - value)) for value in color)
    return red, green, blue


def ink_on(color: ColorRGB) -> ColorRGB:
    """Near-black or white, whichever is easier to read on ``color``."""
    linear = [(v / 255 / 12.92) if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in color]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # WCAG's contrasts are equal at 0.18, but there small white letters on colour read better
    return (16, 16, 16) if luminance > 0.25 else (255, 255, 255)
