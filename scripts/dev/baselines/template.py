"""Baseline ``template``: every example slid over the picture, turned and scaled.

OpenCV's ``matchTemplate`` with the normalised correlation coefficient, masked to the example and a
narrow ring around it. Every example is brought to about the same small size, and the picture with
it, so that large objects are sought in a small picture and small ones in a large one.
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

from sam_detect.evaluation.methods import Predictions, SupportImage
from sam_detect.types import Frame, ImageRGB, Masks
from sam_detect.types.masks import BoolArray, FloatArray, intersection, tight_box_xyxy

SIDE = 16.0
"""Side of the square of an example's area, in pixels of the reduced picture."""
RING = 3
"""Pixels around the example (of the reduced picture) that must look alike too."""
SCALES = (0.8, 1.0, 1.25)
ANGLES = tuple(range(0, 360, 45))
"""Degrees, counterclockwise."""
BUDGET = 10_000_000
"""Reduced pixels times templates, of one picture: a few seconds of a processor core."""
SLACK = 2
"""Pixels (of the reduced picture) by which the centres of two matching examples may differ."""
LEAST_CONTRAST = 2.0
"""Standard deviation in grey levels below which a place is empty: noise correlates as well."""
THRESHOLDS = (0.5, 0.9)
"""Limits of the automatic threshold, whose middle is used for a label with one example."""
MOST_PEAKS = 1000
"""So many of the best places are looked at; one for each object is kept."""
SAME_OBJECT_IOU = 0.3
"""Of two places whose masks overlap more, the better one is kept."""


@dataclass(frozen=True, eq=False)
class Example:
    """One shown object: its picture, its ``(H, W)`` mask, the centre of its box, its name."""

    image_rgb: ImageRGB
    mask: BoolArray
    center_xy: tuple[float, float]
    label: str


@dataclass(frozen=True, eq=False)
class Template:
    """One example, turned and scaled. Both windows have odd sides, the example's centre amid them.

    Attributes:
        example: index of the example.
        factor: pixels of the reduced picture per pixel of the picture.
        image_rgb: ``(h, w, 3)`` uint8, of the reduced picture.
        weights: ``(h, w)`` uint8, 1 where the picture must look alike.
        outline: ``(H, W)`` mask in pixels of the picture.
    """

    example: int
    factor: float
    image_rgb: ImageRGB
    weights: npt.NDArray[np.uint8]
    outline: BoolArray


@dataclass(frozen=True, eq=False)
class Place:
    """Where a template fits: the part of its outline inside the picture, and that part's box."""

    score: float
    label: str
    crop: BoolArray
    box_xyxy: tuple[int, int, int, int]


