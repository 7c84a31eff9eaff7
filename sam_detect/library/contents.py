"""The record of all examples: notices what was lost, is back after its removal, or is older.

The checksum of each example is its own; that an example is missing, or that a removed one is back,
shows only in their number and the sum of their checksums, which the manifest keeps.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sam_detect.errors import LibraryCorruptError
from sam_detect.interfaces import VectorStore
from sam_detect.library import manifest as manifests
from sam_detect.library import places
from sam_detect.library.example import CHECKSUM
from sam_detect.types import Point

FIELDS = (CHECKSUM, "batch")
MODULUS = 1 << 128


class ContentsRecord:
    """How many examples there are, their checksums added up, and the newest batch."""

    def __init__(self, points: Iterable[Point] = ()) -> None:
        self.examples, self.sum, self.batch = 0, 0, ""
        self.put(points)

    @classmethod
    def recorded(cls, manifest: dict[str, Any]) -> ContentsRecord | None:
        """What a manifest says; None where it says nothing, as while examples are written."""
        data, found = manifest.get("contents"), cls()
        if data is None:
            return None
        found.examples, found.batch = data["examples"], data["batch"]
        found.sum = int(data["sum"], 16)
        return found

    def put(self, points: Iterable[Point]) -> None:
        for point in points:
            self.examples += 1
            self.sum = (self.sum + checksum_of(point)) % MODULUS
            self.batch = max(self.batch, str(point.payload.get("batch", "")))

    def drop(self, points: Iterable[Point]) -> None:
        for point in points:
            self.examples -= 1
            self.sum = (self.sum - checksum_of(point)) % MODULUS

    def passing(self, points: Iterable[Point]) -> Iterator[Point]:
        """The points, each counted as it is passed on."""
        for point in points:
            self.put([point])
            yield point

    def to_dict(self) -> dict[str, Any]:
        return {"examples": self.examples, "sum": f"{self.sum:032x}", "batch": self.batch}

    def problem(self, examples: int, checksums: int) -> str:
        """What is wrong where so many examples with this sum of checksums are found; or nothing."""
        if examples != self.examples:
            return f"it has {examples} examples, {self.examples} were stored"
        return "" if checksums == self.sum else "its examples are not those that were stored"


def checksum_of(point: Point) -> int:
    try:
        return int(str(point.payload.get(CHECKSUM)), 16)
    except ValueError:  # it is damaged, which a reader reports
        return 0


class Writer:
    """Writes examples, and keeps count."""

    def __init__(self, store: VectorStore, contents: ContentsRecord) -> None:
        self._store, self._contents = store, contents

    def upsert(self, points: Sequence[Point]) -> None:
        if points:
            self._contents.drop(self._store.scan([p.id for p in points], fields=FIELDS))
            self._store.upsert(points)
            self._contents.put(points)

    def delete(self, ids: Sequence[str]) -> None:
        if ids:
            self._contents.drop(self._store.scan(ids, fields=FIELDS))
            self._store.delete(ids)


@contextmanager
def changing(store: VectorStore, manifest: dict[str, Any]) -> Iterator[Writer]:
    """Changes examples, in a session of the store.

    The record is removed before the first write and written after the last: a process that is
    killed in between leaves none, and the next writer counts again.
    """
    if not store.exclusive:
        yield Writer(store, ContentsRecord())
        store.write_manifest(manifests.changed(manifest))
        return
    contents = ContentsRecord.recorded(manifest) or ContentsRecord(store.scan(fields=FIELDS))
    store.write_manifest({**manifests.changed(manifest), "contents": None})
    yield Writer(store, contents)
    store.write_manifest({**manifests.changed(manifest), "contents": contents.to_dict()})


def replace_all(store: VectorStore, points: Iterable[Point], manifest: dict[str, Any]) -> None:
    """Puts other examples and another manifest in place, with their record."""
    contents = ContentsRecord()
    store.replace_all(contents.passing(points), {**manifest, "contents": None})
    if store.exclusive:
        store.write_manifest({**manifest, "contents": contents.to_dict()})


def require(
    store: VectorStore, name: str, manifest: dict[str, Any], points: Sequence[Point]
) -> None:
    """Raises ``LibraryCorruptError`` unless these points, with their checksums, are all examples
    that were stored."""
    stored = ContentsRecord.recorded(manifest)
    if stored is None or not store.exclusive:
        return
    why = stored.problem(len(points), ContentsRecord(points).sum)
    if not why:
        return
    place = places.options_of(store.location) or f"--library {name}"
    raise LibraryCorruptError(
        f"library '{name}' is damaged: {why}; keep what is sound: sam-detect library repair {place}"
    )
