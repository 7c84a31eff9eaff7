"""What labellers ask of a library, read from the store at once and kept."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from sam_detect.errors import LibraryError
from sam_detect.interfaces import VectorStore
from sam_detect.library import lookup
from sam_detect.library.example import LISTED_FIELDS, NAMING_FIELDS, label_of
from sam_detect.library.surroundings import Noted
from sam_detect.masks import FloatArray
from sam_detect.types import ExampleArrays, Neighbour, Point, Rivals

SNAPSHOT_LIMIT = 5000
"""Up to this many examples are read once and searched in memory; more are searched in the store."""


@dataclass(frozen=True)
class Snapshot:
    """The examples of one generation.

    Attributes:
        generation: the library's, when they were read.
        arrays: the examples; of a very large library an even sample.
        complete: whether these are all.
        pictures: the ids of all examples of each picture, by the digest of its pixels.
        store: where they were read.
        listed: all examples with their checksums.
    """

    generation: str
    arrays: ExampleArrays
    complete: bool
    pictures: Mapping[str, Sequence[str]]
    store: VectorStore
    listed: Sequence[Point]

    @classmethod
    def read(cls, store: VectorStore, generation: str) -> Snapshot:
        """Call it in a session of the store."""
        complete = store.count() <= SNAPSHOT_LIMIT
        every = [] if complete else list(lookup.read(store, fields=LISTED_FIELDS))
        ids = None if complete else _even_sample(every)
        points = list(lookup.read(store, ids, fields=NAMING_FIELDS, with_vectors=True))
        named = [label_of(point) for point in points]
        vectors = [point.vector for point in points if point.vector is not None]
        around = [_noted(point, store.location) for point in points]
        arrays = ExampleArrays(
            ids=tuple(point.id for point in points),
            labels=tuple(label for label, _ in named),
            sources=tuple(_picture(point) for point in points),
            boxes_xywh=np.array([p.payload["bbox"] for p in points], np.int64).reshape(-1, 4),
            negatives=np.array([negative for _, negative in named], dtype=bool),
            vectors=np.stack(vectors) if vectors else np.zeros((0, 0), np.float32),
            areas=np.array([point.payload["area"] for point in points], np.int64),
            qualities=np.array([each.quality for each in around], np.float32),
            proposers=tuple(each.proposer for each in around),
            rivals=_rivals(around),
        )
        listed = points if complete else every
        return cls(generation, arrays, complete, _by_picture(listed), store, listed)

    def nearest(self, vectors: FloatArray, limit: int) -> list[list[Neighbour]]:
        """The nearest of the arrays' examples of each of ``(Q, D)`` vectors, nearest first."""
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
            LibraryError: an example is not there (any more).
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


def _picture(point: Point) -> str:
    """What tells the example's picture from others: all arrays have the name "array"."""
    return str(point.payload["picture"] or point.payload["source"])


def _noted(point: Point, location: str) -> Noted:
    data = point.payload["surroundings"]
    if data is None:
        return Noted.nothing()
    try:
        dimension = None if point.vector is None else len(point.vector)
        return Noted.from_payload(data, dimension=dimension)
    except ValueError as error:
        raise lookup.damaged(point.id, str(error), location) from error


def _rivals(around: Sequence[Noted]) -> Rivals:
    counts = [len(each.touching) for each in around]
    if not any(counts):
        return Rivals.none()
    vectors = np.concatenate([each.vectors for each in around if len(each.touching)])
    lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
    return Rivals(
        owners=np.repeat(np.arange(len(around)), counts),
        touching=np.concatenate([each.touching for each in around]),
        vectors=np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32),
    )


def search(store: VectorStore, vectors: FloatArray, limit: int) -> list[list[Neighbour]]:
    """What :meth:`Snapshot.nearest` gives, from the store."""
    found = store.search(vectors, limit, fields=LISTED_FIELDS)
    for hit in {hit.id: hit for row in found for hit in row}.values():
        lookup.checked(Point(hit.id, None, hit.payload), LISTED_FIELDS, store.location)
    return [
        [Neighbour(h.id, h.payload["label"], h.similarity, h.payload["negative"]) for h in row]
        for row in found
    ]


def _by_picture(points: Iterable[Point]) -> dict[str, list[str]]:
    """The ids of examples by the digest of their picture, as far as it is known."""
    found: dict[str, list[str]] = {}
    for point in points:
        if point.payload["picture"]:
            found.setdefault(point.payload["picture"], []).append(point.id)
    return found


def _even_sample(points: Iterable[Point]) -> list[str]:
    """The ids of ``SNAPSHOT_LIMIT`` examples, as many of each label as there is room for."""
    groups: dict[tuple[str, bool], list[str]] = {}
    for point in points:
        groups.setdefault(label_of(point), []).append(point.id)
    share = max(1, SNAPSHOT_LIMIT // len(groups))
    # Ids are hashes, so the first by id are a random, repeatable choice.
    return [example_id for group in groups.values() for example_id in group[:share]]
