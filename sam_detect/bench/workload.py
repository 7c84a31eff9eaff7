"""The pictures that stages are measured on: the same on every machine, of four kinds."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
import skimage.data

from sam_detect.sources import load_image
from sam_detect.types import Frame, ImageRGB

DRAWN_HW = (1000, 1200)
DRAWN_STEP = 100
"""Distance of the drawn objects from one another, pixels."""


def pictures(paths: Sequence[Path]) -> list[Frame]:
    """The pictures of a user, or those of the suite: coins on a table (0.5 megapixels, enlarged
    twofold), stained tissue (0.3), galaxies (0.3) and drawn discs and squares (1.2).

    Raises:
        ImageError: a picture cannot be read.
    """
    if paths:
        return [load_image(str(path)) for path in paths]
    coins = cv2.resize(skimage.data.coins(), None, fx=2, fy=2, interpolation=cv2.INTER_LANCZOS4)
    return [
        Frame(np.repeat(coins[:, :, None], 3, axis=2), "coins"),
        Frame(skimage.data.immunohistochemistry(), "tissue"),
        Frame(np.ascontiguousarray(skimage.data.hubble_deep_field()[:500, :600]), "galaxies"),
        Frame(drawn(), "drawn"),
    ]


def drawn() -> ImageRGB:
    """``(1000, 1200, 3)``: 120 discs and squares of several sizes on a faintly grained ground."""
    image = np.full((*DRAWN_HW, 3), (228, 226, 220), np.uint8)
    generator = np.random.default_rng(0)
    half = DRAWN_STEP // 2
    for y in range(half, DRAWN_HW[0], DRAWN_STEP):
        for x in range(half, DRAWN_HW[1], DRAWN_STEP):
            radius = int(generator.integers(12, 40))
            color = tuple(int(value) for value in generator.integers(20, 150, 3))
            if (x + y) // DRAWN_STEP % 2:
                cv2.circle(image, (x, y), radius, color, -1, cv2.LINE_AA)
            else:
                corners = (x - radius, y - radius), (x + radius, y + radius)
                cv2.rectangle(image, *corners, color, -1)
    grain = generator.integers(-4, 5, image.shape)
    return np.asarray(np.clip(image + grain, 0, 255), np.uint8)


def megapixels(frames: Sequence[Frame]) -> float:
    return sum(frame.size_hw[0] * frame.size_hw[1] for frame in frames) / 1e6


def describe(frames: Sequence[Frame]) -> str:
    """What distinguishes this choice of pictures from another, without their names."""
    digest = hashlib.sha256()
    for frame in frames:
        digest.update(repr(frame.size_hw).encode())
        digest.update(np.ascontiguousarray(frame.image_rgb).tobytes())
    return f"{len(frames)} pictures, {megapixels(frames):.2f} megapixels ({digest.hexdigest()[:8]})"
