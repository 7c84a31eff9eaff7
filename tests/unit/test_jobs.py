"""Jobs that cannot go on, and disks that are full: nothing hangs, nothing is left behind."""

from __future__ import annotations

import json
import sqlite3
import threading
import time
from collections import Counter
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
def begin(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Callable[..., Jobs]]:
    """Begins the jobs of a folder, worked on by a function of the library's name."""
    monkeypatch.setattr(jobs_module, "PAUSE_SECONDS", 0.02)
    begun: list[Jobs] = []

    def begin(work: Callable[[str], Result], library: str = "") -> Jobs:
        def detect(upload: Upload, options: Result) -> Result:
            return {"image": upload.name, **work(options["library"])}

        begun.append(Jobs(tmp_path / "jobs", detect, library=library))
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
    job = jobs.submit(PICTURES, {"library": "slow"})
    assert working.wait(20)
    states = []
    for _ in range(cancels):
        try:
            states.append(jobs.cancel(job)["state"])
        except NotFoundError:
            states.append("gone")
    assert states == ["cancelled", "removed", "gone"][:cancels]
    go_on.set()
    assert ended(jobs, jobs.submit(PICTURES, {"library": "nuts"}))["done"] == 2
    assert jobs.well


def test_a_job_whose_library_cannot_be_opened_holds_no_other_up(begin: Callable[..., Jobs]) -> None:
    closed = threading.Event()
    closed.set()

    def work(library: str) -> Result:
        if library == "locked" and closed.is_set():
            raise StoreError("it cannot be read: Permission denied")
        return {}

    jobs = begin(work)
    bad = jobs.submit(PICTURES, {"library": "locked"})
    for _ in range(3):
        assert ended(jobs, jobs.submit(PICTURES, {"library": "nuts"}))["problems"] == 0
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
    state = ended(jobs, jobs.submit(PICTURES, {"library": "nuts"}))
    assert (state["done"], state["problems"], jobs.well) == (2, 2, True)


@pytest.mark.parametrize("step", ["_claim", "_hold", "_store"])
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
        job = jobs.submit(PICTURES, {"library": None})
        end = time.monotonic() + 20
        while jobs.well:
            assert time.monotonic() < end
    assert ended(jobs, job)["done"] == 2
    assert jobs.well
    assert "a fault" in capfd.readouterr().err


def test_services_that_share_a_folder_share_the_work(begin: Callable[..., Jobs]) -> None:
    done: Counter[str] = Counter()

    def working(name: str) -> Callable[[str], Result]:
        def work(_: str) -> Result:
            done[name] += 1
            time.sleep(0.02)
            return {}

        return work

    one, other = begin(working("one"), "nuts"), begin(working("other"), "nuts")
    apart = begin(working("apart"), "plates")
    pictures = [(f"{i}.png", b"") for i in range(20)]
    mine = one.submit(pictures, {"library": None})
    theirs = apart.submit(PICTURES, {"library": None})
    assert ended(other, mine)["done"] == 20
    assert ended(one, theirs)["done"] == 2
    names = [json.loads(line)["image"] for line in other.results(mine)]
    assert names == [name for name, _ in pictures]
    assert done["one"] + done["other"] == 20
    assert min(done["one"], done["other"]) > 0
    assert done["apart"] == 2, "a job belongs to its library"


def test_the_first_result_of_a_picture_counts(
    begin: Callable[..., Jobs], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A service that hangs for longer than its claim holds is not waited for."""
    monkeypatch.setattr(jobs_module, "LEASE_SECONDS", 0.1)
    monkeypatch.setattr(Jobs, "_renew", lambda self: not self._stopped.wait(0.1))
    working, go_on = threading.Event(), threading.Event()

    def hang(_: str) -> Result:
        working.set()
        go_on.wait(20)
        return {"problem": "late", "by": "slow"}

    slow = begin(hang)
    job = slow.submit(PICTURES, {"library": None})
    assert working.wait(20)
    quick = begin(lambda _: {"by": "quick"})
    assert ended(quick, job)["done"] == 2
    go_on.set()
    slow.close()
    state = quick.get(job)
    assert (state["state"], state["done"], state["problems"]) == ("done", 2, 0)
    assert [json.loads(line)["by"] for line in quick.results(job)] == ["quick", "quick"]


@pytest.mark.parametrize("lease_seconds", [-1, 0.3, 1e6], ids=["over", "soon over", "wrong clock"])
def test_what_a_killed_service_had_claimed_is_done(
    begin: Callable[..., Jobs], tmp_path: Path, lease_seconds: float
) -> None:
    waiting = threading.Event()
    first = begin(lambda _: {"waited": waiting.wait(20)})
    job = first.submit(PICTURES, {"library": None})
    first._stopped.set()
    waiting.set()
    first.close()
    with sqlite3.connect(tmp_path / "jobs" / "jobs.sqlite") as file:
        file.execute("UPDATE jobs SET state = 'running', ended = NULL")
        file.execute("UPDATE pictures SET result = NULL, owner = 'killed', lease = ?",
                     (time.time() + lease_seconds,))  # fmt: skip
    file.close()
    jobs = begin(lambda _: {})
    assert ended(jobs, job)["done"] == 2
    assert len(list(jobs.results(job))) == 2


def test_a_picture_that_kills_each_service_is_given_up(
    begin: Callable[..., Jobs], tmp_path: Path
) -> None:
    began, over = threading.Event(), threading.Event()

    def never_ends(library: str) -> Result:
        began.set()
        over.wait(60)
        return {}

    killed = begin(never_ends)
    job = killed.submit(PICTURES, {"library": "nuts"})
    assert began.wait(10)
    killed.close(0)  # its thread sleeps on: what a killed one had claimed stays claimed
    with sqlite3.connect(tmp_path / "jobs" / "jobs.sqlite", timeout=20) as file:
        file.execute("UPDATE pictures SET lease = 0, lost = ? WHERE position = 0",
                     (jobs_module.MOST_LOST - 1,))  # fmt: skip
    following = begin(lambda library: {"detections": []})
    assert ended(following, job)["problems"] == 1
    first, second = map(json.loads, following.results(job))
    assert "a.png" in first["problem"]["detail"]
    assert "3 times" in first["problem"]["detail"]
    assert second == {"image": "b.png", "detections": []}
    over.set()


def test_a_database_of_the_first_version_goes_on(
    begin: Callable[..., Jobs], tmp_path: Path
) -> None:
    (tmp_path / "jobs").mkdir()
    file = sqlite3.connect(tmp_path / "jobs" / "jobs.sqlite")
    file.executescript(
        "CREATE TABLE jobs (id TEXT PRIMARY KEY, made REAL NOT NULL, ended REAL, state TEXT NOT "
        "NULL, options TEXT NOT NULL, total INTEGER NOT NULL, done INTEGER NOT NULL DEFAULT 0, "
        "problems INTEGER NOT NULL DEFAULT 0);"
        "CREATE TABLE pictures (job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE, "
        "position INTEGER NOT NULL, name TEXT NOT NULL, path TEXT NOT NULL, result TEXT, "
        "PRIMARY KEY (job, position)) WITHOUT ROWID;"
        "INSERT INTO jobs VALUES ('a', 1, NULL, 'running', '{\"library\": null}', 3, 2, 0);"
        "INSERT INTO pictures VALUES ('a', 0, '0', '0', '{\"image\": 0}'), "
        "('a', 1, '1', '1', NULL), ('a', 2, '2', '2', NULL);"
    )
    file.close()
    jobs = begin(lambda _: {})
    assert ended(jobs, "a")["done"] == 3
    assert len(list(jobs.results("a"))) == 3
