"""How examples are written: with their record, and with the index of a large library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from sam_detect.interfaces import VectorStore
from sam_detect.library import manifest as manifests
from sam_detect.library.index import IndexWriter
from sam_detect.library.manifest import CONTENTS_FIELDS
from sam_detect.types import Point


class Writer:
    """Writes examples, keeps count, and keeps the index of a large library up to date."""

    def __init__(
        self,
        store: VectorStore,
        contents: manifests.ContentsRecord,
        index: IndexWriter | None = None,
    ) -> None:
        self._store, self._contents, self._index = store, contents, index

    def upsert(self, points: Sequence[Point]) -> None:
        if points:
            former = list(self._store.scan([p.id for p in points], fields=CONTENTS_FIELDS))
            self._contents.drop(former)
            self._store.upsert(points)
            self._contents.put(points)
            if self._index is not None:
                self._index.remove([point.id for point in former])
                self._index.append(points)

    def delete(self, ids: Sequence[str]) -> None:
        if ids:
            self._contents.drop(self._store.scan(ids, fields=CONTENTS_FIELDS))
            self._store.delete(ids)
            if self._index is not None:
                self._index.remove(ids)


@contextmanager
def counting_writer(store: VectorStore, manifest: dict[str, Any]) -> Iterator[Writer]:
    """Changes examples, in a session of the store.

    The record is removed before the first write and written after the last: a process that is
    killed in between leaves none, and the next writer counts again. It leaves an index of another
    generation, too, and the next reader makes that anew.
    """
    if not store.exclusive:
        yield Writer(store, manifests.ContentsRecord())
        store.write_manifest(manifests.with_new_generation(manifest))
        return
    contents = manifests.ContentsRecord.of_manifest(manifest) or manifests.ContentsRecord(
        store.scan(fields=CONTENTS_FIELDS)
    )
    store.write_manifest({**manifests.with_new_generation(manifest), "contents": None})
    index = IndexWriter.open(store.kept_path, str(manifest.get("generation")))
    yield Writer(store, contents, index)
    changed = manifests.with_new_generation(manifest)
    store.write_manifest({**changed, "contents": contents.to_dict()})
    if index is not None:
        index.finish(str(changed["generation"]))
