"""A colour for each label that differs from the other labels' colours and from the image."""

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
"""The colour-blind safe palette of Okabe and Ito (its darkest three lightened, so that they stand
out on dark micrographs), and three more of other lightness."""

UNKNOWN: ColorRGB = (205, 205, 205)

DIFFERENT_LABELS = 50.0
DIFFERENT_IMAGE = 80.0
"""CIELAB distances above which a colour differs enough from the colours of other labels, and from
the image around the objects."""
NEAR_PIXELS = 0.2
"""Share of the pixels around the objects that may be closer to a colour than that."""
LIGHTER, DARKER = 0.45, 0.2
"""Weight of a lightened or darkened colour against one of the palette."""
LIGHTNESS = 0.7
"""Weight of lightness in the distance from the image, where light and shadow alternate."""
HALF_CHROMA = 30.0
"""Chroma that gets half of the largest weight in the distance from the image, where hue counts."""

# Normal, protanopic and deuteranopic vision in linear RGB (Machado, Oliveira and Fernandes 2009,
# "A physiologically-based model for simulation of color vision deficiency").
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

    It is the colour that differs most from the colours of the other labels and from the image
    around the label's objects, for normal and for red-green colour-blind vision. Ties are broken
    by the label's name. After thirty labels colours repeat.

    Args:
        colors: of labels, extended in place.
        labels: those that need a colour.
        around: for labels ``(K, 3)`` uint8, RGB: pixels of the image at their objects.
    """
    for label in sorted(set(labels) - set(colors)):
        first = zlib.crc32(label.encode("utf-8", "replace")) % len(PALETTE)
        rotated = PALETTE[first:] + PALETTE[:first]
        weights = dict.fromkeys(rotated, 1.0)
        weights |= dict.fromkeys((_mixed(color, 255, 0.55) for color in rotated), LIGHTER)
        weights |= dict.fromkeys((_mixed(color, 0, 0.45) for color in rotated), DARKER)
        taken = set(colors.values())
        free = [color for color in weights if color not in taken] or list(rotated)
        score = np.array([weights[color] for color in free])
        if taken:
            closest = color_distances(free, list(taken)).min(axis=1)
            score *= np.minimum(closest / DIFFERENT_LABELS, 1)
        pixels = None if around is None else around.get(label)
        if pixels is not None and len(pixels):
            distances = color_distances(free, pixels, by_hue=True)
            near = np.quantile(distances, NEAR_PIXELS, axis=1)
            score *= np.minimum(near / DIFFERENT_IMAGE, 1)
        colors[label] = free[int(np.argmax(score.round(2)))]


def color_distances(
    first: npt.ArrayLike, second: npt.ArrayLike, *, by_hue: bool = False
) -> npt.NDArray[np.float32]:
    """``(M, N)`` CIELAB distances of RGB colours: the smallest for normal, protanopic and
    deuteranopic vision.

    Args:
        by_hue: whether lightness has the weight :data:`LIGHTNESS` and large chroma less weight, and
            the result is the mean of the smallest distance and that for normal vision.
    """
    seen = zip(_lab(first, by_hue=by_hue), _lab(second, by_hue=by_hue), strict=True)
    distances = [np.linalg.norm(a[:, None] - b[None], axis=2) for a, b in seen]
    smallest = np.min(distances, axis=0)
    return np.asarray((distances[0] + smallest) / 2 if by_hue else smallest, np.float32)


def _lab(colors: npt.ArrayLike, *, by_hue: bool) -> npt.NDArray[np.float32]:
    """``(3, N, 3)`` CIELAB of RGB colours, for each kind of vision in :data:`COLOR_VISION`."""
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


def text_color_on(color: ColorRGB) -> ColorRGB:
    """Near-black or white, whichever has more contrast on ``color``."""
    linear = [(v / 255 / 12.92) if v <= 10 else ((v / 255 + 0.055) / 1.055) ** 2.4 for v in color]
    luminance = 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    # WCAG's contrasts are equal at 0.18, but there small white letters on colour read better
    return (16, 16, 16) if luminance > 0.25 else (255, 255, 255)
