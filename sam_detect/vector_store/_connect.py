"""Reaching a Qdrant server: gRPC where it answers, REST elsewhere, and errors in one line."""

from __future__ import annotations

import ipaddress
import logging
import re
import socket
import time
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any
from urllib.parse import urlsplit

import grpc  # type: ignore[import-untyped]
import httpcore
import httpx
from qdrant_client import QdrantClient
from qdrant_client.http.exceptions import (
    ApiException,
    ResponseHandlingException,
    UnexpectedResponse,
)

from sam_detect.errors import ConfigError, SamDetectError, StoreError, one_line

LEAST_VERSION = (1, 16)
"""The first server that keeps collection metadata, where the manifest lives."""
REST_PORT = 6333
GRPC_PORT = 6334
PROBE_TIMEOUT_S = 5
PORT_TIMEOUT_S = 0.5
DEFAULT_TIMEOUT_S = 8
"""For each answer, so that a command with a server that hangs ends within ten seconds."""
MAX_ANSWER_BYTES = 16 << 20
"""Longest answer: what is read at once is a few examples, of at most some 4 MB each."""
MAX_ANSWER_VALUES = 250_000
"""Most values in an answer: their check keeps about 1 KB for each that is wrong."""
ANSWER_S = 4.0
LEAST_BYTES_PER_S = 50_000
"""An answer that has begun must come within 4 s, and 1 s more for each 50 KB of it."""
REFUSED_STATUS = (401, 403)
REFUSED_CODES = (grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED)

CLIENT_ERRORS = (ApiException, grpc.RpcError)

logger = logging.getLogger("sam_detect")


@dataclass(frozen=True)
class ServerAddress:
    """A server's URL in its parts. ``url`` has no user name or password in it."""

    url: str
    host: str
    port: int
    https: bool

    @classmethod
    def parse(cls, text: str) -> ServerAddress:
        """Reads ``http://host:port``; the port is 6333 unless given, ``host:port`` is http.

        Raises:
            ConfigError: it is no such URL.
        """
        full = text.strip() if "://" in text else f"http://{text.strip()}"
        try:
            parts = urlsplit(full)
            port = parts.port or REST_PORT
        except ValueError:
            parts, port = urlsplit(""), 0
        # An @ after the host: a '/', '?' or '#' in a password, which must not be printed.
        hidden = "@" in parts.path + parts.query + parts.fragment
        if parts.scheme not in {"http", "https"} or not parts.hostname or hidden:
            raise ConfigError(
                f"a Qdrant server's URL looks like http://localhost:{REST_PORT}, got "
                f"'{_without_secrets(text)}' (in a name or password, write / ? # @ as %2F %3F %23 "
                "%40)"
            )
        host = f"[{parts.hostname}]" if ":" in parts.hostname else parts.hostname
        path = parts.path.rstrip("/")
        url = f"{parts.scheme}://{host}:{port}{path}"
        return cls(url, parts.hostname, port, parts.scheme == "https")

    @property
    def loopback(self) -> bool:
        try:
            return ipaddress.ip_address(self.host).is_loopback
        except ValueError:
            return self.host == "localhost" or self.host.endswith(".localhost")


def _without_secrets(text: str) -> str:
    """What may be shown of a text that is no URL: nothing before its last @, no query."""
    place = re.split(r"[?#]", text.rpartition("@")[2])[0][:200]
    return f"***@{place}" if "@" in text else place