class TemplateMatching:
    """Slides the examples over a picture. Deterministic."""

    name = "template"

    def __init__(self) -> None:
        self._examples: list[Example] = []
        self._templates: list[Template] = []
        self._thresholds: dict[str, float] = {}

    def learn(self, support: Sequence[SupportImage]) -> None:
        self._examples = examples_of(support)
        most_pixels = BUDGET / max(1, len(self._examples) * len(SCALES) * len(ANGLES))
        self._templates = [
            template
            for index, example in enumerate(self._examples)
            for template in templates_of(index, example, most_pixels=most_pixels)
        ]
        self._thresholds = thresholds(self._examples, self._templates)

    def find(self, frame: Frame) -> Predictions:
        started = time.perf_counter()
        places = self._places(frame)
        proposed = time.perf_counter()
        kept = best_of_overlapping([p for p in places if p.score >= self._thresholds[p.label]])
        seconds = {"propose": proposed - started, "label": time.perf_counter() - proposed}
        return Predictions(
            masks=masks_at(kept, frame.size_hw),
            labels=tuple(place.label for place in kept),
            scores=np.array([place.score for place in kept], np.float32),
            proposals=masks_at(places, frame.size_hw),
            seconds=seconds,
        )

    def describe(self) -> dict[str, Any]:
        return {
            "method": "masked, normalised correlation with every example",
            "scales": list(SCALES),
            "angles": list(ANGLES),
            "side": SIDE,
        }

    def _places(self, frame: Frame) -> list[Place]:
        """The best places of all templates, best first, from the lowest threshold on."""
        found: list[tuple[float, int, tuple[float, float]]] = []
        for factor in sorted({template.factor for template in self._templates}):
            image = resized(frame.image_rgb, factor)
            best = np.full(image.shape[:2], -1.0, np.float32)
            fitting = np.zeros(image.shape[:2], np.int64)
            for index, template in enumerate(self._templates):
                if template.factor == factor:
                    response = correlation(image, template)
                    fitting[response > best] = index
                    best = np.maximum(best, response)
            for y, x in peaks(best):
                center = moved((x, y), image.shape, frame.size_hw)
                found.append((-float(best[y, x]), int(fitting[y, x]), center))
        return list(self._pasted(sorted(found)[:MOST_PEAKS], frame.size_hw))

    def _pasted(
        self, found: Sequence[tuple[float, int, tuple[float, float]]], size_hw: tuple[int, int]
    ) -> Iterator[Place]:
        for negative, index, center in found:
            template = self._templates[index]
            placed = clipped(template.outline, center, size_hw)
            if placed is not None:
                label = self._examples[template.example].label
                yield Place(min(1.0, -negative), label, *placed)


def examples_of(support: Sequence[SupportImage]) -> list[Example]:
    """The examples; of a label's only those that no border cuts, if it has such."""
    whole: list[Example] = []
    cut: list[Example] = []
    for shown in support:
        height, width = shown.frame.size_hw
        for index, label in enumerate(shown.labels):
            x0, y0, x1, y1 = (int(side) for side in shown.masks.boxes_xyxy[index])
            center = ((x0 + x1 - 1) / 2, (y0 + y1 - 1) / 2)
            example = Example(shown.frame.image_rgb, shown.masks.dense(index), center, label)
            inside = x0 > 0 and y0 > 0 and x1 < width and y1 < height
            (whole if inside else cut).append(example)
    known = {example.label for example in whole}
    return whole + [example for example in cut if example.label not in known]


def templates_of(index: int, example: Example, *, most_pixels: float) -> Iterator[Template]:
    """An example at all scales and angles; none of one that has no contrast.

    Args:
        most_pixels: largest area of the reduced picture.
    """
    factor = working_factor(example.mask, most_pixels)
    image = resized(example.image_rgb, factor)
    share = resized(example.mask.astype(np.float32), factor)
    ring = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (2 * RING + 1, 2 * RING + 1))
    alike = cv2.dilate((share >= min(0.5, share.max())).astype(np.uint8), ring)
    center = moved(example.center_xy, example.mask.shape, alike.shape)
    reach = radius(alike, center)
    solid = example.mask.astype(np.uint8)
    solid_reach = radius(solid, example.center_xy)
    for scale in SCALES:
        for angle in ANGLES:
            weights = turned(alike, center, reach, angle, scale)
            window = turned(image, center, reach, angle, scale)
            outline = turned(solid, example.center_xy, solid_reach, angle, scale)
            if window[weights > 0].std(axis=0).max(initial=0) < LEAST_CONTRAST:
                continue
            around = about_center(weights)
            yield Template(
                index, factor, np.ascontiguousarray(window[around]),
                np.ascontiguousarray(weights[around]), outline[about_center(outline)] > 0,
            )  # fmt: skip


def working_factor(mask: BoolArray, most_pixels: float) -> float:
    """The scale at which the object has the wanted size and the picture is not too large.

    In steps of a quarter octave, so that templates share reduced pictures.
    """
    by_size = SIDE / math.sqrt(np.count_nonzero(mask))
    by_picture = math.sqrt(most_pixels / mask.size)
    return float(2 ** (math.floor(4 * math.log2(min(1.0, by_size, by_picture))) / 4))


