"""What users of the annotation page did, in order, so that all of it can be undone and redone.

A change is a list of steps, each in one picture. It is written before the library is changed, and
marked as done afterwards: a process that is killed in between leaves a change that
:meth:`Journal.begun` gives to the next one. What was drawn and deleted in a picture is nowhere
else: it is what the steps that are done say.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from sam_detect.errors import OutputError, one_line

StepKind = Literal["learn", "forget", "draw", "hide", "finish"]
FORMAT = 1
BUSY_SECONDS = 10
SCHEMA = """
CREATE TABLE IF NOT EXISTS changes (
    id INTEGER PRIMARY KEY AUTOINCREMENT, title TEXT NOT NULL, state TEXT NOT NULL
        CHECK (state IN ('begun', 'done', 'undone')));
CREATE TABLE IF NOT EXISTS steps (
    change INTEGER NOT NULL REFERENCES changes (id) ON DELETE CASCADE, position INTEGER NOT NULL,
    picture TEXT NOT NULL, kind TEXT NOT NULL, data TEXT NOT NULL,
    PRIMARY KEY (change, position)) WITHOUT ROWID;
CREATE INDEX IF NOT EXISTS steps_of_pictures ON steps (picture);
CREATE TABLE IF NOT EXISTS requests (
    key TEXT PRIMARY KEY, change INTEGER NOT NULL) WITHOUT ROWID;
