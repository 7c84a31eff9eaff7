"""How much each pixel of a picture is like the examples of a library.

For each label a ridge regression (Hoerl and Kennard 1970) on the feature maps of EfficientNet-Lite0
tells the objects of the examples from what surrounds them: all that a library keeps are their
crops, so what lies further away is not known. A library's pictures are seen at the scale at which
its typical example is :data:`SIDE` pixels wide.

The maps serve to choose where to ask (``prompts="similarity"`` of the segmenter ``sam2``) and what
to propose (``similar_regions`` of ``naive``). Whether they can be trusted, the examples tell
themselves: each is sought by the map of the others (:meth:`DenseSimilarity.separable`).
"""

from __future__ import annotations

import functools
import math
import warnings
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.models.efficientnet_lite0 import (
    Network,
    missing_packages,
    normalised,
    shared_network,
)
from sam_detect.types import Crop, ImageRGB, SimilarityMap
from sam_detect.types.masks import BoolArray, FloatArray

SIDE = 80.0
"""Root of the typical example's area, in pixels of the picture as the network sees it. Of 48 and 80
the second found more glands."""
MOST_PIXELS = 2_000_000
"""A picture is not enlarged beyond this, and reduced to it."""
RING = 0.35
"""Width of what counts as surroundings, as a share of the root of the object's area: what is
further away may well be another object."""
RIM = 1.0
"""Pixels on either side of an outline that count as neither."""
MOST_CELLS = 600
"""Pixels taken of each object, and of each one's surroundings."""
SHRINKAGE = 0.3
"""Of the regression, for features of variance 1. Of .03 and .3 the second found more glands and
neurites."""
MOST_LEFT_OUT = 5
"""So many examples of each label are left out to see whether the others tell where they are."""
MOST_ENLARGED = 2**0.5
"""Where the typical example of a label must be enlarged by more to be seen, the map is too coarse
to tell it from what touches it: nuclei lost .13 in F1."""
ENOUGH_EXAMPLES = 5
"""With fewer examples of a label nothing is known of how well they tell it."""
LEAST_CONTRAST = 0.4
"""A label's examples are separable if each is so much more like the others than what surrounds it
is, in the mean. Glands have .30 to .73, neurites .19 to .32, noise on noise 0."""
MOST_LIMITS = (0.5, 0.2)
"""What an object's mean must reach, and by how much it must exceed that of its surroundings; less
if the examples themselves, each left out, did not."""
STRIDES = (4, 8, 16)
BORDER = 32
"""Pixels by which a picture is reflected on all sides. The network sees where a picture ends: of
crops without it, the map told their middles from their rims, also where they held nothing."""
LEAST_VARIANCE = 1e-12

Numbers = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class LinearMap:
    """A linear function of the features, and its meaning as a probability.

    Attributes:
        weights: ``(F,)`` float32, of the features of all strides one after the other.
        offset: log-odds where all features are 0.
    """

    weights: FloatArray
    offset: float

    @classmethod
    def fit(cls, features: Numbers, inside: BoolArray, weights: Numbers) -> LinearMap:
        """Of ``(N, F)`` features, of which some are of objects; with the weight of each."""
        weights = np.where(inside, weights / weights[inside].sum(), 0) + np.where(
            inside, 0, weights / weights[~inside].sum()
        )
        weights /= 2
        mean = weights @ features
        spread = np.sqrt(weights @ np.square(features - mean) + LEAST_VARIANCE)
        centred = (features - mean) / spread
        target = np.where(inside, 1.0, -1.0)
        products = centred.T @ (centred * weights[:, None])
        products[np.diag_indices_from(products)] += SHRINKAGE
        slopes = np.linalg.solve(products, centred.T @ (weights * target))
        values = centred @ slopes
        ends = [2 * float(weights[side] @ values[side]) for side in (inside, ~inside)]
        # Two normal distributions of one variance have linear log-odds.
        variance = float(weights @ np.square(values - np.where(inside, *ends)))
        gain = (ends[0] - ends[1]) / (variance + LEAST_VARIANCE)
        own = slopes / spread * gain
        offset = -float(mean @ own) - gain * sum(ends) / 2
        return cls(own.astype(np.float32), offset)

    def of(self, features: FloatArray) -> FloatArray:
        """``(N,)`` in 0..1 of ``(N, F)`` features."""
        return _probability(features @ self.weights + self.offset)

    def __call__(self, maps: Sequence[FloatArray], size_wh: tuple[int, int]) -> FloatArray:
        """``(h, w)`` in 0..1 of the ``(C, h, w)`` maps of all strides."""
        odds, first = np.full(size_wh[::-1], self.offset, np.float32), 0
        for each in maps:
            part = np.tensordot(self.weights[first : first + len(each)], each, 1)
            odds += cv2.resize(part, size_wh, interpolation=cv2.INTER_LINEAR)
            first += len(each)
        return _probability(odds)


