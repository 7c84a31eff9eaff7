"""How much each pixel of a picture is like the examples of a library.

For each label a ridge regression (Hoerl and Kennard 1970) on the feature maps of EfficientNet-Lite0
tells the objects of the examples from what surrounds them: all that a library keeps are their
crops, so what lies further away is not known. A library's pictures are seen at the scale at which
its typical example is :data:`SIDE` pixels wide.

The maps serve to choose where to ask (``prompts="similarity"`` of the segmenter ``sam2``). As
proposals of their own, their level sets raised the recall of glands (.75 -> .85 at IoU .5) but
lowered F1 on neurites (.570 -> .510), so they are none.
"""

from __future__ import annotations

import math
import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.masks import BoolArray, FloatArray
from sam_detect.models.efficientnet_lite0 import (
    Network,
    missing_packages,
    normalised,
    shared_network,
)
from sam_detect.types import Crop, ImageRGB

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
STRIDES = (4, 8, 16)
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

    def __call__(self, maps: Sequence[FloatArray], size_wh: tuple[int, int]) -> FloatArray:
        """``(h, w)`` in 0..1 of the ``(C, h, w)`` maps of all strides."""
        odds, first = np.full(size_wh[::-1], self.offset, np.float32), 0
        for each in maps:
            part = np.tensordot(self.weights[first : first + len(each)], each, 1)
            odds += cv2.resize(part, size_wh, interpolation=cv2.INTER_LINEAR)
            first += len(each)
        return np.asarray(1 / (1 + np.exp(-np.clip(odds, -30, 30))), np.float32)


def similarity_to(crops: Mapping[str, Sequence[Crop]]) -> DenseSimilarity | None:
    """The similarity to examples; None, with a warning, where the network is not installed.

    Args:
        crops: as of :class:`DenseSimilarity`.
    """
    missing = missing_packages()
    if missing:
        warnings.warn(
            f"prompts 'similarity' needs {' and '.join(missing)} (pip install "
            f"{' '.join(missing)}): all points of the grid are asked instead",
            stacklevel=2,
        )
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

    def __call__(self, image_rgb: ImageRGB) -> FloatArray:
        """``(H, W)`` float32 in 0..1 of a picture ``(H, W, 3)`` uint8: the highest of all labels.
        0 for a label whose examples show nothing around them."""
        height, width = image_rgb.shape[:2]
        largest = math.sqrt(MOST_PIXELS / (height * width))
        described: dict[float, tuple[list[FloatArray], tuple[int, int]]] = {}
        found = np.zeros((height, width), np.float32)
        for label, wanted in self._scales.items():
            # Whole octaves: labels of about one size share a pass of the network.
            scale = 2.0 ** round(math.log2(min(wanted, largest)))
            if (label, scale) not in self._fitted:
                self._fitted[label, scale] = self._fit(label, scale)
            fitted = self._fitted[label, scale]
            if fitted is None:
                continue
            if scale not in described:
                described[scale] = self._maps(image_rgb, scale)
            maps, size_wh = described[scale]
            part = fitted(maps, size_wh)
            reduced = _size_of(image_rgb, scale)
            part = cv2.resize(
                part[: reduced[1], : reduced[0]], (width, height), interpolation=cv2.INTER_LINEAR
            )
            np.maximum(found, part, out=found)
        return found

    def _fit(self, label: str, scale: float) -> LinearMap | None:
        """None where no example shows both an object and what surrounds it."""
        features, inside, weights = [], [], []
        for crop in self._crops[label]:
            own = scale / crop.scale
            maps, size_wh = self._maps(crop.image_rgb, own)
            width, height = _size_of(crop.image_rgb, own)
            mask = cv2.resize(
                crop.mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA
            )
            for side, rows, columns in _sides(mask >= 0.5):
                # Between the cells of a coarse map features are interpolated, as in a picture.
                cells = [_at(each, rows, columns, size_wh) for each in maps]
                features.append(np.concatenate(cells, axis=1))
                inside.append(np.full(len(rows), side))
                weights.append(np.full(len(rows), 1 / max(1, len(rows))))
        if not features:
            return None
        both = np.concatenate(inside)
        if both.all() or not both.any():
            return None
        return LinearMap.fit(
            np.concatenate(features).astype(np.float64), both, np.concatenate(weights)
        )

    def _maps(self, image_rgb: ImageRGB, scale: float) -> tuple[list[FloatArray], tuple[int, int]]:
        """The feature maps of a picture at a scale, and the size (x, y) that they describe: that
        of the picture, reflected up to whole cells."""
        width, height = _size_of(image_rgb, scale)
        interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
        resized = cv2.resize(image_rgb, (width, height), interpolation=interpolation)
        coarsest = STRIDES[-1]
        right, below = -width % coarsest, -height % coarsest
        padded = cv2.copyMakeBorder(resized, 0, below, 0, right, cv2.BORDER_REFLECT_101)
        maps = self._network(normalised(np.asarray(padded, np.uint8))[None])
        return [maps[stride][0] for stride in STRIDES], (width + right, height + below)


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
