"""The default embedder without weights: colour, texture, shape and surroundings in named parts.

A part is a set of histograms with soft bins. The square root of a histogram that sums to 1 has
length 1, and the dot product of two such roots is their Bhattacharyya coefficient: 1 for equal
histograms, 0 for disjoint ones. So every part is a unit vector, and the similarity of two vectors
is the weighted mean of the similarities of their parts. No part depends on the rotation of the
object; only ``size`` depends on its distance from the camera.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.interfaces import Embedder
from sam_detect.types import FadedCrop
from sam_detect.types.masks import FloatArray

PART_WEIGHTS = {
    "colour": 0.24,
    "layers": 0.08,
    "texture": 0.05,
    "shape": 0.18,
    "size": 0.22,
    "contrast": 0.23,
}
"""The parts in the order of the vector, with their weights in the similarity."""

COLOUR_BINS = 16
TEXTURE_BINS = 10
SCALAR_BINS = 10
CONTRAST_BINS = 12
LAYERS = 2
"""Rim and core of the object, split at half of its largest depth."""
RING = 0.25
"""Width of the ring around the object for ``contrast``, relative to the root of its area."""

SCENE_LIGHTNESS, SCENE_LAYERS = 0.2, 0.3
"""See :meth:`AppearanceEmbedder.scene_weights`."""

NEGLIGIBLE = 1e-8
"""Pixels with less than this share of the largest weight are skipped: they change nothing."""

Array = npt.NDArray[np.float32]
Numbers = npt.NDArray[np.float64]
Bytes = npt.NDArray[np.uint8]


class AppearanceEmbedder(Embedder):
    """Colour, texture, shape, size and contrast; histograms of pixels have the fade's weights:

    - ``colour``: histograms of L, a and b (CIELAB), and of a and b jointly.
    - ``layers``: mean and spread of L, a and b in the object's rim and in its core.
    - ``texture``: gradient strength at three scales and uniform local binary patterns
      (Ojala et al. 2002).
    - ``shape``: solidity, elongation, circularity, extent, and variation of the radius.
    - ``size``: the area in pixels of the image, on a log scale.
    - ``contrast``: mean colour of the object against the ring around it.
    """

    name = "appearance"
    version = 1
    input_side = 64
    cheap = True
    prior_similarity = 0.9

    def scene_weights(self) -> FloatArray:
        """Size depends on the distance of the camera, lightness on the light source."""
        weights = {name: np.ones(length, np.float32) for name, length in PART_LENGTHS.items()}
        weights["size"][:] = 0
        weights["colour"][:COLOUR_BINS] = SCENE_LIGHTNESS
        weights["layers"][:] = SCENE_LAYERS
        return np.concatenate([weights[name] for name in PART_WEIGHTS])

    @property
    def dimension(self) -> int:
        return sum(PART_LENGTHS.values())

    def embed(self, crops: Sequence[FadedCrop]) -> FloatArray:
        if not crops:
            return np.zeros((0, self.dimension), np.float32)
        return joined(describe(crops), PART_WEIGHTS)


def joined(parts: Mapping[str, Array], weights: Mapping[str, float]) -> Array:
    """``(N, D)`` unit vectors whose similarity is the weighted mean of that of their parts.

    Args:
        parts: by name, each ``(N, length)`` with rows of length 1.
        weights: by name, in the order of the vector; they sum to 1.
    """
    return np.concatenate([math.sqrt(each) * parts[name] for name, each in weights.items()], axis=1)


def describe(crops: Sequence[FadedCrop]) -> dict[str, Array]:
    """The parts of N crops by name, each ``(N, length)`` float32 with rows of length 1.

    Filters run on each crop alone, and sums are in the order of the crop's own pixels: a row does
    not depend on the rest of the batch.
    """
    measured = [_measure(crop) for crop in crops]
    pixels = _Pixels.gather(measured)
    return {
        "colour": _colour(pixels),
        "layers": _layers(np.stack([each.layers for each in measured])),
        "texture": _texture(pixels),
        "shape": _shape(measured),
        "size": _bumps(np.array([[each.size] for each in measured])),
        "contrast": _contrast(np.stack([each.contrast for each in measured])),
    }


@dataclass(frozen=True, eq=False)
class _Measured:
    """The measurements of one crop.

    Attributes:
        weights: ``(n,)`` of the n pixels whose weight is not negligible.
        lab: ``(n, 3)`` their L, a and b, 0 to 255.
        gradients: ``(3, n)`` their gradient strength at each scale, before the square root.
        patterns: ``(n,)`` their local binary pattern, 0 to 9.
        layers: ``(2, 2, 3)`` rim and core; mean and spread; of L, a and b.
        contrast: ``(3,)`` mean L, a and b of the object less those of its surroundings.
        contour_xy: ``(m, 2)`` the longest outline.
        outline: solidity, elongation, circularity and extent, 0 to 1.
        size: of the object on a log scale, 1 for a million pixels.
    """

    weights: FloatArray
    lab: Bytes
    gradients: FloatArray
    patterns: Bytes
    layers: Numbers
    contrast: Numbers
    contour_xy: npt.NDArray[np.int32]
    outline: tuple[float, float, float, float]
    size: float


def _measure(crop: FadedCrop) -> _Measured:
    image = crop.crop.image_rgb if crop.plain else crop.image_rgb
    lab = np.asarray(cv2.cvtColor(image, cv2.COLOR_RGB2LAB), np.uint8)
    lightness = np.asarray(cv2.extractChannel(lab, 0), np.uint8)
    solid = np.ascontiguousarray(crop.crop.mask).view(np.uint8)
    area = int(np.count_nonzero(solid))
    weights = crop.weights.ravel()
    kept = np.flatnonzero(weights > weights.max() * NEGLIGIBLE)
    contour, outline = _outline(solid, area)
    return _Measured(
        weights=weights.take(kept),
        lab=lab.reshape(-1, 3).take(kept, axis=0),
        gradients=_gradients(lightness, kept),
        patterns=_binary_patterns(lightness).take(kept),
        layers=_layer_colours(lab, solid),
        contrast=_difference(lab, solid, area),
        contour_xy=contour,
        outline=outline,
        size=math.log(area / crop.crop.scale**2 + 1) / math.log(1e6),
    )


def _gradients(lightness: Bytes, kept: npt.NDArray[np.intp]) -> FloatArray:
    found = np.empty((3, len(kept)), np.float32)
    grey = lightness.astype(np.float32)
    for scale, strengths in enumerate(found):
        if scale:
            grey = np.asarray(cv2.GaussianBlur(grey, (0, 0), 1.5), np.float32)
        gx = cv2.Sobel(grey, cv2.CV_32F, 1, 0, scale=0.25)
        gy = cv2.Sobel(grey, cv2.CV_32F, 0, 1, scale=0.25)
        cv2.magnitude(gx, gy).take(kept, out=strengths)
    return found


def _binary_patterns(grey: Bytes) -> Bytes:
    """Rotation-invariant uniform local binary patterns of radius 1, 0 to 9 (9: not uniform)."""
    height, width = grey.shape
    smooth = cv2.GaussianBlur(grey, (3, 3), 0)
    padded = np.asarray(cv2.copyMakeBorder(smooth, 1, 1, 1, 1, cv2.BORDER_REPLICATE), np.uint8)
    # in the flattened image a neighbour is the same array at an offset
    row = width + 2
    count = height * row - 2
    flat = padded.ravel()
    limit = np.minimum(flat[row + 1 : row + 1 + count], 252) + np.uint8(3)
    bits = np.zeros((len(_AROUND), -(-height * row // 8) * 8), np.uint8)
    for bit, (dy, dx) in zip(bits.view(np.bool_), _AROUND, strict=True):
        start = (1 + dy) * row + 1 + dx
        np.greater(flat[start : start + count], limit, out=bit[:count])
    # eight pixels at a time: a bit that is shifted by less than 8 stays in its byte
    words = bits.view(np.uint64) << _BIT_PLACES
    codes = np.bitwise_or.reduce(words, axis=0).view(np.uint8)[: height * row]
    return np.asarray(_UNIFORM[codes.reshape(height, row)[:, :width]])


def _layer_colours(lab: Bytes, solid: Bytes) -> Numbers:
    left, top, width, height = cv2.boundingRect(solid)
    inside = np.s_[top : top + height, left : left + width]
    lab, solid = lab[inside], solid[inside]
    padded = cv2.copyMakeBorder(solid, 1, 1, 1, 1, cv2.BORDER_CONSTANT, value=0)
    depth = cv2.distanceTransform(padded, cv2.DIST_L2, cv2.DIST_MASK_3)[1:-1, 1:-1]
    core = (depth > float(depth.max()) / 2).view(np.uint8)
    rim = solid - core
    if not rim.any():
        rim = solid
    found = np.array([cv2.meanStdDev(lab, mask=layer) for layer in (rim, core)])
    return np.asarray(found[..., 0] / 255)


def _difference(lab: Bytes, solid: Bytes, area: int) -> Numbers:
    reach = max(2, round(RING * math.sqrt(area)))
    ring = np.asarray(cv2.dilate(solid, _disc(reach)), np.uint8) - solid
    if not ring.any():
        ring = 1 - solid if area < solid.size else solid
    object_, surroundings = cv2.mean(lab, mask=solid), cv2.mean(lab, mask=ring)
    return np.asarray((np.array(object_[:3]) - surroundings[:3]) / 255)


@lru_cache(maxsize=256)
def _disc(reach: int) -> npt.NDArray[Any]:
    side = 2 * reach + 1
    return np.asarray(cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (side, side)))


def _outline(
    solid: Bytes, area: int
) -> tuple[npt.NDArray[np.int32], tuple[float, float, float, float]]:
    contours, _ = cv2.findContours(solid, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    contour = max(contours, key=len)
    perimeter = max(cv2.arcLength(contour, True), 1.0)
    # a contour runs through pixel centres: half its length is missing from its area
    hull = cv2.contourArea(cv2.convexHull(contour)) + perimeter / 2 + 1
    _, (width, height), _ = cv2.minAreaRect(contour)
    width, height = width + 1, height + 1
    return np.asarray(contour.reshape(-1, 2), np.int32), (
        (min(1.0, area / hull) - 0.5) * 2,
        min(width, height) / max(width, height),
        min(1.0, 4 * math.pi * (area + perimeter / 2) / (perimeter + 4) ** 2),
        min(1.0, area / (width * height)),
    )


@dataclass(frozen=True, eq=False)
class _Pixels:
    """The pixels of N crops, concatenated: arrays as in :class:`_Measured`.

    Attributes:
        crop: ``(n,)`` index of each pixel's crop.
        count: N.
    """

    crop: npt.NDArray[np.intp]
    count: int
    weights: Numbers
    lab: Bytes
    gradients: FloatArray
    patterns: Bytes

    @classmethod
    def gather(cls, measured: Sequence[_Measured]) -> _Pixels:
        return cls(
            crop=np.repeat(np.arange(len(measured)), [len(each.weights) for each in measured]),
            count=len(measured),
            weights=np.concatenate([each.weights for each in measured], dtype=np.float64),
            lab=np.concatenate([each.lab for each in measured]),
            gradients=np.concatenate([each.gradients for each in measured], axis=1),
            patterns=np.concatenate([each.patterns for each in measured]),
        )

    def counts(self, index: npt.NDArray[Any], bins: int) -> Numbers:
        """``(N, bins)``: the weights of each crop's pixels by their bin."""
        places = self.crop * bins + index
        counts = np.bincount(places, self.weights, self.count * bins)
        return np.asarray(counts.reshape(self.count, bins), np.float64)


