"""The suite ``store``: where vectors are kept, at several sizes.

``memory`` and ``embedded`` are ours; ``local``, qdrant-client's own mode without a server, is the
reference. All hold the same vectors with the same small payload, and search exactly.
"""

from __future__ import annotations

import tempfile
import uuid
import warnings
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, nullcontext
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np
from qdrant_client import QdrantClient, models

from sam_detect.errors import ConfigError
from sam_detect.interfaces import VectorStore
from sam_detect.types import Point
from sam_detect.types.masks import FloatArray
from sam_detect.vector_store.memory import MemoryVectorStore
from sam_detect.vector_store.qdrant import QdrantVectorStore
from scripts.dev.bench.measurements import Measurements, Series, Trial
from scripts.dev.bench.suites import Options

NEIGHBOURS = 5
BATCH = 1_000
"""Vectors handed to a store at once."""
COLLECTION = "bench"


class OurStore:
    """A store of this project.

    Args:
        make: gives the store, not yet opened.
        lasting: whether it can be opened again.
    """

    def __init__(self, name: str, make: Callable[[], VectorStore], *, lasting: bool) -> None:
        self.name, self.lasting = name, lasting
        self._make = make
        self._store = make()

    def insert(self, points: Sequence[Point]) -> None:
        """Adds points; they last when it returns, where the store is lasting."""
        with self._store.session():
            for start in range(0, len(points), BATCH):
                self._store.upsert(points[start : start + BATCH])

    def search(self, queries: FloatArray) -> list[list[str]]:
        """For each of ``(Q, D)`` unit vectors the ids of its nearest points, nearest first."""
        found = self._store.search(queries, NEIGHBOURS, fields=("label", "negative"))
        return [[hit.id for hit in row] for row in found]

    def open(self) -> int:
        """Opens it and counts its points."""
        return self._store.count()

    def kept_open(self) -> AbstractContextManager[Any]:
        """Searches inside need not open it."""
        return self._store.session()

    def close(self) -> None:
        """Closes it, so that it can be opened again."""
        self._store = self._make()


class LocalMode:
    """qdrant-client without a server, on disk: what a user would take without this project."""

    name = "local"
    lasting = True

    def __init__(self, folder: Path, dimension: int) -> None:
        self._path = str(folder)
        self._client = QdrantClient(path=self._path)
        self._client.create_collection(
            COLLECTION,
            vectors_config=models.VectorParams(size=dimension, distance=models.Distance.COSINE),
        )

    def insert(self, points: Sequence[Point]) -> None:
        for start in range(0, len(points), BATCH):
            batch = points[start : start + BATCH]
            self._client.upsert(
                COLLECTION,
                models.Batch(
                    ids=[point.id for point in batch],
                    vectors=[point.vector.tolist() for point in batch if point.vector is not None],
                    payloads=[point.payload for point in batch],
                ),
            )

    def search(self, queries: FloatArray) -> list[list[str]]:
        found = self._client.query_batch_points(
            COLLECTION,
            [
                models.QueryRequest(query=row.tolist(), limit=NEIGHBOURS, with_payload=True)
                for row in queries
            ],
        )
        return [[str(hit.id) for hit in each.points] for each in found]

    def open(self) -> int:
        self._client = QdrantClient(path=self._path)
        return self._client.count(COLLECTION).count

    def kept_open(self) -> AbstractContextManager[Any]:
        return nullcontext()

    def close(self) -> None:
        self._client.close()


Store = OurStore | LocalMode

DIMENSION = 256
SIZES = (1_000, 10_000, 100_000)
LARGEST_LOCAL = 10_000
"""The local mode takes minutes to fill beyond it: that is measured only where it is asked for."""
PARTS = 10
"""A store is filled in so many equal parts, all stores in turn."""
QUERIES = 64
CLUSTERS = 50
PAIRS = (("embedded", "local"), ("memory", "local"), ("memory", "embedded"))


