"""The annotation page over HTTP.

Every answer that is no success is a problem of RFC 9457. A request is refused before its body is
read where it comes from elsewhere or lacks the token (``access``).
"""

from __future__ import annotations

import io
from collections.abc import Awaitable, Callable
from dataclasses import asdict
from importlib import resources
from typing import Annotated, Any

import numpy as np
import numpy.typing as npt
from fastapi import FastAPI, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from PIL import Image
from pydantic import BaseModel, Field
from starlette.exceptions import HTTPException

from sam_detect import __version__
from sam_detect.errors import ImageError, LibraryError, SamDetectError, one_line
from sam_detect.server.access import Access
from sam_detect.server.annotation import AnnotationSession

PROBLEM = "application/problem+json"
MAX_BODY = 1 << 20
MOST_AT_ONCE = 10_000
SECURITY_HEADERS = {
    "Content-Security-Policy": "default-src 'self'; img-src 'self' blob:; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}
PAGE = {
    "": ("index.html", "text/html"),
    "page.js": ("page.js", "text/javascript"),
    "page.css": ("page.css", "text/css"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
}
"""What the page is made of; nothing else is read from the disk by a name in a request."""


class Decision(BaseModel):
    """What a user decides of some objects."""

    objects: Annotated[list[str], Field(min_length=1, max_length=MOST_AT_ONCE)]
    label: Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]
    negative: bool = False


def annotation_app(session: AnnotationSession, access: Access) -> FastAPI:
    """The page and what it asks for."""
    app = FastAPI(title="sam-detect", version=__version__, docs_url=None, redoc_url=None)

    @app.middleware("http")
    async def guard(request: Request, go_on: Callable[[Request], Awaitable[Response]]) -> Response:
        headers = request.headers
        refused = access.refusal(
            request.method, host=headers.get("host", ""), origin=headers.get("origin"),
            authorization=headers.get("authorization"),
        )  # fmt: skip
        public = request.method == "GET" and request.url.path.lstrip("/") in PAGE
        if refused is not None and not (refused[0] == 401 and public):
            answer: Response = problem(*refused)
        elif "transfer-encoding" in headers:
            answer = problem(411, "a request needs its Content-Length")
        elif int(headers.get("content-length", "0")) > MAX_BODY:
            answer = problem(413, f"a request may have {MAX_BODY} bytes")
        else:
            answer = await go_on(request)
        answer.headers.update(SECURITY_HEADERS)
        return answer

    @app.exception_handler(SamDetectError)
    def failed(_: Request, error: SamDetectError) -> Response:
        missing = isinstance(error, ImageError | LibraryError)
        return problem(404 if missing else 409, one_line(error))

    @app.exception_handler(HTTPException)
    def refused(_: Request, error: HTTPException) -> Response:
        return problem(error.status_code, str(error.detail))

    @app.exception_handler(RequestValidationError)
    def malformed(_: Request, error: RequestValidationError) -> Response:
        first = error.errors()[0]
        place = ".".join(str(each) for each in first["loc"][1:])
        return problem(422, f"{place}: {first['msg']}" if place else first["msg"])

    @app.get("/healthz")
    def health() -> dict[str, str]:
        return {"status": "ok", "version": __version__}

    @app.get("/api/pictures")
    def pictures() -> dict[str, Any]:
        return {"pictures": [{"id": i, "name": name} for i, name in enumerate(session.names)]}

    @app.get("/api/pictures/{picture}")
    def picture_objects(picture: int) -> dict[str, Any]:
        height, width = session.size_hw(picture)
        found = session.objects(picture)
        return {"id": picture, "width": width, "height": height, "objects": _plain(found)}

    @app.get("/api/pictures/{picture}/pixels")
    def pixels(picture: int) -> Response:
        return _as_image(session.pixels(picture), "WEBP", lossless=True)

    @app.post("/api/pictures/{picture}/decisions")
    def decide(picture: int, decision: Decision) -> dict[str, Any]:
        learn = session.reject if decision.negative else session.name
        return {"objects": _plain(learn(picture, decision.objects, decision.label))}

    @app.post("/api/undo")
    def undo() -> dict[str, Any]:
        return {"taken_back": session.undo()}

    @app.get("/api/examples/{example}/thumbnail")
    def thumbnail(example: str) -> Response:
        return _as_image(session.thumbnail(example), "WEBP", quality=80)

    @app.get("/")
    @app.get("/page.js")
    @app.get("/page.css")
    @app.get("/icon.svg")
    def page(request: Request) -> Response:
        name, kind = PAGE[request.url.path.lstrip("/")]
        content = (resources.files("sam_detect.server") / "static" / name).read_bytes()
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    return app


def problem(status: int, detail: str) -> Response:
    """What went wrong, as RFC 9457 has it."""
    return JSONResponse({"status": status, "detail": detail}, status, media_type=PROBLEM)


def _plain(found: list[Any]) -> list[dict[str, Any]]:
    return [asdict(each) for each in found]


def _as_image(image_rgb: npt.NDArray[np.uint8], kind: str, **options: Any) -> Response:
    data = io.BytesIO()
    Image.fromarray(image_rgb).save(data, kind, **options)
    return Response(data.getvalue(), media_type=f"image/{kind.lower()}")
