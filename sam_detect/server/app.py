"""The annotation page and the page of its library over HTTP."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import Field

from sam_detect.library.snapshot_reader import SNAPSHOT_LIMIT
from sam_detect.library.transfer import Imported, OnConflict
from sam_detect.server.access import Access
from sam_detect.server.ahead import WorkAhead
from sam_detect.server.annotation import AnnotationSession
from sam_detect.server.http import MAX_BODY, Guard, application
from sam_detect.server.library_view import MOST_EXAMPLES, LibraryView, Order, change_to_dict
from sam_detect.server.picture_routes import group_routes, picture_routes
from sam_detect.server.survey import POLICIES, Policy, Survey

MAX_PICTURE_BODY = 4 << 20
"""Outlines of a picture that are drawn may be long."""
MOST_IDS = 10_000
MAX_UPLOAD = 2 << 30
UPLOADS = "/api/library/uploads"
CHUNK = 1 << 20
SHOWN_CONFLICTS = 20

Label = Annotated[str, Field(min_length=1, max_length=2000)]
Id = Annotated[str, Field(min_length=1, max_length=64)]
Ids = Annotated[list[Id], Field(min_length=1, max_length=MOST_IDS), Body(embed=True)]
Labels = Annotated[list[Label], Field(min_length=1, max_length=1000), Body(embed=True)]
InBody = Body(embed=True)
"""A field of the JSON of a request."""
Shown = Annotated[Label | None, InBody]
SCRIPTS = (
    "api", "controls", "counts", "dom", "groups", "keys", "library", "library_files",
    "library_map", "library_words", "naming", "outbox", "page", "queue", "shapes", "tags",
    "tools", "viewer", "why",
)  # fmt: skip
PAGE = {
    "/": "index.html", "/library": "library.html", "/icon.svg": "icon.svg",
    "/vendor/openseadragon.js": "vendor/openseadragon.min.js",
    **{f"/{name}.js": f"{name}.js" for name in SCRIPTS},
    **{f"/{name}.css": f"{name}.css" for name in ("page", "annotate", "library")},
}  # fmt: skip


def annotation_app(
    session: AnnotationSession, survey: Survey, ahead: WorkAhead, access: Access
) -> Guard:
    """The page and what it asks for."""
    app = application(PAGE)

    @app.get("/api/state")
    def state(picture: Annotated[int | None, Query(ge=0)] = None) -> dict[str, Any]:
        """What changes by itself; the page asks for it again and again."""
        opened = picture is not None and session.pictures.is_open(picture)
        return {
            "library": session.detector.library.name,
            "generation": session.opened(picture or 0).generation if opened else None,
            "learnt": session.detector.library.generation,
            "pictures": len(session.names),
            "surveyed": len(survey.all()),
            "survey": survey.version,
            **session.undoable,
        }

    @app.get("/api/labels")
    def labels() -> dict[str, Any]:
        counted = Counter(_counts(session)).most_common()
        return {"labels": [{"label": label, "examples": count} for label, count in counted]}

    @app.get("/api/pictures")
    def pictures(policy: Policy = "folder") -> dict[str, Any]:
        session.refresh()
        finished, missing, problems = session.finished(), session.missing, ahead.problems
        named = list(enumerate(session.names))
        there = [number for number, _ in named if number not in missing]
        order = session.queue = survey.order(policy, there, finished)
        return {
            "policies": POLICIES,
            "order": order,
            "pictures": [
                {"id": number, "name": name, "finished": number in finished,
                 "missing": number in missing, "problem": problems.get(number)}
                for number, name in named
            ],
        }  # fmt: skip

    app.include_router(picture_routes(session, ahead))
    app.include_router(group_routes(session, survey, ahead))
    app.include_router(library_routes(LibraryView(session.detector)))

    def body_limit(path: str) -> int:
        if path.startswith("/api/library/"):
            return MAX_UPLOAD if path == UPLOADS else MAX_BODY
        return MAX_PICTURE_BODY

    return Guard(app, access, public=PAGE, body_limit=body_limit)


def _counts(session: AnnotationSession) -> Counter[str]:
    """How many examples each label has."""
    arrays = session.detector.snapshot().examples()
    if len(arrays.ids) >= SNAPSHOT_LIMIT:  # of more, these are only a sample
        return Counter(session.detector.library.stats()["classes"])
    return Counter(
        label for label, negative in zip(arrays.labels, arrays.negatives, strict=True)
        if not negative
    )  # fmt: skip


def library_routes(view: LibraryView) -> APIRouter:
    """What the library page asks for, under ``/api/library``."""
    router = APIRouter(prefix="/api/library")

    @router.get("")
    def overview() -> dict[str, Any]:
        return view.overview()

    @router.get("/examples")
    def examples(
        label: Annotated[str, Query(min_length=1, max_length=2000)],
        negative: bool = False,
        order: Order = "doubt",
        offset: Annotated[int, Query(ge=0, le=10_000_000)] = 0,
        limit: Annotated[int, Query(ge=1, le=MOST_EXAMPLES)] = MOST_EXAMPLES,
    ) -> dict[str, Any]:
        page = view.examples(label, negative=negative, order=order, offset=offset, limit=limit)
        return asdict(page)

    @router.get("/examples/{example}/page")
    def page_of(example: str, order: Order = "doubt") -> dict[str, Any]:
        return asdict(view.page_of(example, order=order))

    @router.get("/map")
    def vector_map() -> dict[str, Any]:
        return asdict(view.map())

    @router.get("/log")
    def log() -> dict[str, Any]:
        return {"entries": view.log()}

    @router.post("/rename")
    def rename(label: Annotated[Label, InBody], new: Annotated[Label, InBody]) -> dict[str, Any]:
        return change_to_dict(view.rename(label, new))

    @router.post("/merge")
    def merge(labels: Labels, into: Annotated[Label, InBody]) -> dict[str, Any]:
        return change_to_dict(view.merge(labels, into))

    @router.post("/move")
    def move(ids: Ids, label: Annotated[Label, InBody], shown: Shown = None) -> dict[str, Any]:
        return change_to_dict(view.move(ids, label, shown=shown))

    @router.post("/remove")
    def remove(ids: Ids, shown: Shown = None) -> dict[str, Any]:
        return change_to_dict(view.remove(ids, shown=shown))

    @router.post("/remove-label")
    def remove_label(label: Annotated[Label, InBody]) -> dict[str, Any]:
        return change_to_dict(view.remove_label(label))

    @router.post("/undo")
    def undo(change: Annotated[Id | None, InBody] = None) -> dict[str, Any]:
        done = view.undo(change)
        return {"change": change_to_dict(done.change), "restored": done.restored, "kept": done.kept}

    @router.post("/undo-batch")
    def undo_batch(batch: Annotated[Id, InBody]) -> dict[str, Any]:
        return change_to_dict(view.undo_batch(batch))

    @router.get("/export")
    def export(name: Annotated[str, Query(max_length=40)] = "library") -> StreamingResponse:
        made = view.files.export(name)
        file = made.__enter__()  # here, so that its errors become problems

        def content() -> Iterator[bytes]:
            try:
                with file.open("rb") as stream:
                    while data := stream.read(CHUNK):
                        yield data
            finally:
                made.__exit__(None, None, None)

        headers = {"Content-Length": str(file.stat().st_size)}
        return StreamingResponse(content(), media_type="application/zip", headers=headers)

    @router.post("/uploads")
    async def upload(request: Request) -> dict[str, Any]:
        path = view.files.new_upload()
        try:
            with path.open("wb") as stream:
                async for data in request.stream():
                    await run_in_threadpool(stream.write, data)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        key, plan = await run_in_threadpool(view.files.check_upload, path)
        return {"upload": key, **_imported(plan)}

    @router.post("/uploads/{upload}")
    def import_upload(
        upload: str, conflicts: Annotated[OnConflict, InBody] = "keep"
    ) -> dict[str, Any]:
        return _imported(view.files.import_upload(upload, conflicts))

    return router


def _imported(done: Imported) -> dict[str, Any]:
    shown = [asdict(each) for each in done.conflicts[:SHOWN_CONFLICTS]]
    return {
        "classes": done.classes, "negatives": done.negatives, "added": done.added,
        "known": done.known, "replaced": done.replaced, "total": done.total,
        "conflicts": len(done.conflicts), "shown_conflicts": shown,
        "embedder": done.recipe.embedder, "fade": done.recipe.fade,
    }  # fmt: skip
