"""``sam-detect serve``: detection, examples and libraries over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, File, Form, Path, Query, Request, Response
from pydantic import ConfigDict, Field
from pydantic.json_schema import models_json_schema

from sam_detect import __version__
from sam_detect.errors import one_line
from sam_detect.server import answers
from sam_detect.server.access import Access
from sam_detect.server.detecting import (
    Asked,
    Body,
    FormFile,
    Learning,
    LibraryName,
    LibraryQuery,
    Service,
    ServiceLimits,
    asked,
    form_text,
    parsed,
    reference,
)
from sam_detect.server.detectors import Detectors
from sam_detect.server.hidden_paths import without_folders, without_home
from sam_detect.server.http import (
    Guard,
    PlainJSON,
    answer_problems,
    as_image,
    known_names,
    page_file,
    problem,
)
from sam_detect.server.job_routes import JobOptions, job_routes
from sam_detect.server.jobs import Jobs
from sam_detect.server.requests_log import RequestLog, log
from sam_detect.server.stream_routes import stream_routes
from sam_detect.server.uploads import decoded, stored
from sam_detect.server.warned import hearing
from sam_detect.server.work import BusyError, FullError

MOST_IMAGES = 32
"""Pictures of one request; more are a job."""
MOST_LISTED = 500
JSON_BODY = 1 << 20
COUNT_SECONDS = 0.5
LARGEST_AT_ONCE = 8
"""Requests may have the bytes of this many of the largest uploads at once: they are in memory."""
UPLOADS = ("/v1/detect", "/v1/examples", "/v1/jobs")
PAGES = {
    "/docs": ("docs.html", "text/html"), "/docs.js": ("docs.js", "text/javascript"),
    "/page.css": ("page.css", "text/css"), "/icon.svg": ("icon.svg", "image/svg+xml"),
}  # fmt: skip
PROBLEM_ANSWERS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/problem+json": {
        "schema": {"$ref": "#/components/schemas/Problem"}}}}
    for status, text in {
        400: "cut off on the way, or not in UTF-8",
        401: "a token is needed", 404: "what is named is not there",
        409: "the library does not allow it", 413: "too large", 422: "malformed",
        429: "too much waits already; see Retry-After", 503: "not now; see Retry-After",
    }.items()
}  # fmt: skip
ExampleId = Annotated[str, Path(pattern=r"^[0-9a-fA-F-]{4,40}$")]


class Picture(Body):
    """A picture."""

    name: Annotated[str, Field(max_length=1000)] = ""
    data: Annotated[str, Field(description="The file in base64.")]


class Pictures(Body):
    """Pictures as text."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"images": [{"name": "a.png", "data": "iV…"}]}}
    )

    images: Annotated[list[Picture], Field(min_length=1, max_length=MOST_IMAGES)]


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
            await asyncio.to_thread(service.queue.close, limits.seconds)
            await asyncio.to_thread(jobs.close)

    app = FastAPI(
        title="sam-detect", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan,
        summary="Show a few examples of an object, and it finds all the others.",
        responses=PROBLEM_ANSWERS, default_response_class=PlainJSON,
        generate_unique_id_function=lambda route: route.name,
    )  # fmt: skip
    answer_problems(app)

    @app.exception_handler(BusyError)
    def busy(_: Request, error: BusyError) -> Response:
        status = 429 if isinstance(error, FullError) else 503
        return problem(status, one_line(error), {"Retry-After": str(error.retry_after)})

    routers = [detection_routes(service), stream_routes(service),
               library_routes(service), job_routes(jobs)]  # fmt: skip
    for router in routers:
        app.include_router(router, dependencies=[Depends(known_names)])
    app.include_router(watching_routes(service, jobs))
    for path, (name, media) in PAGES.items():
        app.get(path, include_in_schema=False)(page_file(name, media))

    document = app.openapi()  # is kept
    said: Any = [(each, "validation") for each in (Pictures, Learning, JobOptions)]
    _, defined = models_json_schema(said, ref_template=reference("{model}")["$ref"])
    document["components"]["schemas"] |= defined["$defs"]
    document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
    document["security"] = [{"token": []}] if access.token else [{}, {"token": []}]

    def body_limit(path: str) -> int:
        return limits.upload_bytes if path in UPLOADS else JSON_BODY

    public = [*PAGES, "/healthz"]
    guarded = Guard(
        app, access, public=public, body_limit=body_limit, body_seconds=limits.seconds,
        bytes_at_once=LARGEST_AT_ONCE * limits.upload_bytes,
    )  # fmt: skip
    return RequestLog(guarded, service.metrics, logged=logged)


