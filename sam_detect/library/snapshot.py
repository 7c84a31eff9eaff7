"""The library as one call sees it: an immutable snapshot, read from the store at once."""

from __future__ import annotations

import threading
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from sam_detect.errors import LibraryError, MaskError
from sam_detect.features.extraction import FeatureExtractor
from sam_detect.features.hard_negatives import HardNegativeVectors
from sam_detect.interfaces import Embedder, VectorStore
from sam_detect.library import lookup
from sam_detect.library import manifest as manifests
from sam_detect.library.example import LISTED_FIELDS, NAMING_FIELDS, image_digest, label_of
from sam_detect.library.library import Library
from sam_detect.library.reindex import ConvertedExamples, require_convertible
from sam_detect.masks import FloatArray, rle_to_crop
from sam_detect.types import (
    ExampleArrays,
    Frame,
    HardNegativeArrays,
    Masks,
    Neighbour,
    Point,
    Taught,
)

SNAPSHOT_LIMIT = 5000
"""Up to this many examples are read once and searched in memory; more are searched in the store."""
OUTLINE_FIELDS = ("label", "negative", "added", "segmentation")


@dataclass(frozen=True)
class LibrarySnapshot:
    """All that one call needs of a library, read at once and never changed.

    It is a :class:`~sam_detect.interfaces.LabelMemory`. Of a library with more than
    :data:`SNAPSHOT_LIMIT` examples it holds an even sample as arrays, and asks the store for the
    nearest neighbours.

    Attributes:
        generation: of the library (and of the recipe it is read in) when this was read.
        arrays: the examples.
        complete: whether these are all.
        prior_similarity, scene_weights: of the embedder, see
            :class:`~sam_detect.interfaces.Embedder`.
        outlines: ``(point, ...)`` of each picture by the digest of its pixels: light points, whose
            payload has at least the outline, label and polarity.
        store: where they were read.
    """

    generation: str
    arrays: ExampleArrays
    complete: bool
    prior_similarity: float
    outlines: Mapping[str, Sequence[Point]]
    store: VectorStore

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
        embedder = None if features is None else features.embedder
        prior = Embedder.prior_similarity if embedder is None else embedder.prior_similarity
        complete = store.count() <= SNAPSHOT_LIMIT
        every = [] if complete else list(lookup.read(store, fields=LISTED_FIELDS))
        ids = None if complete else _even_sample(every)
        points = list(lookup.read(store, ids, fields=NAMING_FIELDS, with_vectors=True))
        named = [label_of(point) for point in points]
        vectors = [point.vector for point in points if point.vector is not None]
        regions = [_hard_negatives(point, store.location) for point in points]
        arrays = ExampleArrays(
            ids=tuple(point.id for point in points),
            labels=tuple(label for label, _ in named),
            # Digests first: all arrays have the source "array".
            sources=tuple(str(p.payload["picture"] or p.payload["source"]) for p in points),
            boxes_xywh=np.array([p.payload["bbox"] for p in points], np.int64).reshape(-1, 4),
            negatives=np.array([negative for _, negative in named], dtype=bool),
            vectors=np.stack(vectors) if vectors else np.zeros((0, 0), np.float32),
            areas=np.array([point.payload["area"] for point in points], np.int64),
            qualities=np.array([each.quality for each in regions], np.float32),
            proposers=tuple(each.proposer for each in regions),
            hard_negatives=_hard_negative_arrays(regions),
            scene_weights=None if embedder is None else embedder.scene_weights(),
            parts={} if embedder is None else embedder.parts,
        )
        listed = points if complete else every
        outlines = _outlines_by_picture(listed)
        return cls(generation, arrays, complete, prior, outlines, store), listed

    def examples(self) -> ExampleArrays:
        """All examples (of a very large library, an even sample of each label), as arrays."""
        return self.arrays

    def nearest(self, vectors: FloatArray, limit: int) -> list[list[Neighbour]]:
        """The nearest examples (negatives too) of each of ``(Q, D)`` vectors, nearest first."""
        if not self.complete:
            return search(self.store, vectors, limit)
        arrays = self.arrays
        if not arrays.ids:
            return [[] for _ in vectors]
        similarities = vectors @ arrays.vectors.T
        # A stable sort keeps the order of ids among ties, as the stores do.
        order = np.argsort(-similarities, axis=1, kind="stable")[:, :limit]
        return [
            [
                Neighbour(arrays.ids[i], arrays.labels[i], float(row[i]), bool(arrays.negatives[i]))
                for i in nearest
            ]
            for row, nearest in zip(similarities, order, strict=True)
        ]

    def vectors(self, ids: Sequence[str]) -> FloatArray:
        """``(N, D)`` vectors of examples; those that the arrays do not have come from the store.

        Raises:
            LibraryError: an example was removed meanwhile.
        """
        wanted = set(ids)
        rows = {key: row for row, key in enumerate(self.arrays.ids) if key in wanted}
        known = {key: self.arrays.vectors[row] for key, row in rows.items()}
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

    def taught(self, frame: Frame) -> Taught:
        """The outlines of all examples of this very picture, newest first, wherever its file is.

        Raises:
            LibraryCorruptError: an outline is damaged.
        """
        digest = image_digest(frame.image_rgb)
        points = sorted(
            self.outlines.get(digest, ()), key=lambda p: str(p.payload["added"]), reverse=True
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
        self._lock = threading.Lock()

    def snapshot(self) -> LibrarySnapshot:
        """The library as it is now; the manifest is read once.

        Raises:
            LibraryCorruptError: the library is damaged.
            RecipeMismatchError: the library was reindexed meanwhile to a recipe whose crops
                cannot give vectors of this one.
        """
        generation = self._generation(self.library.manifest())
        with self._lock:
            if self._last is None or self._last.generation != generation:
                self._last = self._read()
            return self._last

    def _generation(self, manifest: dict[str, Any] | None) -> str:
        if manifest is None or self._converted is None:
            return "" if manifest is None else str(manifest["generation"])
        return self._converted.generation(manifest)

    def _read(self) -> LibrarySnapshot:
        library, store = self.library, self.library.store
        with store.session():
            manifest = library.manifest()
            generation = self._generation(manifest)
            if manifest is None or self._converted is None or not self._converted.differs(manifest):
                snapshot, listed = LibrarySnapshot.read(store, generation, self.features)
                arrays = snapshot.arrays
                if manifest is not None and arrays.ids:
                    try:
                        dimension = manifest["recipe"]["dimension"]
                        manifests.check_vectors(arrays.vectors, arrays.ids, dimension)
                    except ValueError as error:
                        raise manifests.damage_error(store.location, str(error)) from error
                manifests.require_complete(store, library.name, manifest or {}, listed)
                return snapshot
        # A change by another process meanwhile gives another generation, and is read next time.
        self._converted.update(library)
        return LibrarySnapshot.read(self._converted.store, generation, self.features)[0]


def _hard_negatives(point: Point, location: str) -> HardNegativeVectors:
    dimension = None if point.vector is None else len(point.vector)
    try:
        return HardNegativeVectors.from_payload(point.payload["surroundings"], dimension=dimension)
    except ValueError as error:
        raise lookup.damage_error(point.id, str(error), location) from error


def _hard_negative_arrays(regions: Sequence[HardNegativeVectors]) -> HardNegativeArrays:
    counts = [len(each.touching) for each in regions]
    if not any(counts):
        return HardNegativeArrays.none()
    vectors = np.concatenate([each.vectors for each in regions if len(each.touching)])
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return HardNegativeArrays(
        owners=np.repeat(np.arange(len(regions)), counts),
        touching=np.concatenate([each.touching for each in regions]),
        vectors=np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32),
    )


