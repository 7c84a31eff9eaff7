"""What every server of this package shares: who may ask, how much, how slowly, and how failure is
answered.

Each answer that is no success is a problem of RFC 9457. :class:`Guard` stands in front of an
application and refuses a request before its body is read.
"""

from __future__ import annotations

import asyncio
import io
import json
import re
from base64 import urlsafe_b64decode
from collections.abc import Callable, Collection, Iterable, Mapping, MutableMapping
from contextlib import suppress
from contextvars import ContextVar
from http import HTTPStatus
from importlib import resources
from typing import Any, get_origin

import numpy as np
import numpy.typing as npt
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.responses import JSONResponse
from PIL import Image
from python_multipart.multipart import parse_options_header
from starlette.datastructures import FormData, Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from sam_detect.errors import (
    ConfigError,
    ExampleNotFoundError,
    ImageError,
    LibraryBusyError,
    LibraryError,
    LibraryNotFoundError,
    MaskError,
    NotFoundError,
    OutputError,
    RecipeMismatchError,
    SamDetectError,
    StoreError,
    UnavailableError,
    one_line,
)
from sam_detect.server.access import Access
from sam_detect.server.hidden_paths import reason_of, without_home

PROBLEM = "application/problem+json"
MAX_BODY = 1 << 20
BODY_SECONDS = 30.0
"""A body that takes longer is given up: a slow client would hold its connection for ever."""
STALLED_BODY_SECONDS = 10.0
"""... and so is one of which nothing comes for so long."""
FORM, MOST_AFTER_FORM = b"multipart/form-data", 1 << 10
"""So many bytes may follow the closing boundary of a form."""
DRAINED_BYTES, DRAINED_SECONDS = 64 << 20, 5
"""So much of a body that is refused is read, so that its sender gets to the answer."""
SOCKET_PROTOCOL = "sam-detect"
"""The subprotocol of the WebSockets. A page cannot send a header with one, so it names its token as
a second protocol, :data:`TOKEN_PROTOCOL` and the token in base64url: in no address, and in no log.
"""
TOKEN_PROTOCOL = "token."  # noqa: S105 - the beginning of a name
REFUSED_SOCKET = 1008
"""The close code of RFC 6455 for a policy that was violated."""
CONTENT_POLICY = (
    "default-src 'self'; img-src 'self' blob: data:; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'; "
    "style-src 'self' 'sha256-9xTiqzfwFaL2SGb1rmr8gysEwVVjIvqWAgmZgqFqpEE='"
)
"""The digest is of the one style sheet that OpenSeadragon writes into a page."""
SECURITY_HEADERS = {
    "Content-Security-Policy": CONTENT_POLICY,
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
}
_CHARSET = re.compile(r'charset="?utf-?8"?')
REQUEST: ContextVar[str] = ContextVar("request", default="")
"""The id of the request that is being answered."""
STATUSES: tuple[tuple[type[SamDetectError], int], ...] = (
    (NotFoundError, 404),
    (LibraryNotFoundError, 404),
    (ExampleNotFoundError, 404),
    (LibraryBusyError, 503),
    (StoreError, 503),
    (LibraryError, 409),
    (RecipeMismatchError, 409),
    (UnavailableError, 503),
    (ConfigError, 422),
    (ImageError, 422),
    (MaskError, 422),
    (OutputError, 507),
)
"""The status of an error: the first class that it is of; 500 for any other."""


def status_of(error: SamDetectError) -> int:
    """The HTTP status that answers an error."""
    return next((status for kind, status in STATUSES if isinstance(error, kind)), 500)


def problem_of(error: BaseException) -> dict[str, Any]:
    """What an error says, as :func:`problem_body` has it."""
    if isinstance(error, SamDetectError):
        return problem_body(status_of(error), one_line(error))
    if isinstance(error, OSError):
        return problem_body(507, f"nothing was changed: {reason_of(error)}")
    if isinstance(error, MemoryError):
        return problem_body(507, "it needs more memory than there is: send less at once")
    return problem_body(500, "an error in the server: see its log")


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """The answer that says what went wrong."""
    return answer_of(problem_body(status, detail), headers)


def answer_of(body: Mapping[str, Any], headers: Mapping[str, str] | None = None) -> Response:
    """The answer with the body of a problem."""
    return PlainJSON(body, body["status"], headers=headers, media_type=PROBLEM)


def problem_body(status: int, detail: str) -> dict[str, Any]:
    """What went wrong, as RFC 9457 has it; with the id of the request as ``instance``, where it
    has one."""
    body: dict[str, Any] = {
        "type": "about:blank", "title": HTTPStatus(status).phrase, "status": status,
        "detail": without_home(detail),
    }  # fmt: skip
    request = REQUEST.get()
    return body | {"instance": f"urn:sam-detect:request:{request}"} if request else body


