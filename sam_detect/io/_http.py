"""Addresses, shown without what is secret in them; and the answer of an HTTP server, read like a
file: it continues where it broke off.

A *file* has a known length. If its connection breaks it is asked for again from the next byte
(``Range``, of the same version of the file: ``If-Range``), or, if the server gives no parts, from
its beginning up to there. So its reader sees no break, and gets no byte twice. Anything else is
live: it cannot be continued, only opened again.

FFmpeg's own ``reconnect`` is not used for this: it does not notice that the file has changed, ends
early without an error if the server gives no parts, trusts every certificate, and a read of it
cannot be ended from another thread.
"""

from __future__ import annotations

import contextlib
import logging
import re
import socket
import threading
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import SplitResult, urlsplit

import httpx

from sam_detect.errors import ConfigError, ImageError
from sam_detect.io._reconnect import BrokenError, Retry, StoppedError, quietly

HTTP = ("http", "https")
RTSP = ("rtsp", "rtsps")

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")
_VALUE = re.compile(r"=[^&;]*")
_SECRET_IN_PATH = re.compile(r"(?i)((?:user|pass|pwd|token|key|auth)\w*?=)[^/&;_]*")
_UNFINISHED = re.compile(r"[^@\[\]]*:.*\D.*")
HIDDEN = "***"

NEAR_BYTES = 1 << 18
"""So far ahead is read rather than asked for."""
MOST_REDIRECTS = 5
HEADERS = {"Accept-Encoding": "identity", "User-Agent": "sam-detect"}
UNTRUSTED = "CERTIFICATE_VERIFY_FAILED"


def is_url(text: str) -> bool:
    """Whether a text is an address and no path."""
    return _URL.match(text) is not None


def without_secrets(text: str) -> str:
    """An address as it may stand in a message or a file: without name, password and fragment, and
    without the values of its query, where cameras take passwords. Anything else as it is."""
    if not is_url(text):
        return text
    scheme, _, rest = text.partition("://")
    place, slash, path = re.split(r"([/?#]|$)", rest, maxsplit=1)
    if _UNFINISHED.fullmatch(place) and "@" in path:
        # A password with an unescaped / ? or #: what comes before the last @ is part of it.
        place, slash, path = re.split(r"([/?#]|$)", rest.rpartition("@")[2], maxsplit=1)
    path, mark, query = (slash + path).partition("#")[0].partition("?")
    path = _SECRET_IN_PATH.sub(rf"\1{HIDDEN}", path)
    if query:  # one without names is a value itself
        query = _VALUE.sub(f"={HIDDEN}", query) if "=" in query else HIDDEN
    return f"{scheme}://{place.rpartition('@')[2]}{path}{mark}{query}"


def host_of(url: str) -> tuple[str, int]:
    """Host and port that an address of http or https is asked of."""
    parts = urlsplit(url)
    usual = 443 if parts.scheme.lower() == "https" else 80
    return (parts.hostname or "").lower(), parts.port or usual


def split(url: str) -> SplitResult:
    """The parts of an address that can be read from.

    Raises:
        ConfigError: another scheme than those above (no address may name a file of this machine),
            or no host.
    """
    name = without_secrets(url)
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError:
        raise ConfigError(f"'{name}' is no valid address") from None
    if parts.scheme.lower() not in (*HTTP, *RTSP):
        raise ConfigError(
            f"'{name}': a video comes by {', '.join((*HTTP, *RTSP))}, not by "
            f"{parts.scheme.lower()}; a file is named by its path"
        )
    if not host:
        raise ConfigError(f"'{name}' names no host, as in http://host/path")
    return parts


