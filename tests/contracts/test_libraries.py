"""What a library promises, over every kind of store it can live in."""

from __future__ import annotations

import re
import uuid
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from closeness import SCORE_TOLERANCE
from library_helpers import (
    DiscSegmenter,
    PartsSegmenter,
    around_vectors,
    as_converted,
    as_older_format,
    contents,
    detector,
    disc_masks,
    discs,
    local_mode_store,
    snapshot_of,
    taught,
    unrecorded,
    vectors,
)

from sam_detect.errors import (
    ExampleNotFoundError,
    LibraryCorruptError,
    LibraryError,
    LibraryNotFoundError,
    RecipeMismatchError,
)
from sam_detect.fading import GaussianFade, LinearFade
from sam_detect.interfaces import VectorStore
from sam_detect.library import manifest as manifests
from sam_detect.library import snapshot_reader
from sam_detect.library.archive import write_archive
from sam_detect.library.example import with_checksums
from sam_detect.library.library import Library
from sam_detect.library.manifest import BATCH_PATTERN
from sam_detect.library.reindex import reindex
from sam_detect.library.transfer import copy_library, export_library, import_library
from sam_detect.types import Point
from sam_detect.vector_store import MemoryVectorStore
from tests.closeness import same_vectors

pytestmark = pytest.mark.filterwarnings("ignore:Local mode performs exact:UserWarning")


# -- learning ----------------------------------------------------------------------------------


def test_equal_discs_of_one_picture_are_examples_of_their_own(store: VectorStore) -> None:
    made = detector(store)
    done = made.add_examples_from_file(discs(), disc_masks(), "nut")
    assert (done.added, done.relabelled, done.total) == (5, 0, 5)
    assert len(made.library) == 5
    assert made.library.stats()["classes"] == {"nut": 5}


def test_learning_again_adds_nothing_and_another_label_corrects(store: VectorStore) -> None:
    made = taught(store, "nut")
    before = contents(made.library)
    again = made.add_examples_from_file(discs(), disc_masks(), "nut")
    assert (again.added, again.relabelled, again.total) == (0, 0, 5)
    assert contents(made.library) == before
    named = made.add_examples_from_file(discs(), disc_masks()[:2], "hazelnut")
    assert (named.added, named.relabelled, named.total) == (0, 2, 5)
    assert made.library.stats()["classes"] == {"hazelnut": 2, "nut": 3}


def test_an_object_can_be_a_negative_of_several_labels(store: VectorStore) -> None:
    made = taught(store, "nut")
    for label in ("leaf", "berry", "leaf"):
        done = made.add_examples_from_file(discs(), disc_masks()[:1], label, negative=True)
    assert done.total == 7
    stats = made.library.stats()
    assert (stats["examples"], stats["negatives"], stats["classes"]) == (7, 2, {"nut": 5})
    found = made.snapshot().examples()
    assert sorted(np.array(found.labels)[found.negatives]) == ["berry", "leaf"]


