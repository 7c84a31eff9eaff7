"""The embedded engine's directory: what is made, what is refused, and what damage looks like."""

from __future__ import annotations

import errno
import json
import os
import shutil
import subprocess
import sys
import tempfile
import threading
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from sam_detect.errors import ConfigError, LibraryBusyError, LibraryCorruptError, StoreError
from sam_detect.types import Point
from sam_detect.vector_store import QdrantVectorStore, _engine, _files
from sam_detect.vector_store.qdrant import embedded_collections, libraries_dir

ROOT = Path(__file__).resolve().parents[2]


def points(count: int, dimension: int = 4, first: int = 0, payload: str = "x") -> list[Point]:
    rng = np.random.default_rng(first)
    return [
        Point(str(uuid.UUID(int=first + n)), rng.normal(size=dimension), {"n": n, "p": payload})
        for n in range(count)
    ]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "home" / "libraries"


@pytest.fixture
def store(folder: Path) -> QdrantVectorStore:
    return QdrantVectorStore(path=folder, collection_name="nuts", lock_timeout_s=0.3)


@pytest.fixture
def filled(store: QdrantVectorStore) -> QdrantVectorStore:
    with store.session():
        store.upsert(points(300, payload="y" * 2000))
        store.write_manifest({"v": 1})
    return store


def files_of(folder: Path) -> set[str]:
    """All paths, less the engine's journal, which it merges into another file when it closes."""
    paths = (path for path in folder.rglob("*") if path.name != "tracker_journal.dat")
    return {str(path.relative_to(folder)) for path in paths}


# -- what is made, and where -------------------------------------------------------------------


def test_reading_a_library_that_is_not_there_makes_nothing(
    store: QdrantVectorStore, tmp_path: Path
) -> None:
    assert store.count() == 0
    assert store.read_manifest() is None
    assert store.search(np.ones((2, 4), np.float32), 3) == [[], []]
    assert list(store.scan()) == []
    assert store.size_bytes() == 0
    store.delete([str(uuid.UUID(int=1))])
    store.destroy()
    with store.session():
        assert store.count() == 0
    assert list(tmp_path.iterdir()) == []


def test_a_failed_first_upsert_makes_nothing(store: QdrantVectorStore, tmp_path: Path) -> None:
    with pytest.raises(StoreError):
        store.upsert([Point(str(uuid.UUID(int=1)), np.array([np.nan], np.float32), {})])
    assert store.count() == 0
    assert list(tmp_path.rglob("shard-*")) == []


def test_destroy_leaves_what_is_not_ours(filled: QdrantVectorStore, folder: Path) -> None:
    (folder / "nuts" / "notes.txt").write_text("mine")
    filled.destroy()
    assert files_of(folder) == {"nuts", "nuts/notes.txt"} | (
        files_of(folder) & {"nuts/.lock", "nuts/.queue"}
    )
    assert embedded_collections(folder) == []


def test_destroy_removes_the_directory(filled: QdrantVectorStore, folder: Path) -> None:
    filled.destroy()
    assert not (folder / "nuts").exists()


def test_the_default_place_is_the_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SAM_DETECT_HOME", str(tmp_path))
    assert libraries_dir() == tmp_path / "libraries"
    assert QdrantVectorStore().location == str(tmp_path / "libraries" / "sam_detect")


@pytest.mark.parametrize(
    "name", ["", ".", "..", ".hidden", "a/b", "../a", "a\\b", "a b", "ä", "a\n", "a~1", "x" * 101]
)
def test_names_that_are_no_names_are_refused(tmp_path: Path, name: str) -> None:
    with pytest.raises(ConfigError, match="name"):
        QdrantVectorStore(path=tmp_path, collection_name=name)


@pytest.mark.parametrize("name", ["a", "A-b_c.d", "x" * 100, "-x", "2024.01"])
def test_names_that_are(tmp_path: Path, name: str) -> None:
    assert QdrantVectorStore(path=tmp_path, collection_name=name).location.endswith(name)


