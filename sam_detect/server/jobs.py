"""Batches of pictures that are worked on in the background, and survive a restart.

What a job is, and each of its results, is in a database on disk, which several services may share.
A service claims a picture before it works on it, for a time that it renews: the picture of one that
was killed is free again after that. Only the first result of a picture is stored, and what is done
is counted from the results: no picture is left out, and none has two.
"""

from __future__ import annotations

import json
import os
import secrets
import shutil
import sqlite3
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

from sam_detect.errors import (
    ConfigError,
    ImageError,
    LibraryBusyError,
    NotFoundError,
    OutputError,
    SamDetectError,
    StoreError,
    one_line,
)
from sam_detect.io import find_images
from sam_detect.server.hidden_paths import called, reason_of
from sam_detect.server.http import problem_of
from sam_detect.server.requests_log import log
from sam_detect.server.uploads import Upload, shown_name
from sam_detect.server.warned import heard
from sam_detect.server.work import BusyError, FullError, LastingThread

MOST_UNFINISHED = 100
MOST_PICTURES = 100_000
KEPT_SECONDS = 7 * 24 * 3600
"""Jobs that ended are removed after so long."""
PAUSE_SECONDS, MOST_PAUSES = 1.0, 256
"""How long a job waits that failed for now: twice as long each time, up to so many pauses."""
LEASE_SECONDS = 10.0
"""How long a claim holds that is not renewed."""
MOST_LOST = 3
"""A picture that was in work each time when so many services were killed is not tried again."""
FOR_NOW = (BusyError, LibraryBusyError, StoreError, OutputError, OSError)
"""The library is busy, the disk is full, or the service ends: later it may go well."""
ENDED = ("done", "cancelled")
SCHEMA = """
CREATE TABLE IF NOT EXISTS jobs (
    id TEXT PRIMARY KEY, made REAL NOT NULL, ended REAL, state TEXT NOT NULL,
    options TEXT NOT NULL, total INTEGER NOT NULL, done INTEGER NOT NULL DEFAULT 0,
    problems INTEGER NOT NULL DEFAULT 0);
CREATE TABLE IF NOT EXISTS pictures (
    job TEXT NOT NULL REFERENCES jobs (id) ON DELETE CASCADE, position INTEGER NOT NULL,
    name TEXT NOT NULL, path TEXT NOT NULL, result TEXT, PRIMARY KEY (job, position)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS unfinished ON pictures (job, position) WHERE result IS NULL;
"""
ADDED = (
    "jobs ADD library TEXT", "jobs ADD later REAL NOT NULL DEFAULT 0", "jobs ADD reason TEXT",
    "jobs ADD failures INTEGER NOT NULL DEFAULT 0", "pictures ADD owner TEXT",
    "pictures ADD lease REAL NOT NULL DEFAULT 0", "pictures ADD lost INTEGER NOT NULL DEFAULT 0",
    "jobs ADD warnings TEXT NOT NULL DEFAULT '[]'",
)  # fmt: skip
"""Columns that databases of the first version do not have."""
COLUMNS = ("id", "state", "total", "done", "problems", "made", "reason", "warnings")
DONE = "total - (SELECT count(*) FROM pictures WHERE job = id AND result IS NULL)"
OURS = "ended IS NULL AND (library IS NULL OR library = ?)"

Detect = Callable[[Upload, dict[str, Any]], dict[str, Any]]


