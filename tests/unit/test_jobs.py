"""Jobs that cannot go on, and disks that are full: nothing hangs, nothing is left behind."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

pytest.importorskip("fastapi", reason="the extra 'server' is not installed")

from sam_detect.errors import LibraryBusyError, NotFoundError, OutputError
from sam_detect.server import jobs as jobs_module
from sam_detect.server.jobs import Jobs
from sam_detect.server.uploads import Upload

Result = dict[str, Any]
PICTURES = [("a.png", b"a"), ("b.png", b"b")]


@pytest.fixture
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Jobs]]:
    """Begins the jobs of a folder, worked on by a function of the library's name."""
    monkeypatch.setattr(jobs_module, "PAUSE_SECONDS", 0.02)
    begun: list[Jobs] = []

    def begin(work: Callable[[str], Result]) -> Jobs:
        def detect(upload: Upload, options: Result) -> Result:
            return {"image": upload.name, **work(options["library"])}

        begun.append(Jobs(tmp_path / "jobs", detect))
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
    bad = [jobs.submit(PICTURES, {"library": name}) for name in ("removed", "huge")]
    good = jobs.submit(PICTURES, {"library": "nuts"})
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
    assert ended(jobs, jobs.submit(PICTURES, {"library": None}))["problems"] == 0


def test_a_full_disk_ends_no_job_and_keeps_nothing_of_one_it_refuses(
    begin: Callable[..., Jobs], tmp_path: Path
) -> None:
    full, tried = threading.Event(), threading.Event()

    def work(_: str) -> Result:
        full.wait(20)
        tried.set()
        return {"detections": "x" * 100_000}

    jobs = begin(work)
    pages = jobs._file.execute("PRAGMA page_count").fetchone()[0]
    job = jobs.submit(PICTURES, {"library": None})
    # SQLite's own limit: what it does then is what it does on a full disk.
    jobs._file.execute(f"PRAGMA max_page_count = {pages + 1}")
    full.set()
    for _ in range(3):
        assert tried.wait(20), "it tries again and again"
        tried.clear()
    assert jobs.get(job)["done"] == 0
    with pytest.raises(OutputError, match="full"):
        jobs.submit([(f"{i}.png", b"") for i in range(1000)], {"library": None})
    assert [each.name for each in (tmp_path / "jobs").iterdir() if each.is_dir()] == [job]
    jobs._file.execute("PRAGMA max_page_count = 1000000")
    assert ended(jobs, job)["state"] == "done"
    assert len(list(jobs.results(job))) == 2
