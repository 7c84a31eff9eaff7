"""What users decide on the annotation page: shown at once, durable, undone and redone."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path

import cv2
import numpy as np
import pytest
from starlette.testclient import TestClient

from sam_detect.api import SAMDetect
from sam_detect.errors import ImageError, LibraryError, NotFoundError, OutputError
from sam_detect.server import editing
from sam_detect.server.access import Access
from sam_detect.server.ahead import WorkAhead
from sam_detect.server.annotation import AnnotationSession, Named
from sam_detect.server.app import annotation_app
from sam_detect.server.changes import edited
from sam_detect.server.clicking import along_line
from sam_detect.server.journal import Journal, Step
from sam_detect.server.pictures import ShownObject
from sam_detect.server.survey import Survey
from sam_detect.types import Frame, Masks
from tests.integration.page_harness import HEIGHT, NUTS, SHIFT, WIDTH, draw_photos

Start = Callable[[], AnnotationSession]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Start:
    """Begins a session, as a process does: the same library, journal and folder each time."""
    monkeypatch.setenv("SAM_DETECT_HOME", str(tmp_path / "home"))
    draw_photos(tmp_path / "photos")
    journals: list[Journal] = []

    def begin() -> AnnotationSession:
        detector = SAMDetect("naive", "appearance", library="nuts")
        journals.append(Journal(tmp_path / "journal.sqlite"))
        return AnnotationSession(detector, [str(tmp_path / "photos")], journals[-1])

    return begin


def nut(found: list[ShownObject], number: int, picture: int = 0) -> ShownObject:
    """The smallest object around the middle of a nut."""
    x, y = NUTS[number][0] + SHIFT * picture, NUTS[number][1]
    around = [
        each for each in found
        if each.bbox_xywh[0] < x < each.bbox_xywh[0] + each.bbox_xywh[2]
        and each.bbox_xywh[1] < y < each.bbox_xywh[1] + each.bbox_xywh[3]
        and each.bbox_xywh[2] * each.bbox_xywh[3] > 900
    ]  # fmt: skip
    return min(around, key=lambda each: each.bbox_xywh[2] * each.bbox_xywh[3])


def stroke(*points: tuple[float, float], radius: float = 6) -> Masks:
    return editing.brush(Masks.empty((HEIGHT, WIDTH)), points, radius, erase=False)


def test_a_line_along_an_object_is_left_to_a_segmenter_that_draws_itself(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Three clicks on it say the same; else the picture decides, around what has a name."""
    session, (x, y) = start(), NUTS[1]
    opened, pipeline = session.opened(0), session.detector.pipeline
    line = [(x - 20, y), (x + 20, y)]
    usual = along_line(pipeline, opened, line)
    assert usual.dense(0).sum() == pytest.approx(np.pi * 20**2, rel=0.1)
    asked: list[object] = []

    def segment_clicks(
        self: object, frame: Frame, clicks_xy: object, positive: object, box_xywh: object = None
    ) -> Masks:
        asked.append((np.asarray(clicks_xy).tolist(), np.asarray(positive).tolist(), box_xywh))
        return stroke((9, 9))

    kind = type(pipeline.segmenter)
    monkeypatch.setattr(kind, "segment_clicks", segment_clicks, raising=False)
    assert along_line(pipeline, opened, line).crop_rles == stroke((9, 9)).crop_rles
    assert asked == [([[x, y], [x - 10, y], [x + 10, y]], [True] * 3, None)]


def state(session: AnnotationSession, picture: int = 0) -> list[tuple[object, ...]]:
    """What users did, as a page shows it, and what the library has. What is only suggested depends
    on the proposals, which the next process makes with more examples."""
    shown = sorted(
        (o.id, o.label if o.taught else None, o.taught, o.drawn)
        for o in session.objects(picture)
        if o.taught or o.drawn
    )
    library = session.detector.library
    examples = [str(p.id) for p in library.listing()] if library.manifest() else []
    opened = session.opened(picture)
    hidden = edited(session.journal.steps_of(opened.digest), (HEIGHT, WIDTH))[1]
    return [*shown, tuple(examples), len(hidden), tuple(sorted(session.finished()))]


