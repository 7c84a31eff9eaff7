"""``sam-detect serve``: detection, examples and libraries over HTTP."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from importlib import resources
from pathlib import Path as FilePath
from typing import Annotated, Any

from fastapi import APIRouter, Depends, FastAPI, File, Form, Path, Query, Request, Response
from fastapi import UploadFile as FormFile
from fastapi.responses import JSONResponse
from pydantic import ConfigDict, Field, ValidationError

from sam_detect import __version__
from sam_detect.config import home_dir
from sam_detect.errors import ConfigError, one_line
from sam_detect.library.places import options_of
from sam_detect.server.access import Access
from sam_detect.server.detecting import (
    Asked,
    Body,
    Learning,
    LibraryName,
    LibraryQuery,
    Service,
    ServiceLimits,
    asked,
)
from sam_detect.server.detectors import Detectors
from sam_detect.server.fetching import LONGEST_URL, Fetcher
from sam_detect.server.hidden_paths import without_folders, without_home
from sam_detect.server.http import (
    Guard,
    answer_problems,
    as_image,
    problem,
)
from sam_detect.server.job_routes import job_routes
from sam_detect.server.jobs import Jobs
from sam_detect.server.requests_log import RequestLog, log
from sam_detect.server.stream_routes import stream_routes
from sam_detect.server.uploads import decoded, stored
from sam_detect.server.work import BusyError, FullError

MOST_IMAGES = 32
"""Pictures of one request; more are a job."""
MOST_LISTED = 500
JSON_BODY = 1 << 20
COUNT_SECONDS = 0.5
LARGEST_AT_ONCE = 8
"""Requests may have the bytes of so many of the largest uploads at once: they are in memory."""
UPLOADS = ("/v1/detect", "/v1/examples", "/v1/jobs")
PAGES = ("/docs", "/docs.js", "/page.css", "/icon.svg")
PROBLEM_ANSWERS: dict[int | str, dict[str, Any]] = {
    status: {"description": text, "content": {"application/problem+json": {}}}
    for status, text in {
        401: "a token is needed", 404: "what is named is not there",
        409: "the library does not allow it", 413: "too large", 422: "malformed",
        429: "too much waits already; see Retry-After", 503: "not now; see Retry-After",
    }.items()
}  # fmt: skip
ExampleId = Annotated[str, Path(pattern=r"^[0-9a-fA-F-]{4,40}$")]


class Picture(Body):
    """A picture: ``data`` or ``url``."""

    name: Annotated[str, Field(max_length=1000)] = ""
    data: Annotated[str | None, Field(description="The file in base64.")] = None
    url: Annotated[
        str | None, Field(max_length=LONGEST_URL, description="Where the service allows it.")
    ] = None


class Pictures(Body):
    """Pictures as text, or by their addresses."""

    model_config = ConfigDict(
        extra="forbid",
        json_schema_extra={"example": {"images": [{"name": "a.png", "data": "iV…"}]}},
    )

    images: Annotated[list[Picture], Field(min_length=1, max_length=MOST_IMAGES)]


def service_app(
    detectors: Detectors,
    access: Access,
    limits: ServiceLimits,
    *,
    jobs_in: FilePath | None = None,
    root: FilePath | None = None,
    urls: bool = False,
    logged: bool = True,
) -> RequestLog:
    """The service as an ASGI application.

    Args:
        jobs_in: where jobs are kept; None: there are none.
        root: folders of pictures that jobs name lie in this one; None: jobs name none.
        urls: whether pictures may be public web addresses.
        logged: whether requests are logged.

    Raises:
        OutputError: jobs cannot be kept there.
    """
    service = Service(detectors, limits)

    jobs = None
    if jobs_in is not None:
        mine = detectors.default.library
        place = options_of(mine.store.location) or mine.name
        jobs = Jobs(jobs_in, service.detect_for_job, root, place)

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        yield
        await asyncio.to_thread(service.queue.close, limits.seconds)
        if jobs is not None:
            await asyncio.to_thread(jobs.close)

    app = FastAPI(
        title="sam-detect", version=__version__, docs_url=None, redoc_url=None, lifespan=lifespan,
        summary="Show a few examples of an object, and it finds all the others.",
        responses=PROBLEM_ANSWERS,
    )  # fmt: skip
    answer_problems(app)

    @app.exception_handler(BusyError)
    def busy(_: Request, error: BusyError) -> Response:
        status = 429 if isinstance(error, FullError) else 503
        return problem(status, one_line(error), {"Retry-After": str(error.retry_after)})

    fetcher = Fetcher() if urls else None
    app.include_router(detection_routes(service, fetcher))
    app.include_router(stream_routes(service))
    app.include_router(library_routes(service))
    app.include_router(watching_routes(service, jobs))
    if jobs is not None:
        app.include_router(job_routes(jobs))
    for path, media in zip(PAGES, ("html", "javascript", "css", "svg+xml"), strict=True):
        app.get(path, include_in_schema=False)(_page(path, media))

    def body_limit(path: str) -> int:
        return limits.upload_bytes if path in UPLOADS else JSON_BODY

    public = [*PAGES, "/healthz"]
    guarded = Guard(
        app, access, public=public, body_limit=body_limit, body_seconds=limits.seconds,
        bytes_at_once=LARGEST_AT_ONCE * limits.upload_bytes,
    )  # fmt: skip
    return RequestLog(guarded, service.metrics, logged=logged)


def detection_routes(service: Service, fetcher: Fetcher | None) -> APIRouter:
    """Pictures in, detections out; and what they teach."""
    router = APIRouter(prefix="/v1", tags=["pictures"])

    @router.post("/detect", summary="Detect the objects of pictures", openapi_extra={
        "requestBody": {"required": True, "content": {
            "multipart/form-data": {"schema": {"type": "object", "required": ["images"],
                "properties": {"images": {"type": "array", "items": {
                    "type": "string", "format": "binary"}}}}},
            "application/json": {"schema": Pictures.model_json_schema()},
        }}})  # fmt: skip
    async def detect(request: Request, how: Annotated[Asked, Depends(asked)]) -> Response:
        """Answers with the object of ``sam-detect detect --json`` for each picture, in their order;
        for one that cannot be read, with its ``problem``."""
        with stored(await _pictures_of(request, fetcher, service.limits.upload_bytes)) as uploads:
            jobs = [service.run(how, service.detect, (how, each), request.is_disconnected)
                    for each in uploads]  # fmt: skip
            results = await asyncio.gather(*jobs, return_exceptions=True)
        for each in results:
            if isinstance(each, BaseException):
                raise each
        return JSONResponse({"results": results})

    @router.post("/examples", summary="Learn objects of a picture", openapi_extra={
        "requestBody": {"required": True, "content": {"multipart/form-data": {"schema": {
            "type": "object", "required": ["image", "request"], "properties": {
                "image": {"type": "string", "format": "binary"},
                "request": {"type": "string", "contentMediaType": "application/json",
                            "contentSchema": Learning.model_json_schema()}}}}}}})  # fmt: skip
    async def learn(
        request: Request,
        image: Annotated[FormFile, File()],
        body: Annotated[str, Form(alias="request", max_length=JSON_BODY)],
    ) -> dict[str, Any]:
        """They are in the library, durably, when this answers."""
        try:
            learning = Learning.model_validate_json(body)
        except ValidationError as error:
            raise ConfigError(f"request: {error.errors()[0]['msg']}") from error
        with stored([(image.filename or "", await image.read())]) as uploads:
            item = learning, uploads[0]
            found: dict[str, Any] = await service.run(
                "learn", service.learn, item, request.is_disconnected
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
    ) -> dict[str, Any]:
        """In the order of their ids."""
        found = list(get(library).library.listing(label))
        names = ("label", "negative", "bbox", "area", "added")
        shown = [
            {
                "id": point.id, **{name: point.payload.get(name) for name in names},
                "source": without_folders(point.payload["source"]),
            }
            for point in found[start : start + limit]
        ]  # fmt: skip
        return {"examples": shown, "total": len(found)}

    @router.get("/examples/{example}/thumbnail", summary="The picture of an example",
                responses={200: {"content": {"image/webp": {}}}})  # fmt: skip
    def thumbnail(example: ExampleId, library: LibraryQuery = None) -> Response:
        """Its crop, as WebP."""
        return as_image(get(library).library.get(example).crop.image_rgb, quality=80)

    @router.delete("/examples/{example}", summary="Remove an example")
    def remove(example: ExampleId, library: LibraryQuery = None) -> dict[str, int]:
        """Gives how many were removed."""
        return {"removed": get(library).library.remove(ids=[example])}

    @router.get("/libraries", summary="List the libraries")
    def libraries() -> dict[str, list[str]]:
        """Their names."""
        return {"libraries": service.detectors.names()}

    @router.get("/libraries/{name}", summary="What a library has")
    def library_stats(name: LibraryName) -> dict[str, Any]:
        """Its examples, labels and recipe."""
        stats = get(name).library.stats()
        return {**stats, "location": without_home(stats["location"])}

    @router.post("/libraries/{name}/undo", summary="Take the last learning batch back")
    def undo(name: LibraryName) -> dict[str, Any]:
        """Gives what was taken back."""
        return get(name).library.undo().to_dict()

    return router


def watching_routes(service: Service, jobs: Jobs | None = None) -> APIRouter:
    """Whether the service is well, and what it did."""
    router = APIRouter(tags=["service"])

    @router.get("/healthz", summary="Whether it runs")
    async def health() -> dict[str, str]:
        """Answers as long as the process does."""
        return {"status": "ok", "version": __version__}

    @router.get("/readyz", summary="Whether it can take requests")
    def ready() -> dict[str, Any]:
        """503 while the queue is full, the library cannot be read, or a thread fails."""
        if service.queue.is_full:
            raise FullError("the queue is full", 2)
        if not service.queue.well or not (jobs is None or jobs.well):
            raise BusyError("a thread failed, and is begun again: see the log", 2)
        service.detectors.default.library.manifest()
        return {"status": "ready", "waiting": len(service.queue)}

    @router.get("/metrics", summary="Figures for Prometheus",
                responses={200: {"content": {"text/plain": {}}}})  # fmt: skip
    async def figures() -> Response:
        """Requests, queue, micro-batches, stages, memory and libraries. A server of libraries that
        does not answer at once leaves the figures of before."""
        counting = asyncio.create_task(asyncio.to_thread(service.count_examples))
        await asyncio.wait([counting], timeout=COUNT_SECONDS)
        return Response(service.metrics.text(), media_type="text/plain; version=0.0.4")

    return router


async def _pictures_of(
    request: Request, fetcher: Fetcher | None, most_bytes: int
) -> list[tuple[str, bytes]]:
    """Names and contents of the pictures of a request.

    Args:
        fetcher: of those that are addresses; None: these are refused.
        most_bytes: of all that is fetched.
    """
    kind = request.headers.get("content-type", "").partition(";")[0].strip().casefold()
    if kind == "application/json":
        try:
            body = Pictures.model_validate_json(await request.body())
        except ValidationError as error:
            raise ConfigError(f"images: {error.errors()[0]['msg']}") from error
        found: list[tuple[str, bytes]] = []
        for each in body.images:  # one by one: all together may have as many bytes as an upload
            left = most_bytes - sum(len(data) for _, data in found)
            name = each.name or (each.url or "").partition("?")[0]
            found.append((name, await _content(each, fetcher, left)))
        return found
    if kind != "multipart/form-data":
        raise ConfigError("send pictures as multipart/form-data (images) or as JSON")
    async with request.form(max_files=MOST_IMAGES, max_fields=4) as form:
        files = [each for each in form.getlist("images") if not isinstance(each, str)]
        if not files:
            raise ConfigError("the field 'images' has no file")
        return [(each.filename or "", await each.read()) for each in files]


async def _content(picture: Picture, fetcher: Fetcher | None, most_bytes: int) -> bytes:
    if (picture.data is None) == (picture.url is None):
        raise ConfigError("a picture has either data or a url")
    if picture.url is None:
        return decoded(picture.data or "")
    if fetcher is None:
        raise ConfigError(
            "this service fetches no addresses: send the picture itself, or start the service with "
            "--allow-urls"
        )
    return await fetcher.fetch(picture.url, most_bytes)


def _page(path: str, media: str) -> Any:
    name = path.lstrip("/") if "." in path else "docs.html"

    def answer() -> Response:
        content = (resources.files("sam_detect.server") / "static" / name).read_bytes()
        kind = f"text/{media}" if media != "svg+xml" else "image/svg+xml"
        return Response(content, media_type=kind)

    return answer


def run_service(
    detectors: Detectors,
    access: Access,
    limits: ServiceLimits,
    socket: Any,
    root: FilePath | None = None,
    *,
    urls: bool = False,
) -> None:
    """Answers until it is told to stop; what was accepted is done before it ends. Takes and raises
    what :func:`service_app` does."""
    from sam_detect.server.listening import server_of
    from sam_detect.server.process import long_running

    with long_running():
        place = home_dir() / "service" / "jobs"
        app = service_app(detectors, access, limits, jobs_in=place, root=root, urls=urls)
        log("started", library=detectors.default.library.name)
        server = server_of(
            app, leave_seconds=int(limits.seconds) + 1, max_message=limits.upload_bytes
        )
        server.run(sockets=[socket])
        log("ended")
