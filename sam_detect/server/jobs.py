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
import threading
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import suppress
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
from sam_detect.server.work import LastingThread

MOST_UNFINISHED = 100
MOST_PICTURES = 100_000
MOST_UPLOADED = 1000
"""Pictures that may be sent with one request."""
KEPT_SECONDS = 7 * 24 * 3600
"""Jobs that ended are removed after so long."""
PAUSE_SECONDS, MOST_PAUSES = 1.0, 256
"""How long a job waits that failed for now: twice as long each time, up to so many pauses."""
ASK_SECONDS, HEARTBEAT_SECONDS = 0.25, 15.0
"""How often the progress of a job is asked for, and said where there is none."""
FOR_NOW = (BusyError, LibraryBusyError, StoreError, OutputError, OSError)
"""The library is busy, the disk is full, or the service ends: later it may go well."""
ENDED = ("done", "cancelled")

Detect = Callable[[Upload, dict[str, Any]], dict[str, Any]]


@dataclass
class _PictureJob:
    """A job.

    Attributes:
        folder: has the file of results, and the pictures that were sent.
        pictures: none, once it has ended.
        ends: offsets in the file of results: where each result ends, after 0.
        later: of the monotonic clock; before it the job is not tried again.
        reason: why it waits.
    """

    id: str
    folder: Path
    pictures: Sequence[Upload]
    options: dict[str, Any]
    warnings: list[str]
    made: float = field(default_factory=time.time)
    state: str = "waiting"
    ended: float = 0.0
    problems: int = 0
    ends: list[int] = field(default_factory=lambda: [0])
    later: float = 0.0
    failures: int = 0
    reason: str | None = None

    def __post_init__(self) -> None:
        self.total = len(self.pictures)

    @property
    def done(self) -> int:
        return len(self.ends) - 1

    @property
    def results(self) -> Path:
        return self.folder / "results.jsonl"

    def end(self, state: str) -> None:
        """Results stay; the pictures that were sent are removed, those of a folder are not ours."""
        self.state, self.ended, self.pictures = state, time.time(), ()
        shutil.rmtree(self.folder / "pictures", ignore_errors=True)

    def to_dict(self) -> dict[str, Any]:
        names = ("id", "state", "total", "done", "problems", "made", "reason", "warnings")
        return {name: getattr(self, name) for name in names}


