"""Reads examples as the schema has them, finds those that a person means, or says what there is."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set
from dataclasses import replace

from sam_detect.errors import LibraryCorruptError, LibraryError
from sam_detect.interfaces import VectorStore
from sam_detect.labels import shown_label
from sam_detect.library import checksums, remedies, schema
from sam_detect.library.checksums import LISTED_FIELDS
from sam_detect.library.example import label_of
from sam_detect.types import Point

LEAST_ID_LENGTH = 4
SHOWN = 20


def read(
    store: VectorStore,
    ids: Sequence[str] | None = None,
    *,
    fields: Sequence[str] = schema.PAYLOAD_FIELDS,
    with_vectors: bool = False,
) -> Iterator[Point]:
    """Points with these fields of their payload, as :meth:`VectorStore.scan` gives them.

    Raises:
        LibraryCorruptError: one of them does not keep the schema, or is not what was stored; the
            message says which.
    """
    whole = len(fields) == len(schema.PAYLOAD_FIELDS)
    for point in store.scan(ids, fields=None if whole else fields, with_vectors=with_vectors):
        yield checked(point, fields, store.location)


def checked(point: Point, fields: Sequence[str], location: str) -> Point:
    """The point with these fields of its payload; raises ``LibraryCorruptError`` that names it."""
    try:
        known = replace(point, payload=schema.check_payload(point.payload, fields))
        checksums.check_read(known)
    except ValueError as error:
        raise damaged(point.id, str(error), location) from error
    return known


def damaged(example_id: str, why: str, location: str) -> LibraryCorruptError:
    command = f"sam-detect library repair {remedies.options_of(location)}".strip()
    return LibraryCorruptError(
        f"example {example_id} is damaged: {why}; keep what is sound: {command}"
    )


def count(listed: Iterable[Point]) -> tuple[dict[str, int], int]:
    """``({label: positive examples}, negatives)``, by label."""
    named = Counter(label_of(point) for point in listed)
    classes = {label: number for (label, negative), number in sorted(named.items()) if not negative}
    return classes, named.total() - sum(classes.values())


def of_label(store: VectorStore, label: str, library: str) -> list[str]:
    """The ids of the examples of a label; raises ``LibraryError`` where there are none."""
    named = [(point.id, label_of(point)[0]) for point in read(store, fields=LISTED_FIELDS)]
    ids = [key for key, name in named if name == shown_label(label)]
    if not ids:
        raise LibraryError(no_label(label, {name for _, name in named}, library))
    return ids


def no_label(label: str, labels: Set[str], library: str) -> str:
    """What is said of a label that a library does not have."""
    names = sorted(labels)
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    there = f"(it has: {', '.join(names[:SHOWN]) or 'none'}{more})"
    return f"library '{library}' has no label '{label}' {there}"


def resolve(store: VectorStore, beginnings: Sequence[str], library: str) -> list[str]:
    """The ids that begin so, each once; raises ``LibraryError`` unless each means one example."""
    known = [point.id for point in store.scan(fields=())]
    chosen: set[str] = set()
    for given in beginnings:
        text = given.strip().lower()
        found = [each for each in known if each.startswith(text)]
        if not found or len(text) < LEAST_ID_LENGTH:
            place = remedies.options_of(store.location) or f"--library {library}"
            raise LibraryError(
                f"library '{library}' has no example '{given}' among its {len(known)}; "
                f"see: sam-detect library list {place}"
            )
        if len(found) > 1:
            raise LibraryError(
                f"'{given}' begins the ids of {len(found)} examples: {', '.join(found[:3])}"
            )
        chosen.add(found[0])
    return sorted(chosen)
