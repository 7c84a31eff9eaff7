"""Video files in, and folders of frames: everything of which no frame may be lost."""

from __future__ import annotations

import os
import stat
import threading
from collections.abc import Iterator
from contextlib import closing
from dataclasses import replace
from types import SimpleNamespace
from typing import BinaryIO

from sam_detect.errors import ImageError, one_line
from sam_detect.interfaces import Source
from sam_detect.sources._containers import Pictures, open_pictures
from sam_detect.sources._timing import Clock
from sam_detect.sources.images import DEFAULT_MAX_PIXELS, FolderSource
from sam_detect.sources.scaling import FirstStretch
from sam_detect.types import Frame

FRAME_RATE = 25.0


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
        with _file(self.name) as file, closing(self._opened(file)) as pictures:
            yield from whole(self, pictures, self._stopped)

    def stop(self) -> None:
        self._stopped.set()

    def _opened(self, file: BinaryIO) -> Pictures:
        nameless = SimpleNamespace(read=file.read, seek=file.seek, tell=file.tell)
        return open_pictures(nameless, name=self.name, max_pixels=self._max_pixels, live=False)


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


def whole(source: Source, pictures: Pictures, stopped: threading.Event) -> Iterator[Frame]:
    """All frames of a video that has an end; complains there of what was damaged or missing."""
    clock, count = Clock(from_zero=False), 0
    for image, said_s in pictures:
        if stopped.is_set():
            return
        yield Frame(image, source.name, count, time_s=clock.next_s(said_s, pictures.step_s))
        count += 1
        source.damaged = pictures.damaged
    source.damaged = pictures.damaged
    missing_s, done = pictures.missing_s(), f"the {count} frames that could be decoded are done"
    if not count:
        raise ImageError(f"the video '{source.name}' has no frames")
    if missing_s:
        raise ImageError(
            f"the video '{source.name}' ends early, after {pictures.reached_s:.1f} s of "
            f"{pictures.reached_s + missing_s:.1f} s; {done}"
        )
    places = pictures.damaged - pictures.harmless
    if places:
        raise ImageError(
            f"the video '{source.name}' is damaged in {places} "
            f"place{'s' if places > 1 else ''}; {done}"
        )


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
