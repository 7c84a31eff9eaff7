"""Jobs over HTTP, with their progress as server-sent events."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Header, Path, Query, Request, Response
from fastapi.responses import StreamingResponse
from pydantic import ConfigDict, Field

from sam_detect.errors import ConfigError
from sam_detect.server import answers
from sam_detect.server.detecting import Body, FormFile, form_text, parsed, reference
from sam_detect.server.http import PlainJSON
from sam_detect.server.jobs import ENDED, Jobs

MOST_UPLOADED = 1000
ASK_SECONDS, HEARTBEAT_SECONDS = 0.25, 15.0
JobId = Annotated[str, Path(pattern=r"^[0-9a-f]{16}$")]


class JobOptions(Body):
    """How the pictures of a job are detected."""

    model_config = ConfigDict(
        json_schema_extra={"example": {"folder": "tray-7", "library": "nuts"}}
    )

    folder: Annotated[str | None, Field(min_length=1, max_length=1000)] = None
    library: Annotated[str | None, Field(min_length=1, max_length=100)] = None
    threshold: Annotated[float | None, Field(ge=0, le=1)] = None
    unknown: bool = False


def job_routes(jobs: Jobs) -> APIRouter:
    """What is asked of jobs, under ``/v1/jobs``."""
    router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

    @router.post("", status_code=202, summary="Begin a job", response_model=answers.JobState,
                 openapi_extra={"requestBody": {"content": {"application/json": {
                     "schema": reference("JobOptions")}}}})  # fmt: skip
    async def begin(
        request: Request,
        images: Annotated[list[FormFile], File(max_length=MOST_UPLOADED)] = [],  # noqa: B006
        said: Annotated[str, Form(alias="request"), form_text("JobOptions")] = "{}",
    ) -> Response:
        """Pictures that are sent, or those of a ``folder`` below the root of the service."""
        if images:
            options = await parsed(JobOptions, said)
            pictures = [(each.filename or "", await each.read()) for each in images]
            made = await asyncio.to_thread(jobs.submit, pictures, _plain(options))
        else:
            options = await parsed(JobOptions, request)
            if options.folder is None:
                raise ConfigError("name a folder, or send pictures as multipart/form-data (images)")
            made = await asyncio.to_thread(jobs.submit_folder, options.folder, _plain(options))
        return PlainJSON(made, 202, {"Location": f"/v1/jobs/{made['id']}"})

    @router.get("", summary="List jobs", response_model=answers.JobList)
    def listed(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> dict[str, Any]:
        """Newest first."""
        return {"jobs": jobs.all(limit)}

    @router.get("/{job}", summary="How far a job is", response_model=answers.JobState)
    def state(job: JobId) -> dict[str, Any]:
        """``state`` is waiting, running, done or cancelled; ``problems`` counts bad pictures;
        ``warnings`` say what of a folder was passed over."""
        return jobs.get(job)

    @router.get("/{job}/results", summary="The results of a job so far",
                **answers.file_of("application/jsonl"))  # fmt: skip
    def results(job: JobId, start: Annotated[int, Query(ge=0, le=2**31)] = 0) -> Response:
        """JSON lines, in the order of the pictures, from the position ``start`` on."""
        return StreamingResponse(jobs.results(job, start), media_type="application/jsonl")

    @router.get("/{job}/events", summary="The progress of a job",
                **answers.file_of("text/event-stream"))  # fmt: skip
    async def events(
        request: Request, job: JobId, last: Annotated[str, Header(alias="Last-Event-ID")] = ""
    ) -> Response:
        """Server-sent events; an event's id is how many pictures are done. Ends with the job."""
        jobs.get(job)
        after = int(last) if last.isascii() and last.isdigit() and len(last) < 12 else -1
        progress = _progress(request, jobs, job, after)
        return StreamingResponse(progress, media_type="text/event-stream")

    @router.delete("/{job}", summary="Cancel a job, or remove one that has ended",
                   response_model=answers.JobState)  # fmt: skip
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


def _plain(options: JobOptions) -> dict[str, Any]:
    return options.model_dump(exclude={"folder"})
