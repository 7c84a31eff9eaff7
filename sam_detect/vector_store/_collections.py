"""A library's collections on a Qdrant server: which one its name means, and how that changes.

A library ``nuts`` is an alias ``nuts`` of one physical collection, ``nuts~1`` at first. To replace
everything, another collection is filled and the alias is switched, which a server does in one
step. What belongs to us, and the manifest, is in the collection's metadata: one JSON text, so
that no server merges or converts its parts.
"""

from __future__ import annotations

import json
import time
import uuid
from dataclasses import asdict, dataclass
from typing import Any

from qdrant_client import QdrantClient, models

from sam_detect.errors import StoreError
from sam_detect.vector_store._connect import is_conflict, is_not_found, server_errors
from sam_detect.vector_store._files import NAME_PATTERN

METADATA_KEY = "sam_detect"
SEPARATOR = "~"  # in no library's name
LEFTOVER_AGE_S = 3600
"""Collections without alias are another process's work in progress before this age."""
CREATION_WAIT_S = 5.0


@dataclass(frozen=True)
class Record:
    """What a collection's metadata says of it.

    Attributes:
        manifest: the caller's manifest, or None before it was written.
        dimension: length of the vectors, or None while there were no points to tell.
        made: Unix time when the collection was made.
    """

    manifest: dict[str, Any] | None
    dimension: int | None
    made: float

    def metadata(self) -> dict[str, str]:
        return {METADATA_KEY: json.dumps(asdict(self))}

    @classmethod
    def read(cls, metadata: dict[str, Any] | None) -> Record | None:
        """None where the collection is not ours."""
        try:
            found = json.loads((metadata or {})[METADATA_KEY])
            record = cls(found["manifest"], found["dimension"], float(found["made"]))
        except (KeyError, TypeError, ValueError, OverflowError, RecursionError):
            return None
        sound = isinstance(record.manifest, dict | None) and isinstance(
            record.dimension, int | None
        )
        return record if sound else None


class Collections:
    """The collections of one library, seen through one client.

    Args:
        client: of the server.
        name: the library.
        server: its address, for people.
    """

    def __init__(self, client: QdrantClient, name: str, server: str) -> None:
        self._client = client
        self._name = name
        self._server = server

    def record(self) -> Record | None:
        """The library's record, or None where there is no library.

        Raises:
            StoreError: the name is another's collection.
        """
        try:
            config = self._client.get_collection(self._name).config
        except Exception as error:
            if is_not_found(error):
                return None
            raise
        record = Record.read(config.metadata)
        if record is None:
            raise StoreError(
                f"the collection '{self._name}' at {self._server} was not made by sam-detect and "
                f"is left alone; choose another library name"
            )
        return record

    def require_record(self) -> Record:
        record = self.record()
        if record is None:
            raise self._gone()
        return record

    def physical_or_none(self) -> str | None:
        """The collection that the library's name means."""
        aliases = self._client.get_aliases().aliases
        return next((a.collection_name for a in aliases if a.alias_name == self._name), None)

    def physical(self) -> str:
        name = self.physical_or_none()
        if name is None:
            raise self._gone()
        return name

    def _gone(self) -> StoreError:
        where = f"the library '{self._name}' at {self._server}"
        return StoreError(f"{where} was removed meanwhile; try again")

    def create(self, record: Record, suffix: str | None = None) -> str:
        name = f"{self._name}{SEPARATOR}{suffix or uuid.uuid4().hex[:12]}"
        # Before there is a point, the length is unknown: 1 stands in. Vectors have length 1, of
        # which the dot product is the cosine; for that a server keeps them bit for bit.
        size = record.dimension or 1
        self._client.create_collection(
            name,
            vectors_config=models.VectorParams(size=size, distance=models.Distance.DOT),
            metadata=record.metadata(),
        )
        return name

    def create_first(self, record: Record) -> None:
        """Makes the library, or waits for the process that is making it at this moment.

        All take the same first name, so that only one of them can succeed.
        """
        first = f"{self._name}{SEPARATOR}1"
        try:
            self.create(record, "1")
        except Exception as error:
            if not is_conflict(error):
                raise
            deadline = time.monotonic() + CREATION_WAIT_S
            while self.physical_or_none() is None:
                if time.monotonic() > deadline:  # the process that made it was killed
                    self._client.delete_collection(first)
                    self.create(record, "1")
                    break
                time.sleep(0.1)
            else:
                return
        self.switch(first)

    def switch(self, fresh: str) -> None:
        """Lets the library's name mean another collection, in one step; removes the one before."""
        before = self.physical_or_none()
        create = models.CreateAlias(collection_name=fresh, alias_name=self._name)
        steps: list[Any] = [models.CreateAliasOperation(create_alias=create)]
        if before is not None:
            steps.insert(0, self._removal())
        self._client.update_collection_aliases(steps)
        if before is not None and before != fresh:
            self._client.delete_collection(before)

    def forget(self) -> None:
        """Takes the library's name away; its collection is a leftover from then on."""
        self._client.update_collection_aliases([self._removal()])

    def _removal(self) -> models.DeleteAliasOperation:
        return models.DeleteAliasOperation(delete_alias=models.DeleteAlias(alias_name=self._name))

    def sweep(self, *, older_than_s: float) -> None:
        """Removes our collections of this library's that its name does not mean."""
        current = self.physical_or_none()
        for collection in self._client.get_collections().collections:
            name = collection.name
            if name == current or not name.startswith(self._name + SEPARATOR):
                continue
            record = Record.read(self._client.get_collection(name).config.metadata)
            if record is not None and time.time() - record.made >= older_than_s:
                self._client.delete_collection(name)


def library_names(client: QdrantClient, location: str) -> list[str]:
    """Names of the libraries on a server, sorted."""
    with server_errors(location):
        aliases = client.get_aliases().aliases
    return sorted(
        alias.alias_name
        for alias in aliases
        if alias.collection_name.startswith(alias.alias_name + SEPARATOR)
        and NAME_PATTERN.fullmatch(alias.alias_name)
    )
