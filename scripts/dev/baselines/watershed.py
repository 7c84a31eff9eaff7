"""Baseline ``watershed``: a threshold for each label, touching objects split, areas filtered.

The recipe of every introduction to counting cells: Otsu's threshold (Otsu 1979) of the channel in
which the label's examples stand out most, holes filled, a watershed of the distance transform, and
only regions whose area is like the examples'. A region takes the label of the example that is
nearest in colour and area.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage
from skimage.feature import peak_local_max
from skimage.filters import threshold_otsu
from skimage.measure import label as connected
from skimage.measure import regionprops
from skimage.segmentation import watershed

from sam_detect.evaluation.methods import Predictions, SupportImage
from sam_detect.types import Frame, ImageRGB, Masks
from sam_detect.types.masks import BoolArray
from scripts.dev.overlaps import iou_matrix, nms

WORKING_PIXELS = 1_000_000
"""Larger pictures are worked on at a reduced scale; the masks come in full resolution."""
AREA_MARGIN = 2.0
"""From half the smallest example's area to twice the largest's; wider where few pictures gave the
examples, as sizes differ more between pictures than within one."""
SURROUNDINGS = 0.5
"""Width of the ring that an example must stand out from, in radii of its circle of equal area."""
SAME_OBJECT_IOU = 0.3
"""Of two detections whose masks overlap more, the better one is kept."""
COLOUR_UNIT = 1.0
"""Least unit of colour (a just noticeable difference in Lab), where all examples look alike."""
AREA_UNIT = 0.1
"""Least unit of the logarithm of areas, where all examples have one area."""

Floats = npt.NDArray[np.float64]
Grey = npt.NDArray[np.uint8]
LabelImage = npt.NDArray[np.int32]


@dataclass(frozen=True)
class Channel:
    """One of :func:`channels`, and whether the objects are the brighter part of it."""

    name: str
    bright: bool


@dataclass(frozen=True)
class Pass:
    """How one label's objects are found.

    Attributes:
        radius: of the circle inside its median example, in pixels.
        areas: least and greatest area, in pixels.
    """

    label: str
    channel: Channel
    radius: float
    areas: tuple[float, float]


class OtsuWatershed:
    """Otsu's threshold and a watershed, set by the examples. Deterministic."""

    name = "watershed"

    def __init__(self) -> None:
        self._passes: list[Pass] = []
        self._labels: list[str] = []
        self._areas: Floats = np.zeros(0)
        self._colours: Floats = np.zeros((0, 3))

    def learn(self, support: Sequence[SupportImage]) -> None:
        self._labels = [name for shown in support for name in shown.labels]
        self._passes = [pass_of(name, support) for name in sorted(set(self._labels))]
        if self._labels:
            areas = [shown.masks.areas for shown in support]
            self._areas = np.concatenate(areas).astype(np.float64)
            self._colours = np.concatenate([mean_lab(s.frame.image_rgb, s.masks) for s in support])

    def find(self, frame: Frame) -> Predictions:
        if not self._passes:
            return Predictions.nothing(frame.size_hw)
        started = time.perf_counter()
        regions = [regions_of(frame, each) for each in self._passes]
        proposed = time.perf_counter()
        proposals = Masks.concatenate(regions)
        meant = np.repeat([each.label for each in self._passes], [len(each) for each in regions])
        limits = np.repeat([each.areas for each in self._passes], [len(m) for m in regions], axis=0)
        fitting = (limits[:, 0] <= proposals.areas) & (proposals.areas <= limits[:, 1])
        masks, meant = proposals[fitting], meant[fitting]
        names, scores = self._named(frame, masks)
        order = [i for i in np.argsort(-scores, kind="stable") if names[i] == meant[i]]
        overlaps = iou_matrix(masks.crops(), masks.boxes_xyxy)
        kept = nms(order, overlaps, SAME_OBJECT_IOU)
        seconds = {"propose": proposed - started, "label": time.perf_counter() - proposed}
        return Predictions(
            masks=masks[kept],
            labels=tuple(names[i] for i in kept),
            scores=scores[kept].astype(np.float32),
            proposals=proposals,
            seconds=seconds,
        )

    def describe(self) -> dict[str, Any]:
        return {
            "method": "Otsu's threshold and a watershed of the distance transform",
            "area_margin": AREA_MARGIN,
        }

    def _named(self, frame: Frame, masks: Masks) -> tuple[list[str], Floats]:
        """For each mask the name of the nearest example, and a score that falls with its distance.

        Colours and logarithms of areas are measured in units of the examples' own spread.
        """
        colours = mean_lab(frame.image_rgb, masks)
        colour_unit = max(COLOUR_UNIT, float(self._colours.std(axis=0).max()))
        area_unit = max(AREA_UNIT, float(np.log(self._areas).std()))
        by_colour = np.linalg.norm(colours[:, None] - self._colours[None], axis=2) / colour_unit
        by_area = np.abs(np.log(masks.areas[:, None] / self._areas[None])) / area_unit
        distances = np.hypot(by_colour, by_area)
        names = [self._labels[i] for i in distances.argmin(axis=1)]
        return names, 1 / (1 + distances.min(axis=1))


