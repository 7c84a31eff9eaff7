"""The store that lives as long as the process: exact, and the reference for the others."""

from __future__ import annotations

import copy
import json
import threading
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from sam_detect.interfaces import VectorStore
from sam_detect.types import Hit, Point
from sam_detect.types.masks import FloatArray
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
    """Points of this process. Safe for several threads.

    Vectors are kept at length 1, as the Qdrant engine keeps them.
    """

    exclusive = True

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._vectors: dict[str, FloatArray] = {}
        self._payloads: dict[str, dict[str, Any]] = {}
        self._manifest: dict[str, Any] | None = None
        self._by_id: tuple[list[str], FloatArray] | None = None

    @property
    def location(self) -> str:
        return "memory"

    @contextmanager
    def session(self) -> Iterator[None]:
        """Keeps other threads out until it ends."""
        with self._lock:
            yield

    def read_manifest(self) -> dict[str, Any] | None:
        with self._lock:
            return None if self._manifest is None else json_copy(self._manifest)

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        with self._lock:
            self._manifest = json_copy(manifest)

    def upsert(self, points: Sequence[Point]) -> None:
        with self._lock:
            vectors = normalised(check_points(points, dimension=self._dimension))
            check_payloads(points)
            for point, vector in zip(points, vectors, strict=True):
                self._vectors[point.id] = vector.copy()  # a view would keep all of them
                self._payloads[point.id] = json_copy(point.payload)
            self._by_id = None

    def delete(self, ids: Sequence[str]) -> None:
        with self._lock:
            for key in ids:
                self._vectors.pop(key, None)
                self._payloads.pop(key, None)
            self._by_id = None

    def search(
        self, vectors: FloatArray, limit: int, *, fields: Sequence[str] = ()
    ) -> list[list[Hit]]:
        with self._lock:
            queries = normalised(check_queries(vectors, limit, dimension=self._dimension))
            if not self._vectors:
                return [[] for _ in queries]
            block = max(1, QUERY_BLOCK_ELEMENTS // len(self._vectors))
            blocks = (queries[start : start + block] for start in range(0, len(queries), block))
            return [hits for each in blocks for hits in self._nearest(each, limit, fields)]

    def scan(
        self,
        ids: Sequence[str] | None = None,
        *,
        fields: Sequence[str] | None = None,
        with_vectors: bool = False,
    ) -> Iterator[Point]:
        """As they are now: what is written while iterating is not seen."""
        with self._lock:
            wanted = sorted(self._vectors) if ids is None else known_ids(ids)
            found = [
                Point(
                    id=key,
                    vector=self._vectors[key].copy() if with_vectors else None,
                    payload=self._payload(key, fields),
                )
                for key in wanted
                if key in self._vectors
            ]
        return iter(found)

    def count(self) -> int:
        with self._lock:
            return len(self._vectors)

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
            payloads = sum(len(json.dumps(each)) for each in self._payloads.values())
            return payloads + sum(each.nbytes for each in self._vectors.values())

    # -- inside ------------------------------------------------------------------------------

    @property
    def _dimension(self) -> int | None:
        return next((len(each) for each in self._vectors.values()), None)

    def _payload(self, key: str, fields: Sequence[str] | None) -> dict[str, Any]:
        """A copy: the caller may change it."""
        return copy.deepcopy(pick_fields(self._payloads[key], fields))

    def _become(self, other: MemoryVectorStore) -> None:
        self._vectors, self._payloads = other._vectors, other._payloads
        self._manifest, self._by_id = other._manifest, None

    def _nearest(
        self, queries: FloatArray, limit: int, fields: Sequence[str]
    ) -> Iterator[list[Hit]]:
        if self._by_id is None:
            ids = sorted(self._vectors)
            self._by_id = ids, np.stack([self._vectors[key] for key in ids])
        ids, matrix = self._by_id
        rough = queries @ matrix.T
        last = max(len(ids) - limit, 0)
        bounds = np.partition(rough, last, axis=1)[:, last] - ROUNDING
        for query, row, bound in zip(queries, rough, bounds, strict=True):
            near = np.flatnonzero(row >= bound)
            # Again in float64, row by row: BLAS rounds equal rows differently by their position,
            # and equal vectors must tie. A stable sort keeps the order of ids among ties.
            exact = (matrix[near].astype(np.float64) * query.astype(np.float64)).sum(axis=1)
            order = np.argsort(-exact, kind="stable")[:limit]
            yield [
                Hit(ids[near[i]], float(exact[i]), self._payload(ids[near[i]], fields))
                for i in order
            ]
