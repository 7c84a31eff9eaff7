"""The default embedder without weights: colour, texture, shape and surroundings in named parts.

A part is a set of histograms with soft bins. The square root of a histogram that adds up to one
has length 1, and the dot product of two such roots is their Bhattacharyya coefficient: 1 for
equal histograms, 0 for disjoint ones. So every part is a unit vector, and the similarity of two
whole vectors is the weighted mean of the similarities of their parts. No part depends on how the
object is turned; ``size`` alone depends on how near it is.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.interfaces import Embedder
from sam_detect.masks import BoolArray, FloatArray
from sam_detect.types import FadedCrop

PART_WEIGHTS = {
    "colour": 0.24,
    "layers": 0.08,
    "texture": 0.05,
    "shape": 0.18,
    "size": 0.22,
    "contrast": 0.23,
}
"""The parts in the order of the vector, each with its share of the similarity."""

COLOUR_BINS = 16
TEXTURE_BINS = 10
SCALAR_BINS = 10
CONTRAST_BINS = 12
LAYERS = 2
"""Rim and core of the object, split at half of its largest depth."""
RING = 0.25
"""Width of the surroundings that contrast looks at, as a share of the object's diameter."""

SCENE_LIGHTNESS, SCENE_LAYERS = 0.2, 0.3
"""See :meth:`AppearanceEmbedder.scene_weights`."""

Array = npt.NDArray[np.float32]


class AppearanceEmbedder(Embedder):
    """Parts of the vector, each pooled with the fade's weights where it pools pixels:

    - ``colour``: histograms of L, a and b (CIELAB), and of a and b jointly.
    - ``layers``: mean and spread of L, a and b in the object's rim and in its core.
    - ``texture``: gradient strength at three scales and uniform local binary patterns
      (Ojala et al. 2002).
    - ``shape``: solidity, elongation, circularity, extent, and how its radius varies.
    - ``size``: the area in pixels of the picture, on a log scale.
    - ``contrast``: mean colour of the object against the ring around it.
    """

    name = "appearance"
    version = 1
    input_side = 64
    prior_similarity = 0.9

    def scene_weights(self) -> FloatArray:
        """Size says how near the camera was; lightness, how bright the lamp."""
        weights = {name: np.ones(length, np.float32) for name, length in _LENGTHS.items()}
        weights["size"][:] = 0
        weights["colour"][:COLOUR_BINS] = SCENE_LIGHTNESS
        weights["layers"][:] = SCENE_LAYERS
        return np.concatenate([weights[name] for name in PART_WEIGHTS])

    @property
    def dimension(self) -> int:
        return _DIMENSION

    def embed(self, crops: Sequence[FadedCrop]) -> FloatArray:
        vectors = np.zeros((len(crops), _DIMENSION), np.float32)
        for row, crop in zip(vectors, crops, strict=True):
            parts = describe(crop)
            row[:] = np.concatenate(
                [math.sqrt(weight) * parts[name] for name, weight in PART_WEIGHTS.items()]
            )
        return vectors


