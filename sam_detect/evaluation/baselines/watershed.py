"""Baseline ``watershed``: one threshold for the picture, touching objects split, areas filtered.

The recipe of every introduction to counting cells: Otsu's threshold (Otsu 1979) of the channel in
which the examples stand out most, holes filled, a watershed of the distance transform, and only
regions whose area is like the examples'.
"""

from __future__ import annotations

import math
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.measure import label, regionprops
from skimage.segmentation import watershed

from sam_detect.evaluation.methods import Found, Shown
from sam_detect.masks import BoolArray, FloatArray, tight_box_xyxy
from sam_detect.types import Frame, ImageRGB, Masks

WORKING_PIXELS = 1_000_000
"""Larger pictures are worked on at a reduced scale; the masks come in full resolution."""
AREA_MARGIN = 2.0
"""Areas from the smallest example's divided by this, to the largest's times this, are kept."""
SURROUNDINGS = 0.5
"""Width of the ring that an example must stand out from, in radii of its circle of equal area."""

LabelImage = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Channel:
    """A grey picture made of a coloured one, and whether the objects are the brighter part."""

    name: str
    bright: bool


class OtsuWatershed:
    """Otsu's threshold and a watershed, set by the examples. Deterministic."""

    name = "watershed"

    def __init__(self) -> None:
        self._labels: list[str] = []
        self._areas = np.zeros(0)
        self._colours = np.zeros((0, 3))
        self._channel = Channel("grey", bright=True)
        self._radius = 1.0

    def learn(self, support: Sequence[Shown]) -> None:
        self._labels = [name for shown in support for name in shown.labels]
        if not self._labels:
            return
        self._areas = np.concatenate([shown.masks.areas for shown in support]).astype(float)
        self._colours = np.concatenate([mean_lab(s.frame.image_rgb, s.masks) for s in support])
        self._channel = best_channel(support)
        crops = [crop for shown in support for crop in shown.masks.crops()]
        self._radius = float(np.median([inner_radius(crop) for crop in crops]))

    def find(self, frame: Frame) -> Found:
        if not self._labels:
            return Found.nothing(frame.size_hw)
        started = time.perf_counter()
        proposals = self._regions(frame)
        proposed = time.perf_counter()
        low, high = self._areas.min() / AREA_MARGIN, self._areas.max() * AREA_MARGIN
        masks = proposals[(proposals.areas >= low) & (proposals.areas <= high)]
        nearest, distances = self._nearest(frame, masks)
        seconds = {"propose": proposed - started, "label": time.perf_counter() - proposed}
        return Found(
            masks=masks,
            labels=tuple(self._labels[i] for i in nearest),
            scores=(1 / (1 + distances)).astype(np.float32),
            proposals=proposals,
            seconds=seconds,
        )

    def describe(self) -> dict[str, Any]:
        return {
            "method": "Otsu's threshold and a watershed of the distance transform",
            "area_margin": AREA_MARGIN,
            "working_pixels": WORKING_PIXELS,
        }

    def _regions(self, frame: Frame) -> Masks:
        height, width = frame.size_hw
        factor = min(1.0, math.sqrt(WORKING_PIXELS / (height * width)))
        size = max(1, round(width * factor)), max(1, round(height * factor))
        small = cv2.resize(frame.image_rgb, size, interpolation=cv2.INTER_AREA)
        foreground = thresholded(channels(small)[self._channel.name], bright=self._channel.bright)
        parts = split(foreground, radius=self._radius * factor)
        full = cv2.resize(parts, (width, height), interpolation=cv2.INTER_NEAREST)
        return masks_of_labels(full)

    def _nearest(self, frame: Frame, masks: Masks) -> tuple[npt.NDArray[np.int64], FloatArray]:
        """For each mask the example nearest in colour and area, and the distance.

        Colours are measured in the examples' spread, areas in that of their logarithms.
        """
        colours = mean_lab(frame.image_rgb, masks)
        spread = float(self._colours.std(axis=0).max())
        by_colour = np.linalg.norm(colours[:, None] - self._colours[None], axis=2)
        by_area = np.abs(np.log(masks.areas[:, None] / self._areas[None]))
        area_spread = float(np.log(self._areas).std())
        distances = np.hypot(by_colour / max(spread, 1.0), by_area / max(area_spread, 0.1))
        return distances.argmin(axis=1), distances.min(axis=1, initial=np.inf)