class HttpReader:
    """What a server gives for an address, with ``read``, ``seek`` and ``tell``.

    Args:
        url: http or https; a name and a password in it are used (Basic or Digest), never shown.
        timeout_s: how long to wait for an answer, and for each part of it.
        retry: how often to try again, of a file.
        only_host: host and port to which redirections may lead; None: to any.

    Attributes:
        url: the address.
        name: the same as it may be shown.
        final_url: the same after redirections.
        length: bytes, or None where the server does not say.
        content_type: what the server says it is.

    Raises:
        ImageError: there is no usable answer.
    """

    def __init__(
        self,
        url: str,
        *,
        timeout_s: float,
        retry: Retry,
        only_host: tuple[str, int] | None = None,
    ) -> None:
        self.url, self.name, self._timeout_s = url, without_secrets(url), timeout_s
        self._retry = retry
        self._sockets = _Sockets()
        retry.interrupt = self._sockets.shut
        self._only_host = only_host
        self._client = httpx.Client(
            timeout=timeout_s, follow_redirects=True, max_redirects=MOST_REDIRECTS, headers=HEADERS,
            event_hooks={"request": [self._require_host]},
        )  # fmt: skip
        self._at = 0
        self._failure: Exception | None = None
        self._left = b""
        self._response: httpx.Response | None = None
        self._version: Mapping[str, str] = {}
        self.length: int | None = None
        try:
            response = self._ask(0)
        except BrokenError as error:
            self.close()
            raise ImageError(f"'{self.name}' {error}") from None
        except BaseException:
            self.close()
            raise
        self.final_url = str(response.url) if response.history else url
        headers = response.headers
        self._announces_end = "transfer-encoding" in headers
        if "content-length" in headers:
            self.length = int(headers["content-length"])
        self.content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        self._version = _version(headers)

    @property
    def live(self) -> bool:
        """Whether it has no known end."""
        return self.length is None

    def read(self, size: int) -> bytes:
        """At least one byte, and at most ``size``; none at the end, and after what
        :meth:`raise_failure` raises: so FFmpeg decodes all that came before."""
        while self._failure is None:
            try:
                block = self._take(size)
                if block and not self.live:
                    self._retry.received()
                return block
            except BrokenError as error:
                self._failure = error if self.live else self._continue(str(error))
            except (ImageError, StoppedError) as error:
                self._failure = error
        return b""

    def raise_failure(self) -> None:
        """Raises why there was no more to read, if that was not the end.

        Raises:
            BrokenError: it is live and broke off.
            ImageError: it is a file, broke off and could not be continued.
            StoppedError: it is not wanted any more.
        """
        if self._failure is not None:
            raise self._failure

    def seek(self, offset: int, whence: int = 0) -> int:
        """Goes to a byte of a file."""
        self._at = {0: 0, 1: self._at, 2: self.length or 0}[whence] + offset
        return self._at

    def tell(self) -> int:
        return self._at

    def seekable(self) -> bool:
        return not self.live

    def rewind(self) -> None:
        """Goes back to the beginning of a file, also after a failure."""
        self._at, self._failure = 0, None

    def hang_up(self) -> None:
        """Ends the connection; reading on makes another."""
        response, self._response = self._response, None
        if response is not None:
            quietly(response.close)

    def close(self) -> None:
        self._sockets.shut()
        quietly(self._client.close)

    def _take(self, size: int) -> bytes:
        if self.length is not None and self._at >= self.length:
            return b""
        if self._response is None or not 0 <= self._at - self._there <= NEAR_BYTES:
            self._ask(self._at)
        while self._there < self._at:
            self._left = self._left or self._next_block()
            cut = min(len(self._left), self._at - self._there)
            self._left = self._left[cut:]
            self._there += cut
        if not self._left:
            self._left = self._next_block()
        block, self._left = self._left[:size], self._left[size:]
        self._at += len(block)
        self._there += len(block)
        return block

    def _next_block(self) -> bytes:
        """The next bytes of the answer; none at an end that the server announced."""
        try:
            return next(self._blocks)
        except StopIteration:
            if self.live and self._announces_end:
                return b""
            raise self._broken("ended the connection") from None
        except (httpx.HTTPError, httpx.StreamError, OSError) as error:
            raise self._broken(self._reason(error)) from None

    def _continue(self, reason: str) -> Exception | None:
        """Asks for the rest of a file until it comes; what ends that is returned."""
        while True:
            try:
                self._retry.lost(reason)
                self._ask(self._at)
                return None
            except BrokenError as error:
                reason = str(error)
            except (ImageError, StoppedError) as error:
                return error

    def _ask(self, start: int) -> httpx.Response:
        """Asks for the file from a byte on."""
        self.hang_up()
        headers = {"Range": f"bytes={start}-", **self._version} if start else {}
        try:
            response = self._send(headers, None)
            if response.status_code == httpx.codes.UNAUTHORIZED:
                asked = response.headers.get("www-authenticate", "").lower()
                name, password = httpx.URL(self.url).username, httpx.URL(self.url).password
                if name and asked.startswith("digest"):  # as many cameras do
                    response = self._send(headers, httpx.DigestAuth(name, password))
        except (httpx.HTTPError, httpx.InvalidURL, OSError) as error:
            raise self._broken(self._reason(error)) from None
        self._response, self._left = response, b""
        self._there = self._start_of(response, start)
        self._blocks: Iterator[bytes] = response.iter_raw()
        return response

    def _send(self, headers: Mapping[str, str], auth: httpx.Auth | None) -> httpx.Response:
        if self._retry.stopped.is_set():
            raise StoppedError
        extensions = {"trace": self._sockets.trace}
        request = self._client.build_request(
            "GET", self.url, headers=headers, extensions=extensions
        )
        with _redacted_log():
            return self._client.send(request, stream=True, **({"auth": auth} if auth else {}))  # type: ignore[arg-type]

    def _require_host(self, request: httpx.Request) -> None:
        """Called before each request, those after a redirection as well."""
        asked = str(request.url)
        if self._only_host is not None and host_of(asked) != self._only_host:
            raise ImageError(f"'{self.name}' leads to another host, '{without_secrets(asked)}'")

    def _start_of(self, response: httpx.Response, start: int) -> int:
        """Which byte an answer begins with; raises for one that is of no use."""
        status = response.status_code
        if status == httpx.codes.PARTIAL_CONTENT:
            found = re.match(r"bytes (\d+)-\d+/(\d+|\*)", response.headers.get("content-range", ""))
            if start and found and int(found[1]) == start and found[2] in ("*", str(self.length)):
                return start
            raise ImageError(f"'{self.name}' answers with another part than was asked for")
        if status != httpx.codes.OK:
            raise self._broken(_refusal(status, named="@" in self.url))
        headers = response.headers
        length = headers.get("content-length", str(self.length))
        if start and (length != str(self.length) or _version(headers) != self._version):
            raise ImageError(f"'{self.name}' was changed while it was read; read it again")
        return 0

    def _broken(self, reason: str) -> Exception:
        self.hang_up()
        return StoppedError() if self._retry.stopped.is_set() else BrokenError(reason)

    def _reason(self, error: Exception) -> str:
        """What a user can do; never the library's text, which may have the URL."""
        if isinstance(error, httpx.TimeoutException):
            return (
                f"gave no answer within {self._timeout_s:g} s (--stream-timeout-s allows for more)"
            )
        if isinstance(error, httpx.TooManyRedirects):
            return f"redirects more than {MOST_REDIRECTS} times"
        if isinstance(error, httpx.UnsupportedProtocol):
            return "redirects to what is neither http nor https"
        if UNTRUSTED in str(error):
            return "has a certificate that is not trusted; name its authority in SSL_CERT_FILE"
        if isinstance(error, httpx.ConnectError):
            return "cannot be reached; check the address, and that the server or camera is on"
        return "broke the connection"