def detection_routes(service: Service) -> APIRouter:
    """Pictures in, detections out; and what they teach."""
    router = APIRouter(prefix="/v1", tags=["pictures"])

    @router.post("/detect", summary="Detect the objects of pictures",
                 response_model=answers.Found, openapi_extra={"requestBody": {"content": {
                     "application/json": {"schema": reference("Pictures")}}}})  # fmt: skip
    async def detect(
        request: Request,
        how: Annotated[Asked, Depends(asked)],
        images: Annotated[list[FormFile], File(max_length=MOST_IMAGES)] = [],  # noqa: B006
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
        image: Annotated[FormFile, File()],
        said: Annotated[str, Form(alias="request"), form_text("Learning")],
    ) -> answers.Learnt:
        """They are in the library, durably, when this answers."""
        learning = await parsed(Learning, said)
        with stored([(image.filename or "", await image.read())]) as uploads:
            found: answers.Learnt = await service.run(
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
        library: LibraryQuery = None,
        label: Annotated[str | None, Query(max_length=200)] = None,
        start: Annotated[int, Query(ge=0)] = 0,
        limit: Annotated[int, Query(ge=1, le=MOST_LISTED)] = 100,
    ) -> answers.Examples:
        """In the order of their ids."""
        found = list(get(library).library.listing(label))
        names = ("label", "negative", "bbox", "area", "added")
        shown: list[Any] = [
            {
                "id": point.id, **{name: point.payload.get(name) for name in names},
                "source": without_folders(point.payload["source"]),
            }
            for point in found[start : start + limit]
        ]  # fmt: skip
        return {"examples": shown, "total": len(found)}

    @router.get("/examples/{example}/thumbnail", summary="The picture of an example",
                **answers.file_of("image/webp"))  # fmt: skip
    def thumbnail(example: ExampleId, library: LibraryQuery = None) -> Response:
        """Its crop, as WebP."""
        return as_image(get(library).library.get(example).crop.image_rgb, quality=80)

    @router.delete("/examples/{example}", summary="Remove an example")
    def remove(example: ExampleId, library: LibraryQuery = None) -> answers.Removed:
        """Gives how many were removed."""
        return {"removed": get(library).library.remove(ids=[example])}

    @router.get("/libraries", summary="List the libraries")
    def libraries() -> answers.Libraries:
        """Their names."""
        return {"libraries": service.detectors.names()}

    @router.get("/libraries/{name}", summary="What a library has", response_model=answers.Stats)
    def library_stats(name: LibraryName) -> dict[str, Any]:
        """Its examples, labels and recipe."""
        stats = get(name).library.stats()
        return {**stats, "location": without_home(stats["location"])}

    @router.post("/libraries/{name}/undo", summary="Take a learning batch back",
                 response_model=answers.Undone)  # fmt: skip
    def undo(
        name: LibraryName, batch: Annotated[str | None, Query(min_length=1, max_length=64)] = None
    ) -> dict[str, Any]:
        """The one that ``batch`` names, as learning answered; else the last one, perhaps of another
        user. Gives what was taken back."""
        return get(name).library.undo(batch).to_dict()

    return router


def watching_routes(service: Service, jobs: Jobs) -> APIRouter:
    """Whether the service is well, and what it did."""
    router = APIRouter(tags=["service"])

    @router.get("/healthz", summary="Whether it runs")
    async def health() -> answers.Health:
        """Answers as long as the process does."""
        return {"status": "ok", "version": __version__}

    @router.get("/readyz", summary="Whether it can take requests")
    def ready() -> answers.Health:
        """503 while the queue is full, the library cannot be read, or a thread fails."""
        if service.queue.is_full:
            raise FullError("the queue is full", 2)
        if not service.queue.well or not jobs.well:
            raise BusyError("a thread failed, and is begun again: see the log", 2)
        service.detectors.default.library.manifest()
        return {"status": "ready", "waiting": len(service.queue)}

    @router.get("/metrics", summary="Figures for Prometheus", **answers.file_of("text/plain"))
    async def figures() -> Response:
        """Requests, queue, micro-batches, stages, memory and libraries. A server of libraries that
        does not answer at once leaves the figures of before."""
        counting = asyncio.create_task(asyncio.to_thread(service.count_examples))
        await asyncio.wait([counting], timeout=COUNT_SECONDS)
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    return router


async def _as_json(request: Request) -> list[tuple[str, bytes]]:
    """Names and contents of the pictures of a request that has them as JSON."""
    images = (await parsed(Pictures, request)).images
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
    from sam_detect.server.listening import run_until_told, server_of
    from sam_detect.server.process import long_running

    with long_running():
        app = service_app(detectors, access, limits, root=root)
        log("started", library=detectors.default.library.name)
        server = server_of(
            app, leave_seconds=int(limits.seconds) + 1, max_message=limits.upload_bytes
        )
        run_until_told(server, socket)
        log("ended")
