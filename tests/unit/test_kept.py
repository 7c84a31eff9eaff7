"""Kept files: whole or not there, for these very examples, whatever happens to the file."""

from __future__ import annotations

import os
import subprocess
import sys
import time
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest

from sam_detect.labelling import examples, fitting
from sam_detect.labelling.examples import KNNLabeller
from sam_detect.labelling.fitting import Fitted
from sam_detect.library import snapshot as snapshots
from sam_detect.library.kept import MOST_FITS, KeptFiles
from sam_detect.library.library import Library
from sam_detect.library.snapshot import LibrarySnapshot
from sam_detect.library.snapshot_reader import SnapshotReader
from sam_detect.types import Frame
from sam_detect.vector_store._access import HeldLibrary
from sam_detect.vector_store.qdrant import QdrantVectorStore
from tests.library_helpers import PartsSegmenter, detector, disc_masks, discs, taught


@dataclass(frozen=True, eq=False)
class Inner:
    matrix: npt.NDArray[np.float32]
    share: float


@dataclass(frozen=True, eq=False)
class Outer:
    name: str
    inner: Inner | None
    by_label: Mapping[str, npt.NDArray[np.int64]]
    pairs: tuple[tuple[str, float], ...] = ()
    flags: dict[str, bool] = field(default_factory=dict)


KEPT = Outer(
    "nüts",
    Inner(np.arange(6, dtype=np.float32).reshape(2, 3), 0.5),
    {"date": np.array([3, 1]), "none": np.zeros((0,), np.int64)},
    (("a", 0.25), ("b", 1.0)),
    {"yes": True},
)


def same(one: Outer, other: Outer) -> bool:
    assert one.inner is not None
    assert other.inner is not None
    np.testing.assert_array_equal(one.inner.matrix, other.inner.matrix)
    assert one.by_label.keys() == other.by_label.keys()
    for label, array in one.by_label.items():
        np.testing.assert_array_equal(array, other.by_label[label])
        assert array.dtype == other.by_label[label].dtype
    return (one.name, one.pairs, one.flags, one.inner.share) == (
        other.name, other.pairs, other.flags, other.inner.share
    )  # fmt: skip


def test_what_is_kept_comes_back(tmp_path: Path) -> None:
    files = KeptFiles(tmp_path / "kept")
    files.write("one", "key", KEPT)
    found = files.read("one", "key", Outer)
    assert found is not None
    assert same(found, KEPT)
    files.write("one", "key", replace(KEPT, inner=None))
    found = files.read("one", "key", Outer)
    assert found is not None
    assert found.inner is None


def test_another_key_another_type_and_no_folder_give_nothing(tmp_path: Path) -> None:
    files = KeptFiles(tmp_path / "kept")
    files.write("one", "key", KEPT)
    assert files.read("one", "other", Outer) is None
    assert files.read("two", "key", Outer) is None
    assert files.read("one", "key", Inner) is None
    nowhere = KeptFiles(None)
    nowhere.write("one", "key", KEPT)
    assert nowhere.read("one", "key", Outer) is None
    gone = KeptFiles(tmp_path / "removed" / "kept")
    gone.write("one", "key", KEPT)
    assert not (tmp_path / "removed").exists()


def test_every_byte_that_is_struck_is_noticed(tmp_path: Path) -> None:
    files = KeptFiles(tmp_path)
    files.write("one", "key", KEPT)
    path = tmp_path / "one.kept"
    sound = path.read_bytes()
    for place in range(len(sound)):
        path.write_bytes(sound[:place] + bytes([sound[place] ^ 0x10]) + sound[place + 1 :])
        assert files.read("one", "key", Outer) is None, place
    for length in range(0, len(sound), 7):
        path.write_bytes(sound[:length])
        assert files.read("one", "key", Outer) is None, length
    path.write_bytes(sound)
    assert files.read("one", "key", Outer) is not None


