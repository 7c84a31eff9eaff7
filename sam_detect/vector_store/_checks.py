"""What all stores share: they refuse the same things, and rank and break ties in one way."""

from __future__ import annotations

import itertools
import json
import uuid
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt

from sam_detect.errors import StoreError, one_line
from sam_detect.types import Hit, Point
from sam_detect.types.masks import FloatArray

MAX_DEPTH = 32
"""Qdrant's log takes more, but cannot be read again with more than about 128 levels."""

SPARE = 8
"""Hits asked for beyond the limit, so that most ties at its edge are seen at once."""


def is_canonical_uuid(text: object) -> TypeGuard[str]:
    """Whether this is a UUID's canonical text: lower case, with hyphens."""
    if not isinstance(text, str) or len(text) != 36:
        return False
    try:
        return str(uuid.UUID(text)) == text
    except ValueError:
        return False


def known_ids(ids: Iterable[str]) -> list[str]:
    """The ids that a store could have, sorted, each once; text that is no UUID is in no store."""
    return sorted({text for text in ids if is_canonical_uuid(text)})


def check_points(points: Sequence[Point], *, dimension: int | None) -> FloatArray:
    """The points' vectors as ``(N, D)`` float32; ``dimension`` is the store's, if it has one.

    Raises:
        StoreError: an id that is no UUID, or a vector that is malformed or of another length.
    """
    vectors = []
    for point in points:
        if not is_canonical_uuid(point.id):
            raise StoreError(
                f"point ids must be UUIDs in canonical text form "
                f"(like {uuid.UUID(int=0)}), got {point.id!r}"
            )
        if point.vector is None:
            raise StoreError(f"point {point.id} has no vector; a store keeps only points with one")
        vector = _as_floats(point.vector, f"the vector of point {point.id}")
        if vector.ndim != 1 or vector.size == 0:
            raise StoreError(
                f"the vector of point {point.id} must have shape (D,), it has {vector.shape}"
            )
        dimension = vector.size if dimension is None else dimension
        if vector.size != dimension:
            raise StoreError(
                f"vectors of length {dimension} are expected here, "
                f"that of point {point.id} has length {vector.size}"
            )
        vectors.append(vector)
    return np.stack(vectors) if vectors else np.zeros((0, dimension or 0), np.float32)


def check_payloads(points: Sequence[Point]) -> int:
    """The length of all payloads as JSON, in bytes.

    Raises:
        StoreError: a payload that is no dict of plain JSON data (text, numbers, lists, ...).
    """
    total = 0
    for point in points:
        try:
            keys = point.payload if isinstance(point.payload, dict) else [None]
            if not all(isinstance(key, str) for key in keys):
                raise TypeError("it must be a dict with text keys")
            if not _nested_within(point.payload, MAX_DEPTH):
                raise ValueError(f"it is nested deeper than {MAX_DEPTH}")
            text = json.dumps(point.payload, allow_nan=False, ensure_ascii=False)
            total += len(text.encode("utf-8"))
        except (TypeError, ValueError, RecursionError) as error:
            raise StoreError(
                f"the payload of point {point.id} must be plain JSON data: {one_line(error)}"
            ) from error
    return total


def json_copy(data: dict[str, Any]) -> dict[str, Any]:
    """The data as it comes back from JSON: tuples are lists, and nothing is shared.

    Raises:
        StoreError: it is not plain JSON data.
    """
    try:
        copied: dict[str, Any] = json.loads(json.dumps(data, allow_nan=False))
    except (TypeError, ValueError, RecursionError) as error:
        raise StoreError(f"plain JSON data is expected: {one_line(error)}") from error
    return copied


def check_queries(vectors: npt.ArrayLike, limit: int, *, dimension: int | None) -> FloatArray:
    """Query vectors as ``(Q, D)`` float32.

    Raises:
        StoreError: another shape or length, NaN, infinity, or a limit below 1.
    """
    queries = _as_floats(vectors, "a query vector")
    if queries.ndim != 2:
        raise StoreError(f"query vectors must have shape (Q, D), got {queries.shape}")
    if limit < 1:
        raise StoreError(f"the number of neighbours must be at least 1, got {limit}")
    if dimension is not None and len(queries) and queries.shape[1] != dimension:
        raise StoreError(
            f"vectors of length {dimension} are expected here, "
            f"the query has length {queries.shape[1]}"
        )
    return queries


def normalised(vectors: FloatArray) -> FloatArray:
    """``(N, D)`` vectors scaled to length 1; a zero vector stays, and is similar to nothing.

    A vector of length 1 (within rounding) stays as it is, bit for bit, so that one that was stored
    can be stored again.
    """
    wide = vectors.astype(np.float64)
    # Scaled by the largest element first: the squares of large float32 values stay finite.
    largest = np.abs(wide).max(axis=-1, keepdims=True, initial=0.0)
    wide /= np.where(largest > 0, largest, 1.0)
    norms = np.linalg.norm(wide, axis=-1, keepdims=True)
    scaled = (wide / np.where(norms > 0, norms, 1.0)).astype(np.float32)
    is_unit = np.abs(np.linalg.norm(vectors.astype(np.float64), axis=-1, keepdims=True) - 1) < 1e-6
    return np.where(is_unit, vectors, scaled).astype(np.float32)


def pick_fields(payload: dict[str, Any], fields: Sequence[str] | None) -> dict[str, Any]:
    """The payload with all (None) or the named top-level fields, as far as they exist; what they
    hold is not copied."""
    if fields is None:
        return payload
    return {name: payload[name] for name in fields if name in payload}


def in_batches(points: Iterable[Point], size: int) -> Iterator[list[Point]]:
    """The points in lists of at most ``size``."""
    iterator = iter(points)
    while batch := list(itertools.islice(iterator, size)):
        yield batch


def nearest_with_ties(
    search: Callable[[FloatArray, int], list[list[Hit]]],
    queries: FloatArray,
    limit: int,
    count: int,
) -> list[list[Hit]]:
    """The ``limit`` nearest of each query: by similarity, then by id.

    An engine returns any of the points that tie for the last places, so more are asked for until
    the last one returned is clearly worse.

    Args:
        search: ``(Q, D)`` queries and a number of hits to the best hits of each, best first.
        count: points there are.
    """
    rows: list[list[Hit]] = [[] for _ in queries]
    open_rows = np.arange(len(queries))
    asked = min(limit + SPARE, count)
    while len(open_rows):
        for index, row in zip(open_rows, search(queries[open_rows], asked), strict=True):
            rows[index] = sorted(row, key=lambda hit: (-hit.similarity, hit.id))
        if asked >= count:
            break
        # Where points that were not returned may tie with the last one wanted.
        tied = [
            len(rows[i]) >= asked > limit
            and rows[i][limit - 1].similarity == rows[i][-1].similarity
            for i in open_rows
        ]
        open_rows = open_rows[tied]
        asked = min(4 * asked, count)
    return [row[:limit] for row in rows]


def _nested_within(value: object, depth: int) -> bool:
    if not isinstance(value, (dict, list, tuple)):
        return True
    inner = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_nested_within(each, depth - 1) for each in inner)


def _as_floats(values: npt.ArrayLike, what: str) -> FloatArray:
    try:
        with np.errstate(over="ignore"):
            array = np.asarray(values).astype(np.float32, copy=False)
    except (TypeError, ValueError) as error:
        raise StoreError(f"{what} must hold plain numbers") from error
    if not np.isfinite(array).all():
        raise StoreError(f"{what} has NaN or infinite elements")
    return array
