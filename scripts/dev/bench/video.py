"""The suite ``video``: a live camera's video end to end, and the frames of a file streamed against
each detected on its own.

What is measured is the default without models, on a video that is drawn frame by frame: ten
objects of two kinds that move over a table, of which four were learnt from the first frame. It is
the same on every machine. ``--repeat N`` makes the live part N minutes long.
"""

from __future__ import annotations

import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import cv2
import numpy as np
import numpy.typing as npt
import trackers  # noqa: F401 - a stream needs it: its lack is named before anything is measured

from sam_detect import parts
from sam_detect.api import SAMDetect
from sam_detect.config import Settings
from sam_detect.interfaces import Source
from sam_detect.io.text_sinks import VideoLinesSink
from sam_detect.io.video_sinks import AnnotatedVideoSink
from sam_detect.types import Detections, Frame, ImageRGB, Masks
from sam_detect.types.masks import BoolArray
from sam_detect.video.threads import Recorder
from scripts.dev.bench.measurements import Measurements, Trial, resident_mb
from scripts.dev.bench.stages import mask_iou
from scripts.dev.bench.suites import Options

SIZE_HW = (480, 640)
OBJECTS = 10
FPS = 30.0
RADIUS = 26
NOISE = 3.0
"""Standard deviation of the camera's noise, grey levels."""
KINDS = ("ring", "plate")


@dataclass(frozen=True)
class Scene:
    """One moment of the video.

    Attributes:
        image_rgb: the picture.
        masks: ``(N, H, W)`` bool, what is seen of each object.
        labels: their kinds, in the same order.
    """

    image_rgb: ImageRGB
    masks: npt.NDArray[np.bool_]
    labels: tuple[str, ...]


def scene(index: int) -> Scene:
    """The moment of a frame, at :data:`FPS` frames a second."""
    image = _table().copy()
    masks = np.zeros((OBJECTS, *SIZE_HW), np.bool_)
    for number in range(OBJECTS):
        color, shape = _shape(number, index / FPS)
        image[shape] = color
        masks[:number, shape] = False  # hidden behind this one
        masks[number] = shape
    noise = np.random.default_rng(index).normal(0, NOISE, image.shape)
    shown = np.clip(cv2.GaussianBlur(image, (3, 3), 0) + noise, 0, 255).astype(np.uint8)
    return Scene(shown, masks, tuple(KINDS[number % 2] for number in range(OBJECTS)))


class MovingScene(Source):
    """Pictures as a video: as fast as they are taken, or live, at their own pace.

    Args:
        images: ``(H, W, 3)`` uint8 each; after the last one they go back to the first, so that
            nothing jumps. Drawn beforehand: drawing takes no time from what is measured.
        frames: how many to give; None: one of each image.
        live: frames come at :data:`FPS`, whether they are taken or not.
    """

    def __init__(
        self, images: Sequence[ImageRGB], frames: int | None = None, *, live: bool = False
    ) -> None:
        self.live = live
        self._count = len(images) if frames is None else frames
        self._images = images
        self._stopped = threading.Event()

    def frames(self) -> Iterator[Frame]:
        started = time.monotonic()
        for index in range(self._count):
            if self.live:
                self._stopped.wait(max(0.0, started + index / FPS - time.monotonic()))
            if self._stopped.is_set():
                return
            image = self._images[there_and_back(index, len(self._images))]
            yield Frame(image, "moving scene", index, time_s=index / FPS)

    def stop(self) -> None:
        self._stopped.set()


def there_and_back(index: int, count: int) -> int:
    """0, 1, ... count - 1, count - 2, ... 0, 1, ... for 0, 1, 2, ..."""
    place = index % max(1, 2 * count - 2)
    return min(place, 2 * count - 2 - place) if count > 1 else 0