@contextlib.contextmanager
def _redacted_log() -> Iterator[None]:
    """Removes secrets from the lines that httpx logs of this thread's requests."""
    thread, log = threading.get_ident(), logging.getLogger("httpx")

    def redact(record: logging.LogRecord) -> bool:
        if record.thread == thread and isinstance(record.args, tuple):
            record.args = tuple(
                without_secrets(str(each)) if isinstance(each, httpx.URL) else each
                for each in record.args
            )
        return True

    log.addFilter(redact)
    try:
        yield
    finally:
        log.removeFilter(redact)


class _Sockets:
    """The connections of a client, so that another thread can end a read on them."""

    def __init__(self) -> None:
        self._open: list[socket.socket] = []
        self._shut = False

    def trace(self, event: str, info: dict[str, Any]) -> None:
        """Called by httpcore for each connection."""
        if event.endswith(("connect_tcp.complete", "start_tls.complete")):
            made = info["return_value"].get_extra_info("socket")
            self._open = [each for each in self._open if each.fileno() >= 0] + [made]
            if self._shut:
                self.shut()

    def shut(self) -> None:
        self._shut = True
        for each in self._open:
            # Not TLS's own method, which another thread must not call during a read.
            quietly(lambda each=each: socket.socket.shutdown(each, socket.SHUT_RDWR))  # type: ignore[misc]


def _version(headers: Mapping[str, str]) -> dict[str, str]:
    """Which version of a file an answer has, as ``If-Range`` asks for it."""
    etag, date = headers.get("etag", ""), headers.get("last-modified", "")
    strong = etag if etag and not etag.startswith("W/") else date
    return {"If-Range": strong} if strong else {}


def _refusal(status: int, *, named: bool) -> str:
    """Why a server's answer is none, and what to do."""
    said = f"(HTTP {status})"
    if status == httpx.codes.UNAUTHORIZED:
        remedy = "check them" if named else "give them as in http://NAME:PASSWORD@host/path"
        wants = "refuses this name and password" if named else "wants a name and a password"
        return f"{wants} {said}; {remedy}"
    if status == httpx.codes.FORBIDDEN:
        return f"may not be read {said}; check name, password and rights"
    if status in (httpx.codes.NOT_FOUND, httpx.codes.GONE):
        return f"is not there {said}; check the address"
    return f"answers with an error {said}"