@dataclass(frozen=True, eq=False)
class Sample:
    """Pixels of one example and of what surrounds it.

    Attributes:
        features: ``(N, F)`` float32, of the features of all strides one after the other.
        inside: ``(N,)`` whether a pixel is the object's; some are, and some are not.
    """

    features: FloatArray
    inside: BoolArray


def similarity_to(
    crops: Mapping[str, Sequence[Crop]], *, asked_for: bool = True
) -> DenseSimilarity | None:
    """The similarity to examples; None where the network is not installed.

    Args:
        crops: as of :class:`DenseSimilarity`.
        asked_for: by the user, who is told where it is not.
    """
    missing = missing_packages()
    if missing and asked_for:
        warnings.warn(
            f"prompts 'similarity' needs {' and '.join(missing)} (pip install "
            f"{' '.join(missing)}): all points of the grid are asked instead",
            stacklevel=2,
        )
    if missing:
        return None
    return DenseSimilarity(shared_network(), crops)


class DenseSimilarity:
    """The similarity of pictures to examples, pixel by pixel.

    Args:
        network: describes pictures and crops.
        crops: of the examples, by label; at least one.
    """

    def __init__(self, network: Network, crops: Mapping[str, Sequence[Crop]]) -> None:
        self._network, self._crops = network, crops
        self._scales = {
            label: SIDE / math.sqrt(float(np.median([crop.area for crop in each])))
            for label, each in crops.items()
        }
        self._fitted: dict[tuple[str, float], LinearMap | None] = {}

    def __call__(self, image_rgb: ImageRGB) -> Iterator[FloatArray]:
        """As :class:`~sam_detect.types.Similarity` says: each as large as its examples are seen."""
        for _, values in self._maps_of(image_rgb, list(self._crops)):
            yield values

    def separable(self, image_rgb: ImageRGB) -> list[SimilarityMap]:
        """As :class:`~sam_detect.types.Similarity` says."""
        found = dict(self._maps_of(image_rgb, list(self.limits)))
        return [
            SimilarityMap(found.get(label), _area_range(crops), *self.limits.get(label, (0, 0)))
            for label, crops in self._crops.items()
        ]

    @functools.cached_property
    def limits(self) -> dict[str, tuple[float, float]]:
        """Of each label whose examples can be told from what surrounds them by the others of the
        label: what an object's mean must reach, and how much more that must be than around it."""
        found = {}
        for label, crops in self._crops.items():
            if len(crops) < ENOUGH_EXAMPLES or self._scales[label] > MOST_ENLARGED:
                continue
            seen = np.array(self._seen_by_others(label))
            if len(seen) and seen[:, 1].mean() >= LEAST_CONTRAST:
                least, least_step = np.minimum(MOST_LIMITS, seen.min(axis=0)).tolist()
                found[label] = (least, least_step)
        return found

    def _seen_by_others(self, label: str) -> list[tuple[float, float]]:
        """Of examples, by the map of the label's other ones: the mean inside, and by how much it
        exceeds that of what surrounds them."""
        scale = _octave(self._scales[label])
        samples = [self._sample(crop, scale) for crop in self._crops[label]]
        self._fitted[label, scale] = _fitted(samples)
        seen = []
        for left_out, sample in enumerate(samples[:MOST_LEFT_OUT]):
            fitted = _fitted(samples[:left_out] + samples[left_out + 1 :])
            if fitted is not None and sample is not None:
                similar = fitted.of(sample.features)
                within = float(similar[sample.inside].mean())
                seen.append((within, within - float(similar[~sample.inside].mean())))
        return seen

    def _maps_of(
        self, image_rgb: ImageRGB, labels: Sequence[str]
    ) -> Iterator[tuple[str, FloatArray]]:
        """The maps of labels whose examples show what surrounds them."""
        height, width = image_rgb.shape[:2]
        largest = math.sqrt(MOST_PIXELS / (height * width))
        described: dict[float, tuple[list[FloatArray], tuple[int, int]]] = {}
        for label in labels:
            # Whole octaves: labels of about one size share a pass of the network.
            scale = _octave(min(self._scales[label], largest))
            if (label, scale) not in self._fitted:
                samples = [self._sample(crop, scale) for crop in self._crops[label]]
                self._fitted[label, scale] = _fitted(samples)
            fitted = self._fitted[label, scale]
            if fitted is None:
                continue
            if scale not in described:
                described[scale] = self._maps(image_rgb, scale)
            maps, size_wh = described[scale]
            part = fitted(maps, size_wh)
            reduced = _size_of(image_rgb, scale)
            yield label, part[: reduced[1], : reduced[0]]

    def _sample(self, crop: Crop, scale: float) -> Sample | None:
        """Features inside and around the object of a crop; None where it does not show both."""
        own = scale / crop.scale
        width, height = _size_of(crop.image_rgb, own)
        mask = cv2.resize(
            crop.mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA
        )
        sides = _sides(mask >= 0.5)
        if len(sides) < 2:
            return None
        maps, size_wh = self._maps(crop.image_rgb, own)
        # Between the cells of a coarse map features are interpolated, as in a picture.
        features = [
            np.concatenate([_at(each, rows, columns, size_wh) for each in maps], axis=1)
            for _, rows, columns in sides
        ]
        counts = [len(rows) for _, rows, _ in sides]
        return Sample(np.concatenate(features), np.repeat([side for side, *_ in sides], counts))

    def _maps(self, image_rgb: ImageRGB, scale: float) -> tuple[list[FloatArray], tuple[int, int]]:
        """The feature maps of a picture at a scale, and the size (x, y) that they describe: that
        of the picture, up to whole cells."""
        width, height = _size_of(image_rgb, scale)
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        resized = cv2.resize(image_rgb, (width, height), interpolation=interpolation)
        coarsest = STRIDES[-1]
        right, below = -width % coarsest, -height % coarsest
        padded = cv2.copyMakeBorder(
            resized, BORDER, BORDER + below, BORDER, BORDER + right, cv2.BORDER_REFLECT_101
        )
        maps = self._network(normalised(np.asarray(padded, np.uint8))[None])
        size_wh = width + right, height + below
        return [_without_border(maps[stride][0], stride, size_wh) for stride in STRIDES], size_wh