@cache
def _table() -> ImageRGB:
    """A ground with large soft spots, such as wood or cloth has."""
    generator = np.random.default_rng(0)
    coarse = generator.normal(0, 1, (12, 16, 1)).astype(np.float32)
    spots = cv2.resize(coarse, SIZE_HW[::-1], interpolation=cv2.INTER_CUBIC)[..., None]
    return np.asarray(np.clip((188, 172, 150) + 9 * spots, 0, 255), np.uint8)


def _shape(number: int, time_s: float) -> tuple[tuple[int, int, int], BoolArray]:
    """Colour and pixels of an object: each goes its own slow way, and some meet."""
    generator = np.random.default_rng(100 + number)
    phase, speed = generator.uniform(0, 2 * np.pi, 2), generator.uniform(0.25, 0.6, 2)
    height, width = SIZE_HW
    middle = (width * (number % 5 + 0.5) / 5, height * (number // 5 + 0.5) / 2)
    x, y = middle + np.array([60, 80]) * np.sin(phase + speed * time_s)
    grain = tuple(int(v) for v in generator.integers(-12, 13, 3))
    drawn = np.zeros(SIZE_HW, np.uint8)
    shift = 4  # OpenCV's fixed point: sixteenths of a pixel
    centre = (round(x * 2**shift), round(y * 2**shift))
    if KINDS[number % 2] == "ring":
        cv2.circle(drawn, centre, RADIUS << shift, 1, -1, shift=shift)
        cv2.circle(drawn, centre, 9 << shift, 0, -1, shift=shift)
        color = (60, 70, 95)
    else:
        angle = phase[0] + speed[1] * time_s
        turned = cv2.boxPoints(((x, y), (58.0, 38.0), np.degrees(angle)))
        cv2.fillPoly(drawn, [np.rint(turned * 2**shift).astype(np.int32)], 1, shift=shift)
        color = (150, 60, 40)
    red, green, blue = (int(np.clip(c + g, 0, 255)) for c, g in zip(color, grain, strict=True))
    return (red, green, blue), drawn.astype(np.bool_)


LEARNT = 4
DRAWN = 300
"""Different frames of the live part."""
SAME_IOU = 0.5


@dataclass(frozen=True)
class Workload:
    """How much is measured.

    Attributes:
        live_s: seconds of live video for each repeat.
        settle_s: of them, before memory is sampled: buffers and caches fill.
        file_frames: of the video that is streamed as a file.
        by_itself: one frame in this many is detected by itself; the time is multiplied.
        rounds: of both, at least.
    """

    live_s: float = 60.0
    settle_s: float = 15.0
    file_frames: int = 90
    by_itself: int = 15
    rounds: int = 3


def run(measurements: Measurements, options: Options, workload: Workload | None = None) -> None:
    """A paced live source at 640 x 480 with ten objects, written as MP4 and JSON lines; and the
    pair ``stream_vs_every_frame``."""
    workload = workload or Workload()
    height, width = scene(0).image_rgb.shape[:2]
    measurements.workload = f"{width}x{height}, {len(scene(0).labels)} objects, {FPS:g} a second"
    detector = _detector()
    measurements.recipe = detector.recipe.to_dict()
    measurements.announce("live")
    _live(detector, measurements, workload)
    _file(detector, measurements, workload)


def _detector() -> SAMDetect:
    """The default without models, independent of the user's settings."""
    settings = Settings.model_validate({})
    detector = SAMDetect(
        segmenter=parts.make_segmenter(settings), embedder="lite", vector_store="memory"
    )
    first = scene(0)
    detector.learn_frame(
        Frame(first.image_rgb, "the first frame"),
        Masks.from_dense(first.masks[:LEARNT]),
        first.labels[:LEARNT],
    )
    return detector


def _live(detector: SAMDetect, measurements: Measurements, workload: Workload) -> None:
    """From the frame's arrival to its objects, while outputs are written."""
    seconds = workload.live_s * measurements.repeat
    images = [scene(index).image_rgb for index in range(min(round(seconds * FPS), DRAWN))]
    source = MovingScene(images, round(seconds * FPS), live=True)
    memory = _Memory(workload.settle_s)
    objects = []
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        annotated = AnnotatedVideoSink(Path(folder, "live.mp4"))
        lines = VideoLinesSink(Path(folder, "live.jsonl"))
        recorder = Recorder([annotated, lines], live=True)
        with detector.stream(source) as stream:
            for tracked in stream:
                recorder.write(tracked)
                objects.append(len(tracked.detections))
                memory.sample()
        recorder.close()
    done = stream.statistics
    measurements.stages["live"] = {
        "median_ms": round(done.latency_ms(0.5), 4),
        "spread_ms": round(done.latency_ms(0.75) - done.latency_ms(0.25), 4),
        "peak_memory_mb": memory.peak_mb,
        "fps": round(done.mean_fps, 2),
        "latency_p95_ms": round(done.latency_ms(0.95), 2),
        "memory_slope_mb_per_min": memory.slope_mb_per_min,
    }
    measurements.figures["live_seconds"] = seconds
    measurements.figures["live_key_frames"] = done.keys
    measurements.figures["live_dropped"] = done.dropped
    measurements.figures["live_not_written"] = recorder.dropped
    measurements.figures["live_objects_median"] = float(np.median(objects))


def _file(detector: SAMDetect, measurements: Measurements, workload: Workload) -> None:
    """The frames of a file followed, against each detected on its own; F1 of both."""
    scenes = [scene(index) for index in range(workload.file_frames)]
    alone = range(workload.by_itself // 2, len(scenes), workload.by_itself)
    frames = [Frame(scenes[index].image_rgb, "alone", index) for index in alone]

    images = [moment.image_rgb for moment in scenes]

    def stream_all(_: object) -> list[Detections]:
        with detector.stream(MovingScene(images)) as stream:
            return [tracked.detections for tracked in stream]

    def every(_: object) -> list[Detections]:
        return [detector.detect(frame) for frame in frames]

    streamed, by_itself = stream_all(None), every(None)
    figures = measurements.figures
    figures["stream_f1"] = _f1(streamed, scenes)
    figures["every_frame_f1"] = _f1(by_itself, [scenes[index] for index in alone])
    measurements.announce("stream_vs_every_frame")
    a, b = measurements.interleave(
        [Trial("stream", stream_all), Trial("every frame", every)], least=workload.rounds
    )
    measurements.add_pair(
        "stream_vs_every_frame", a.scaled(1 / len(scenes)), b.scaled(1 / len(frames))
    )


def _f1(found: list[Detections], scenes: list[Scene]) -> float:
    """Of all frames together: objects found under their name at IoU of at least .5."""
    right = named = there = 0
    for detections, truth in zip(found, scenes, strict=True):
        known = detections.known
        named += len(known)
        there += len(truth.labels)
        for mask, label in zip(truth.masks, truth.labels, strict=True):
            # Objects are too far apart for one detection to serve two.
            ious = (mask_iou(each.mask, mask) for each in known if each.label == label)
            right += max(ious, default=0.0) >= SAME_IOU
    return round(2 * right / max(1, named + there), 4)


class _Memory:
    """Resident memory over time."""

    def __init__(self, settle_s: float) -> None:
        self._settle_s = settle_s
        self._started = time.monotonic()
        self._seen: list[tuple[float, float]] = []

    def sample(self) -> None:
        """Takes a sample, if the last is a second old."""
        now = time.monotonic() - self._started
        resident = resident_mb()
        if resident is not None and (not self._seen or now - self._seen[-1][0] >= 1):
            self._seen.append((now, resident))

    @property
    def peak_mb(self) -> float | None:
        """Most memory seen above the least."""
        values = [mb for _, mb in self._seen]
        return round(max(values) - min(values), 2) if values else None

    @property
    def slope_mb_per_min(self) -> float | None:
        """Of the straight line through the samples after settling (least squares)."""
        settled = [(at, mb) for at, mb in self._seen if at >= self._settle_s]
        if len(settled) < 3:
            return None
        at, mb = np.array(settled).T
        return round(float(np.polyfit(at / 60, mb, 1)[0]), 3)
