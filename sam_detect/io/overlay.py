"""Detections, or the masks of a preview, drawn into their image."""

from __future__ import annotations

import math
import os
import warnings
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.errors import MaskError
from sam_detect.interfaces import Sink
from sam_detect.io.drawing import (
    BLACK,
    UNKNOWN,
    BoxXYXY,
    ColorRGB,
    clean,
    draw_alpha,
    draw_mask,
    draw_masks,
    extend_colors,
    line_height,
    rounded_rectangle,
    text_alpha,
    text_color_on,
)
from sam_detect.io.files import ImagePaths, InputGuard, write_image
from sam_detect.io.tags import CROWDED_AT, LastPlaces, Layout, Tag, draw_legend, place_tags
from sam_detect.types import Detections, Frame, ImageRGB, Masks
from sam_detect.types.scratch import reduced

MOST_PIXELS = 32_000_000
"""Larger images are drawn reduced: an image, its drawing and its file take ten bytes a pixel."""
MANY, RARE = 25, 10
"""In an image with more than :data:`MANY` objects, a label with more than :data:`RARE` is written
out only once; the legend shows its colour."""
FILL_OPACITY = 0.3
LEAST_FILL_OPACITY = 0.12
"""Of an object as large as the image: what is under it stays visible."""
UNKNOWN_OPACITY = 0.75
SAMPLED_OBJECTS = 12
SAMPLES = np.stack(np.meshgrid(*[np.linspace(-0.6, 0.6, 7)] * 2), axis=-1).reshape(-1, 2)
"""Where colours are sampled in and near a box, relative to its sides."""
PREVIEW_MASK: ColorRGB = (255, 64, 160)
PREVIEW_BOX: ColorRGB = (255, 255, 255)
PREVIEW_SIDE = 640
"""Pixels of the longer side: smaller previews are enlarged, so that a line hides no object."""
PREVIEW_FILL = 0.18


def draw(
    image_rgb: ImageRGB,
    detections: Detections,
    *,
    colors: Mapping[str, ColorRGB] | None = None,
    show_unknown: bool = True,
    show_tags: bool = True,
    show_legend: bool = True,
) -> ImageRGB:
    """A copy of the image with its detections drawn in.

    Each object with a label gets a translucent fill, an outline and, if there is room, a tag
    with its label and confidence, or only the confidence if that hides less. Objects without a
    label get a thin grey outline. A legend shows the colour and the number of objects of each
    label. Lines and text scale with the image and its objects. Tags never overlap and never hide a
    small object; a tag without a place is left out, as is the legend on tiny images. If there are
    many objects, only those of rare labels have tags.

    Args:
        image_rgb: ``(H, W, 3)`` uint8, RGB.
        detections: of this image.
        colors: RGB colours of labels, for a series of images; the others get one that differs
            from these and from the image.
        show_unknown: whether objects without a label are outlined and counted.
        show_tags: whether labels and confidences are written next to the objects.
        show_legend: whether the legend is drawn.

    Returns:
        ``(H, W, 3)`` uint8, RGB.

    Raises:
        MaskError: the detections are of an image of another size.
    """
    check_size(image_rgb, detections)
    used = dict(colors or {})
    color_labels(used, image_rgb, detections)
    shown = detections if show_unknown else detections.known
    canvas = np.array(image_rgb, order="C")
    if not len(shown):
        return canvas
    layout = draw_objects(canvas, shown, used, line=line_px(shown))
    has_legend = show_legend and draw_counts(canvas, layout, shown, used)
    if show_tags:
        tags, others = _tags(detections, used, has_legend=has_legend)
        place_tags(canvas, layout, tags, text_px(shown), without_tags=others)
    return canvas


