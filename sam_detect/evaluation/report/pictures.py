"""The pictures of a report, with what is true, false and missed drawn over them as SVG paths.

A picture is in the page once, however many drawings lie over it.
"""

from __future__ import annotations

import base64
import io
import statistics
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
from PIL import Image

from sam_detect.errors import ImageError
from sam_detect.evaluation.comparison import Matches
from sam_detect.evaluation.dataset import AnnotatedObject, AnnotatedPicture, Id, masks_of
from sam_detect.evaluation.metrics import regions
from sam_detect.evaluation.report.results import Names, Outcomes, Result
from sam_detect.types import ImageRGB, Masks
from sam_detect.types.masks import BoolArray

TOLERANCE = 0.4
"""A path may be so far from its outline, in units of the drawing."""


def box_path(box_xyxy: Sequence[float], scale: float) -> str:
    """A rectangle, scaled."""
    x0, y0, x1, y1 = (f"{value * scale:.4g}" for value in box_xyxy)
    return f"M{x0} {y0}H{x1}V{y1}H{x0}Z"


def mask_path(masks: Masks, index: int, scale: float) -> str:
    """The outlines of one mask and of its holes."""
    x0, y0, _, _ = (int(value) for value in masks.boxes_xyxy[index])
    return region_path(masks.crop(index), scale, (x0, y0))


def region_path(region: BoolArray, scale: float, corner_xy: tuple[int, int] = (0, 0)) -> str:
    """The outlines of ``(h, w)`` pixels and of the holes in them.

    Filled by the rule ``evenodd`` the path gives the pixels back, but for a quarter of a pixel
    and :data:`TOLERANCE`.

    Args:
        region: where the pixels are.
        scale: units of the drawing per pixel.
        corner_xy: the region's place in the picture, in pixels.
    """
    # findContours runs through the middles of pixels, and would give a line of pixels no area:
    # doubled, it stays a quarter of a pixel inside their edges
    doubled = np.kron(region.astype(np.uint8), np.ones((2, 2), np.uint8))
    padded = np.pad(doubled, ((1, 1), (1, 1)))
    contours, _ = cv2.findContours(padded, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_NONE)
    corner = np.array(corner_xy, np.float64)
    return "".join(_ring((ring[:, 0] - 0.5) / 2 + corner, scale) for ring in contours)


def _ring(points_xy: np.ndarray[tuple[int, ...], np.dtype[np.float64]], scale: float) -> str:
    scaled = (points_xy * scale).astype(np.float32)
    kept = cv2.approxPolyDP(scaled[:, None], TOLERANCE, True)[:, 0]
    return "M" + "L".join(f"{x:.4g} {y:.4g}" for x, y in kept.tolist()) + "Z"


TRUE, FALSE, MISSED, SHOWN, ASIDE = "true", "false", "missed", "shown", "aside"
"""``shown`` are examples, ``aside`` are crowds: neither has to be found."""
DRAWN = (ASIDE, SHOWN, MISSED, TRUE, FALSE)
"""The last lies on top."""


@dataclass(frozen=True)
class DrawnOutline:
    """One object or detection.

    Attributes:
        path: of SVG.
        text: what it is and why.
    """

    path: str
    text: str


def outlines_of(result: Result, scale: float, boxes: bool) -> dict[str, list[DrawnOutline]]:
    """Everything that is drawn over a picture, by kind, in the order to draw it.

    Args:
        scale: units of the drawing per pixel.
        boxes: draw boxes.
    """
    picture, shown = result.query.picture, result.split.shown
    found: dict[str, list[DrawnOutline]] = {kind: [] for kind in DRAWN}
    for each in picture.objects:
        if each.crowd or each.id in shown:
            kind, why = (ASIDE, "crowd") if each.crowd else (SHOWN, "example")
            text = f"{each.label}, {why}: not to be found"
            found[kind].append(object_outline(picture, each, scale, boxes, text))
    if result.matches is None or result.outcomes is None:
        return found | _of_pixels(result, scale)
    wanted = [o for o in picture.objects if not o.crowd and o.id not in shown]
    found[MISSED] = [
        object_outline(picture, each, scale, boxes, f"missed {each.label}: {outcome}")
        for each, outcome in zip(wanted, result.outcomes.objects, strict=True)
        if outcome != "found"
    ]
    for index in np.argsort(-result.query.found.masks.areas, kind="stable").tolist():
        is_true = result.matches.objects[index] >= 0
        if is_true or result.matches.false[index]:
            masks = result.query.found.masks
            box = masks.boxes_xyxy[index].astype(float).tolist()
            path = box_path(box, scale) if boxes else mask_path(masks, index, scale)
            text = _said(result, result.matches, result.outcomes, index)
            found[TRUE if is_true else FALSE].append(DrawnOutline(path, text))
    return found


