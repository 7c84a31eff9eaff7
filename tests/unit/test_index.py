"""The index of a large library: it finds what the store finds, whatever was done to either."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from sam_detect.labelling.examples import KNNLabeller
from sam_detect.library import index as indices
from sam_detect.library import snapshot as snapshots
from sam_detect.library import snapshot_reader
from sam_detect.library.example import with_checksums
from sam_detect.library.index import ExampleIndex, IndexWriter
from sam_detect.library.library import Library
from sam_detect.library.snapshot import LibrarySnapshot, search
from sam_detect.types import Neighbour
from scripts.dev.bench.library import Drawn

SIZE, LIMIT = 100, 60
DRAWN = Drawn(SIZE)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A library of more examples than a snapshot takes, that was read once."""
    monkeypatch.setattr(snapshot_reader, "SNAPSHOT_LIMIT", LIMIT)
    monkeypatch.setattr(snapshots, "KEPT_FROM", 10)
    monkeypatch.setattr(indices, "BLOCK_ROWS", 50)
    DRAWN.fill(tmp_path)
    DRAWN.snapshot(tmp_path)
    return tmp_path


@pytest.fixture
def never_made_anew(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ExampleIndex, "build", lambda *_: pytest.fail("the index was made anew"))


def library(folder: Path) -> Library:
    return Drawn.library(folder)


def require_same_as_store(folder: Path) -> LibrarySnapshot:
    """The snapshot of a new process, which answers as the store does."""
    read = DRAWN.snapshot(folder)
    assert isinstance(read.outlines, ExampleIndex)
    assert len(read.outlines) == library(folder).store.count()
    for limit in (1, SIZE + 50):
        mine = read.nearest(DRAWN.candidates[:9], limit)
        theirs = search(library(folder).store, DRAWN.candidates[:9], limit)
        for ours, expected in zip(mine, theirs, strict=True):
            assert [plain(each) for each in ours] == [plain(each) for each in expected]
            np.testing.assert_allclose(
                [each.similarity for each in ours],
                [each.similarity for each in expected], atol=1e-5,
            )  # fmt: skip
    [found] = read.nearest(DRAWN.candidates[:1], 30)
    stored = {p.id: p for p in library(folder).store.scan(with_vectors=True)}
    np.testing.assert_array_equal(
        read.vectors([each.id for each in found]), [stored[each.id].vector for each in found]
    )
    pictures = {point.payload["picture"] for point in stored.values()}
    for picture in pictures:
        assert [point.id for point in read.outlines.of_picture(picture)] == sorted(
            key for key, point in stored.items() if point.payload["picture"] == picture
        )
    assert not read.outlines.of_picture("f" * 32)
    assert set(read.examples().ids) <= set(stored)
    return read


def plain(each: Neighbour) -> tuple[str, str, bool]:
    return each.id, each.label, each.negative