class OverlaySink(Sink):
    """An image for each input image, with its detections drawn in by :func:`draw`.

    Args:
        output: for one image the file to write, or an existing folder; for several a folder,
            which is made if needed. In a folder the images keep their stems (``x.jpg`` becomes
            ``x.png``); a stem that was used already gets a number (``x-2.png``).
        multiple: whether more than one image may come.
        inputs: the images being read, which are never overwritten.
        include_unknown: whether objects without a label are drawn.

    Raises:
        OutputError: here and in ``write``, for what cannot be written, an extension that names no
            image format, or a file that would overwrite one of the images being read.
    """

    def __init__(
        self,
        output: str | os.PathLike[str] | None = None,
        *,
        multiple: bool = False,
        inputs: Sequence[str | os.PathLike[str]] = (),
        include_unknown: bool = False,
    ) -> None:
        self._include_unknown = include_unknown
        self._paths = ImagePaths(output, multiple=multiple)
        self._guard = InputGuard(inputs)
        self._written: list[Path] = []
        self._colors: dict[str, ColorRGB] = {}

    def write(self, frame: Frame, detections: Detections) -> None:
        path = self._paths.path_for_frame(frame)
        self._guard.add(frame.source_id)
        self._guard.check(path)
        check_size(frame.image_rgb, detections)
        color_labels(self._colors, frame.image_rgb, detections)  # kept from image to image
        colors, unknown = self._colors, self._include_unknown
        image, masks = at_most(MOST_PIXELS, frame.image_rgb, detections.masks)
        if image is not frame.image_rgb:
            (rows, columns), (height, width) = image.shape[:2], frame.size_hw
            warnings.warn(
                f"{frame.source_id}: drawn at {columns}x{rows} pixels, as {width}x{height} are "
                "more than an overlay may have",
                stacklevel=2,
            )
        shown = replace(detections, masks=masks)
        drawn = draw(image, shown, colors=colors, show_unknown=unknown)
        self._written.append(write_image(path, drawn))

    def close(self) -> list[Path]:
        return list(self._written)


def at_most(most: int, image_rgb: ImageRGB, masks: Masks) -> tuple[ImageRGB, Masks]:
    """An image and its masks, both as they are, or reduced to so many pixels.

    Args:
        image_rgb: ``(H, W, 3)`` uint8, RGB.
        masks: of this image. A reduced one keeps at least one pixel.
    """
    height, width = image_rgb.shape[:2]
    factor = math.sqrt(most / (height * width))
    if factor >= 1:
        return image_rgb, masks
    size_wh = max(1, int(width * factor)), max(1, int(height * factor))
    scale = np.array([size_wh[0] / width, size_wh[1] / height])
    low = np.rint(masks.boxes_xyxy[:, :2] * scale).astype(np.int64)
    low = np.minimum(low, np.array(size_wh) - 1)
    high = np.maximum(np.rint(masks.boxes_xyxy[:, 2:] * scale).astype(np.int64), low + 1)
    crops = []
    for index, (columns, rows) in enumerate((high - low).tolist()):
        solid = masks.crop(index).view(np.uint8) * np.uint8(255)
        share = cv2.resize(solid, (columns, rows), interpolation=cv2.INTER_AREA)
        crops.append(np.asarray(share).reshape(rows, columns) >= min(128, int(share.max())))
    boxes = np.concatenate([low, high], axis=1)
    smaller = Masks.from_crops(
        size_hw=size_wh[::-1],
        boxes_xyxy=boxes,
        crops=crops,
        predicted_ious=masks.predicted_ious,
        stabilities=masks.stabilities,
    )
    return reduced(image_rgb, size_wh), smaller


def check_size(image_rgb: ImageRGB, detections: Detections) -> None:
    """Raises ``MaskError`` if the detections are of an image of another size."""
    (height, width), (rows, columns) = detections.size_hw, image_rgb.shape[:2]
    if (height, width) != (rows, columns):
        raise MaskError(
            f"detections of a {width}x{height} picture cannot be drawn on one of {columns}x{rows}"
        )