@pytest.mark.parametrize(
    "arguments",
    [
        {"path": "x", "url": "http://localhost:6333"},
        {"batch_size": 0},
        {"lock_timeout_s": -1},
        {"url": "ftp://localhost"},
        {"url": "http://"},
        {"url": "http://localhost:port"},
    ],
)
def test_arguments_that_cannot_be(arguments: dict[str, Any]) -> None:
    with pytest.raises(ConfigError):
        QdrantVectorStore(**arguments)


def test_libraries_are_listed(folder: Path) -> None:
    assert embedded_collections(folder) == []
    for name in ("b", "a", "c.d"):
        QdrantVectorStore(path=folder, collection_name=name).upsert(points(1))
    (folder / "empty").mkdir()
    (folder / ".hidden").mkdir()
    (folder / "file").touch()
    assert embedded_collections(folder) == ["a", "b", "c.d"]
    (folder / "a" / "library.json").write_text("garbage")
    assert embedded_collections(folder) == ["a", "b", "c.d"]


def test_importing_the_room_imports_no_engine() -> None:
    code = (
        "import sys, sam_detect.vector_store as room; room.MemoryVectorStore; "
        "room.QdrantVectorStore(path='x'); "
        "print([m for m in ('qdrant_edge', 'qdrant_client', 'grpc', 'torch') if m in sys.modules])"
    )
    found = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert found.stdout.strip() == "[]"


# -- leftovers of killed processes -------------------------------------------------------------


def test_the_next_writer_removes_leftovers(filled: QdrantVectorStore, folder: Path) -> None:
    library = folder / "nuts"
    shutil.copytree(library / "shard-1", library / "shard-7")
    (library / "library.json.new").write_text("half")
    assert filled.count() == 300
    assert (library / "shard-7").exists(), "readers remove nothing"
    filled.upsert(points(1, first=1000))
    assert not (library / "shard-7").exists()
    assert filled.count() == 301


def test_a_library_killed_at_its_birth_is_empty(store: QdrantVectorStore, folder: Path) -> None:
    store.upsert(points(5))
    library = folder / "nuts"
    _files.LibraryFiles(library).write_state(_files.State())
    assert store.count() == 0
    store.upsert(points(2, dimension=9))
    assert store.count() == 2
    assert [path.name for path in library.glob("shard-*")] == ["shard-2"] or store.count() == 2


