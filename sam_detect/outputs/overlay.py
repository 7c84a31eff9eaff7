"""Detections drawn into their picture."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from sam_detect.errors import MaskError
from sam_detect.interfaces import Sink
from sam_detect.outputs._atomic import InputGuard
from sam_detect.outputs._objects import (
    color_labels,
    counts_of,
    legend_px,
    line_px,
    paint_objects,
    text_px,
)
from sam_detect.outputs._palette import ColorRGB
from sam_detect.outputs._pictures import PicturePaths, write_image
from sam_detect.outputs._tags import CROWDED_AT, Box, Layout, Tag, draw_legend, place_tags
from sam_detect.outputs._text import clean
from sam_detect.types import Detections, Frame, ImageRGB

MANY, RARE = 25, 10
"""In a picture with more than so many objects, a label is written out only once, unless at most so
many objects have it. The legend tells it by its colour."""


def draw(
    image_rgb: ImageRGB,
    detections: Detections,
    *,
    colors: Mapping[str, ColorRGB] | None = None,
    show_unknown: bool = True,
    show_tags: bool = True,
    show_legend: bool = True,
) -> ImageRGB:
    """The picture with its detections drawn in; the given one stays as it is.

    Each object with a label gets a translucent fill, an outline and, where there is room, a tag
    with its label and confidence, or only the confidence where that hides less. Objects without a
    label get a thin grey outline. A legend says which colour is which label and counts the
    objects. Lines and text follow the size of the picture and of its objects. Tags never overlap
    and never hide a small object; those without a place are left out, as is the legend on tiny
    pictures. Where there are many objects, only those of rare labels have tags.

    Args:
        image_rgb: ``(H, W, 3)`` uint8, RGB.
        detections: of this picture.
        colors: RGB colours of labels, for a series of pictures; the others get one that differs
            from these and from the picture.
        show_unknown: whether objects without a label are outlined and counted.
        show_tags: whether labels and confidences are written beside the objects.
        show_legend: whether the legend is drawn.

    Returns:
        ``(H, W, 3)`` uint8, RGB.

    Raises:
        MaskError: the detections are of a picture of another size.
    """
    if image_rgb.shape[:2] != detections.size_hw:
        (height, width), (rows, columns) = detections.size_hw, image_rgb.shape[:2]
        raise MaskError(
            f"detections of a {width}x{height} picture cannot be drawn on one of {columns}x{rows}"
        )
    names = [verdict.label for verdict in detections.verdicts]
    used = dict(colors or {})
    color_labels(used, image_rgb, detections)
    shown = [i for i, name in enumerate(names) if show_unknown or name is not None]
    canvas = np.array(image_rgb, order="C")
    if not shown:
        return canvas
    line = line_px(detections, shown)
    objects = paint_objects(canvas, detections, shown, used, line=line)
    layout = Layout(objects)
    has_legend = False
    if show_legend:
        counts = counts_of([names[i] for i in shown], used)
        # on a small picture a smaller legend is better than none
        sizes = (legend_px(canvas), 11, 9)
        has_legend = any(draw_legend(canvas, layout, counts, size) for size in sizes)
    if show_tags:
        tags, others = _tags(detections, used, has_legend=has_legend)
        place_tags(canvas, layout, tags, text_px(detections, shown), without_tags=others)
    return canvas


class OverlaySink(Sink):
    """A picture for each picture, with its detections drawn in by :func:`draw`.

    Args:
        output: for one picture the file to write, or an existing folder; for several a folder,
            which is made if needed. In a folder the pictures keep their stems (``x.jpg`` becomes
            ``x.png``); a stem that was used already gets a number (``x-2.png``).
        multiple: whether more than one picture may come.
        inputs: the pictures being read, which are never overwritten.
        include_unknown: whether objects without a label are drawn.

    Raises:
        OutputError: here and in ``write``, for what cannot be written, an ending that names no
            picture format, or a file that would overwrite one of the pictures being read.
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
        self._paths = PicturePaths(output, multiple=multiple)
        self._guard = InputGuard(inputs)
        self._written: list[Path] = []
        self._colors: dict[str, ColorRGB] = {}

    def write(self, frame: Frame, detections: Detections) -> None:
        path = self._paths.path_for(frame.source_id)
        self._guard.add(frame.source_id)
        self._guard.check(path)
        color_labels(self._colors, frame.image_rgb, detections)  # kept from picture to picture
        colors, unknown = self._colors, self._include_unknown
        drawn = draw(frame.image_rgb, detections, colors=colors, show_unknown=unknown)
        self._written.append(write_image(path, drawn))

    def close(self) -> list[Path]:
        return list(self._written)


def _tags(
    detections: Detections, colors: Mapping[str, ColorRGB], *, has_legend: bool
) -> tuple[list[Tag], list[Box]]:
    """The tags, and the boxes of the objects that get none.

    The surest of each label come first, then the others: where there is little room, those matter.
    Where there are many objects and a legend, colours tell the labels, and tags say only the
    confidence; in a crowd only objects of rare labels get tags.
    """
    confidence = detections.confidence
    counts = Counter(verdict.label for verdict in detections.verdicts)
    known = counts.total() - counts[None]
    many, crowded = has_legend and known > MANY, has_legend and known > CROWDED_AT
    firsts: dict[str, Tag] = {}
    others, without = [], []
    for i in np.argsort(-confidence, kind="stable"):
        label = detections.verdicts[i].label
        if label is None:
            continue
        x0, y0, x1, y1 = (int(v) for v in detections.boxes_xyxy[i])
        if crowded and counts[label] > RARE:
            without.append((x0, y0, x1, y1))
            continue
        percent = f"{confidence[i]:.0%}"
        full = () if many and label in firsts and counts[label] > RARE else (clean(label) + " ",)
        texts = tuple(name + percent for name in (*full, ""))
        tag = Tag((x0, y0, x1, y1), colors[label], texts)
        if firsts.setdefault(label, tag) is not tag:
            others.append(tag)
    return [*firsts.values(), *others], without