def resized(image: npt.NDArray[Any], factor: float) -> npt.NDArray[Any]:
    """A picture or mask reduced by averaging; never without a pixel."""
    size = [max(1, round(side * factor)) for side in image.shape[1::-1]]
    return np.asarray(cv2.resize(image, size, interpolation=cv2.INTER_AREA))


def moved(
    point_xy: tuple[float, float], from_hw: Sequence[int], to_hw: Sequence[int]
) -> tuple[float, float]:
    """A point of a picture in the pixels of the same picture in another size."""
    x, y = point_xy
    by_x, by_y = to_hw[1] / from_hw[1], to_hw[0] / from_hw[0]
    return (x + 0.5) * by_x - 0.5, (y + 0.5) * by_y - 0.5


def radius(mask: npt.NDArray[np.uint8], center_xy: tuple[float, float]) -> float:
    """Distance of a mask's farthest pixel from a point."""
    rows, columns = np.nonzero(mask)
    return float(np.hypot(columns - center_xy[0], rows - center_xy[1]).max())


def turned(
    image: npt.NDArray[np.uint8],
    center_xy: tuple[float, float],
    reach: float,
    angle: float,
    scale: float,
) -> npt.NDArray[np.uint8]:
    """The odd-sided square window around a point, turned and scaled.

    Beyond its border a picture is repeated, and a mask (of two dimensions) is empty.
    """
    half = math.ceil(reach * scale)
    matrix = cv2.getRotationMatrix2D(center_xy, angle, scale)
    matrix[:, 2] += half - np.array(center_xy)
    side = 2 * half + 1
    how = (cv2.INTER_NEAREST, cv2.BORDER_CONSTANT)
    if image.ndim == 3:
        how = (cv2.INTER_LINEAR, cv2.BORDER_REPLICATE)
    found = cv2.warpAffine(image, matrix, (side, side), flags=how[0], borderMode=how[1])
    return np.asarray(found, np.uint8)


def about_center(mask: npt.NDArray[np.uint8]) -> tuple[slice, slice]:
    """The smallest window that has a window's centre and all of its mask."""
    middle = len(mask) // 2
    rows, columns = np.nonzero(mask)
    down, across = (int(abs(each - middle).max(initial=0)) for each in (rows, columns))
    return slice(middle - down, middle + down + 1), slice(middle - across, middle + across + 1)


