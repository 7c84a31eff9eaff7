"""Jobs that cannot go on, and disks that are full: nothing hangs, nothing is left behind."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")

from sam_detect.errors import LibraryBusyError, NotFoundError, OutputError, StoreError
from sam_detect.server import jobs as jobs_module
from sam_detect.server.jobs import Jobs
from sam_detect.server.uploads import Upload

Result = dict[str, Any]
PICTURES = [("a.png", b"a"), ("b.png", b"b")]


@pytest.fixture(autouse=True)
def short_pauses(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jobs_module, "PAUSE_SECONDS", 0.02)


def with_jobs(work: Callable[[str], Result], test: Callable[[Jobs], Awaitable[None]]) -> None:
    """Runs a test with jobs that are worked on by a function of the library's name."""

    async def detect(upload: Upload, options: Result) -> Result:
        return {"image": upload.name, **await asyncio.to_thread(work, options["library"])}

    async def main() -> None:
        jobs = Jobs(detect)
        try:
            await test(jobs)
        finally:
            await jobs.close()

    asyncio.run(main())


async def begun(jobs: Jobs, library: str | None) -> str:
    return str((await jobs.submit(PICTURES, {"library": library}))["id"])


async def ended(jobs: Jobs, job: str) -> Result:
    end = time.monotonic() + 20
    while (state := jobs.get(job))["state"] not in jobs_module.ENDED:
        assert time.monotonic() < end, state
        await asyncio.sleep(0.01)
    return state


def test_a_job_that_can_never_be_done_holds_no_other_up() -> None:
    def work(library: str) -> Result:
        if library == "removed":
            raise NotFoundError("there is no library 'removed'")
        if library == "huge":
            raise MemoryError
        if library == "odd":
            raise ZeroDivisionError
        return {"detections": []}

    async def test(jobs: Jobs) -> None:
        bad = {await begun(jobs, name): words for name, words in (
            ("removed", "there is no library"), ("huge", "more memory"), ("odd", "see its log"),
        )}  # fmt: skip
        assert (await ended(jobs, await begun(jobs, "nuts")))["problems"] == 0
        for job, words in bad.items():
            state = await ended(jobs, job)
            assert (state["state"], state["done"], state["problems"]) == ("done", 2, 2)
            assert all(words in line and '"problem"' in line for line in jobs.results(job))

    with_jobs(work, test)


def test_jobs_lie_on_the_disk_from_the_first_one_until_the_service_ends(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that is killed leaves nothing where it had no job."""
    monkeypatch.setattr("tempfile.tempdir", str(tmp_path))

    async def test(jobs: Jobs) -> None:
        assert list(tmp_path.iterdir()) == []
        await ended(jobs, await begun(jobs, "nuts"))
        assert len(list(tmp_path.iterdir())) == 1

    with_jobs(lambda _: {"detections": []}, test)
    assert list(tmp_path.iterdir()) == []


def test_what_fails_for_now_is_tried_again() -> None:
    failures: list[Exception] = [
        LibraryBusyError("busy"), OSError(28, "No space left on device"), OutputError("full"),
    ]  # fmt: skip

    def work(_: str) -> Result:
        if failures:
            raise failures.pop()
        return {"detections": []}

    async def test(jobs: Jobs) -> None:
        assert (await ended(jobs, await begun(jobs, None)))["problems"] == 0

    with_jobs(work, test)


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="it is Linux's")
def test_a_full_disk_ends_no_job() -> None:
    full, tried = threading.Event(), threading.Event()

    def work(_: str) -> Result:
        full.wait(20)
        tried.set()
        return {"detections": "x" * 100_000}

    async def test(jobs: Jobs) -> None:
        job = await begun(jobs, None)
        results = jobs._jobs[job].results
        results.unlink()
        results.symlink_to("/dev/full")
        full.set()
        for _ in range(3):
            assert await asyncio.to_thread(tried.wait, 20), "it tries again and again"
            tried.clear()
        assert jobs.get(job)["done"] == 0
        assert "No space left" in jobs.get(job)["reason"]
        results.unlink()
        results.touch()
        assert (await ended(jobs, job))["reason"] is None
        assert len(list(jobs.results(job))) == 2

    with_jobs(work, test)


def test_nothing_is_kept_of_a_job_that_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    def full(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    async def test(jobs: Jobs) -> None:
        monkeypatch.setattr(Path, "write_bytes", full)
        with pytest.raises(OutputError, match="No space left"):
            await begun(jobs, None)
        assert list(Path(jobs._temporary.name).iterdir()) == []
        assert jobs.all(10) == []

    with_jobs(lambda _: {}, test)


@pytest.mark.parametrize("cancels", [1, 2, 3])
def test_a_running_job_may_be_cancelled_and_removed_as_often_as_one_likes(cancels: int) -> None:
    working, go_on = threading.Event(), threading.Event()

    def work(library: str) -> Result:
        if library == "slow":
            working.set()
            go_on.wait(20)
        return {}

    async def test(jobs: Jobs) -> None:
        job = await begun(jobs, "slow")
        assert await asyncio.to_thread(working.wait, 20)
        states = []
        for _ in range(cancels):
            try:
                states.append(jobs.cancel(job)["state"])
            except NotFoundError:
                states.append("gone")
        assert states == ["cancelled", "removed", "gone"][:cancels]
        go_on.set()
        assert (await ended(jobs, await begun(jobs, "nuts")))["done"] == 2

    with_jobs(work, test)


def test_a_job_whose_library_cannot_be_opened_holds_no_other_up() -> None:
    closed = threading.Event()
    closed.set()

    def work(library: str) -> Result:
        if library == "locked" and closed.is_set():
            raise StoreError("it cannot be read: Permission denied")
        return {}

    async def test(jobs: Jobs) -> None:
        bad = await begun(jobs, "locked")
        for _ in range(3):
            assert (await ended(jobs, await begun(jobs, "nuts")))["problems"] == 0
        state = jobs.get(bad)
        assert (state["state"], state["done"]) == ("running", 0)
        assert "Permission denied" in state["reason"]
        closed.clear()
        state = await ended(jobs, bad)
        assert (state["done"], state["problems"], state["reason"]) == (2, 0, None)

    with_jobs(work, test)


def test_an_error_that_nobody_foresaw_is_logged_and_the_job_goes_on(
    monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    store, failures = jobs_module._PictureJob.store, [RuntimeError("a fault")]

    def failing(job: Any, result: Result) -> None:
        if failures:
            raise failures.pop()
        store(job, result)

    async def test(jobs: Jobs) -> None:
        monkeypatch.setattr(jobs_module._PictureJob, "store", failing)
        assert (await ended(jobs, await begun(jobs, None)))["done"] == 2

    with_jobs(lambda _: {}, test)
    assert "a fault" in capfd.readouterr().err


def test_jobs_take_turns_and_a_picture_at_a_time_is_in_work() -> None:
    taken: list[str] = []
    working = threading.Lock()

    def work(library: str) -> Result:
        assert working.acquire(blocking=False), "another one is in work"
        taken.append(library)
        time.sleep(0.01)
        working.release()
        return {}

    async def test(jobs: Jobs) -> None:
        pictures = [(f"{number}.png", b"") for number in range(20)]
        long = (await jobs.submit(pictures, {"library": "long"}))["id"]
        await ended(jobs, await begun(jobs, "short"))
        assert jobs.get(long)["state"] == "running"
        assert (await ended(jobs, long))["problems"] == 0
        assert sorted(set(taken[:4])) == ["long", "short"]

    with_jobs(work, test)
