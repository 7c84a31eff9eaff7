"""``sam-detect serve``: detection, examples and libraries over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, File, Form, Query, Request, Response
from pydantic.json_schema import models_json_schema

from sam_detect.library import lookup
from sam_detect.library.changes import Changes
from sam_detect.server import schemas
from sam_detect.server.access import Access
from sam_detect.server.client_texts import hearing, without_folders, without_home
from sam_detect.server.detecting import Detectors, Service, ServiceLimits
from sam_detect.server.http import Guard, application, as_image
from sam_detect.server.jobs import Jobs, job_routes
from sam_detect.server.metrics import RequestLog, log
from sam_detect.server.problems import BusyError, FullError, PlainJSON, known_names
from sam_detect.server.stream_routes import stream_routes
from sam_detect.server.uploads import decoded, stored

MOST_LISTED = 500
JSON_BODY = 1 << 20
COUNT_SECONDS = 0.5
LARGEST_AT_ONCE = 8
"""Requests may have the bytes of this many of the largest uploads at once: they are in memory."""
UPLOADS = ("/v1/detect", "/v1/examples", "/v1/jobs")
PAGE = {f"/{name}": name for name in ("docs.js", "page.css", "icon.svg")} | {"/docs": "docs.html"}


def service_app(
    detectors: Detectors,
    access: Access,
    limits: ServiceLimits,
    *,
    root: FilePath | None = None,
    logged: bool = True,
) -> RequestLog:
    """The service as an ASGI application.

    Args:
        root: folders of pictures that jobs name lie in this one; None: jobs name none.
        logged: whether requests are logged.
    """
    service = Service(detectors, limits)
    jobs = Jobs(service.detect_for_job, root)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        with hearing():
            yield
            await jobs.close()
            await asyncio.to_thread(service.queue.close, limits.seconds)

    app = application(
        PAGE, lifespan=lifespan, responses=schemas.PROBLEM_ANSWERS,
        summary="Show a few examples of an object, and it finds all the others.",
        generate_unique_id_function=lambda route: route.name,
    )  # fmt: skip
    routers = [detection_routes(service), stream_routes(service),
               library_routes(service), job_routes(jobs)]  # fmt: skip
    for router in routers:
        app.include_router(router, dependencies=[Depends(known_names)])
    app.include_router(watching_routes(service))

    document = app.openapi()  # is kept
    said: Any = [
        (each, "validation") for each in (schemas.Pictures, schemas.Learning, schemas.JobOptions)
    ]
    _, defined = models_json_schema(said, ref_template=schemas.reference("{model}")["$ref"])
    document["components"]["schemas"] |= defined["$defs"]
    document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"token": []}] if access.token else [{}, {"token": []}]

    def body_limit(path: str) -> int:
        return limits.upload_bytes if path in UPLOADS else JSON_BODY

    guarded = Guard(
        app, access, public=[*PAGE, "/healthz"], body_limit=body_limit, body_seconds=limits.seconds,
        bytes_at_once=LARGEST_AT_ONCE * limits.upload_bytes,
    )  # fmt: skip
    return RequestLog(guarded, service.metrics, logged=logged)


def detection_routes(service: Service) -> APIRouter:
    """Pictures in, detections out; and what they teach."""
    router = APIRouter(prefix="/v1", tags=["pictures"])

    @router.post("/detect", summary="Detect the objects of pictures",
                 response_model=schemas.Found, openapi_extra={"requestBody": {"content": {
                     "application/json": {"schema": schemas.reference("Pictures")}}}})  # fmt: skip
    async def detect(
        request: Request,
        how: Annotated[schemas.Asked, Depends()],
        images: Annotated[list[schemas.FormFile], File(max_length=schemas.MOST_IMAGES)] = [],  # noqa: B006
    ) -> Response:
        """Answers with the object of ``sam-detect detect --json`` for each picture, in their order;
        for one that cannot be read, with its ``problem``."""
        pictures = [(each.filename or "", await each.read()) for each in images]
        if not pictures:
            pictures = await _as_json(request)
        with stored(pictures) as uploads:
            jobs = [service.run(service.detect, how, each, request.is_disconnected)
                    for each in uploads]  # fmt: skip
            results = await asyncio.gather(*jobs, return_exceptions=True)
        for each in results:
            if isinstance(each, BaseException):
                raise each
        return PlainJSON({"results": results})

    @router.post("/examples", summary="Learn objects of a picture")
    async def learn(
        request: Request,
        image: Annotated[schemas.FormFile, File()],
        said: Annotated[str, Form(alias="request"), schemas.form_text("Learning")],
    ) -> schemas.Learnt:
        """They are in the library, durably, when this answers."""
        learning = await schemas.parsed(schemas.Learning, said)
        with stored([(image.filename or "", await image.read())]) as uploads:
            found: schemas.Learnt = await service.run(
                service.learn, learning, uploads[0], request.is_disconnected
            )
            return found

    return router


def library_routes(service: Service) -> APIRouter:
    """Libraries and their examples."""
    router = APIRouter(prefix="/v1", tags=["libraries"])
    get = service.detectors.get

    @router.get("/examples", summary="List examples")
    def examples(
        library: schemas.LibraryQuery = None,
        label: Annotated[str | None, Query(max_length=200)] = None,
        start: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 100,
    ) -> schemas.Examples:
        """In the order of their ids."""
        found, total = get(library).library.page(start, limit, label)
        names = ("label", "negative", "bbox", "area", "added")
        shown: list[Any] = [
            {
                "id": point.id, **{name: point.payload.get(name) for name in names},
                "source": without_folders(point.payload["source"]),
            }
            for point in found
        ]  # fmt: skip
        return {"examples": shown, "total": total}

    @router.get("/examples/{example}/thumbnail", summary="The picture of an example",
                **schemas.file_of("image/webp"))  # fmt: skip
    def thumbnail(example: schemas.ExampleId, library: schemas.LibraryQuery = None) -> Response:
        """Its crop, as WebP."""
        return as_image(get(library).library.get(example).crop.image_rgb, quality=80)

    @router.delete("/examples/{example}", summary="Remove an example")
    def remove(example: schemas.ExampleId, library: schemas.LibraryQuery = None) -> schemas.Removed:
        """Gives how many were removed; `library undo` brings them back."""
        detector = get(library)
        mine = detector.library
        ids = lookup.resolve(mine.store, [example], mine.name)
        changes = Changes(mine, lambda: detector.pipeline.features)
        return {"removed": changes.remove(ids).examples}

    @router.get("/libraries", summary="List the libraries")
    def libraries() -> schemas.Libraries:
        """Their names."""
        return {"libraries": service.detectors.names()}

    @router.get("/libraries/{name}", summary="What a library has", response_model=schemas.Stats)
    def library_stats(name: schemas.LibraryName) -> dict[str, Any]:
        """Its examples, labels and recipe."""
        stats = get(name).library.stats()
        return {**stats, "location": without_home(stats["location"])}

    @router.post("/libraries/{name}/undo", summary="Take a learning batch back",
                 response_model=schemas.Undone)  # fmt: skip
    def undo(
        name: schemas.LibraryName,
        batch: Annotated[str | None, Query(min_length=1, max_length=64)] = None,
    ) -> dict[str, Any]:
        """The one that ``batch`` names, as learning answered; else the last one, perhaps of another
        user. Gives what was taken back."""
        return get(name).library.undo(batch).to_dict()

    return router


def watching_routes(service: Service) -> APIRouter:
    """Whether the service is well, and what it did."""
    router = APIRouter(tags=["service"])

    @router.get("/readyz", summary="Whether it can take requests")
    def ready() -> schemas.Health:
        """503 while the queue is full, the library cannot be read, or a worker has ended."""
        if service.queue.is_full:
            raise FullError("the queue is full", 2)
        if not service.queue.well:
            raise BusyError("a worker has ended: start the service again", 2)
        service.detectors.default.library.manifest()
        return {"status": "ready", "waiting": len(service.queue)}

    @router.get("/metrics", summary="Figures for Prometheus", **schemas.file_of("text/plain"))
    async def figures() -> Response:
        """Requests, queue, stages, memory and libraries. A server of libraries that
        does not answer at once leaves the figures of before."""
        counting = asyncio.create_task(asyncio.to_thread(service.count_examples))
        await asyncio.wait([counting], timeout=COUNT_SECONDS)
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    return router


async def _as_json(request: Request) -> list[tuple[str, bytes]]:
    """Names and contents of the pictures of a request that has them as JSON."""
    images = (await schemas.parsed(schemas.Pictures, request)).images
    return [(each.name, await asyncio.to_thread(decoded, each.data)) for each in images]


def run_service(
    detectors: Detectors,
    access: Access,
    limits: ServiceLimits,
    socket: Any,
    root: FilePath | None = None,
) -> None:
    """Answers until it is told to stop; requests that were taken are answered before it ends.
    Takes what :func:`service_app` does."""
    from sam_detect.server.listening import long_running, run_until_told, server_of

    with long_running():
        app = service_app(detectors, access, limits, root=root)
        log("started", library=detectors.default.library.name)
        server = server_of(
            app, leave_seconds=int(limits.seconds) + 1, max_message=limits.upload_bytes
        )
        run_until_told(server, socket)
        log("ended")
