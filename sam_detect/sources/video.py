"""Video files in, through FFmpeg's libraries (``av``)."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from pathlib import Path

import av
import numpy as np

from sam_detect.errors import ImageError
from sam_detect.interfaces import Source
from sam_detect.sources.decoding import check_pixels
from sam_detect.sources.images import DEFAULT_MAX_PIXELS, FolderSource
from sam_detect.types import Frame


class VideoFileSource(Source):
    """The frames of a video file, each with its time stamp.

    Args:
        path: the file; becomes the frames' ``source_id``.
        max_pixels: larger frames are refused before they are decoded.

    Raises:
        ImageError: there is no such file.
    """

    def __init__(
        self, path: str | os.PathLike[str], *, max_pixels: int = DEFAULT_MAX_PIXELS
    ) -> None:
        self.path = os.fspath(path)
        self._max_pixels = max_pixels
        self._stopped = threading.Event()
        if not Path(self.path).is_file():
            raise ImageError(f"there is no video '{self.path}'")

    def frames(self) -> Iterator[Frame]:
        """The frames in the order in which they are shown.

        Raises:
            ImageError: it is no video, has no frame, or is damaged; what could be decoded before
                has been given.
        """
        count = 0
        try:
            # Only this file: a playlist in it must not make us read others.
            with av.open(self.path, options={"protocol_whitelist": "file"}) as container:
                for decoded in self._decoded(container):
                    if self._stopped.is_set():
                        return
                    yield self._frame(decoded, count)
                    count += 1
        except av.FFmpegError as error:
            where = f" after {count} frames" if count else ""
            raise ImageError(
                f"'{self.path}' cannot be read as a video{where}: {error.strerror}"
            ) from error
        if not count:
            raise ImageError(f"the video '{self.path}' has no frames")

    def stop(self) -> None:
        self._stopped.set()

    def _decoded(self, container: av.container.InputContainer) -> Iterator[av.VideoFrame]:
        if not container.streams.video:
            raise ImageError(f"'{self.path}' has no pictures, only sound or text")
        stream = container.streams.video[0]
        stream.thread_type = "AUTO"
        check_pixels((stream.width, stream.height), self._max_pixels, self.path)
        return container.decode(stream)

    def _frame(self, decoded: av.VideoFrame, index: int) -> Frame:
        rgb = np.ascontiguousarray(decoded.to_ndarray(format="rgb24"), np.uint8)
        return Frame(rgb, self.path, index, time_s=decoded.time)


def open_source(
    argument: int | str | os.PathLike[str], *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> Source:
    """The source of frames that a user names: a video file, or a folder or pattern of frames.

    Raises:
        ImageError: it is not there.
    """
    name = str(argument)
    if os.path.isdir(name) or any(character in name for character in "*?["):
        return FolderSource(name, max_pixels=max_pixels)
    return VideoFileSource(name, max_pixels=max_pixels)