def test_provenance_comes_back(store: VectorStore) -> None:
    made = detector(store)
    frame = made.read(discs())
    frame = replace(frame, source_id="Ø folder/東京.png")
    made.add_examples_from_file(frame, disc_masks(), "nut")
    found = sorted(made.library.read(), key=lambda e: (e.bbox[1], e.bbox[0]))
    assert [e.bbox for e in found][:2] == [[14, 14, 33, 33], [104, 18, 33, 33]]
    masks = disc_masks()
    for example in found:
        assert example.source == "Ø folder/東京.png"
        assert example.area == int(masks[0].sum())
        assert example.added.endswith("+00:00")
        assert example.segmentation["size"] == [160, 160]
        assert example.vector is not None
        assert example.picture in ("", frame.digest)
        middle = example.crop.image_rgb[tuple(side // 2 for side in example.crop.mask.shape)]
        assert middle.tolist() == [200, 120, 60], "RGB of the disc"


def test_a_new_library_takes_what_it_is_taught_by_default(store: VectorStore) -> None:
    taught(store, "nut", fade_strategy=LinearFade(max_distance=20))
    again = detector(store, embedder=None)
    assert (again.recipe.embedder, again.recipe.fade) == ("average", "linear")
    assert [d.label for d in again.detect(discs("nut", 9))] == ["nut"] * 5


def test_an_unknown_name_is_left_unknown_until_learnt(store: VectorStore) -> None:
    made = taught(store, "nut", "leaf")
    assert [d.label for d in made.detect(discs("leaf", 9))] == ["leaf"] * 5
    made.add_examples_from_file(discs("berry", 3), disc_masks(), "berry")
    assert [d.label for d in made.detect(discs("berry", 8))] == ["berry"] * 5


# -- editing -----------------------------------------------------------------------------------


def test_rename_and_remove(store: VectorStore) -> None:
    library = taught(store).library
    assert library.rename("nut", "Nuß 東京") == 5
    assert library.stats()["classes"] == {"Nuß 東京": 5, "leaf": 5}
    first = next(library.listing("leaf")).id
    assert library.remove(ids=[first[:8], first.upper()]) == 1
    assert library.remove(label="Nuß 東京") == 5
    assert len(library) == 4
    with pytest.raises(LibraryError, match=r"no label 'nut' \(it has: leaf\)"):
        library.rename("nut", "date")
    with pytest.raises(LibraryError, match=f"no example '{first}'"):
        library.remove(ids=[next(library.listing()).id, first])
    with pytest.raises(LibraryError, match="no example 'zz'"):
        library.get("zz")
    with pytest.raises(LibraryError, match="no example ''"):
        library.remove(ids=[""])
    assert len(library) == 4
    assert library.destroy() == 4
    with pytest.raises(LibraryNotFoundError):
        library.destroy()


def test_an_example_that_is_removed_while_it_is_read(
    store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    library = taught(store).library
    chosen = next(library.listing("leaf")).id

    with monkeypatch.context() as patched:
        patched.setattr(Library, "read", lambda *_: iter(()))
        with pytest.raises(ExampleNotFoundError, match=f"no example '{chosen}' among its 10"):
            library.get(chosen)
    assert library.get(chosen).label == "leaf"


def test_a_renamed_negative_leaves_its_old_label_free(store: VectorStore) -> None:
    """Its id has the label in it: kept, "not nut" learnt again would overwrite "not date"."""
    made = taught(store, "leaf")
    made.add_examples_from_file(discs("leaf"), disc_masks()[:1], "nut", negative=True)
    assert made.library.rename("nut", "date") == 1
    made.add_examples_from_file(discs("leaf"), disc_masks()[:1], "nut", negative=True)
    found = made.snapshot().examples()
    assert sorted(np.array(found.labels)[found.negatives]) == ["date", "nut"]


def test_a_renamed_negative_has_the_id_of_one_learnt_so(store: VectorStore) -> None:
    made = taught(store, "leaf")
    made.add_examples_from_file(discs("leaf"), disc_masks()[:1], "nut", negative=True)
    (old,) = [e for e in made.library.read() if e.negative]
    digest = made.read(discs("leaf")).digest
    made.library.remove(ids=[old.id])
    made.library.add([replace(old, picture=digest)], made.recipe)
    made.library.rename("nut", "date")
    again = made.add_examples_from_file(discs("leaf"), disc_masks()[:1], "date", negative=True)
    assert (again.added, again.relabelled, again.total) == (0, 0, 6)


def test_renaming_to_itself_changes_nothing(store: VectorStore) -> None:
    made = taught(store, "nut")
    made.add_examples_from_file(discs("leaf"), disc_masks()[:1], "nut", negative=True)
    before = contents(made.library)
    assert made.library.rename("nut", "nut") == 6
    assert contents(made.library) == before


@pytest.mark.parametrize(
    "label", ["", " \t", "two\nlines", "a\x00b", "x" * 201, "\u2028", "a\x1b[1m"]
)
def test_what_is_no_name_is_refused(label: str) -> None:
    store = MemoryVectorStore()
    made = taught(store, "nut")
    with pytest.raises(LibraryError) as caught:
        made.add_examples_from_file(discs("leaf"), disc_masks(), label)
    assert "\n" not in str(caught.value)
    with pytest.raises(LibraryError):
        made.library.rename("nut", label)
    assert made.library.stats()["classes"] == {"nut": 5}


@pytest.mark.parametrize("label", ["x" * 200, "Ø 東京 🌰", "[bold]nut[/bold]", "--label", "a, b"])
def test_any_line_of_text_is_a_name(label: str) -> None:
    store = MemoryVectorStore()
    made = detector(store)
    made.add_examples_from_file(discs(), disc_masks(), label)
    assert made.library.stats()["classes"] == {label: 5}
    assert made.detect(discs(seed=4))[0].label == label


# -- generations -------------------------------------------------------------------------------


def test_every_change_is_another_generation_also_after_a_new_start(store: VectorStore) -> None:
    reader, writer = detector(store), detector(store)
    seen = [reader.library.generation]

    def changed() -> bool:
        seen.append(reader.library.generation)
        return len(set(seen)) == len(seen)

    writer.add_examples_from_file(discs(), disc_masks(), "nut")
    assert changed()
    writer.library.rename("nut", "leaf")
    assert changed()
    assert reader.detect(discs(seed=3))[0].label == "leaf"
    writer.library.remove(ids=[next(writer.library.listing()).id])
    assert changed()
    writer.library.destroy()
    # A counter would be where it was by now, and the reader would answer from the library before.
    for label in ("a", "b", "c"):
        writer.add_examples_from_file(discs("leaf"), disc_masks(), label)
        assert changed()
    assert reader.detect(discs("leaf", 3))[0].label == "c"
    reindex(writer.library, replace(writer.pipeline.features, fade=LinearFade(20)))
    assert changed()


def test_what_a_killed_writer_left_is_announced_by_the_next(store: VectorStore) -> None:
    made, reader = taught(store, "nut"), detector(store)
    assert len(reader.snapshot().examples().ids) == 5
    extra = [replace(e, id=str(uuid.uuid4()), label="leaf") for e in made.library.read()]
    unrecorded(made.library)
    store.upsert([e.to_point() for e in extra])  # killed before the manifest
    assert made.library.add(extra, made.recipe).added == 0
    assert len(reader.snapshot().examples().ids) == 10


def test_vectors_of_the_nearest_are_there_though_removed_meanwhile(store: VectorStore) -> None:
    made, other = taught(store), detector(store)
    taken = other.snapshot()
    (found,) = taken.nearest(taken.examples().vectors[:1], 10)
    made.library.remove(label="nut")
    assert taken.vectors([n.id for n in found]).shape == (10, 4)
    assert taken.vectors([]).shape == (0, 4)
    assert len(taken.examples().ids) == 10, "a snapshot never changes"
    assert len(other.snapshot().examples().ids) == 5


def test_a_library_too_large_for_memory_answers_from_the_store(
    store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = taught(store, "nut", "leaf", "berry")
    asked = made.snapshot().examples().vectors
    expected = [[(n.label, n.negative) for n in row] for row in made.snapshot().nearest(asked, 5)]
    monkeypatch.setattr(snapshot_reader, "SNAPSHOT_LIMIT", 9)
    large = snapshot_of(Library(store, "large"))
    sample = large.examples()
    assert {name: sample.labels.count(name) for name in sample.labels} == dict.fromkeys(
        ("nut", "leaf", "berry"), 3
    )
    found = large.nearest(asked, 5)
    assert [[(n.label, n.negative) for n in row] for row in found] == expected
    ids = sorted({n.id for row in found for n in row})
    np.testing.assert_array_equal(large.vectors(ids), [vectors(made.library)[i] for i in ids])
    with pytest.raises(LibraryError, match="removed"):
        large.vectors([str(uuid.uuid4())])


# -- the recipe --------------------------------------------------------------------------------


def test_learning_in_another_recipe_is_refused_unless_the_library_is_empty(
    store: VectorStore,
) -> None:
    made = taught(store, "nut")
    before = contents(made.library)
    for wanted, why in (
        ({"embedder": "appearance"}, "embedder is 'average', not 'appearance'"),
        ({"fade_strategy": LinearFade(max_distance=3)}, "fade is 'gaussian', not 'linear'"),
    ):
        with pytest.raises(RecipeMismatchError, match=why):
            detector(store, **wanted).add_examples_from_file(discs("leaf", 1), disc_masks(), "leaf")
    assert contents(made.library) == before
    made.library.remove(label="nut")
    other = taught(store, "leaf", embedder="appearance", occupancy=0.5)
    assert other.library.stats()["classes"] == {"leaf": 5}
    assert other.library.recipe == other.recipe
    assert Library(store, "x").recipe == other.recipe


def test_a_newer_embedder_is_converted_and_an_older_program_says_upgrade(
    store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    made = taught(store)
    before = vectors(made.library)
    monkeypatch.setattr("sam_detect.embedding.average.AverageEmbedder.version", 2)
    with pytest.raises(RecipeMismatchError, match="improved since"):
        detector(store).add_examples_from_file(discs("leaf", 3), disc_masks(), "leaf")
    assert detector(store).detect(discs(seed=7))[0].label == "nut"
    new = replace(made.pipeline.features, embedder=type(made.pipeline.features.embedder)())
    assert reindex(made.library, new) == 10
    assert detector(store).detect(discs(seed=7))[0].label == "nut"
    assert vectors(made.library).keys() == before.keys()
    monkeypatch.setattr("sam_detect.embedding.average.AverageEmbedder.version", 1)
    with pytest.raises(RecipeMismatchError, match="upgrade sam-detect"):
        detector(store).add_examples_from_file(discs("leaf", 3), disc_masks(), "leaf")


# -- reading in another recipe -----------------------------------------------------------------


class Counting(LinearFade):
    """Counts the crops that it fades."""

    faded = 0

    def apply(self, *arguments: Any) -> Any:
        type(self).faded += 1
        return super().apply(*arguments)

    def weights(self, *arguments: Any) -> Any:
        type(self).faded += 1
        return super().weights(*arguments)


def test_reading_in_another_recipe_finds_the_same_and_changes_nothing(store: VectorStore) -> None:
    made = taught(store, "nut", "leaf", "berry", segmenter=PartsSegmenter())
    kept, before, manifest = contents(made.library), vectors(made.library), store.read_manifest()
    for wanted in (
        {"fade_strategy": LinearFade(max_distance=9)},
        {"embedder": "appearance"},
        {"embedder": "appearance", "fade_strategy": LinearFade(max_distance=9)},
    ):
        other = detector(store, segmenter=PartsSegmenter(), **wanted)
        examples = other.snapshot().examples()
        assert examples.vectors.shape == (15, other.recipe.dimension)
        assert examples.hard_negatives.vectors.shape == (30, other.recipe.dimension)
        for label in ("nut", "leaf", "berry"):
            found = other.detect(discs(label, 9))
            assert [d.label for d in found if d.score > 0.5] == [label] * 5
            assert found.recipe == other.recipe.to_dict()
        assert other.detect(discs("nut", 0)).known[0].classification.taught
    assert store.read_manifest() == manifest
    assert contents(made.library) == kept
    assert all((vectors(made.library)[key] == before[key]).all() for key in before)


def test_what_is_read_is_what_reindexing_would_give(store: VectorStore) -> None:
    made = taught(store, segmenter=PartsSegmenter())
    other = detector(store, embedder="appearance", fade_strategy=LinearFade(max_distance=9))
    read = other.snapshot().examples()
    reindex(made.library, other.pipeline.features)
    stored = snapshot_of(Library(store, "x")).examples()
    assert read.ids == stored.ids
    assert (read.labels, read.sources) == (stored.labels, stored.sources)
    np.testing.assert_allclose(read.vectors, stored.vectors, atol=1e-6)
    np.testing.assert_allclose(
        read.hard_negatives.vectors, stored.hard_negatives.vectors, atol=1e-3
    )


def test_vectors_are_made_once_and_only_for_what_is_new(store: VectorStore) -> None:
    made = taught(store, "nut")
    other = detector(store, fade_strategy=Counting(max_distance=9))
    Counting.faded = 0
    assert len(other.library) == 5
    assert Counting.faded == 0, "nothing is made before it is needed"
    other.snapshot().examples()
    once = Counting.faded
    assert once > 0
    other.snapshot().examples()
    made.library.rename("nut", "date")
    assert set(other.snapshot().examples().labels) == {"date"}
    assert Counting.faded == once
    made.add_examples_from_file(discs("leaf", 1), disc_masks(), "leaf")
    assert len(other.snapshot().examples().labels) == 10
    assert Counting.faded == 2 * once
    made.library.remove(label="date")
    assert set(other.snapshot().examples().labels) == {"leaf"}
    assert Counting.faded == 2 * once
    assert [d.label for d in other.detect(discs("leaf", 9))] == ["leaf"] * 5


def test_a_detector_goes_on_when_another_process_reindexes_its_library(store: VectorStore) -> None:
    reading = taught(store)
    other = detector(MemoryVectorStore(), embedder="appearance", fade_strategy=LinearFade(15))
    reindex(Library(store, "x"), other.pipeline.features)
    assert reading.snapshot().examples().vectors.shape == (10, reading.recipe.dimension)
    assert [d.label for d in reading.detect(discs("leaf", 9))] == ["leaf"] * 5
    with pytest.raises(RecipeMismatchError, match="reindexed by another process meanwhile"):
        reading.add_example(discs("nut", 5), "nut", disc_masks()[0])


def test_a_library_that_is_searched_in_the_store_is_converted_too(
    store: VectorStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    taught(store, "nut", "leaf")
    whole = detector(store, embedder="appearance")
    asked = whole.snapshot().examples().vectors[::3]
    expected = whole.snapshot().nearest(asked, 4)
    monkeypatch.setattr(snapshot_reader, "SNAPSHOT_LIMIT", 4)
    large = detector(store, embedder="appearance")
    assert not large.snapshot().complete
    found = large.snapshot().nearest(asked, 4)
    assert [[n.id for n in row] for row in found] == [[n.id for n in row] for row in expected]
    ids = sorted({n.id for row in found for n in row})
    assert large.snapshot().vectors(ids).shape == (len(ids), large.recipe.dimension)


@pytest.mark.parametrize("wanted", [{"occupancy": 0.5}, {"crop_side": 99}])
def test_what_the_crops_cannot_give_is_refused_at_once(
    store: VectorStore, wanted: dict[str, float]
) -> None:
    taught(store)
    name = next(iter(wanted))
    with pytest.raises(RecipeMismatchError, match=rf"keeps crops made with {name} .*new library"):
        detector(store, **wanted)


# -- reindexing --------------------------------------------------------------------------------


def test_reindexing_with_the_same_recipe_gives_the_same_vectors(store: VectorStore) -> None:
    made = taught(store, embedder="appearance", segmenter=PartsSegmenter())
    before, kept = vectors(made.library), contents(made.library)
    around = around_vectors(made.library)
    assert reindex(made.library, made.pipeline.features) == 10
    after = vectors(made.library)
    assert before.keys() == after.keys()
    assert all(same_vectors(before[key], after[key]) for key in before)
    assert contents(made.library) == kept
    again = around_vectors(made.library)
    assert len(again) == 10
    for key in around:  # kept in half precision
        np.testing.assert_allclose(again[key], around[key], rtol=0, atol=1e-3)
    assert all(each.shape[0] == 2 and each.any(axis=1).all() for each in again.values())


def test_reindexing_there_and_back(store: VectorStore) -> None:
    made = taught(store, "nut", "leaf", "berry", segmenter=PartsSegmenter())
    before, kept = vectors(made.library), contents(made.library)
    around = around_vectors(made.library)
    other = detector(MemoryVectorStore(), embedder="appearance", fade_strategy=LinearFade(15))
    assert reindex(made.library, other.pipeline.features) == 15
    assert made.library.recipe == other.recipe
    assert contents(made.library) == kept
    dimension = other.recipe.dimension
    assert {v.shape for v in around_vectors(made.library).values()} == {(2, dimension)}
    assert snapshot_of(Library(store, "x")).examples().hard_negatives.vectors.shape == (
        30,
        dimension,
    )
    found = detector(store, embedder=None).detect(discs("berry", 9))
    assert [d.label for d in found] == ["berry"] * 5
    reindex(made.library, made.pipeline.features)
    after, again = vectors(made.library), around_vectors(made.library)
    assert all((before[key] == after[key]).all() for key in before)
    assert all((around[key] == again[key]).all() for key in around)


def test_reindexing_an_empty_and_a_missing_library(store: VectorStore) -> None:
    made = taught(store, "nut")
    made.library.remove(label="nut")
    other = detector(MemoryVectorStore(), embedder="appearance")
    assert reindex(made.library, other.pipeline.features) == 0
    assert made.library.recipe == other.recipe
    made.library.destroy()
    with pytest.raises(LibraryNotFoundError):
        reindex(made.library, other.pipeline.features)


def test_crops_of_another_cut_are_refused_with_the_reason(store: VectorStore) -> None:
    made = taught(store, "nut")
    before = vectors(made.library)
    for change in ({"occupancy": 0.5}, {"crop_side": 64}):
        with pytest.raises(RecipeMismatchError, match=rf"{next(iter(change))} .*new library"):
            reindex(made.library, replace(made.pipeline.features, **change))
    assert vectors(made.library).keys() == before.keys()


def test_examples_learnt_and_removed_while_reindexing_are_not_lost(store: VectorStore) -> None:
    made = taught(store, "nut", "leaf")
    new = replace(made.pipeline.features, fade=GaussianFade(7.0))

    def walk(batches):  # type: ignore[no-untyped-def]
        yield from batches
        made.add_examples_from_file(discs("berry", 3), disc_masks(), "berry")
        made.library.remove(label="leaf")

    assert reindex(made.library, new, walk=walk) == 10
    assert made.library.stats()["classes"] == {"berry": 5, "nut": 5}
    again = detector(store, fade_strategy=GaussianFade(7.0))
    assert again.detect(discs("berry", 8))[0].label == "berry"
    fresh = taught(MemoryVectorStore(), "nut", fade_strategy=GaussianFade(7.0))
    mine = vectors(made.library)
    for key, vector in vectors(fresh.library).items():
        np.testing.assert_allclose(mine[key], vector, atol=1e-6)


def test_a_batch_that_was_removed_while_reindexing_is_no_trouble(store: VectorStore) -> None:
    made = taught(store, "nut", segmenter=PartsSegmenter())

    def walk(batches):  # type: ignore[no-untyped-def]
        made.library.remove(label="nut")
        yield from batches

    assert (
        reindex(made.library, replace(made.pipeline.features, fade=GaussianFade(7.0)), walk=walk)
        == 0
    )


def test_of_two_who_reindex_one_is_told(store: VectorStore) -> None:
    made = taught(store, "nut")

    def walk(batches):  # type: ignore[no-untyped-def]
        yield from batches
        reindex(made.library, replace(made.pipeline.features, fade=LinearFade(9)))

    with pytest.raises(LibraryError, match="another process"):
        reindex(made.library, replace(made.pipeline.features, fade=GaussianFade(9)), walk=walk)
    assert made.library.recipe is not None
    assert made.library.recipe.fade == "linear"


# -- set_fade_strategy -------------------------------------------------------------------------


def test_trying_a_fade_leaves_the_library_alone(store: VectorStore) -> None:
    made = taught(store, segmenter=PartsSegmenter())
    kept, before, recipe = contents(made.library), vectors(made.library), made.recipe
    manifest = store.read_manifest()
    stored = made.library
    made.set_fade_strategy(LinearFade(max_distance=9))
    assert made.recipe.fade == "linear"
    assert set(around_vectors(made.library)) == set(before)
    assert [d.label for d in made.detect(discs("leaf", 9)) if d.score > 0.5] == ["leaf"] * 5
    with pytest.raises(RecipeMismatchError, match="another recipe"):
        made.add_examples_from_file(discs("berry", 4), disc_masks(), "berry")
    made.set_fade_strategy(GaussianFade(sigma=12))
    assert [d.label for d in made.detect(discs("nut", 9)) if d.score > 0.5] == ["nut"] * 5
    assert store.read_manifest() == manifest
    assert contents(stored) == kept
    assert all((vectors(stored)[key] == before[key]).all() for key in before)
    made.set_fade_strategy(GaussianFade())
    assert made.library is stored
    assert made.recipe == recipe
    assert made.add_examples_from_file(discs("berry", 4), disc_masks(), "berry").total == 15


def test_what_was_learnt_from_other_vectors_is_not_kept(store: VectorStore) -> None:
    taught(store, "nut", "leaf", embedder="appearance")
    fade, picture = LinearFade(max_distance=40), discs("berry", 9)
    tried = detector(store, embedder=None)
    usual = tried.detect(picture).confidence
    generation = tried.snapshot().generation
    tried.set_fade_strategy(fade)
    assert tried.snapshot().generation != generation
    expected = detector(store, embedder=None, fade_strategy=fade).detect(picture).confidence
    np.testing.assert_allclose(tried.detect(picture).confidence, expected, atol=SCORE_TOLERANCE)
    tried.set_fade_strategy(GaussianFade())
    np.testing.assert_allclose(tried.detect(picture).confidence, usual, atol=SCORE_TOLERANCE)


def test_the_fade_of_an_empty_library_is_simply_another(store: VectorStore) -> None:
    made = detector(store)
    made.set_fade_strategy(LinearFade(max_distance=9))
    made.add_examples_from_file(discs(), disc_masks(), "nut")
    assert made.library.recipe is not None
    assert made.library.recipe.fade == "linear"
    assert len(detector(store).library) == 5


# -- carrying ----------------------------------------------------------------------------------


def test_export_and_import_carry_everything(
    store: VectorStore, make_store: Callable[[], VectorStore], tmp_path: Path
) -> None:
    made = taught(store, segmenter=PartsSegmenter())
    made.add_examples_from_file(discs(), disc_masks()[:2], "leaf", negative=True)
    file = tmp_path / "new folder" / "nuts.samlib"
    assert export_library(made.library, file) == 12
    assert [p.name for p in file.parent.iterdir()] == ["nuts.samlib"]
    other = Library(make_store(), "other")
    done = import_library(other, file)
    assert (done.added, done.known, done.total) == (12, 0, 12)
    assert contents(other) == contents(made.library)
    assert {e.id: e.added for e in other.read()} == {e.id: e.added for e in made.library.read()}
    for key, vector in vectors(other).items():
        np.testing.assert_allclose(vector, vectors(made.library)[key], atol=1e-6)
    around = around_vectors(made.library)
    assert len(around) == 10, "negatives have no surroundings"
    carried = around_vectors(other)
    assert all((carried[key] == around[key]).all() for key in around)
    again = import_library(other, file)
    assert (again.added, again.known, again.total) == (0, 12, 12)
    assert detector(other.store).detect(discs("leaf", 9))[0].label == "leaf"


def test_an_empty_library_carries_its_recipe(
    store: VectorStore, make_store: Callable[[], VectorStore], tmp_path: Path
) -> None:
    made = taught(store, "nut")
    made.library.remove(label="nut")
    assert export_library(made.library, tmp_path / "x") == 0
    other = Library(make_store(), "other")
    assert import_library(other, tmp_path / "x").total == 0
    assert other.recipe == made.recipe


def test_copying_to_another_store(store: VectorStore) -> None:
    made = taught(store, segmenter=PartsSegmenter())
    server = Library(local_mode_store(), "there")
    done = copy_library(made.library, server)
    assert (done.added, done.total) == (10, 10)
    assert copy_library(made.library, server).added == 0
    assert contents(server) == contents(made.library)
    assert set(around_vectors(server)) == set(around_vectors(made.library))
    assert detector(server.store).detect(discs("leaf", 9))[0].label == "leaf"
    reindex(made.library, replace(made.pipeline.features, fade=LinearFade(9)))
    with pytest.raises(RecipeMismatchError, match="another recipe"):
        copy_library(made.library, server)


# -- older formats and damage ------------------------------------------------------------------


def test_this_is_format_5_examples_have_background_and_checksums(store: VectorStore) -> None:
    """Whoever changes what is stored raises the number, and adds a step from here."""
    library = taught(store, segmenter=PartsSegmenter()).library
    found = store.read_manifest()
    assert found is not None
    assert found["format_version"] == manifests.FORMAT_VERSION == 5
    for point in store.scan():
        assert set(point.payload) == {
            "label", "negative", "source", "bbox", "area", "added", "segmentation", "picture",
            "crop_webp", "crop_mask", "crop_scale", "crop_window", "surroundings", "background",
            "batch", "before", "checksum", "vector_checksum", "crop_checksum",
        }  # fmt: skip
        assert re.fullmatch(BATCH_PATTERN, point.payload["batch"])
        assert point.payload["before"] == []
        around = point.payload["surroundings"]
        assert set(around) == {"proposer", "quality", "boxes", "masks", "touching", "vectors"}
        assert (around["proposer"], around["touching"]) == (
            "library_helpers:PartsSegmenter", [True, False]
        )  # fmt: skip
        assert around["quality"] == pytest.approx(0.9)
        assert (len(around["boxes"]), len(around["masks"])) == (2, 2)
    assert {each.shape for each in around_vectors(library).values()} == {(2, 4)}


def test_a_converted_library_is_used_as_any_other(store: VectorStore) -> None:
    made = taught(store, segmenter=PartsSegmenter())
    made.add_examples_from_file(discs(), disc_masks()[:2], "leaf", negative=True)
    expected = {key: (*value[:-1], None) for key, value in contents(made.library).items()}
    before = vectors(made.library)
    as_converted(made.library)
    library = Library(store, "again")
    assert library.stats()["examples"] == 12
    assert contents(library) == expected
    for key, vector in vectors(library).items():
        np.testing.assert_allclose(vector, before[key], atol=1e-6)
    assert len(snapshot_of(library).examples().hard_negatives.owners) == 0
    again = detector(store)
    assert [d.label for d in again.detect(discs("leaf", 9))] == ["leaf"] * 5
    assert again.add_examples_from_file(discs(), disc_masks(), "nut").total == 12
    reindex(library, again.pipeline.features)
    assert contents(library) == expected


@pytest.mark.parametrize("version", [1, 2, 3])
def test_an_older_format_says_what_to_do(store: VectorStore, version: int, tmp_path: Path) -> None:
    made = taught(store, "nut")
    points = list(made.library.points())
    as_older_format(made.library, version)
    said = f"has format {version}, this version reads formats 4 to 5; learn its pictures again"
    for attempt in (made.library.stats, lambda: detector(store), made.library.log):
        with pytest.raises(LibraryError, match=said) as caught:
            attempt()
        assert "\n" not in str(caught.value)
        assert not isinstance(caught.value, LibraryCorruptError)
    old = store.read_manifest()
    assert old is not None
    with open(tmp_path / "old.samlib", "wb") as stream:
        write_archive(stream, old, points)
    with pytest.raises(LibraryError, match=said):
        import_library(Library(MemoryVectorStore(), "new"), tmp_path / "old.samlib")
    assert store.count() == 5
    assert made.library.destroy() == 5


DAMAGES = {
    "crop": {"crop_webp": "AAAA"},
    "no base64": {"crop_webp": "%%%"},
    "crop a number": {"crop_webp": 7},
    "mask": {"crop_mask": "garbage"},
    "empty mask": {"crop_mask": ""},
    "scale": {"crop_scale": 0},
    "scale NaN": {"crop_scale": "nan"},
    "window": {"crop_window": [1, 2, 3]},
    "segmentation": {"segmentation": []},
    "bbox": {"bbox": "abcd"},
    "area": {"area": None},
    "source": {"source": None},
    "picture": {"picture": 3},
    "surroundings": {"surroundings": {"proposer": "naive"}},
    "surroundings a list": {"surroundings": [1]},
}


@pytest.mark.parametrize("change", DAMAGES.values(), ids=DAMAGES)
def test_a_damaged_example_is_named_and_can_be_removed(
    change: dict[str, object], tmp_path: Path
) -> None:
    store = MemoryVectorStore()
    made = taught(store)
    point = list(store.scan(with_vectors=True))[4]
    unrecorded(made.library)
    store.upsert([with_checksums(Point(point.id, point.vector, {**point.payload, **change}))])
    expected = rf"library 'default'.*{point.id} is damaged.*sam-detect library repair"
    for attempt in (
        lambda: list(made.library.read()),
        lambda: reindex(made.library, replace(made.pipeline.features, fade=LinearFade(9))),
        lambda: export_library(made.library, tmp_path / "x.samlib"),
        lambda: copy_library(made.library, Library(MemoryVectorStore(), "there")),
    ):
        with pytest.raises(LibraryCorruptError, match=expected) as caught:
            attempt()
        assert "\n" not in str(caught.value)
    assert list(tmp_path.iterdir()) == []
    assert len(made.library) == 10
    assert made.library.remove(ids=[point.id]) == 1
    assert export_library(made.library, tmp_path / "x.samlib") == 9


@pytest.mark.parametrize("label", [None, "", 7, []])
def test_an_example_without_label_is_named(label: object) -> None:
    store = MemoryVectorStore()
    made = taught(store, "nut")
    point = next(store.scan(with_vectors=True))
    unrecorded(made.library)
    store.upsert([with_checksums(Point(point.id, point.vector, {**point.payload, "label": label}))])
    library = Library(store, "x")
    for attempt in (library.stats, lambda: snapshot_of(library), lambda: library.rename("a", "b")):
        with pytest.raises(LibraryCorruptError, match=f"{point.id} is damaged"):
            attempt()
    assert made.library.remove(ids=[point.id]) == 1
    assert made.library.stats()["examples"] == 4


MANIFESTS = {
    "foreign": {"a": 1},
    "another kind": {"kind": "else", "format_version": 1},
    "no version": {"format_version": None},
    "version true": {"format_version": True},
    "version 0": {"format_version": 0},
    "no recipe": {"recipe": None},
    "half a recipe": {"recipe": {"embedder": "average"}},
    "list as recipe": {"recipe": [1, 2]},
    "occupancy a word": {"occupancy": "wide"},
    "fade a number": {"fade": 3},
}


@pytest.mark.parametrize("change", MANIFESTS.values(), ids=MANIFESTS)
def test_a_damaged_manifest_is_one_line_and_nothing_is_written(change: dict[str, object]) -> None:
    store = MemoryVectorStore()
    made = taught(store, "nut")
    manifest = made.library.require()
    if "a" in change or "kind" in change:
        damaged = dict(change)
    elif set(change) & {"occupancy", "fade"}:
        damaged = {**manifest, "recipe": {**manifest["recipe"], **change}}
    else:
        damaged = {**manifest, **change}
    store.write_manifest(damaged)
    library = Library(store, "x")
    for attempt in (
        library.stats,
        library.require,
        lambda: library.add([], made.recipe),
        lambda: library.rename("nut", "leaf"),
        lambda: library.remove(label="nut"),
        lambda: detector(store),
    ):
        with pytest.raises(LibraryCorruptError) as caught:
            attempt()
        assert "\n" not in str(caught.value)
    assert store.read_manifest() == damaged
    assert store.count() == 5
    if damaged.get("kind") == manifest["kind"]:
        assert library.destroy() == 5, "a library of ours can be removed, whatever else it says"
        return
    with pytest.raises(LibraryCorruptError):
        library.destroy()
    assert store.count() == 5


def test_a_newer_format_says_upgrade(store: VectorStore) -> None:
    made = taught(store, "nut")
    newer = manifests.FORMAT_VERSION + 1
    store.write_manifest({**made.library.require(), "format_version": newer, "recipe": "another"})
    for attempt in (made.library.stats, lambda: detector(store), made.library.destroy):
        with pytest.raises(LibraryError, match="upgrade sam-detect"):
            attempt()
    assert store.count() == 5


def test_a_recipe_with_impossible_parameters_is_damage() -> None:
    store = MemoryVectorStore()
    made = taught(store, "nut")
    manifest = made.library.require()
    for field, value in (
        ("fade_params", {"sigma": "wide"}),
        ("fade_params", {"colour": 1}),
        ("model", {"weights": "evil.bin"}),
    ):
        store.write_manifest({**manifest, "recipe": {**manifest["recipe"], field: value}})
        with pytest.raises(LibraryCorruptError, match=r"damaged.*(sigma|colour|weights)"):
            detector(store, embedder=None)


def test_the_segmenter_of_these_tests_proposes_the_discs() -> None:
    frame = detector(MemoryVectorStore()).read(discs())
    assert len(DiscSegmenter().propose(frame)) == 5
