"""The library's examples as pictures: a thumbnail of one, and a map of the vectors of all."""

from __future__ import annotations

import numpy as np
from PIL import Image

from sam_detect.library.example import Example
from sam_detect.types import ImageRGB
from sam_detect.types.masks import FloatArray

THUMBNAIL_SIDE = 128
MARGIN = 0.3
"""What a thumbnail shows around an object, as a share of the object's longer side."""
AROUND = 0.55
"""The brightness of what is not the object."""


def principal_components(vectors: FloatArray) -> FloatArray:
    """``(N, 2)`` float32: the first two principal components of ``(N, D)`` vectors, in -1 to 1.

    The component of largest magnitude of each axis is positive, so that the same vectors always
    give the same map.
    """
    count = len(vectors)
    if count == 0:
        return np.zeros((0, 2), np.float32)
    centred = np.asarray(vectors, np.float64) - np.asarray(vectors, np.float64).mean(axis=0)
    # The covariance has the same axes, and is smaller where there are many examples.
    table = centred.T @ centred if count > centred.shape[1] else centred
    axes = np.linalg.svd(table, full_matrices=False)[2][:2]
    signs = [np.sign(axis[np.argmax(np.abs(axis))]) or 1.0 for axis in axes]
    places = np.zeros((count, 2))
    places[:, : len(axes)] = centred @ (axes * np.array(signs)[:, None]).T
    return np.asarray(places / max(float(np.abs(places).max()), 1e-12), np.float32)


def thumbnail(example: Example) -> ImageRGB:
    """``(h, w, 3)`` uint8, at most :data:`THUMBNAIL_SIDE`: the object, and a little around it."""
    crop = example.crop
    rows, columns = np.flatnonzero(crop.mask.any(axis=1)), np.flatnonzero(crop.mask.any(axis=0))
    height, width = rows[-1] + 1 - rows[0], columns[-1] + 1 - columns[0]
    half = max(2, round(max(height, width) * (0.5 + MARGIN)))
    y, x = (rows[0] + rows[-1] + 1) // 2, (columns[0] + columns[-1] + 1) // 2
    window = np.s_[max(0, y - half) : y + half, max(0, x - half) : x + half]
    image = crop.image_rgb[window].astype(np.float32)
    image[~crop.mask[window]] *= AROUND
    shown = Image.fromarray(image.astype(np.uint8))
    shown.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE))
    return np.asarray(shown)