def search(store: VectorStore, vectors: FloatArray, limit: int) -> list[list[Neighbour]]:
    """What :meth:`LibrarySnapshot.nearest` gives, from the store."""
    found = store.search(vectors, limit, fields=LISTED_FIELDS)
    for hit in {hit.id: hit for row in found for hit in row}.values():
        lookup.check_read(Point(hit.id, None, hit.payload), LISTED_FIELDS, store.location)
    return [
        [Neighbour(h.id, h.payload["label"], h.similarity, h.payload["negative"]) for h in row]
        for row in found
    ]


def _outlines_by_picture(points: Iterable[Point]) -> dict[str, list[Point]]:
    """The examples by the digest of their picture, if it is known, without vectors."""
    found: dict[str, list[Point]] = {}
    for point in points:
        if point.payload["picture"]:
            payload = {field: point.payload[field] for field in OUTLINE_FIELDS}
            light = replace(point, vector=None, payload=payload)
            found.setdefault(point.payload["picture"], []).append(light)
    return found


def _even_sample(points: Iterable[Point]) -> list[str]:
    """The ids of ``SNAPSHOT_LIMIT`` examples, as many of each label as there is room for."""
    groups: dict[tuple[str, bool], list[str]] = {}
    for point in points:
        groups.setdefault(label_of(point), []).append(point.id)
    share = max(1, SNAPSHOT_LIMIT // len(groups))
    # Ids are hashes, so the first by id are a random, repeatable choice.
    return [example_id for group in groups.values() for example_id in group[:share]]