def test_a_killed_destroy_leaves_an_empty_library(
    filled: QdrantVectorStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_files.shutil, "rmtree", raiser(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        filled.destroy()
    monkeypatch.undo()
    assert filled.count() == 0
    assert filled.read_manifest() is None
    filled.upsert(points(3))
    assert filled.count() == 3


# -- damage ------------------------------------------------------------------------------------


def raiser(error: BaseException) -> Callable[..., Any]:
    def fail(*_args: Any, **_kwargs: Any) -> Any:
        raise error

    return fail


def cut(path: Path) -> None:
    os.truncate(path, path.stat().st_size // 2)


def garble(path: Path) -> None:
    with open(path, "r+b") as file:
        file.write(b"garbage!" * (min(path.stat().st_size, 4096) // 8 + 1))


def empty(path: Path) -> None:
    os.truncate(path, 0)


def remove(path: Path) -> None:
    shutil.rmtree(path) if path.is_dir() else path.unlink()


SEGMENT = "shard-1/segments/*/"
DAMAGES = [
    ("library.json", garble),
    ("library.json", cut),
    ("library.json", empty),
    ("library.json", remove),
    ("shard-1", remove),
    ("shard-1/edge_config.json", garble),
    ("shard-1/edge_config.json", empty),
    ("shard-1/segments", remove),
    ("shard-1/segments/*", remove),
    ("shard-1/wal/open-1", garble),
    ("shard-1/wal/open-1", empty),
    (SEGMENT + "segment.json", cut),
    (SEGMENT + "segment.json", remove),
    (SEGMENT + "version.info", empty),
    (SEGMENT + "version.info", remove),
    (SEGMENT + "mutable_id_tracker.mappings", garble),
    (SEGMENT + "payload_storage/page_0.dat", empty),
    (SEGMENT + "payload_storage/page_0.dat", garble),
    (SEGMENT + "payload_storage/tracker.dat", remove),
    (SEGMENT + "payload_storage/config.json", garble),
    (SEGMENT + "vector_storage/vectors/status.dat", cut),
    (SEGMENT + "vector_storage/vectors/status.dat", remove),
    (SEGMENT + "vector_storage/deleted/status.dat", empty),
    (SEGMENT + "vector_storage/vectors/chunk_0.mmap", empty),
    (SEGMENT + "vector_storage/vectors/chunk_0.mmap", remove),
]


def use_everything(store: QdrantVectorStore) -> None:
    store.read_manifest()
    store.count()
    store.search(np.ones((3, 4), np.float32), 5, fields=["n"])
    assert len(list(store.scan(with_vectors=True))) == 300


@pytest.mark.parametrize(
    ("pattern", "damage"), DAMAGES, ids=[f"{d.__name__} {p}" for p, d in DAMAGES]
)
def test_damage_is_one_line_and_nothing_is_removed(
    filled: QdrantVectorStore,
    folder: Path,
    capfd: pytest.CaptureFixture[str],
    pattern: str,
    damage: Callable[[Path], None],
) -> None:
    library = folder / "nuts"
    (path,) = library.glob(pattern)
    damage(path)
    before = files_of(library)
    with pytest.raises(LibraryCorruptError) as caught:
        use_everything(filled)
    message = str(caught.value)
    assert "\n" not in message
    for part in (str(library), "restore it from an export", "move the directory away"):
        assert part in message
    assert before <= files_of(library)
    assert embedded_collections(folder) == ["nuts"]
    out, err = capfd.readouterr()
    assert (out, err) == ("", "")
    with pytest.raises(LibraryCorruptError):
        use_everything(filled)


def test_points_lost_without_a_word_are_missed(folder: Path) -> None:
    """The engine forgets points whose entries are cut off, and says nothing."""
    store = QdrantVectorStore(path=folder, collection_name="nuts")
    for first in range(0, 300, 100):
        with store.session():
            store.upsert(points(100, first=first))
            store.write_manifest({"v": first})
    (mappings,) = (folder / "nuts").glob(SEGMENT + "mutable_id_tracker.mappings")
    empty(mappings)
    with pytest.raises(LibraryCorruptError, match="points are left of at least 300"):
        store.count()
    with pytest.raises(LibraryCorruptError):
        store.upsert(points(1, first=1000))


def test_deleting_lowers_what_is_expected(filled: QdrantVectorStore) -> None:
    filled.delete([point.id for point in points(290)])
    filled.write_manifest({"v": 2})
    assert filled.count() == 10
    filled.delete([point.id for point in points(300)])
    assert filled.count() == 0


@pytest.mark.parametrize(
    "content",
    [
        "[]",
        "{}",
        '{"format_version": 1, "data": [], "manifest": null}',
        '{"format_version": 1, "data": {"shard": "../x", "dimension": 4, "least_points": 0}, '
        '"manifest": null}',
        '{"format_version": 1, "data": {"shard": "shard-1", "dimension": "4", "least_points": 0}, '
        '"manifest": null}',
        '{"format_version": 1, "data": {"shard": null, "dimension": null, "least_points": 0}, '
        '"manifest": []}',
    ],
)
def test_a_state_of_another_shape_is_damage(
    filled: QdrantVectorStore, folder: Path, content: str
) -> None:
    (folder / "nuts" / "library.json").write_text(content)
    with pytest.raises(LibraryCorruptError):
        filled.count()
    with pytest.raises(LibraryCorruptError):
        filled.upsert(points(1))
    with pytest.raises(LibraryCorruptError):
        filled.destroy()
    assert (folder / "nuts" / "shard-1").is_dir()


def test_a_newer_format_asks_for_a_newer_program(filled: QdrantVectorStore, folder: Path) -> None:
    path = folder / "nuts" / "library.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "format_version": 2}))
    with pytest.raises(StoreError, match="newer"):
        filled.read_manifest()


@pytest.mark.parametrize("place", ["home", "home/libraries", "home/libraries/nuts"])
def test_a_file_where_a_directory_should_be(
    store: QdrantVectorStore, tmp_path: Path, place: str
) -> None:
    path = tmp_path / place
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("a file")
    calls: list[Callable[[], Any]] = [
        store.count,
        store.read_manifest,
        lambda: store.upsert(points(1)),
    ]
    for call in calls:
        with pytest.raises(StoreError, match="must be a directory") as caught:
            call()
        assert str(path) in str(caught.value)
    assert path.read_text() == "a file"


# -- errors of the system ----------------------------------------------------------------------

AS_ANOTHER = """
import os, sys
import filelock, numpy as np
from sam_detect.types import Point
from sam_detect.errors import SamDetectError
from sam_detect.vector_store import QdrantVectorStore, _engine
if os.getuid() == 0:  # only now: the interpreter's own files may be root's alone
    os.setgid(65534); os.setuid(65534)
store = QdrantVectorStore(path=sys.argv[1], collection_name="nuts", lock_timeout_s=0.3)
def add():
    store.upsert([Point("00000000-0000-0000-0000-00000000ffff", np.ones(4, np.float32), {})])
for call in (store.count, add):
    try:
        print("fine", call())
    except SamDetectError as error:
        print(type(error).__name__, error)
"""


def run_python(code: str, *arguments: str, **options: Any) -> list[str]:
    found = subprocess.run(
        [sys.executable, "-c", code, *arguments],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        **options,
    )
    assert (found.returncode, found.stderr) == (0, "")
    return found.stdout.splitlines()


@pytest.mark.parametrize("mode", [0o000, 0o500], ids=["unreadable", "read-only"])
def test_a_directory_without_permission(filled: QdrantVectorStore, folder: Path, mode: int) -> None:
    # Not below pytest's own folder, to which every run that begins denies others.
    with tempfile.TemporaryDirectory() as open_to_all:
        nuts = Path(open_to_all) / "nuts"
        shutil.copytree(folder / "nuts", nuts)
        nuts.parent.chmod(0o755)
        for path in nuts.rglob("*"):
            path.chmod(0o755 if path.is_dir() else 0o644)
        nuts.chmod(mode)
        if mode and os.getuid() == 0:
            os.chown(nuts, 65534, 65534)
            (nuts / ".lock").unlink()
        try:
            lines = run_python(AS_ANOTHER, open_to_all)
        finally:
            nuts.chmod(0o755)
        assert len(lines) == 2
        if mode:
            assert lines.pop(0) == "fine 300"
        for line in lines:
            assert line.startswith("StoreError")
            assert str(nuts) in line
            assert "permission" in line.lower()
        assert QdrantVectorStore(path=open_to_all, collection_name="nuts").count() == 300


def test_a_full_disk_is_seen_before_the_engine_meets_it(
    filled: QdrantVectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(_files.shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000_000))
    assert filled.count() == 300
    with pytest.raises(StoreError, match=r"full.*10\.0 MB are free"):
        filled.upsert(points(1, first=1000))
    with pytest.raises(StoreError, match="full"):
        filled.replace_all(points(1, first=1000), {})
    monkeypatch.setattr(_files.shutil, "disk_usage", lambda _: SimpleNamespace(free=10_000))
    with pytest.raises(StoreError, match="full"):
        filled.count()
    monkeypatch.undo()
    assert filled.count() == 300
    assert filled.read_manifest() == {"v": 1}


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    place = tmp_path / "disk"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=200m", "tmpfs", str(place)]
    if sys.platform != "linux" or subprocess.call(mount, stderr=subprocess.DEVNULL):
        pytest.skip("no small disk can be mounted here (needs Linux and root)")
    yield place
    subprocess.run(["umount", str(place)], check=True)


def test_filling_a_small_disk_keeps_what_was_acknowledged(small_disk: Path) -> None:
    code = """
import sys, uuid, numpy as np
from sam_detect.errors import StoreError
from sam_detect.types import Point
from sam_detect.vector_store import QdrantVectorStore
store = QdrantVectorStore(path=sys.argv[1], collection_name="nuts")
done = 0
try:
    while True:
        picture = np.random.default_rng(done).bytes(100_000).hex()
        ids = [str(uuid.UUID(int=done + n)) for n in range(8)]
        store.upsert([Point(i, np.ones(4, np.float32), {"p": picture}) for i in ids])
        done += 8
except StoreError as error:
    print(error)
print(done, store.count(), len(list(store.scan())))
"""
    message, counts = run_python(code, str(small_disk))
    assert "full" in message
    done, count, scanned = map(int, counts.split())
    assert done == count == scanned > 0


def test_a_file_size_limit_is_an_error_and_not_the_end(filled: QdrantVectorStore) -> None:
    resource = pytest.importorskip("resource")
    code = AS_ANOTHER.replace("os.getuid() == 0", "False")
    lines = run_python(
        code,
        str(Path(filled.location).parent / "new"),
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, 100_000)),
    )
    assert lines[0] == "fine 0"
    assert lines[1].startswith("StoreError")


def test_no_space_for_the_state_keeps_the_old(
    filled: QdrantVectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    full = OSError(errno.ENOSPC, "No space left on device")
    monkeypatch.setattr(_files.os, "fsync", raiser(full))
    with pytest.raises(StoreError, match="full"):
        filled.write_manifest({"v": 2})
    with pytest.raises(StoreError, match="full"):
        filled.replace_all(points(3), {"v": 2})
    monkeypatch.undo()
    assert filled.read_manifest() == {"v": 1}
    assert filled.count() == 300


def test_the_state_is_whole_and_on_disk_before_it_takes_the_place(
    filled: QdrantVectorStore, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment between is too short for a test that kills processes to meet it."""
    path, steps = folder / "nuts" / "library.json", list[str]()
    replace, fsync = os.replace, os.fsync

    def record_sync(descriptor: int) -> None:
        steps.append("fsync")
        fsync(descriptor)

    def record_replace(source: Path, target: Path) -> None:
        steps.append("replace")
        assert json.loads(path.read_text())["manifest"] == {"v": 1}
        assert json.loads(source.read_text())["manifest"] == {"v": 2}
        replace(source, target)

    monkeypatch.setattr(_files.os, "fsync", record_sync)
    monkeypatch.setattr(_files.os, "replace", record_replace)
    filled.write_manifest({"v": 2})
    assert steps == ["fsync", "replace", "fsync"]


def test_a_switch_that_fails_after_it_happened_keeps_the_new(
    filled: QdrantVectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The rename is done, then the directory cannot be synchronised: new content, still whole."""
    monkeypatch.setattr(_files, "sync_directory", raiser(OSError(errno.EIO, "I/O error")))
    with pytest.raises(StoreError):
        filled.replace_all(points(3), {"v": 2})
    monkeypatch.undo()
    assert filled.read_manifest() == {"v": 2}
    assert filled.count() == 3


# -- errors of the engine ----------------------------------------------------------------------


class Panic(BaseException):
    """As pyo3's PanicException: not an Exception."""


@pytest.mark.parametrize(
    ("error", "expected", "text"),
    [
        (Panic("index out of bounds"), StoreError, "could not be written: index out of bounds"),
        (Exception("IO Error: No space left on device"), StoreError, "full"),
        (Exception("Permission denied (os error 13)"), StoreError, "permissions"),
        (Exception("several\nlines\n of it"), StoreError, "several lines of it"),
    ],
)
def test_engine_errors_in_a_write_are_one_line(
    filled: QdrantVectorStore,
    monkeypatch: pytest.MonkeyPatch,
    error: BaseException,
    expected: type[Exception],
    text: str,
) -> None:
    monkeypatch.setattr(_engine.edge.UpdateOperation, "upsert_points", raiser(error), raising=False)
    with pytest.raises(expected, match=text) as caught:
        filled.upsert(points(1, first=1000))
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert filled.count() == 300


def test_a_shard_that_another_program_opened_is_busy(
    filled: QdrantVectorStore, folder: Path
) -> None:
    shard = _engine.edge.EdgeShard.load(str(folder / "nuts" / "shard-1"))
    try:
        with pytest.raises(LibraryBusyError, match="another program"):
            filled.count()
    finally:
        shard.close()
    assert filled.count() == 300


def test_interrupts_are_not_swallowed(
    filled: QdrantVectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        _engine.edge.UpdateOperation, "upsert_points", raiser(KeyboardInterrupt()), raising=False
    )
    with pytest.raises(KeyboardInterrupt):
        filled.upsert(points(1, first=1000))
    monkeypatch.undo()
    filled.upsert(points(1, first=1000))
    assert filled.count() == 301


def test_every_write_is_flushed_before_it_returns(
    filled: QdrantVectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Only a power cut would tell otherwise: what a killed process wrote, the system keeps."""
    calls: list[str] = []

    def record(name: str) -> None:
        real = getattr(_engine.Shard, name)

        def call(shard: _engine.Shard, *arguments: Any) -> Any:
            calls.append(name)
            return real(shard, *arguments)

        monkeypatch.setattr(_engine.Shard, name, call)

    for name in ("upsert", "delete", "flush", "close"):
        record(name)
    filled.upsert(points(100, first=1000))
    filled.delete([point.id for point in points(2)])
    filled.replace_all(points(3), {})
    writes = [name for name in calls if name != "close"]
    assert writes == ["upsert"] * 4 + ["flush", "delete", "flush", "upsert", "flush"]


# -- sessions and threads ----------------------------------------------------------------------


def test_a_session_keeps_other_stores_out_and_then_lets_them_in(
    filled: QdrantVectorStore, folder: Path
) -> None:
    other = QdrantVectorStore(path=folder, collection_name="nuts", lock_timeout_s=0.1)
    with filled.session():
        with pytest.raises(LibraryBusyError):
            other.count()
        assert other.read_manifest() == {"v": 1}
    assert other.count() == 300
    assert filled.count() == 300


def test_an_unfinished_scan_holds_the_library_until_it_is_closed(
    filled: QdrantVectorStore, folder: Path
) -> None:
    other = QdrantVectorStore(path=folder, collection_name="nuts", lock_timeout_s=0.1)
    scan = filled.scan()
    next(scan)
    with pytest.raises(LibraryBusyError):
        other.count()
    scan.close()  # type: ignore[attr-defined]
    assert other.count() == 300


def test_a_scan_may_wander_between_threads(filled: QdrantVectorStore) -> None:
    scan = filled.scan()
    seen = [next(scan).id]

    def go_on() -> None:
        seen.extend(point.id for point in scan)

    thread = threading.Thread(target=go_on)
    thread.start()
    thread.join()
    assert len(seen) == 300
    assert filled.count() == 300


def test_a_scan_over_a_replacement_says_so(filled: QdrantVectorStore) -> None:
    scan = filled.scan()
    next(scan)
    filled.replace_all(points(300, first=5000), {"v": 2})
    with pytest.raises(StoreError, match="replaced while it was read"):
        list(scan)
    assert filled.count() == 300


def test_a_batch_larger_than_the_log_arrives(store: QdrantVectorStore) -> None:
    large = [Point(p.id, p.vector, {"p": "z" * 9_000_000, "n": n}) for n, p in enumerate(points(5))]
    store.upsert(large)
    assert [(p.payload["n"], len(p.payload["p"])) for p in store.scan()] == [
        (n, 9_000_000) for n in range(5)
    ]


def test_unusual_field_names_are_just_names(store: QdrantVectorStore) -> None:
    payload = {"a.b": 1, "a": {"b": 2}, "a[0]": 3, 'quo"te': 4, "": 5, "ü": 6}
    store.upsert([Point(p.id, p.vector, payload) for p in points(1)])
    for name, value in payload.items():
        assert [p.payload for p in store.scan(fields=[name])] == [{name: value}]