"""
REQUESTS_KEPT = 10_000
"""How many of the last changes can be told from a request that comes again."""
_REQUEST: ContextVar[str | None] = ContextVar("request", default=None)


@dataclass(frozen=True)
class Step:
    """A part of a change.

    Attributes:
        picture: digest of the picture's pixels.
        kind: ``learn`` and ``forget`` change the library, the others what is shown.
        data: of ``learn`` and ``forget`` the ``items`` (``rle``, ``label``, ``negative``, ``id``),
            the learning ``batch``, and the ids that were ``new``; of ``draw`` and ``hide`` the
            ``rle`` of an outline, and whether it is now (``there``); of ``finish`` whether the
            picture is finished (``there``) and its ``name``.
    """

    picture: str
    kind: StepKind
    data: dict[str, Any]


@dataclass(frozen=True)
class Change:
    """What a user did at once.

    Attributes:
        id: later ones have higher ids.
        title: what it was, for people.
        steps: in their order.
    """

    id: int
    title: str
    steps: tuple[Step, ...]


class AlreadyDoneError(Exception):
    """A request came again, and its change was made before."""


class Journal:
    """The changes made to one library, in a file. Safe for several threads and processes.

    Args:
        path: of the file; it is made where it is not there. None: in memory.

    Raises:
        OutputError: the file cannot be written, or is something else.
    """

    def __init__(self, path: Path | None) -> None:
        # The order of locks: docs/architecture.md, "Which lock before which".
        self._lock = threading.RLock()
        try:
            if path is not None:
                path.parent.mkdir(parents=True, exist_ok=True)
            self._file = sqlite3.connect(
                path or ":memory:", timeout=BUSY_SECONDS, isolation_level=None,
                check_same_thread=False,
            )  # fmt: skip
            self._file.execute("PRAGMA journal_mode = WAL")
            self._file.execute("PRAGMA synchronous = FULL")
            self._file.execute("PRAGMA foreign_keys = ON")
            made_by = self._file.execute("PRAGMA user_version").fetchone()[0]
            if made_by not in (0, FORMAT):
                raise OutputError(f"{path} was made by a newer version of sam-detect: update it")
            self._file.executescript(SCHEMA)
            self._file.execute(f"PRAGMA user_version = {FORMAT}")
        except (sqlite3.Error, OSError) as error:
            raise OutputError(
                f"the journal {path} cannot be used ({one_line(error)}): move it away, or free "
                "its folder"
            ) from error

    def close(self) -> None:
        with self._lock:
            self._file.close()

    @property
    def version(self) -> tuple[int, int]:
        """Another one after each change, also of another process."""
        with self._lock:
            others = self._file.execute("PRAGMA data_version").fetchone()[0]
            return int(others), self._file.total_changes

    @contextmanager
    def asked_by(self, request: str | None) -> Iterator[None]:
        """While the block runs, the change that it begins is the one of this request."""
        before = _REQUEST.set(request)
        try:
            yield
        finally:
            _REQUEST.reset(before)

    def of_request(self, request: str | None) -> Change | None:
        """The change that was made for a request, also where it was undone since; None where there
        is none, or not yet."""
        with self._lock, closing(self._file.cursor()) as cursor:
            found = cursor.execute(
                "SELECT change FROM requests LEFT JOIN changes ON change = id "
                "WHERE key = ? AND state IS NOT 'begun'",
                (request,),
            ).fetchone()
            return Change(found[0], "", self._steps(found[0])) if found else None

    def begin(self, title: str, steps: Iterable[Step], *, done: bool = False) -> int:
        """Writes a change that is to be made; its id. What was undone can no longer be redone.

        Args:
            done: whether it is made by being written.

        Raises:
            OutputError: it cannot be written; nothing was changed.
            AlreadyDoneError: the request that asks for it came before.
        """
        request = _REQUEST.get()
        rows = [(s.picture, s.kind, json.dumps(s.data)) for s in steps]
        with self._writing():
            self._file.execute("DELETE FROM changes WHERE state = 'undone'")
            made = self._file.execute(
                "INSERT INTO changes (title, state) VALUES (?, ?)",
                (title, "done" if done else "begun"),
            ).lastrowid
            assert made is not None  # noqa: S101 - SQLite gives every new row an id
            if request is not None:
                self._note(request, made)
            self._file.executemany(
                "INSERT INTO steps VALUES (?, ?, ?, ?, ?)",
                [(made, position, *row) for position, row in enumerate(rows)],
            )
        return int(made)

    def _note(self, request: str, change: int) -> None:
        try:
            self._file.execute("INSERT INTO requests VALUES (?, ?)", (request, change))
        except sqlite3.IntegrityError as error:
            raise AlreadyDoneError(request) from error
        self._file.execute("DELETE FROM requests WHERE change <= ?", (change - REQUESTS_KEPT,))

    def begin_again(self, change: int, steps: Sequence[Step] | None = None) -> None:
        """Notes that a change is being undone or redone; takes and raises what :meth:`done` does.
        Nothing is to be changed where this cannot be written."""
        self._mark(change, "begun", steps)

    def done(self, change: int, steps: Sequence[Step] | None = None) -> None:
        """Marks a change as made.

        Args:
            steps: what its steps became, such as the new batch of what was learnt again.

        Raises:
            OutputError: it cannot be written; the change is what it was.
        """
        self._mark(change, "done", steps)

    def undone(self, change: int, steps: Sequence[Step] | None = None) -> None:
        """Marks a change as undone; takes and raises what :meth:`done` does."""
        self._mark(change, "undone", steps)

    def drop(self, change: int) -> None:
        """Forgets a change that was not made; raises as :meth:`done`."""
        with self._writing():
            self._file.execute("DELETE FROM requests WHERE change = ?", (change,))
            self._file.execute("DELETE FROM changes WHERE id = ?", (change,))

    def begun(self) -> list[Change]:
        """Changes that were begun and not ended, oldest first."""
        return self._changes("state = 'begun' ORDER BY id")

    def last_done(self) -> Change | None:
        """The change that is undone next."""
        return next(iter(self._changes("state = 'done' ORDER BY id DESC LIMIT 1")), None)

    def first_undone(self) -> Change | None:
        """The change that is redone next."""
        return next(iter(self._changes("state = 'undone' ORDER BY id LIMIT 1")), None)

    def steps_of(self, picture: str) -> list[Step]:
        """The steps in a picture that are done, oldest first."""
        with self._lock, closing(self._file.cursor()) as cursor:
            rows = cursor.execute(
                "SELECT picture, kind, data FROM steps JOIN changes ON change = id "
                "WHERE picture = ? AND state = 'done' ORDER BY id, position",
                (picture,),
            ).fetchall()
        return [Step(digest, kind, json.loads(data)) for digest, kind, data in rows]

    def finished(self) -> dict[str, str]:
        """``{digest: name}`` of the pictures that are finished."""
        with self._lock, closing(self._file.cursor()) as cursor:
            rows = cursor.execute(
                "SELECT picture, data FROM steps JOIN changes ON change = id "
                "WHERE kind = 'finish' AND state = 'done' ORDER BY id, position"
            ).fetchall()
        last = {digest: json.loads(data) for digest, data in rows}
        return {digest: str(data["name"]) for digest, data in last.items() if data["there"]}

    def _mark(self, change: int, state: str, steps: Sequence[Step] | None) -> None:
        with self._writing():
            for position, step in enumerate(steps or ()):
                self._file.execute(
                    "UPDATE steps SET data = ? WHERE change = ? AND position = ?",
                    (json.dumps(step.data), change, position),
                )
            self._file.execute("UPDATE changes SET state = ? WHERE id = ?", (state, change))

    def _changes(self, which: str) -> list[Change]:
        with self._lock, closing(self._file.cursor()) as cursor:
            found = cursor.execute(
                f"SELECT id, title FROM changes WHERE {which}"  # noqa: S608 - a constant above
            ).fetchall()
            return [Change(key, title, self._steps(key)) for key, title in found]

    def _steps(self, change: int) -> tuple[Step, ...]:
        rows = self._file.execute(
            "SELECT picture, kind, data FROM steps WHERE change = ? ORDER BY position", (change,)
        ).fetchall()
        return tuple(Step(digest, kind, json.loads(data)) for digest, kind, data in rows)

    @contextmanager
    def _writing(self) -> Iterator[None]:
        """All that is written in it, or nothing; raises ``OutputError`` where that fails."""
        with self._lock:
            try:
                self._file.execute("BEGIN IMMEDIATE")
                yield
                self._file.execute("COMMIT")
            except sqlite3.Error as error:
                raise OutputError(
                    f"the page's journal cannot be written ({one_line(error)}): free some space, "
                    "then try again; what was saved is kept"
                ) from error
            finally:
                if self._file.in_transaction:
                    self._file.execute("ROLLBACK")
