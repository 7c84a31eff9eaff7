"""What large libraries and backups need. Sizes are small here: work is counted, not seconds.

Those that are expected to fail need another store of libraries; each says why.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import IO, Any

import pytest
from cli_harness import Command, in_this_process
from library_helpers import snapshot_of, taught

from sam_detect.errors import LibraryBusyError, LibraryCorruptError
from sam_detect.library import archive, transfer
from sam_detect.library.example import with_checksums
from sam_detect.library.library import Library
from sam_detect.library.transfer import export_library, import_library
from sam_detect.types import Point
from sam_detect.vector_store import MemoryVectorStore, QdrantVectorStore

Read = dict[str, Any]


class CountingStore(MemoryVectorStore):
    """Counts the points that are read with more than their ids."""

    read = 0

    def scan(
        self, ids: Sequence[str] | None = None, *, fields: Sequence[str] | None = None,
        with_vectors: bool = False,
    ) -> Iterator[Point]:  # fmt: skip
        for point in super().scan(ids, fields=fields, with_vectors=with_vectors):
            self.read += fields is None or bool(fields)
            yield point


def filled(store: MemoryVectorStore | QdrantVectorStore, count: int) -> Library:
    """A library of so many examples: five, and copies of them."""
    library = taught(store, "nut").library
    points = list(library.points())
    recipe = library.recipe
    assert recipe is not None
    copies = []
    for number in range(count - len(points)):
        point = points[number % len(points)]
        copies.append(with_checksums(replace(point, id=str(uuid.UUID(int=number + 1)))))
    library.add(copies, recipe)
    assert len(library) == count
    return library


def client_of(store: MemoryVectorStore | QdrantVectorStore) -> Any:
    """What asks a service over HTTP that has the library of this store."""
    pytest.importorskip("fastapi", reason="the extra 'server' is not installed")
    from fastapi.testclient import TestClient

    from sam_detect import SAMDetect
    from sam_detect.server.access import Access
    from sam_detect.server.detecting import Detectors, ServiceLimits
    from sam_detect.server.service import service_app

    detector = SAMDetect("naive", "average", vector_store=store)
    app = service_app(Detectors({}, detector), Access("127.0.0.1", None), ServiceLimits())
    return TestClient(app, base_url="http://127.0.0.1")


@pytest.fixture
def sam(capfd: pytest.CaptureFixture[str]) -> Command:
    return in_this_process(capfd)


# -- backups -------------------------------------------------------------------------------------


@pytest.mark.xfail(
    strict=True, raises=LibraryBusyError,
    reason="an export holds the library's lock from beginning to end",
)  # fmt: skip
@pytest.mark.parametrize("meanwhile", ["detect", "learn", "list"])
def test_a_backup_keeps_nobody_from_a_library(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    library = filled(QdrantVectorStore(path=tmp_path), 10)
    others = QdrantVectorStore(path=tmp_path, lock_timeout_s=0)
    other, write = Library(others, "default"), transfer.write_archive
    new = Point(str(uuid.UUID(int=99)), None, {})
    new = with_checksums(replace(next(library.points()), id=new.id))
    uses = {
        "detect": lambda: snapshot_of(other).examples(),
        "learn": lambda: other.add([new], library.recipe),  # type: ignore[arg-type]
        "list": lambda: list(other.listing()),
    }

    def writing(stream: IO[bytes], manifest: Read, points: Iterator[Point]) -> int:
        first = next(iter(points))
        uses[meanwhile]()
        return write(stream, manifest, [first, *points])

    monkeypatch.setattr(transfer, "write_archive", writing)
    assert export_library(library, tmp_path / "backup.zip") == 10


@pytest.mark.parametrize("most", ["as many as fit", "more than fit"])
def test_how_many_examples_a_file_may_say_it_has(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, most: str
) -> None:
    """There is no limit but what its bytes can hold."""
    library = filled(MemoryVectorStore(), 30)
    export_library(library, tmp_path / "backup.zip")
    monkeypatch.setattr(archive, "FREE_ROWS", 20)
    new = Library(MemoryVectorStore(), "new")
    if most == "as many as fit":
        assert import_library(new, tmp_path / "backup.zip").total == 30
        return
    monkeypatch.setattr(archive, "ROW_BYTES", (tmp_path / "backup.zip").stat().st_size // 29)
    with pytest.raises(LibraryCorruptError, match=r"says that its .* bytes have 30 examples"):
        import_library(new, tmp_path / "backup.zip")
    assert len(new) == 0


# -- lists ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "query",
    [
        {}, {"start": 250}, {"start": 290, "limit": 100},
        pytest.param({"label": "nut"}, marks=pytest.mark.xfail(
            strict=True, reason="no store finds a label's examples without reading all")),
    ],
)  # fmt: skip
def test_a_page_of_examples_reads_that_page(query: dict[str, Any]) -> None:
    store = CountingStore()
    filled(store, 300)
    client = client_of(store)
    store.read = 0
    answer = client.get("/v1/examples", params={"limit": 10, **query})
    if answer.status_code != 200:
        pytest.fail(f"the test itself is wrong: {answer.text}", pytrace=False)
    assert store.read <= 20
    assert len(answer.json()["examples"]) == 10
    assert answer.json()["total"] == 300


# -- one record of changes -----------------------------------------------------------------------


def test_undo_brings_back_what_a_service_removed(sam: Command) -> None:
    store = QdrantVectorStore(collection_name="nuts")
    library = filled(store, 10)
    removed = next(library.points()).id
    answer = client_of(store).delete(f"/v1/examples/{removed}")
    assert (answer.status_code, answer.json()) == (200, {"removed": 1})
    assert len(library) == 9
    sam("library", "undo", "--library", "nuts").worked()
    assert removed in {point.id for point in library.points()}


# -- what works already --------------------------------------------------------------------------


def test_undo_takes_back_the_last_change_of_any_sort(sam: Command) -> None:
    """Removed, renamed or learnt: each undo takes back one, the newest first."""
    store = QdrantVectorStore(collection_name="nuts")
    library = taught(store, "nut", "leaf", "berry").library
    place = "--library", "nuts"
    states = [library.stats()["classes"]]
    for line in (
        ["remove", "--label", "berry"], ["rename", "nut", "walnut"], ["rename", "walnut", "leaf"],
        ["remove", next(library.points()).id[:12]],
    ):  # fmt: skip
        sam("library", *line, *place).worked()
        states.append(library.stats()["classes"])
    for before in reversed(states[:-1]):
        ran = sam("library", "undo", "--json", *place).worked()
        assert ran.json[0]["total"] == sum(before.values())
        assert library.stats()["classes"] == before
    ran = sam("library", "undo", *place).worked()
    assert "took back batch" in ran.err
    assert library.stats()["classes"] == {"leaf": 5, "nut": 5}


def test_what_was_learnt_after_a_removal_is_taken_back_first(sam: Command) -> None:
    store = QdrantVectorStore(collection_name="nuts")
    made = taught(store, "nut", "berry")
    sam("library", "remove", "--label", "berry", "--library", "nuts").worked()
    taught(store, "leaf")
    for classes in ({"nut": 5}, {"berry": 5, "nut": 5}, {"nut": 5}):
        sam("library", "undo", "--library", "nuts").worked()
        assert made.library.stats()["classes"] == classes


@pytest.mark.parametrize("chosen", ["label", "ids"])
def test_many_examples_are_removed_only_when_that_is_confirmed(sam: Command, chosen: str) -> None:
    store = QdrantVectorStore(collection_name="nuts")
    library = filled(store, 12)
    ids = [point.id for point in library.points()]
    what = {"label": ["--label", "nut"], "ids": ids}[chosen]
    line = ["library", "remove", *what, "--library", "nuts"]
    sam(*line).failed("12 examples", "--yes", code=2)
    assert len(library) == 12
    ran = sam(*line, "--yes").worked()
    assert "removed 12 examples; to bring back: sam-detect library undo --library nuts" in ran.err
    assert len(library) == 0
    sam("library", "undo", "--library", "nuts").worked()
    assert [point.id for point in library.points()] == ids
