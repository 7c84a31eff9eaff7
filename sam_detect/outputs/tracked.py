"""The tracked objects of a video drawn into its frames, so that nothing flickers or jumps."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sam_detect.errors import MaskError
from sam_detect.outputs._objects import (
    color_labels,
    counts_of,
    legend_px,
    line_px,
    paint_objects,
    text_px,
)
from sam_detect.outputs._palette import UNKNOWN, ColorRGB
from sam_detect.outputs._tags import (
    Box,
    Layout,
    Places,
    Tag,
    draw_legend,
    place_tags,
)
from sam_detect.outputs._text import clean
from sam_detect.types import Detection, ImageRGB, TrackedFrame

CHANGED = 1.3
"""Lines and letters keep their size until another would fit so many times better."""
FOLLOWING = 0.5
"""Share of the way to its object that a tag goes in a frame: outlines tremble, tags need not."""
FAR = 0.5
"""Of an object's size: one that has moved farther in a frame takes its tag along at once."""


class TrackPainter:
    """Draws the frames of one video.

    A label keeps its colour, an object's tag its place beside the object, the legend its corner,
    and lines and letters their size, as long as that is possible.
    """

    def __init__(self) -> None:
        self._colors: dict[str, ColorRGB] = {}
        self._places = Places()
        self._boxes: dict[int, Box] = {}
        self._line_px = self._text_px = 0.0

    def draw(self, tracked: TrackedFrame) -> ImageRGB:
        """The frame with its objects drawn in, each tagged with its track's number and its name.

        Args:
            tracked: the next frame.

        Returns:
            ``(H, W, 3)`` uint8, RGB; the frame itself stays as it is.

        Raises:
            MaskError: the detections are of a picture of another size.
        """
        found = tracked.detections
        if tracked.frame.size_hw != found.size_hw:
            raise MaskError(f"detections of {found.size_hw} do not fit {tracked.frame.size_hw}")
        canvas = np.array(tracked.frame.image_rgb, order="C")
        shown = list(range(len(found)))
        if not shown:
            self._boxes = {}
            return canvas
        names = [verdict.label for verdict in found.verdicts]
        color_labels(self._colors, tracked.frame.image_rgb, found)
        self._line_px = _kept(self._line_px, line_px(found, shown))
        self._text_px = _kept(self._text_px, text_px(found, shown))
        layout = Layout(paint_objects(canvas, found, shown, self._colors, line=self._line_px))
        counts = counts_of(names, self._colors)
        sizes = (legend_px(canvas), 11, 9)
        any(draw_legend(canvas, layout, counts, size, places=self._places) for size in sizes)
        tags = self._tags(tracked)
        place_tags(canvas, layout, tags, round(self._text_px), places=self._places)
        return canvas

    def _tags(self, tracked: TrackedFrame) -> list[Tag]:
        """The named ones first, by their number: an order that stays."""
        tracks = [int(track) for track in tracked.track_ids]
        boxes = self._followed(tracks, tracked.detections.boxes_xyxy.tolist())
        of_all = zip(tracks, boxes, tracked.detections, strict=True)
        ordered = sorted(of_all, key=lambda each: each[2].label is None)
        return [
            Tag(
                box_xyxy=box,
                color=UNKNOWN if each.label is None else self._colors[each.label],
                texts=_texts(track, each),
                track_id=track,
            )
            for track, box, each in ordered
        ]

    def _followed(self, tracks: Sequence[int], boxes_xyxy: Sequence[Sequence[int]]) -> list[Box]:
        """The boxes that the tags lie at: those of the objects, without their trembling."""
        followed = []
        for track, (x0, y0, x1, y1) in zip(tracks, boxes_xyxy, strict=True):
            now = (x0, y0, x1, y1)
            was = self._boxes.get(track, now) if track else now
            moved = max(abs(a - b) for a, b in zip(was, now, strict=True))
            near = moved <= FAR * max(x1 - x0, y1 - y0)
            followed.append(_between(was, now) if near else now)
        self._boxes = dict(zip(tracks, followed, strict=True))
        return followed


def _between(was: Box, now: Box) -> Box:
    x0, y0, x1, y1 = (round(a + FOLLOWING * (b - a)) for a, b in zip(was, now, strict=True))
    return x0, y0, x1, y1


def _kept(before: float, wanted: float) -> float:
    return before if before and wanted / CHANGED < before < wanted * CHANGED else wanted


def _texts(track: int, detection: Detection) -> tuple[str, ...]:
    number = f"#{track}" if track else ""
    if detection.label is None:
        return (number or "unknown",)
    name = f"{number} {clean(detection.label)}".strip()
    return (f"{name} {detection.confidence:.0%}", name, number or name)
