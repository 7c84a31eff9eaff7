"""Finds stored examples: by id, by label, or because others contradict them."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence, Set

import numpy as np

from sam_detect.errors import ExampleNotFoundError, LibraryCorruptError, LibraryError, MaskError
from sam_detect.interfaces import VectorStore
from sam_detect.library import places
from sam_detect.library.example import (
    LISTED_FIELDS,
    PAYLOAD_FIELDS,
    Example,
    check_point,
    example_id,
    label_of,
)
from sam_detect.types import Point
from sam_detect.types.labels import shown_label
from sam_detect.types.masks import SAME_OUTLINE_IOU, MaskRLE, rle_to_mask

LEAST_ID_LENGTH = 4
SHOWN = 20


def read(
    store: VectorStore,
    ids: Sequence[str] | None = None,
    *,
    fields: Sequence[str] = PAYLOAD_FIELDS,
    with_vectors: bool = False,
) -> Iterator[Point]:
    """Points with these fields of their payload, as :meth:`VectorStore.scan` gives them.

    Raises:
        LibraryCorruptError: one of them does not keep the schema, or is not what was stored; the
            message says which.
    """
    whole = len(fields) == len(PAYLOAD_FIELDS)
    for point in store.scan(ids, fields=None if whole else fields, with_vectors=with_vectors):
        yield check_read(point, fields, store.location)


def check_read(point: Point, fields: Sequence[str], location: str) -> Point:
    """The point with these fields of its payload; raises ``LibraryCorruptError`` that names it."""
    try:
        return check_point(point, fields)
    except ValueError as error:
        raise damage_error(point.id, str(error), location) from error


def damage_error(example_id: str, why: str, location: str) -> LibraryCorruptError:
    command = f"sam-detect library repair {places.options_of(location)}".strip()
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
    """The ids that begin so, each once; raises as :meth:`Library.get`."""
    known = [point.id for point in store.scan(fields=())]
    chosen: set[str] = set()
    for given in beginnings:
        text = given.strip().lower()
        found = [each for each in known if each.startswith(text)]
        if not found or len(text) < LEAST_ID_LENGTH:
            raise no_example(store, library, given, len(known))
        if len(found) > 1:
            raise LibraryError(
                f"'{given}' begins the ids of {len(found)} examples: {', '.join(found[:3])}"
            )
        chosen.add(found[0])
    return sorted(chosen)


def no_example(store: VectorStore, library: str, example: str, among: int) -> ExampleNotFoundError:
    """What is raised where a library with so many examples has none with this id."""
    place = places.options_of(store.location) or f"--library {library}"
    return ExampleNotFoundError(
        f"library '{library}' has no example '{example}' among its {among}; "
        f"see: sam-detect library list {place}"
    )


def find_contradicted(store: VectorStore, examples: Sequence[Example]) -> dict[str, list[str]]:
    """The ids of stored examples that contradict these, by the ids of these.

    A negative contradicts an example of its label in the same picture with about its outline. A
    positive contradicts a negative of its label with exactly its outline.
    """
    positives = [each for each in examples if not each.negative and each.picture]
    negatives = [each for each in examples if each.negative and each.picture]
    denied = {
        example_id(digest=e.picture, mask_rle=e.segmentation, label=e.label, negative=True): e.id
        for e in positives
    }
    there = store.scan(list(denied), fields=()) if denied else ()
    found = [(denied[point.id], point.id) for point in there]
    for point in read(store, fields=LISTED_FIELDS) if negatives else ():
        label, data = shown_label(point.payload["label"]), point.payload
        for each in [] if data["negative"] else negatives:
            if (each.label, each.picture) == (label, data["picture"]) and same_outline(
                each.segmentation, data["segmentation"]
            ):
                found.append((each.id, point.id))
                break
    by_example: dict[str, list[str]] = {}
    for example, other in found:
        by_example.setdefault(example, []).append(other)
    return by_example


def same_outline(one_rle: MaskRLE, other_rle: MaskRLE) -> bool:
    """Whether two outlines of one picture are of one object."""
    if one_rle["size"] != other_rle["size"]:  # before either is decoded
        return False
    try:
        one, other = rle_to_mask(one_rle), rle_to_mask(other_rle)
    except MaskError:  # it is damaged, which a reader reports
        return False
    return bool(np.count_nonzero(one & other) >= SAME_OUTLINE_IOU * np.count_nonzero(one | other))