def changes(session: AnnotationSession) -> list[Callable[[], object]]:
    """One of each thing that a user can do, in an order in which each is possible."""
    drawn: list[str] = []

    def draw() -> None:
        drawn[:] = session.draw(0, stroke((120, 200), (150, 200)))

    def erase() -> None:
        mask = editing.brush(session.outline(0, drawn[0]), [(150, 200)], 6, erase=True)
        drawn[:] = session.replace(0, drawn, mask)

    def split() -> None:
        line = [(130, 180), (130, 220)]
        parts = editing.split(session.outline(0, drawn[0]), line, (HEIGHT, WIDTH))
        drawn[:] = session.replace(0, drawn, Masks.concatenate(parts))

    def merge() -> None:
        whole = editing.merged(Masks.concatenate([session.outline(0, e) for e in drawn]))
        drawn[:] = session.replace(0, drawn, whole)

    def of_nut(number: int) -> str:
        return nut(session.objects(0), number).id

    return [
        lambda: session.name(0, [of_nut(0), of_nut(1)], "nut"),
        lambda: session.name(0, [of_nut(1)], "date"),
        lambda: session.decide(0, [Named(of_nut(2), "nut", negative=True)]),
        draw,
        lambda: session.name(0, drawn, "stroke"),
        erase,
        split,
        merge,
        lambda: session.delete(0, [of_nut(3)]),
        lambda: session.delete(0, [of_nut(0)]),
        lambda: session.delete(0, drawn),
        lambda: session.finish(0),
    ]


def test_each_change_is_undone_and_redone_also_by_the_next_process(start: Start) -> None:
    session = start()
    states = [state(session)]
    for change in changes(session):
        change()
        states.append(state(session))
    assert all(one != other for one, other in pairwise(states))
    for before in reversed(states[:-1]):
        session.undo()
        assert state(session) == before
        session = start()
        assert state(session) == before
    with pytest.raises(LibraryError, match="nothing to undo"):
        session.undo()
    for after in states[1:]:
        session.redo()
        assert state(session) == after
        session = start()
    with pytest.raises(LibraryError, match="nothing to redo"):
        session.redo()


def test_a_new_change_ends_what_could_be_redone(start: Start) -> None:
    session = start()
    session.draw(0, stroke((120, 200), (150, 200)))
    session.undo()
    assert session.undoable["redo"] is not None
    session.draw(0, stroke((20, 200), (50, 200)))
    assert session.undoable["redo"] is None


def test_what_is_named_is_not_proposed_again(start: Start) -> None:
    session = start()
    found = session.objects(0)
    ids = [nut(found, number).id for number in range(5)]
    named = session.name(0, ids, "nut")
    taught = [each for each in named if each.taught]
    assert sorted(each.id for each in taught) == sorted(ids)
    for each in taught:
        x, y, width, height = each.bbox_xywh
        inside = [
            other for other in named
            if other is not each and not other.taught and other.label is None
            and x < other.bbox_xywh[0] + other.bbox_xywh[2] / 2 < x + width
            and y < other.bbox_xywh[1] + other.bbox_xywh[3] / 2 < y + height
            and other.bbox_xywh[2] * other.bbox_xywh[3] <= width * height
        ]  # fmt: skip
        assert inside == []


def test_drawn_outlines_stay_and_are_named_like_others(start: Start) -> None:
    session = start()
    (made,) = session.draw(0, stroke(*NUTS[:1], radius=20))
    shown = {each.id: each for each in session.objects(0)}
    assert shown[made].drawn
    # No proposal of the same nut is shown in addition.
    x, y = NUTS[0]
    centres = [
        (each.bbox_xywh[0] + each.bbox_xywh[2] / 2, each.bbox_xywh[1] + each.bbox_xywh[3] / 2)
        for each in shown.values()
    ]
    assert sum(abs(cx - x) + abs(cy - y) < 6 for cx, cy in centres) == 1
    session.name(0, [nut(list(shown.values()), 1).id, nut(list(shown.values()), 2).id], "nut")
    assert {each.id: each for each in session.objects(0)}[made].label == "nut"


def test_objects_of_several_pictures_are_named_as_one_change(start: Start) -> None:
    session = start()
    decisions = []
    for picture in range(2):
        opened = session.opened(picture)
        each = nut(session.objects(picture), 0, picture).id
        decisions.append((opened.digest, session.outline(picture, each), Named(each, "nut")))
    session.decide_in_many(decisions)
    assert [sum(o.taught for o in session.objects(picture)) for picture in range(2)] == [1, 1]
    assert "2 pictures" in session.undo().title
    assert len(list(session.detector.library.listing())) == 0


def test_a_change_that_was_cut_off_is_ended_by_the_next_process(start: Start) -> None:
    session = start()
    session.name(0, [nut(session.objects(0), 0).id], "nut")
    before, digest = state(session), session.opened(0).digest
    # Killed before the library was changed: the change never was.
    lost = Step(digest, "learn", {"items": [], "batch": "20200101T000000Z-00000000"})
    session.journal.begin("lost", [lost])
    session = start()
    assert state(session) == before
    assert session.undoable["undo"] == "nut"
    # Killed afterwards: it was made, and is undone as any other.
    batch = session.journal.last_done().steps[0].data["batch"]
    session.journal._mark(session.journal.last_done().id, "begun", None)
    session = start()
    assert state(session) == before
    assert session.journal.last_done().steps[0].data["batch"] == batch
    session.undo()
    assert not any(each.taught for each in session.objects(0))


