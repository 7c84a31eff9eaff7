"""What every server of this package shares: the application with its pages, and :class:`Guard`.

The guard stands in front of the application. It says who may ask, how much and how slowly, and
refuses a request before its body is read.
"""

from __future__ import annotations

import asyncio
import io
import re
from base64 import urlsafe_b64decode
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Coroutine,
    Iterable,
    Mapping,
)
from contextlib import suppress
from importlib import resources
from typing import Any

import numpy as np
import numpy.typing as npt
from fastapi import FastAPI, Response, WebSocket, WebSocketDisconnect
from PIL import Image
from python_multipart.multipart import parse_options_header
from starlette.datastructures import Headers, MutableHeaders
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from sam_detect import __version__
from sam_detect.server.access import Access
from sam_detect.server.problems import PlainJSON, answer_problems, problem
from sam_detect.server.schemas import Health

MAX_BODY = 1 << 20
BODY_SECONDS = 30.0
"""A body that takes longer is given up: a slow client would hold its connection for ever."""
STALLED_BODY_SECONDS = 10.0
"""A body of which nothing comes for this time is given up, too."""
FORM, MOST_AFTER_FORM = b"multipart/form-data", 1 << 10
"""The media type of forms, and the bytes that may follow their closing boundary."""
DRAINED_BYTES, DRAINED_SECONDS = 64 << 20, 5
"""How much of a refused body is read, and for how long, so that its sender gets to the answer."""
SOCKET_PROTOCOL = "sam-detect"
"""The subprotocol of the WebSockets. A page cannot send a header with one, so it names its token as
a second protocol, :data:`TOKEN_PROTOCOL` and the token in base64url: in no address, and in no log.
"""
TOKEN_PROTOCOL = "token."  # noqa: S105 - the beginning of a name
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
MEDIA = {"html": "text/html", "js": "text/javascript", "css": "text/css", "svg": "image/svg+xml"}
"""The media types of the files of pages, by the ends of their names."""
Page = Mapping[str, str]
"""Paths and the files in ``static`` that answer them; nothing else is read from the disk by a name
in a request."""


def application(page: Page, **options: Any) -> FastAPI:
    """An application that answers with problems, says that it runs, and has the files of a page.

    Args:
        options: of ``FastAPI``.
    """
    app = FastAPI(
        title="sam-detect", version=__version__, docs_url=None, redoc_url=None,
        default_response_class=PlainJSON, **options,
    )  # fmt: skip
    answer_problems(app)

    @app.get("/healthz", tags=["service"], summary="Whether it runs")
    async def health() -> Health:  # waits for no thread that others keep busy
        """Answers as long as the process does."""
        return {"status": "ok", "version": __version__}

    for path, name in page.items():
        app.get(path, include_in_schema=False)(page_file(name))
    return app


def page_file(name: str) -> Callable[[], Response]:
    """What answers with a file of a page."""

    def answer() -> Response:
        content = (resources.files("sam_detect.server") / "static" / name).read_bytes()
        media = MEDIA[name.rpartition(".")[2]]
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

    def _refusal(self, headers: Headers, named: str | None = None) -> tuple[int, str] | None:
        return self._access.refusal(
            host=headers.get("host", ""), origin=headers.get("origin"),
            site=headers.get("sec-fetch-site"), authorization=headers.get("authorization") or named,
        )  # fmt: skip

    async def _request(self, scope: Scope, receive: Receive, send: Send) -> None:
        headers = Headers(scope=scope)
        limit = self._body_limit(scope["path"])
        refused = self._refusal(headers)
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
        refused = self._refusal(headers, _named(scope.get("subprotocols", ())))
        if refused is None:
            await self._app(scope, receive, send)
            return
        await receive()
        await problem(*refused)(scope, receive, send)


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


class OpenSockets:
    """The WebSockets of a page or a service, of which a limited number may be open at once.

    Args:
        most: further ones are refused.
        refusal: what is said then.
    """

    def __init__(self, most: int, refusal: str) -> None:
        self._most, self._refusal, self._open = most, refusal, 0

    async def serve(self, socket: WebSocket, run: Callable[[], Awaitable[None]]) -> None:
        """Accepts a WebSocket, if there is room for it, and runs what serves it."""
        if self._open >= self._most:
            refused = problem(503, f"{self._most} {self._refusal}", {"Retry-After": "5"})
            await socket.send_denial_response(refused)
            return
        self._open += 1
        try:
            offered = socket.scope.get("subprotocols", ())
            await socket.accept(SOCKET_PROTOCOL if SOCKET_PROTOCOL in offered else None)
            await run()
        finally:
            self._open -= 1


async def received(socket: WebSocket) -> AsyncIterator[Message]:
    """The messages of a client, with ``text`` or ``bytes``, until it is gone."""
    with suppress(WebSocketDisconnect):
        while (event := await socket.receive())["type"] != "websocket.disconnect":
            yield event


async def until_one_ends(*works: Coroutine[Any, Any, None]) -> None:
    """Runs some works together until one of them ends; the others are cancelled then."""
    tasks = [asyncio.ensure_future(each) for each in works]
    try:
        await asyncio.wait(tasks, return_when=asyncio.FIRST_COMPLETED)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


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