def _without_border(features: FloatArray, stride: int, size_wh: tuple[int, int]) -> FloatArray:
    first, (columns, rows) = BORDER // stride, (length // stride for length in size_wh)
    return features[:, first : first + rows, first : first + columns]


def _octave(scale: float) -> float:
    return float(2.0 ** round(math.log2(scale)))


def _area_range(crops: Sequence[Crop]) -> tuple[int, int]:
    areas = [round(crop.area) for crop in crops]
    return min(areas), max(areas)


def _fitted(samples: Sequence[Sample | None]) -> LinearMap | None:
    """Of all samples, each of the same weight; None where there are none."""
    shown = [sample for sample in samples if sample is not None]
    if not shown:
        return None
    weights = []
    for sample in shown:
        within = np.count_nonzero(sample.inside)
        weights.append(np.where(sample.inside, 1 / within, 1 / (len(sample.inside) - within)))
    return LinearMap.fit(
        np.concatenate([sample.features for sample in shown]).astype(np.float64),
        np.concatenate([sample.inside for sample in shown]),
        np.concatenate(weights),
    )


def _probability(odds: FloatArray) -> FloatArray:
    return np.asarray(1 / (1 + np.exp(-np.clip(odds, -30, 30))), np.float32)


def _size_of(image_rgb: ImageRGB, scale: float) -> tuple[int, int]:
    """Width and height of a picture at a scale."""
    height, width = image_rgb.shape[:2]
    return max(1, round(width * scale)), max(1, round(height * scale))


def _sides(mask: BoolArray) -> list[tuple[bool, npt.NDArray[np.int64], npt.NDArray[np.int64]]]:
    """Rows and columns of an object's pixels, and of those around it: evenly chosen. Empty sides
    are left out."""
    if not mask.any() or mask.all():
        return []
    width = RING * math.sqrt(np.count_nonzero(mask))
    within = cv2.distanceTransform(mask.astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5) > RIM
    away = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    found = []
    for side, pixels in ((True, within), (False, (away > RIM) & (away <= RIM + width))):
        rows, columns = np.nonzero(pixels)
        step = max(1, math.ceil(len(rows) / MOST_CELLS))
        if len(rows):
            found.append((side, rows[::step], columns[::step]))
    return found


def _at(
    features: FloatArray,
    rows: npt.NDArray[np.int64],
    columns: npt.NDArray[np.int64],
    size_wh: tuple[int, int],
) -> FloatArray:
    """``(N, C)`` features at N pixels of a picture, interpolated like :meth:`LinearMap.__call__`
    does."""
    across, down = features.shape[2] / size_wh[0], features.shape[1] / size_wh[1]
    y, x = (rows + 0.5) * down - 0.5, (columns + 0.5) * across - 0.5
    y, x = np.clip(y, 0, features.shape[1] - 1), np.clip(x, 0, features.shape[2] - 1)
    y0, x0 = np.floor(y).astype(np.int64), np.floor(x).astype(np.int64)
    y1, x1 = np.minimum(y0 + 1, features.shape[1] - 1), np.minimum(x0 + 1, features.shape[2] - 1)
    v, u = y - y0, x - x0
    upper = features[:, y0, x0] * (1 - u) + features[:, y0, x1] * u
    lower = features[:, y1, x0] * (1 - u) + features[:, y1, x1] * u
    return np.asarray((upper * (1 - v) + lower * v).T, np.float32)