def connect(
    url: str, api_key: str | None = None, *, timeout_s: int = DEFAULT_TIMEOUT_S
) -> QdrantClient:
    """A client of the server that was seen to answer, in about ten seconds at most.

    gRPC is faster, but a plain ``docker run -p 6333:6333`` has REST only: gRPC is used when the
    server has its usual port and gRPC answers on its own.

    Args:
        timeout_s: how long each later request may take: over REST until the answer begins, over
            gRPC until it is complete.

    Raises:
        ConfigError: not a URL.
        StoreError: nothing answers, it is no Qdrant server, too old, or the key is wrong.
    """
    address = ServerAddress.parse(url)
    if api_key and not address.https and not address.loopback:
        logger.warning(
            "the key for %s travels unencrypted: it can be read on the way; use https://",
            address.url,
        )
    with server_errors(address.url, reaching=True):
        probe = _client(address, api_key, prefer_grpc=False, timeout_s=PROBE_TIMEOUT_S)
        try:
            _require_version(probe.info().version, address.url)
            probe.get_aliases()  # asks for the key, which info() does not
        finally:
            probe.close()
    return _client(
        address, api_key, prefer_grpc=_grpc_answers(address, api_key), timeout_s=timeout_s
    )


class _AnswerLimits:
    """Limits for each answer over REST, of a client that sends one request at a time.

    A time-out of httpx is for each read, so that a server that sends a byte now and then is
    never given up, and no size is ever too large. Over gRPC a call has a deadline and a size.
    """

    def __init__(self) -> None:
        self.hooks = {"request": [self._begin], "response": [self._check]}
        self._began: float | None = None
        self._received = 0

    def _begin(self, request: httpx.Request) -> None:
        self._began, self._received = None, 0
        # Compressed, a few bytes could become gigabytes before they are counted.
        request.headers["accept-encoding"] = "identity"
        request.extensions["trace"] = self._watch

    @staticmethod
    def _check(response: httpx.Response) -> None:
        encoding = response.headers.get("content-encoding", "identity")
        if encoding != "identity":
            raise httpx.DecodingError(f"its answer is encoded ({encoding[:20]}), unasked")
        body = response.read()
        if body.count(b",") + body.count(b"[") + body.count(b"{") > MAX_ANSWER_VALUES:
            raise httpx.DecodingError(f"its answer has more than {MAX_ANSWER_VALUES} values")

    def _watch(self, _event: str, info: dict[str, Any]) -> None:
        """Puts the limits on each connection as it is made (httpcore's extension ``trace``)."""
        stream = info.get("return_value")
        if isinstance(stream, httpcore.NetworkStream):
            vars(stream)["read"] = partial(self._read, stream.read)

    def _read(
        self, read: Callable[..., bytes], max_bytes: int, timeout: float | None = None
    ) -> bytes:
        if self._began is None:
            data = read(max_bytes, timeout)  # it may think before it answers
        else:
            allowed_s = ANSWER_S + self._received / LEAST_BYTES_PER_S
            left_s = self._began + allowed_s - time.monotonic()
            try:
                data = read(max_bytes, max(left_s, 0.01))
            except httpcore.ReadTimeout as error:
                why = f"its answer was not complete after {allowed_s:.0f} s"
                raise httpcore.ReadError(why) from error
        self._began = self._began or time.monotonic()
        self._received += len(data)
        if self._received > MAX_ANSWER_BYTES:
            raise httpcore.ReadError(f"its answer is longer than {MAX_ANSWER_BYTES >> 20} MiB")
        return data


@contextmanager
def server_errors(location: str, *, reaching: bool = False) -> Iterator[None]:
    """Turns what the client raises into a StoreError that names the server and says what to do.

    Args:
        location: the server, for people.
        reaching: whether it was not seen to be a Qdrant server yet.
    """
    try:
        yield
    except (SamDetectError, MemoryError):
        raise
    except Exception as error:
        if not reaching and not isinstance(error, CLIENT_ERRORS):
            raise  # of the points that a caller hands in while we write
        raise _translate(error, location, reaching=reaching) from error