class Jobs:
    """The jobs of a service, and the thread that works on them. Safe for several threads.

    Args:
        detect: gives the result of a picture; a picture that cannot be read has a ``problem``.
            What it raises of :data:`FOR_NOW` is tried again later; anything else is the picture's
            problem, so that no job holds up the others for ever.
        root: folders of pictures may be named that lie in this one; None: none may.
    """

    def __init__(self, detect: Detect, root: Path | None = None) -> None:
        self._detect, self._root = detect, None if root is None else root.resolve()
        self._temporary = tempfile.TemporaryDirectory(prefix="sam-detect-jobs-")
        self._jobs: dict[str, _PictureJob] = {}
        self._changed, self._stopped = threading.Condition(), threading.Event()
        self._thread = LastingThread("jobs", self._step)

    @property
    def well(self) -> bool:
        """Whether its thread works."""
        return self._thread.well

    def close(self, seconds: float = 10) -> None:
        """Ends after the picture in work; the other ones are not done any more."""
        self._stopped.set()
        with self._changed:
            self._changed.notify_all()
        self._thread.join(seconds)
        self._temporary.cleanup()

    # -- what users ask ----------------------------------------------------------------------

    def submit(
        self, pictures: Sequence[tuple[str, bytes]], options: dict[str, Any]
    ) -> dict[str, Any]:
        """A job of pictures that were sent, names and contents; its state.

        Raises:
            FullError: too many jobs are unfinished.
            OutputError: the pictures cannot be kept; nothing is left of them.
        """
        self._require_room()
        folder = self._folder()
        try:
            (folder / "pictures").mkdir(parents=True)
            return self._add(folder, written(pictures, folder / "pictures"), options)
        except OSError as error:
            shutil.rmtree(folder, ignore_errors=True)
            raise OutputError(f"the pictures cannot be kept: {reason_of(error)}") from error

    def submit_folder(self, folder: str, options: dict[str, Any]) -> dict[str, Any]:
        """A job of the pictures in a folder below the root; its state.

        Raises:
            ConfigError: there is no root, or the folder is not in it.
            ImageError: no picture is there.
            FullError: too many jobs are unfinished.
        """
        self._require_room()
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
        pictures = [
            Upload(str(path.relative_to(place)).encode("utf-8", "replace").decode(), str(path))
            for path in inside
        ]
        try:
            return self._add(self._folder(), pictures, options, said)
        except OSError as error:
            raise OutputError(f"the job cannot be kept: {reason_of(error)}") from error

    def get(self, job: str) -> dict[str, Any]:
        """A job's state, and how far it is; raises ``NotFoundError`` where there is none."""
        with self._changed:
            return self._found(job).to_dict()

    def all(self, limit: int) -> list[dict[str, Any]]:
        """The newest jobs, newest first."""
        with self._changed:
            return [each.to_dict() for each in reversed(self._jobs.values())][:limit]

    def results(self, job: str, start: int = 0) -> Iterator[str]:
        """The results so far, from one position on, as lines of JSON, in the order of the
        pictures; raises as :meth:`get`, at once."""
        with self._changed:
            found = self._found(job)
            done = found.done
        file = found.results.open(encoding="utf-8")

        def lines() -> Iterator[str]:
            with file:
                file.seek(found.ends[min(start, done)])
                for _ in range(start, done):
                    yield file.readline()

        return lines()

    def cancel(self, job: str) -> dict[str, Any]:
        """Ends a job after the picture in work, and removes one that has ended; its last state."""
        with self._changed:
            found = self._found(job)
            if found.state in ENDED:
                self._remove(found)
                return {**found.to_dict(), "state": "removed"}
            found.end("cancelled")
            return found.to_dict()

    # -- inside ------------------------------------------------------------------------------

    def _found(self, job: str) -> _PictureJob:
        if job not in self._jobs:
            raise NotFoundError(f"there is no job '{job[:40]}'")
        return self._jobs[job]

    def _folder(self) -> Path:
        return Path(self._temporary.name, secrets.token_hex(8))

    def _add(
        self, folder: Path, pictures: Sequence[Upload], options: dict[str, Any],
        said: Sequence[str] = (),
    ) -> dict[str, Any]:  # fmt: skip
        job = _PictureJob(folder.name, folder, pictures, options, list(said))
        folder.mkdir(exist_ok=True)
        job.results.touch()
        with self._changed:
            self._jobs[job.id] = job
            self._changed.notify_all()
            return job.to_dict()

    def _require_room(self) -> None:
        with self._changed:
            ended = [each for each in self._jobs.values() if each.state in ENDED]
            for each in ended:
                if each.ended < time.time() - KEPT_SECONDS:
                    self._remove(each)
            unfinished = sum(each.state not in ENDED for each in self._jobs.values())
        if unfinished >= MOST_UNFINISHED:
            raise FullError(f"{unfinished} jobs are unfinished: wait until some are done", 30)

    def _remove(self, job: _PictureJob) -> None:
        del self._jobs[job.id]
        shutil.rmtree(job.folder, ignore_errors=True)

    def _step(self) -> bool:
        """Works on one picture of the oldest job that does not wait."""
        with self._changed:
            now = time.monotonic()
            ready = (j for j in self._jobs.values() if j.state not in ENDED and j.later <= now)
            job = next(ready, None)
            if job is None:
                self._changed.wait(PAUSE_SECONDS)
                return not self._stopped.is_set()
            job.state, upload = "running", job.pictures[job.done]
        try:
            result = self._result(job, upload)
            self._store(job, result)
        except FOR_NOW as error:
            with self._changed:
                job.reason = problem_of(error)["detail"]
                pauses = min(1 << min(job.failures, 30), MOST_PAUSES)
                job.later, job.failures = (
                    time.monotonic() + PAUSE_SECONDS * pauses,
                    job.failures + 1,
                )
        return not self._stopped.is_set()

    def _result(self, job: _PictureJob, upload: Upload) -> dict[str, Any]:
        try:
            return self._detect(upload, job.options)
        except FOR_NOW:
            raise
        except Exception as error:
            if not isinstance(error, (SamDetectError, MemoryError)):
                log("error", job=job.id, error=f"{type(error).__name__}: {error}")
            return {"image": upload.name, "problem": problem_of(error)}

    def _store(self, job: _PictureJob, result: dict[str, Any]) -> None:
        """Stores a result, unless the job has ended; raises ``OSError`` where that fails. What was
        written of it then is written over by the next one."""
        data = json.dumps(result).encode() + b"\n"
        with self._changed:
            if job.state in ENDED:
                return
            with job.results.open("r+b") as file:
                file.seek(job.ends[-1])
                file.write(data)
            job.ends.append(job.ends[-1] + len(data))
            job.problems += "problem" in result
            job.failures, job.reason = 0, None
            if job.done == job.total:
                job.end("done")


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
            made = await asyncio.to_thread(jobs.submit, pictures, _plain(options))
        else:
            options = await schemas.parsed(schemas.JobOptions, request)
            if options.folder is None:
                raise ConfigError("name a folder, or send pictures as multipart/form-data (images)")
            made = await asyncio.to_thread(jobs.submit_folder, options.folder, _plain(options))
        return PlainJSON(made, 202, {"Location": f"/v1/jobs/{made['id']}"})

    @router.get("", summary="List jobs", response_model=schemas.JobList)
    def listed(limit: Annotated[int, Query(ge=1, le=1000)] = 100) -> dict[str, Any]:
        """Newest first."""
        return {"jobs": jobs.all(limit)}

    @router.get("/{job}", summary="How far a job is", response_model=schemas.JobState)
    def state(job: schemas.JobId) -> dict[str, Any]:
        """``state`` is waiting, running, done or cancelled; ``problems`` counts bad pictures;
        ``warnings`` say what of a folder was passed over."""
        return jobs.get(job)

    @router.get("/{job}/results", summary="The results of a job so far",
                **schemas.file_of("application/jsonl"))  # fmt: skip
    def results(job: schemas.JobId, start: Annotated[int, Query(ge=0, le=2**31)] = 0) -> Response:
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
    def cancel(job: schemas.JobId) -> dict[str, Any]:
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


def _plain(options: schemas.JobOptions) -> dict[str, Any]:
    return options.model_dump(exclude={"folder"})
