"""A pixel classifier that is trained on the examples of a label.

Extremely randomised trees (Geurts, Ernst and Wehenkel 2006) on filters of several scales tell four
kinds of pixels: the core of an object, its rim, what lies just outside of its outline, and the
background. So they learn where the examples' outlines run, and what separates objects that touch.

All that is needed of an example is its crop. What lies farther away than a crop shows is seen in
the picture that is worked on: its pixels that are surely no object are background, too, and the
trees are trained once more with them.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.types import Crop, ImageRGB
from sam_detect.types.masks import BoolArray, FloatArray

SIDES = (20.0, 48.0)
"""Root of the typical example's area in pixels as the forest sees it: least, and most. Nuclei were
found as well at 20 as at 28, neurites at 48 as at 32, and outlines of larger objects are finer."""
LARGEST_SCALE = 3.0
MOST_PIXELS = 2_000_000
"""A picture is not enlarged beyond this, and reduced to it."""
RIM = 0.12
"""Width of the rim inside of an outline, and of what counts as just outside of it, as a share of
the typical example's side."""
SCALES = (0.05, 0.1, 0.2, 0.4)
"""Of the filters, likewise."""
TEXTURES = (0.2, 0.5)
COLOURS = (0.05, 0.2, 0.5)
GREY = 6
"""Of colours that differ by fewer levels of 255, a picture is grey."""
CORE, EDGE, OUTSIDE, BACKGROUND = range(4)
PIXELS_OF_EACH = 60
"""Pixels of each example and kind. Of 400 the trees knew these examples better, and others worse.
"""
BACKGROUND_PIXELS = 2000
"""Taken of a picture where it is surely background..."""
SURELY = 0.4
"""... since less of the trees say that it is an object."""
EXPOSURES = (1.0, 0.6, 1.5)
"""Examples are learnt as they are, darker and brighter: few examples do not show how brightness
varies. Recall of nuclei .76 to .82."""
TREES, TREES_OF_FOLD, DEPTH, LEAST_LEAF, FEATURES_TRIED = 40, 20, 14, 2, 0.35
THREADS, AT_ONCE = 2, 50_000
"""Pixels that one of the threads works on."""

FOLDS = 3
"""An example is seen by trees that were trained on the other two of three groups of examples."""
SLOPE_SCALE = 0.05
"""Of the gradient of :class:`SeenPicture`, as a share of the typical example's side."""

SMOOTHING = 0.7
"""Of outlines that are enlarged or reduced, in pixels of the smaller scale."""

Features = npt.NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class SeenPicture:
    """A picture as a forest sees it: at its scale, where the typical object has a given side.

    Attributes:
        size_hw: of the picture itself.
        kinds: ``(h, w, 4)`` in 0..1: how likely each pixel is the core of an object, its rim, just
            outside of one, and background.
        light: ``(h, w)`` grey levels, 0..1.
        slope: ``(h, w)`` length of their gradient, per typical side.
    """

    size_hw: tuple[int, int]
    kinds: FloatArray
    light: FloatArray
    slope: FloatArray

    @classmethod
    def of(
        cls, size_hw: tuple[int, int], seen_rgb: ImageRGB, kinds: FloatArray, side: float
    ) -> SeenPicture:
        light = np.asarray(cv2.cvtColor(seen_rgb, cv2.COLOR_RGB2GRAY) / np.float32(255))
        smooth = _smooth(light, max(0.7, SLOPE_SCALE * side))
        slope = np.hypot(_slope(smooth, 0), _slope(smooth, 1)) * np.float32(side)
        return cls(size_hw, kinds, light, slope)

    @property
    def foreground(self) -> FloatArray:
        """``(h, w)`` in 0..1, how likely each pixel is an object's."""
        return np.asarray(self.kinds[..., CORE] + self.kinds[..., EDGE])

    @property
    def cores(self) -> FloatArray:
        """``(h, w)`` in 0..1, high in the cores of objects, lower in their rims."""
        return np.asarray(self.kinds[..., CORE] + self.kinds[..., EDGE] / 2)


@dataclass(frozen=True, eq=False)
class Sampled:
    """Pixels of an example, or of the background of a picture.

    Attributes:
        features: ``(E, n, F)`` for each exposure.
        kinds: ``(n,)`` of the pixels.
    """

    features: Features
    kinds: npt.NDArray[np.int64]


