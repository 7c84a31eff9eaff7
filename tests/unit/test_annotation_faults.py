"""A disk that is full, and a process that is killed, at each write of each change: what users did
is then made or not made, never a part of it, and the library and the journal agree."""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from sam_detect.api import SAMDetect
from sam_detect.errors import SamDetectError, StoreError
from sam_detect.server import editing
from sam_detect.server.annotation import AnnotationSession
from sam_detect.server.journal import Journal
from tests.integration.page_harness import draw_photos
from tests.unit.test_annotation_session import nut, state, stroke

WRITES = ("upsert", "delete", "write_manifest")
MOST_WRITES = 40


class KilledError(BaseException):
    """Stands for a process that is killed: nothing is written afterwards."""


class Writes:
    """Counts what a session writes, and lets it fail from one write on.

    Args:
        session: whose journal and library are watched.
        killed: whether the process ends there, instead of going on with a full disk.
    """

    def __init__(self, session: AnnotationSession, *, killed: bool) -> None:
        self.left, self._killed = MOST_WRITES, killed
        self._journal = session.journal._file
        session.journal._file = self  # type: ignore[assignment]
        store = session.detector.library.store
        for name in WRITES:
            setattr(store, name, self._counted(getattr(store, name)))

    def _count(self, full: Exception) -> None:
        self.left -= 1
        if self.left < 0:
            raise KilledError if self._killed else full

    def _counted(self, write: Callable[..., None]) -> Callable[..., None]:
        def counted(*arguments: Any) -> None:
            self._count(StoreError("the disk of the library is full"))
            write(*arguments)

        return counted

    def execute(self, statement: str, *values: Any) -> sqlite3.Cursor:
        if statement == "COMMIT":
            self._count(sqlite3.OperationalError("database or disk is full"))
        return self._journal.execute(statement, *values)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._journal, name)


Start = Callable[[str], AnnotationSession]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Begins a session with the library and the journal of a name, as a process does."""
    monkeypatch.setenv("SAM_DETECT_HOME", str(tmp_path / "home"))
    draw_photos(tmp_path / "photos")

    def begin(name: str) -> AnnotationSession:
        detector = SAMDetect("naive", "appearance", library=name)
        journal = Journal(tmp_path / f"{name}.sqlite")
        return AnnotationSession(detector, [str(tmp_path / "photos")], journal)

    return begin


def prepared(session: AnnotationSession) -> None:
    """Two nuts that are named, and an outline that is drawn and named."""
    ids = [nut(session.objects(0), number).id for number in range(2)]
    session.name(0, ids, "nut")
    session.draw(0, stroke((120, 200), (150, 200)), "stroke")


def drawn(session: AnnotationSession) -> str:
    return next(each.id for each in session.objects(0) if each.drawn)


def name(session: AnnotationSession) -> None:
    objects = session.objects(0)
    session.name(0, [nut(objects, 1).id, nut(objects, 2).id], "date")


def delete(session: AnnotationSession) -> None:
    session.delete(0, [nut(session.objects(0), 0).id, drawn(session)])


def edit(session: AnnotationSession) -> None:
    mended = editing.brush(session.outline(0, drawn(session)), [(150, 200)], 6, erase=True)
    session.replace(0, [drawn(session)], mended)


def finish(session: AnnotationSession) -> None:
    session.finish(0)


QUICK = {"do": name, "undo": finish, "redo": delete}
"""Of each way the change that is always tried; the others take long."""


@pytest.mark.parametrize(
    ("change", "way", "killed"),
    [
        pytest.param(change, way, killed, marks=() if change is QUICK[way] else pytest.mark.slow)
        for change in (name, delete, edit, finish)
        for way in QUICK
        for killed in (False, True)
    ],
)
def test_a_change_is_made_or_not_whichever_write_fails(
    start: Start, change: Callable[[AnnotationSession], None], way: str, *, killed: bool
) -> None:
    states: list[Any] = []
    for failing in range(MOST_WRITES):
        library = f"lib{failing}"
        session = start(library)
        prepared(session)
        acts = [change, AnnotationSession.undo, AnnotationSession.redo]
        act = acts[["do", "undo", "redo"].index(way)]
        for each in acts[: acts.index(act)]:
            each(session)
        before = state(session)
        writes = Writes(session, killed=killed)
        writes.left = failing
        try:
            act(session)
        except (SamDetectError, KilledError):
            pass
        else:
            break
        writes.left = MOST_WRITES
        if killed:
            session = start(library)
        # What is done next works as always.
        session.finish(1)
        assert session.undo().title == "finish 1.png"
        states += [before, state(session)]
        assert state(start(library)) == states[-1]
        while session.undoable["undo"]:
            session.undo()
        assert state(session) == [(), 0, ()], f"write {failing}"
    else:
        pytest.fail("it wrote for ever")
    assert failing >= (1 if change is finish else 3), "each of its writes failed once"
    after = state(session)
    assert all(each in (before, after) for each in states)
