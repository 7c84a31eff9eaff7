"""Addresses in: files and live streams over HTTP, RTSP, and playlists."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import Any
from urllib.parse import urlsplit

import av

from sam_detect.errors import ImageError
from sam_detect.interfaces import Source
from sam_detect.sources._containers import Pictures, open_pictures, pictures_of
from sam_detect.sources._http import HttpAnswer
from sam_detect.sources._live import LiveSource, Session
from sam_detect.sources._persistence import (
    RETRIES,
    TIMEOUT_S,
    BrokenError,
    Persistence,
    StoppedError,
    interruptibly,
)
from sam_detect.sources.addresses import HTTP, RTSP, host_of, shown, split
from sam_detect.sources.images import DEFAULT_MAX_PIXELS
from sam_detect.sources.video_files import whole
from sam_detect.types import Frame, ImageRGB

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
    has no end is live: a break is got over by opening it anew.

    Args:
        url: http, https, rtsp or rtsps, with name and password where they are needed. Messages
            and frames have it without these.
        timeout_s: how long to wait for the next part of it.
        retries: how often to try to get it back, in a row.
        max_pixels: larger frames are refused before they are decoded.
        playlist_hosts: where a playlist may lead: ``own`` (its own host and port) or ``any``.

    Raises:
        ConfigError: it is no address of this kind.
        ImageError: nothing is there, or no video.
    """
    parts = split(url)
    persistence = Persistence(shown(url), retries)
    if parts.scheme.lower() in RTSP:
        return _network(url, persistence, timeout_s, max_pixels)

    def ask() -> HttpAnswer:
        return HttpAnswer(url, timeout_s=timeout_s, persistence=persistence)

    answer = interruptibly(ask)
    if _is_playlist(url, answer):
        answer.close()
        if playlist_hosts == "any":
            return _network(url, persistence, timeout_s, max_pixels)
        own = PlaylistFiles(answer, timeout_s=timeout_s, retries=retries)
        return _network(own.url, persistence, timeout_s, max_pixels, own)
    if not answer.live:
        return HttpFileSource(answer, persistence, max_pixels)
    session = HttpSession(answer, max_pixels)
    return StreamSource(answer.name, persistence, session, lambda: HttpSession(ask(), max_pixels))


class PlaylistFiles:
    """What a playlist names, fetched for FFmpeg: from the playlist's own host alone.

    A playlist is a text that anybody may have written. Whoever reads it would otherwise ask what
    it names: other hosts, those of a home's or a firm's own network, this machine.

    Args:
        answer: the playlist's.
        timeout_s: how long to wait for each part.
        retries: how often to take up a file that broke off.

    Attributes:
        url: the playlist's, after redirections.
        name: the playlist's, as it may be shown.
    """

    def __init__(self, answer: HttpAnswer, *, timeout_s: float, retries: int) -> None:
        self.url = answer.final_url
        self.name = answer.name
        self._host = host_of(self.url)
        self._timeout_s, self._retries = timeout_s, retries

    def __call__(self, url: str, flags: int, options: dict[str, str]) -> HttpAnswer:
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
        answer = HttpAnswer(
            url,
            timeout_s=self._timeout_s,
            persistence=Persistence(name, self._retries),
            only_host=self._host,
        )
        if options.get("offset", "").isdecimal():
            answer.seek(int(options["offset"]))
        return answer


def _is_playlist(url: str, answer: HttpAnswer) -> bool:
    by_path = urlsplit(url).path.lower().endswith(PLAYLIST_ENDINGS)
    return by_path or answer.content_type in PLAYLISTS


class HttpFileSource(Source):
    """A video file on a server; no frame is lost and none comes twice, also where its connection
    breaks.

    Args:
        answer: the server's, at its beginning.
        persistence: how often to try to continue it.
        max_pixels: larger frames are refused before they are decoded.

    Raises:
        ImageError: it is no video with pictures.
    """

    def __init__(self, answer: HttpAnswer, persistence: Persistence, max_pixels: int) -> None:
        self.name = answer.name
        self._answer, self._persistence, self._max_pixels = answer, persistence, max_pixels
        try:
            self._opened: Pictures | None = self._open()
        except ImageError:
            answer.close()
            raise

    def frames(self) -> Iterator[Frame]:
        """The frames in the order in which they are shown.

        Raises:
            ImageError: it broke off and could not be continued, or as
                :meth:`~sam_detect.sources.video_files.VideoFileSource.frames` does.
        """
        pictures, self._opened = self._opened or self._open(), None
        try:
            for frame in whole(self, pictures, self._persistence.stopped):
                self.reconnects = self._persistence.reconnects
                yield frame
        except StoppedError:
            return
        finally:
            pictures.close()
            self._answer.hang_up()

    def stop(self) -> None:
        self._persistence.stop()

    def _open(self) -> Pictures:
        self._answer.begin()
        return open_pictures(
            self._answer,
            name=self.name,
            max_pixels=self._max_pixels,
            live=False,
            complain=self._answer.complain,
        )


