"""Jobs that cannot go on, and disks that are full: nothing hangs, nothing is left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")

from sam_detect.errors import LibraryBusyError, NotFoundError, OutputError, StoreError
from sam_detect.server import jobs as jobs_module
from sam_detect.server import work as work_module
from sam_detect.server.jobs import Jobs
from sam_detect.server.uploads import Upload

Result = dict[str, Any]
PICTURES = [("a.png", b"a"), ("b.png", b"b")]


@pytest.fixture
def begin(monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Jobs]]:
    """Begins jobs that are worked on by a function of the library's name."""
    monkeypatch.setattr(jobs_module, "PAUSE_SECONDS", 0.02)
    begun: list[Jobs] = []

    def begin(work: Callable[[str], Result]) -> Jobs:
        def detect(upload: Upload, options: Result) -> Result:
            return {"image": upload.name, **work(options["library"])}

        begun.append(Jobs(detect))
        return begun[-1]

    yield begin
    for each in begun:
        each.close()


def ended(jobs: Jobs, job: str) -> Result:
    end = time.monotonic() + 20
    while (state := jobs.get(job))["state"] not in jobs_module.ENDED:
        assert time.monotonic() < end, state
        time.sleep(0.01)
    return state


def test_a_job_that_can_never_be_done_holds_no_other_up(begin: Callable[..., Jobs]) -> None:
    def work(library: str) -> Result:
        if library == "removed":
            raise NotFoundError("there is no library 'removed'")
        if library == "huge":
            raise MemoryError
        return {"detections": []}

    jobs = begin(work)
    bad = [jobs.submit(PICTURES, {"library": name})["id"] for name in ("removed", "huge")]
    good = jobs.submit(PICTURES, {"library": "nuts"})["id"]
    assert ended(jobs, good)["problems"] == 0
    for job, words in zip(bad, ("there is no library", "more memory"), strict=True):
        state = ended(jobs, job)
        assert (state["state"], state["done"], state["problems"]) == ("done", 2, 2)
        assert all(words in line and '"problem"' in line for line in jobs.results(job))


def test_what_fails_for_now_is_tried_again(begin: Callable[..., Jobs]) -> None:
    failures: list[Exception] = [
        LibraryBusyError("busy"), OSError(28, "No space left on device"), OutputError("full"),
    ]  # fmt: skip

    def work(_: str) -> Result:
        if failures:
            raise failures.pop()
        return {"detections": []}

    jobs = begin(work)
    assert ended(jobs, jobs.submit(PICTURES, {"library": None})["id"])["problems"] == 0


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="it is Linux's")
def test_a_full_disk_ends_no_job(begin: Callable[..., Jobs]) -> None:
    full, tried = threading.Event(), threading.Event()

    def work(_: str) -> Result:
        full.wait(20)
        tried.set()
        return {"detections": "x" * 100_000}

    jobs = begin(work)
    job = jobs.submit(PICTURES, {"library": None})["id"]
    results = jobs._jobs[job].results
    results.unlink()
    results.symlink_to("/dev/full")
    full.set()
    for _ in range(3):
        assert tried.wait(20), "it tries again and again"
        tried.clear()
    assert jobs.get(job)["done"] == 0
    assert "No space left" in jobs.get(job)["reason"]
    results.unlink()
    results.touch()
    assert ended(jobs, job)["state"] == "done"
    assert len(list(jobs.results(job))) == 2


def test_nothing_is_kept_of_a_job_that_is_refused(
    begin: Callable[..., Jobs], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(path: Path, data: bytes) -> int:
        path.touch()
        raise OSError(28, "No space left on device")

    jobs = begin(lambda _: {})
    monkeypatch.setattr(Path, "write_bytes", full)
    with pytest.raises(OutputError, match="No space left"):
        jobs.submit(PICTURES, {"library": None})
    assert list(Path(jobs._temporary.name).iterdir()) == []
    assert jobs.all(10) == []


@pytest.mark.parametrize("cancels", [1, 2, 3])
def test_a_running_job_may_be_cancelled_and_removed_as_often_as_one_likes(
    begin: Callable[..., Jobs], cancels: int
) -> None:
    working, go_on = threading.Event(), threading.Event()

    def work(library: str) -> Result:
        if library == "slow":
            working.set()
            go_on.wait(20)
        return {}

    jobs = begin(work)
    job = jobs.submit(PICTURES, {"library": "slow"})["id"]
    assert working.wait(20)
    states = []
    for _ in range(cancels):
        try:
            states.append(jobs.cancel(job)["state"])
        except NotFoundError:
            states.append("gone")
    assert states == ["cancelled", "removed", "gone"][:cancels]
    go_on.set()
    assert ended(jobs, jobs.submit(PICTURES, {"library": "nuts"})["id"])["done"] == 2
    assert jobs.well


def test_a_job_whose_library_cannot_be_opened_holds_no_other_up(begin: Callable[..., Jobs]) -> None:
    closed = threading.Event()
    closed.set()

    def work(library: str) -> Result:
        if library == "locked" and closed.is_set():
            raise StoreError("it cannot be read: Permission denied")
        return {}

    jobs = begin(work)
    bad = jobs.submit(PICTURES, {"library": "locked"})["id"]
    for _ in range(3):
        assert ended(jobs, jobs.submit(PICTURES, {"library": "nuts"})["id"])["problems"] == 0
    state = jobs.get(bad)
    assert (state["state"], state["done"]) == ("running", 0)
    assert "Permission denied" in state["reason"]
    closed.clear()
    state = ended(jobs, bad)
    assert (state["done"], state["problems"], state["reason"]) == (2, 0, None)


def test_an_error_that_nobody_expected_is_the_pictures_problem(begin: Callable[..., Jobs]) -> None:
    def work(library: str) -> Result:
        raise ZeroDivisionError

    jobs = begin(work)
    state = ended(jobs, jobs.submit(PICTURES, {"library": "nuts"})["id"])
    assert (state["done"], state["problems"], jobs.well) == (2, 2, True)


@pytest.mark.parametrize("step", ["_result", "_store"])
def test_a_thread_that_fails_is_seen_and_goes_on(
    begin: Callable[..., Jobs], monkeypatch: pytest.MonkeyPatch, step: str,
    capfd: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    monkeypatch.setattr(work_module, "PAUSE_SECONDS", 0.02)
    jobs = begin(lambda _: {})

    def fail(*_: object) -> None:
        raise RuntimeError("a fault")

    with monkeypatch.context() as patched:
        patched.setattr(jobs, step, fail)
        job = jobs.submit(PICTURES, {"library": None})["id"]
        end = time.monotonic() + 20
        while jobs.well:
            assert time.monotonic() < end
    assert ended(jobs, job)["done"] == 2
    assert jobs.well
    assert "a fault" in capfd.readouterr().err
