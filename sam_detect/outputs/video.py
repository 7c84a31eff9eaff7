"""A video with its objects drawn in, as MP4 (H.264), which players and browsers open.

While it grows the file is one of fragments of about a second, each written to the disk as it ends:
whatever stops the writing, what is there plays. Closing it makes an ordinary MP4 of it, which
players know the length of and can wind.
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
from sam_detect.outputs._fragments import cut_to_whole
from sam_detect.outputs.tracked import TrackPainter
from sam_detect.types import ImageRGB, TrackedFrame

TICKS = 90_000
"""Of a second, as MPEG counts time."""
GUESSED_FPS = 25
"""Tells the encoder about how long a frame lasts; each has its own time stamp."""
QUALITY = {"preset": "veryfast", "crf": "20", "tune": "zerolatency"}
FRAGMENTS = "frag_keyframe+empty_moov+default_base_moof"
WHOLE_AT_THE_END = "hybrid_fragmented"
FLUSHED = {"frag_duration": "1000000", "flush_packets": "1"}
"""Microseconds; and nothing stays in a buffer that dies with the process."""


class AnnotatedVideoSink(VideoSink):
    """Writes the frames with what :class:`~sam_detect.outputs.tracked.TrackPainter` draws.

    The first frame is at 0 s; where time stamps run back, as they do when a camera begins again,
    the video goes on. Frames of another size than the first are fitted into it.

    Args:
        output: the file, which appears at once and can be played while it grows.
        inputs: the files being read, which are never overwritten.

    Raises:
        OutputError: here, in ``write`` and in ``close``, for what cannot be written. What was
            written before can be played.
    """

    def __init__(
        self, output: str | os.PathLike[str], *, inputs: Sequence[str | os.PathLike[str]] = ()
    ) -> None:
        self.path = Path(output)
        InputGuard(inputs).check(self.path)
        self._painter = TrackPainter()
        self._clock = _Clock()
        self._container: av.container.OutputContainer | None = None
        with self._writing():
            self.path.parent.mkdir(parents=True, exist_ok=True)
            flags = [FRAGMENTS, *([WHOLE_AT_THE_END] if _is_file(self.path) else [])]
            self._container = av.open(
                str(self.path), "w", format="mp4", options={"movflags": "+".join(flags), **FLUSHED}
            )

    def write(self, tracked: TrackedFrame) -> None:
        if self._container is None:
            raise OutputError("this video is closed already; make a new one")
        drawn = self._painter.draw(tracked)
        with self._writing():
            if not self._container.streams.video:
                _begin(self._container, drawn)
            stream = self._container.streams.video[0]
            frame = av.VideoFrame.from_ndarray(_fitted(drawn, stream.width, stream.height))
            frame.pts = self._clock.tick(tracked.frame.time_s)
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

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """What the system refuses ends the video: it is left as far as it is whole."""
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            container, self._container = self._container, None
            if container is not None:
                with contextlib.suppress(av.FFmpegError, OSError):
                    container.close()
                with contextlib.suppress(OSError):
                    cut_to_whole(self.path)
            raise cannot_write(self.path, error) from error


class _Clock:
    """Time stamps of the video's frames, each later than the one before."""

    def __init__(self) -> None:
        self._shift = 0
        self._last: int | None = None

    def tick(self, time_s: float | None) -> int:
        step = TICKS // GUESSED_FPS
        if self._last is None:
            self._shift = -round((time_s or 0.0) * TICKS)
            self._last = 0
            return 0
        wanted = self._last + step if time_s is None else round(time_s * TICKS) + self._shift
        if wanted <= self._last:
            self._shift += self._last + step - wanted
            wanted = self._last + step
        self._last = wanted
        return wanted


def _is_file(path: Path) -> bool:
    """Whether it is an ordinary file, which is made where nothing is; else a pipe or a device."""
    if path.exists() and not path.is_file() and not path.is_dir():
        return False
    path.open("ab").close()  # says better than FFmpeg what is wrong with a path
    return True


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
    border = cv2.BORDER_REPLICATE
    if (rows + rows % 2, columns + columns % 2) != (height, width):
        scale = min(height / rows, width / columns)
        rows, columns = max(1, round(rows * scale)), max(1, round(columns * scale))
        image = np.asarray(cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA))
        border = cv2.BORDER_CONSTANT
    padding = (0, height - rows, 0, width - columns)
    return np.asarray(cv2.copyMakeBorder(image, *padding, border), np.uint8)