def test_only_some_fits_stay(tmp_path: Path) -> None:
    files = KeptFiles(tmp_path)
    files.write("examples", "key", KEPT)
    os.utime(tmp_path / "examples.kept", (0, 0))
    for number in range(MOST_FITS + 3):
        files.write(f"fit-{number}", "key", KEPT)
        os.utime(tmp_path / f"fit-{number}.kept", (number, number))
    assert files.read("examples", "key", Outer) is not None
    assert len(list(tmp_path.glob("fit-*"))) <= MOST_FITS + 1
    assert files.read(f"fit-{MOST_FITS + 2}", "key", Outer) is not None


# -- of a library --------------------------------------------------------------------------------


@pytest.fixture
def library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Library:
    """Fifteen examples with hard negatives, enough to be kept."""
    monkeypatch.setattr(snapshots, "KEPT_FROM", 5)
    store = QdrantVectorStore(path=tmp_path, collection_name="kept")
    return taught(store, "nut", "leaf", "berry", segmenter=PartsSegmenter()).library


def kept_path(library: Library) -> Path:
    assert library.store.kept_path is not None
    return library.store.kept_path


def read(library: Library) -> LibrarySnapshot:
    """As a new process reads it."""
    folder = kept_path(library).parent
    store = QdrantVectorStore(path=folder.parent, collection_name=folder.name)
    return SnapshotReader(Library(store, folder.name)).snapshot()


def fitted(snapshot: LibrarySnapshot) -> Fitted:
    return KNNLabeller().fitted_to(snapshot, None)


def alike(one: LibrarySnapshot, other: LibrarySnapshot) -> None:
    mine, theirs = one.examples(), other.examples()
    assert (mine.ids, mine.labels, mine.sources) == (theirs.ids, theirs.labels, theirs.sources)
    for name in ("vectors", "areas", "negatives", "boxes_xywh", "qualities"):
        np.testing.assert_array_equal(getattr(mine, name), getattr(theirs, name))
    around, theirs_around = mine.hard_negatives, theirs.hard_negatives
    np.testing.assert_array_equal(around.vectors, theirs_around.vectors)
    np.testing.assert_array_equal(around.owners, theirs_around.owners)
    assert one.complete == other.complete
    a, b = fitted(one), fitted(other)
    assert a.calibration == b.calibration
    np.testing.assert_array_equal(a.metric.directions, b.metric.directions)
    assert (a.decision is None) == (b.decision is None)
    if a.decision is not None and b.decision is not None:
        assert a.decision.qualities == b.decision.qualities
        np.testing.assert_array_equal(a.decision.hard_negatives, b.decision.hard_negatives)
        for label, rows in a.decision.not_of.items():
            np.testing.assert_array_equal(rows, b.decision.not_of[label])


def unkept(library: Library) -> LibrarySnapshot:
    """As it is read from the store alone."""
    for path in kept_path(library).glob("*"):
        path.unlink()
    return read(library)


