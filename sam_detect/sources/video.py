"""Sources of video: a file, a folder of frames, a camera or an address, as a user names it."""

from __future__ import annotations

import glob
import os
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace
from typing import BinaryIO

from sam_detect.errors import ConfigError, ImageError, one_line
from sam_detect.interfaces import Source
from sam_detect.sources._reconnect import RETRIES, TIMEOUT_S
from sam_detect.sources._video_decoding import DecodedVideo, decode_file
from sam_detect.sources.addresses import is_url
from sam_detect.sources.cameras import CameraSource
from sam_detect.sources.images import DEFAULT_MAX_PIXELS, FolderSource
from sam_detect.sources.scaling import FirstStretch
from sam_detect.sources.streams import open_url, whole
from sam_detect.types import Frame

__all__ = ["CameraSource", "FramesSource", "VideoFileSource", "open_source", "open_url"]

FRAME_RATE = 25.0


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
    return VideoFileSource(name, max_pixels=max_pixels)


class VideoFileSource(Source):
    """The frames of a video file, upright, each with its time stamp.

    Only this file is read: what a playlist names is not followed.

    Args:
        path: the file; becomes the frames' ``source_id``.
        max_pixels: larger frames are refused before they are decoded.

    Attributes:
        damaged: packets so far that could not be decoded.

    Raises:
        ImageError: there is no such file, or it is no video with pictures.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, max_pixels: int = DEFAULT_MAX_PIXELS
    ) -> None:
        self.name = os.fspath(path)
        self._max_pixels = max_pixels
        self._stopped = threading.Event()
        with _file(self.name) as file:
            self._opened(file).close()

    def frames(self) -> Iterator[Frame]:
        """The frames in the order in which they are shown.

        Raises:
            ImageError: at the end, where it has no frame, is damaged or ends too early; what could
                be decoded has been given.
        """
        with _file(self.name) as file, closing(self._opened(file)) as video:
            yield from whole(self, video, self._stopped)

    def stop(self) -> None:
        self._stopped.set()

    def _opened(self, file: BinaryIO) -> DecodedVideo:
        nameless = SimpleNamespace(read=file.read, seek=file.seek, tell=file.tell)
        return decode_file(nameless, name=self.name, max_pixels=self._max_pixels, live=False)


def _file(path: str) -> BinaryIO:
    """The opened file; raises ``ImageError`` for what is no readable, non-empty file."""
    try:
        found = os.stat(path)
        if not stat.S_ISREG(found.st_mode):
            raise ImageError(f"'{path}' is no file; give a video file, or a folder of pictures")
        if not found.st_size:
            raise ImageError(f"the video '{path}' is empty (0 bytes); copy or record it again")
        return open(path, "rb", buffering=0)
    except FileNotFoundError:
        raise ImageError(f"the video '{path}' does not exist; check the path") from None
    except (OSError, ValueError) as error:
        reason = getattr(error, "strerror", None) or one_line(error)
        raise ImageError(f"the video '{path}' cannot be read: {reason}") from error


class FramesSource(Source):
    """The pictures of a folder or pattern as a video: in natural order, evenly in time, and deep
    ones all brought to 8 bits as the first one is.

    Args:
        argument: see :func:`~sam_detect.sources.find_images`.
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
        self._folder = FolderSource(argument, max_pixels=max_pixels, stretch=FirstStretch)
        self._frame_rate = frame_rate

    def frames(self) -> Iterator[Frame]:
        """The frames. One that cannot be read raises ``ImageError`` from ``next()``; asking again
        gives the one after it."""
        return map(self._timed, self._folder.frames())

    def _timed(self, frame: Frame) -> Frame:
        return replace(frame, time_s=frame.index / self._frame_rate)
