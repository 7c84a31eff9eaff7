"""Addresses: files and live streams over HTTP, RTSP, and playlists."""

from __future__ import annotations

import time
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any
from urllib.parse import urlsplit

import av

from sam_detect.errors import ImageError
from sam_detect.interfaces import Source
from sam_detect.io._http import HTTP, RTSP, HttpReader, host_of, split, without_secrets
from sam_detect.io._reconnect import (
    RETRIES,
    TIMEOUT_S,
    BrokenError,
    LiveSource,
    RecordingSource,
    Retry,
    interruptibly,
    without_name,
)
from sam_detect.io._video_decoding import LATE, DecodedVideo, decode_file, reason_of
from sam_detect.io.decoding import DEFAULT_MAX_PIXELS

MJPEG = {"multipart/x-mixed-replace": "mpjpeg"}
"""How IP cameras give pictures over HTTP: one after the other, without times."""
PLAYLISTS = {
    "application/vnd.apple.mpegurl": "hls", "application/x-mpegurl": "hls",
    "audio/mpegurl": "hls", "audio/x-mpegurl": "hls", "application/dash+xml": "dash",
}  # fmt: skip
PLAYLIST_ENDINGS = {".m3u8": "hls", ".mpd": "dash"}
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
    retry = Retry(without_secrets(url), retries)
    if parts.scheme.lower() in RTSP:
        return _by_ffmpeg(url, retry, timeout_s, max_pixels)

    def ask() -> HttpReader:
        return HttpReader(url, timeout_s=timeout_s, retry=retry)

    reader = interruptibly(ask)
    if parts.path.lower().endswith(tuple(PLAYLIST_ENDINGS)) or reader.content_type in PLAYLISTS:
        reader.close()
        _require_demuxer(reader)
        if playlist_hosts == "any":
            return _by_ffmpeg(url, retry, timeout_s, max_pixels)
        own = files_of_own_host(reader, timeout_s=timeout_s, retries=retries)
        final = reader.final_url
        return _by_ffmpeg(final, retry, timeout_s, max_pixels, open_file=own, kind=_kind_of(reader))
    if reader.live:
        opened = _decode(reader, max_pixels)
        return LiveSource(reader.name, retry, opened, lambda: _decode(ask(), max_pixels))

    def open_file() -> DecodedVideo:
        reader.rewind()
        return _decode(reader, max_pixels)

    return RecordingSource(reader.name, retry, open_file, open_file())


def _kind_of(reader: HttpReader) -> str:
    """FFmpeg's name of a playlist's format; it would go by the ending, which not all have."""
    ending = PurePosixPath(urlsplit(reader.final_url).path).suffix.lower()
    return PLAYLIST_ENDINGS.get(ending) or PLAYLISTS.get(reader.content_type, "hls")


def _require_demuxer(reader: HttpReader) -> None:
    try:
        av.format.ContainerFormat(_kind_of(reader), "r")
    except ValueError:
        raise ImageError(
            f"'{reader.name}' is a DASH manifest, which this build of PyAV cannot read (its FFmpeg "
            "is without libxml2); give the address of an HLS playlist of the same video"
        ) from None


def files_of_own_host(
    reader: HttpReader, *, timeout_s: float, retries: int
) -> Callable[[str, int, dict[str, str]], HttpReader]:
    """What opens the files that a playlist names, for FFmpeg (its ``io_open``): from the playlist's
    own host alone.

    A playlist may be a stranger's. Otherwise it could send requests to whatever it
    names: other hosts, those of a private network, this machine.

    Args:
        reader: the playlist's.
        timeout_s: how long to wait for each part.
        retries: how often to continue a file that broke off.

    Returns:
        Raises ``ImageError`` for a file that is of another host, encrypted, or not there.
    """
    host = host_of(reader.final_url)

    def open_file(url: str, flags: int, options: dict[str, str]) -> HttpReader:
        name = without_secrets(url)
        if urlsplit(url).scheme.lower() not in HTTP:
            raise ImageError(
                f"'{reader.name}' leads to '{name}', which is no address of http(s){ALLOW}"
            )
        if host_of(url) != host:
            raise ImageError(f"'{reader.name}' leads to another host, '{name}'{ALLOW}")
        file = HttpReader(url, timeout_s=timeout_s, retry=Retry(name, retries), only_host=host)
        if options.get("offset", "").isdecimal():
            file.seek(int(options["offset"]))
        return file

    return open_file


def _decode(reader: HttpReader, max_pixels: int) -> DecodedVideo:
    """The pictures of an answer; raises ``ImageError`` if it is no video."""
    try:
        return decode_file(
            reader,
            name=reader.name,
            max_pixels=max_pixels,
            live=reader.live,
            kind=MJPEG.get(reader.content_type),
            at_end=reader.raise_failure,
            before_close=reader.close if reader.live else reader.hang_up,
        )
    except (BrokenError, ImageError) as error:
        reader.close()
        raise ImageError(f"'{reader.name}' {without_name(reader.name, error)}") from None


def _by_ffmpeg(
    url: str,
    retry: Retry,
    timeout_s: float,
    max_pixels: int,
    *,
    open_file: Callable[..., HttpReader] | None = None,
    kind: str | None = None,
) -> Source:
    """What FFmpeg itself fetches (RTSP, playlists over HTTP), or asks ``open_file`` for.

    A wait of FFmpeg cannot be ended from another thread; it ends by its time-out.
    """
    name, rtsp = without_secrets(url), urlsplit(url).scheme.lower() in RTSP
    options = {"protocol_whitelist": RTSP_PROTOCOLS if rtsp else HTTP_PROTOCOLS}
    options |= {"rtsp_transport": "tcp"} if rtsp else {}
    given: dict[str, Any] = {"timeout": (timeout_s, timeout_s), "format": kind}
    if open_file is not None:
        # FFmpeg would continue with its own connection if it finds one.
        options |= {"http_persistent": "0", "http_multiple": "0"}
        given["io_open"] = open_file

    def end_of_stream() -> None:
        raise BrokenError("ended the connection")

    def open_() -> DecodedVideo:
        began_s = time.monotonic()
        try:
            container = interruptibly(lambda: av.open(url, options=dict(options), **given))
        except ImageError as error:
            raise ImageError(f"'{name}' {without_name(name, error)}") from None
        except (av.FFmpegError, ValueError) as error:
            # A wait that was cut short looks to some demuxers as if nonsense had come.
            late = time.monotonic() - began_s >= timeout_s
            raise ImageError(f"'{name}' {LATE if late else reason_of(error)}") from None
        ends = container.duration is not None
        hooks = {} if ends else {"at_end": end_of_stream}
        return DecodedVideo(container, name=name, max_pixels=max_pixels, live=True, **hooks)

    opened = open_()
    if opened.ends and not rtsp:
        return RecordingSource(name, retry, open_, opened)
    return LiveSource(name, retry, opened, open_)