def test_the_second_process_opens_no_engine_and_fits_nothing(
    library: Library, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = read(library)
    assert len(first.examples().hard_negatives.owners)
    assert fitted(first).decision is not None
    with monkeypatch.context() as closed:
        closed.setattr(HeldLibrary, "open", lambda *_: pytest.fail("the engine was opened"))
        closed.setattr(examples, "fit", lambda *_, **__: pytest.fail("it was fitted again"))
        second = read(library)
        alike(first, second)
        taught_there = second.taught(Frame(discs("leaf", 1)[:, :, ::-1].copy(), "array"))
        assert {each.label for each in taught_there.examples} == {"leaf"}
        assert len(taught_there.masks) == 5
    alike(second, unkept(library))


def test_a_small_library_keeps_nothing(tmp_path: Path) -> None:
    library = taught(QdrantVectorStore(path=tmp_path, collection_name="small")).library
    fitted(read(library))
    assert not kept_path(library).exists()


def test_what_was_learnt_or_removed_is_seen(library: Library) -> None:
    fitted(read(library))
    made = detector(library.store, segmenter=PartsSegmenter())
    made.add_examples_from_file(discs("nut", 9), disc_masks(), "date")
    found = read(library)
    assert set(found.examples().labels) == {"nut", "leaf", "berry", "date"}
    alike(found, unkept(library))
    read(library)
    made.add_examples_from_file(discs("nut", 10), disc_masks(), "date")  # no new label
    alike(read(library), unkept(library))
    assert set(fitted(found).calibration.thresholds) == {"nut", "leaf", "berry", "date"}
    library.remove(label="nut")
    assert set(fitted(read(library)).calibration.thresholds) == {"leaf", "berry", "date"}
    alike(read(library), unkept(library))


@pytest.fixture
def fits(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Grows with each fit."""
    counted: list[int] = []

    def fit(*given: Any, **options: Any) -> Fitted:
        counted.append(1)
        return fitting.fit(*given, **options)

    monkeypatch.setattr(examples, "fit", fit)
    return counted


def test_an_embedder_that_weighs_otherwise_is_fitted_anew(
    library: Library, fits: list[int]
) -> None:
    first = read(library)
    fitted(first)
    arrays = replace(first.examples(), scene_weights=np.full(3, 0.5, np.float32))
    fitted(replace(first, arrays=arrays))
    fitted(replace(first, arrays=arrays))
    assert len(fits) == 2


def test_other_code_reads_and_fits_anew(
    library: Library, fits: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    fitted(read(library))
    monkeypatch.setattr("sam_detect.library.kept._code_of", lambda _: "another version")
    fitted(read(library))
    assert len(fits) == 2


@pytest.mark.parametrize("name", ["examples", "fit-*"])
def test_a_damaged_file_is_made_again(library: Library, name: str) -> None:
    sound = read(library)
    fitted(sound)
    [path] = kept_path(library).glob(f"{name}.kept")
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(content)
    alike(read(library), sound)
    assert path.read_bytes() != bytes(content)


def test_where_nothing_can_be_kept_all_else_works(library: Library) -> None:
    kept_path(library).write_text("a file in its place")
    sound = read(library)
    assert fitted(sound).decision is not None
    assert kept_path(library).read_text() == "a file in its place"


def test_a_library_that_is_removed_takes_its_kept_files_along(library: Library) -> None:
    fitted(read(library))
    library.destroy()
    assert not kept_path(library).parent.exists()


WORKER = """
import sys
import numpy as np
from pathlib import Path
from typing import Any
from sam_detect.labelling.examples import KNNLabeller
from sam_detect.library import snapshot
from sam_detect.library.library import Library
from sam_detect.library.snapshot_reader import SnapshotReader
from sam_detect.types import Frame
from sam_detect.vector_store._access import HeldLibrary
from sam_detect.vector_store.qdrant import QdrantVectorStore

snapshot.KEPT_FROM = 5
folder, rounds = Path(sys.argv[1]), int(sys.argv[2])
print("ready", flush=True)
for _ in range(rounds):
    for path in (folder / "kept").glob("*.kept"):
        path.unlink(missing_ok=True)
    library = Library(QdrantVectorStore(path=folder.parent, collection_name=folder.name), "kept")
    found = SnapshotReader(library).snapshot()
    thresholds = KNNLabeller().fitted_to(found, None).calibration.thresholds
print(sorted(thresholds.items()))
"""


def worker(library: Library, rounds: int) -> subprocess.Popen[str]:
    command = [sys.executable, "-c", WORKER, str(kept_path(library).parent), str(rounds)]
    started = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert started.stdout is not None
    assert started.stdout.readline() == "ready\n"
    return started


def test_processes_that_fit_at_once_agree(library: Library) -> None:
    expected = sorted(fitted(read(library)).calibration.thresholds.items())
    for each in [worker(library, 5), worker(library, 5)]:
        assert each.communicate(timeout=60)[0] == f"{expected}\n"
    alike(read(library), unkept(library))


def test_a_process_killed_while_it_keeps_leaves_nothing_wrong(library: Library) -> None:
    sound = unkept(library)
    for wait in (0.0, 0.05, 0.2):
        killed = worker(library, 1000)
        time.sleep(wait)
        killed.kill()
        killed.communicate()
        alike(read(library), sound)
