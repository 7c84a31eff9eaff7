"""Carrying libraries in one file, and to a server: what is refused, and nothing half done."""

from __future__ import annotations

import base64
import io
import json
import os
import pickle
import shutil
import signal
import subprocess
import sys
import tracemalloc
import zipfile
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from library_helpers import (
    PartsSegmenter,
    contents,
    detector,
    disc_masks,
    discs,
    snapshot_of,
    taught,
    vectors,
)

from sam_detect.cli.app import run
from sam_detect.errors import (
    LibraryCorruptError,
    LibraryError,
    LibraryNotFoundError,
    OutputError,
    RecipeMismatchError,
    SamDetectError,
    StoreError,
)
from sam_detect.library import archive as archives
from sam_detect.library.example import with_checksums
from sam_detect.library.library import Library
from sam_detect.library.manifest import FORMAT_VERSION
from sam_detect.library.transfer import copy_library, export_library, import_library
from sam_detect.types import Point
from sam_detect.types.masks import encode_crop
from sam_detect.vector_store import MemoryVectorStore, QdrantVectorStore
from sam_detect.vector_store._files import copy_without_holes

Members = dict[str, bytes]


def empty() -> Library:
    return Library(MemoryVectorStore(), "new")


@pytest.fixture(scope="module")
def exported(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file of ten examples; read only."""
    file = tmp_path_factory.mktemp("exported") / "discs.samlib"
    export_library(taught(MemoryVectorStore()).library, file)
    return file


def unzipped(file: Path) -> Members:
    with zipfile.ZipFile(file) as members:
        return {name: members.read(name) for name in members.namelist()}


def zipped(file: Path, members: Members) -> Path:
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
        for name, data in members.items():
            target.writestr(name, data)
    return file


def nothing_is_added(file: Path, match: str | None = None) -> None:
    """The file is refused in one line, by a new library and by one that has examples."""
    new, full = empty(), taught(MemoryVectorStore(), "berry").library
    manifest = full.require()
    for library in (new, full):
        with pytest.raises(LibraryError, match=match) as caught:
            import_library(library, file)
        assert "\n" not in str(caught.value)
        assert len(str(caught.value)) < 500
        assert str(file) in str(caught.value)
    assert new.store.read_manifest() is None
    assert full.require() == manifest
    assert len(full) == 5


# -- the file ----------------------------------------------------------------------------------


def test_the_file_is_a_zip_of_plain_data(exported: Path) -> None:
    members = unzipped(exported)
    assert set(members) == {"library.json", "examples.jsonl", "vectors.npy"}
    assert json.loads(members["library.json"])["format_version"] == FORMAT_VERSION
    assert np.load(io.BytesIO(members["vectors.npy"]), allow_pickle=False).shape == (10, 4)
    assert len(members["examples.jsonl"].splitlines()) == 10
    if os.name == "posix":
        umask = os.umask(0)
        os.umask(umask)
        assert exported.stat().st_mode & 0o777 == 0o666 & ~umask, "others may read it"


def stored(library: Library) -> dict[str, tuple[bytes, dict[str, Any]]]:
    """All of every point: vector and payload."""
    return {
        p.id: (np.asarray(p.vector).tobytes(), p.payload)
        for p in library.store.scan(with_vectors=True)
    }


def test_a_library_comes_back_exactly(tmp_path: Path) -> None:
    """Vectors, payloads, times and batches; and so does the file."""
    library = Library(taught(MemoryVectorStore(), segmenter=PartsSegmenter()).library.store, "nuts")
    detector(library.store).add_examples_from_file(discs(), disc_masks()[:2], "leaf", negative=True)
    assert export_library(library, tmp_path / "one.zip") == 12
    again = Library(MemoryVectorStore(), "nuts")
    done = import_library(again, tmp_path / "one.zip")
    assert (done.added, done.known, done.total, done.conflicts) == (12, 0, 12, ())
    assert (done.classes, done.negatives) == ({"leaf": 5, "nut": 5}, 2)
    assert stored(again) == stored(library)
    assert again.recipe == library.recipe
    export_library(again, tmp_path / "two.zip")
    one, two = unzipped(tmp_path / "one.zip"), unzipped(tmp_path / "two.zip")
    for members in (one, two):
        members["library.json"] = json.dumps(
            {**json.loads(members["library.json"]), "generation": ""}
        ).encode()
    assert one == two


def test_what_is_known_stays_as_it_is(exported: Path) -> None:
    library = taught(MemoryVectorStore(), "nut").library
    for point in list(library.store.scan(with_vectors=True)):
        mine = {**point.payload, "source": "mine.png", "added": "2020-01-01T00:00:00+00:00"}
        library.store.upsert([with_checksums(replace(point, payload=mine))])
    before = stored(library)
    done = import_library(library, exported)
    assert (done.added, done.known, done.total, done.conflicts) == (5, 5, 10, ())
    assert before.items() <= stored(library).items()
    again = library.generation
    done = import_library(library, exported)
    assert (done.added, done.known, done.total) == (0, 10, 10)
    assert library.generation == again, "nothing was written"


def test_where_labels_differ_the_librarys_stay_unless_the_files_are_asked_for(
    exported: Path,
) -> None:
    library = taught(MemoryVectorStore(), "nut").library
    library.rename("nut", "hazelnut")
    for point in list(library.store.scan(with_vectors=True)):
        mine = {**point.payload, "source": "mine.png"}
        library.store.upsert([with_checksums(replace(point, payload=mine))])
    before = stored(library)
    done = import_library(library, exported)
    assert (done.added, done.known, done.replaced, done.total) == (5, 0, 0, 10)
    assert {(c.label, c.own_label) for c in done.conflicts} == {("nut", "hazelnut")}
    assert {c.id for c in done.conflicts} == {c.own_id for c in done.conflicts} == set(before)
    assert before.items() <= stored(library).items()
    done = import_library(library, exported, conflicts="replace")
    assert (done.added, done.known, done.replaced, done.total) == (0, 5, 5, 10)
    assert library.stats()["classes"] == {"leaf": 5, "nut": 5}
    sources = {p.payload["source"] for p in library.listing("nut")}
    assert sources == {"mine.png"}, "only the label is the file's"


@pytest.mark.parametrize("negative_is_mine", [True, False])
def test_the_opposite_of_what_the_library_says_is_a_conflict(
    negative_is_mine: bool, tmp_path: Path
) -> None:
    """What is both called so and not so: an object is either."""
    one, other = detector(MemoryVectorStore()), detector(MemoryVectorStore())
    for made, negative in ((one, negative_is_mine), (other, not negative_is_mine)):
        made.add_examples_from_file(discs(), disc_masks()[:3], "nut", negative=negative)
    other.add_examples_from_file(discs(), disc_masks()[3:], "nut")
    export_library(other.library, tmp_path / "x")
    before = stored(one.library)
    done = import_library(one.library, tmp_path / "x")
    assert (done.added, done.known, len(done.conflicts), done.total) == (2, 0, 3, 5)
    words = ("nut", "not nut") if negative_is_mine else ("not nut", "nut")
    assert {(c.label, c.own_label) for c in done.conflicts} == {words}
    assert before.items() <= stored(one.library).items()
    done = import_library(one.library, tmp_path / "x", conflicts="replace")
    assert (done.added, done.known, done.replaced, done.total) == (3, 2, 3, 5)
    assert contents(one.library) == contents(other.library)


@pytest.mark.parametrize("conflicts", ["keep", "replace"])
def test_an_import_is_one_learning_batch_that_is_taken_back(
    conflicts: Literal["keep", "replace"], exported: Path
) -> None:
    library = taught(MemoryVectorStore(), "nut", "berry").library
    library.rename("nut", "hazelnut")
    before = stored(library)
    done = import_library(library, exported, conflicts=conflicts)
    assert (done.added, len(done.conflicts)) == (5, 5)
    assert library.log()[0].examples == (10 if conflicts == "replace" else 5)
    assert stored(library) != before
    library.undo()
    assert stored(library) == before


def test_a_dry_run_says_the_same_and_changes_nothing(exported: Path) -> None:
    for library in (empty(), taught(MemoryVectorStore(), "nut", "berry").library):
        if len(library):
            library.rename("nut", "hazelnut")
        before = library.store.read_manifest(), stored(library)
        said = import_library(library, exported, dry_run=True)
        assert (library.store.read_manifest(), stored(library)) == before
        assert import_library(library, exported) == said
        assert said.total == len(library)


def test_another_recipe_is_refused_before_anything_is_read(exported: Path) -> None:
    library = taught(MemoryVectorStore(), embedder="appearance").library
    with pytest.raises(RecipeMismatchError, match="embedder is 'average' there and 'appearance'"):
        import_library(library, exported)
    assert library.stats()["classes"] == {"leaf": 5, "nut": 5}
    library.remove(label="nut")
    library.remove(label="leaf")
    assert import_library(library, exported).total == 10, "an empty library takes any recipe"


def test_neither_way_holds_all_crops(tmp_path: Path) -> None:
    """30 MB of examples pass through a tenth of that."""

    class OnTheFly(MemoryVectorStore):
        def scan(self, ids: Any = None, *, fields: Any = None, with_vectors: bool = False) -> Any:
            if fields is not None or ids is not None:
                return super().scan(ids, fields=fields, with_vectors=with_vectors)
            return (next(iter(made.scan([key], with_vectors=True))) for key in names)

    noise = np.random.default_rng(0).integers(0, 256, (900, 900, 3), dtype=np.uint8)
    mask = np.zeros((900, 900), bool)
    mask[300:460, 300:460] = True
    first = detector(MemoryVectorStore())
    first.add_example(noise, "nut", mask)
    (point,) = first.library.store.scan(with_vectors=True)
    size = len(json.dumps(point.payload))
    names = [f"00000000-0000-4000-8000-{number:012d}" for number in range(30_000_000 // size)]
    made = MemoryVectorStore()
    for name in names:
        made.upsert([with_checksums(Point(name, point.vector, {**point.payload, "source": name}))])
    store = OnTheFly()
    store.write_manifest(first.library.require())
    library, file = Library(store, "large"), tmp_path / "large.samlib"
    tracemalloc.start()
    try:
        assert export_library(library, file) == len(names)
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
        assert file.stat().st_size > 15_000_000
        tracemalloc.reset_peak()
        with archives.Archive.open(file) as opened:
            assert opened.count == len(names)
            opened.check()
        assert tracemalloc.get_traced_memory()[1] < 5_000_000
    finally:
        tracemalloc.stop()


# -- what is refused ---------------------------------------------------------------------------


def _changed(file: Path, member: str, data: bytes) -> Callable[[Path], Path]:
    return lambda target: zipped(target, {**unzipped(file), member: data})


def _line(file: Path, **payload: Any) -> bytes:
    """The lines, with another payload in the seventh, and its right checksums."""
    lines = unzipped(file)["examples.jsonl"].splitlines()
    row = json.loads(lines[6])
    vector = np.load(io.BytesIO(unzipped(file)["vectors.npy"]))[6]
    row["payload"] = with_checksums(Point(row["id"], vector, row["payload"] | payload)).payload
    lines[6] = json.dumps(row).encode()
    return b"\n".join(lines) + b"\n"


def _npy(array: Any) -> bytes:
    stream = io.BytesIO()
    np.save(stream, array, allow_pickle=True)
    return stream.getvalue()


class Bomb:
    """Whoever unpickles it finds out."""

    def __reduce__(self) -> Any:
        return os.mkdir, ("unpickled",)


def _manifest(file: Path, **change: Any) -> bytes:
    return json.dumps({**json.loads(unzipped(file)["library.json"]), **change}).encode()


BAD: dict[str, Callable[[Path], tuple[str, bytes]]] = {
    "manifest garbage": lambda f: ("library.json", b"\xff\x00"),
    "manifest a list": lambda f: ("library.json", b"[]"),
    "manifest foreign": lambda f: ("library.json", b'{"kind": "else"}'),
    "manifest deep": lambda f: ("library.json", b"[" * 100_000),
    "manifest huge": lambda f: ("library.json", b" " * (archives.MAX_MANIFEST_BYTES + 2)),
    "no recipe": lambda f: ("library.json", _manifest(f, recipe=None)),
    "format 0": lambda f: ("library.json", _manifest(f, format_version=0)),
    "format a word": lambda f: ("library.json", _manifest(f, format_version="2")),
    "too few lines": lambda f: ("examples.jsonl", unzipped(f)["examples.jsonl"][:3000]),
    "one line less": lambda f: (
        "examples.jsonl", b"\n".join(unzipped(f)["examples.jsonl"].splitlines()[:-1])),
    "one line more": lambda f: ("examples.jsonl", unzipped(f)["examples.jsonl"] * 2),
    "no lines": lambda f: ("examples.jsonl", b""),
    "lines deep": lambda f: ("examples.jsonl", b"[" * 100_000),
    "lines of nulls": lambda f: ("examples.jsonl", b"null\n" * 10),
    "a label a number": lambda f: ("examples.jsonl", _line(f, label=7)),
    "a label of two lines": lambda f: ("examples.jsonl", _line(f, label="a\nb")),
    "a crop damaged": lambda f: ("examples.jsonl", _line(f, crop_webp="UklGRg==")),
    "a crop too large": lambda f: ("examples.jsonl", _line(f, crop_webp=_large_webp())),
    "a mask that crashes C code": lambda f: ("examples.jsonl", _line(f, crop_mask="oooo1" * 99)),
    "a mask of another size": lambda f: ("examples.jsonl", _line(f, crop_mask="03")),
    "surroundings a word": lambda f: ("examples.jsonl", _line(f, surroundings="many")),
    "surroundings of nothing": lambda f: ("examples.jsonl", _line(f, surroundings={})),
    "surroundings outside": lambda f: ("examples.jsonl", _around(f, boxes=[[0, 0, 9, 9999]])),
    "surroundings NaN": lambda f: ("examples.jsonl", _around(f, vectors=_halves([np.nan] * 4))),
    "surroundings of another length": lambda f: (
        "examples.jsonl", _around(f, vectors=_halves([1.0] * 5))),
    "surroundings without end": lambda f: ("examples.jsonl", _bomb(f)),
    "no source": lambda f: ("examples.jsonl", _line(f, source=None)),
    "an id": lambda f: (
        "examples.jsonl", unzipped(f)["examples.jsonl"].replace(b'{"id": "', b'{"id": "x', 1)),
    "vectors pickled": lambda f: ("vectors.npy", _npy(np.array([[Bomb()] * 4] * 10, object))),
    "vectors a pickle": lambda f: ("vectors.npy", pickle.dumps(Bomb())),
    "vectors NaN": lambda f: ("vectors.npy", _npy(np.full((10, 4), np.nan, np.float32))),
    "vectors short": lambda f: ("vectors.npy", unzipped(f)["vectors.npy"][:-4]),
    "vectors long": lambda f: ("vectors.npy", unzipped(f)["vectors.npy"] + b"x"),
    "vectors of doubles": lambda f: ("vectors.npy", _npy(np.zeros((10, 4)))),
    "vectors by columns": lambda f: (
        "vectors.npy", _npy(np.asfortranarray(np.ones((10, 4), np.float32)))),
    "vectors flat": lambda f: ("vectors.npy", _npy(np.zeros(40, np.float32))),
    "vectors of another length": lambda f: ("vectors.npy", _npy(np.ones((10, 5), np.float32))),
    "vectors too many": lambda f: ("vectors.npy", _npy(np.ones((11, 4), np.float32))),
    "vectors garbage": lambda f: ("vectors.npy", b"\x93NUMPY\x01\x00\xff\xff" + b"(" * 500),
}  # fmt: skip


def _around(file: Path, count: int = 1, **change: Any) -> bytes:
    """The lines, with regions around the seventh example, and something changed of these."""
    around = {
        "proposer": "naive",
        "quality": 0.5,
        "boxes": [[0, 0, 3, 3]] * count,
        "masks": [encode_crop(np.ones((3, 3), bool)).decode()] * count,
        "touching": [True] * count,
        "vectors": _halves([0.5] * 4 * count),
    }
    return _line(file, surroundings={**around, **change})


def _halves(numbers: list[float]) -> str:
    return base64.b64encode(np.array(numbers, "<f2").tobytes()).decode("ascii")


def _bomb(file: Path) -> bytes:
    """Some 3 MB that would be 100,000 masks of the crop's size."""
    count, full = 100_000, encode_crop(np.ones((64, 64), bool)).decode()
    return _around(file, count, boxes=[[0, 0, 64, 64]] * count, masks=[full] * count)


def _large_webp() -> str:
    from PIL import Image

    stream = io.BytesIO()
    Image.new("RGB", (5_000, 5_000)).save(stream, "WEBP", lossless=True, quality=0, method=0)
    return base64.b64encode(stream.getvalue()).decode()


def test_what_is_made_worse_below_is_sound(exported: Path, tmp_path: Path) -> None:
    for count in (0, 1, 16):
        members = {**unzipped(exported), "examples.jsonl": _around(exported, count)}
        library = empty()
        assert import_library(library, zipped(tmp_path / "x.samlib", members)).total == 10
        assert len(snapshot_of(library).examples().hard_negatives.owners) == count


@pytest.mark.parametrize("bad", BAD.values(), ids=BAD)
def test_a_member_that_is_wrong(
    bad: Callable[[Path], tuple[str, bytes]],
    exported: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(tmp_path)
    name, data = bad(exported)
    nothing_is_added(zipped(tmp_path / "x.samlib", {**unzipped(exported), name: data}))
    assert not (tmp_path / "unpickled").exists()


def test_a_newer_file_says_upgrade(exported: Path, tmp_path: Path) -> None:
    data = _manifest(exported, format_version=FORMAT_VERSION + 1, recipe={"new": 1})
    zipped(tmp_path / "x", {**unzipped(exported), "library.json": data})
    nothing_is_added(tmp_path / "x", match="upgrade sam-detect")


@pytest.mark.parametrize("missing", ["library.json", "examples.jsonl", "vectors.npy"])
def test_a_zip_without_a_member_is_no_export(missing: str, exported: Path, tmp_path: Path) -> None:
    members = unzipped(exported)
    del members[missing]
    nothing_is_added(zipped(tmp_path / "x", members), match="its members are not")


def test_files_that_are_no_zip(tmp_path: Path) -> None:
    for data in (b"", b"PK\x03\x04", b"\x00" * 4096, b"\x89PNG\r\n\x1a\n"):
        (tmp_path / "x").write_bytes(data)
        nothing_is_added(tmp_path / "x", match="not a complete sam-detect export")
    nothing_is_added(zipped(tmp_path / "y", {"word/document.xml": b"<a/>"}))
    for path in (tmp_path, tmp_path / "missing"):
        nothing_is_added(path, match="cannot be read")


def test_a_bomb_is_not_unpacked_into_memory(exported: Path, tmp_path: Path) -> None:
    """200 MB of spaces in 200 KB, in each member."""
    for name in ("library.json", "examples.jsonl", "vectors.npy"):
        file = tmp_path / name
        members = unzipped(exported)
        del members[name]
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as target:
            with target.open(name, "w") as stream:
                for _ in range(200):
                    stream.write(b" " * (1 << 20))
            for other, data in members.items():
                target.writestr(other, data)
        assert file.stat().st_size < 1_000_000
        tracemalloc.start()
        with pytest.raises(LibraryCorruptError):
            import_library(empty(), file)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak < 2.5 * archives.MAX_LINE_BYTES


@settings(
    max_examples=150,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)
@given(data=st.data())
def test_a_damaged_file_is_refused_or_harmless(
    data: st.DataObject, exported: Path, tmp_path: Path
) -> None:
    whole = bytearray(exported.read_bytes())
    for _ in range(data.draw(st.integers(1, 3))):
        place = data.draw(
            st.integers(0, len(whole) - 1) | st.integers(len(whole) - 400, len(whole) - 1)
        )
        whole[place] = data.draw(st.integers(0, 255))
    if data.draw(st.booleans()):
        del whole[data.draw(st.integers(0, len(whole) - 1)) :]
    file = tmp_path / "x.samlib"
    file.write_bytes(whole)
    library = empty()
    try:
        done = import_library(library, file)
    except SamDetectError as error:
        assert "\n" not in str(error)  # noqa: PT017
        assert library.store.read_manifest() is None
        assert len(library) == 0
    else:
        assert done.total == 10
        assert contents(library) == contents(taught(MemoryVectorStore()).library)


def test_an_encrypted_or_strangely_packed_member_is_refused(exported: Path, tmp_path: Path) -> None:
    whole = exported.read_bytes()
    start = whole.rindex(b"PK\x01\x02")
    for offset, value in ((8, 1), (10, 99)):  # flag "encrypted"; an unknown compression
        changed = bytearray(whole)
        for place in (start + offset, whole.rindex(b"PK\x03\x04") + offset - 2):
            changed[place] = value
        (tmp_path / "x").write_bytes(changed)
        nothing_is_added(tmp_path / "x")


def test_an_import_that_is_stopped_leaves_the_library_as_it_was(
    exported: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sam_detect.vector_store._engine import Shard

    library = taught(QdrantVectorStore(tmp_path, batch_size=4), "berry").library
    before, upsert, calls = (library.require(), stored(library)), Shard.upsert, []

    def full(*arguments: Any) -> None:
        calls.append(1)
        if len(calls) == 3:
            raise StoreError("the disk is full")
        upsert(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(Shard, "upsert", full)
        with pytest.raises(StoreError, match="full"):
            import_library(library, exported)
    assert (library.require(), stored(library)) == before
    assert import_library(library, exported).total == 15


KILLED = """
import os, signal, sys
from pathlib import Path
from sam_detect.library.library import Library
from sam_detect.library.transfer import import_library
from sam_detect.vector_store import QdrantVectorStore
from sam_detect.vector_store import _engine, _files
file, calls, when = sys.argv[1], [], 0
def counted(function):
    def called(*arguments, **options):
        calls.append(1)
        if len(calls) == when:
            os.kill(os.getpid(), signal.SIGKILL)
        return function(*arguments, **options)
    return called
for owner, name in ((_engine.Shard, "upsert"), (_engine.Shard, "flush"), (_engine.Shard, "close"),
                    (_files.LibraryFiles, "write_state"), (_files.LibraryFiles, "sweep")):
    setattr(owner, name, counted(getattr(owner, name)))
for place in sys.stdin:
    # A process of its own for each import, forked before the engine has threads.
    when += 1
    child = os.fork()
    if not child:
        import_library(Library(QdrantVectorStore(place.strip(), batch_size=4), "x"), Path(file))
        os._exit(0)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""


@pytest.mark.parametrize("names", [(), ("berry",)])
def test_an_import_that_is_killed_did_all_or_nothing(
    names: tuple[str, ...], exported: Path, tmp_path: Path
) -> None:
    """Killed before each of the steps that touch the disk."""
    outcomes, expected = [], contents(taught(MemoryVectorStore()).library)
    if names:
        taught(QdrantVectorStore(tmp_path / "0"), *names)
    with subprocess.Popen(
        [sys.executable, "-c", KILLED, str(exported)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
    ) as importing:  # fmt: skip
        assert importing.stdin is not None
        assert importing.stdout is not None
        for when in range(1, 30):
            place = tmp_path / str(when)
            if names:
                shutil.copytree(tmp_path / "0", place, copy_function=copy_without_holes)
            print(place, file=importing.stdin, flush=True)
            code = int(importing.stdout.readline())
            library = Library(QdrantVectorStore(place), "x")
            outcomes.append(len(library) - 5 * len(names))
            if code == 0:
                break
            assert code == -signal.SIGKILL
            if outcomes[-1]:
                assert contents(library).items() >= expected.items()
            assert import_library(library, exported).total == 5 * len(names) + 10
        importing.stdin.close()
    assert set(outcomes) == {0, 10}
    assert outcomes == sorted(outcomes)


def test_another_process_that_learns_into_a_server_meanwhile_is_noticed(exported: Path) -> None:
    """A server has no lock between processes."""

    class Shared(MemoryVectorStore):
        def replace_all(self, points: Any, manifest: Any) -> None:
            def watched() -> Iterator[Point]:
                for number, point in enumerate(points):
                    if number == 3:
                        taught(self, "leaf")
                    yield point

            super().replace_all(watched(), manifest)

    library = taught(Shared(), "berry").library
    with pytest.raises(LibraryError, match="another process meanwhile; nothing was imported"):
        import_library(library, exported)
    assert library.stats()["classes"] == {"berry": 5, "leaf": 5}


# -- writing -----------------------------------------------------------------------------------


def files(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_a_failed_export_leaves_what_was_there(tmp_path: Path) -> None:
    class Broken(MemoryVectorStore):
        def scan(self, *arguments: Any, **options: Any) -> Iterator[Point]:
            yield from list(super().scan(*arguments, **options))[:7]
            raise StoreError("the server has gone")

    store = Broken()
    made = taught(MemoryVectorStore())
    store.write_manifest(made.library.require())
    store.upsert(list(made.library.store.scan(with_vectors=True)))
    file = tmp_path / "x.samlib"
    for before in ({}, {"x.samlib": b"the one before"}):
        for name, data in before.items():
            (tmp_path / name).write_bytes(data)
        with pytest.raises(StoreError):
            export_library(Library(store, "x"), file)
        assert files(tmp_path) == before


def test_a_full_disk_leaves_what_was_there(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "x.samlib"
    file.write_bytes(b"the one before")

    def full(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("sam_detect.library.transfer.os.fsync", full)
    with pytest.raises(OutputError, match=r"x.samlib cannot be written: No space left"):
        export_library(taught(MemoryVectorStore()).library, file)
    assert files(tmp_path) == {"x.samlib": b"the one before"}


def test_places_that_cannot_be_written(tmp_path: Path) -> None:
    library = taught(MemoryVectorStore()).library
    (tmp_path / "file").write_bytes(b"x")
    for place in (tmp_path, tmp_path / "file" / "x", tmp_path / ("n" * 300), Path("/dev/null")):
        with pytest.raises(OutputError, match="the export") as caught:
            export_library(library, place)
        assert "\n" not in str(caught.value)
    assert files(tmp_path) == {"file": b"x"}
    with pytest.raises(LibraryNotFoundError):
        export_library(empty(), tmp_path / "x")
    assert files(tmp_path) == {"file": b"x"}


def test_an_export_replaces_and_follows_links(tmp_path: Path) -> None:
    library = taught(MemoryVectorStore()).library
    target = tmp_path / "far" / "real.samlib"
    target.parent.mkdir()
    target.write_bytes(b"old")
    (tmp_path / "link").symlink_to(target)
    export_library(library, tmp_path / "link")
    assert (tmp_path / "link").is_symlink()
    assert import_library(empty(), target).total == 10


# -- to a server -------------------------------------------------------------------------------


def test_a_library_is_not_copied_to_itself(tmp_path: Path) -> None:
    taught(QdrantVectorStore(path=tmp_path), "nut")
    one, two = (Library(QdrantVectorStore(path=tmp_path), "x") for _ in range(2))
    with pytest.raises(LibraryError, match="itself"):
        copy_library(one, two)


def test_others_can_use_a_library_that_is_copied(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The lock is not held while a slow server takes a batch."""
    monkeypatch.setattr("sam_detect.library.transfer.BATCH", 4)

    class Slow(MemoryVectorStore):
        def upsert(self, points: Any) -> None:
            other = QdrantVectorStore(path=tmp_path, lock_timeout_s=0.5)
            assert Library(other, "x").stats()["examples"] == 10
            super().upsert(points)

    taught(QdrantVectorStore(path=tmp_path))
    there = Library(Slow(), "there")
    assert copy_library(Library(QdrantVectorStore(path=tmp_path), "x"), there).total == 10


def test_a_reindex_in_the_middle_of_a_copy_is_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    from sam_detect.library.reindex import reindex

    monkeypatch.setattr("sam_detect.library.transfer.BATCH", 4)
    made = taught(MemoryVectorStore())

    class Watched(MemoryVectorStore):
        def upsert(self, points: Any) -> None:
            super().upsert(points)
            reindex(made.library, replace(made.pipeline.features, occupancy=0.2, fade=_linear()))

    there = Library(Watched(), "there")
    with pytest.raises(LibraryError, match="reindexed while it was copied"):
        copy_library(made.library, there)
    assert len(there) == 4
    assert there.recipe != made.library.recipe


def _linear() -> Any:
    from sam_detect.fading import LinearFade

    return LinearFade(9)


@pytest.mark.alone
@pytest.mark.parametrize(
    "url", ["http://127.0.0.1:9", "http://no-such-host.invalid:6333", "ftp://x", "http://[::1"]
)
def test_a_dead_server_is_one_line(url: str, capsys: pytest.CaptureFixture[str]) -> None:
    import time

    taught(QdrantVectorStore())
    capsys.readouterr()
    began = time.monotonic()
    code = run(["library", "push", "--to-url", url, "--json"])
    assert time.monotonic() - began < 10
    out, err = capsys.readouterr()
    assert code == (1 if url.startswith("http://n") or url.endswith(":9") else 2)
    assert (out, len(err.splitlines())) == ("", 1)
    assert url.removeprefix("http://") in err


def test_the_vectors_of_a_file_are_those_of_the_library(exported: Path) -> None:
    library = empty()
    import_library(library, exported)
    expected = vectors(taught(MemoryVectorStore()).library)
    for key, vector in vectors(library).items():
        np.testing.assert_allclose(vector, expected[key], atol=1e-6)
    found = detector(library.store).add_examples_from_file(discs(), disc_masks(), "nut")
    assert (found.added, found.total) == (0, 10)
