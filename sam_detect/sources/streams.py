"""Addresses: files and live streams over HTTP, RTSP, and playlists."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import av

from sam_detect.errors import ImageError
from sam_detect.interfaces import Source
from sam_detect.sources._http import HttpReader
from sam_detect.sources._reconnect import (
    RETRIES,
    TIMEOUT_S,
    BrokenError,
    Clock,
    LiveSource,
    Retry,
    StoppedError,
    interruptibly,
)
from sam_detect.sources._video_decoding import LATE, DecodedVideo, decode_file, reason_of
from sam_detect.sources.addresses import HTTP, RTSP, host_of, shown, split
from sam_detect.sources.decoding import DEFAULT_MAX_PIXELS
from sam_detect.types import Frame

MJPEG = {"multipart/x-mixed-replace": "mpjpeg"}
"""How IP cameras give pictures over HTTP: one after the other, without times."""
PLAYLISTS = {
    "application/vnd.apple.mpegurl", "application/x-mpegurl", "audio/mpegurl", "audio/x-mpegurl",
    "application/dash+xml",
}  # fmt: skip
PLAYLIST_ENDINGS = (".m3u8", ".mpd")
ALLOW = "; --playlist-hosts any allows that"
HTTP_PROTOCOLS = "http,https,tls,tcp,crypto,httpproxy"
"""What a playlist may lead to: never to a file of this machine."""
RTSP_PROTOCOLS = "rtsp,rtsps,rtp,srtp,udp,tcp,tls"


def open_url(
    url: str,
    *,
    timeout_s: float = TIMEOUT_S,
    retries: int = RETRIES,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    playlist_hosts: str = "own",
) -> Source:
    """The video at an address, opened.

    A file (of known length) is read as a whole, and continued where its connection broke. What
    has no end is live: if it breaks off it is opened again.

    Args:
        url: http, https, rtsp or rtsps, with name and password if they are needed. Messages
            and frames have it without these.
        timeout_s: how long to wait for the next part of it.
        retries: how often to try to reconnect, in a row.
        max_pixels: larger frames are refused before they are decoded.
        playlist_hosts: where a playlist may lead: ``own`` (its own host and port) or ``any``.

    Raises:
        ConfigError: it is no address of this kind.
        ImageError: nothing is there, or no video.
    """
    parts = split(url)
    retry = Retry(shown(url), retries)
    if parts.scheme.lower() in RTSP:
        return _by_ffmpeg(url, retry, timeout_s, max_pixels)

    def ask() -> HttpReader:
        return HttpReader(url, timeout_s=timeout_s, retry=retry)

    reader = interruptibly(ask)
    if _is_playlist(url, reader):
        reader.close()
        if playlist_hosts == "any":
            return _by_ffmpeg(url, retry, timeout_s, max_pixels)
        own = OwnHostOnly(reader, timeout_s=timeout_s, retries=retries)
        return _by_ffmpeg(own.url, retry, timeout_s, max_pixels, own)
    if reader.live:
        return LiveSource(
            reader.name, retry, _live(reader, max_pixels), lambda: _live(ask(), max_pixels)
        )
    return RecordingSource(reader.name, retry, _file_opener(reader, max_pixels))


def whole(source: Source, video: DecodedVideo, stopped: threading.Event) -> Iterator[Frame]:
    """All frames of a video that has an end.

    Raises:
        ImageError: at the end, if something was damaged or missing.
    """
    clock, count = Clock(from_zero=False), 0
    try:
        for image, said_s in video:
            if stopped.is_set():
                return
            yield Frame(image, source.name, count, time_s=clock.next_s(said_s, video.step_s))
            count += 1
            source.damaged = video.damaged
    except BrokenError as error:
        raise ImageError(f"'{source.name}' {error}") from None
    source.damaged = video.damaged
    missing_s, done = video.missing_s(), f"the {count} frames that could be decoded are done"
    if not count:
        raise ImageError(f"the video '{source.name}' has no frames")
    if missing_s:
        raise ImageError(
            f"the video '{source.name}' ends early, after {video.reached_s:.1f} s of "
            f"{video.reached_s + missing_s:.1f} s; {done}"
        )
    places = video.damaged - video.harmless
    if places:
        raise ImageError(
            f"the video '{source.name}' is damaged in {places} "
            f"place{'s' if places > 1 else ''}; {done}"
        )


class RecordingSource(Source):
    """A video on a server that has an end; no frame is lost and none comes twice.

    Args:
        name: its address, as it may be shown.
        retry: ends a wait when the source is stopped, and counts reconnects.
        open_video: opens it at its beginning.

    Raises:
        ImageError: it is no video with pictures.
    """

    def __init__(
        self, name: str, retry: Retry, open_video: Callable[[], DecodedVideo],
        opened: DecodedVideo | None = None,
    ) -> None:  # fmt: skip
        self.name = name
        self._retry, self._open = retry, open_video
        self._opened: DecodedVideo | None = opened or open_video()

    def frames(self) -> Iterator[Frame]:
        """The frames in the order in which they are shown.

        Raises:
            ImageError: it broke off and could not be continued, or as
                :meth:`~sam_detect.sources.video.VideoFileSource.frames` does.
        """
        video, self._opened = self._opened or self._open(), None
        try:
            for frame in whole(self, video, self._retry.stopped):
                self.reconnects = self._retry.reconnects
                yield frame
        except StoppedError:
            return
        finally:
            video.close()

    def stop(self) -> None:
        self._retry.stop()


class OwnHostOnly:
    """Opens what a playlist names, for FFmpeg: from the playlist's own host alone.

    Anybody may have written a playlist. Whoever reads it would otherwise send requests to what it
    names: other hosts, those of a private network, this machine.

    Args:
        reader: the playlist's.
        timeout_s: how long to wait for each part.
        retries: how often to continue a file that broke off.

    Attributes:
        url: the playlist's, after redirections.
        name: the playlist's, as it may be shown.
    """

    def __init__(self, reader: HttpReader, *, timeout_s: float, retries: int) -> None:
        self.url = reader.final_url
        self.name = reader.name
        self._host = host_of(self.url)
        self._timeout_s, self._retries = timeout_s, retries

    def __call__(self, url: str, flags: int, options: dict[str, str]) -> HttpReader:
        """Opens a file that FFmpeg asks for (its ``io_open``).

        Raises:
            ImageError: it is of another host, encrypted, or not there.
        """
        name = shown(url)
        if urlsplit(url).scheme.lower() not in HTTP:
            raise ImageError(
                f"'{self.name}' leads to '{name}', which is no address of http(s){ALLOW}"
            )
        if host_of(url) != self._host:
            raise ImageError(f"'{self.name}' leads to another host, '{name}'{ALLOW}")
        reader = HttpReader(
            url,
            timeout_s=self._timeout_s,
            retry=Retry(name, self._retries),
            only_host=self._host,
        )
        if options.get("offset", "").isdecimal():
            reader.seek(int(options["offset"]))
        return reader


def _is_playlist(url: str, reader: HttpReader) -> bool:
    by_path = urlsplit(url).path.lower().endswith(PLAYLIST_ENDINGS)
    return by_path or reader.content_type in PLAYLISTS


def _file_opener(reader: HttpReader, max_pixels: int) -> Callable[[], DecodedVideo]:
    """What decodes a file on a server from its beginning."""

    def open_video() -> DecodedVideo:
        reader.rewind()
        try:
            return decode_file(
                reader,
                name=reader.name,
                max_pixels=max_pixels,
                live=False,
                at_end=reader.raise_failure,
                before_close=reader.hang_up,
            )
        except ImageError:
            reader.close()
            raise

    return open_video


def _live(reader: HttpReader, max_pixels: int) -> DecodedVideo:
    """The pictures of a live stream over HTTP; raises ``ImageError`` if it is no video."""
    try:
        return decode_file(
            reader,
            name=reader.name,
            max_pixels=max_pixels,
            live=True,
            kind=MJPEG.get(reader.content_type),
            at_end=reader.raise_failure,
            before_close=reader.close,
        )
    except (BrokenError, ImageError) as error:
        reader.close()
        raise ImageError(f"'{reader.name}' {_without(reader.name, error)}") from None


def _by_ffmpeg(
    url: str,
    retry: Retry,
    timeout_s: float,
    max_pixels: int,
    files: OwnHostOnly | None = None,
) -> Source:
    """What FFmpeg itself fetches, RTSP and playlists over HTTP; or asks ``files`` for.

    A wait of FFmpeg cannot be ended from another thread; it ends by its time-out.
    """
    name = shown(url)
    rtsp = urlsplit(url).scheme.lower() in RTSP
    # By the ending that FFmpeg would ask for, which not every server gives.
    kind = "dash" if urlsplit(url).path.lower().endswith(".mpd") else "hls"

    def open_() -> DecodedVideo:
        options = {"protocol_whitelist": RTSP_PROTOCOLS if rtsp else HTTP_PROTOCOLS}
        options |= {"rtsp_transport": "tcp"} if rtsp else {}
        wait_s, began_s = (timeout_s, timeout_s), time.monotonic()
        given: dict[str, Any] = {"options": options, "timeout": wait_s}
        if files is not None:
            # FFmpeg would continue with its own connection if it finds one.
            options |= {"http_persistent": "0", "http_multiple": "0"}
            given |= {"io_open": files, "format": kind}
        try:
            container = interruptibly(lambda: av.open(url, **given))
        except ImageError as error:
            raise ImageError(f"'{name}' {_without(name, error)}") from None
        except (av.FFmpegError, ValueError) as error:
            # A wait that was cut short looks to some demuxers as if nonsense had come.
            late = time.monotonic() - began_s >= timeout_s
            raise ImageError(f"'{name}' {LATE if late else reason_of(error)}") from None
        ends = container.duration is not None
        return DecodedVideo(
            container,
            name=name,
            max_pixels=max_pixels,
            live=True,
            at_end=(lambda: None) if ends else _raise_ended,
        )

    opened = open_()
    if opened.ends and not rtsp:
        return RecordingSource(name, retry, open_, opened)
    return LiveSource(name, retry, opened, open_)


def _raise_ended() -> None:
    """A stream without an end is not at its end."""
    raise BrokenError("ended the connection")


def _without(name: str, error: Exception) -> str:
    return str(error).removeprefix(f"'{name}' ")
