"""The persistent store: Qdrant, embedded in this process or as a server."""

from __future__ import annotations

import shutil
from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from sam_detect.config import home_dir
from sam_detect.errors import ConfigError, StoreError
from sam_detect.interfaces import StoredPoints, VectorStore
from sam_detect.types import Hit, Point
from sam_detect.types.masks import FloatArray
from sam_detect.vector_store._access import CREATE_RESERVE_BYTES, WRITE_RESERVE_BYTES, HeldLibrary
from sam_detect.vector_store._checks import (
    check_payloads,
    check_points,
    check_queries,
    in_batches,
    known_ids,
    nearest_with_ties,
    normalised,
)
from sam_detect.vector_store._files import NAME_PATTERN, LibraryFiles, State, check_name

if TYPE_CHECKING:
    from sam_detect.vector_store._engine import Shard


class QdrantVectorStore(VectorStore):
    """Vectors in Qdrant: the embedded engine by default, a server, cluster or cloud by ``url``.

    Args:
        path: folder of the embedded libraries; ``SAM_DETECT_HOME/libraries`` unless given.
        url: of a server, such as ``http://localhost:6333``.
        api_key: the server's key; not used without ``url``.
        collection_name: the library; letters, digits, ``_``, ``-`` and ``.``, at most 100.
        lock_timeout_s: how long to wait for another process to release an embedded library.
        timeout_s: how long to wait for each answer of a server.
        batch_size: points sent at once. An example with its picture has some 30 KB.

    Nothing is opened, made or reached before the first call.

    Raises:
        ConfigError: both ``path`` and ``url``, or a name that cannot be.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        url: str | None = None,
        api_key: str | None = None,
        collection_name: str = "sam_detect",
        *,
        lock_timeout_s: float = 20.0,
        timeout_s: int = 8,
        batch_size: int = 32,
    ) -> None:
        check_name(collection_name)
        if path is not None and url is not None:
            raise ConfigError(
                "a Qdrant store has either a path (embedded) or a url (server), not both"
            )
        if batch_size < 1:
            raise ConfigError(f"batch_size must be at least 1, got {batch_size}")
        if lock_timeout_s < 0:
            raise ConfigError(f"lock_timeout_s must not be negative, got {lock_timeout_s}")
        self.exclusive = url is None
        self._store: VectorStore
        if url is not None:
            from sam_detect.vector_store._connect import ServerAddress, connect
            from sam_detect.vector_store._server import ServerStore

            self._store = ServerStore(
                partial(connect, url, api_key, timeout_s=timeout_s),
                collection_name,
                location=ServerAddress.parse(url).url,
                batch_size=batch_size,
            )
        else:
            self._store = EmbeddedStore(
                libraries_dir() if path is None else Path(path).expanduser(),
                collection_name,
                lock_timeout_s=lock_timeout_s,
                batch_size=batch_size,
            )
        self.kept_path = self._store.kept_path

    @property
    def location(self) -> str:
        return self._store.location

    def session(self) -> AbstractContextManager[None]:
        return self._store.session()

    def read_manifest(self) -> dict[str, Any] | None:
        return self._store.read_manifest()

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        self._store.write_manifest(manifest)

    def upsert(self, points: Sequence[Point]) -> None:
        self._store.upsert(points)

    def delete(self, ids: Sequence[str]) -> None:
        self._store.delete(ids)

    def search(
        self, vectors: FloatArray, limit: int, *, fields: Sequence[str] = ()
    ) -> list[list[Hit]]:
        return self._store.search(vectors, limit, fields=fields)

    def scan(
        self,
        ids: Sequence[str] | None = None,
        *,
        fields: Sequence[str] | None = None,
        with_vectors: bool = False,
    ) -> Iterator[Point]:
        return self._store.scan(ids, fields=fields, with_vectors=with_vectors)

    def count(self) -> int:
        return self._store.count()

    def replace_all(self, points: Iterable[Point], manifest: dict[str, Any]) -> None:
        self._store.replace_all(points, manifest)

    def destroy(self) -> None:
        self._store.destroy()

    def size_bytes(self) -> int:
        return self._store.size_bytes()

    def salvage(self) -> AbstractContextManager[Sequence[StoredPoints | None]]:
        return self._store.salvage()


class EmbeddedStore(VectorStore):
    """One library of the embedded engine: a directory, its lock, and the engine while a session
    lasts. Other processes wait for the lock meanwhile; opening takes about 20 ms.

    Threads may share a store: a session keeps other threads out, an unfinished scan does not.
    """

    exclusive = True

    def __init__(
        self, folder: Path, name: str, *, lock_timeout_s: float = 20.0, batch_size: int = 256
    ) -> None:
        self._files = LibraryFiles(folder / check_name(name))
        self._held = HeldLibrary(self._files, lock_timeout_s)
        self._batch_size = batch_size
        self.kept_path = self._files.kept_path

    @property
    def location(self) -> str:
        return str(self._files.directory)

    def session(self) -> AbstractContextManager[None]:
        """Holds the library's lock. Raises ``LibraryBusyError`` where it is not free in time."""
        return self._held.session()

    def read_manifest(self) -> dict[str, Any] | None:
        """Without the lock: ``library.json`` is always whole."""
        state = self._files.read_state()
        return None if state is None else state.manifest

    def write_manifest(self, manifest: dict[str, Any]) -> None:
        with self._held.writing() as state:
            least = state.least_points if self._held.shard is None else self._held.shard.count()
            self._files.write_state(replace(state, manifest=manifest, least_points=least))

    def upsert(self, points: Sequence[Point]) -> None:
        if not points:
            return
        with self._held.writing() as state:
            vectors = check_points(points, dimension=state.dimension)
            self._require_space(check_payloads(points) + vectors.nbytes)
            shard = self._held.open(state)
            if shard is not None:
                self._put(shard, points, vectors)
                return
            # The first points: their shard counts only once ``library.json`` names it.
            shard = self._fill_new(points)
            try:
                self._files.write_state(_state_of(state.manifest, shard))
            except BaseException:
                self._discard(shard)
                raise
            self._held.shard = shard

    def delete(self, ids: Sequence[str]) -> None:
        with self._held.session():
            there = [point.id for point in self.scan(ids, fields=())]
            if not there:
                return
            with self._held.writing() as state:
                shard = self._held.open(state)
                if shard is None:
                    return
                # The lower bound first: a kill in between must not look like damage.
                least = max(0, min(state.least_points, shard.count() - len(there)))
                self._files.write_state(replace(state, least_points=least))
                shard.delete(there)
                shard.flush()

    def search(
        self, vectors: FloatArray, limit: int, *, fields: Sequence[str] = ()
    ) -> list[list[Hit]]:
        """Always exact: the engine's index is never built, as it lost recall."""
        queries = check_queries(vectors, limit, dimension=None)
        with self._held.reading() as shard:
            if shard is None or not len(queries):
                return [[] for _ in queries]
            queries = normalised(check_queries(queries, limit, dimension=shard.dimension))
            hits = nearest_with_ties(shard.nearest, queries, limit, shard.count())
            if not fields:
                return hits
            ids = sorted({hit.id for row in hits for hit in row})
            found = shard.retrieve(ids, fields=fields, with_vectors=False)
        payloads = {point.id: point.payload for point in found}
        return [[replace(hit, payload=dict(payloads[hit.id])) for hit in row] for row in hits]

    def scan(
        self,
        ids: Sequence[str] | None = None,
        *,
        fields: Sequence[str] | None = None,
        with_vectors: bool = False,
    ) -> Iterator[Point]:
        """Holds the library's lock from the first point to the last (or until it is closed).

        Raises:
            StoreError: another thread replaced all points meanwhile.
        """
        wanted = None if ids is None else known_ids(ids)
        with self._held.holding():
            with self._held.reading() as shard:
                if shard is None:
                    return
            pages = shard.pages(wanted, fields=fields, with_vectors=with_vectors)
            while True:
                with self._held.mutex:
                    if self._held.shard is not shard:
                        raise StoreError(
                            f"the library in {self._files.directory} was replaced while it was "
                            "read; read it again"
                        )
                    page = next(pages, None)
                if page is None:
                    return
                yield from page

    def count(self) -> int:
        with self._held.reading() as shard:
            return 0 if shard is None else shard.count()

    def replace_all(self, points: Iterable[Point], manifest: dict[str, Any]) -> None:
        """Writes the new points to another shard; one rename switches. Takes both sizes on disk."""
        with self._held.writing():
            shard = self._fill_new(points)
            try:
                fresh = _state_of(manifest, shard)
                if shard is not None:
                    shard.close()
                self._files.write_state(fresh)
            except BaseException:
                self._discard(shard)
                raise
            self._held.close()
            self._files.sweep(fresh)

    def destroy(self) -> None:
        self._held.remove()

    def size_bytes(self) -> int:
        """Bytes on disk. Up to 64 MB of it are the engine's log, which holds the newest points."""
        return self._files.size_bytes()

    @contextmanager
    def salvage(self) -> Iterator[Sequence[StoredPoints | None]]:
        """The engine's files as they are, and their data alone, without log and settings.

        Both are copies, so whatever the engine does with them harms nothing.
        """
        from sam_detect.vector_store._engine import salvage_shard

        with self._held.session():
            self._held.close()
            state = self._files.read_state()
            if state is None or state.shard is None or state.dimension is None:
                yield []
                return
            with salvage_shard(
                self._files, self._files.shard_path(state), state.dimension
            ) as found:
                yield found

    # -- writing -----------------------------------------------------------------------------

    def _require_space(self, needed: int) -> None:
        # Twice: the engine's log and its segment.
        self._files.require_space(2 * needed + WRITE_RESERVE_BYTES)

    def _put(self, shard: Shard, points: Sequence[Point], vectors: FloatArray) -> None:
        try:
            for start in range(0, len(points), self._batch_size):
                stop = start + self._batch_size
                shard.upsert(points[start:stop], vectors[start:stop])
            shard.flush()
        except BaseException:
            # Opened again, the engine repairs itself from its log.
            with suppress(StoreError):
                self._held.close()
            raise

    def _fill_new(self, points: Iterable[Point]) -> Shard | None:
        """A new shard with the points, or None where there are none."""
        from sam_detect.vector_store._engine import Shard

        shard: Shard | None = None
        try:
            for batch in in_batches(points, self._batch_size):
                dimension = None if shard is None else shard.dimension
                vectors = check_points(batch, dimension=dimension)
                self._require_space(check_payloads(batch) + vectors.nbytes)
                if shard is None:
                    self._files.require_space(CREATE_RESERVE_BYTES)
                    path = self._files.new_shard()
                    shard = Shard.create(self._files, path, dimension=vectors.shape[1])
                shard.upsert(batch, vectors)
            if shard is not None:
                shard.flush()
        except BaseException:
            self._discard(shard)
            raise
        return shard

    def _discard(self, shard: Shard | None) -> None:
        """Removes a new shard, unless ``library.json`` names it by now."""
        if shard is None:
            return
        with suppress(StoreError):
            shard.close()
        state = self._files.read_state()
        if state is None or state.shard != shard.path.name:
            shutil.rmtree(shard.path, ignore_errors=True)


def _state_of(manifest: dict[str, Any] | None, shard: Shard | None) -> State:
    if shard is None:
        return State(manifest)
    return State(manifest, shard.path.name, shard.dimension, shard.count())


def embedded_collections(folder: Path) -> list[str]:
    """Names of the libraries in a folder, sorted; damaged ones included, as they are there.

    Raises:
        StoreError: the folder cannot be read.
    """
    if not folder.exists():
        return []
    with LibraryFiles(folder).errors("read"):
        names = [path.name for path in folder.iterdir() if path.is_dir()]
    found = (name for name in names if NAME_PATTERN.fullmatch(name))
    return sorted(name for name in found if LibraryFiles(folder / name).exists())


def libraries_dir() -> Path:
    """The folder of the embedded libraries unless another is given."""
    return home_dir() / "libraries"


def server_collections(url: str, api_key: str | None = None) -> list[str]:
    """Names of the libraries on a server, sorted.

    Raises:
        StoreError: the server cannot be reached or refuses.
    """
    from sam_detect.vector_store._collections import library_names
    from sam_detect.vector_store._connect import ServerAddress, connect

    return library_names(connect(url, api_key), ServerAddress.parse(url).url)
