"""The pictures of a report: what was true, false and missed, drawn over them as SVG.

A picture is in the page once, however many drawings lie over it.
"""

from __future__ import annotations

import base64
import io
import statistics
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import cv2
import numpy as np
from PIL import Image

from sam_detect.errors import ImageError
from sam_detect.evaluation.dataset import AnnotatedObject, AnnotatedPicture, Id
from sam_detect.evaluation.report.drawing import SHOWN, Outline, object_outline, outlines_of
from sam_detect.evaluation.report.results import Names, Result
from sam_detect.sources import load_image
from sam_detect.types import ImageRGB

LONGEST_SIDE = 640
WEBP = {"quality": 80, "method": 4}
DARK = 45
"""A picture that is darker on average (of 255) is brightened."""
GAMMA = 0.6
SMALL_OBJECT = 32
"""Side of an object, in pixels of the page, below which lines are thin."""


@dataclass(frozen=True)
class Base:
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


@dataclass(frozen=True)
class Drawing:
    """A picture with outlines over it.

    Attributes:
        id: unique in the page.
        base: the picture.
        name: its path below the folder of the pictures.
        title: a short line: its figures, or whose examples they are.
        alt: what is to be seen, in words.
        outlines: by kind, in the order they are drawn.
        f1: None for examples.
        pixels: whether the outlines are of pixels that are counted, and not of objects.
        boxes: whether they are boxes.
        fine: whether objects are so small that thick lines would hide them.
    """

    id: str
    base: Base
    name: str
    title: str
    alt: str
    outlines: dict[str, list[Outline]]
    f1: float | None = None
    pixels: bool = False
    boxes: bool = False
    fine: bool = False


@dataclass
class Album:
    """Draws pictures, and keeps each that lies below a drawing once.

    Args:
        names: of the pictures.
        boxes: draw objects as boxes.
    """

    names: Names
    boxes: bool
    bases: dict[Id, Base] = field(default_factory=dict)
    _drawn: int = 0

    def of_result(self, result: Result) -> Drawing:
        """What is true, false and missed in a picture."""
        picture, counts = result.query.picture, result.counts
        base = self._base(picture)
        unit = "" if result.matches is not None else " pixels"
        told = f"{counts.tp:,} true, {counts.fp:,} false, {counts.fn:,} missed{unit}"
        where = f"seed {result.split.seed}"
        if result.split.group is not None:
            where += f", {result.split.group}"
        return self._drawing(
            picture,
            base,
            outlines_of(result, base.scale, self.boxes),
            title=f"{told} ({where})",
            f1=counts.f1,
            pixels=result.matches is None,
        )

    def of_examples(
        self, picture: AnnotatedPicture, objects: Sequence[AnnotatedObject], seed: int
    ) -> Drawing:
        """Which objects of a picture were shown."""
        base = self._base(picture)
        outlines = [object_outline(picture, o, base.scale, self.boxes, o.label) for o in objects]
        labels = list(dict.fromkeys(o.label for o in objects))
        counted = [f"{sum(o.label == name for o in objects)} {name}" for name in labels]
        title = f"seed {seed}: {', '.join(counted)}"
        return self._drawing(picture, base, {SHOWN: outlines}, title=title)

    def _drawing(
        self,
        picture: AnnotatedPicture,
        base: Base,
        outlines: dict[str, list[Outline]],
        *,
        title: str,
        f1: float | None = None,
        pixels: bool = False,
    ) -> Drawing:
        self._drawn += 1
        name = self.names.of(picture)
        return Drawing(
            id=f"d{self._drawn}",
            base=base,
            name=name,
            title=title,
            alt=f"{name}: {title}",
            outlines={kind: found for kind, found in outlines.items() if found},
            f1=f1,
            pixels=pixels,
            boxes=self.boxes,
            fine=_typical_side(picture) * base.scale < SMALL_OBJECT,
        )

    def _base(self, picture: AnnotatedPicture) -> Base:
        if picture.id not in self.bases:
            self.bases[picture.id] = self._read(picture, f"p{len(self.bases) + 1}")
        return self.bases[picture.id]

    def _read(self, picture: AnnotatedPicture, id: str) -> Base:  # noqa: A002 - the field's name
        height, width = picture.size_hw
        scale = min(1.0, LONGEST_SIDE / max(height, width))
        size_wh = max(1, round(width * scale)), max(1, round(height * scale))
        try:
            image = load_image(picture.path, max_pixels=height * width).image_rgb
        except ImageError:  # gone, or another one, since the method looked at it
            return Base(id, None, size_wh, scale)
        small = cv2.resize(image, size_wh, interpolation=cv2.INTER_AREA)
        shown, brightened = visible(np.asarray(small, np.uint8))
        return Base(id, _uri(shown), size_wh, scale, brightened)


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
    path = str(result.query.picture.path)
    return (counts.f1 if counts.f1 is not None else 1.0), -(counts.fp + counts.fn), path


def _typical_side(picture: AnnotatedPicture) -> float:
    """The median over the objects of a square's side with the area of the box, in pixels."""
    areas = [o.bbox_xywh[2] * o.bbox_xywh[3] for o in picture.objects if not o.crowd]
    return statistics.median(areas) ** 0.5 if areas else float(min(picture.size_hw))


def _uri(image_rgb: ImageRGB) -> str:
    file = io.BytesIO()
    Image.fromarray(image_rgb).save(file, "WEBP", **WEBP)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode("ascii")