def test_it_answers_as_the_store_does_without_opening_it(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = require_same_as_store(folder)
    expected = KNNLabeller().label(DRAWN.candidates, first)
    monkeypatch.setattr(
        "sam_detect.vector_store._access.HeldLibrary.open",
        lambda *_: pytest.fail("the engine was opened"),
    )
    read = DRAWN.snapshot(folder)
    assert not read.complete
    assert len(read.examples().ids) == LIMIT
    labelled = KNNLabeller().label(DRAWN.candidates, read)
    assert [each.label for each in labelled] == [each.label for each in expected]
    assert [each.confidence for each in labelled] == [each.confidence for each in expected]


def test_equal_vectors_rank_by_id(folder: Path) -> None:
    points = [replace(DRAWN.point(SIZE + n), vector=DRAWN.candidates[0]) for n in range(20)]
    library(folder).add([with_checksums(point) for point in points], DRAWN.recipe)
    read = require_same_as_store(folder)
    [found] = read.nearest(DRAWN.candidates[:1], 20)
    assert [each.id for each in found] == sorted(point.id for point in points)


@pytest.mark.usefixtures("never_made_anew")
def test_learning_renaming_relabelling_and_removing_keep_it_up_to_date(folder: Path) -> None:
    def negative(number: int) -> object:
        point = DRAWN.point(number)
        return with_checksums(replace(point, payload={**point.payload, "negative": True}))

    library(folder).add([DRAWN.point(SIZE), negative(SIZE + 1)], DRAWN.recipe)  # type: ignore[list-item]
    require_same_as_store(folder)
    library(folder).rename("label 3", "label three")
    require_same_as_store(folder)
    library(folder).remove(label="label 5")
    require_same_as_store(folder)
    point = DRAWN.point(7)
    other = with_checksums(replace(point, payload={**point.payload, "label": "another"}))
    library(folder).add([other], DRAWN.recipe, batch=library(folder).new_batch())
    read = require_same_as_store(folder)
    [found] = read.nearest(np.asarray(point.vector)[None], 1)
    assert (found[0].id, found[0].label) == (point.id, "another")
    library(folder).undo()
    require_same_as_store(folder)


def test_the_sample_does_not_depend_on_the_order_of_learning(tmp_path: Path, folder: Path) -> None:
    other = tmp_path / "other"
    numbers = list(range(SIZE))[::-1]
    for start in range(0, SIZE, 30):
        points = [DRAWN.point(number) for number in numbers[start : start + 30]]
        library(other).add(points, DRAWN.recipe)
        DRAWN.snapshot(other)
    one, two = DRAWN.snapshot(folder), DRAWN.snapshot(other)
    assert one.examples().ids == two.examples().ids
    assert {one.examples().labels.count(label) for label in one.examples().labels} == {LIMIT // 20}


def test_with_many_rows_that_do_not_count_it_is_made_anew(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(indices, "MOST_REMOVED", 3)
    library(folder).remove(label="label 5")
    require_same_as_store(folder)
    [rows] = (folder / "bench" / "kept").glob("*.rows")
    assert rows.stat().st_size == indices.ROW.itemsize * (SIZE - SIZE // 20)


@pytest.mark.parametrize("name", ["vectors", "rows", "outlines"])
def test_what_is_damaged_is_not_believed(folder: Path, name: str) -> None:
    [path] = (folder / "bench" / "kept").glob(f"*.{name}")
    sound = path.read_bytes()
    for place in range(3, len(sound), len(sound) // 3):
        require_same_as_store(folder)  # made anew, where it was damaged before
        [path] = (folder / "bench" / "kept").glob(f"*.{name}")
        content = bytearray(path.read_bytes())
        content[place] ^= 0x40
        path.write_bytes(content)
        read = DRAWN.snapshot(folder)
        asked = np.stack([p.vector for p in library(folder).store.scan(with_vectors=True)])  # type: ignore[misc]
        mine = read.nearest(asked, 3)
        theirs = search(library(folder).store, asked, 3)
        assert [[plain(n) for n in row] for row in mine] == [
            [plain(n) for n in row] for row in theirs
        ]


def test_a_file_that_is_cut_off_or_gone_is_made_anew(folder: Path) -> None:
    for name in indices.NAMES:
        [path] = (folder / "bench" / "kept").glob(f"*.{name}")
        path.write_bytes(path.read_bytes()[:-5])
        require_same_as_store(folder)
        [path] = (folder / "bench" / "kept").glob(f"*.{name}")
        path.write_bytes(path.read_bytes()[:-5])
        library(folder).add([DRAWN.point(SIZE + 10 * len(name))], DRAWN.recipe)
        [head] = (folder / "bench" / "kept").glob("index.kept")
        assert head.stat().st_mtime_ns < path.stat().st_mtime_ns, "a writer appended to a stump"
        require_same_as_store(folder)
        [path] = (folder / "bench" / "kept").glob(f"*.{name}")
        path.unlink()
        library(folder).add([DRAWN.point(SIZE + len(name))], DRAWN.recipe)
        require_same_as_store(folder)


@pytest.mark.parametrize("step", ["append", "remove", "finish"])
def test_a_writer_that_is_killed_leaves_nothing_wrong(
    folder: Path, step: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    class KilledError(BaseException):
        pass

    def killed(*_: object) -> None:
        raise KilledError

    with monkeypatch.context() as until:
        until.setattr(IndexWriter, step, killed)
        with pytest.raises(KilledError):
            library(folder).add([DRAWN.point(SIZE)], DRAWN.recipe)
    require_same_as_store(folder)
    library(folder).add([DRAWN.point(SIZE + 1)], DRAWN.recipe)
    require_same_as_store(folder)


def test_where_it_cannot_be_written_the_store_is_searched(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError("no space left")

    expected = DRAWN.snapshot(folder).nearest(DRAWN.candidates, 5)
    monkeypatch.setattr(indices, "ExitStack", full)
    library(folder).add([DRAWN.point(SIZE)], DRAWN.recipe)
    read = DRAWN.snapshot(folder)
    assert read.index is None
    found = read.nearest(DRAWN.candidates, 5)
    same = [a == b for a, b in zip(map(ids_of, found), map(ids_of, expected), strict=True)]
    assert np.mean(same) > 0.9
    assert read.outlines.of_picture(f"{0:032x}")


def ids_of(row: list[Neighbour]) -> list[str]:
    return [each.id for each in row]


def test_a_label_with_one_example_has_it_in_the_sample(folder: Path) -> None:
    point = DRAWN.point(SIZE)
    rare = with_checksums(replace(point, payload={**point.payload, "label": "rare"}))
    library(folder).add([rare], DRAWN.recipe)
    read = require_same_as_store(folder)
    assert read.examples().labels.count("rare") == 1
    assert KNNLabeller().label(np.asarray(point.vector)[None], read)[0].best_label is not None