def correlation(image_rgb: ImageRGB, template: Template) -> FloatArray:
    """``(H, W)`` likeness of the template centred at each pixel, -1 to 1; -1 for empty places.

    The picture's border is repeated beyond it, so that an object it cuts is found too.
    """
    down, across = (side // 2 for side in template.weights.shape)
    wide = cv2.copyMakeBorder(image_rgb, down, down, across, across, cv2.BORDER_REPLICATE)
    found = cv2.matchTemplate(wide, template.image_rgb, cv2.TM_CCOEFF_NORMED, mask=template.weights)
    empty = contrast(image_rgb, template.weights) < LEAST_CONTRAST
    return np.where(empty | ~np.isfinite(found), -1, found)


def contrast(image_rgb: ImageRGB, weights: npt.NDArray[np.uint8]) -> FloatArray:
    """``(H, W)`` standard deviation of the grey levels under a window centred at each pixel."""
    grey = image_rgb.mean(axis=2, dtype=np.float32)
    kernel = weights / np.float32(weights.sum())
    mean, square = (
        cv2.filter2D(each, cv2.CV_32F, kernel, borderType=cv2.BORDER_REPLICATE)
        for each in (grey, grey * grey)
    )
    return np.asarray(np.sqrt(np.maximum(square - mean * mean, 0)))


def peaks(response: FloatArray) -> list[tuple[int, int]]:
    """``(y, x)`` of the local maxima from the lowest threshold on."""
    size = round(SIDE / 2) | 1
    highest = cv2.dilate(response, np.ones((size, size), np.uint8))
    found = np.argwhere((response == highest) & (response >= THRESHOLDS[0]))
    return [(int(y), int(x)) for y, x in found]


def thresholds(examples: Sequence[Example], templates: Sequence[Template]) -> dict[str, float]:
    """For each label the likeness from which on a place is one of its objects.

    The mean likeness of its examples to the other examples of the label that fit them best.
    """
    likeness: dict[int, float] = {}
    pictures: dict[tuple[int, float], ImageRGB] = {}
    for index, example in enumerate(examples):
        for template in templates:
            if template.example == index or examples[template.example].label != example.label:
                continue
            key = (id(example.image_rgb), template.factor)
            if key not in pictures:
                pictures[key] = resized(example.image_rgb, template.factor)
            found = likeness_at(example, pictures[key], template)
            likeness[index] = max(likeness.get(index, -1.0), found)
    labels = {example.label for example in examples}
    return {label: _threshold(label, examples, likeness) for label in labels}


def _threshold(label: str, examples: Sequence[Example], likeness: dict[int, float]) -> float:
    known = [value for index, value in likeness.items() if examples[index].label == label]
    return float(np.clip(np.mean(known or THRESHOLDS), *THRESHOLDS))


def likeness_at(example: Example, reduced_rgb: ImageRGB, template: Template) -> float:
    """The best likeness of a template near an example's centre."""
    at = moved(example.center_xy, example.mask.shape, reduced_rgb.shape)
    x, y = (
        int(np.clip(round(v), 0, n - 1)) for v, n in zip(at, reduced_rgb.shape[1::-1], strict=True)
    )
    down, across = (side // 2 + SLACK for side in template.weights.shape)
    top, left = max(0, y - down), max(0, x - across)
    response = correlation(reduced_rgb[top : y + down + 1, left : x + across + 1], template)
    rows = slice(max(0, y - top - SLACK), y - top + SLACK + 1)
    columns = slice(max(0, x - left - SLACK), x - left + SLACK + 1)
    return float(response[rows, columns].max())


def clipped(
    outline: BoolArray, center_xy: tuple[float, float], size_hw: tuple[int, int]
) -> tuple[BoolArray, tuple[int, int, int, int]] | None:
    """The part of an outline around a point that lies in the picture, tight; None without any."""
    x0 = round(center_xy[0]) - outline.shape[1] // 2
    y0 = round(center_xy[1]) - outline.shape[0] // 2
    left, top = max(0, -x0), max(0, -y0)
    inside = outline[top : size_hw[0] - y0, left : size_hw[1] - x0]
    box = tight_box_xyxy(inside)
    if box is None:
        return None
    crop = np.ascontiguousarray(inside[box[1] : box[3], box[0] : box[2]])
    dx, dy = x0 + left, y0 + top
    return crop, (box[0] + dx, box[1] + dy, box[2] + dx, box[3] + dy)


def best_of_overlapping(places: Sequence[Place]) -> list[Place]:
    """Those that overlap no better one much. ``places`` come best first."""
    kept: list[Place] = []
    for place in places:
        if all(iou(place, other) <= SAME_OBJECT_IOU for other in kept):
            kept.append(place)
    return kept


def iou(a: Place, b: Place) -> float:
    shared = intersection(a.crop, a.box_xyxy, b.crop, b.box_xyxy)
    union = int(np.count_nonzero(a.crop)) + int(np.count_nonzero(b.crop)) - shared
    return shared / union


def masks_at(places: Sequence[Place], size_hw: tuple[int, int]) -> Masks:
    """The places' masks, in order."""
    return Masks.from_crops(
        size_hw=size_hw,
        boxes_xyxy=np.array([place.box_xyxy for place in places], np.int64).reshape(-1, 4),
        crops=[place.crop for place in places],
        predicted_ious=[place.score for place in places],
    )