def is_not_found(error: Exception) -> bool:
    """Whether the client says that there is no such collection."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code == 404
    if isinstance(error, grpc.RpcError):
        return _grpc_code(error) is grpc.StatusCode.NOT_FOUND
    return isinstance(error, ValueError) and "not found" in str(error)  # the local mode


def is_conflict(error: Exception) -> bool:
    """Whether the client says that there is such a collection already."""
    if isinstance(error, UnexpectedResponse):
        return error.status_code == 409 or b"already exists" in error.content
    if isinstance(error, grpc.RpcError):
        return _grpc_code(error) is grpc.StatusCode.ALREADY_EXISTS or "already exists" in str(error)
    return isinstance(error, ValueError) and "already exists" in str(error)


def _client(
    address: ServerAddress, api_key: str | None, *, prefer_grpc: bool, timeout_s: int
) -> QdrantClient:
    with warnings.catch_warnings():
        # Ours says where the key goes, and is silent for this machine.
        warnings.filterwarnings("ignore", message="Api key is used with an insecure connection")
        return QdrantClient(
            url=address.url,
            api_key=api_key,
            prefer_grpc=prefer_grpc,
            grpc_port=GRPC_PORT,
            timeout=timeout_s,
            check_compatibility=False,
            grpc_options={"grpc.max_receive_message_length": MAX_ANSWER_BYTES},
            event_hooks=_AnswerLimits().hooks,
        )


def _grpc_answers(address: ServerAddress, api_key: str | None) -> bool:
    if address.port != REST_PORT:
        return False  # 6334 of this machine may be another server's
    try:
        socket.create_connection((address.host, GRPC_PORT), timeout=PORT_TIMEOUT_S).close()
        client = _client(address, api_key, prefer_grpc=True, timeout_s=PROBE_TIMEOUT_S)
    except OSError:
        return False
    try:
        client.get_aliases()
    except Exception:
        return False
    finally:
        client.close()
    return True


def _require_version(version: str, location: str) -> None:
    found = re.match(r"(\d+)\.(\d+)", version)
    if found and (int(found[1]), int(found[2])) < LEAST_VERSION:
        wanted = ".".join(map(str, LEAST_VERSION))
        raise StoreError(
            f"the Qdrant server at {location} has version {version}, {wanted} or newer is needed; "
            f"update it (docker compose pull), or leave out --qdrant-url to use the embedded engine"
        )


def _translate(error: Exception, location: str, *, reaching: bool) -> StoreError:
    status = error.status_code if isinstance(error, UnexpectedResponse) else None
    code = _grpc_code(error) if isinstance(error, grpc.RpcError) else None
    if status in REFUSED_STATUS or code in REFUSED_CODES:
        return StoreError(
            f"the Qdrant server at {location} refuses the API key (or wants one): "
            f"set QDRANT_API_KEY to a valid key"
        )
    details = _detail(error)
    late = code is grpc.StatusCode.DEADLINE_EXCEEDED or "timed out" in details
    if late and not reaching:
        return StoreError(
            f"the Qdrant server at {location} did not answer in time ({details}); if it is only "
            "slow, wait longer with SAM_DETECT_QDRANT_TIMEOUT_S=60"
        )
    unavailable = code is grpc.StatusCode.UNAVAILABLE
    if reaching or isinstance(error, ResponseHandlingException) or late or unavailable:
        return StoreError(
            f"no Qdrant server answers at {location} ({details}): start it (docker compose up -d), "
            f"or leave out --qdrant-url to use the embedded engine"
        )
    return StoreError(f"the Qdrant server at {location} answered with an error: {details}")


def _grpc_code(error: grpc.RpcError) -> grpc.StatusCode | None:
    return error.code() if hasattr(error, "code") else None


def _detail(error: Exception) -> str:
    if isinstance(error, UnexpectedResponse):
        body = " ".join(error.content.decode("utf-8", "replace").split())
        return f"{error.status_code} {error.reason_phrase} {body}"[:200].strip()
    if isinstance(error, grpc.RpcError) and hasattr(error, "details"):
        return str(error.details())[:200]
    return one_line(error)[:200]
