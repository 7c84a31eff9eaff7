"""Work that is done before a user asks for it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from sam_detect.api import SAMDetect
from sam_detect.pipeline import tiling
from sam_detect.server.ahead import WorkAhead
from sam_detect.server.annotation import AnnotationSession
from sam_detect.server.survey import Survey
from tests.integration.page_harness import draw_photos
from tests.library_helpers import annotation_session

PATIENCE_S = 120


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AnnotationSession]:
    monkeypatch.setenv("SAM_DETECT_HOME", str(tmp_path / "home"))
    with annotation_session(draw_photos(tmp_path / "photos", count=5)) as made:
        yield made


@pytest.fixture
def survey() -> Survey:
    return Survey()


@pytest.fixture
def ahead(session: AnnotationSession, survey: Survey) -> Iterator[WorkAhead]:
    working = WorkAhead(session, survey, session.after)
    working.start()
    yield working
    working.stop()
    working.join(60)


def show(ahead: WorkAhead, session: AnnotationSession, picture: int) -> None:
    with ahead.waiting(picture):
        session.objects(picture)


def until(holds: Callable[[], bool]) -> None:
    end = time.monotonic() + PATIENCE_S
    while not holds():
        assert time.monotonic() < end
        time.sleep(0.02)


def test_the_next_pictures_are_open_and_named_and_all_are_surveyed(
    session: AnnotationSession, survey: Survey, ahead: WorkAhead
) -> None:
    pictures = session.pictures
    show(ahead, session, 0)
    until(lambda: {1, 2, 3, 4} <= set(survey.all()))
    assert [number for number in range(5) if pictures.is_open(number)] == [0, 1, 2]
    assert session.is_named(1)
    with ahead.waiting(0):
        first = session.objects(0)
        session.name(0, [first[0].id], "nut")
        assert not session.is_named(1)
        time.sleep(1)
        assert not session.is_named(1)  # nothing begins while a user waits
    until(lambda: session.is_named(1) and session.is_named(2))
    # Proposals and what is known of all others follow what was learnt.
    learnt = session.detector.library.generation
    until(lambda: {each.generation for each in survey.all().values()} == {learnt})
    assert not any(pictures.is_open_before(number, learnt) for number in (0, 1, 2))
    assert [number for number in range(5) if pictures.is_open(number)] == [0, 1, 2]


def test_the_first_name_in_a_picture_waits_for_no_proposals(
    session: AnnotationSession, survey: Survey, ahead: WorkAhead, monkeypatch: pytest.MonkeyPatch
) -> None:
    show(ahead, session, 0)
    until(lambda: {0, 1, 2} <= set(survey.all()))
    with ahead.waiting(0):
        monkeypatch.setattr(tiling, "propose", lambda *_, **__: pytest.fail("proposed again"))
        for picture in (0, 1):
            session.name(picture, [session.objects(picture)[0].id], "nut")
        monkeypatch.undo()


def test_a_picture_that_cannot_be_opened_is_said_and_the_others_go_on(
    session: AnnotationSession, survey: Survey, ahead: WorkAhead
) -> None:
    broken = Path(session.path(1))
    whole = broken.read_bytes()
    broken.write_bytes(whole[:60])
    show(ahead, session, 0)
    until(lambda: {2, 3, 4} <= set(survey.all()))
    assert list(ahead.problems) == [1]
    assert "1.png" in ahead.problems[1]
    broken.write_bytes(whole)
    show(ahead, session, 1)  # a user who asks for it has it tried again
    until(lambda: not ahead.problems and session.is_named(2))


def test_a_library_that_is_removed_meanwhile_does_not_end_it(
    session: AnnotationSession, survey: Survey, ahead: WorkAhead
) -> None:
    show(ahead, session, 0)
    with ahead.waiting(0):
        session.name(0, [session.objects(0)[0].id], "nut")
    until(lambda: session.is_named(1))
    SAMDetect("naive", "appearance", library="nuts").library.destroy()
    until(lambda: session.is_named(1))
    assert any(thread.name == "ahead" for thread in threading.enumerate())
    assert {each.label for each in session.objects(1)} == {None}


def test_who_holds_the_store_may_read_the_library_while_others_wait_for_it(
    session: AnnotationSession,
) -> None:
    """Two locks that were taken in another order once stopped the page for ever."""
    detector = session.detector
    session.name(0, [session.objects(0)[0].id], "nut")
    other = SAMDetect("naive", "appearance", library="nuts")
    read: list[str] = []
    waiting, holding = threading.Event(), threading.Event()

    def wait() -> None:
        holding.wait(PATIENCE_S)
        waiting.set()
        read.append(detector.snapshot().generation)

    def hold() -> None:
        with detector.library.store.session():
            detector.library.rename("nut", "date")  # so that the next one reads it anew
            holding.set()
            waiting.wait(PATIENCE_S)
            time.sleep(0.5)  # the other one has come to the store by now
            read.append(detector.snapshot().generation)

    threads = [threading.Thread(target=each, daemon=True) for each in (wait, hold)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(30)
    assert read == [other.snapshot().generation] * 2