def draw_objects(
    canvas: ImageRGB, detections: Detections, colors: Mapping[str, ColorRGB], *, line: float
) -> Layout:
    """Draws the objects, the large ones first, and returns where those with a label are.

    Args:
        canvas: the image, changed in place.
        detections: of this image.
        colors: of their labels.
        line: width of the outlines in pixels.
    """
    # objects without a label first: they must not cross those that have one
    is_unknown = np.array(
        [classification.label is None for classification in detections.classifications], bool
    )
    unknown, known = detections.masks[is_unknown], detections.known
    thin = max(1.0, line * 0.5)
    draw_masks(canvas, unknown, UNKNOWN, line_px=thin, line_opacity=UNKNOWN_OPACITY)
    objects = np.zeros(detections.size_hw, np.uint8)
    for i in np.argsort(-known.area, kind="stable").tolist():
        crop = known.masks.crop(i)
        x0, y0, x1, y1 = known.boxes_xyxy[i].tolist()
        objects[y0:y1, x0:x1] |= crop
        side = (float(known.area[i]) / objects.size) ** 0.5  # relative to the image's
        fill = FILL_OPACITY + side * (LEAST_FILL_OPACITY - FILL_OPACITY)
        color = colors[str(known.classifications[i].label)]
        draw_mask(canvas, crop, (x0, y0, x1, y1), color, line_px=line, fill_opacity=fill)
    return Layout(objects)


def draw_counts(
    canvas: ImageRGB,
    layout: Layout,
    detections: Detections,
    colors: Mapping[str, ColorRGB],
    *,
    last: LastPlaces | None = None,
) -> bool:
    """The legend: the most frequent labels first, unknown last; returns whether it had room."""
    counted = Counter(detections.label.tolist())
    unknown = counted.pop(None, 0)
    known = sorted(counted.items(), key=lambda pair: (-pair[1], pair[0]))
    counts = [(label, number, colors[label]) for label, number in known]
    rows = [*counts, *([(None, unknown, UNKNOWN)] if unknown else [])]
    side = (canvas.shape[0] * canvas.shape[1]) ** 0.5
    # on a small image a smaller legend is better than none
    sizes = (int(np.clip(round(side * 0.02), 11, 90)), 11, 9)
    return any(draw_legend(canvas, layout, rows, size, last=last) for size in sizes)


def color_labels(colors: dict[str, ColorRGB], image_rgb: ImageRGB, detections: Detections) -> None:
    """Adds a colour for each label of an image that ``colors`` lacks, one that is visible there."""
    height, width = detections.size_hw
    around: dict[str, npt.NDArray[np.uint8]] = {}
    labels = detections.label
    for label in {str(label) for label in labels if label is not None}.difference(colors):
        boxes = detections.boxes_xyxy[labels == label]
        chosen = boxes[np.linspace(0, len(boxes) - 1, min(len(boxes), SAMPLED_OBJECTS)).astype(int)]
        low, high = chosen[:, None, :2], chosen[:, None, 2:]
        places = np.round((low + high) / 2 + SAMPLES * (high - low)).astype(int)
        xs = np.clip(places[..., 0], 0, width - 1)
        ys = np.clip(places[..., 1], 0, height - 1)
        around[label] = image_rgb[ys, xs].reshape(-1, 3)
    extend_colors(colors, around, around)


def text_px(detections: Detections) -> int:
    """Text size for an image of this size, smaller if its objects are small."""
    height, width = detections.size_hw
    by_image = (height * width) ** 0.5 * 0.022
    wanted = float(np.clip(_typical_side(detections) * 0.4, 0.6 * by_image, by_image))
    return int(np.clip(round(wanted), 9 if min(height, width) < 160 else 11, 90))


def line_px(detections: Detections) -> float:
    """Width of the outlines for an image of this size, thinner if its objects are small."""
    height, width = detections.size_hw
    by_image = (height * width) ** 0.5 * 0.003
    return float(np.clip(min(by_image, _typical_side(detections) * 0.07), 1.2, 14))


def _typical_side(detections: Detections) -> float:
    return float(np.sqrt(np.median(detections.area)))


def _tags(
    detections: Detections, colors: Mapping[str, ColorRGB], *, has_legend: bool
) -> tuple[list[Tag], list[BoxXYXY]]:
    """The tags, and the boxes of the objects that get none.

    The object with the highest confidence of each label comes first, then the others. If there are
    many objects and a legend, tags show only the confidence; in a crowd only objects of rare labels
    get tags.
    """
    counts = Counter(detections.label.tolist())
    known = counts.total() - counts[None]
    many, crowded = has_legend and known > MANY, has_legend and known > CROWDED_AT
    firsts: dict[str, Tag] = {}
    others, without = [], []
    for i in np.argsort(-detections.confidence, kind="stable"):
        classification = detections.classifications[i]
        label, percent = classification.label, f"{classification.confidence:.0%}"
        if label is None:
            continue
        x0, y0, x1, y1 = detections.boxes_xyxy[i].tolist()
        if crowded and counts[label] > RARE:
            without.append((x0, y0, x1, y1))
            continue
        short = many and label in firsts and counts[label] > RARE
        texts = (percent,) if short else (f"{clean(label)} {percent}", percent)
        tag = Tag((x0, y0, x1, y1), colors[label], texts)
        if firsts.setdefault(label, tag) is not tag:
            others.append(tag)
    return [*firsts.values(), *others], without