class Jobs:
    """The jobs of a service, and the thread that works on them. Safe for several threads, and for
    several services with one folder.

    Args:
        folder: where they are kept.
        detect: gives the result of a picture; a picture that cannot be read has a ``problem``.
            What it raises of :data:`FOR_NOW` is tried again later; anything else is the picture's
            problem, so that no job holds up the others for ever.
        root: folders of pictures may be named that lie in this one; None: none may.
        library: of the service; only services of the same one work on its jobs.

    Raises:
        OutputError: the folder cannot be written.
    """

    def __init__(
        self, folder: Path, detect: Detect, root: Path | None = None, library: str = ""
    ) -> None:
        self._folder, self._detect, self._library = folder, detect, library
        self._owner, self._claimed = secrets.token_hex(8), ("", 0, 0)
        self._root = None if root is None else root.resolve()
        self._lock = threading.RLock()
        self._changed, self._stopped = threading.Event(), threading.Event()
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(
                folder / "jobs.sqlite", isolation_level=None, check_same_thread=False, timeout=10
            )
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = FULL")
            self._file.execute("PRAGMA foreign_keys = ON")
            self._file.executescript(SCHEMA)
            for column in ADDED:
                with suppress(sqlite3.OperationalError):  # it is there
                    self._file.execute(f"ALTER TABLE {column}")
        except (OSError, sqlite3.Error) as error:
            raise OutputError(f"jobs cannot be kept in {folder}: {one_line(error)}") from error
        self._thread = LastingThread("jobs", self._step)
        self._renewing = LastingThread("claims", self._renew)

    @property
    def well(self) -> bool:
        """Whether its threads work."""
        return self._thread.well and self._renewing.well

    def close(self, seconds: float = 10) -> None:
        """Ends after the picture in work; the rest is done after the next start."""
        self._stopped.set()
        self._changed.set()
        self._thread.join(seconds)

    # -- what users ask ----------------------------------------------------------------------

    def submit(self, pictures: Sequence[tuple[str, bytes]], options: dict[str, Any]) -> str:
        """A job of pictures that were sent, names and contents; its id.

        Raises:
            FullError: too many jobs are unfinished.
            OutputError: the pictures, or the job, cannot be kept; nothing is left of them.
        """
        self._require_room()
        job = secrets.token_hex(8)
        place = self._folder / job
        try:
            place.mkdir()
            named = []
            for index, (name, data) in enumerate(pictures):
                path = place / str(index)
                with path.open("wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                named.append((shown_name(name, index), str(path)))
            return self._add(job, named, options)
        except OSError as error:
            self._discard_pictures(job)
            raise OutputError(f"the pictures cannot be kept: {reason_of(error)}") from error
        except OutputError:
            self._discard_pictures(job)
            raise

    def submit_folder(self, folder: str, options: dict[str, Any]) -> str:
        """A job of the pictures in a folder below the root; its id.

        Raises:
            ConfigError: there is no root, or the folder is not in it.
            ImageError: no picture is there.
            FullError: too many jobs are unfinished.
            OutputError: the job cannot be kept.
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
        named = [
            (str(path.relative_to(place)).encode("utf-8", "replace").decode(), os.fsencode(path))
            for path in inside
        ]
        return self._add(secrets.token_hex(8), named, options, said)

    def get(self, job: str) -> dict[str, Any]:
        """A job's state, and how far it is; raises ``NotFoundError`` where there is none."""
        found = self._rows("WHERE id = ?", (job,))
        if not found:
            raise NotFoundError(f"there is no job '{job[:40]}'")
        return found[0]

    def all(self, limit: int) -> list[dict[str, Any]]:
        """The newest jobs, newest first."""
        return self._rows("ORDER BY made DESC LIMIT ?", (limit,))

    def results(self, job: str, start: int = 0) -> Iterator[str]:
        """The results so far, from one position on, as JSON, in the order of the pictures."""
        self.get(job)
        while True:
            with self._lock:
                row = self._sql(
                    "SELECT result FROM pictures WHERE job = ? AND position = ?", job, start
                ).fetchone()
            if row is None or row[0] is None:
                return
            yield str(row[0])
            start += 1

    def cancel(self, job: str) -> dict[str, Any]:
        """Ends a job after the picture in work, and removes one that has ended; its last state."""
        with self._lock:
            found = self.get(job)
            if found["state"] in ENDED:
                self._remove([job])
                return {**found, "state": "removed"}
            with self._transaction():
                self._sql(
                    "UPDATE jobs SET state = 'cancelled', ended = ? WHERE id = ? AND ended IS NULL",
                    time.time(), job,
                )  # fmt: skip
        self._discard_pictures(job)
        return self.get(job)

    # -- inside ------------------------------------------------------------------------------

    def _add(
        self, job: str, named: Iterable[tuple[str, str | bytes]], options: dict[str, Any],
        said: Sequence[str] = (),
    ) -> str:  # fmt: skip
        rows = [(job, position, *each) for position, each in enumerate(named)]
        with self._lock, self._transaction():
            self._sql(
                "INSERT INTO jobs (id, made, state, options, total, library, warnings) "
                "VALUES (?, ?, 'waiting', ?, ?, ?, ?)",
                job, time.time(), json.dumps(options), len(rows), self._library, json.dumps(said),
            )  # fmt: skip
            self._file.executemany(
                "INSERT INTO pictures (job, position, name, path) VALUES (?, ?, ?, ?)", rows
            )
        self._changed.set()
        return job

    def _require_room(self) -> None:
        with self._lock:
            old = self._sql("SELECT id FROM jobs WHERE ended < ?", time.time() - KEPT_SECONDS)
            self._remove([job for (job,) in old.fetchall()])
            counted = self._sql(f"SELECT count(*) FROM jobs WHERE {OURS}", self._library)  # noqa: S608
            [unfinished] = counted.fetchone()
        if unfinished >= MOST_UNFINISHED:
            raise FullError(f"{unfinished} jobs are unfinished: wait until some are done", 30)

    def _rows(self, which: str, values: tuple[Any, ...]) -> list[dict[str, Any]]:
        with self._lock:
            what = f"id, state, total, {DONE}, problems, made, reason, warnings"
            found = self._sql(f"SELECT {what} FROM jobs {which}", *values).fetchall()  # noqa: S608
        rows = [dict(zip(COLUMNS, row, strict=True)) for row in found]
        return [{**each, "warnings": json.loads(each["warnings"])} for each in rows]

    def _step(self) -> bool:
        if not self._next():
            self._changed.wait(PAUSE_SECONDS)
            self._changed.clear()
        return not self._stopped.is_set()

    def _next(self) -> bool:
        """Works on one picture of the oldest job that does not wait; false where there is none."""
        claimed = self._claim()
        if claimed is None:
            return False
        job, position, options, upload, lost = claimed
        try:
            if lost >= MOST_LOST:
                raise ImageError(
                    f"{upload.name}: the service was killed {lost} times while it was in work"
                )
            result = self._detect(upload, options)
        except FOR_NOW as error:
            self._wait(job, position, problem_of(error)["detail"])
            return True
        except Exception as error:
            if not isinstance(error, (SamDetectError, MemoryError)):
                log("error", job=job, error=f"{type(error).__name__}: {error}")
            result = {"image": upload.name, "problem": problem_of(error)}
        self._store(job, position, result)
        return True

    def _claim(self) -> tuple[str, int, dict[str, Any], Upload, int] | None:
        """What is next: job, position, options, picture, and how many services it has ended."""
        with self._lock, self._transaction():
            now = time.time()
            which = f"{OURS} AND later <= ? ORDER BY made"
            found = self._sql(f"SELECT id, options FROM jobs WHERE {which}", self._library, now)  # noqa: S608
            for job, options in found.fetchall():
                # What this process claimed before, it does not work on any more. A lease that ends
                # too late is of a clock that was wrong.
                row = self._sql(
                    "SELECT position, name, path, lost + (owner IS NOT NULL AND owner != ?) "
                    "FROM pictures WHERE job = ? AND result IS NULL "
                    "AND (owner IS NULL OR owner = ? OR lease NOT BETWEEN ? AND ?) "
                    "ORDER BY position LIMIT 1",
                    self._owner, job, self._owner, now, now + 2 * LEASE_SECONDS,
                ).fetchone()  # fmt: skip
                if row is not None:
                    self._hold(job, row[0], row[3])
                    self._sql("UPDATE jobs SET state = 'running' WHERE id = ?", job)
                    upload = Upload(row[1], os.fsdecode(row[2]))
                    return job, row[0], json.loads(options), upload, row[3]
        return None

    def _hold(self, job: str, position: int, lost: int) -> None:
        self._claimed = job, position, lost
        claim = "UPDATE pictures SET owner = ?, lease = ?, lost = ? WHERE job = ? AND position = ?"
        self._sql(claim, self._owner, time.time() + LEASE_SECONDS, lost, job, position)

    def _renew(self) -> bool:
        with self._lock:
            if self._claimed[0]:
                with self._transaction():
                    self._hold(*self._claimed)
        return not self._stopped.wait(LEASE_SECONDS / 3)

    def _wait(self, job: str, position: int, reason: str) -> None:
        """Leaves a job for later; others go first meanwhile."""
        with self._lock, self._transaction():
            self._claimed = "", 0, 0
            free = "UPDATE pictures SET owner = NULL WHERE job = ? AND position = ? AND owner = ?"
            self._sql(free, job, position, self._owner)
            self._sql(
                "UPDATE jobs SET reason = ?, failures = failures + 1, "
                "later = ? + ? * min(1 << min(failures, 30), ?) WHERE id = ?",
                reason, time.time(), PAUSE_SECONDS, MOST_PAUSES, job,
            )  # fmt: skip

    def _store(self, job: str, position: int, result: dict[str, Any]) -> None:
        """Stores a result, unless another service was first or the job has ended."""
        with self._lock, self._transaction():
            self._claimed = "", 0, 0
            stored = self._sql(
                "UPDATE pictures SET result = ? WHERE job = ? AND position = ? AND result IS NULL "
                "AND job IN (SELECT id FROM jobs WHERE ended IS NULL)",
                json.dumps(result), job, position,
            ).rowcount  # fmt: skip
            if stored:
                more = "UPDATE jobs SET problems = problems + ?, failures = 0, reason = NULL"
                self._sql(f"{more} WHERE id = ?", "problem" in result, job)
            end = f"UPDATE jobs SET state = 'done', ended = ? WHERE id = ? AND {DONE} = total"  # noqa: S608
            ended = stored and self._sql(end, time.time(), job).rowcount
        if ended:
            self._discard_pictures(job)

    def _remove(self, jobs: Sequence[str]) -> None:
        for job in jobs:
            with self._transaction():
                self._sql("DELETE FROM jobs WHERE id = ?", job)
            self._discard_pictures(job)

    def _discard_pictures(self, job: str) -> None:
        """Removes the pictures that were sent; those of a folder are not ours."""
        shutil.rmtree(self._folder / job, ignore_errors=True)

    def _sql(self, text: str, *values: Any) -> sqlite3.Cursor:
        return self._file.execute(text, values)

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """All that is written in it, or nothing; raises ``OutputError`` where that fails."""
        try:
            self._file.execute("BEGIN IMMEDIATE")
            yield
            self._file.execute("COMMIT")
        except sqlite3.Error as error:
            raise OutputError(f"the jobs cannot be kept: {one_line(error)}") from error
        finally:
            if self._file.in_transaction:
                self._file.execute("ROLLBACK")