def answer_problems(app: FastAPI) -> None:
    """Has an application answer every failure with a problem, without a traceback."""

    @app.exception_handler(SamDetectError)
    def failed(_: Request, error: SamDetectError) -> Response:
        status = status_of(error)
        return problem(status, one_line(error), {"Retry-After": "2"} if status == 503 else None)

    @app.exception_handler(HTTPException)
    def refused(_: Request, error: HTTPException) -> Response:
        return problem(error.status_code, str(error.detail), error.headers)

    @app.exception_handler(RequestValidationError)
    def malformed(_: Request, error: RequestValidationError) -> Response:
        return problem(422, first_problem(error, within=1))

    @app.exception_handler(WebSocketRequestValidationError)
    async def malformed_stream(socket: WebSocket, error: WebSocketRequestValidationError) -> None:
        await socket.send_denial_response(problem(422, first_problem(error, within=1)))

    @app.exception_handler(Exception)
    def broken(_: Request, error: Exception) -> Response:
        """An unforeseen error is in the log, too; the connection ends with it."""
        return answer_of(problem_of(error), {"Connection": "close"})

    for kind in (OSError, MemoryError):
        app.exception_handler(kind)(lambda _, error: answer_of(problem_of(error)))


def first_problem(error: Any, within: int = 0) -> str:
    """Of an error of pydantic the field, without so many parts of its place, and what is wrong."""
    first = error.errors()[0]
    place = ".".join(map(str, first["loc"][within:]))
    return f"{place}: {first['msg']}" if place else str(first["msg"])


def known_names(asked: HTTPConnection) -> None:
    """A dependency of routes: refuses what a query or a form names and no route reads, as a
    misspelt name, and what a form has twice and a route reads once."""
    route = asked.scope["route"].dependant
    fields = {each.alias: each.field_info.annotation for each in route.body_params}
    form: FormData = getattr(asked, "_form", None) or FormData()  # parsed by now
    for name in {*form}:
        said = "" if name in fields else f"no such field; there are: {', '.join(sorted(fields))}"
        if name in fields and len(form.getlist(name)) > 1 and get_origin(fields[name]) is not list:
            said = "it is there more than once, and only one is read"
        if said:
            raise RequestValidationError([{"loc": ("body", name[:100]), "msg": said}])
    known = {each.alias for part in (route, *route.dependencies) for each in part.query_params}
    for name in {*asked.query_params} - known:
        said = f"there is no such option; there are: {', '.join(sorted(known)) or 'none'}"
        is_http = asked.scope["type"] == "http"
        error = RequestValidationError if is_http else WebSocketRequestValidationError
        raise error([{"loc": ("query", name[:100]), "msg": said}])


class PlainJSON(JSONResponse):
    """Plain data, which FastAPI does not look at, value by value: that takes longer than all else
    for some hundred outlines. What is no text (in names of files) becomes question marks."""

    def render(self, content: Any) -> bytes:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")


def page_file(name: str, media: str) -> Callable[[], Response]:
    """What answers with a file of a page."""

    def answer() -> Response:
        content = (resources.files("sam_detect.server") / "static" / name).read_bytes()
        return Response(content, media_type=media, headers={"Cache-Control": "no-cache"})

    return answer


