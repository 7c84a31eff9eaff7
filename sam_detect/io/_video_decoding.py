"""The pictures of an open video, whatever codec, colours and orientation it has (``av``)."""

from __future__ import annotations

import contextlib
import os
import time
from collections import deque
from collections.abc import Callable, Iterator
from fractions import Fraction
from typing import Any

import av
import numpy as np

from sam_detect.errors import ImageError
from sam_detect.io._reconnect import BrokenError, interruptibly
from sam_detect.io.decoding import check_pixels
from sam_detect.io.pixels import alpha_to_unit, over_white
from sam_detect.types import ImageRGB

Opened = av.container.InputContainer

EARLY = {"analyzeduration": "500000", "probesize": "500000", "fpsprobesize": "0"}
"""How little of a live stream (microseconds, bytes, frames) FFmpeg may read before it starts."""
BUFFER_BYTES = 1 << 20
NO_PROTOCOLS = "none"
"""What a playlist may open when it is itself read from a file or an answer: nothing."""
LENGTH_KNOWN = ("mov,", "matroska,", "flv")
"""Formats whose header says how long the video is; of others it is an estimate."""
WITHOUT_TIMES = ("mpjpeg",)
"""Formats of single pictures over HTTP, of which the time of arrival counts."""
LATE = "gave no answer in time (--stream-timeout-s allows for more)"
REASONS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((av.HTTPUnauthorizedError,), "wants a name and a password, or refuses those given (401)"),
    ((av.HTTPForbiddenError,), "may not be read (403); check name, password and rights"),
    ((av.HTTPNotFoundError,), "is not there (404); check the address"),
    ((av.ExitError, av.TimeoutError), LATE),
    ((av.ConnectionRefusedError,), "cannot be reached; check that the server or camera is on"),
    ((av.EOFError,), "ended the connection"),
    ((av.InvalidDataError,), "cannot be read as a video"),
)
MISSING_S = 0.5
MAX_THREADS = 4
"""Each holds a frame back, and FFmpeg drops its error at the end of the video."""
MOST_ERRORS = 100
"""Packets in a row that cannot be read: then the rest is given up."""


def decode_file(
    file: Any,
    *,
    name: str,
    max_pixels: int,
    live: bool,
    kind: str | None = None,
    **hooks: Callable[[], None],
) -> DecodedVideo:
    """The pictures of something with ``read``, ``seek`` and ``tell``.

    Args:
        file: has no ``name``: FFmpeg would believe a name's ending, and show a text as a video.
        kind: FFmpeg's name of the format; None: by the content.
        name, max_pixels, live, hooks: as for :class:`DecodedVideo`.

    Raises:
        ImageError: it is no video, or has no pictures that can be used.
    """
    options = {"protocol_whitelist": NO_PROTOCOLS, **(EARLY if live else {})}
    try:
        # On another thread: FFmpeg's calls back into Python would swallow a Ctrl-C.
        container = interruptibly(
            lambda: av.open(file, "r", format=kind, options=options, buffer_size=BUFFER_BYTES)
        )
    except (av.FFmpegError, ValueError):
        if "at_end" in hooks:
            hooks["at_end"]()
        raise ImageError(
            f"'{name}' cannot be read as a video: it is none, or its beginning or end is missing"
        ) from None
    except OSError as error:
        raise ImageError(f"'{name}' cannot be read: {error.strerror}") from None
    return DecodedVideo(container, name=name, max_pixels=max_pixels, live=live, **hooks)


