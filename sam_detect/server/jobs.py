"""Batches of pictures that are worked on in the background, and survive a restart.

What a job is, and each of its results, is in a database on disk. A result and the step to the next
picture are written together, so a process that is killed goes on where it was: no picture is left
out, and none has two results.
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
    LibraryBusyError,
    NotFoundError,
    OutputError,
    SamDetectError,
    StoreError,
    one_line,
)
from sam_detect.server.hidden_paths import reason_of
from sam_detect.server.http import problem_of
from sam_detect.server.uploads import Upload, shown_name
from sam_detect.server.work import BusyError, FullError
from sam_detect.sources import find_images

MOST_UNFINISHED = 100
MOST_PICTURES = 100_000
KEPT_SECONDS = 7 * 24 * 3600
"""Jobs that ended are removed after so long."""
PAUSE_SECONDS = 1.0
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
"""

Detect = Callable[[Upload, dict[str, Any]], dict[str, Any]]


class Jobs:
    """The jobs of a service, and the thread that works on them. Safe for several threads.

    Args:
        folder: where they are kept.
        detect: gives the result of a picture; a picture that cannot be read has a ``problem``.
            What it raises of :data:`FOR_NOW` is tried again later; anything else is the picture's
            problem, so that no job holds up the others for ever.
        root: folders of pictures may be named that lie in this one; None: none may.

    Raises:
        OutputError: the folder cannot be written.
    """

    def __init__(self, folder: Path, detect: Detect, root: Path | None = None) -> None:
        self._folder, self._detect = folder, detect
        self._root = None if root is None else root.resolve()
        self._lock = threading.RLock()
        self._changed = threading.Event()
        self._stopped = False
        try:
            folder.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(
                folder / "jobs.sqlite", isolation_level=None, check_same_thread=False, timeout=10
            )
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = FULL")
            self._file.execute("PRAGMA foreign_keys = ON")
            self._file.executescript(SCHEMA)
        except (OSError, sqlite3.Error) as error:
            raise OutputError(f"jobs cannot be kept in {folder}: {one_line(error)}") from error
        self._thread = threading.Thread(target=self._run, daemon=True, name="jobs")
        self._thread.start()

    def close(self, seconds: float = 10) -> None:
        """Ends after the picture in work; the rest is done after the next start."""
        self._stopped = True
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
        found = [Path(path) for path in find_images(str(place))]
        inside = [path for path in found if path.resolve().is_relative_to(self._root)]
        if not inside or len(inside) > MOST_PICTURES:
            raise ConfigError(
                f"'{folder}' has {len(inside)} pictures: 1 to {MOST_PICTURES} are taken"
            )
        named = [
            (str(path.relative_to(place)).encode("utf-8", "replace").decode(), os.fsencode(path))
            for path in inside
        ]
        return self._add(secrets.token_hex(8), named, options)

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
                row = self._file.execute(
                    "SELECT result FROM pictures WHERE job = ? AND position = ?", (job, start)
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
                self._file.execute(
                    "UPDATE jobs SET state = 'cancelled', ended = ? WHERE id = ?",
                    (time.time(), job),
                )
        self._discard_pictures(job)
        return self.get(job)

    # -- inside ------------------------------------------------------------------------------

    def _add(
        self, job: str, named: Iterable[tuple[str, str | bytes]], options: dict[str, Any]
    ) -> str:
        rows = [(job, position, *each) for position, each in enumerate(named)]
        with self._lock, self._transaction():
            self._file.execute(
                "INSERT INTO jobs (id, made, state, options, total) VALUES (?, ?, 'waiting', ?, ?)",
                (job, time.time(), json.dumps(options), len(rows)),
            )
            self._file.executemany(
                "INSERT INTO pictures (job, position, name, path) VALUES (?, ?, ?, ?)", rows
            )
        self._changed.set()
        return job

    def _require_room(self) -> None:
        with self._lock:
            old = self._file.execute(
                "SELECT id FROM jobs WHERE ended < ?", (time.time() - KEPT_SECONDS,)
            ).fetchall()
            self._remove([job for (job,) in old])
            unfinished = self._file.execute(
                "SELECT count(*) FROM jobs WHERE ended IS NULL"
            ).fetchone()[0]
        if unfinished >= MOST_UNFINISHED:
            raise FullError(f"{unfinished} jobs are unfinished: wait until some are done", 30)

    def _rows(self, which: str, values: tuple[Any, ...]) -> list[dict[str, Any]]:
        with self._lock:
            found = self._file.execute(
                f"SELECT id, state, total, done, problems, made FROM jobs {which}",  # noqa: S608
                values,
            ).fetchall()
        names = ("id", "state", "total", "done", "problems", "made")
        return [dict(zip(names, row, strict=True)) for row in found]

    def _run(self) -> None:
        while not self._stopped:
            going = False
            with suppress(OutputError, sqlite3.Error):  # the disk is full, perhaps: later
                going = self._next()
            if not going:
                self._changed.wait(PAUSE_SECONDS)
                self._changed.clear()

    def _next(self) -> bool:
        """Works on one picture of the oldest job; false where there is none, or it failed."""
        with self._lock:
            row = self._file.execute(
                "SELECT id, options, position, name, path FROM jobs JOIN pictures ON job = id "
                "AND position = done WHERE ended IS NULL ORDER BY made LIMIT 1"
            ).fetchone()
            if row is None:
                return False
            job, options, position, name, path = row
            with self._transaction():
                self._file.execute("UPDATE jobs SET state = 'running' WHERE id = ?", (job,))
        try:
            result = self._detect(Upload(name, os.fsdecode(path)), json.loads(options))
        except FOR_NOW:
            return False
        except (SamDetectError, MemoryError) as error:
            result = {"image": name, "problem": problem_of(error)}
        with self._lock, self._transaction():
            self._file.execute(
                "UPDATE pictures SET result = ? WHERE job = ? AND position = ?",
                (json.dumps(result), job, position),
            )
            self._file.execute(
                "UPDATE jobs SET done = done + 1, problems = problems + ? WHERE id = ?",
                ("problem" in result, job),
            )
            self._file.execute(
                "UPDATE jobs SET state = 'done', ended = ? WHERE id = ? AND done = total "
                "AND ended IS NULL",
                (time.time(), job),
            )
        if self.get(job)["state"] in ENDED:
            self._discard_pictures(job)
        return True

    def _remove(self, jobs: Sequence[str]) -> None:
        for job in jobs:
            with self._transaction():
                self._file.execute("DELETE FROM jobs WHERE id = ?", (job,))
            self._discard_pictures(job)

    def _discard_pictures(self, job: str) -> None:
        """Removes the pictures that were sent; those of a folder are not ours."""
        shutil.rmtree(self._folder / job, ignore_errors=True)

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
