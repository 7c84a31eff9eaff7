"""Reads the snapshot of a library, and reads it again only when the library has changed."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sam_detect.features.extraction import FeatureExtractor
from sam_detect.interfaces import VectorStore
from sam_detect.library import lookup
from sam_detect.library import manifest as manifests
from sam_detect.library.columns import ExampleColumns, Outlines
from sam_detect.library.example import LISTED_FIELDS, NAMING_FIELDS, label_of
from sam_detect.library.index import DamagedIndexError, ExampleIndex
from sam_detect.library.kept import KeptFiles
from sam_detect.library.library import Library
from sam_detect.library.reindex import ConvertedExamples, require_convertible
from sam_detect.library.snapshot import LibrarySnapshot
from sam_detect.types import Point

SNAPSHOT_LIMIT = 5000
"""Up to this many examples are read once and searched in memory; more are searched in the store."""


@dataclass(frozen=True)
class Sample:
    """Which sample the examples of a generation have: many generations have the same.

    Attributes:
        content: as of :meth:`~sam_detect.library.index.ExampleIndex.sample`.
    """

    content: str


class SnapshotReader:
    """Gives the current snapshot of a library, read again only if the library changed.

    Args:
        library: what is read.
        features: reads it in this recipe. If the library has another one, the vectors are made
            again in memory from the kept crops, and the library stays as it is. None reads the
            vectors as they are stored.

    Raises:
        RecipeMismatchError: the kept crops cannot give vectors of that recipe.
    """

    def __init__(self, library: Library, features: FeatureExtractor | None = None) -> None:
        self.library, self.features = library, features
        self._converted: ConvertedExamples | None = None
        if features is not None:
            mine = library.recipe
            if mine is not None and mine != features.recipe and len(library):
                require_convertible(library.name, mine, features)
            self._converted = ConvertedExamples(features)
        self._last: LibrarySnapshot | None = None

    def snapshot(self) -> LibrarySnapshot:
        """The library as it is now; the manifest is read once.

        Raises:
            LibraryCorruptError: the library is damaged.
            RecipeMismatchError: the library was reindexed meanwhile to a recipe whose crops
                cannot give vectors of this one.
        """
        generation, last = self._generation(self.library.manifest()), self._last
        if last is None or last.generation != generation:
            # No lock of its own here: the caller may hold the store already, or wait for it.
            last = self._last = self._read()
        return last

    def _generation(self, manifest: dict[str, Any] | None) -> str:
        if manifest is None or self._converted is None:
            return "" if manifest is None else str(manifest["generation"])
        return self._converted.generation(manifest)

    def _read(self) -> LibrarySnapshot:
        library, store = self.library, self.library.store
        kept = self._read_kept()
        if kept is not None:
            return kept
        with store.session():
            manifest, last = library.manifest(), self._last
            generation = self._generation(manifest)
            if last is not None and last.generation == generation:
                return last  # another thread has read it meanwhile
            if manifest is None or not self._converts(manifest):
                if manifest is not None and store.count() > SNAPSHOT_LIMIT:
                    indexed = self._read_large(manifest)
                    if indexed is not None:
                        return indexed
                examples, listed = read_examples(store)
                if manifest is not None and examples.ids:
                    try:
                        dimension = manifest["recipe"]["dimension"]
                        manifests.check_vectors(examples.vectors, examples.ids, dimension)
                    except ValueError as error:
                        raise manifests.damage_error(store.location, str(error)) from error
                manifests.require_complete(store, library.name, manifest or {}, listed)
                snapshot = LibrarySnapshot.of_examples(examples, store, generation, self.features)
                if snapshot.complete:
                    snapshot.files.write("examples", generation, examples)
                return snapshot
        assert self._converted is not None  # noqa: S101 - for mypy
        # A change by another process meanwhile gives another generation, and is read next time.
        return read_snapshot(self._converted.read(library), generation, self.features)

    def _read_kept(self) -> LibrarySnapshot | None:
        """The snapshot that a process kept of the library as it is now, without its lock."""
        store, manifest = self.library.store, self.library.manifest()
        if manifest is None or self._converts(manifest):
            return None
        generation, files = str(manifest["generation"]), KeptFiles(store.kept_path)
        examples = files.read("examples", generation, ExampleColumns)
        if examples is not None:
            return LibrarySnapshot.of_examples(examples, store, generation, self.features)
        index = ExampleIndex.open(store.kept_path, generation)
        return None if index is None else self._sampled(index, generation, read=False)

    def _read_large(self, manifest: dict[str, Any]) -> LibrarySnapshot | None:
        """The snapshot with an index made anew, in a session of the store; None where none can be
        kept."""
        store, generation = self.library.store, str(manifest["generation"])
        index = ExampleIndex.open(store.kept_path, generation)
        found = None if index is None else self._sampled(index, generation)
        if found is not None:
            return found
        if store.kept_path is None:
            return None
        contents = manifests.ContentsRecord()
        points = lookup.read(store, fields=LISTED_FIELDS, with_vectors=True)
        counted = contents.count_through(_sound(points, manifest, store.location))
        index = ExampleIndex.build(store.kept_path, generation, counted)
        if index is None:
            return None
        manifests.require_contents(store, self.library.name, manifest, contents)
        return self._sampled(index, generation)

    def _sampled(
        self, index: ExampleIndex, generation: str, *, read: bool = True
    ) -> LibrarySnapshot | None:
        """The snapshot of an index; None where that is damaged, or where its sample was not kept
        and may not be read from the store."""
        store = self.library.store
        files = KeptFiles(store.kept_path)
        sample = files.read("sample", generation, Sample)
        ids: list[str] = []
        if sample is None or read:
            try:
                ids, content = index.sample(SNAPSHOT_LIMIT)
            except DamagedIndexError:
                index.discard()
                return None
            sample = Sample(content)
            files.write("sample", generation, sample)
        examples = files.read("sampled", sample.content, ExampleColumns)
        if examples is None and not read:
            return None
        if examples is None:
            points = list(lookup.read(store, ids, fields=NAMING_FIELDS, with_vectors=True))
            examples = ExampleColumns.of_points(points, store.location, Outlines.of_points(()))
            files.write("sampled", sample.content, examples)
        indexed = index, sample.content
        return LibrarySnapshot.of_examples(examples, store, generation, self.features, indexed)

    def _converts(self, manifest: dict[str, Any]) -> bool:
        return self._converted is not None and self._converted.differs(manifest)


def read_snapshot(
    store: VectorStore, generation: str, features: FeatureExtractor | None = None
) -> LibrarySnapshot:
    """The snapshot of a store; in a session of it."""
    return LibrarySnapshot.of_examples(read_examples(store)[0], store, generation, features)


def read_examples(store: VectorStore) -> tuple[ExampleColumns, Sequence[Point]]:
    """The examples of a store (of a very large one, an even sample of each label, and the outlines
    of all), and all points with what lists show; in a session of the store.

    Raises:
        LibraryCorruptError: an example is damaged.
    """
    complete = store.count() <= SNAPSHOT_LIMIT
    every = [] if complete else list(lookup.read(store, fields=LISTED_FIELDS))
    ids = None if complete else _even_sample(every)
    points = list(lookup.read(store, ids, fields=NAMING_FIELDS, with_vectors=True))
    listed = points if complete else every
    return ExampleColumns.of_points(points, store.location, Outlines.of_points(listed)), listed


def _sound(points: Iterable[Point], manifest: dict[str, Any], location: str) -> Iterator[Point]:
    """The points, whose vectors are checked as they pass."""
    dimension = manifest["recipe"]["dimension"]
    for point in points:
        try:
            manifests.check_vectors(np.asarray(point.vector)[None], [point.id], dimension)
        except ValueError as error:
            raise manifests.damage_error(location, str(error)) from error
        yield point


def _even_sample(points: Iterable[Point]) -> list[str]:
    """The ids of ``SNAPSHOT_LIMIT`` examples, as many of each label as there is room for."""
    groups: dict[tuple[str, bool], list[str]] = {}
    for point in points:
        groups.setdefault(label_of(point), []).append(point.id)
    share = max(1, SNAPSHOT_LIMIT // len(groups))
    # Ids are hashes, so the first by id are a random, repeatable choice.
    return [example_id for group in groups.values() for example_id in group[:share]]
