"""A video with its objects drawn in, as MP4 (H.264), which players and browsers open.

The file is written in fragments of a second: whatever stops the writing, what is there plays.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from sam_detect.errors import OutputError
from sam_detect.interfaces import VideoSink
from sam_detect.outputs._atomic import InputGuard, cannot_write
from sam_detect.outputs._palette import ColorRGB, extend_colors
from sam_detect.outputs.overlay import draw
from sam_detect.types import ImageRGB, TrackedFrame

TICKS = 90_000
"""Of a second, as MPEG counts time."""
GUESSED_FPS = 25
"""Tells the encoder about how long a frame lasts; each has its own time stamp."""
QUALITY = {"preset": "veryfast", "crf": "20", "tune": "zerolatency"}


class AnnotatedVideoSink(VideoSink):
    """Writes the frames with what :func:`~sam_detect.outputs.overlay.draw` draws.

    Args:
        output: the file, which appears at once and can be played while it grows.
        inputs: the files being read, which are never overwritten.

    Raises:
        OutputError: here, in ``write`` and in ``close``, for what cannot be written.
    """

    def __init__(
        self, output: str | os.PathLike[str], *, inputs: Sequence[str | os.PathLike[str]] = ()
    ) -> None:
        self.path = Path(output)
        InputGuard(inputs).check(self.path)
        self._colors: dict[str, ColorRGB] = {}
        self._container: av.container.OutputContainer | None = None
        self._last_tick = -1
        with self._writing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            self._container = av.open(
                str(self.path), "w", format="mp4",
                options={"movflags": "frag_keyframe+empty_moov+default_base_moof"},
            )  # fmt: skip

    def write(self, tracked: TrackedFrame) -> None:
        labels = [v.label for v in tracked.detections.verdicts if v.label is not None]
        extend_colors(self._colors, labels)
        drawn = draw(tracked.frame.image_rgb, tracked.detections, colors=self._colors)
        if self._container is None:
            raise OutputError("this video is closed already; make a new one")
        with self._writing():
            if not self._container.streams.video:
                _begin(self._container, drawn)
            stream = self._container.streams.video[0]
            frame = av.VideoFrame.from_ndarray(_fitted(drawn, stream.width, stream.height))
            frame.pts = self._tick(tracked.frame.time_s)
            frame.time_base = Fraction(1, TICKS)
            self._container.mux(stream.encode(frame))

    def close(self) -> list[Path]:
        container, self._container = self._container, None
        if container is None:
            return []
        with self._writing():
            if container.streams.video:
                container.mux(container.streams.video[0].encode(None))
            container.close()
        return [self.path]

    def _tick(self, time_s: float | None) -> int:
        """The frame's time stamp, later than that of the one before."""
        step = TICKS // GUESSED_FPS
        wanted = self._last_tick + step if time_s is None else round(time_s * TICKS)
        self._last_tick = max(wanted, self._last_tick + 1)
        return self._last_tick

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            raise cannot_write(self.path, error) from error


def _begin(container: av.container.OutputContainer, first: ImageRGB) -> None:
    """Gives the video the first frame's size, to whole pairs of pixels."""
    stream = container.add_stream("libx264", rate=GUESSED_FPS, options=QUALITY)
    stream.height, stream.width = (side + side % 2 for side in first.shape[:2])
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = Fraction(1, TICKS)
    stream.codec_context.gop_size = GUESSED_FPS


def _fitted(image: ImageRGB, width: int, height: int) -> ImageRGB:
    """The picture in a frame of the video's size: reduced or enlarged to fit, with black beside;
    an odd side gets its last row or column twice."""
    rows, columns = image.shape[:2]
    if (rows, columns) != (height, width) and (rows + rows % 2, columns + columns % 2) != (
        height,
        width,
    ):
        scale = min(height / rows, width / columns)
        rows, columns = max(1, round(rows * scale)), max(1, round(columns * scale))
        image = np.asarray(cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA))
        padding = (0, height - rows, 0, width - columns)
        return np.asarray(cv2.copyMakeBorder(image, *padding, cv2.BORDER_CONSTANT), np.uint8)
    padding = (0, height - rows, 0, width - columns)
    return np.asarray(cv2.copyMakeBorder(image, *padding, cv2.BORDER_REPLICATE), np.uint8)