class Guard:
    """ASGI middleware: refuses who may not ask, bodies that are too large and clients that are too
    slow, for requests and for WebSockets; adds the security headers.

    Args:
        app: what is guarded.
        access: who may ask.
        public: paths of pages that hold no data: without a token they are answered, too.
        body_limit: bytes of the largest body for a path.
        body_seconds: a body that takes longer is answered with 408.
        bytes_at_once: of what came of the bodies of all requests that are being answered; a
            request that makes it more is answered with 429. None: it is not limited.
    """

    def __init__(
        self,
        app: ASGIApp,
        access: Access,
        *,
        public: Collection[str] = (),
        body_limit: Callable[[str], int] = lambda _path: MAX_BODY,
        body_seconds: float = BODY_SECONDS,
        bytes_at_once: int | None = None,
    ) -> None:
        self._app, self._access = app, access
        self._public, self._body_limit = frozenset(public), body_limit
        self._body_seconds = body_seconds
        self._bytes_at_once, self._bytes = bytes_at_once, 0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http":
            await self._request(scope, receive, send)
        elif scope["type"] == "websocket":
            await self._socket(scope, receive, send)
        else:
            await self._app(scope, receive, send)

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        limit = self._body_limit(scope["path"])
        refused = self._access.refusal(
            host=headers.get("host", ""), origin=headers.get("origin"),
            site=headers.get("sec-fetch-site"), authorization=headers.get("authorization"),
        )  # fmt: skip
        public = scope["method"] in ("GET", "HEAD") and scope["path"] in self._public
        length = headers.get("content-length", "0")
        charset = _CHARSET.sub("", headers.get("content-type", "").casefold())
        if refused is not None and not (refused[0] in (401, 403) and public):
            extra = {"WWW-Authenticate": "Bearer"} if refused[0] == 401 else None
            answer = problem(*refused, extra)
        elif "transfer-encoding" in headers:
            answer = problem(411, "a request needs its Content-Length")
        elif "charset" in charset:
            answer = problem(415, "text of a request is read as UTF-8: leave the charset out")
        elif not (length.isascii() and length.isdigit()):
            answer = problem(400, "the Content-Length is no number")
        elif len(length) > 18 or int(length) > limit:
            answer = problem(413, f"this request may have {limit} bytes")
        else:
            taken: list[int] = []
            kind, options = parse_options_header(headers.get("content-type", ""))
            boundary = options.get(b"boundary") if kind == FORM else None
            end = b"\r\n--" + boundary + b"--" if boundary else b""
            try:
                await self._app(scope, self._taking(receive, taken, end), _with_headers(send))
            finally:
                self._bytes -= sum(taken)
            return
        # A client that is still sending would not read the answer, so what it sends is thrown away.
        answer.headers["Connection"] = "close"
        await _drain(receive)
        await answer(scope, receive, _with_headers(send))

    def _taking(self, receive: Receive, taken: list[int], closing: bytes) -> Receive:
        """Takes a body; gives it up where it is not complete in time, nothing of it comes for long,
        there is no room for it, or it ends without ``closing``: the parser of forms passes over
        what was cut off. What is only announced takes no room."""
        now = asyncio.get_running_loop().time
        end, complete, tail = now() + self._body_seconds, False, b"\r\n"

        async def taking() -> Message:
            nonlocal complete, tail
            if complete:  # what is waited for now is the end of the connection
                return await receive()
            try:
                left = min(end - now(), STALLED_BODY_SECONDS)
                message = await asyncio.wait_for(receive(), max(left, 0.001))
            except asyncio.TimeoutError as error:
                late = (
                    f"the request was not complete after {self._body_seconds:g} s, or stood still"
                )
                raise HTTPException(408, late, {"Connection": "close"}) from error
            complete = not message.get("more_body", False)
            taken.append(len(message.get("body", b"")))
            self._bytes += taken[-1]
            if self._bytes_at_once is not None and self._bytes > self._bytes_at_once:
                await _drain(receive)
                close = {"Retry-After": "2", "Connection": "close"}
                raise HTTPException(429, "too many uploads at once: send it again", close)
            tail = (tail + message.get("body", b""))[-len(closing) - MOST_AFTER_FORM :]
            if complete and any(taken) and closing not in tail:
                raise HTTPException(400, "the form ends without its closing boundary: it was cut "
                                    "off on the way, so send it again")  # fmt: skip
            return message

        return taking

    async def _socket(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        refused = self._access.refusal(
            host=headers.get("host", ""), origin=headers.get("origin"),
            site=headers.get("sec-fetch-site"),
            authorization=headers.get("authorization") or _named(scope.get("subprotocols", ())),
        )  # fmt: skip
        if refused is None:
            await self._app(scope, receive, send)
            return
        await receive()
        if "websocket.http.response" in scope.get("extensions", {}):
            answer = problem(*refused)
            start: MutableMapping[str, Any] = {
                "type": "websocket.http.response.start", "status": answer.status_code,
                "headers": answer.raw_headers,
            }  # fmt: skip
            await send(start)
            await send({"type": "websocket.http.response.body", "body": answer.body})
        else:
            await send({"type": "websocket.close", "code": REFUSED_SOCKET, "reason": refused[1]})


def _named(protocols: Iterable[str]) -> str | None:
    """The token that the protocols of a WebSocket name, as a header would give it."""
    for each in protocols:
        if each.startswith(TOKEN_PROTOCOL):
            given = each[len(TOKEN_PROTOCOL) :]
            try:
                token = urlsafe_b64decode(given + "=" * (-len(given) % 4)).decode()
            except ValueError:
                return None
            return f"Bearer {token}"
    return None


async def _drain(receive: Receive) -> None:
    """Reads and drops a body, as long as it is not too long and not too slow."""
    left = DRAINED_BYTES

    async def read() -> None:
        nonlocal left
        more = True
        while more and left > 0:
            message = await receive()
            left -= len(message.get("body", b""))
            more = message.get("more_body", False)

    with suppress(asyncio.TimeoutError):
        await asyncio.wait_for(read(), DRAINED_SECONDS)


def _with_headers(send: Send) -> Send:
    async def sending(message: Message) -> None:
        if message["type"] == "http.response.start":
            headers = MutableHeaders(scope=message)
            for name, value in SECURITY_HEADERS.items():
                headers.setdefault(name, value)
            headers.setdefault("Cache-Control", "no-store")
        await send(message)

    return sending


def as_image(
    image_rgb: npt.NDArray[np.uint8],
    kind: str = "WEBP",
    *,
    headers: Mapping[str, str] | None = None,
    **options: Any,
) -> Response:
    """An image as the body of an answer.

    Args:
        image_rgb: ``(h, w, 3)`` uint8.
        kind: Pillow's name of it.
        options: of Pillow for this format.
    """
    data = io.BytesIO()
    Image.fromarray(image_rgb).save(data, kind, **options)
    return Response(data.getvalue(), media_type=f"image/{kind.lower()}", headers=headers)
