"""A video with its objects drawn in, as MP4 (H.264), which players and browsers open.

While it grows the file is a fragmented MP4 with a fragment per second, each flushed to the disk:
an interrupted file still plays. Closing it makes an ordinary MP4 of it, with a known duration and
an index for seeking.
"""

from __future__ import annotations

import contextlib
import os
import struct
from collections.abc import Iterator, Sequence
from fractions import Fraction
from pathlib import Path
from typing import BinaryIO

import av
import cv2
import numpy as np

from sam_detect.errors import OutputError
from sam_detect.interfaces import VideoSink
from sam_detect.io.drawing import UNKNOWN, BoxXYXY, ColorRGB, clean
from sam_detect.io.files import InputGuard, cannot_write
from sam_detect.io.overlay import (
    check_size,
    color_labels,
    draw_counts,
    draw_objects,
    line_px,
    text_px,
)
from sam_detect.io.tags import LastPlaces, Tag, place_tags
from sam_detect.types import Detection, ImageRGB, TrackedFrame

TIME_BASE = Fraction(1, 90_000)
"""Seconds, as in MPEG."""
NOMINAL_FPS = 25
"""What the encoder is told; each frame has its own time stamp."""
QUALITY = {"preset": "veryfast", "crf": "20", "tune": "zerolatency"}
FRAGMENTED = "frag_keyframe+empty_moov+default_base_moof"
ORDINARY_AT_CLOSE = "hybrid_fragmented"
FLUSHED = {"frag_duration": "1000000", "flush_packets": "1"}
"""Microseconds; and nothing stays in a buffer that dies with the process."""
BOX_HEADER = struct.Struct(">I4s")
"""Size and type of an MP4 box (ISO/IEC 14496-12, 4.2)."""
RESIZE_AT = 1.3
"""Lines and text keep their size until another would fit better by this factor."""
SMOOTHING = 0.5
"""Share of its object's motion that a tag follows per frame: outlines jitter, tags need not."""
JUMP = 0.5
"""Share of an object's size: if it moves farther in a frame its tag follows at once."""


class TrackPainter:
    """Draws the frames of one video.

    A label keeps its colour, a tag its place relative to its object, the legend its corner, and
    lines and text their size, as long as that is possible.
    """

    def __init__(self) -> None:
        self._colors: dict[str, ColorRGB] = {}
        self._last = LastPlaces()
        self._boxes: dict[int, BoxXYXY] = {}
        self._line_px = self._text_px = 0.0

    def draw(self, tracked: TrackedFrame) -> ImageRGB:
        """A copy of the frame with its objects drawn in, tagged with track id and label.

        Args:
            tracked: the next frame.

        Returns:
            ``(H, W, 3)`` uint8, RGB.

        Raises:
            MaskError: the detections are of an image of another size.
        """
        found, image = tracked.detections, tracked.frame.image_rgb
        check_size(image, found)
        canvas = np.array(image, order="C")
        if not len(found):
            self._boxes = {}
            return canvas
        color_labels(self._colors, image, found)
        self._line_px = _keep_size(self._line_px, line_px(found))
        self._text_px = _keep_size(self._text_px, text_px(found))
        layout = draw_objects(canvas, found, self._colors, line=self._line_px)
        draw_counts(canvas, layout, found, self._colors, last=self._last)
        place_tags(canvas, layout, self._tags(tracked), round(self._text_px), last=self._last)
        return canvas

    def _tags(self, tracked: TrackedFrame) -> list[Tag]:
        """Those with a label first, each group in the order of the tracks, which is stable."""
        tracks = tracked.track_ids.tolist()
        boxes = self._smoothed(tracks, tracked.detections.boxes_xyxy.tolist())
        objects = zip(tracks, boxes, tracked.detections, strict=True)
        return [
            Tag(
                box_xyxy=box,
                color=UNKNOWN if each.label is None else self._colors[each.label],
                texts=_texts(track, each),
                track_id=track,
            )
            for track, box, each in sorted(objects, key=lambda item: item[2].label is None)
        ]

    def _smoothed(
        self, tracks: Sequence[int], boxes_xyxy: Sequence[Sequence[int]]
    ) -> list[BoxXYXY]:
        """The boxes that tags are placed at: those of the objects, without their jitter."""
        smoothed: list[BoxXYXY] = []
        for track, now in zip(tracks, boxes_xyxy, strict=True):
            before = self._boxes.get(track, now) if track else now
            moved = max(abs(a - b) for a, b in zip(before, now, strict=True))
            jumped = moved > JUMP * max(now[2] - now[0], now[3] - now[1])
            share = 1.0 if jumped else SMOOTHING
            x0, y0, x1, y1 = (round(a + share * (b - a)) for a, b in zip(before, now, strict=True))
            smoothed.append((x0, y0, x1, y1))
        self._boxes = dict(zip(tracks, smoothed, strict=True))
        return smoothed


def _keep_size(before: float, wanted: float) -> float:
    return before if before and wanted / RESIZE_AT < before < wanted * RESIZE_AT else wanted


