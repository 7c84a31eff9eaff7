"""Cameras of this machine, by their number (OpenCV)."""

from __future__ import annotations

import glob
import re
import sys
import time
from collections.abc import Iterator

import cv2
import numpy as np

from sam_detect.errors import ConfigError, ImageError
from sam_detect.sources._reconnect import RETRIES, BrokenError, LiveSource, Retry, interruptibly
from sam_detect.sources.decoding import check_pixels
from sam_detect.sources.images import DEFAULT_MAX_PIXELS
from sam_detect.sources.pixels import array_to_rgb
from sam_detect.types import ImageRGB


class CameraSource(LiveSource):
    """The pictures of a camera, each at the time at which it came.

    Args:
        number: the camera's, from 0.
        retries: how often to try to open it again after it broke off, as when it is unplugged.
        max_pixels: larger pictures are refused.

    Raises:
        ConfigError: the number is less than 0.
        ImageError: there is no such camera, or another program has it.
    """

    def __init__(
        self, number: int, *, retries: int = RETRIES, max_pixels: int = DEFAULT_MAX_PIXELS
    ) -> None:
        if number < 0:
            raise ConfigError(f"a camera's number is 0 or more, got {number}")
        name = f"camera {number}"

        def open_camera() -> _CameraSession:
            return _CameraSession(number, max_pixels)

        super().__init__(name, Retry(name, retries), open_camera(), open_camera)


class _CameraSession:
    step_s = 0.04
    damaged = 0

    def __init__(self, number: int, max_pixels: int) -> None:
        self._name, self._max_pixels = f"camera {number}", max_pixels
        self._capture = interruptibly(lambda: _capture(number))
        if not self._capture.isOpened():
            self._capture.release()
            raise ImageError(
                f"there is no camera {number}, or another program has it{_cameras_here()}"
            )
        self._capture.set(cv2.CAP_PROP_BUFFERSIZE, 1)  # else old pictures come first

    def __iter__(self) -> Iterator[tuple[ImageRGB, float | None]]:
        while True:
            given, image = self._capture.read()
            if not given or image is None:
                raise BrokenError("gives no pictures any more; is it unplugged?")
            now_s = time.monotonic()
            array = np.asarray(image)
            check_pixels((array.shape[1], array.shape[0]), self._max_pixels, self._name)
            yield array_to_rgb(array, color_order="bgr", name=self._name), now_s

    def close(self) -> None:
        self._capture.release()


def _capture(number: int) -> cv2.VideoCapture:
    """The camera, without OpenCV's own messages on stderr."""
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        return cv2.VideoCapture(number)
    finally:
        cv2.utils.logging.setLogLevel(level)


def _cameras_here() -> str:
    """Which cameras this machine has, as far as it says."""
    if not sys.platform.startswith("linux"):
        return "; check that it is plugged in"
    numbers = sorted(int(each) for each in re.findall(r"\d+", " ".join(glob.glob("/dev/video*"))))
    return f" (here are: {', '.join(map(str, numbers))})" if numbers else " (this machine has none)"