def run(measurements: Measurements, options: Options) -> None:
    """Insert, search and open, at each size. A search is of a batch of 64 vectors."""
    for size in options.sizes:
        if size < PARTS or size % PARTS:
            raise ConfigError(f"a size must be a multiple of {PARTS} above 0, got {size}")
    for size in options.sizes or SIZES:
        with_local = bool(options.sizes) or size <= LARGEST_LOCAL
        if not with_local:
            measurements.skipped.append(
                f"local at {size} vectors, which takes minutes: ask with --sizes {size}"
            )
        with (
            tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
            warnings.catch_warnings(),
        ):
            # The local mode advises a server, also where it is measured on purpose.
            warnings.simplefilter("ignore", UserWarning)
            _measure(measurements, _stores(Path(folder), with_local), size)


def _stores(folder: Path, with_local: bool) -> list[Store]:
    embedded = partial(QdrantVectorStore, path=folder / "embedded", collection_name=COLLECTION,
                       batch_size=BATCH)  # fmt: skip
    stores: list[Store] = [
        OurStore("memory", MemoryVectorStore, lasting=False),
        OurStore("embedded", embedded, lasting=True),
    ]
    return [*stores, LocalMode(folder / "local", DIMENSION)] if with_local else stores


def _measure(measurements: Measurements, stores: Sequence[Store], size: int) -> None:
    points, queries = clustered_points(size)
    measurements.announce(f"insert {size}")
    parts = measurements.accumulate([_filling(store, points) for store in stores], PARTS)
    inserted = [part.scaled(PARTS) for part in parts]
    _keep(measurements, "insert", size, inserted)
    _keep(measurements, "memory", size, inserted, of="memory")

    measurements.announce(f"search {size}")
    with ExitStack() as stack:
        for store in stores:
            stack.enter_context(store.kept_open())
        found = [store.search(queries) for store in stores]
        searched = measurements.interleave(
            [Trial(s.name, lambda _, s=s: s.search(queries)) for s in stores]  # type: ignore[misc]
        )
    _keep(measurements, "search", size, searched)
    for store, answer in zip(stores[1:], found[1:], strict=True):
        measurements.figures[f"{store.name}_agrees_{size}"] = agreement(found[0], answer)

    measurements.announce(f"open {size}")
    lasting = [store for store in stores if store.lasting]
    for store in lasting:
        store.close()
    opened = measurements.interleave(
        [Trial(s.name, lambda _, s=s: s.open(), finish=lambda _, s=s: s.close()) for s in lasting]  # type: ignore[misc]
    )
    _keep(measurements, "open", size, opened)


def clustered_points(size: int) -> tuple[list[Point], FloatArray]:
    """``size`` points with unit vectors around ``CLUSTERS`` directions, as embeddings of objects
    lie, and ``(QUERIES, DIMENSION)`` float32 unit vectors to search. Always the same."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((CLUSTERS, DIMENSION), dtype=np.float32)
    of_cluster = generator.integers(0, CLUSTERS, size + QUERIES)
    noise = generator.standard_normal((size + QUERIES, DIMENSION), dtype=np.float32)
    vectors = centres[of_cluster] + 0.5 * noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    points = [
        Point(
            id=str(uuid.UUID(int=index)),
            vector=vectors[index],
            payload={"label": f"label {of_cluster[index]}", "negative": False},
        )
        for index in range(size)
    ]
    return points, vectors[size:]


def agreement(expected: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> float:
    """Share of the expected neighbours that were found: 1 for an exact search."""
    hits = sum(len({*a} & {*b}) for a, b in zip(expected, found, strict=True))
    return round(hits / max(1, sum(len(row) for row in expected)), 4)


def _filling(store: Store, points: Sequence[Point]) -> Trial:
    step = len(points) // PARTS
    parts = iter([points[start : start + step] for start in range(0, len(points), step)])
    return Trial(store.name, store.insert, prepare=lambda: next(parts))


def _keep(
    measurements: Measurements, what: str, size: int, series: Sequence[Series],
    of: Literal["time", "memory"] = "time",
) -> None:  # fmt: skip
    """A stage of each, and the pairs of those that are there."""
    by_name = {each.name: each for each in series}
    if of == "time":
        measurements.stages |= {f"{n}_{what}_{size}": s.to_dict() for n, s in by_name.items()}
    for a, b in PAIRS:
        if a in by_name and b in by_name:
            measurements.add_pair(f"{a}_vs_{b}_{what}_{size}", by_name[a], by_name[b], of=of)
