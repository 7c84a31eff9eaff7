"""Batches of pictures that are detected in the background, between other requests, under
``/v1/jobs``.

A job lives as long as its service. Its pictures and results are files in a temporary folder, its
state is in memory.
"""

from __future__ import annotations

import asyncio
import json
import secrets
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import suppress
from contextvars import Context
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any

from fastapi import APIRouter, File, Form, Header, Query, Request, Response
from fastapi.responses import StreamingResponse

from sam_detect.errors import (
    ConfigError,
    LibraryBusyError,
    NotFoundError,
    OutputError,
    SamDetectError,
    StoreError,
)
from sam_detect.io import find_images
from sam_detect.server import schemas
from sam_detect.server.client_texts import called, heard, reason_of
from sam_detect.server.metrics import log
from sam_detect.server.problems import BusyError, FullError, PlainJSON, problem_of
from sam_detect.server.uploads import Upload, written

MOST_UNFINISHED = 100
MOST_PICTURES = 100_000
MOST_UPLOADED = 1000
"""Pictures that may be sent with one request."""
KEPT_SECONDS = 7 * 24 * 3600
"""Time after which jobs that ended are removed."""
PAUSE_SECONDS, LONGEST_PAUSE_SECONDS = 1.0, 256.0
"""How long a job waits that failed for now: twice as long each time."""
ASK_SECONDS, HEARTBEAT_SECONDS = 0.25, 15.0
"""How often the progress of a job is asked for, and said where there is none."""
FOR_NOW = (BusyError, LibraryBusyError, StoreError, OutputError, OSError)
"""The library is busy, the disk is full, or the service ends: later it may go well."""
ENDED = ("done", "cancelled")

Detect = Callable[[Upload, dict[str, Any]], Awaitable[dict[str, Any]]]


@dataclass
class _PictureJob:
    """A job.

    Attributes:
        folder: has the file of results, and the pictures that were sent.
        ends: offsets in the file of results: where each result ends, after 0.
        reason: why it waits.
        task: works on it.
    """

    id: str
    folder: Path
    total: int
    warnings: list[str]
    made: float = field(default_factory=time.time)
    state: str = "waiting"
    ended: float = 0.0
    problems: int = 0
    ends: list[int] = field(default_factory=lambda: [0])
    reason: str | None = None
    task: asyncio.Task[None] | None = None

    @property
    def done(self) -> int:
        return len(self.ends) - 1

    @property
    def results(self) -> Path:
        return self.folder / "results.jsonl"

    def store(self, result: dict[str, Any]) -> None:
        """Adds a result; raises ``OSError`` where it cannot be written. What was written of it then
        is written over by the next one."""
        data = json.dumps(result).encode() + b"\n"
        with self.results.open("r+b") as file:
            file.seek(self.ends[-1])
            file.write(data)
        self.ends.append(self.ends[-1] + len(data))
        self.problems += "problem" in result

    def end(self, state: str) -> None:
        """Results stay; the pictures that were sent are removed, those of a folder are not ours."""
        self.state, self.ended, self.reason = state, time.time(), None
        shutil.rmtree(self.folder / "pictures", ignore_errors=True)

    def to_dict(self) -> dict[str, Any]:
        names = ("id", "state", "total", "done", "problems", "made", "reason", "warnings")
        return {name: getattr(self, name) for name in names}