def pass_of(label: str, support: Sequence[SupportImage]) -> Pass:
    """What the examples of one label say of the others."""
    chosen = [
        (shown, shown.masks[[i for i, name in enumerate(shown.labels) if name == label]])
        for shown in support
        if label in shown.labels
    ]
    crops = [crop for _, masks in chosen for crop in masks.crops()]
    areas = [float(np.count_nonzero(crop)) for crop in crops]
    margin = AREA_MARGIN ** (1 + 1 / len(chosen))
    return Pass(
        label=label,
        channel=best_channel([(shown.frame.image_rgb, masks) for shown, masks in chosen]),
        radius=float(np.median([inner_radius(crop) for crop in crops])),
        areas=(min(areas) / margin, max(areas) * margin),
    )


def regions_of(frame: Frame, each: Pass) -> Masks:
    """All parts of the label's foreground."""
    height, width = frame.size_hw
    factor = min(1.0, math.sqrt(WORKING_PIXELS / (height * width)))
    size = max(1, round(width * factor)), max(1, round(height * factor))
    small = cv2.resize(frame.image_rgb, size, interpolation=cv2.INTER_AREA)
    grey = channels(np.asarray(small, np.uint8))[each.channel.name]
    parts = split(thresholded(grey, bright=each.channel.bright), radius=each.radius * factor)
    return masks_of_labels(cv2.resize(parts, (width, height), interpolation=cv2.INTER_NEAREST))


def channels(image_rgb: ImageRGB) -> dict[str, Grey]:
    """The ``(H, W)`` uint8 channels that a picture may be thresholded in, by name."""
    red, green, blue = cv2.split(image_rgb)
    _, a, b = cv2.split(cv2.cvtColor(image_rgb, cv2.COLOR_RGB2LAB))
    _, saturation, _ = cv2.split(cv2.cvtColor(image_rgb, cv2.COLOR_RGB2HSV))
    named = {"grey": cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY), "red": red, "green": green}
    return {**named, "blue": blue, "saturation": saturation, "a": a, "b": b}


def best_channel(examples: Sequence[tuple[ImageRGB, Masks]]) -> Channel:
    """The channel in which the examples stand out most from what is around them.

    Standing out is the difference of the means in units of the pooled standard deviation; every
    example counts the same. Grey and bright where nothing is around any example.
    """
    compared = [pair for image_rgb, masks in examples for pair in contrasts(image_rgb, masks)]
    if not compared:
        return Channel("grey", bright=True)
    # (examples, channels, inside or around, mean or mean square) to (channels, ...)
    inside, around = np.moveaxis(np.mean(compared, axis=0), 1, 0)
    variance = (inside[:, 1] - inside[:, 0] ** 2 + around[:, 1] - around[:, 0] ** 2) / 2
    contrast = (inside[:, 0] - around[:, 0]) / np.sqrt(np.maximum(variance, 1.0))
    best = int(np.abs(contrast).argmax())
    return Channel(list(channels(np.zeros((1, 1, 3), np.uint8)))[best], bool(contrast[best] > 0))