def draw_preview(
    image_rgb: ImageRGB, masks: Masks, boxes_xywh: Sequence[Sequence[float]] = ()
) -> ImageRGB:
    """A copy of the image with masks outlined and boxes dashed, as a preview of what is learnt.

    Boxes have their number, from 1, as messages count them.

    Args:
        image_rgb: ``(H, W, 3)`` uint8, RGB.
        masks: of this image.
        boxes_xywh: ``x, y, width, height`` in pixels of the image; may extend beyond it.

    Returns:
        ``(H * k, W * k, 3)`` uint8, RGB; ``k`` is above 1 if the image is small, and below 1 if it
        has more than :data:`MOST_PIXELS`.
    """
    whole = image_rgb.shape[1]
    image_rgb, masks = at_most(MOST_PIXELS, image_rgb, masks)
    shrunk = image_rgb.shape[1] / whole
    times = max(1, round(PREVIEW_SIDE / max(image_rgb.shape[:2])))
    canvas = np.repeat(np.repeat(image_rgb, times, axis=0), times, axis=1)
    height, width = canvas.shape[:2]
    enlarged = Masks.from_crops(
        size_hw=(height, width),
        boxes_xyxy=masks.boxes_xyxy * times,
        crops=[np.repeat(np.repeat(crop, times, 0), times, 1) for crop in masks.crops()],
    )
    line = float(np.clip((height * width) ** 0.5 * 0.004, 2, 14))
    draw_masks(canvas, enlarged, PREVIEW_MASK, line_px=line, fill_opacity=PREVIEW_FILL)
    for number, box in enumerate(boxes_xywh, start=1):
        x, y, w, h = (float(np.clip(value * times * shrunk, -1e6, 1e6)) for value in box)
        x0, y0 = max(0, round(x)), max(0, round(y))
        x1, y1 = min(width, round(x + w)), min(height, round(y + h))
        _draw_dashed(canvas, (x0, y0, x1, y1), max(1, round(line * 0.6)))
        _draw_number(canvas, str(number), (x0, y0), round(float(np.clip(line * 6, 13, 90))))
    return canvas


def _draw_dashed(canvas: ImageRGB, box: BoxXYXY, px: int) -> None:
    """A box in dashes of white and black, which is visible on any ground."""
    x0, y0, x1, y1 = box
    ring = np.zeros((max(1, y1 - y0), max(1, x1 - x0)), np.uint8)
    cv2.rectangle(ring, (0, 0), (ring.shape[1] - 1, ring.shape[0] - 1), 255, 2 * px - 1)
    rows, columns = np.indices(ring.shape, sparse=True)
    light = ((rows + columns) // (6 * px)) % 2 == 0
    for shown, color in ((light, PREVIEW_BOX), (~light, BLACK)):
        draw_alpha(canvas, ring * shown, (x0, y0), color)


def _draw_number(canvas: ImageRGB, text: str, corner_xy: tuple[int, int], size_px: int) -> None:
    """A small tag with a number, above the corner if there is room, else in it."""
    letters = text_alpha(text, size_px)
    pad = max(2, size_px // 4)
    size = letters.shape[1] + 2 * pad, line_height(size_px)
    x = max(0, min(corner_xy[0], canvas.shape[1] - size[0]))
    above = corner_xy[1] - size[1]
    y = above if above >= 0 else min(corner_xy[1], max(0, canvas.shape[0] - size[1]))
    draw_alpha(canvas, rounded_rectangle(size, pad), (x, y), PREVIEW_BOX)
    draw_alpha(canvas, letters, (x + pad, y), text_color_on(PREVIEW_BOX))
