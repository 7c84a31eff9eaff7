"""``library verify`` and ``library repair``: what each says, and how it ends."""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from cli_harness import DISCS, Command, box_around, in_this_process, saved
from library_helpers import taught

from sam_detect.errors import LibraryCorruptError
from sam_detect.library.integrity import repair, verify
from sam_detect.types import Point
from sam_detect.vector_store import MemoryVectorStore, QdrantVectorStore

OPTIONS = ("--segmenter", "naive", "--embedder", "average")


@pytest.fixture
def sam(
    capfd: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Command:
    """The command line, with a library of three discs."""
    monkeypatch.chdir(tmp_path)
    saved(Path("shapes.png"))
    command = in_this_process(capfd)
    boxes = [part for disc in DISCS[:3] for part in ("--box", box_around(*disc))]
    command("learn", "shapes.png", "--label", "disc", *boxes, *OPTIONS).worked()
    return command


def stored(**changes: object) -> Point:
    """The first stored example, with other fields in its payload."""
    point = next(QdrantVectorStore().scan(with_vectors=True))
    return replace(point, payload={**point.payload, **changes})


def test_a_sound_library(sam: Command) -> None:
    assert "library 'default': 3 sound examples\n" in sam("library", "verify").worked().err
    ran = sam("library", "repair").worked()
    assert "library 'default' has 3 sound examples; it is as it was stored" in ran.err
    assert sam("library", "verify", "--json").worked().json == [
        {"sound": True, "examples": 3, "stored": 3, "damaged": [], "problem": None}
    ]


def test_a_damaged_example_is_listed_and_removed(sam: Command) -> None:
    broken = stored(source=7)
    QdrantVectorStore().upsert([broken])
    ran = sam("library", "verify")
    assert ran.code == 1
    assert f"error: example {broken.id} is damaged: its source" in ran.err
    assert "2 sound examples, 1 damaged; keep what is sound: sam-detect library repair" in ran.err
    ran = sam("library", "repair")
    assert ran.code == 1
    assert ran.err.splitlines()[0].startswith(f"removed example {broken.id}: its source should")
    assert "has 2 sound examples" in ran.err
    assert "as it was stored" not in ran.err
    assert "library 'default': 2 sound examples" in sam("library", "verify").worked().err


def test_every_command_that_meets_a_damaged_example_gives_the_same_advice(sam: Command) -> None:
    QdrantVectorStore().upsert([stored(label="other")])
    advice = "keep what is sound: sam-detect library repair --library default"
    for line in (
        ("detect", "shapes.png"),
        ("library", "list", "--library", "default"),
        ("library", "show", stored().id),
        ("library", "export", "out.zip"),
        ("library", "verify"),
    ):
        ran = sam(*line)
        assert ran.code == 1, line
        assert advice in ran.err, (line, ran.err)
        assert "library remove" not in ran.err, line


def test_what_was_no_example_is_no_loss(sam: Command) -> None:
    """A removed example that is back and damaged: without it the library is what was stored."""
    broken = stored(source=7)
    QdrantVectorStore().upsert([replace(broken, id=str(uuid.uuid4()))])
    assert sam("library", "verify").code == 1
    ran = sam("library", "repair").worked()
    assert "removed example" not in ran.err
    assert "library 'default' has 3 sound examples; it is as it was stored" in ran.err
    sam("library", "verify").worked()


def test_what_the_engine_says_of_its_files_is_no_reason_of_an_example() -> None:
    """It names the library and what to do with it, and would stand in the line about an example."""

    class Unreadable(MemoryVectorStore):
        broken = ""

        def scan(self, ids: Sequence[str] | None = None, **options: Any) -> Iterator[Point]:
            if ids == [self.broken]:
                raise LibraryCorruptError(
                    "the library in x is damaged (byte_offset < 4); repair it"
                )
            return super().scan(ids, **options)

    store = Unreadable()
    library = taught(store).library
    store.broken = next(store.scan(fields=())).id
    report = verify(library)
    assert report.damaged == {store.broken: "it cannot be read"}
    done = repair(library)
    assert done.removed == report.damaged
    assert not done.exact
    assert (done.examples, len(library)) == (9, 9)


def test_an_older_format_is_one_line_and_can_be_removed(sam: Command) -> None:
    store = QdrantVectorStore()
    store.write_manifest({**(store.read_manifest() or {}), "format_version": 3})
    for line in (("library", "stats"), ("library", "repair"), ("detect", "shapes.png")):
        ran = sam(*line)
        ran.failed(
            "has format 3, this version reads formats 4 to 5; learn its pictures again", code=1
        )
    assert "format 3" in sam("library", "list").worked().out
    ran = sam("library", "remove", "--all", "--yes", "--library", "default").worked()
    assert "removed 3 examples" in ran.err