def channels(image_rgb: ImageRGB) -> dict[str, npt.NDArray[np.uint8]]:
    """The ``(H, W)`` uint8 channels that a picture may be thresholded in, by name."""
    red, green, blue = cv2.split(image_rgb)
    _, a, b = cv2.split(cv2.cvtColor(image_rgb, cv2.COLOR_RGB2LAB))
    saturation = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2HSV)[..., 1]
    grey = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY)
    return {
        "grey": grey, "red": red, "green": green, "blue": blue,
        "saturation": saturation, "a": a, "b": b,
    }  # fmt: skip


def best_channel(support: Sequence[Shown]) -> Channel:
    """The channel in which the examples stand out most from what is around them.

    Standing out is the difference of the means in units of the pooled standard deviation, with
    every example counting the same.
    """
    inside: dict[str, list[tuple[float, float]]] = {}
    around: dict[str, list[tuple[float, float]]] = {}
    for shown in support:
        grey = channels(shown.frame.image_rgb)
        anything = np.zeros(shown.frame.size_hw, bool)
        for index in range(len(shown.masks)):
            anything |= shown.masks.dense(index)
        for index in range(len(shown.masks)):
            mask = shown.masks.dense(index)
            ring = surroundings(mask) & ~anything
            for name, values in grey.items():
                inside.setdefault(name, []).append(_moments(values[mask]))
                if ring.any():
                    around.setdefault(name, []).append(_moments(values[ring]))
    if not around:
        return Channel("grey", bright=True)
    contrast = {name: _contrast(inside[name], around[name]) for name in around}
    name = max(contrast, key=lambda each: abs(contrast[each]))
    return Channel(name, bright=contrast[name] > 0)


def _moments(values: npt.NDArray[np.uint8]) -> tuple[float, float]:
    numbers = values.astype(float)
    return float(numbers.mean()), float((numbers**2).mean())


def _contrast(inside: list[tuple[float, float]], around: list[tuple[float, float]]) -> float:
    (mean_in, square_in), (mean_out, square_out) = np.mean(inside, axis=0), np.mean(around, axis=0)
    variance = (square_in - mean_in**2 + square_out - mean_out**2) / 2
    return float((mean_in - mean_out) / math.sqrt(max(variance, 1.0)))


def surroundings(mask: BoolArray) -> BoolArray:
    """A ring around a mask."""
    width = max(1.0, SURROUNDINGS * math.sqrt(np.count_nonzero(mask) / math.pi))
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    return np.asarray((distance > 0) & (distance <= width))


def thresholded(grey: npt.NDArray[np.uint8], *, bright: bool) -> BoolArray:
    """The part of a picture above (or below) Otsu's threshold, cleaned up, without holes."""
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0)
    if smooth.min() == smooth.max():
        return np.zeros(grey.shape, bool)
    above = smooth > threshold_otsu(smooth)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    cleaned = cv2.morphologyEx((above == bright).astype(np.uint8), cv2.MORPH_OPEN, kernel)
    return np.asarray(ndimage.binary_fill_holes(cleaned), bool)


def split(foreground: BoolArray, *, radius: float) -> LabelImage:
    """``(H, W)`` numbered parts, from the peaks of the distance to the outline.

    Args:
        radius: of the circle inside a typical object, in pixels: peaks nearer to each other
            belong to one object.
    """
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(foreground), radius / 4)
    peaks = peak_local_max(
        depth, min_distance=max(1, round(radius)), labels=label(foreground), exclude_border=False
    )
    markers = np.zeros(foreground.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return np.asarray(watershed(-depth, markers, mask=foreground), np.int32)


def masks_of_labels(parts: LabelImage) -> Masks:
    """One mask for each number of a label image but 0."""
    regions = regionprops(parts)
    return Masks.from_crops(
        size_hw=(parts.shape[0], parts.shape[1]),
        boxes_xyxy=[(r.bbox[1], r.bbox[0], r.bbox[3], r.bbox[2]) for r in regions],
        crops=[region.image for region in regions],
    )


def inner_radius(crop: BoolArray) -> float:
    """Radius of the largest circle inside a mask, in pixels."""
    return float(ndimage.distance_transform_edt(np.pad(crop, 1)).max())


def mean_lab(image_rgb: ImageRGB, masks: Masks) -> npt.NDArray[np.float64]:
    """``(N, 3)`` mean CIE Lab colour of each mask (L 0 to 100)."""
    lab = cv2.cvtColor(image_rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    found = [
        lab[y0:y1, x0:x1][crop].mean(axis=0)
        for (x0, y0, x1, y1), crop in zip(masks.boxes_xyxy, masks.crops(), strict=True)
    ]
    return np.array(found, np.float64).reshape(-1, 3)