class DecodedVideo:
    """Iterates over the pictures of an open video: ``(image_rgb, time_s)``.

    The time is what the video says, in seconds since its start; None where it says nothing.
    Packets that cannot be decoded are left out.

    Args:
        container: closed with this.
        name: what errors call it.
        max_pixels: larger pictures are refused before they are decoded.
        live: whether each picture should come as early as possible, with little read ahead.
        at_end: called where the video ends; raises if that is not its end.
        before_close: called before the container is closed.

    Attributes:
        damaged: packets that could not be decoded, and pictures with visible damage.
        harmless: of these, such as may be no more than a seam between two recordings.

    Raises:
        ImageError: there are no pictures, or too large ones; the container is closed.
    """

    def __init__(
        self,
        container: Opened,
        *,
        name: str,
        max_pixels: int,
        live: bool,
        at_end: Callable[[], None] = lambda: None,
        before_close: Callable[[], None] = lambda: None,
    ) -> None:
        self.damaged = self.harmless = 0
        self._container, self._name, self._max_pixels = container, name, max_pixels
        self._at_end, self._before_close = at_end, before_close
        self._last: deque[av.Packet[Any]] = deque(maxlen=MAX_THREADS)
        self._undecoded = 0
        self._deinterlacer: Deinterlacer | None = None
        try:
            self._prepare(live)
        except ImageError:
            container.close()
            raise

    def _prepare(self, live: bool) -> None:
        container, name = self._container, self._name
        if not container.streams.video:
            raise ImageError(f"'{name}' has no pictures, only sound or text")
        self._has_seams = container.format.name == "mpegts"
        self._untimed = live and container.format.name in WITHOUT_TIMES
        self._stream = container.streams.video[0]
        self._start_s = (container.start_time or 0) / av.time_base
        self._end_s = self._start_s
        context = self._stream.codec_context
        if context is None:
            raise ImageError(f"'{name}' has a codec that this FFmpeg does not know, or is damaged")
        # Threads that each take a whole frame are faster, but hold as many frames back.
        context.thread_type = "SLICE" if live else "AUTO"
        context.thread_count = min(MAX_THREADS, os.cpu_count() or 1)
        context.options = {"max_pixels": str(self._max_pixels)}
        self._check(self._stream)

    @property
    def step_s(self) -> float:
        """About how long a picture lasts."""
        rate: Fraction | None = self._stream.average_rate or self._stream.guessed_rate
        return float(1 / rate) if rate else 0.04

    def __iter__(self) -> Iterator[tuple[ImageRGB, float | None]]:
        failure: Exception | None = None
        try:
            for packet in self._packets():
                yield from self._convert(self._decode(packet))
        except ImageError as error:
            failure = error
        except av.FFmpegError as error:
            failure = BrokenError(reason_of(error))
        yield from self._convert(self._decode(None))  # what is still in the decoder
        if self._deinterlacer is not None:
            yield from self._converted(self._deinterlacer.flush())
        if self._undecoded > 0:
            self._check_last()
        if failure is not None:
            raise failure
        self._at_end()

    def close(self) -> None:
        """Closes the video."""
        self._before_close()
        self._container.close()

    @property
    def ends(self) -> bool:
        """Whether the video says how long it is."""
        return self._container.duration is not None

    def missing_s(self) -> float:
        """Seconds of the video that its header promises and that did not come, at its end."""
        container = self._container
        known = container.format.name.startswith(LENGTH_KNOWN) and container.duration
        if not known:
            return 0.0
        missing = self._start_s + (container.duration or 0) / av.time_base - self._end_s
        return missing if missing > MISSING_S else 0.0

    @property
    def reached_s(self) -> float:
        """Seconds of the video that were read."""
        return self._end_s - self._start_s

    def _packets(self) -> Iterator[av.Packet[Any]]:
        """The packets with pictures. Those with sound are looked at, too: the longer of both says
        how long the video is."""
        failed = 0
        while failed < MOST_ERRORS:
            try:
                for packet in self._container.demux():
                    failed = 0
                    self._reach(packet)
                    if packet.stream is self._stream:
                        self.damaged += bool(packet.is_corrupt)
                        self.harmless += bool(packet.is_corrupt) and self._has_seams
                        if packet.size:
                            self._last.append(packet)
                            self._undecoded += 1
                        yield packet
                return
            except (av.InvalidDataError, av.PatchWelcomeError):
                self.damaged += 1
                failed += 1
            except OSError as error:
                if isinstance(error, av.FFmpegError):
                    raise
                reason = error.strerror or type(error).__name__
                raise ImageError(
                    f"'{self._name}' cannot be read beyond {self.reached_s:.1f} s: {reason}"
                ) from None

    def _reach(self, packet: av.Packet[Any]) -> None:
        if packet.pts is not None and packet.time_base is not None:
            end = float((packet.pts + (packet.duration or 0)) * packet.time_base)
            self._end_s = max(self._end_s, end)

    def _decode(self, packet: av.Packet[Any] | None) -> Iterator[av.VideoFrame]:
        """The pictures of a packet; of None all that are still in the decoder.

        A decoder with a thread for each frame reports errors late, many of them at the end only.
        """
        context = self._stream.codec_context
        for _ in range(1 if packet is not None else MOST_ERRORS):
            try:
                yield from context.decode(packet)
                return
            except av.EOFError:
                return
            except av.FFmpegError:
                self._check(context)
                self.damaged += 1

    def _check_last(self) -> None:
        """Checks the size of the last pictures where fewer came out of the decoder than went in:
        with threads, the decoder does not tell that it refused them."""
        threaded = self._stream.codec_context
        context: Any = av.CodecContext.create(threaded.codec, "r")
        context.extradata = threaded.extradata
        context.thread_count = 1
        context.options = {"max_pixels": str(self._max_pixels)}
        for packet in self._last:
            with contextlib.suppress(av.FFmpegError):
                context.decode(packet)
            self._check(context)

    def _convert(self, frames: Iterator[av.VideoFrame]) -> Iterator[tuple[ImageRGB, float | None]]:
        for frame in frames:
            self._undecoded -= 1
            self._check(frame)
            self.damaged += bool(frame.is_corrupt)
            if frame.interlaced_frame and self._deinterlacer is None:
                self._deinterlacer = Deinterlacer()
            by = self._deinterlacer
            yield from self._converted(iter([frame]) if by is None else by.push(frame))

    def _converted(
        self, frames: Iterator[av.VideoFrame]
    ) -> Iterator[tuple[ImageRGB, float | None]]:
        for frame in frames:
            time_s = None if frame.time is None else frame.time - self._start_s
            yield to_rgb(frame), time.monotonic() if self._untimed else time_s

    def _check(self, of: Any) -> None:
        """Refuses a stream or picture that is too large."""
        check_pixels((of.width, of.height), self._max_pixels, self._name)


