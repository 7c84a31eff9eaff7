"""The tracked objects of a video drawn into its frames, without flicker."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from sam_detect.outputs.colors import UNKNOWN, ColorRGB
from sam_detect.outputs.drawing import BoxXYXY, clean
from sam_detect.outputs.overlay import (
    check_size,
    color_labels,
    draw_counts,
    draw_objects,
    line_px,
    text_px,
)
from sam_detect.outputs.tags import LastPlaces, Tag, place_tags
from sam_detect.types import Detection, ImageRGB, TrackedFrame

RESIZE_AT = 1.3
"""Lines and text keep their size until another would fit better by this factor."""
SMOOTHING = 0.5
"""Share of its object's motion that a tag follows per frame: outlines jitter, tags need not."""
JUMP = 0.5
"""Share of an object's size: if it moves farther in a frame its tag follows at once."""


class TrackPainter:
    """Draws the frames of one video.

    A label keeps its colour, a tag its place relative to its object, the legend its corner, and
    lines and text their size, as long as that is possible.
    """

    def __init__(self) -> None:
        self._colors: dict[str, ColorRGB] = {}
        self._last = LastPlaces()
        self._boxes: dict[int, BoxXYXY] = {}
        self._line_px = self._text_px = 0.0

    def draw(self, tracked: TrackedFrame) -> ImageRGB:
        """A copy of the frame with its objects drawn in, tagged with track id and label.

        Args:
            tracked: the next frame.

        Returns:
            ``(H, W, 3)`` uint8, RGB.

        Raises:
            MaskError: the detections are of an image of another size.
        """
        found, image = tracked.detections, tracked.frame.image_rgb
        check_size(image, found)
        canvas = np.array(image, order="C")
        if not len(found):
            self._boxes = {}
            return canvas
        color_labels(self._colors, image, found)
        self._line_px = _kept(self._line_px, line_px(found))
        self._text_px = _kept(self._text_px, text_px(found))
        layout = draw_objects(canvas, found, self._colors, line=self._line_px)
        draw_counts(canvas, layout, found, self._colors, last=self._last)
        place_tags(canvas, layout, self._tags(tracked), round(self._text_px), last=self._last)
        return canvas

    def _tags(self, tracked: TrackedFrame) -> list[Tag]:
        """Those with a label first, each group in the order of the tracks, which is stable."""
        tracks = tracked.track_ids.tolist()
        boxes = self._smoothed(tracks, tracked.detections.boxes_xyxy.tolist())
        objects = zip(tracks, boxes, tracked.detections, strict=True)
        return [
            Tag(
                box_xyxy=box,
                color=UNKNOWN if each.label is None else self._colors[each.label],
                texts=_texts(track, each),
                track_id=track,
            )
            for track, box, each in sorted(objects, key=lambda item: item[2].label is None)
        ]

    def _smoothed(
        self, tracks: Sequence[int], boxes_xyxy: Sequence[Sequence[int]]
    ) -> list[BoxXYXY]:
        """The boxes that tags are placed at: those of the objects, without their jitter."""
        smoothed: list[BoxXYXY] = []
        for track, now in zip(tracks, boxes_xyxy, strict=True):
            before = self._boxes.get(track, now) if track else now
            moved = max(abs(a - b) for a, b in zip(before, now, strict=True))
            jumped = moved > JUMP * max(now[2] - now[0], now[3] - now[1])
            share = 1.0 if jumped else SMOOTHING
            x0, y0, x1, y1 = (round(a + share * (b - a)) for a, b in zip(before, now, strict=True))
            smoothed.append((x0, y0, x1, y1))
        self._boxes = dict(zip(tracks, smoothed, strict=True))
        return smoothed


def _kept(before: float, wanted: float) -> float:
    return before if before and wanted / RESIZE_AT < before < wanted * RESIZE_AT else wanted


def _texts(track: int, detection: Detection) -> tuple[str, ...]:
    number = f"#{track}" if track else ""
    if detection.label is None:
        return (number or "unknown",)
    name = f"{number} {clean(detection.label)}".strip()
    return (f"{name} {detection.confidence:.0%}", name, number or name)