class PlaylistSource(Source):
    """A video in many small files on a server, with an end.

    Args:
        opened: its pictures.
        name: its address, as it may be shown.
    """

    def __init__(self, opened: Pictures, name: str) -> None:
        self.name = name
        self._opened = opened
        self._stopped = threading.Event()

    def frames(self) -> Iterator[Frame]:
        """The frames; raises ``ImageError`` where it breaks off."""
        try:
            yield from whole(self, self._opened, self._stopped)
        except av.FFmpegError as error:
            raise ImageError(f"'{self.name}' {_reason(error)}") from None
        finally:
            self._opened.close()

    def stop(self) -> None:
        self._stopped.set()


class StreamSource(LiveSource):
    """A live stream at an address.

    Args:
        name: the address, as it may be shown.
        persistence: how often to try to get it back.
        session: it, opened.
        again: opens it again.
    """

    def __init__(
        self,
        name: str,
        persistence: Persistence,
        session: Session,
        again: Callable[[], Session],
    ) -> None:
        super().__init__(name, persistence, session)
        self._again = again

    def _open(self) -> Session:
        return self._again()


class HttpSession(Session):
    """A live stream over HTTP.

    Raises:
        ImageError: it is no video.
    """

    def __init__(self, answer: HttpAnswer, max_pixels: int) -> None:
        self._answer = answer
        kind = MJPEG.get(answer.content_type)
        try:
            self._video = open_pictures(
                answer,
                name=answer.name,
                max_pixels=max_pixels,
                live=True,
                kind=kind,
                complain=answer.complain,
            )
        except (BrokenError, ImageError) as error:
            answer.close()
            raise ImageError(f"'{answer.name}' {_without(answer.name, error)}") from None
        self.step_s = self._video.step_s

    def pictures(self) -> Iterator[tuple[ImageRGB, float | None]]:
        for image, said_s in self._video:
            self.damaged = self._video.damaged
            yield image, said_s if self._video.has_times else time.monotonic()

    def close(self) -> None:
        self._answer.close()
        self._video.close()


class FFmpegSession(Session):
    """A live stream that FFmpeg itself fetches.

    A wait for it cannot be ended from outside; it ends by its time-out.
    """

    def __init__(self, video: Pictures) -> None:
        self._video, self.step_s = video, video.step_s

    def pictures(self) -> Iterator[tuple[ImageRGB, float | None]]:
        try:
            for picture in self._video:
                self.damaged = self._video.damaged
                yield picture
        except av.FFmpegError as error:
            raise BrokenError(_reason(error)) from None
        if not self._video.ends:
            raise BrokenError("ended the connection")

    def close(self) -> None:
        self._video.close()


def _network(
    url: str,
    persistence: Persistence,
    timeout_s: float,
    max_pixels: int,
    files: PlaylistFiles | None = None,
) -> Source:
    """What FFmpeg itself fetches, RTSP and playlists over HTTP; or asks ``files`` for."""
    name = shown(url)
    rtsp = urlsplit(url).scheme.lower() in RTSP
    # By the ending that FFmpeg would ask for, which not every server gives.
    kind = "dash" if urlsplit(url).path.lower().endswith(".mpd") else "hls"

    def open_() -> Pictures:
        options = {"protocol_whitelist": RTSP_PROTOCOLS if rtsp else HTTP_PROTOCOLS}
        options |= {"rtsp_transport": "tcp"} if rtsp else {}
        wait_s, began_s = (timeout_s, timeout_s), time.monotonic()
        given: dict[str, Any] = {"options": options, "timeout": wait_s}
        if files is not None:
            # FFmpeg would go on with its own connection where it finds one.
            options |= {"http_persistent": "0", "http_multiple": "0"}
            given |= {"io_open": files, "format": kind}
        try:
            container = interruptibly(lambda: av.open(url, **given))
        except ImageError as error:
            raise ImageError(f"'{name}' {_without(name, error)}") from None
        except (av.FFmpegError, ValueError) as error:
            # A wait that was cut short looks to some demuxers as if nonsense had come.
            late = time.monotonic() - began_s >= timeout_s
            raise ImageError(f"'{name}' {LATE if late else _reason(error)}") from None
        return pictures_of(container, name=name, max_pixels=max_pixels, live=True)

    opened = open_()
    if opened.ends and not rtsp:
        return PlaylistSource(opened, name)
    return StreamSource(name, persistence, FFmpegSession(opened), lambda: FFmpegSession(open_()))


def _without(name: str, error: Exception) -> str:
    return str(error).removeprefix(f"'{name}' ")


def _reason(error: Exception) -> str:
    """What went wrong, without the address that FFmpeg's own messages have."""
    for kinds, text in REASONS:
        if isinstance(error, kinds):
            return text
    return f"cannot be read: {getattr(error, 'strerror', None) or type(error).__name__}"


LATE = "gave no answer in time (--stream-timeout-s allows for more)"
REASONS: tuple[tuple[tuple[type[Exception], ...], str], ...] = (
    ((av.HTTPUnauthorizedError,), "wants a name and a password, or refuses those given (401)"),
    ((av.HTTPForbiddenError,), "may not be read (403); check name, password and rights"),
    ((av.HTTPNotFoundError,), "is not there (404); check the address"),
    (
        (av.ExitError, av.TimeoutError),
        "gave no answer in time (--stream-timeout-s allows for more)",
    ),
    ((av.ConnectionRefusedError,), "cannot be reached; check that the server or camera is on"),
    ((av.EOFError,), "ended the connection"),
    ((av.InvalidDataError,), "cannot be read as a video"),
)
