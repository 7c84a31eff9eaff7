"""A colour for each label, unlike the other labels' and unlike the picture."""

from __future__ import annotations

import zlib
from collections.abc import Iterable, Mapping

import cv2
import numpy as np
import numpy.typing as npt

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


DIFFERENT_LABELS = 50.0
DIFFERENT_PICTURE = 80.0
"""Distances in CIELAB from which on a colour counts as different enough from those of other labels,
and from the picture around the objects."""
CLOSEST = 0.2
"""Share of the picture's pixels that may be closer to a colour than that."""
LIGHTER, DARKER = 0.45, 0.2
"""What a lighter or darker colour is worth beside one of the palette."""
LIGHTNESS = 0.7
"""What a difference in lightness counts against the picture, where light and shadow alternate."""
HALF_CHROMA = 30.0
"""Chroma that counts half of the largest against the picture: there it is hue that sets off."""

# How red and green look without long and without medium cones, in linear RGB (Machado, Oliveira and
# Fernandes 2009, "A physiologically-based model for simulation of color vision deficiency").
COLOR_VISION = np.array(
    [
        np.eye(3),
        [
            [0.152286, 1.052583, -0.204868],
            [0.114503, 0.786281, 0.099216],
            [-0.003882, -0.048116, 1.051998],
        ],
        [
            [0.367322, 0.860646, -0.227968],
            [0.280085, 0.672501, 0.047413],
            [-0.011820, 0.042940, 0.968881],
        ],
    ]
)


def extend_colors(
    colors: dict[str, ColorRGB],
    labels: Iterable[str],
    around: Mapping[str, npt.NDArray[np.uint8]] | None = None,
) -> None:
    """Adds a colour for each label that ``colors`` lacks; those that are there keep theirs.

    It is the one that differs most from the colours of the other labels and from the picture
    around the label's objects, for normal and for red-green colour-blind eyes. Among equals the
    label's name decides. After thirty labels colours come again.

    Args:
        colors: of labels, extended in place.
        labels: those that need a colour.
        around: for labels ``(K, 3)`` uint8, RGB: pixels of the picture at their objects.
    """
    for label in sorted(set(labels) - set(colors)):
        first = zlib.crc32(label.encode("utf-8", "replace")) % len(PALETTE)
        rotated = PALETTE[first:] + PALETTE[:first]
        lighter = [_mixed(color, 255, 0.55) for color in rotated]
        darker = [_mixed(color, 0, 0.45) for color in rotated]
        taken = set(colors.values())
        worths = dict.fromkeys(rotated, 1.0) | dict.fromkeys(lighter, LIGHTER)
        worths |= dict.fromkeys(darker, DARKER)
        free = [color for color in worths if color not in taken] or list(rotated)
        worth = np.array([worths[color] for color in free])
        if taken:
            closest = color_distances(free, list(taken)).min(axis=1)
            worth *= np.minimum(closest / DIFFERENT_LABELS, 1)
        pixels = None if around is None else around.get(label)
        if pixels is not None and len(pixels):
            distances = color_distances(free, pixels, by_hue=True)
            near = np.quantile(distances, CLOSEST, axis=1)
            worth *= np.minimum(near / DIFFERENT_PICTURE, 1)
        colors[label] = free[int(np.argmax(worth.round(2)))]


def color_distances(
    first: npt.ArrayLike, second: npt.ArrayLike, *, by_hue: bool = False
) -> npt.NDArray[np.float32]:
    """``(M, N)`` distances in CIELAB of RGB colours, the smallest of those that normal and
    red-green colour-blind eyes see.

    Args:
        by_hue: whether lightness counts :data:`LIGHTNESS`, and chroma less the larger it is; and
            whether it is the mean of the smallest distance and of what normal eyes see.
    """
    seen = zip(_lab(first, by_hue=by_hue), _lab(second, by_hue=by_hue), strict=True)
    distances = [np.linalg.norm(a[:, None] - b[None], axis=2) for a, b in seen]
    smallest = np.min(distances, axis=0)
    return np.asarray((distances[0] + smallest) / 2 if by_hue else smallest, np.float32)


def _lab(colors: npt.ArrayLike, *, by_hue: bool) -> npt.NDArray[np.float32]:
    """``(3, N, 3)`` CIELAB of RGB colours, as each of :data:`COLOR_VISION` sees them."""
    srgb = np.asarray(colors, np.float64).reshape(-1, 3) / 255
    linear = np.where(srgb <= 0.04045, srgb / 12.92, ((srgb + 0.055) / 1.055) ** 2.4)
    seen = np.clip(np.einsum("vij,nj->vni", COLOR_VISION, linear), 0, 1)
    back = np.where(seen <= 0.0031308, seen * 12.92, 1.055 * seen ** (1 / 2.4) - 0.055)
    lab = np.asarray(cv2.cvtColor(back.astype(np.float32), cv2.COLOR_RGB2LAB), np.float32)
    if by_hue:
        lab[..., 0] *= LIGHTNESS
        chroma = np.linalg.norm(lab[..., 1:], axis=-1, keepdims=True)
        lab[..., 1:] *= 100 / (chroma + HALF_CHROMA)
    return lab


def _mixed(color: ColorRGB, other: int, share: float) -> ColorRGB:
    red, green, blue = (round(value + share * (other - value)) for value in color)
    return red, green, blue


def ink_on(color: ColorRGB) -> ColorRGB:
    """Near-black or white, whichever is easier to read on ``color``."""
    linear = [(v / 255 / 12.92) if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in color]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # WCAG's contrasts are equal at 0.18, but there small white letters on colour read better
    return (16, 16, 16) if luminance > 0.25 else (255, 255, 255)