def contrasts(image_rgb: ImageRGB, masks: Masks) -> Iterator[Floats]:
    """For each mask with anything around it, ``(channels, 2, 2)``: inside it and in the ring
    around it the mean and the mean square of every channel. Other masks are not around it."""
    values = np.stack(list(channels(image_rgb).values())).astype(np.float64)
    taken = np.any([masks.dense(index) for index in range(len(masks))], axis=0)
    for index in range(len(masks)):
        mask = masks.dense(index)
        ring = surroundings(mask) & ~taken
        if ring.any():
            parts = [values[:, mask], values[:, ring]]
            yield np.stack([[p.mean(axis=1), (p**2).mean(axis=1)] for p in parts]).transpose(
                2, 0, 1
            )


def surroundings(mask: BoolArray) -> BoolArray:
    """A ring around a mask."""
    width = max(1.0, SURROUNDINGS * math.sqrt(np.count_nonzero(mask) / math.pi))
    distance = cv2.distanceTransform((~mask).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5)
    return np.asarray((distance > 0) & (distance <= width))


def thresholded(grey: Grey, *, bright: bool) -> BoolArray:
    """The part of a picture above (or not above) Otsu's threshold, cleaned up, without holes."""
    smooth = cv2.GaussianBlur(grey, (0, 0), 1.0)
    if smooth.min() == smooth.max():
        return np.zeros(grey.shape, np.bool_)
    above = smooth > threshold_otsu(smooth)
    kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (3, 3))
    cleaned = cv2.morphologyEx((above == bright).astype(np.uint8), cv2.MORPH_OPEN, kernel)
    return np.asarray(ndimage.binary_fill_holes(cleaned), np.bool_)


def split(foreground: BoolArray, *, radius: float) -> LabelImage:
    """``(H, W)`` numbered parts, one around each peak of the distance to the outline.

    Args:
        radius: of the circle inside a typical object, in pixels: two peaks that are nearer to
            each other than half of it are one.
    """
    depth = ndimage.gaussian_filter(ndimage.distance_transform_edt(foreground), radius / 10)
    peaks = peak_local_max(
        depth,
        min_distance=max(1, round(radius / 2)),
        labels=connected(foreground),
        exclude_border=False,
    )
    markers = np.zeros(foreground.shape, np.int32)
    markers[tuple(peaks.T)] = np.arange(1, len(peaks) + 1)
    return np.asarray(watershed(-depth, markers, mask=foreground), np.int32)


def masks_of_labels(parts: LabelImage) -> Masks:
    """One mask for each number of a label image but 0."""
    regions = regionprops(parts)
    boxes = [(r.bbox[1], r.bbox[0], r.bbox[3], r.bbox[2]) for r in regions]
    return Masks.from_crops(
        size_hw=(parts.shape[0], parts.shape[1]),
        boxes_xyxy=np.array(boxes, np.int64).reshape(-1, 4),
        crops=[region.image for region in regions],
    )


def inner_radius(crop: BoolArray) -> float:
    """Radius of the largest circle inside a mask, in pixels."""
    return float(ndimage.distance_transform_edt(np.pad(crop, 1)).max())


def mean_lab(image_rgb: ImageRGB, masks: Masks) -> Floats:
    """``(N, 3)`` mean CIE Lab colour of each mask (L 0 to 100)."""
    lab = cv2.cvtColor(image_rgb.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    found = [
        lab[y0:y1, x0:x1][crop].mean(axis=0)
        for (x0, y0, x1, y1), crop in zip(masks.boxes_xyxy, masks.crops(), strict=True)
    ]
    return np.array(found, np.float64).reshape(-1, 3)
