"""What a browser gets of a frame: a JPEG of bounded size, and its objects as outlines."""

from __future__ import annotations

import json
import threading
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np

from sam_detect.server.live import ShownFrame
from sam_detect.types import ImageRGB, Masks, TrackedFrame

LONGEST = 1280
"""The longer side of a picture that is sent, at most: larger ones are made smaller."""
QUALITY = 80
MOST_BYTES = 1 << 20
"""A picture that is larger than this at its quality is sent at a lower one."""
LEAST_QUALITY = 20
DETAIL_PX = 0.6
"""How far an outline may be off, in pixels of a picture of :data:`LONGEST`."""
IN_FLIGHT = 2
"""Frames on their way to a client; the next one is sent when it says that it has got one."""


@dataclass(frozen=True)
class SentFrame:
    """A frame as it is sent.

    Attributes:
        number: of what is shown.
        tracked: the frame and its objects.
        header: JSON: number, size, time, tracks.
        jpeg: the picture.
    """

    number: int
    tracked: TrackedFrame
    header: str
    jpeg: bytes


class LiveEncoder:
    """Encodes what is shown, once for all who watch; may be called from any thread."""

    def __init__(self) -> None:
        self._one = threading.Lock()
        self._last: SentFrame | None = None

    def encode(self, shown: ShownFrame) -> SentFrame:
        """What is sent of it."""
        with self._one:
            last = self._last
            if last is None or last.number != shown.number:
                same = last is not None and last.tracked is shown.tracked
                jpeg = last.jpeg if last and same else to_jpeg(shown.tracked.frame.image_rgb)
                text = json.dumps(header(shown), ensure_ascii=False, separators=(",", ":"))
                last = self._last = SentFrame(shown.number, shown.tracked, text, jpeg)
            return last


class Pace:
    """What a client gets next: the latest frame, as soon as it has got those before. One that is
    slow skips frames, and holds up no other client."""

    def __init__(self) -> None:
        self.sent: dict[int, TrackedFrame] = {}
        """The last frames that were sent, by their numbers: what is clicked on is in one of them.
        """
        self._waiting: set[int] = set()
        self._newest = 0

    def takes(self, number: int) -> bool:
        """Whether a frame of this number is to be sent now."""
        return number > self._newest and len(self._waiting) < IN_FLIGHT

    def note_sent(self, frame: SentFrame) -> None:
        """A frame is on its way."""
        self._newest = frame.number
        self._waiting.add(frame.number)
        self.sent[frame.number] = frame.tracked
        while len(self.sent) > IN_FLIGHT + 2:
            del self.sent[min(self.sent)]

    def note_got(self, number: int) -> None:
        """The client has got a frame, and all those before."""
        self._waiting = {each for each in self._waiting if each > number}


def to_jpeg(image_rgb: ImageRGB) -> bytes:
    """A JPEG of at most :data:`LONGEST` pixels a side and about :data:`MOST_BYTES`.

    Args:
        image_rgb: ``(H, W, 3)`` uint8.
    """
    height, width = image_rgb.shape[:2]
    scale = min(1.0, LONGEST / max(height, width))
    if scale < 1:
        size = max(1, round(width * scale)), max(1, round(height * scale))
        image_rgb = cv2.resize(image_rgb, size, interpolation=cv2.INTER_AREA)
    bgr = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2BGR)
    quality = QUALITY
    while True:
        data = cv2.imencode(".jpg", bgr, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
        if len(data) <= MOST_BYTES or quality <= LEAST_QUALITY:
            return data
        quality -= 20


def header(shown: ShownFrame) -> dict[str, Any]:
    """What is said of a frame; coordinates are pixels of the frame, whatever size is sent."""
    tracked, found = shown.tracked, shown.tracked.detections
    tracks = []
    for index, (track, classification) in enumerate(
        zip(tracked.track_ids.tolist(), found.classifications, strict=True)
    ):
        label, confidence = classification.label, classification.confidence
        masks, place = found.masks, index
        if track and track in shown.named:
            label, outline = shown.named[track]
            confidence = 1.0 if label is not None else 0.0
            if outline is not None:
                masks, place = outline, 0
        tracks.append(_track(track, label, confidence, masks, place))
    for track, (label, outline) in shown.named.items():
        if track not in tracked.track_ids and outline is not None and label is not None:
            tracks.append(_track(track, label, 1.0, outline, 0))
    return {
        "type": "frame", "number": shown.number, "frame": tracked.frame.index,
        "time_s": tracked.frame.time_s, "size_hw": list(tracked.frame.size_hw), "tracks": tracks,
    }  # fmt: skip


def rings(masks: Masks, index: int) -> list[list[list[float]]]:
    """The outlines of one mask's parts and holes, as ``x, y`` in pixels of the frame."""
    detail = DETAIL_PX * max(masks.size_hw) / LONGEST  # small pictures are shown enlarged
    plain = []
    for polygon in masks.polygons_with_holes(index):
        for ring in polygon:
            fewer = cv2.approxPolyDP(ring.astype(np.float32)[:, None], detail, closed=True)[:, 0]
            plain.append([[round(x, 1), round(y, 1)] for x, y in fewer.tolist()])
    return plain


def _track(
    track: int, label: str | None, confidence: float, masks: Masks, place: int
) -> dict[str, Any]:
    return {
        "id": track, "label": label, "confidence": round(float(confidence), 3),
        "rings": rings(masks, place), "bbox_xywh": masks.boxes_xywh[place].tolist(),
    }  # fmt: skip