class Deinterlacer:
    """Makes whole pictures of interlaced ones, whose odd rows show a later moment than the even
    ones: FFmpeg's ``bwdif``. Others pass as they are. A picture comes out after the next one went
    in."""

    def __init__(self) -> None:
        self._graph: Any = None
        self._takes: tuple[int, int, str] | None = None

    def push(self, frame: av.VideoFrame) -> Iterator[av.VideoFrame]:
        """What can be given, once this picture is known."""
        takes = frame.width, frame.height, frame.format.name
        if takes != self._takes:
            yield from self.flush()
            graph: Any = av.filter.Graph()
            source = graph.add_buffer(
                width=frame.width, height=frame.height, format=frame.format,
                time_base=frame.time_base,
            )  # fmt: skip
            woven = graph.add("bwdif", "mode=send_frame:deint=interlaced")
            graph.link_nodes(source, woven, graph.add("buffersink")).configure()
            self._graph, self._takes = graph, takes
        self._graph.push(frame)
        yield from self._pull()

    def flush(self) -> Iterator[av.VideoFrame]:
        """What is still inside."""
        if self._graph is not None:
            self._graph.push(None)
            yield from self._pull()
        self._graph = self._takes = None

    def _pull(self) -> Iterator[av.VideoFrame]:
        while True:
            try:
                yield self._graph.pull()
            except (av.BlockingIOError, av.EOFError):
                return


def reason_of(error: Exception) -> str:
    """What went wrong, without the address that FFmpeg's own messages have."""
    for kinds, text in REASONS:
        if isinstance(error, kinds):
            return text
    return f"cannot be read: {getattr(error, 'strerror', None) or type(error).__name__}"


def to_rgb(frame: av.VideoFrame) -> ImageRGB:
    """``(H, W, 3)`` uint8 of a decoded frame: upright, and on white where it is transparent, as
    pictures are."""
    if any(component.is_alpha for component in frame.format.components):
        rgba = np.asarray(frame.to_ndarray(format="rgba"), np.uint8)
        rgb = over_white(rgba[..., :3], alpha_to_unit(rgba[..., 3]))
    else:
        rgb = np.asarray(frame.to_ndarray(format="rgb24"), np.uint8)
    # The display matrix (ISO/IEC 14496-12, 6.2.2), to quarter turns and mirrorings: phones mark
    # their videos so. It says where one step to the right, and one down, in the stored picture
    # leads in the shown one.
    side: Any = frame.side_data.get("DISPLAYMATRIX")
    if side is not None:
        right_x, right_y, _, down_x, down_y = np.frombuffer(side, np.int32)[:5].tolist()
        transposed = abs(right_y) > abs(right_x)
        rgb = rgb.transpose(1, 0, 2) if transposed else rgb
        flip_rows = (right_y if transposed else down_y) < 0
        flip_columns = (down_x if transposed else right_x) < 0
        rgb = rgb[:: -1 if flip_rows else 1, :: -1 if flip_columns else 1]
    return np.ascontiguousarray(rgb)
