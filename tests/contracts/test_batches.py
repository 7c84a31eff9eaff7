"""Learning batches: listed, and taken back exactly, whatever happened to the library between."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from library_helpers import (
    PartsSegmenter,
    as_converted,
    contents,
    detector,
    disc_masks,
    discs,
    local_mode_store,
    taught,
    vectors,
)

from sam_detect.api import SAMDetect
from sam_detect.errors import LibraryError
from sam_detect.fading import LinearFade
from sam_detect.interfaces import VectorStore
from sam_detect.library.history import KEPT_STATES
from sam_detect.library.library import Library
from sam_detect.library.reindex import reindex
from sam_detect.library.transfer import copy_library, export_library, import_library
from sam_detect.vector_store import MemoryVectorStore
from tests.closeness import same_vectors

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact:UserWarning")


def everything(library: Library) -> dict[str, Any]:
    """All of every example, also its batch and its time."""
    return {p.id: (p.vector.tobytes(), p.payload) for p in library.points()}  # type: ignore[union-attr]


def learn(made: SAMDetect, name: str, *which: int, negative: bool = False, seed: int = 0) -> None:
    masks = disc_masks()[list(which)]
    made.add_examples_from_file(discs("nut", seed), masks, name, negative=negative)


STEPS = {
    "added": ("nut", (0, 1, 2), False),
    "relabelled": ("leaf", (1, 2), False),
    "relabelled again, and one added": ("berry", (2, 3), False),
    "taken back": ("leaf", (1,), True),
    "taken back, and a negative of nothing": ("berry", (2, 4), True),
    "taught again": ("berry", (2,), False),
    "denied again": ("berry", (2,), True),
    "taught as another": ("nut", (1,), False),
}


def test_each_batch_is_taken_back_exactly(store: VectorStore) -> None:
    made = detector(store, segmenter=PartsSegmenter())
    states = []
    for name, which, negative in STEPS.values():
        learn(made, name, *which, negative=negative)
        states.append(everything(made.library))
    log = made.library.log()
    assert [entry.time for entry in log] == sorted((e.time for e in log), reverse=True)
    assert len({entry.id for entry in log}) == len(STEPS)
    for before in [*states[-2::-1], {}]:
        undone = made.library.undo()
        assert undone.id == log.pop(0).id
        assert everything(made.library) == before
        assert len(made.snapshot().examples().ids) == len(before)
        assert [entry.id for entry in made.library.log()] == [entry.id for entry in log]
    with pytest.raises(LibraryError, match="has no learning batch that could be taken back"):
        made.library.undo()


def test_an_older_batch_is_taken_back_by_its_id(store: VectorStore) -> None:
    made = detector(store, segmenter=PartsSegmenter())
    learn(made, "nut", 0, 1)
    older = made.library.log()[0].id
    learn(made, "leaf", 1)
    learn(made, "berry", 2)
    newer = contents(made.library)
    assert made.library.undo(older).labels == {"nut": 1}, "only that was taken back"
    left = everything(made.library)
    assert sorted(made.library.stats()["classes"].items()) == [("berry", 1), ("leaf", 1)]
    kept = contents(made.library)
    assert kept == {key: newer[key] for key in kept}, "what was relabelled since is kept"
    with pytest.raises(LibraryError, match=f"no learning batch '{older[:-1]}x'"):
        made.library.undo(f"{older[:-1]}x")
    assert everything(made.library) == left


def test_a_batch_is_taken_back_once_and_no_other_undo_revives_it(store: VectorStore) -> None:
    made = detector(store, segmenter=PartsSegmenter())
    batches, states = [], []
    for name in ("nut", "leaf", "berry", "fig"):
        learn(made, name, 0, 1)
        batches.append(made.library.log()[0].id)
        states.append(contents(made.library))
    for taken in (1, 2):
        undone = made.library.undo(batches[taken])
        assert (undone.id, undone.examples, undone.relabelled) == (batches[taken], 0, 0)
        with pytest.raises(LibraryError, match="taken back already"):
            made.library.undo(batches[taken])
        assert contents(made.library) == states[3]
        assert batches[taken] not in [entry.id for entry in made.library.log()]
    assert made.library.undo().labels == {"fig": 2}
    assert contents(made.library) == states[0], "what the two had replaced"
    learn(made, "leaf", 0, 1)
    assert made.library.undo(batches[0]).examples == 0
    assert made.library.undo().relabelled == 0
    assert len(made.library) == 0, "the other undo does not revive it"


def test_the_log_says_what_each_batch_did(store: VectorStore) -> None:
    made = detector(store)
    for name, which, negative in STEPS.values():
        learn(made, name, *which, negative=negative)
    log = list(reversed([entry.to_dict() for entry in made.library.log()]))
    assert [entry["labels"] for entry in log] == [
        {"nut": 3}, {"leaf": 2}, {"berry": 2}, {}, {}, {"berry": 1}, {}, {"nut": 1}
    ]  # fmt: skip
    assert [entry["negatives"] for entry in log] == [
        {}, {}, {}, {"leaf": 1}, {"berry": 2}, {}, {"berry": 1}, {}
    ]  # fmt: skip
    assert [entry["relabelled"] for entry in log] == [0, 2, 1, 0, 0, 0, 0, 0]
    assert [entry["taken_back"] for entry in log] == [0, 0, 0, 1, 1, 1, 1, 0]
    assert {tuple(entry["sources"]) for entry in log} == {("array",)}


def test_one_batch_may_come_in_several_parts(store: VectorStore) -> None:
    """As one command learns many pictures; and one object may be in it under two names."""
    made = taught(store, "leaf")
    before = everything(made.library)
    batch = made.library.new_batch()
    for seed, name in ((5, "nut"), (6, "nut"), (5, "fig"), (6, "fig")):
        frame = made.read(discs("nut", seed))
        made.learn_frame(frame, made.pipeline.all_proposals(frame), [name] * 5, batch=batch)
    frame = made.read(discs("leaf", 0))
    made.learn_frame(frame, made.pipeline.all_proposals(frame), ["nut"] * 5, batch=batch)
    made.learn_frame(
        frame, made.pipeline.all_proposals(frame), ["nut"] * 5, negative=True, batch=batch
    )
    made.learn_frame(frame, made.pipeline.all_proposals(frame), ["berry"] * 5, batch=batch)
    assert len(made.library.log()) == 2
    assert made.library.undo().id == batch
    assert everything(made.library) == before


def test_what_was_renamed_removed_or_taught_meanwhile(store: VectorStore) -> None:
    made = taught(store, "nut")
    learn(made, "leaf", 0, 1)
    learn(made, "leaf", 0, negative=True)
    made.library.rename("leaf", "blade")
    made.library.rename("nut", "kernel")
    made.library.undo()
    assert made.library.stats()["classes"] == {"blade": 2, "kernel": 3}
    assert made.library.stats()["negatives"] == 0
    removed = next(e.id for e in made.library.read() if e.label == "blade")
    made.library.remove(ids=[removed])
    made.library.undo()
    assert made.library.stats()["classes"] == {"kernel": 4}
    made.library.undo()
    assert len(made.library) == 0


def test_batches_survive_a_reindex_an_export_and_a_push(store: VectorStore, tmp_path: Path) -> None:
    made = detector(store, segmenter=PartsSegmenter())
    for name, which, negative in STEPS.values():
        learn(made, name, *which, negative=negative)
    there, server = Library(MemoryVectorStore(), "there"), Library(local_mode_store(), "server")
    reindex(made.library, replace(made.pipeline.features, fade=LinearFade(9)))
    export_library(made.library, tmp_path / "x.samlib")
    import_library(there, tmp_path / "x.samlib")
    copy_library(made.library, server)
    log = [entry.to_dict() for entry in made.library.log()]
    assert len(log) == len(STEPS)
    for library in (there, server):
        assert [entry.to_dict() for entry in library.log()] == log
    maker = replace(made.pipeline.features, fade=LinearFade(9))
    for _ in range(len(STEPS) - 1):
        for library in (made.library, there, server):
            library.undo()
            assert everything(library) == everything(made.library)
        kept = vectors(made.library)
        reindex(made.library, maker)
        assert all(same_vectors(kept[key], new) for key, new in vectors(made.library).items())


def test_what_is_older_than_batches_is_not_taken_back(store: VectorStore) -> None:
    made = taught(store, "nut")
    as_converted(made.library)
    again = detector(store)
    with pytest.raises(LibraryError, match="its 5 examples are older than that"):
        again.library.undo()
    learn(again, "leaf", 0)
    before = contents(again.library)
    assert [entry.to_dict()["batch"] is None for entry in again.library.log()] == [False, True]
    learn(again, "berry", 0, 1)
    again.library.undo()
    assert contents(again.library) == before
    again.library.undo()
    assert again.library.stats()["classes"] == {"nut": 5}


def test_an_object_with_a_long_history_stays_small(store: VectorStore) -> None:
    made = detector(store)
    for number in range(KEPT_STATES + 10):
        learn(made, f"name {number}", 0)
    [point] = made.library.store.scan()
    assert len(point.payload["before"]) == KEPT_STATES
    for number in reversed(range(10, KEPT_STATES + 9)):
        made.library.undo()
        assert made.library.stats()["classes"] == {f"name {number}": 1}


def test_a_clock_that_goes_back_changes_no_order(
    store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    from sam_detect.library import history

    made = taught(store, "nut")

    class Earlier(history.datetime):  # type: ignore[misc, name-defined]
        @classmethod
        def now(cls, tz: Any = None) -> Any:
            return super().now(tz).replace(year=2020)

    monkeypatch.setattr(history, "datetime", Earlier)
    learn(made, "leaf", 0)
    if store.exclusive:
        assert made.library.undo().labels == {"leaf": 1}
