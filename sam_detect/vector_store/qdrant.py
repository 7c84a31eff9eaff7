"""The persistent store: Qdrant, embedded in this process or as a server."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

from sam_detect.errors import ConfigError
from sam_detect.interfaces import StoredPoints, VectorStore
from sam_detect.masks import FloatArray
from sam_detect.types import Hit, Point
from sam_detect.vector_store._edge import EmbeddedStore, embedded_collections
from sam_detect.vector_store._files import check_name, is_library_folder

__all__ = [
    "QdrantVectorStore",
    "embedded_collections",
    "is_library_folder",
    "libraries_dir",
    "server_collections",
]


class QdrantVectorStore(VectorStore):
    """Vectors in Qdrant: the embedded engine by default, a server, cluster or cloud by ``url``.

    Args:
        path: folder of the embedded libraries; ``SAM_DETECT_HOME/libraries`` unless given.
        url: of a server, such as ``http://localhost:6333``.
        api_key: the server's key; not used without ``url``.
        collection_name: the library; letters, digits, ``_``, ``-`` and ``.``, at most 100.
        lock_timeout_s: how long to wait for another process to let go of an embedded library.
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
            from sam_detect.vector_store._server import ServerStore

            self._store = ServerStore.at(
                url, api_key, collection_name, batch_size=batch_size, timeout_s=timeout_s
            )
        else:
            self._store = EmbeddedStore(
                libraries_dir() if path is None else Path(path).expanduser(),
                collection_name,
                lock_timeout_s=lock_timeout_s,
                batch_size=batch_size,
            )

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


def libraries_dir() -> Path:
    """The folder of the embedded libraries unless another is given."""
    from sam_detect.config import home_dir

    return home_dir() / "libraries"


def server_collections(url: str, api_key: str | None = None) -> list[str]:
    """Names of the libraries on a server, sorted.

    Raises:
        StoreError: the server cannot be reached or refuses.
    """
    from sam_detect.vector_store._collections import library_names
    from sam_detect.vector_store._connect import ServerAddress, connect

    return library_names(connect(url, api_key), ServerAddress.parse(url).url)
