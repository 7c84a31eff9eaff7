"""The stores that the suite ``store`` compares, behind one face."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar

from qdrant_client import QdrantClient, models

from sam_detect.interfaces import VectorStore
from sam_detect.masks import FloatArray
from sam_detect.types import Point
from sam_detect.vector_store.memory import MemoryVectorStore
from sam_detect.vector_store.qdrant import QdrantVectorStore

NEIGHBOURS = 5
BATCH = 1_000
"""Vectors handed to a store at once."""
COLLECTION = "bench"


class ComparedStore(ABC):
    """A store with points of one length, each with the payload that a search reads."""

    name: ClassVar[str]
    lasting: ClassVar[bool] = True
    """Whether it can be opened again."""

    @abstractmethod
    def insert(self, points: Sequence[Point]) -> None:
        """Adds points; they last when it returns, where the store is lasting."""

    @abstractmethod
    def search(self, queries: FloatArray) -> list[list[str]]:
        """For each of ``(Q, D)`` unit vectors the ids of its nearest points, nearest first."""

    @abstractmethod
    def open(self) -> int:
        """Opens it and counts its points."""

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        """Searches inside need not open it."""
        yield

    @abstractmethod
    def close(self) -> None:
        """Lets go of it, so that it can be opened again."""


class OurStore(ComparedStore):
    """A store of this project."""

    def __init__(self) -> None:
        self._store = self._make()

    @abstractmethod
    def _make(self) -> VectorStore:
        """The store, not yet opened."""

    def insert(self, points: Sequence[Point]) -> None:
        with self._store.session():
            for start in range(0, len(points), BATCH):
                self._store.upsert(points[start : start + BATCH])

    def search(self, queries: FloatArray) -> list[list[str]]:
        found = self._store.search(queries, NEIGHBOURS, fields=("label", "negative"))
        return [[hit.id for hit in row] for row in found]

    def open(self) -> int:
        return self._store.count()

    def close(self) -> None:
        self._store = self._make()

    @contextmanager
    def kept_open(self) -> Iterator[None]:
        with self._store.session():
            yield


class InMemory(OurStore):
    """Arrays of this process."""

    name = "memory"
    lasting = False

    def _make(self) -> VectorStore:
        return MemoryVectorStore()


class Embedded(OurStore):
    """Qdrant's engine in this process, on disk."""

    name = "embedded"

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        super().__init__()

    def _make(self) -> VectorStore:
        return QdrantVectorStore(path=self._folder, collection_name=COLLECTION, batch_size=BATCH)


class LocalMode(ComparedStore):
    """qdrant-client without a server, on disk: what a user would reach for without this project."""

    name = "local"

    def __init__(self, folder: Path, dimension: int) -> None:
        self._folder = folder
        self._client = self._connect()
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
        self._client = self._connect()
        return self._client.count(COLLECTION).count

    def close(self) -> None:
        self._client.close()

    def _connect(self) -> QdrantClient:
        return QdrantClient(path=str(self._folder))