def _colour(pixels: _Pixels) -> Array:
    bins = pixels.lab >> 4
    lightness = pixels.counts(bins[:, 0], COLOUR_BINS)
    both = pixels.counts(bins[:, 1] * COLOUR_BINS + bins[:, 2], COLOUR_BINS**2)
    both = both.reshape(-1, COLOUR_BINS, COLOUR_BINS)
    # real images fill the middle half of a and b: the rest joins its first and last bin
    joint = np.add.reduceat(both, _MIDDLE, axis=1)
    joint = np.add.reduceat(joint, _MIDDLE, axis=2)
    joint = _smoothed(_smoothed(joint).swapaxes(1, 2)).swapaxes(1, 2)
    single = [_smoothed(counts) for counts in (lightness, both.sum(axis=2), both.sum(axis=1))]
    return _unit([*map(_root, single), _root(joint.reshape(pixels.count, -1))])


def _layers(colours: Numbers) -> Array:
    means, spreads = colours[:, :, 0], colours[:, :, 1]
    # a and b of real images fill the middle of their range: stretch it
    stretched = np.concatenate([means[..., :1], (means[..., 1:] - 0.5) * 2 + 0.5], axis=2)
    values = np.stack([stretched, 5 * spreads], axis=2)
    return _bumps(values.reshape(len(colours), -1))