class PixelForest:
    """Tells the pixels of objects like some examples.

    Args:
        crops: of the examples, at least one.

    Attributes:
        crops: of the examples.
        side: root of the typical example's area, in pixels as the forest sees it.
        log_areas: of the examples, in pixels as the forest sees them.
        ellipse_fills: :func:`ellipse_fill` of each.
    """

    def __init__(self, crops: Sequence[Crop]) -> None:
        typical = math.sqrt(float(np.median([crop.area for crop in crops])))
        self.side = min(max(typical, SIDES[0]), SIDES[1])
        self._scale = min(self.side / typical, LARGEST_SCALE)
        self._grey = all(_is_grey(crop.image_rgb) for crop in crops)
        self._generator = np.random.default_rng(0)
        self.crops = list(crops)
        distances = [
            _signed_distance(resized_mask(crop.mask, self._scale / crop.scale)) for crop in crops
        ]
        self._masks = [distance > 0 for distance in distances]
        self.log_areas = np.log(np.array([max(1, np.count_nonzero(m)) for m in self._masks]))
        self.ellipse_fills = np.array([ellipse_fill(mask) for mask in self._masks])
        examples = list(zip(crops, distances, strict=True))
        # What looks like an object around an example may be another object.
        first = self._trained([self._sample(*example, None) for example in examples])
        self._samples = [self._sample(*example, first) for example in examples]
        self._first = self._trained(self._samples)
        self._without: dict[int, object] = {}

    def scale_for(self, size_hw: tuple[int, int]) -> float:
        """Side of a picture's pixel as the forest sees it."""
        return min(self._scale, math.sqrt(MOST_PIXELS / (size_hw[0] * size_hw[1])))

    def has_pixels(self, index: int) -> bool:
        """Whether an example is large enough to be seen."""
        return bool(self._masks[index].any())

    def see(self, image_rgb: ImageRGB) -> SeenPicture:
        """A picture as the forest sees it."""
        size_hw = image_rgb.shape[0], image_rgb.shape[1]
        seen = resized(image_rgb, self.scale_for(size_hw))
        features = _features(seen, self.side, grey=self._grey)
        pixels = features.reshape(-1, features.shape[2])
        some = np.random.default_rng(0).permutation(len(pixels))[: 2 * BACKGROUND_PIXELS]
        object_share = _predicted(self._first, pixels[some])[:, : EDGE + 1].sum(axis=1)
        background = pixels[some[object_share < SURELY][:BACKGROUND_PIXELS]]
        trees = self._first
        if len(background):
            kinds = np.full(len(background), BACKGROUND, np.int64)
            own = Sampled(np.repeat(background[None], len(EXPOSURES), axis=0), kinds)
            trees = self._trained([*self._samples, own])
        return SeenPicture.of(size_hw, seen, _predicted(trees, features), self.side)

    def train_folds(self) -> None:
        """Trains what :meth:`see_example` needs of examples that are not known; after that several
        threads may call it."""
        for fold in range(FOLDS):
            others = [each for number, each in enumerate(self._samples) if number % FOLDS != fold]
            if others and fold not in self._without:
                self._without[fold] = self._trained(others, TREES_OF_FOLD)

    def see_example(self, index: int, *, known: bool) -> tuple[SeenPicture, BoolArray]:
        """The crop of an example as the forest sees it; and the example's mask in it.

        Args:
            known: whether the trees learnt this very example, as they know those of a picture that
                examples are from; otherwise others see it, where there are other examples.
        """
        self.train_folds()
        crop = self.crops[index]
        seen = resized(crop.image_rgb, self._scale / crop.scale)
        trees = self._first if known else self._without.get(index % FOLDS, self._first)
        kinds = _predicted(trees, _features(seen, self.side, grey=self._grey))
        return SeenPicture.of(crop.mask.shape, seen, kinds, self.side), self._masks[index]

    def _sample(self, crop: Crop, distance: FloatArray, first: object | None) -> Sampled:
        """Pixels of each kind; with ``first`` trees, none around it that they take for an object.

        Args:
            distance: :func:`_signed_distance` of the example.
        """
        kinds = np.full(distance.shape, BACKGROUND, np.int64)
        kinds[distance > -RIM * self.side] = OUTSIDE
        kinds[distance > 0] = EDGE
        kinds[distance > RIM * self.side] = CORE
        seen = resized(crop.image_rgb, self._scale / crop.scale)
        exposed = [
            _features(
                np.clip(seen * np.float32(by), 0, 255).astype(np.uint8), self.side, grey=self._grey
            )
            for by in EXPOSURES
        ]
        by_pixel = np.stack([each.reshape(-1, each.shape[2]) for each in exposed])
        flat = kinds.ravel()
        if first is not None:
            object_share = _predicted(first, by_pixel[0])[:, : EDGE + 1].sum(axis=1)
            flat = np.where((flat == BACKGROUND) & (object_share > 0.5), -1, flat)
        chosen = []
        for kind in range(BACKGROUND + 1):
            of_kind = np.flatnonzero(flat == kind)
            most = PIXELS_OF_EACH * (2 if kind == BACKGROUND else 1)
            chosen.append(self._generator.permutation(of_kind)[:most])
        taken = np.concatenate(chosen)
        return Sampled(by_pixel[:, taken], flat[taken])

    def _trained(self, samples: Sequence[Sampled], count: int = TREES) -> object:
        from sklearn.ensemble import ExtraTreesClassifier

        kinds = np.concatenate([each.kinds for each in samples])
        features = np.concatenate([each.features for each in samples], axis=1)
        # Each kind counts as much as any other; other exposures count half.
        weights = 1 / np.bincount(kinds, minlength=BACKGROUND + 1)[kinds]
        trees = ExtraTreesClassifier(
            count, max_depth=DEPTH, min_samples_leaf=LEAST_LEAF, max_features=FEATURES_TRIED,
            bootstrap=True, random_state=0,
        )  # fmt: skip
        exposures = [weights, *[weights / 2] * (len(EXPOSURES) - 1)]
        trees.fit(
            features.reshape(-1, features.shape[2]),
            np.tile(kinds, len(EXPOSURES)),
            sample_weight=np.concatenate(exposures),
        )
        return trees