def object_outline(
    picture: AnnotatedPicture, each: AnnotatedObject, scale: float, boxes: bool, text: str
) -> DrawnOutline:
    """An annotated object as its outline, or as its box."""
    if boxes or each.mask_rle is None:
        x, y, w, h = each.bbox_xywh
        return DrawnOutline(box_path((x, y, x + w, y + h), scale), text)
    return DrawnOutline(mask_path(masks_of(picture, [each]), 0, scale), text)


def _said(result: Result, matches: Matches, outcomes: Outcomes, index: int) -> str:
    """A detection in words."""
    found, labels = result.query.found, result.query.comparison.object_labels
    said = f"{found.labels[index]} {found.scores[index]:.2f}"
    if matches.objects[index] >= 0:
        return f"{said}, IoU {matches.ious[index]:.2f}"
    nearest = labels[outcomes.nearest[index]] if outcomes.nearest[index] >= 0 else ""
    overlap = float(result.query.comparison.iou[index].max(initial=0.0))
    why = {
        "wrong name": f"it is {nearest}",
        "duplicate": "another detection found this object",
        "part": f"it overlaps {nearest} by IoU {overlap:.2f} only",
        "background": "no object is annotated here",
    }
    return f"false {said}: {why[outcomes.detections[index]]}"


def _of_pixels(result: Result, scale: float) -> dict[str, list[DrawnOutline]]:
    """The pixels of each class that are true, false and missed."""
    found: dict[str, list[DrawnOutline]] = {MISSED: [], TRUE: [], FALSE: []}
    item = (result.query.picture, result.query.found, result.split.shown)
    for label, each in regions(item).items():
        for kind, region in ((MISSED, each.missed), (TRUE, each.true), (FALSE, each.false)):
            if region.any():
                found[kind].append(DrawnOutline(region_path(region, scale), f"{kind}: {label}"))
    return found


LONGEST_SIDE = 640
WEBP = {"quality": 80, "method": 4}
DARK = 45
"""A picture that is darker on average (of 255) is brightened."""
GAMMA = 0.6
SMALL_OBJECT = 32
"""Side of an object, in pixels of the page, below which lines are thin."""


@dataclass(frozen=True)
class BaseImage:
    """A picture as it lies in the page.

    Attributes:
        id: unique in the page.
        uri: the picture itself; None where it cannot be read any more.
        size_wh: in the page, in pixels.
        scale: pixels in the page per pixel of the file.
        brightened: whether its contrast was stretched.
    """

    id: str
    uri: str | None
    size_wh: tuple[int, int]
    scale: float
    brightened: bool = False


Drawing = dict[str, Any]
"""A picture with outlines over it, as the page's template takes it: ``id``, ``base``, ``name`` (its
path below the folder of the pictures), ``title`` (its figures, or whose examples they are), ``alt``
(what it shows, in words), ``outlines`` by kind in the order they are drawn, ``f1`` (None for
examples), and ``pixels``, ``boxes``, ``fine``: whether the outlines are of counted pixels, are
boxes, or are of objects so small that thick lines would hide them."""