def _texture(pixels: _Pixels) -> Array:
    histograms = []
    for gradients in pixels.gradients:
        strength = np.minimum(np.sqrt(gradients * 4) * 8, 255)
        index = (strength * np.float32(TEXTURE_BINS / 256)).astype(np.intp)
        histograms.append(_root(_smoothed(pixels.counts(index, TEXTURE_BINS))))
    histograms.append(_root(pixels.counts(pixels.patterns, 10)))
    return _unit(histograms)


def _shape(measured: Sequence[_Measured]) -> Array:
    variation = _radius_variation([each.contour_xy for each in measured])
    values = np.column_stack([[each.outline for each in measured], variation * 2])
    return _bumps(values)


def _radius_variation(contours_xy: Sequence[npt.NDArray[np.int32]]) -> Numbers:
    """Standard deviation of each outline's distance from its centre, relative to the mean."""
    lengths = np.array([len(contour) for contour in contours_xy])
    owner = np.repeat(np.arange(len(lengths)), lengths)

    def mean(values: Numbers) -> Numbers:
        return np.asarray(np.bincount(owner, values, len(lengths)) / lengths)

    x, y = np.concatenate(contours_xy).T.astype(np.float64)
    radii = np.sqrt((x - mean(x)[owner]) ** 2 + (y - mean(y)[owner]) ** 2)
    means = mean(radii)
    return np.sqrt(mean((radii - means[owner]) ** 2)) / np.maximum(means, 1e-6)


