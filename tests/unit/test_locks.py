"""Locks are taken in one order (docs/architecture.md, "Which lock before which"): where two threads
took two of them in different orders, the page would stop for ever."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from sam_detect.api import SAMDetect
from sam_detect.library import reindex
from sam_detect.server.annotation import AnnotationSession
from sam_detect.types import Frame
from tests.integration.page_harness import draw_photos
from tests.library_helpers import annotation_session

PATIENCE_S = 15


@pytest.fixture
def session(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[AnnotationSession]:
    """Two pictures, and a library with an object of each."""
    monkeypatch.setenv("SAM_DETECT_HOME", str(tmp_path / "home"))
    with annotation_session(draw_photos(tmp_path / "photos", count=2)) as made:
        for picture in (0, 1):
            made.name(picture, [made.objects(picture)[0].id], "nut")
        yield made


def end_together(*threads: Callable[[], object]) -> None:
    """Runs functions at once; fails where they wait for each other."""
    running = [threading.Thread(target=each, daemon=True) for each in threads]
    for each in running:
        each.start()
    for each in running:
        each.join(PATIENCE_S)
    assert not any(each.is_alive() for each in running)


def test_who_holds_the_store_gets_the_pixels_of_a_picture_that_is_being_opened(
    session: AnnotationSession, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As undo does, which learns again what was forgotten in a picture."""
    detector, file = session.detector, sorted((tmp_path / "photos").iterdir())[0]
    before, read = file.stat(), detector.read
    holding, opening = threading.Event(), threading.Event()
    found: list[Frame] = []

    def reading(image: Any) -> Frame:
        opening.set()
        return read(image)

    def open_again() -> None:
        holding.wait(PATIENCE_S)
        session.pictures.get(0)

    def hold() -> None:
        with detector.library.store.session():
            detector.library.rename("nut", "date")  # so that proposing reads it anew
            os.utime(file, (before.st_atime, before.st_mtime + 9))
            holding.set()
            opening.wait(PATIENCE_S)
            os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
            found.append(session.pictures.frame(0))

    monkeypatch.setattr(detector, "read", reading)
    end_together(open_again, hold)
    assert [each.source_id for each in found] == [str(file)]


def test_who_holds_the_store_may_read_the_library_in_another_recipe_while_others_do(
    session: AnnotationSession, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = SAMDetect("naive", "appearance", "linear", library="nuts")
    embed, holding, embedding = reindex.embed_examples, threading.Event(), threading.Event()
    read: list[tuple[str, ...]] = []
    embedded: list[str] = []

    def slowly(examples: Any, features: Any) -> Any:
        embedding.set()
        holding.wait(PATIENCE_S)
        embedded.extend(each.id for each in examples)
        return embed(examples, features)

    def hold() -> None:
        embedding.wait(PATIENCE_S)
        with reader.library.store.session():
            holding.set()
            read.append(tuple(reader.snapshot().examples().ids))

    monkeypatch.setattr(reindex, "BATCH", 1)  # it needs the store again after the first one
    monkeypatch.setattr(reindex, "embed_examples", slowly)
    end_together(lambda: read.append(tuple(reader.snapshot().examples().ids)), hold)
    ids = tuple(point.id for point in session.detector.library.listing())
    assert read == [ids, ids]
    assert sorted(embedded) == sorted(ids)  # each once, whoever needs it first
