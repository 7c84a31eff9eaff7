"""Sources of video: a file, a folder of frames, a camera or an address, as a user names it."""

from __future__ import annotations

import glob
import os
import re
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from types import SimpleNamespace

import cv2
import numpy as np

from sam_detect.errors import ConfigError, ImageError, one_line
from sam_detect.interfaces import Source
from sam_detect.io._http import is_url
from sam_detect.io._readers import open_picture, quiet_readers
from sam_detect.io._reconnect import (
    RETRIES,
    TIMEOUT_S,
    BrokenError,
    LiveSource,
    RecordingSource,
    Retry,
    interruptibly,
)
from sam_detect.io._video_decoding import DecodedVideo, decode_file
from sam_detect.io.decoding import (
    DEFAULT_MAX_PIXELS,
    check_file,
    check_pixels,
    unreadable,
)
from sam_detect.io.images import find_images, load_image
from sam_detect.io.pixels import FirstStretch, array_to_rgb, picture_to_rgb
from sam_detect.io.streams import open_url
from sam_detect.types import Frame, ImageRGB

FRAME_RATE = 25.0
ANIMATED = (b"WEBP", b"avif", b"avis")


def open_source(
    argument: int | str | os.PathLike[str],
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    frame_rate: float = FRAME_RATE,
    timeout_s: float = TIMEOUT_S,
    retries: int = RETRIES,
    playlist_hosts: str = "own",
) -> Source:
    """The source of frames that a user names, opened, so that what is missing is reported at once.

    Args:
        argument: a camera's number (also as text), an address (http, https, rtsp, rtsps), a
            folder or pattern of pictures, or a video file.
        max_pixels: larger frames are refused before they are decoded.
        frame_rate: of a folder or pattern, in frames a second.
        timeout_s: how long to wait for the next part of a stream.
        retries: how often to try to open a stream or camera again, in a row.
        playlist_hosts: where a playlist may lead: ``own`` (its own host and port) or ``any``.

    Raises:
        ConfigError: an address or number that names no source.
        ImageError: it is not there, or is no video.
    """
    if isinstance(argument, bool) or not isinstance(argument, (int, str, os.PathLike)):
        raise ConfigError(
            "a video is a camera's number, a path, an address or a sam_detect.interfaces.Source, "
            f"got {type(argument).__name__}"
        )
    name = str(argument)
    # A number is a camera's; a Path never is, nor a text that names what is there.
    is_folder = not isinstance(argument, int) and os.path.isdir(name)
    is_number = not isinstance(argument, os.PathLike) and name.removeprefix("-").isdecimal()
    if is_number and not is_folder:
        return CameraSource(int(name), retries=retries, max_pixels=max_pixels)
    if is_url(name):
        return open_url(
            name,
            timeout_s=timeout_s,
            retries=retries,
            max_pixels=max_pixels,
            playlist_hosts=playlist_hosts,
        )
    if is_folder or (glob.has_magic(name) and not os.path.lexists(name)):
        return FramesSource(name, frame_rate=frame_rate, max_pixels=max_pixels)
    return open_file(name, max_pixels=max_pixels)


def open_file(path: str | os.PathLike[str], *, max_pixels: int = DEFAULT_MAX_PIXELS) -> Source:
    """The frames of a video file, upright. Only this file is read: what a playlist names is not
    followed.

    Args:
        path: the file; becomes the frames' ``source_id``.
        max_pixels: larger frames are refused before they are decoded.

    Raises:
        ImageError: there is no such file, or it is no video with pictures.
    """
    name = os.fspath(path)

    def open_video() -> DecodedVideo:
        check_file(name, "video")
        try:
            file = open(name, "rb", buffering=0)  # noqa: SIM115  closed with the video
        except OSError as error:
            raise unreadable(name, error, "video") from error
        nameless = SimpleNamespace(read=file.read, seek=file.seek, tell=file.tell)
        try:
            return decode_file(
                nameless, name=name, max_pixels=max_pixels, live=False, before_close=file.close
            )
        except BaseException:
            file.close()
            raise

    open_video().close()
    with open(name, "rb") as file:
        if file.read(12)[8:] in ANIMATED:
            return AnimationSource(name, max_pixels)
    return RecordingSource(name, Retry(name, 0), open_video)