@dataclass
class Album:
    """Draws pictures, and keeps each that lies below a drawing once.

    Args:
        names: of the pictures.
        boxes: draw objects as boxes.
    """

    names: Names
    boxes: bool
    bases: dict[Id, BaseImage] = field(default_factory=dict)
    _drawn: int = 0

    def of_result(self, result: Result) -> Drawing:
        """What is true, false and missed in a picture."""
        counts, split = result.counts, result.split
        pixels = result.matches is None
        told = f"{counts.tp:,} true, {counts.fp:,} false, {counts.fn:,} missed"
        group = "" if split.group is None else f", {split.group}"
        title = f"{told}{' pixels' if pixels else ''} (seed {split.seed}{group})"
        picture = result.query.picture
        outlines = outlines_of(result, self._base(picture).scale, self.boxes)
        return self._drawing(picture, outlines, title, f1=counts.f1, pixels=pixels)

    def of_examples(
        self, picture: AnnotatedPicture, objects: Sequence[AnnotatedObject], seed: int
    ) -> Drawing:
        """Which objects of a picture were shown."""
        scale = self._base(picture).scale
        outlines = [object_outline(picture, o, scale, self.boxes, o.label) for o in objects]
        counted = Counter(o.label for o in objects).items()
        title = f"seed {seed}: {', '.join(f'{count} {label}' for label, count in counted)}"
        return self._drawing(picture, {SHOWN: outlines}, title)

    def _drawing(
        self,
        picture: AnnotatedPicture,
        outlines: dict[str, list[DrawnOutline]],
        title: str,
        *,
        f1: float | None = None,
        pixels: bool = False,
    ) -> Drawing:
        self._drawn += 1
        name, base = self.names.of(picture), self._base(picture)
        areas = [o.bbox_xywh[2] * o.bbox_xywh[3] for o in picture.objects if not o.crowd]
        side = statistics.median(areas) ** 0.5 if areas else min(picture.size_hw)
        return {
            "id": f"d{self._drawn}",
            "base": base,
            "name": name,
            "title": title,
            "alt": f"{name}: {title}",
            "outlines": {kind: found for kind, found in outlines.items() if found},
            "f1": f1,
            "pixels": pixels,
            "boxes": self.boxes,
            "fine": side * base.scale < SMALL_OBJECT,
        }

    def _base(self, picture: AnnotatedPicture) -> BaseImage:
        if picture.id not in self.bases:
            self.bases[picture.id] = _read(picture, f"p{len(self.bases) + 1}")
        return self.bases[picture.id]


def _read(picture: AnnotatedPicture, id: str) -> BaseImage:  # noqa: A002 - the field's name
    height, width = picture.size_hw
    scale = min(1.0, LONGEST_SIDE / max(height, width))
    size_wh = max(1, round(width * scale)), max(1, round(height * scale))
    try:
        image = picture.read(max_pixels=height * width).image_rgb
    except ImageError:  # gone, or another one, since it was evaluated
        return BaseImage(id, None, size_wh, scale)
    small = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
    shown, brightened = visible(np.asarray(small, np.uint8))
    file = io.BytesIO()
    Image.fromarray(shown).save(file, "WEBP", **WEBP)
    uri = "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
    return BaseImage(id, uri, size_wh, scale, brightened)


def worst_first(results: Iterable[Result]) -> list[Result]:
    """Each picture once, with the episode in which it did middling well; the worst picture first.

    By F1, then by the number of mistakes; of an even number of episodes the worse of the middle
    two is taken. What has nothing to find and nothing found is left out.
    """
    of_picture: dict[Id, list[Result]] = {}
    for each in sorted((r for r in results if r.counts.f1 is not None), key=_badness):
        of_picture.setdefault(each.query.picture.id, []).append(each)
    middling = (found[(len(found) - 1) // 2] for found in of_picture.values())
    return sorted(middling, key=_badness)


def ends(ranked: Sequence[Result], most: int) -> list[Result]:
    """At most so many: half of them from either end, in their order."""
    if len(ranked) <= most:
        return list(ranked)
    last = most // 2
    return [*ranked[: most - last], *ranked[len(ranked) - last :]]


def visible(image_rgb: ImageRGB) -> tuple[ImageRGB, bool]:
    """The picture, or where it is dark (as in fluorescence) what shows its faint objects too.

    Returns:
        The picture and whether it was changed: then its contrast is stretched (the darkest
        hundredth is black, the brightest five thousandths are as bright as can be), and its dark
        tones are lifted by a gamma of :data:`GAMMA`.
    """
    brightness = image_rgb.max(axis=2)
    low, high = np.percentile(brightness, (1, 99.5))
    if float(brightness.mean()) >= DARK or high <= low:
        return image_rgb, False
    stretched = np.clip((image_rgb.astype(np.float32) - low) / (high - low), 0, 1)
    return np.rint(255 * stretched**GAMMA).astype(np.uint8), True


def _badness(result: Result) -> tuple[float, int, str]:
    counts = result.counts
    picture = result.query.picture
    path = str(picture.path) if picture.plane is None else picture.plane.name
    return (counts.f1 if counts.f1 is not None else 1.0), -(counts.fp + counts.fn), path
