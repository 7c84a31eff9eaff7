"""The store that lives as long as the process: exact, and the reference for the others."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from sam_detect.interfaces import VectorStore
from sam_detect.masks import FloatArray, IntArray
from sam_detect.types import Hit, Point
from sam_detect.vector_store._checks import (
    check_payloads,
    check_points,
    check_queries,
    in_batches,
    json_copy,
    known_ids,
    normalised,
    pick_fields,
)

QUERY_BLOCK_ELEMENTS = 4_000_000
"""Similarities computed at once: bounds a search's memory to some 16 MB."""

ROUNDING = 1e-5
"""More than float32 rounding can move the cosine of two unit vectors."""


class MemoryVectorStore(VectorStore):
    """Points in arrays of this process. Safe for several threads.

    Vectors are kept at length 1, as the Qdrant engine keeps them.
    """

    exclusive = True

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._ids: list[str] = []
        self._rows: dict[str, int] = {}
        self._payloads: list[dict[str, Any]] = []
        self._matrix: FloatArray = np.zeros((0, 0), np.float32)
        self._manifest: dict[str, Any] | None = None
        self._ranks: IntArray | None = None

    @property
    def location(self) -> str:
        return "memory"

    def session(self) -> AbstractContextManager[None]:
        """Keeps other threads out until it ends."""
        return self._hold()

    def read_manifest(self) -> dict[str, Any] | None:
        with self._lock:
            return None if self._manifest is None else json_copy(self._manifest)

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        with self._lock:
            self._manifest = json_copy(manifest)

    def upsert(self, points: Sequence[Point]) -> None:
        with self._lock:
            dimension = self._matrix.shape[1] if self._ids else None
            vectors = normalised(check_points(points, dimension=dimension))
            check_payloads(points)
            if not len(vectors):
                return
            payloads = [json_copy(point.payload) for point in points]
            self._reserve(len(self._ids) + len(points), vectors.shape[1])
            for point, vector, payload in zip(points, vectors, payloads, strict=True):
                row = self._rows.setdefault(point.id, len(self._ids))
                if row == len(self._ids):
                    self._ids.append(point.id)
                    self._payloads.append(payload)
                self._payloads[row] = payload
                self._matrix[row] = vector
            self._ranks = None

    def delete(self, ids: Sequence[str]) -> None:
        with self._lock:
            gone = {self._rows[text] for text in ids if text in self._rows}
            if not gone:
                return
            kept = [row for row in range(len(self._ids)) if row not in gone]
            self._matrix = self._matrix[kept]
            self._ids = [self._ids[row] for row in kept]
            self._payloads = [self._payloads[row] for row in kept]
            self._rows = {text: row for row, text in enumerate(self._ids)}
            self._ranks = None

    def search(
        self, vectors: FloatArray, limit: int, *, fields: Sequence[str] = ()
    ) -> list[list[Hit]]:
        with self._lock:
            dimension = self._matrix.shape[1] if self._ids else None
            queries = normalised(check_queries(vectors, limit, dimension=dimension))
            if not self._ids:
                return [[] for _ in queries]
            block = max(1, QUERY_BLOCK_ELEMENTS // len(self._ids))
            hits = []
            for start in range(0, len(queries), block):
                hits += self._search_block(queries[start : start + block], limit, fields)
            return hits

    def scan(
        self,
        ids: Sequence[str] | None = None,
        *,
        fields: Sequence[str] | None = None,
        with_vectors: bool = False,
    ) -> Iterator[Point]:
        """As they are now: what is written while iterating is not seen."""
        with self._lock:
            wanted = sorted(self._ids) if ids is None else known_ids(ids)
            rows = [self._rows[text] for text in wanted if text in self._rows]
            return iter(
                [
                    Point(
                        id=self._ids[row],
                        vector=self._matrix[row].copy() if with_vectors else None,
                        payload=pick_fields(self._payloads[row], fields),
                    )
                    for row in rows
                ]
            )

    def count(self) -> int:
        with self._lock:
            return len(self._ids)

    def replace_all(self, points: Iterable[Point], manifest: dict[str, Any]) -> None:
        fresh = MemoryVectorStore()
        with self._lock:
            for batch in in_batches(points, 256):
                fresh.upsert(batch)
            fresh.write_manifest(manifest)
            self._become(fresh)

    def destroy(self) -> None:
        with self._lock:
            self._become(MemoryVectorStore())

    def size_bytes(self) -> int:
        """Vectors plus the payloads' length as JSON."""
        with self._lock:
            texts = (json.dumps(payload) for payload in self._payloads)
            return self._matrix.nbytes + sum(len(text) for text in texts)

    # -- inside ------------------------------------------------------------------------------

    @contextmanager
    def _hold(self) -> Iterator[None]:
        with self._lock:
            yield

    def _become(self, other: MemoryVectorStore) -> None:
        self._ids, self._rows, self._payloads = other._ids, other._rows, other._payloads
        self._matrix, self._manifest, self._ranks = other._matrix, other._manifest, other._ranks

    def _reserve(self, count: int, dimension: int) -> None:
        """Doubles the matrix when it is full, so that appending costs O(1) a point."""
        if self._matrix.shape[1] != dimension:
            self._matrix = np.zeros((0, dimension), np.float32)
        if count > len(self._matrix):
            grown = np.zeros((max(count, 2 * len(self._matrix)), dimension), np.float32)
            grown[: len(self._ids)] = self._matrix[: len(self._ids)]
            self._matrix = grown

    def _rank_of_rows(self) -> IntArray:
        """For each row the place of its id among all ids, which breaks ties."""
        if self._ranks is None:
            ranks = np.empty(len(self._ids), np.int64)
            ranks[np.argsort(np.array(self._ids))] = np.arange(len(self._ids))
            self._ranks = ranks
        return self._ranks

    def _search_block(
        self, queries: FloatArray, limit: int, fields: Sequence[str]
    ) -> list[list[Hit]]:
        matrix = self._matrix[: len(self._ids)]
        ranks = self._rank_of_rows()
        rough = queries @ matrix.T
        last = max(len(self._ids) - limit, 0)
        bounds = np.partition(rough, last, axis=1)[:, last] - ROUNDING
        found = []
        for query, row, bound in zip(queries, rough, bounds, strict=True):
            near = np.flatnonzero(row >= bound)
            # Again in float64, row by row: BLAS rounds equal rows differently by their position,
            # and equal vectors must tie.
            exact = (matrix[near].astype(np.float64) * query.astype(np.float64)).sum(axis=1)
            nearest = np.lexsort((ranks[near], -exact))[:limit]
            found.append(
                [
                    Hit(
                        id=self._ids[near[i]],
                        similarity=float(exact[i]),
                        payload=pick_fields(self._payloads[near[i]], fields),
                    )
                    for i in nearest
                ]
            )
        return found
