"""The annotation page over HTTP."""

from __future__ import annotations

from dataclasses import asdict
from importlib import resources
from typing import Annotated, Any

from fastapi import FastAPI, Request, Response
from pydantic import BaseModel, Field

from sam_detect import __version__
from sam_detect.server.access import Access
from sam_detect.server.annotation import AnnotationSession
from sam_detect.server.http import Guard, answer_problems, as_image
from sam_detect.server.library_routes import library_body_limit, library_routes
from sam_detect.server.library_view import LibraryView

MOST_AT_ONCE = 10_000
PAGE = {
    "": ("index.html", "text/html"),
    "page.js": ("page.js", "text/javascript"),
    "api.js": ("api.js", "text/javascript"),
    "page.css": ("page.css", "text/css"),
    "icon.svg": ("icon.svg", "image/svg+xml"),
    "library": ("library.html", "text/html"),
    "library.js": ("library.js", "text/javascript"),
    "library.css": ("library.css", "text/css"),
}
"""What the page is made of; nothing else is read from the disk by a name in a request."""


class Decision(BaseModel):
    """What a user decides of some objects."""

    objects: Annotated[list[str], Field(min_length=1, max_length=MOST_AT_ONCE)]
    label: Annotated[str, Field(min_length=1, max_length=200, pattern=r"\S")]
    negative: bool = False


def annotation_app(session: AnnotationSession, access: Access) -> Guard:
    """The page and what it asks for."""
    app = FastAPI(title="sam-detect", version=__version__, docs_url=None, redoc_url=None)

    answer_problems(app)

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
        return as_image(session.pixels(picture), "WEBP", lossless=True)

    @app.post("/api/pictures/{picture}/decisions")
    def decide(picture: int, decision: Decision) -> dict[str, Any]:
        learn = session.reject if decision.negative else session.name
        return {"objects": _plain(learn(picture, decision.objects, decision.label))}

    @app.post("/api/undo")
    def undo() -> dict[str, Any]:
        return {"taken_back": session.undo()}

    @app.get("/api/examples/{example}/thumbnail")
    def thumbnail(example: str) -> Response:
        return as_image(session.thumbnail(example), "WEBP", quality=80)

    @app.get("/")
    @app.get("/page.js")
    @app.get("/api.js")
    @app.get("/page.css")
    @app.get("/icon.svg")
    @app.get("/library")
    @app.get("/library.js")
    @app.get("/library.css")
    def page(request: Request) -> Response:
        name, kind = PAGE[request.url.path.lstrip("/")]
        content = (resources.files("sam_detect.server") / "static" / name).read_bytes()
        return Response(content, media_type=kind, headers={"Cache-Control": "no-cache"})

    app.include_router(library_routes(LibraryView(session.detector)))

    public = [f"/{path}" for path in PAGE]
    return Guard(app, access, public=public, body_limit=library_body_limit)


def _plain(found: list[Any]) -> list[dict[str, Any]]:
    return [asdict(each) for each in found]