class AnimationSource(Source):
    """The frames of a WebP or AVIF, of which FFmpeg gives one at most."""

    def __init__(self, name: str, max_pixels: int) -> None:
        self.name, self._max_pixels = name, max_pixels

    def frames(self) -> Iterator[Frame]:
        time_s = 0.0
        try:
            with quiet_readers(), open(self.name, "rb") as file, open_picture(file) as image:
                check_pixels(image.size, self._max_pixels, self.name)
                for number in range(getattr(image, "n_frames", 1)):
                    image.seek(number)
                    rgb = picture_to_rgb(image, self.name)
                    yield Frame(rgb, self.name, number, time_s=time_s)
                    time_s += image.info.get("duration", 0) / 1000
        except ImageError:
            raise
        except Exception as error:  # a damaged file makes a decoder raise nearly anything
            raise ImageError(f"the video '{self.name}' is damaged ({one_line(error)})") from error


class FramesSource(Source):
    """The pictures of a folder or pattern as a video: in natural order, evenly in time, and deep
    ones all brought to 8 bits as the first one is.

    Args:
        argument: see :func:`~sam_detect.io.find_images`.
        frame_rate: frames a second.

    Raises:
        ImageError: there are none.
    """

    def __init__(
        self,
        argument: str | os.PathLike[str],
        *,
        frame_rate: float = FRAME_RATE,
        max_pixels: int = DEFAULT_MAX_PIXELS,
    ) -> None:
        self.name = os.fspath(argument)
        self._paths, self._max_pixels = find_images(argument), max_pixels
        self._frame_rate = frame_rate

    def frames(self) -> Iterator[Frame]:
        """The frames. One that cannot be read raises ``ImageError`` from ``next()``; asking again
        gives the one after it."""
        stretch = FirstStretch()

        def load(numbered: tuple[int, str]) -> Frame:
            index, path = numbered
            frame = load_image(path, max_pixels=self._max_pixels, index=index, stretch=stretch)
            return replace(frame, time_s=index / self._frame_rate)

        return map(load, enumerate(self._paths))  # a generator would end with its first error


class PacedSource(Source):
    """A recording, played at its own rate as a camera would give it.

    Args:
        recording: a source whose frames have times. It is read a frame ahead.
    """

    live = True

    def __init__(self, recording: Source) -> None:
        self.name, self._recording = recording.name, recording
        self._stopped = threading.Event()

    def frames(self) -> Iterator[Frame]:
        """The frames, each when it is due. One that cannot be read raises ``ImageError`` from
        ``next()``; asking again gives the one after it."""
        return _Paced(self._recording.frames(), self._stopped)

    def stop(self) -> None:
        self._stopped.set()
        self._recording.stop()


class _Paced(Iterator[Frame]):
    def __init__(self, frames: Iterator[Frame], stopped: threading.Event) -> None:
        self._frames, self._stopped = frames, stopped
        self._began_s: float | None = None

    def __next__(self) -> Frame:
        frame = next(self._frames)
        now_s, time_s = time.monotonic(), frame.time_s or 0.0
        if self._began_s is None:
            self._began_s = now_s - time_s
        if self._stopped.wait(max(0.0, self._began_s + time_s - now_s)):
            raise StopIteration
        return frame


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
    """Which cameras this machine has, where it says that."""
    if not sys.platform.startswith("linux"):
        return "; check that it is plugged in"
    numbers = sorted(int(each) for each in re.findall(r"\d+", " ".join(glob.glob("/dev/video*"))))
    return f" (here are: {', '.join(map(str, numbers))})" if numbers else " (this machine has none)"
