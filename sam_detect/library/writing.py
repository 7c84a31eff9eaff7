"""How examples are written: as checked points, with their record, and with the index of a large
library."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from sam_detect.errors import LibraryError
from sam_detect.interfaces import VectorStore
from sam_detect.library import manifest as manifests
from sam_detect.library.example import WRITTEN_FIELDS, Example, check_payload, with_checksums
from sam_detect.library.index import IndexWriter
from sam_detect.library.manifest import CONTENTS_FIELDS
from sam_detect.types import Point
from sam_detect.types.labels import normalised_label


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


def with_normalised_label(example: Example | Point) -> Example | Point:
    """The example under the one form of its label; raises ``LibraryError`` for no name."""
    if isinstance(example, Example):
        return replace(example, label=normalised_label(example.label))
    label = normalised_label(example.payload["label"])
    return replace(example, payload={**example.payload, "label": label})


def point_to_store(example: Example | Point, batch: str | None) -> Point:
    """The point to store; of the batch, unless that is None. Raises ``LibraryError`` for an example
    that has something that no library keeps."""
    payload = example.to_payload() if isinstance(example, Example) else example.payload
    if batch is not None:
        payload = {**payload, "batch": batch, "before": []}
    try:
        checked = check_payload(payload, WRITTEN_FIELDS)
        return with_checksums(Point(example.id, example.vector, checked))
    except ValueError as error:
        raise LibraryError(f"example {example.id} cannot be kept: {error}") from error