def ellipse_fill(mask: BoolArray) -> float:
    """How far a mask fills the ellipse with its second moments: 1 for an ellipse, less for what is
    concave; 0 for fewer than four pixels."""
    y, x = np.nonzero(mask)
    if len(x) < 4:
        return 0.0
    moments = np.cov(np.stack([x, y])) + np.eye(2) / 12  # a pixel is a square
    return float(len(x) / (4 * math.pi * math.sqrt(np.linalg.det(moments))))


def resized(image_rgb: ImageRGB, scale: float) -> ImageRGB:
    """A picture with sides ``scale`` times as long."""
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_CUBIC
    return np.asarray(cv2.resize(image_rgb, _size_wh(image_rgb, scale), interpolation=how))


def resized_mask(mask: BoolArray, scale: float) -> BoolArray:
    """A mask with sides ``scale`` times as long."""
    how = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    share = cv2.resize(mask.astype(np.float32), _size_wh(mask, scale), interpolation=how)
    return np.asarray(share > 0.5)


def resampled(
    crop: BoolArray, corner_xy: Sequence[int], *, seen_hw: Sequence[int], size_hw: Sequence[int]
) -> tuple[tuple[int, int], BoolArray] | None:
    """A region of one picture in another one that shows the same at another size: the corner of its
    box and its crop; None where it has no pixel there.

    Args:
        crop: the region in its box.
        corner_xy: of the box.
        seen_hw, size_hw: of the picture that it is in, and of the other.
    """
    by_y, by_x = size_hw[0] / seen_hw[0], size_hw[1] / seen_hw[1]
    if (by_y, by_x) == (1, 1):
        return (corner_xy[0], corner_xy[1]), crop
    left, top = corner_xy
    x0, y0 = max(0, math.floor(left * by_x) - 1), max(0, math.floor(top * by_y) - 1)
    x1 = min(size_hw[1], math.ceil((left + crop.shape[1]) * by_x) + 1)
    y1 = min(size_hw[0], math.ceil((top + crop.shape[0]) * by_y) + 1)
    pad = math.ceil(2 / min(by_x, by_y, 1))
    soft = np.pad(crop.astype(np.float32), pad)
    soft = cv2.GaussianBlur(soft, (0, 0), SMOOTHING / min(by_x, by_y, 1))
    # From the middle of a pixel of the result to that of the crop.
    to_crop = np.array([
        [1 / by_x, 0, (x0 + 0.5) / by_x - 0.5 - left + pad],
        [0, 1 / by_y, (y0 + 0.5) / by_y - 0.5 - top + pad],
    ])  # fmt: skip
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    drawn = cv2.warpAffine(soft, to_crop, (x1 - x0, y1 - y0), flags=flags) > 0.5
    rows, columns = np.flatnonzero(drawn.any(axis=1)), np.flatnonzero(drawn.any(axis=0))
    if not len(rows):
        return None
    tight = drawn[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1]
    return (x0 + int(columns[0]), y0 + int(rows[0])), np.ascontiguousarray(tight)


