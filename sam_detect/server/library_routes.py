"""The library view over HTTP."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import asdict
from typing import Annotated, Any

from fastapi import APIRouter, Body, Query, Request
from fastapi.concurrency import run_in_threadpool
from fastapi.responses import StreamingResponse
from pydantic import Field

from sam_detect.library.transfer import Imported, OnConflict
from sam_detect.server.http import MAX_BODY
from sam_detect.server.library_view import MOST_EXAMPLES, LibraryView, Order, change_to_dict

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


def library_body_limit(path: str) -> int:
    """Bytes that the body of a request may have: uploads of libraries are larger."""
    return MAX_UPLOAD if path == UPLOADS else MAX_BODY


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
