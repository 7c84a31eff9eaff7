"""A video drawn frame by frame: ten things of two kinds that move over a table, and where each is.

The same on every machine. The camera's noise differs from frame to frame, as a camera's does.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.interfaces import Source
from sam_detect.masks import BoolArray
from sam_detect.types import Frame, ImageRGB

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
        live: frames come at :data:`FPS`, whoever takes them.
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