def _size_wh(array: npt.NDArray[np.generic], scale: float) -> tuple[int, int]:
    return max(1, round(array.shape[1] * scale)), max(1, round(array.shape[0] * scale))


def _is_grey(image_rgb: ImageRGB) -> bool:
    return int(np.ptp(image_rgb, axis=2).max()) < GREY


def _signed_distance(mask: BoolArray) -> FloatArray:
    """Distance of each pixel from the outline; below 0 outside of it."""
    inside, outside = mask.view(np.uint8), (~mask).view(np.uint8)
    return np.asarray(
        cv2.distanceTransform(inside, cv2.DIST_L2, 5)
        - cv2.distanceTransform(outside, cv2.DIST_L2, 5)
    )


def _features(image_rgb: ImageRGB, side: float, *, grey: bool) -> Features:
    """``(h, w, F)`` of each pixel: lightness, its gradients and second derivatives at several
    scales, its deviation from the neighbourhood, and colours.

    Args:
        side: of which the filters' scales are shares.
    """
    if grey:
        light, colours = image_rgb.mean(axis=2, dtype=np.float32) / np.float32(255), []
    else:
        lab = cv2.cvtColor(image_rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB) / 100
        light, *colours = (np.ascontiguousarray(lab[..., i]) for i in range(3))
    mean, deviation = _smooth(light, side), _deviation(light, side)
    found = [light, (_smooth(light, 0.1 * side) - mean) / (deviation + 0.01)]
    for scale in SCALES:
        sigma = scale * side
        smooth = _smooth(light, sigma)
        x, y = (_slope(smooth, axis) * sigma for axis in (0, 1))
        xx, yy, xy = _slope(x, 0) * sigma, _slope(y, 1) * sigma, _slope(x, 1) * sigma
        middle, apart = (xx + yy) / 2, np.hypot((xx - yy) / 2, xy)
        found += [smooth, np.hypot(x, y), middle + apart, middle - apart]
    found += [_deviation(light, scale * side) for scale in TEXTURES]
    found += [_smooth(each, scale * side) for each in colours for scale in COLOURS]
    return np.stack(found, axis=-1, dtype=np.float32)


def _smooth(values: FloatArray, sigma: float) -> FloatArray:
    return np.asarray(cv2.GaussianBlur(values, (0, 0), sigma, borderType=cv2.BORDER_REFLECT))


def _deviation(values: FloatArray, sigma: float) -> FloatArray:
    """Standard deviation about each pixel."""
    variance = _smooth(values * values, sigma) - _smooth(values, sigma) ** 2
    return np.asarray(np.sqrt(np.maximum(variance, 1e-6)))


def _slope(values: FloatArray, axis: int) -> FloatArray:
    """Derivative along x (0) or y (1)."""
    return np.asarray(cv2.Sobel(values, cv2.CV_32F, 1 - axis, axis, scale=1 / 8))


def _predicted(trees: Any, features: Features) -> FloatArray:
    """``(..., 4)`` share of the trees for each kind, of ``(..., F)`` features."""
    pixels = features.reshape(-1, features.shape[-1])
    found = np.zeros((len(pixels), BACKGROUND + 1), np.float32)

    def predict(part: slice) -> None:
        total = sum(tree.tree_.predict(pixels[part]) for tree in trees.estimators_)
        found[part, trees.classes_] = total / len(trees.estimators_)

    # Not by predict_proba: its threads add up the trees in any order, and it is not to be called
    # from several threads, since it changes the filters of warnings.
    parts = [slice(at, at + AT_ONCE) for at in range(0, len(pixels), AT_ONCE)]
    with ThreadPoolExecutor(THREADS) as pool:
        list(pool.map(predict, parts))
    return found.reshape(*features.shape[:-1], BACKGROUND + 1)