def _texts(track: int, detection: Detection) -> tuple[str, ...]:
    number = f"#{track}" if track else ""
    if detection.label is None:
        return (number or "unknown",)
    name = f"{number} {clean(detection.label)}".strip()
    return (f"{name} {detection.confidence:.0%}", name, number or name)


class AnnotatedVideoSink(VideoSink):
    """Writes the frames as :class:`TrackPainter` draws them.

    The first frame is at 0 s; if time stamps run back, as they do when a camera restarts, the
    video goes on. Frames of another size than the first are scaled to fit.

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
            seekable = self.path.is_file() or self.path.is_dir() or not self.path.exists()
            if seekable:
                self.path.open("ab").close()  # has clearer errors than FFmpeg
            flags = f"{FRAGMENTED}+{ORDINARY_AT_CLOSE}" if seekable else FRAGMENTED
            self._container = av.open(
                str(self.path), "w", format="mp4", options={"movflags": flags, **FLUSHED}
            )

    def write(self, tracked: TrackedFrame) -> None:
        if self._container is None:
            raise OutputError("this video is closed already; make a new one")
        drawn = self._painter.draw(tracked)
        with self._writing():
            if not self._container.streams.video:
                _add_stream(self._container, drawn)
            stream = self._container.streams.video[0]
            frame = av.VideoFrame.from_ndarray(_fit_to(drawn, stream.width, stream.height))
            frame.pts = self._clock.tick(tracked.frame.time_s)
            frame.time_base = TIME_BASE
            self._container.mux(stream.encode(frame))

    def close(self) -> list[Path]:
        container, self._container = self._container, None
        if container is None:
            return []
        with self._writing():
            streams = list(container.streams.video)
            for stream in streams:
                container.mux(stream.encode(None))
            container.close()
            if not streams and self.path.is_file():  # no frame came
                self.path.unlink()
        return [self.path] if streams else []

    @contextlib.contextmanager
    def _writing(self) -> Iterator[None]:
        """Turns an error of the system into an ``OutputError`` and keeps the part that plays."""
        try:
            yield
        except (av.FFmpegError, OSError) as error:
            container, self._container = self._container, None
            if container is not None:
                with contextlib.suppress(av.FFmpegError, OSError):
                    container.close()
                with contextlib.suppress(OSError):
                    drop_partial_fragment(self.path)
            raise cannot_write(self.path, error) from error


class _Clock:
    """Time stamps of the video's frames, each later than the one before."""

    def __init__(self) -> None:
        self._shift = 0
        self._last: int | None = None

    def tick(self, time_s: float | None) -> int:
        step = TIME_BASE.denominator // NOMINAL_FPS
        ticks = None if time_s is None else round(time_s * TIME_BASE.denominator)
        if self._last is None:
            self._shift, self._last = -(ticks or 0), 0
            return 0
        wanted = self._last + step if ticks is None else ticks + self._shift
        if wanted <= self._last:
            self._shift += self._last + step - wanted
            wanted = self._last + step
        self._last = wanted
        return wanted


def _add_stream(container: av.container.OutputContainer, first: ImageRGB) -> None:
    """Gives the video the first frame's size, rounded up to even numbers."""
    stream = container.add_stream("libx264", rate=NOMINAL_FPS, options=QUALITY)
    stream.height, stream.width = (side + side % 2 for side in first.shape[:2])
    stream.pix_fmt = "yuv420p"
    stream.codec_context.time_base = TIME_BASE
    stream.codec_context.gop_size = NOMINAL_FPS


def _fit_to(image: ImageRGB, width: int, height: int) -> ImageRGB:
    """The image scaled to fit a frame of this size, padded with black; an odd side is padded with
    its last row or column."""
    rows, columns = image.shape[:2]
    border = cv2.BORDER_REPLICATE
    if (rows + rows % 2, columns + columns % 2) != (height, width):
        scale = min(height / rows, width / columns)
        rows, columns = max(1, round(rows * scale)), max(1, round(columns * scale))
        image = np.asarray(cv2.resize(image, (columns, rows), interpolation=cv2.INTER_AREA))
        border = cv2.BORDER_CONSTANT
    padding = (0, height - rows, 0, width - columns)
    return np.asarray(cv2.copyMakeBorder(image, *padding, border), np.uint8)


def drop_partial_fragment(path: Path) -> None:
    """Truncates an interrupted MP4 after its last complete fragment; players may fail on less."""
    with path.open("r+b") as file:
        boxes = list(mp4_boxes(file))
        if boxes and boxes[-1][0] == b"moof":  # without the frames, the box after it
            file.truncate(boxes[-1][1])
        else:
            file.truncate(boxes[-1][2] if boxes else 0)


def mp4_boxes(file: BinaryIO) -> Iterator[tuple[bytes, int, int]]:
    """``(type, start, end)`` of the complete boxes at the top level, in bytes."""
    size = file.seek(0, 2)
    start = 0
    while start + BOX_HEADER.size <= size:
        file.seek(start)
        length, kind = BOX_HEADER.unpack(file.read(BOX_HEADER.size))
        if length < BOX_HEADER.size or start + length > size:
            return
        yield kind, start, start + length
        start += length
