"""Jobs over HTTP, with their progress as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, Header, Path, Query, Request, Response
from fastapi.responses import JSONResponse, StreamingResponse
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from sam_detect.errors import ConfigError
from sam_detect.server.jobs import ENDED, Jobs

MOST_UPLOADED = 1000
ASK_SECONDS, HEARTBEAT_SECONDS = 0.25, 15.0
JobId = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")]


class JobOptions(BaseModel):
    """How the pictures of a job are detected."""

    model_config = ConfigDict(
        extra="forbid", allow_inf_nan=False,
        json_schema_extra={"example": {"folder": "tray-7", "library": "nuts"}},
    )  # fmt: skip

    folder: Annotated[str | None, Field(min_length=1, max_length=1000)] = None
    library: Annotated[str | None, Field(min_length=1, max_length=100)] = None
    threshold: Annotated[float | None, Field(ge=0, le=1)] = None
    unknown: bool = False


def job_routes(jobs: Jobs) -> APIRouter:
    """What is asked of jobs, under ``/v1/jobs``."""
    router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

    @router.post("", status_code=202, summary="Begin a job", openapi_extra={
        "requestBody": {"required": True, "content": {
            "multipart/form-data": {"schema": {"type": "object", "required": ["images"],
                "properties": {
                    "images": {"type": "array", "items": {"type": "string", "format": "binary"}},
                    "request": {"type": "string", "contentMediaType": "application/json",
                                "contentSchema": JobOptions.model_json_schema()}}}},
            "application/json": {"schema": JobOptions.model_json_schema()},
        }}})  # fmt: skip
    async def begin(request: Request) -> Response:
        """Pictures that are sent, or those of a ``folder`` below the root of the service."""
        kind = request.headers.get("content-type", "").partition(";")[0].strip().casefold()
        if kind == "application/json":
            options = _options(await request.body())
            if options.folder is None:
                raise ConfigError("name a folder, or send pictures as multipart/form-data (images)")
            made = await asyncio.to_thread(jobs.submit_folder, options.folder, _plain(options))
        elif kind == "multipart/form-data":
            async with request.form(max_files=MOST_UPLOADED, max_fields=4) as form:
                options = _options(str(form.get("request") or "{}"))
                files = [each for each in form.getlist("images") if not isinstance(each, str)]
                if not files:
                    raise ConfigError("the field 'images' has no file")
                pictures = [(each.filename or "", await each.read()) for each in files]
            made = await asyncio.to_thread(jobs.submit, pictures, _plain(options))
        else:
            raise ConfigError("send pictures as multipart/form-data (images), or name a folder")
        return JSONResponse(jobs.get(made), 202, {"Location": f"/v1/jobs/{made}"})

    @router.get("", summary="List jobs")
    def listed(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> dict[str, Any]:
        """Newest first."""
        return {"jobs": jobs.all(limit)}

    @router.get("/{job}", summary="How far a job is")
    def state(job: JobId) -> dict[str, Any]:
        """``state`` is waiting, running, done or cancelled; ``problems`` counts bad pictures."""
        return jobs.get(job)

    @router.get("/{job}/results", summary="The results of a job so far",
                responses={200: {"content": {"application/jsonl": {}}}})  # fmt: skip
    def results(job: JobId, start: Annotated[int, Query(ge=0, le=2**31)] = 0) -> Response:
        """JSON lines, in the order of the pictures, from the position ``start`` on."""
        jobs.get(job)
        lines = (f"{line}\n" for line in jobs.results(job, start))
        return StreamingResponse(lines, media_type="application/jsonl")

    @router.get("/{job}/events", summary="The progress of a job",
                responses={200: {"content": {"text/event-stream": {}}}})  # fmt: skip
    async def events(
        request: Request, job: JobId, last: Annotated[str, Header(alias="Last-Event-ID")] = ""
    ) -> Response:
        """Server-sent events; an event's id is how many pictures are done. Ends with the job."""
        jobs.get(job)
        after = int(last) if last.isascii() and last.isdigit() and len(last) < 12 else -1
        progress = _progress(request, jobs, job, after)
        return StreamingResponse(progress, media_type="text/event-stream")

    @router.delete("/{job}", summary="Cancel a job, or remove one that has ended")
    def cancel(job: JobId) -> dict[str, Any]:
        """The picture in work is the last one. Results stay until the job is removed."""
        return jobs.cancel(job)

    return router


async def _progress(request: Request, jobs: Jobs, job: str, after: int) -> AsyncIterator[str]:
    silent = 0.0
    while not await request.is_disconnected():
        now = jobs.get(job)
        ended = now["state"] in ENDED
        if now["done"] > after or ended:
            after, silent = now["done"], 0.0
            kind = now["state"] if ended else "progress"
            yield f"id: {after}\nevent: {kind}\ndata: {json.dumps(now)}\n\n"
        if ended:
            return
        await asyncio.sleep(ASK_SECONDS)
        silent += ASK_SECONDS
        if silent >= HEARTBEAT_SECONDS:
            silent = 0.0
            yield ": still working\n\n"


def _options(text: str | bytes) -> JobOptions:
    try:
        return JobOptions.model_validate_json(text)
    except ValidationError as error:
        first = error.errors()[0]
        place = ".".join(str(each) for each in first["loc"])
        raise ConfigError(f"{place}: {first['msg']}" if place else first["msg"]) from error


def _plain(options: JobOptions) -> dict[str, Any]:
    return options.model_dump(exclude={"folder"})