def _contrast(difference: Numbers) -> Array:
    # the square root spreads small differences, which decide between object and background
    scaled = np.sign(difference) * np.sqrt(np.abs(difference))
    return _bumps(scaled * 0.7 + 0.5, CONTRAST_BINS)


def _bumps(values: Numbers, bins: int = SCALAR_BINS) -> Array:
    """``(N, K)`` numbers in 0..1 as Gaussians over bins, so that close numbers are similar."""
    centres = (np.arange(bins) + 0.5) / bins
    values = np.clip(values, 0, 1)[:, :, None]
    bumps = _root(np.exp(-0.5 * np.square((centres - values) * bins)))
    return (bumps / math.sqrt(values.shape[1])).reshape(len(values), -1).astype(np.float32)


def _smoothed(counts: Numbers) -> Numbers:
    """Bins of the last axis smoothed with (1, 2, 1) / 4; the ends are repeated."""
    padded = np.concatenate([counts[..., :1], counts, counts[..., -1:]], axis=-1)
    return np.asarray(0.25 * (padded[..., :-2] + padded[..., 2:]) + 0.5 * padded[..., 1:-1])


def _root(counts: Numbers) -> Numbers:
    """Square root of each histogram of the last axis, normalised to sum 1; uniform if empty."""
    total = counts.sum(axis=-1, keepdims=True)
    shares = np.full(counts.shape, 1 / counts.shape[-1])
    np.divide(counts, total, out=shares, where=total > 0)
    return np.asarray(np.sqrt(shares))


def _unit(histograms: Sequence[Numbers]) -> Array:
    joined = np.concatenate(histograms, axis=1) / math.sqrt(len(histograms))
    return np.asarray(joined, np.float32)


_MIDDLE = [0, 5, 6, 7, 8, 9, 10, 11]
"""First of the 16 bins in each of 8 bins that cover their middle."""
_AROUND = ((-1, -1), (-1, 0), (-1, 1), (0, 1), (1, 1), (1, 0), (1, -1), (0, -1))
_BIT_PLACES = np.arange(8, dtype=np.uint64)[:, None]


def _uniform_table() -> npt.NDArray[np.uint8]:
    """Number of set neighbours if the code has at most two transitions, else 9."""
    table = np.full(256, 9, np.uint8)
    for code in range(256):
        bits = [(code >> bit) & 1 for bit in range(8)]
        if sum(bits[i] != bits[i - 1] for i in range(8)) <= 2:
            table[code] = sum(bits)
    return table


_UNIFORM = _uniform_table()
PART_LENGTHS = {
    "colour": 3 * COLOUR_BINS + 64,
    "layers": LAYERS * 6 * SCALAR_BINS,
    "texture": 3 * TEXTURE_BINS + 10,
    "shape": 5 * SCALAR_BINS,
    "size": SCALAR_BINS,
    "contrast": 3 * CONTRAST_BINS,
}
"""Dimensions of each part."""