class Jobs:
    """The jobs of a service, each a task of its loop; they take turns, a picture at a time.

    Args:
        detect: gives the result of a picture; a picture that cannot be read has a ``problem``.
            What it raises of :data:`FOR_NOW` is tried again later, while others go on; anything
            else is the picture's problem, so that no job lasts for ever.
        root: folders of pictures may be named that lie in this one; None: none may.
    """

    def __init__(self, detect: Detect, root: Path | None = None) -> None:
        self._detect, self._root = detect, None if root is None else root.resolve()
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        self._jobs: dict[str, _PictureJob] = {}
        self._turn = asyncio.Lock()

    async def close(self) -> None:
        """Ends all jobs."""
        tasks = [job.task for job in self._jobs.values() if job.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        if self._temporary is not None:
            self._temporary.cleanup()

    # -- what users ask ----------------------------------------------------------------------

    async def submit(
        self, pictures: Sequence[tuple[str, bytes]], options: dict[str, Any]
    ) -> dict[str, Any]:
        """A job of pictures that were sent, names and contents; its state.

        Raises:
            FullError: too many jobs are unfinished.
            OutputError: the pictures cannot be kept; nothing is left of them.
        """
        folder = self._new_folder()
        try:
            (folder / "pictures").mkdir(parents=True)
            uploads = await asyncio.to_thread(written, pictures, folder / "pictures")
            return self._begin(folder, uploads, options, [])
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise OutputError(f"the pictures cannot be kept: {reason_of(error)}") from error

    async def submit_folder(self, folder: str, options: dict[str, Any]) -> dict[str, Any]:
        """A job of the pictures in a folder below the root; its state.

        Raises:
            ConfigError: there is no root, or the folder is not in it.
            ImageError: no picture is there.
            FullError: too many jobs are unfinished.
            OutputError: the job cannot be kept.
        """
        place = self._new_folder()
        uploads, warnings = await asyncio.to_thread(self._listed, folder)
        try:
            place.mkdir(parents=True)
            return self._begin(place, uploads, options, warnings)
        except OSError as error:
            raise OutputError(f"the job cannot be kept: {reason_of(error)}") from error

    def get(self, job: str) -> dict[str, Any]:
        """A job's state, and how far it is; raises ``NotFoundError`` where there is none."""
        return self._found(job).to_dict()

    def all(self, limit: int) -> list[dict[str, Any]]:
        """The newest jobs, newest first."""
        return [each.to_dict() for each in reversed(self._jobs.values())][:limit]

    def results(self, job: str, start: int = 0) -> Iterator[str]:
        """The results so far, from one position on, as lines of JSON, in the order of the
        pictures; raises as :meth:`get`, at once."""
        found = self._found(job)
        done, file = found.done, found.results.open(encoding="utf-8")

        def lines() -> Iterator[str]:
            with file:
                file.seek(found.ends[min(start, done)])
                for _ in range(start, done):
                    yield file.readline()

        return lines()

    def cancel(self, job: str) -> dict[str, Any]:
        """Ends a job, and removes one that has ended; its last state."""
        found = self._found(job)
        if found.state in ENDED:
            self._remove(found)
            return {**found.to_dict(), "state": "removed"}
        if found.task is not None:
            found.task.cancel()
        found.end("cancelled")
        return found.to_dict()

    # -- inside ------------------------------------------------------------------------------

    def _found(self, job: str) -> _PictureJob:
        if job not in self._jobs:
            raise NotFoundError(f"there is no job '{job[:40]}'")
        return self._jobs[job]

    def _new_folder(self) -> Path:
        """Where a job will lie, if there is room for one; raises ``OSError`` where none can be."""
        ended = [each for each in self._jobs.values() if each.state in ENDED]
        for each in ended:
            if each.ended < time.time() - KEPT_SECONDS:
                self._remove(each)
        unfinished = sum(each.state not in ENDED for each in self._jobs.values())
        if unfinished >= MOST_UNFINISHED:
            raise FullError(f"{unfinished} jobs are unfinished: wait until some are done", 30)
        if self._temporary is None:  # with the first job: a service that is killed leaves it behind
            self._temporary = tempfile.TemporaryDirectory(prefix="sam-detect-jobs-")
        return Path(self._temporary.name, secrets.token_hex(8))

    def _listed(self, folder: str) -> tuple[list[Upload], list[str]]:
        """The pictures in a folder below the root, and what is warned of."""
        if self._root is None:
            raise ConfigError("this service takes no folders: start it with --root DIR")
        place, there = self._root, False
        with suppress(OSError, ValueError):  # its name is too long, or has a NUL
            place = (self._root / folder).resolve()
            there = place.is_dir()
        if not place.is_relative_to(self._root) or not there:
            raise ConfigError(f"'{folder}' is no folder below the root of this service")
        with called(str(place), folder), heard(str(place), folder) as said:
            found = [Path(path) for path in find_images(str(place))]
        inside = [path for path in found if path.resolve().is_relative_to(self._root)]
        if len(inside) < len(found):
            said.append(f"{folder}: {len(found) - len(inside)} of {len(found)} pictures are passed "
                        "over, since they are links out of the root")  # fmt: skip
        if not inside or len(inside) > MOST_PICTURES:
            raise ConfigError(
                f"'{folder}' has {len(inside)} pictures: 1 to {MOST_PICTURES} are taken"
            )
        names = [str(each.relative_to(place)).encode("utf-8", "replace") for each in inside]
        return [Upload(n.decode(), str(p)) for n, p in zip(names, inside, strict=True)], said

    def _begin(
        self, folder: Path, uploads: Sequence[Upload], options: dict[str, Any], said: list[str]
    ) -> dict[str, Any]:
        job = _PictureJob(folder.name, folder, len(uploads), said)
        job.results.touch()
        # In a context of its own: what it says is not of the request that began it.
        job.task = Context().run(asyncio.create_task, self._work(job, uploads, options))
        self._jobs[job.id] = job
        return job.to_dict()

    def _remove(self, job: _PictureJob) -> None:
        del self._jobs[job.id]
        shutil.rmtree(job.folder, ignore_errors=True)

    async def _work(
        self, job: _PictureJob, uploads: Sequence[Upload], options: dict[str, Any]
    ) -> None:
        for upload in uploads:
            pause = PAUSE_SECONDS
            while True:
                try:
                    async with self._turn:
                        job.state = "running"
                        result = await self._result(job, upload, options)
                    await asyncio.to_thread(job.store, result)
                    break
                except Exception as error:
                    if not isinstance(error, FOR_NOW):
                        log("error", job=job.id, error=f"{type(error).__name__}: {error}")
                    job.reason = problem_of(error)["detail"]
                    await asyncio.sleep(pause)
                    pause = min(2 * pause, LONGEST_PAUSE_SECONDS)
            job.reason = None
        job.end("done")

    async def _result(
        self, job: _PictureJob, upload: Upload, options: dict[str, Any]
    ) -> dict[str, Any]:
        try:
            return await self._detect(upload, options)
        except FOR_NOW:
            raise
        except Exception as error:
            if not isinstance(error, (SamDetectError, MemoryError)):
                log("error", job=job.id, error=f"{type(error).__name__}: {error}")
            return {"image": upload.name, "problem": problem_of(error)}


def job_routes(jobs: Jobs) -> APIRouter:
    """What is asked of jobs, under ``/v1/jobs``."""
    router = APIRouter(prefix="/v1/jobs", tags=["jobs"])

    @router.post("", status_code=202, summary="Begin a job", response_model=schemas.JobState,
                 openapi_extra={"requestBody": {"content": {"application/json": {
                     "schema": schemas.reference("JobOptions")}}}})  # fmt: skip
    async def begin(
        request: Request,
        images: Annotated[list[schemas.FormFile], File(max_length=MOST_UPLOADED)] = [],  # noqa: B006
        said: Annotated[str, Form(alias="request"), schemas.form_text("JobOptions")] = "{}",
    ) -> Response:
        """Pictures that are sent, or those of a ``folder`` below the root of the service."""
        if images:
            options = await schemas.parsed(schemas.JobOptions, said)
            pictures = [(each.filename or "", await each.read()) for each in images]
            made = await jobs.submit(pictures, _plain(options))
        else:
            options = await schemas.parsed(schemas.JobOptions, request)
            if options.folder is None:
                raise ConfigError("name a folder, or send pictures as multipart/form-data (images)")
            made = await jobs.submit_folder(options.folder, _plain(options))
        return PlainJSON(made, 202, {"Location": f"/v1/jobs/{made['id']}"})

    @router.get("", summary="List jobs", response_model=schemas.JobList)
    async def listed(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> dict[str, Any]:
        """Newest first."""
        return {"jobs": jobs.all(limit)}

    @router.get("/{job}", summary="How far a job is", response_model=schemas.JobState)
    async def state(job: schemas.JobId) -> dict[str, Any]:
        """``state`` is waiting, running, done or cancelled; ``problems`` counts bad pictures;
        ``warnings`` say what of a folder was passed over."""
        return jobs.get(job)

    @router.get("/{job}/results", summary="The results of a job so far",
                **schemas.file_of("application/jsonl"))  # fmt: skip
    async def results(
        job: schemas.JobId, start: Annotated[int, Query(ge=0, le=2**31)] = 0
    ) -> Response:
        """JSON lines, in the order of the pictures, from the position ``start`` on."""
        return StreamingResponse(jobs.results(job, start), media_type="application/jsonl")

    @router.get("/{job}/events", summary="The progress of a job",
                **schemas.file_of("text/event-stream"))  # fmt: skip
    async def events(
        request: Request,
        job: schemas.JobId,
        last: Annotated[str, Header(alias="Last-Event-ID")] = "",
    ) -> Response:
        """Server-sent events; an event's id is how many pictures are done. Ends with the job."""
        jobs.get(job)
        after = int(last) if last.isascii() and last.isdigit() and len(last) < 12 else -1
        progress = _progress(request, jobs, job, after)
        return StreamingResponse(progress, media_type="text/event-stream")

    @router.delete("/{job}", summary="Cancel a job, or remove one that has ended",
                   response_model=schemas.JobState)  # fmt: skip
    async def cancel(job: schemas.JobId) -> dict[str, Any]:
        """Results stay until the job is removed."""
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


def _plain(options: schemas.JobOptions) -> dict[str, Any]:
    return options.model_dump(exclude={"folder"})
