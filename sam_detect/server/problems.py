"""How failure is answered: each answer that is no success is a problem of RFC 9457.

An error of the package has one status, whichever server tells it in whichever way (as an answer,
over a WebSocket, as the result of a picture).
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextvars import ContextVar
from http import HTTPStatus
from typing import Any, get_origin

from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError, WebSocketRequestValidationError
from fastapi.responses import JSONResponse
from starlette.datastructures import FormData
from starlette.exceptions import HTTPException
from starlette.requests import HTTPConnection
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
from sam_detect.server.client_texts import reason_of, without_home

PROBLEM = "application/problem+json"
REQUEST: ContextVar[str] = ContextVar("request", default="")
"""The id of the request that is being answered."""


class BusyError(SamDetectError):
    """There is more to do than can be done soon.

    Args:
        message: what is said.
        retry_after: seconds after which it may be tried again.
    """

    def __init__(self, message: str, retry_after: int) -> None:
        super().__init__(message)
        self.retry_after = retry_after


class FullError(BusyError):
    """The queue is full."""


STATUSES: tuple[tuple[type[SamDetectError], int], ...] = (
    (FullError, 429),
    (BusyError, 503),
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


class PlainJSON(JSONResponse):
    """Plain data, which FastAPI does not look at, value by value: that takes longer than all else
    for some hundred outlines. What is no text (in names of files) becomes question marks."""

    def render(self, content: Any) -> bytes:
        text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        return text.encode("utf-8", "replace")


def problem_of(error: BaseException) -> dict[str, Any]:
    """What an error says, as :func:`problem_body` has it."""
    if isinstance(error, SamDetectError):
        status = next((status for kind, status in STATUSES if isinstance(error, kind)), 500)
        return problem_body(status, one_line(error))
    if isinstance(error, HTTPException):
        return problem_body(error.status_code, str(error.detail))
    if isinstance(error, (RequestValidationError, WebSocketRequestValidationError)):
        return problem_body(422, first_problem(error, within=1))
    if isinstance(error, OSError):
        return problem_body(507, f"nothing was changed: {reason_of(error)}")
    if isinstance(error, MemoryError):
        return problem_body(507, "it needs more memory than there is: send less at once")
    return problem_body(500, "an error in the server: see its log")


def problem_body(status: int, detail: str) -> dict[str, Any]:
    """What went wrong, as RFC 9457 has it; with the id of the request as ``instance``, where it
    has one."""
    body: dict[str, Any] = {
        "type": "about:blank", "title": HTTPStatus(status).phrase, "status": status,
        "detail": without_home(detail),
    }  # fmt: skip
    request = REQUEST.get()
    return body | {"instance": f"urn:sam-detect:request:{request}"} if request else body


def answer_of(error: BaseException) -> Response:
    """The answer that says what went wrong, without a traceback."""
    body, headers = problem_of(error), dict[str, str]()
    if isinstance(error, HTTPException):
        headers = dict(error.headers or {})
    elif isinstance(error, SamDetectError) and body["status"] in (429, 503):
        headers = {"Retry-After": str(getattr(error, "retry_after", 2))}
    elif body["status"] == 500:  # the connection ends with an error that nobody foresaw
        headers = {"Connection": "close"}
    return PlainJSON(body, body["status"], headers, PROBLEM)


def problem(status: int, detail: str, headers: Mapping[str, str] | None = None) -> Response:
    """The answer that refuses something."""
    return answer_of(HTTPException(status, detail, headers))


def answer_problems(app: FastAPI) -> None:
    """Has an application answer every failure with a problem; an unforeseen one is in the log."""

    def failed(_: Request, error: Exception) -> Response:
        return answer_of(error)

    async def failed_stream(socket: WebSocket, error: WebSocketRequestValidationError) -> None:
        await socket.send_denial_response(answer_of(error))

    foreseen = SamDetectError, HTTPException, RequestValidationError, OSError, MemoryError
    for kind in (*foreseen, Exception):
        app.exception_handler(kind)(failed)
    app.exception_handler(WebSocketRequestValidationError)(failed_stream)


def first_problem(error: Any, within: int = 0) -> str:
    """The field of pydantic's first error, and what is wrong; the first ``within`` parts of its
    place are left out."""
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
