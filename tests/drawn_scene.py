"""A drawn scene that moves, as frames, as a video file, and a detector that knows half of it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np

from sam_detect.api import SAMDetect
from sam_detect.interfaces import Source
from sam_detect.types import Frame, TrackedFrame

GROUND, DISC, SQUARE = (228, 226, 220), (60, 40, 120), (40, 120, 60)
SIDE = 16
"""Half a side of the objects."""
FRAMES = 30


class Drawn(Source):
    """A disc that moves right, and a square that moves left."""

    def frames(self) -> Iterator[Frame]:
        for index in range(FRAMES):
            yield Frame(picture(index), "drawn", index, time_s=index / 25)


class Stepwise(Drawn):
    """A live source that gives a frame when it is told to."""

    live = True

    def __init__(self) -> None:
        self.more = threading.Semaphore(0)
        self.ended = False

    def frames(self) -> Iterator[Frame]:
        for frame in super().frames():
            assert self.more.acquire(timeout=10)
            if self.ended:
                return
            yield frame

    def stop(self) -> None:
        self.ended = True
        self.more.release()


def picture(index: int) -> np.ndarray:
    """``(120, 160, 3)`` uint8, RGB."""
    image = np.full((120, 160, 3), GROUND, np.uint8)
    x, y = disc_xy(index)
    cv2.circle(image, (x, y), SIDE, DISC, -1, cv2.LINE_AA)
    x, y = square_xy(index)
    cv2.rectangle(image, (x - SIDE, y - SIDE), (x + SIDE, y + SIDE), SQUARE, -1)
    grain = np.random.default_rng(0).integers(-3, 4, image.shape)
    return np.clip(image + grain, 0, 255).astype(np.uint8)


def disc_xy(index: int) -> tuple[int, int]:
    return 30 + index, 30


def square_xy(index: int) -> tuple[int, int]:
    return 130 - index, 88


def track_at(tracked: TrackedFrame, point_xy: tuple[int, int]) -> int:
    """The track of the smallest object on a point."""
    x, y = point_xy
    there = [i for i, d in enumerate(tracked.detections) if d.mask[y, x]]
    assert there, f"nothing at {point_xy}"
    smallest = min(there, key=lambda i: tracked.detections.area[i])
    return int(tracked.track_ids[smallest])


def name_at(tracked: TrackedFrame, point_xy: tuple[int, int]) -> str | None:
    track = track_at(tracked, point_xy)
    return tracked.detections.classifications[tracked.track_ids.tolist().index(track)].label


def fresh(**settings: object) -> SAMDetect:
    return SAMDetect(segmenter="naive", embedder="appearance", **settings)


def with_square() -> SAMDetect:
    """A detector that knows the square."""
    detector = fresh()
    detector.add_examples_from_file(next(Drawn().frames()), square_mask(), "square")
    return detector


def square_mask() -> np.ndarray:
    """``(120, 160)`` bool: the square in the first frame."""
    mask = np.zeros((120, 160), bool)
    x, y = square_xy(0)
    mask[y - SIDE : y + SIDE + 1, x - SIDE : x + SIDE + 1] = True
    return mask


def write_clip(path: Path, frames: int = FRAMES) -> Path:
    """The scene as a video file, without loss (an .avi)."""
    writer = cv2.VideoWriter(str(path), cv2.VideoWriter.fourcc(*"FFV1"), 25, (160, 120))
    for index in range(frames):
        writer.write(cv2.cvtColor(picture(index), cv2.COLOR_RGB2BGR))
    writer.release()
    return path
