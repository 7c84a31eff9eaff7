"""The library as one call sees it: an immutable snapshot, read from the store at once."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sam_detect.errors import LibraryError, MaskError
from sam_detect.features.extraction import FeatureExtractor
from sam_detect.interfaces import Embedder, VectorStore
from sam_detect.library import lookup
from sam_detect.library import manifest as manifests
from sam_detect.library.columns import ExampleColumns, Outlines
from sam_detect.library.example import LISTED_FIELDS, NAMING_FIELDS, image_digest, label_of
from sam_detect.library.index import DamagedIndexError, ExampleIndex
from sam_detect.library.kept import KeptFiles
from sam_detect.library.library import Library
from sam_detect.library.reindex import ConvertedExamples, require_convertible
from sam_detect.masks import FloatArray, rle_to_crop
from sam_detect.types import (
    ExampleArrays,
    Frame,
    Masks,
    Neighbour,
    Point,
    Taught,
)
from sam_detect.types.examples import ENOUGH_HERE
from sam_detect.types.memory import Fit

SNAPSHOT_LIMIT = 5000
"""Up to this many examples are read once and searched in memory; more are searched in the store."""
KEPT_FROM = 200
"""From so many examples on, what was read and fitted is kept for the next process. Fewer are read
from the store in a tenth of a second, and checked anew each time."""


@dataclass(frozen=True)
class LibrarySnapshot:
    """All that one call needs of a library, read at once and never changed.

    It is a :class:`~sam_detect.types.LabelMemory`. Of a library with more than
    :data:`SNAPSHOT_LIMIT` examples it holds an even sample as arrays, and asks the store for the
    nearest neighbours.

    Attributes:
        generation: of the library (and of the recipe it is read in) when this was read.
        arrays: the examples.
        complete: whether these are all.
        prior_similarity: of the embedder, see :class:`~sam_detect.interfaces.Embedder`.
        outlines: of all examples.
        store: where they were read.
        files: where what is fitted to them is kept.
        content: names the arrays' content: the generation or, of a sample, a digest of it.
        index: of all examples of a large library; None where they are all in the arrays, or are
            searched in the store.
    """

    generation: str
    arrays: ExampleArrays
    complete: bool
    prior_similarity: float
    outlines: Outlines | ExampleIndex
    store: VectorStore
    files: KeptFiles = field(default_factory=KeptFiles)
    content: str = ""
    index: ExampleIndex | None = None

    @classmethod
    def read(
        cls,
        store: VectorStore,
        generation: str,
        features: FeatureExtractor | None = None,
    ) -> tuple[LibrarySnapshot, Sequence[Point]]:
        """The snapshot of a store, and all its points with their checksums.

        Call it in a session of the store.
        """
        examples, listed = read_examples(store)
        return cls.of_examples(examples, store, generation, features), listed

    @classmethod
    def of_examples(
        cls,
        examples: ExampleColumns,
        store: VectorStore,
        generation: str,
        features: FeatureExtractor | None,
        index: tuple[ExampleIndex, str] | None = None,
    ) -> LibrarySnapshot:
        """The snapshot of examples that were read from the store, or kept.

        Args:
            index: of all, and the digest of the sample that the examples are.
        """
        embedder = None if features is None else features.embedder
        prior = Embedder.prior_similarity if embedder is None else embedder.prior_similarity
        arrays = examples.arrays(embedder)
        files = KeptFiles(store.kept_in if len(arrays.ids) >= KEPT_FROM else None)
        own = generation, arrays
        if index is not None:
            return cls(*own, False, prior, index[0], store, files, index[1], index[0])
        complete = len(arrays.ids) == len(examples.outlines)
        return cls(*own, complete, prior, examples.outlines, store, files, generation)

    def examples(self) -> ExampleArrays:
        """All examples (of a very large library, an even sample of each label), as arrays."""
        return self.arrays

    def nearest(self, vectors: FloatArray, limit: int) -> list[list[Neighbour]]:
        """The nearest examples (negatives too) of each of ``(Q, D)`` vectors, nearest first."""
        if self.index is not None:
            try:
                return self.index.nearest(vectors, limit)
            except DamagedIndexError:
                self.index.discard()
        if not self.complete:
            return search(self.store, vectors, limit)
        arrays = self.arrays
        if not arrays.ids:
            return [[] for _ in vectors]
        similarities = vectors @ arrays.vectors.T
        last = max(similarities.shape[1] - limit, 0)
        bounds = np.partition(similarities, last, axis=1)[:, last]
        negatives = np.asarray(arrays.negatives, bool).tolist()
        found = []
        for row, bound in zip(similarities, bounds, strict=True):
            near = np.flatnonzero(row >= bound)
            # A stable sort keeps the order of ids among ties, as the stores do.
            near = near[np.argsort(-row[near], kind="stable")[:limit]]
            found.append([
                Neighbour(arrays.ids[i], arrays.labels[i], similarity, negatives[i])
                for i, similarity in zip(near.tolist(), row[near].tolist(), strict=True)
            ])  # fmt: skip
        return found

    def of_picture(self, picture: str) -> LibrarySnapshot | None:
        """The same with the examples of one picture only, given by its digest, where it has enough
        of a label (:data:`~sam_detect.types.examples.ENOUGH_HERE`) and is not the only one."""
        mine = np.array(self.arrays.sources, dtype=object) == picture
        counts = Counter(
            label for label, own, negative in
            zip(self.arrays.labels, mine.tolist(), self.arrays.negatives.tolist(), strict=True)
            if own and not negative
        )  # fmt: skip
        if mine.all() or max(counts.values(), default=0) < ENOUGH_HERE:
            return None
        name = f"{self.generation} {picture}"
        return replace(
            self, generation=name, arrays=self.arrays.where(mine), complete=True,
            files=KeptFiles(), content=name, index=None,
        )  # fmt: skip

    def vectors(self, ids: Sequence[str]) -> FloatArray:
        """``(N, D)`` vectors of examples; those that the arrays do not have come from the store.

        Raises:
            LibraryError: an example was removed meanwhile.
        """
        wanted = set(ids)
        rows = {key: row for row, key in enumerate(self.arrays.ids) if key in wanted}
        known = {key: self.arrays.vectors[row] for key, row in rows.items()}
        missing = sorted(wanted - set(known))
        if missing and self.index is not None:
            with suppress(DamagedIndexError):
                known |= self.index.vectors(missing)
            missing = sorted(wanted - set(known))
        if missing:
            for point in self.store.scan(missing, fields=(), with_vectors=True):
                known[point.id] = np.asarray(point.vector, np.float32)
        lost = sorted(wanted - set(known))
        if lost:
            raise LibraryError(
                f"example {lost[0]} was removed by another process meanwhile; try again"
            )
        dimension = self.arrays.vectors.shape[1]
        return np.array([known[key] for key in ids], np.float32).reshape(len(ids), dimension)

    def kept(self, name: str, form: type[Fit], make: Callable[[], Fit]) -> Fit:
        """What ``make`` gives of the examples: what another process kept under this name for these
        very examples, or else made and kept now. ``form`` is its type."""
        file = f"fit-{hashlib.blake2b(name.encode(), digest_size=8).hexdigest()}"
        arrays = self.arrays
        weights = b"" if arrays.scene_weights is None else arrays.scene_weights.tobytes()
        context = self.prior_similarity, weights, sorted(arrays.parts.items())
        key = f"{self.content} {name} {context}"
        found = self.files.read(file, key, form)
        if found is None:
            found = make()
            self.files.write(file, key, found)
        return found

    def taught(self, frame: Frame) -> Taught:
        """The outlines of all examples of this very picture, newest first, wherever its file is.

        Raises:
            LibraryCorruptError: an outline is damaged.
        """
        digest = image_digest(frame.image_rgb)
        points = sorted(
            self.outlines.of_picture(digest),
            key=lambda point: str(point.payload["added"]),
            reverse=True,
        )
        boxes, crops, examples = [], [], []
        for point in points:
            rle, (label, negative) = point.payload["segmentation"], label_of(point)
            try:
                if tuple(rle["size"]) != frame.size_hw:  # before it is decoded
                    raise MaskError("its outline is not of its picture's size")
                box, crop = rle_to_crop(rle)
            except MaskError as error:
                raise lookup.damage_error(point.id, str(error), self.store.location) from error
            boxes.append(box)
            crops.append(crop)
            examples.append(Neighbour(point.id, label, 1.0, negative))
        masks = Masks.from_crops(size_hw=frame.size_hw, boxes_xyxy=boxes, crops=crops)
        return Taught(digest, masks, tuple(examples))


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
        return LibrarySnapshot.read(self._converted.read(library), generation, self.features)[0]

    def _read_kept(self) -> LibrarySnapshot | None:
        """The snapshot that a process kept of the library as it is now, without its lock."""
        store, manifest = self.library.store, self.library.manifest()
        if manifest is None or self._converts(manifest):
            return None
        generation, files = str(manifest["generation"]), KeptFiles(store.kept_in)
        examples = files.read("examples", generation, ExampleColumns)
        if examples is not None:
            return LibrarySnapshot.of_examples(examples, store, generation, self.features)
        index = ExampleIndex.open(store.kept_in, generation)
        return None if index is None else self._sampled(index, generation, read=False)

    def _read_large(self, manifest: dict[str, Any]) -> LibrarySnapshot | None:
        """The snapshot with an index made anew, in a session of the store; None where none can be
        kept."""
        store, generation = self.library.store, str(manifest["generation"])
        index = ExampleIndex.open(store.kept_in, generation)
        found = None if index is None else self._sampled(index, generation)
        if found is not None:
            return found
        if store.kept_in is None:
            return None
        contents = manifests.ContentsRecord()
        points = lookup.read(store, fields=LISTED_FIELDS, with_vectors=True)
        counted = contents.count_through(_sound(points, manifest, store.location))
        index = ExampleIndex.build(store.kept_in, generation, counted)
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
        files = KeptFiles(store.kept_in)
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


def search(store: VectorStore, vectors: FloatArray, limit: int) -> list[list[Neighbour]]:
    """What :meth:`LibrarySnapshot.nearest` gives, from the store."""
    found = store.search(vectors, limit, fields=LISTED_FIELDS)
    for hit in {hit.id: hit for row in found for hit in row}.values():
        lookup.check_read(Point(hit.id, None, hit.payload), LISTED_FIELDS, store.location)
    return [
        [Neighbour(h.id, h.payload["label"], h.similarity, h.payload["negative"]) for h in row]
        for row in found
    ]


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