def describe(crop: FadedCrop) -> dict[str, Array]:
    """The parts of one crop by name, each a vector of length 1."""
    image = crop.crop.image_rgb if crop.plain else crop.image_rgb
    mask = crop.crop.mask
    lab = cv2.cvtColor(image, cv2.COLOR_RGB2LAB)
    weights = crop.weights
    inside = cv2.distanceTransform(np.pad(mask, 1).view(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_3)[
        1:-1, 1:-1
    ]
    return {
        "colour": _colour(lab, weights),
        "layers": _layers(lab, mask, inside),
        "texture": _texture(lab[..., 0], weights),
        "shape": _shape(mask),
        "size": _scalar(math.log(crop.crop.area + 1) / math.log(1e6)),
        "contrast": _contrast(lab, mask),
    }


def _colour(lab: npt.NDArray[np.uint8], weights: FloatArray) -> Array:
    single = [_histogram(lab[..., c], weights, COLOUR_BINS) for c in range(3)]
    a, b = (np.clip(lab[..., c].astype(np.int32) - 64, 0, 127) >> 4 for c in (1, 2))
    joint = np.bincount((a * 8 + b).ravel(), weights.ravel(), 64).reshape(8, 8)
    joint = cv2.sepFilter2D(joint, -1, _SMOOTH, _SMOOTH, borderType=cv2.BORDER_REPLICATE)
    return _unit([*single, _root(joint.ravel())])


def _layers(lab: npt.NDArray[np.uint8], mask: BoolArray, inside: Array) -> Array:
    depth = float(inside.max())
    core = inside > depth / 2
    rim = mask & ~core
    found = []
    for layer in (rim if rim.any() else mask, core):
        values = lab[layer].astype(np.float32) / 255
        found += [_scalar(float(m)) for m in _spread_chroma(values.mean(axis=0))]
        found += [_scalar(min(1.0, 5 * float(s))) for s in values.std(axis=0)]
    return _unit(found)


def _spread_chroma(lab: Array) -> Array:
    """a and b of real pictures fill the middle of their range: stretch it."""
    stretched = lab.copy()
    stretched[1:] = np.clip((lab[1:] - 0.5) * 2 + 0.5, 0, 1)
    return np.asarray(stretched, np.float32)


def _texture(lightness: npt.NDArray[np.uint8], weights: FloatArray) -> Array:
    histograms = []
    grey = lightness.astype(np.float32)
    for _ in range(3):
        gx = cv2.Sobel(grey, cv2.CV_32F, 1, 0, scale=0.25)
        gy = cv2.Sobel(grey, cv2.CV_32F, 0, 1, scale=0.25)
        strength = np.sqrt(cv2.magnitude(gx, gy) * 4)
        histograms.append(_histogram(np.clip(strength * 8, 0, 255), weights, TEXTURE_BINS))
        grey = cv2.GaussianBlur(grey, (0, 0), 1.5)
    patterns = np.bincount(_binary_patterns(lightness).ravel(), weights.ravel(), 10)
    histograms.append(_root(patterns))
    return _unit(histograms)


def _binary_patterns(grey: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Rotation-invariant uniform local binary patterns of radius 1, 0 to 9 (9: not uniform)."""
    padded = np.pad(cv2.GaussianBlur(grey, (3, 3), 0).astype(np.int16), 1, mode="edge")
    height, width = grey.shape
    centre = padded[1:-1, 1:-1] + 3
    code = np.zeros(grey.shape, np.uint8)
    for bit, (dy, dx) in enumerate(_AROUND):
        code |= (padded[1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width] > centre).astype(
            np.uint8
        ) << bit
    return _UNIFORM[code]


def _shape(mask: BoolArray) -> Array:
    contours, _ = cv2.findContours(mask.view(np.uint8), cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contour = max(contours, key=len)
    area = float(np.count_nonzero(mask))
    perimeter = max(cv2.arcLength(contour, True), 1.0)
    # A contour runs through pixel centres: half its length is missing from its area.
    hull = cv2.contourArea(cv2.convexHull(contour)) + perimeter / 2 + 1
    _, (width, height), _ = cv2.minAreaRect(contour)
    width, height = width + 1, height + 1
    points = contour[:, 0].astype(np.float32)
    radii = np.linalg.norm(points - points.mean(axis=0), axis=1)
    variation = float(radii.std() / max(radii.mean(), 1e-6))
    return _unit(
        [
            _scalar((min(1.0, area / hull) - 0.5) * 2),
            _scalar(min(width, height) / max(width, height)),
            _scalar(min(1.0, 4 * math.pi * (area + perimeter / 2) / (perimeter + 4) ** 2)),
            _scalar(min(1.0, area / (width * height))),
            _scalar(min(1.0, variation * 2)),
        ]
    )


def _contrast(lab: npt.NDArray[np.uint8], mask: BoolArray) -> Array:
    reach = max(2, round(RING * math.sqrt(np.count_nonzero(mask))))
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * reach + 1, 2 * reach + 1))
    ring = cv2.dilate(mask.view(np.uint8), kernel).view(np.bool_) & ~mask
    if not ring.any():
        ring = ~mask if (~mask).any() else mask
    difference = (lab[mask].mean(axis=0) - lab[ring].mean(axis=0)) / 255
    # The square root spreads small differences, where a thing and its ground differ or do not.
    scaled = np.sign(difference) * np.sqrt(np.abs(difference))
    return _unit([_scalar(float(v) * 0.7 + 0.5, CONTRAST_BINS) for v in scaled])


def _histogram(values: npt.NDArray[np.generic], weights: FloatArray, bins: int) -> Array:
    """Root of the smoothed, weighted histogram of values in 0..255."""
    index = (values.astype(np.float32) * (bins / 256)).astype(np.intp)
    counts = np.bincount(index.ravel(), weights.ravel(), bins)
    return _root(np.convolve(np.pad(counts, 1, mode="edge"), _SMOOTH, "valid"))


def _scalar(value: float, bins: int = SCALAR_BINS) -> Array:
    """One number in 0..1 as a soft bump over bins, so that near numbers are similar."""
    centres = (np.arange(bins, dtype=np.float32) + 0.5) / bins
    width = 1.0 / bins
    return _root(np.exp(-0.5 * np.square((centres - min(max(value, 0.0), 1.0)) / width)))


def _root(counts: npt.NDArray[Any]) -> Array:
    total = counts.sum()
    if total <= 0:
        return np.full(counts.size, 1 / math.sqrt(counts.size), np.float32)
    return np.asarray(np.sqrt(counts / total), np.float32)


def _unit(histograms: Sequence[Array]) -> Array:
    return np.asarray(np.concatenate(histograms) / math.sqrt(len(histograms)), np.float32)


_SMOOTH = np.array([0.25, 0.5, 0.25])
_AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))


def _uniform_table() -> npt.NDArray[np.uint8]:
    """Number of set neighbours where the code changes at most twice around, else 9."""
    table = np.full(256, 9, np.uint8)
    for code in range(256):
        bits = [(code >> bit) & 1 for bit in range(8)]
        if sum(bits[i] != bits[i - 1] for i in range(8)) <= 2:
            table[code] = sum(bits)
    return table


_UNIFORM = _uniform_table()
_LENGTHS = {
    "colour": 3 * COLOUR_BINS + 64,
    "layers": LAYERS * 6 * SCALAR_BINS,
    "texture": 3 * TEXTURE_BINS + 10,
    "shape": 5 * SCALAR_BINS,
    "size": SCALAR_BINS,
    "contrast": 3 * CONTRAST_BINS,
}
"""Dimensions of each part."""
_DIMENSION = sum(_LENGTHS.values())