def test_a_library_that_refuses_leaves_no_change(
    start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    session = start()
    each = nut(session.objects(0), 0).id

    def full(*_: object, **__: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(session.detector.pipeline, "keep", full)
    with pytest.raises(OSError, match="No space"):
        session.name(0, [each], "nut")
    assert session.undoable == {"undo": None, "redo": None}
    monkeypatch.undo()
    with pytest.raises(LibraryError):
        session.name(0, [each], "  ")
    with pytest.raises(NotFoundError, match="load the picture again"):
        session.name(0, ["nothing"], "nut")
    assert session.undoable == {"undo": None, "redo": None}


def test_objects_of_two_names_are_not_merged(start: Start) -> None:
    session = start()
    found = session.objects(0)
    ids = [nut(found, 0).id, nut(found, 1).id]
    session.name(0, ids[:1], "nut")
    session.name(0, ids[1:], "date")
    both = editing.merged(Masks.concatenate([session.outline(0, each) for each in ids]))
    with pytest.raises(LibraryError, match="date, nut"):
        session.replace(0, ids, both)


def test_pictures_that_are_replaced_removed_and_added(start: Start, tmp_path: Path) -> None:
    session = start()
    session.name(0, [nut(session.objects(0), 0).id], "nut")
    photos = tmp_path / "photos"
    other = np.full((HEIGHT, WIDTH, 3), 200, np.uint8)
    cv2.rectangle(other, (40, 40), (90, 120), (20, 90, 20), -1)
    (photos / "0.png").rename(photos / "9.png")
    cv2.imwrite(str(photos / "0.png"), other)
    assert not any(each.taught for each in session.objects(0))
    session.refresh()
    assert session.names == ["0.png", "1.png", "9.png"]
    assert any(each.taught for each in session.objects(2)), "known by its pixels, not by its name"
    (photos / "1.png").unlink()
    session.refresh()
    assert session.missing == {1}
    with pytest.raises(ImageError, match="no longer there"):
        session.objects(1)
    with pytest.raises(NotFoundError):
        session.objects(7)


def test_the_journal_of_a_newer_version_is_left_alone(tmp_path: Path) -> None:
    journal = Journal(tmp_path / "j.sqlite")
    journal._file.execute("PRAGMA user_version = 99")
    journal.close()
    with pytest.raises(OutputError, match="newer version"):
        Journal(tmp_path / "j.sqlite")
    (tmp_path / "k.sqlite").write_bytes(b"something else" * 100)
    with pytest.raises(OutputError, match="move it away"):
        Journal(tmp_path / "k.sqlite")


@pytest.mark.skipif(os.name != "posix" or sys.platform == "darwin", reason="no such names here")
def test_names_that_are_no_text_are_shown_named_and_finished(start: Start, tmp_path: Path) -> None:
    photo = (tmp_path / "photos" / "0.png").read_bytes()
    for name in (b"bad-\xff.png", b"two\nlines.png", b"\xe4\xf6\xfc.png"):
        place = os.path.join(os.fsencode(tmp_path / "photos"), name)
        image = cv2.imdecode(np.frombuffer(photo, np.uint8), cv2.IMREAD_COLOR)
        image[0, 0] = len(os.listdir(tmp_path / "photos"))
        Path(os.fsdecode(place)).write_bytes(cv2.imencode(".png", image)[1].tobytes())
    session = start()
    names = session.names
    assert {"0.png", "1.png", "bad-?.png", "two?lines.png", "???.png"} == set(names)
    for number in range(len(names)):
        shown = session.objects(number)
        session.name(number, [shown[0].id], "nut")
        session.finish(number)
    again = start()
    assert again.finished() == set(range(len(names))), "also where they were not opened yet"
    access = Access("127.0.0.1")
    ahead = WorkAhead(again, survey := Survey(), again.after)
    client = TestClient(annotation_app(again, survey, ahead, access), base_url="http://127.0.0.1")
    listed = client.get("/api/pictures").json()["pictures"]
    assert [each["name"] for each in listed] == names
    for number in range(len(names)):
        assert client.get(f"/api/pictures/{number}").json()["name"] == names[number]
    for path in (
        "/api/library",
        "/api/library/log",
        "/api/library/examples?label=nut",
        "/api/state",
    ):
        assert client.get(path).status_code == 200
