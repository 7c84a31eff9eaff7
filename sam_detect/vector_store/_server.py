"""The store on a Qdrant server: points of the collection that a library's name means."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import replace
from functools import partial
from typing import Any

import numpy as np
from qdrant_client import QdrantClient, models

from sam_detect.errors import StoreError
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
    nearest_with_ties,
    normalised,
    pick_fields,
)
from sam_detect.vector_store._collections import LEFTOVER_AGE_S, Collections, Record
from sam_detect.vector_store._connect import is_not_found, server_errors
from sam_detect.vector_store._files import check_name

EXACT_POINTS = 200_000
"""Up to so many points are searched exactly: the index lost recall, and this takes milliseconds."""
LIGHT_PAGE, WHOLE_PAGE = 200, 4
"""Points read at once, without and with their pictures: some 10 MB at most."""
NUMBERS_AT_ONCE = 100_000
"""Numbers of vectors read at once: see ``MAX_ANSWER_VALUES`` in ``_connect``."""
HITS_AT_ONCE = 20_000


class ServerStore(VectorStore):
    """One library on a server.

    A session keeps other threads of this process out; there is no lock between processes, so two
    that write one library at the same moment may overwrite each other's manifest, never points.

    Args:
        connect: makes the client, at the first call.
        name: the library.
        location: the server, for people.
        batch_size: points sent at once.
    """

    def __init__(
        self,
        connect: Callable[[], QdrantClient],
        name: str,
        *,
        location: str,
        batch_size: int = 32,
    ) -> None:
        self._connect = connect
        self._name = check_name(name)
        self._server = location
        self._batch_size = batch_size
        self._mutex = threading.RLock()
        self._connected: QdrantClient | None = None

    @property
    def location(self) -> str:
        return f"{self._server}/collections/{self._name}"

    @contextmanager
    def session(self) -> Iterator[None]:
        with self._mutex:
            yield

    def read_manifest(self) -> dict[str, Any] | None:
        with self._open() as (_, own):
            record = own.record()
            return None if record is None else record.manifest

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        with self._open() as (client, own):
            record = own.record()
            if record is None:
                own.create_first(Record(json_copy(manifest), None, time.time()))
                record = own.require_record()
            record = replace(record, manifest=json_copy(manifest))
            # By the collection's own name: not every server follows an alias here.
            client.update_collection(own.physical(), metadata=record.metadata())

    def upsert(self, points: Sequence[Point]) -> None:
        if not points:
            return
        with self._open() as (client, own):
            record = own.record()
            vectors = check_points(points, dimension=record.dimension if record else None)
            check_payloads(points)
            if record is None:
                own.create_first(Record(None, vectors.shape[1], time.time()))
                check_points(points, dimension=own.require_record().dimension)
            elif record.dimension is None:
                fresh = replace(record, dimension=vectors.shape[1], made=time.time())
                own.switch(own.create(fresh))
            self._put(client, self._name, points, vectors)

    def delete(self, ids: Sequence[str]) -> None:
        there = known_ids(ids)
        with self._open() as (client, own):
            if there and own.record() is not None:
                client.delete(self._name, models.PointIdsList(points=list(there)), wait=True)

    def search(
        self, vectors: FloatArray, limit: int, *, fields: Sequence[str] = ()
    ) -> list[list[Hit]]:
        """Exact up to ``EXACT_POINTS`` points, by the server's index above."""
        queries = check_queries(vectors, limit, dimension=None)
        with self._open() as (client, own):
            record = own.record()
            count = 0 if record is None else client.count(self._name, exact=True).count
            if record is None or not count or not len(queries):
                return [[] for _ in queries]
            queries = normalised(check_queries(queries, limit, dimension=record.dimension))
            exact = count <= EXACT_POINTS
            parameters = models.SearchParams(exact=exact, hnsw_ef=None if exact else 256)

            def search(rows: FloatArray, asked: int) -> list[list[Hit]]:
                request = partial(
                    models.QueryRequest,
                    limit=asked,
                    with_payload=_selector(fields),
                    params=parameters,
                )
                requests = [request(query=row) for row in rows.tolist()]
                step = max(1, HITS_AT_ONCE // asked)
                answers = [
                    answer
                    for start in range(0, len(requests), step)
                    for answer in client.query_batch_points(
                        self._name, requests[start : start + step]
                    )
                ]
                return [
                    [
                        Hit(str(hit.id), float(hit.score), pick_fields(hit.payload or {}, fields))
                        for hit in answer.points
                    ]
                    for answer in answers
                ]

            return nearest_with_ties(search, queries, limit, count)

    def scan(
        self,
        ids: Sequence[str] | None = None,
        *,
        fields: Sequence[str] | None = None,
        with_vectors: bool = False,
    ) -> Iterator[Point]:
        """Raises ``StoreError`` when all points are replaced meanwhile."""
        with self._open() as (_, own):
            record = own.record()
            if record is None:
                return
            # By its own name, so that no page is another collection's.
            name = own.physical()
        size = WHOLE_PAGE if fields is None else LIGHT_PAGE
        if with_vectors and record.dimension:
            size = max(1, min(size, NUMBERS_AT_ONCE // record.dimension))
        asked = {"with_payload": _selector(fields), "with_vectors": with_vectors}
        for page in self._pages(name, size, None if ids is None else known_ids(ids), asked):
            for found in page:
                vector = np.array(found.vector, np.float32) if with_vectors else None
                yield Point(str(found.id), vector, pick_fields(found.payload or {}, fields))

    def count(self) -> int:
        with self._open() as (client, own):
            record = own.record()
            if record is None or record.dimension is None:
                return 0
            return int(client.count(self._name, exact=True).count)

    def replace_all(self, points: Iterable[Point], manifest: dict[str, Any]) -> None:
        """Fills another collection, then switches the alias to it."""
        with self._open() as (client, own):
            own.record()  # refuses what is not ours
            own.sweep(older_than_s=LEFTOVER_AGE_S)
            record = Record(json_copy(manifest), None, time.time())
            fresh: str | None = None
            try:
                for batch in in_batches(points, self._batch_size):
                    vectors = check_points(batch, dimension=record.dimension)
                    check_payloads(batch)
                    if fresh is None:
                        record = replace(record, dimension=vectors.shape[1])
                        fresh = own.create(record)
                    self._put(client, fresh, batch, vectors)
                own.switch(fresh or own.create(record))
            except BaseException:
                if fresh is not None and own.physical_or_none() != fresh:
                    with suppress(Exception):
                        client.delete_collection(fresh)
                raise

    def destroy(self) -> None:
        with self._open() as (_, own):
            if own.record() is not None:
                own.forget()
            own.sweep(older_than_s=0)

    def size_bytes(self) -> int:
        """An estimate from some of the points: servers do not tell what a collection takes."""
        with self._open() as (client, own):
            record = own.record()
            if record is None or record.dimension is None:
                return 0
            points = client.scroll(self._name, limit=WHOLE_PAGE, with_payload=True)[0]
            if not points:
                return 0
            payload = sum(len(json.dumps(point.payload)) for point in points) / len(points)
            count = client.count(self._name, exact=True).count
            return int(count * (4 * record.dimension + payload))

    # -- the server --------------------------------------------------------------------------

    @contextmanager
    def _open(self) -> Iterator[tuple[QdrantClient, Collections]]:
        """The client, with its errors in our words, and the library's collections."""
        with self._mutex, server_errors(self._server):
            if self._connected is None:
                self._connected = self._connect()
            yield self._connected, Collections(self._connected, self._name, self._server)

    # -- points ------------------------------------------------------------------------------

    def _put(
        self, client: QdrantClient, name: str, points: Sequence[Point], vectors: FloatArray
    ) -> None:
        structs = [
            models.PointStruct(id=point.id, vector=row, payload=point.payload)
            for point, row in zip(points, normalised(vectors).tolist(), strict=True)
        ]
        for start in range(0, len(structs), self._batch_size):
            client.upsert(name, structs[start : start + self._batch_size], wait=True)

    def _pages(
        self, name: str, size: int, ids: Sequence[str] | None, asked: dict[str, Any]
    ) -> Iterator[list[Any]]:
        if ids is not None:
            for start in range(0, len(ids), size):
                with self._open() as (client, _), self._unless_replaced():
                    page = client.retrieve(name, ids[start : start + size], **asked)
                yield sorted(page, key=lambda found: str(found.id))
            return
        offset: Any = None
        seen: set[str] = set()
        while True:
            with self._open() as (client, _), self._unless_replaced():
                page, offset = client.scroll(name, offset=offset, limit=size, **asked)
            yield page
            if offset is None:
                return
            if str(offset) in seen:
                raise StoreError(
                    f"the Qdrant server at {self._server} gives the same page of points again and "
                    "again; restart it"
                )
            seen.add(str(offset))

    @contextmanager
    def _unless_replaced(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            if not is_not_found(error):
                raise
            raise StoreError(
                f"the library in {self.location} was replaced while it was read; read it again"
            ) from error


def _selector(fields: Sequence[str] | None) -> bool | list[str]:
    """Servers read names as JSON paths: quoted ones mean just the name."""
    if fields is None:
        return True
    if any('"' in name for name in fields):
        return True
    return [f'"{name}"' for name in fields] if fields else False
