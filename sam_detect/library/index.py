"""The index of a large library: what naming needs of every example, in files next to the store.

The engine needs a third of a second to open a library of 100,000 examples, and reads the whole
payload of each. Here the vectors, labels and outlines of all lie in columns that are mapped, so a
new process searches them at once. The search is exact.

::

    index.kept             the head: how many rows count, and for which generation of the library
    all-TOKEN.vectors      (N, D) float32, one row for each example that was ever added
    all-TOKEN.rows         N records of ROW: id, label, polarity, checksums
    all-TOKEN.outlines     JSON of the outlines, one after the other

A writer appends rows while it holds the library, and then replaces the head. A killed writer leaves
a head of another generation, and the next reader makes the index anew. Rows are never changed, so a
snapshot stays as it was; the head lists those that were removed. Every row has a checksum, which is
compared where the row is used.
"""

from __future__ import annotations

import hashlib
import json
import os
import secrets
import uuid
import zlib
from collections.abc import Iterable, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sam_detect.library.columns import OUTLINE_FIELDS, outline_record
from sam_detect.library.example import label_of
from sam_detect.library.kept import KeptFiles
from sam_detect.types import Neighbour, Point
from sam_detect.types.masks import FloatArray, IntArray
from sam_detect.vector_store._checks import in_batches

HEAD = "index"
ROW = np.dtype([
    ("high", "<u8"),  # of the id, whose order as text is that of (high, low)
    ("low", "<u8"),
    ("content", "<u8"),  # of the example's own checksum
    ("picture", "<u8"),  # of the digest of its picture; 0 where it is not known
    ("end", "<i8"),  # of its outline's record
    ("label", "<i4"),
    ("negative", "<i4"),
    ("check", "<u4"),  # CRC-32 of the vector, of the outline's record and of all above
], align=True)  # fmt: skip
CHECKED_BYTES = 6 * 8
BLOCK_ROWS = 16_384
"""Rows compared at once: their similarities to some hundred vectors stay in the cache."""
QUERIES_AT_ONCE = 512
ROUNDING = 1e-5
"""More than float32 rounding can move the cosine of two unit vectors."""
MOST_REMOVED = 5000
"""With more rows that do not count, the index is made anew."""
MOST_KNOWN = 100_000
"""So many rows are remembered by id, of those that were found."""
NAMES = ("vectors", "rows", "outlines")

Rows = npt.NDArray[np.void]


class DamagedIndexError(Exception):
    """A row is not what was written."""


@dataclass(frozen=True, eq=False)
class Head:
    """Which rows count.

    Attributes:
        token: in the names of the files.
        count: rows that were written.
        dimension: length of the vectors.
        labels: the names that rows mean by their numbers.
        outline_bytes: length of all outlines.
        removed: ``(R,)`` int64, rows that do not count.
    """

    token: str
    count: int
    dimension: int
    labels: tuple[str, ...]
    outline_bytes: int
    removed: IntArray

    def paths(self, folder: Path) -> list[Path]:
        return [folder / f"all-{self.token}.{name}" for name in NAMES]

    def sizes(self) -> list[int]:
        """How long the files are at least."""
        return [4 * self.count * self.dimension, ROW.itemsize * self.count, self.outline_bytes]


class ExampleIndex:
    """The index as it was at one generation of the library: immutable, for any thread.

    Args:
        folder: where its files are.
        head: of that generation.

    Raises:
        OSError, ValueError: the files are not there, or too short.
    """

    def __init__(self, folder: Path, head: Head) -> None:
        self._folder, self._head = folder, head
        vectors, rows, outlines = head.paths(folder)
        self._vectors = _mapped(vectors, np.float32, (head.count, head.dimension))
        self._rows: Rows = _mapped(rows, ROW, (head.count,))
        self._outlines = _mapped(outlines, np.uint8, (head.outline_bytes,))
        self._known: dict[str, int] = {}

    @classmethod
    def open(cls, folder: Path | None, generation: str) -> ExampleIndex | None:
        """The index of a generation; None where there is none."""
        head = None if folder is None else KeptFiles(folder).read(HEAD, generation, Head)
        if head is None or folder is None:
            return None
        try:
            return cls(folder, head)
        except (OSError, ValueError):
            return None

    @classmethod
    def build(
        cls, folder: Path | None, generation: str, points: Iterable[Point]
    ) -> ExampleIndex | None:
        """An index of points with vectors and what lists show, in a session of their store.

        None where it cannot be written.
        """
        if folder is None:
            return None
        writer = IndexWriter(folder, None)
        for batch in in_batches(points, BLOCK_ROWS):
            writer.append(batch)
        writer.finish(generation)
        return cls.open(folder, generation)

    def __len__(self) -> int:
        return self._head.count - len(self._head.removed)

    def nearest(self, vectors: FloatArray, limit: int) -> list[list[Neighbour]]:
        """The nearest examples of each of ``(Q, D)`` unit vectors, nearest first, ties by id.

        Raises:
            DamagedIndexError: one of them is not what was written.
        """
        found: list[list[Neighbour]] = []
        for start in range(0, len(vectors), QUERIES_AT_ONCE):
            some = np.asarray(vectors[start : start + QUERIES_AT_ONCE], np.float32)
            found += self._nearest(some, min(limit, len(self)))
        return found

    def vectors(self, ids: Sequence[str]) -> dict[str, FloatArray]:
        """The vectors of examples by id, as far as they are here."""
        known = self._known  # checked when they were found
        places = {key: known[key] for key in ids if key in known}
        lost = [key for key in ids if key not in places]
        if lost:
            found = self._find(lost)
            self._check(found.values())
            places |= found
        return {key: np.asarray(self._vectors[row]) for key, row in places.items()}

    def of_picture(self, digest: str) -> list[Point]:
        """As of :meth:`~sam_detect.library.columns.Outlines.of_picture`."""
        if not digest:
            return []
        rows = np.flatnonzero(self._rows["picture"] == _hash(digest)).tolist()
        rows = [row for row in rows if row not in set(self._head.removed.tolist())]
        self._check(rows)
        found = []
        for row in rows:
            key, picture, *values = json.loads(self._record(row))
            if picture == digest:
                found.append(Point(key, None, dict(zip(OUTLINE_FIELDS, values, strict=True))))
        return sorted(found, key=lambda point: point.id)

    def sample(self, most: int) -> tuple[list[str], str]:
        """The ids of an even sample, as many of each label as there is room for, and a digest of
        them and of what they are: the same for the same examples, whatever was learnt when.

        Raises:
            DamagedIndexError: one of them is not what was written.
        """
        counts = np.ones(len(self._rows), np.bool_)
        counts[self._head.removed] = False
        rows = np.flatnonzero(counts)
        groups = 2 * self._rows["label"][rows].astype(np.int64) + self._rows["negative"][rows]
        codes, sizes = np.unique(groups, return_counts=True)
        share = max(1, most // max(1, len(codes)))
        # Ids are hashes, so the first by id are a random, repeatable choice.
        order = np.lexsort((self._rows["low"][rows], self._rows["high"][rows], groups))
        starts = np.cumsum(sizes) - sizes
        chosen = np.concatenate([
            order[start : start + min(size, share)]
            for start, size in zip(starts, sizes, strict=True)
        ]) if len(codes) else order  # fmt: skip
        chosen = rows[chosen]
        chosen = chosen[np.lexsort((self._rows["low"][chosen], self._rows["high"][chosen]))]
        self._check(chosen.tolist())
        digest = hashlib.blake2b(digest_size=16)
        for name in ("high", "low", "content"):
            digest.update(np.ascontiguousarray(self._rows[name][chosen]).tobytes())
        return [self._id(row) for row in chosen.tolist()], digest.hexdigest()

    def discard(self) -> None:
        """Takes it back, so that the next reader makes it anew."""
        with suppress(OSError):
            (self._folder / f"{HEAD}.kept").unlink()

    # -- inside ------------------------------------------------------------------------------

    def _nearest(self, queries: FloatArray, limit: int) -> list[list[Neighbour]]:
        count, removed = self._head.count, self._head.removed
        near: list[list[tuple[IntArray, FloatArray]]] = [[] for _ in queries]
        best = np.full((len(queries), limit), -2, np.float32)  # similarities so far, in no order
        for start in range(0, count, BLOCK_ROWS):
            rough = queries @ self._vectors[start : start + BLOCK_ROWS].T
            rough[:, removed[(removed >= start) & (removed < start + BLOCK_ROWS)] - start] = -np.inf
            hits = rough >= (best.min(axis=1) - ROUNDING)[:, None]
            for query in np.flatnonzero(hits.any(axis=1)).tolist():
                places = np.flatnonzero(hits[query])
                similar = rough[query, places]
                near[query].append((places + start, similar))
                both = np.concatenate([best[query], similar])
                best[query] = np.partition(both, len(places))[len(places) :]
        found = []
        for query, parts, bound in zip(queries, near, best.min(axis=1) - ROUNDING, strict=True):
            # What was near only in the beginning drops out.
            rows = np.concatenate([rows[similar >= bound] for rows, similar in parts])
            found.append(self._ranked(query, rows, limit))
        return found

    def _ranked(self, query: FloatArray, rows: IntArray, limit: int) -> list[Neighbour]:
        # In float64: float32 products round equal rows differently by their position, and equal
        # vectors must tie.
        exact = (self._vectors[rows].astype(np.float64) * query.astype(np.float64)).sum(axis=1)
        order = np.lexsort((self._rows["low"][rows], self._rows["high"][rows], -exact))[:limit]
        rows, exact = rows[order], exact[order]
        self._check(rows.tolist())
        ids, labels = [self._id(row) for row in rows.tolist()], self._head.labels
        if len(self._known) > MOST_KNOWN:
            self._known.clear()
        self._known |= zip(ids, rows.tolist(), strict=True)
        said = zip(self._rows["label"][rows].tolist(), self._rows["negative"][rows], strict=True)
        return [
            Neighbour(key, labels[label], similarity, bool(negative))
            for key, similarity, (label, negative) in zip(ids, exact.tolist(), said, strict=True)
        ]

    def _find(self, ids: Sequence[str]) -> dict[str, int]:
        """The rows of the ids that are here; of one that was written again, the last."""
        halves = [_halves(key) for key in ids]
        places = np.flatnonzero(np.isin(self._rows["low"], _lows(halves)))
        found = {self._id(row): row for row in places.tolist()}
        return {key: found[key] for key in ids if key in found}

    def _id(self, row: int) -> str:
        each = self._rows[row]
        text = f"{int(each['high']):016x}{int(each['low']):016x}"
        return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"

    def _record(self, row: int) -> bytes:
        start = int(self._rows["end"][row - 1]) if row else 0
        return self._outlines[start : int(self._rows["end"][row])].tobytes()

    def _check(self, rows: Iterable[int]) -> None:
        for row in rows:
            each = self._rows[row]
            if int(each["check"]) != _check_of(each, self._vectors[row], self._record(row)):
                raise DamagedIndexError(self._id(row))


class IndexWriter:
    """Appends to an index, in a session of its store; it counts once :meth:`finish` was called.

    Where something cannot be written (a full disk) it gives up, and the next reader makes the index
    anew.

    Args:
        folder: of the files.
        head: of the index to append to; None makes a new one, in place of any other.
    """

    def __init__(self, folder: Path, head: Head | None) -> None:
        self._folder, self._given_up = folder, False
        token = secrets.token_hex(4)
        self._head = head or Head(token, 0, 0, (), 0, np.zeros(0, np.int64))
        self._labels = {label: number for number, label in enumerate(self._head.labels)}
        if head is None:
            with suppress(OSError):
                folder.mkdir(exist_ok=True)
                for path in folder.glob("all-*"):
                    path.unlink(missing_ok=True)

    @classmethod
    def open(cls, folder: Path | None, generation: str) -> IndexWriter | None:
        """For the index of a generation; None where there is none."""
        head = None if folder is None else KeptFiles(folder).read(HEAD, generation, Head)
        return None if head is None or folder is None else cls(folder, head)

    def append(self, points: Sequence[Point]) -> None:
        """Adds points that are not there; each with its vector and what lists show."""
        if not points or self._given_up:
            return
        vectors = np.stack([np.asarray(point.vector, np.float32) for point in points])
        records = [outline_record(point, point.payload["picture"]) for point in points]
        end = self._head.outline_bytes + np.cumsum([len(record) for record in records])
        rows = np.zeros(len(points), ROW)
        for row, point, vector, record, last in zip(
            rows, points, vectors, records, end.tolist(), strict=True
        ):
            label, negative = label_of(point)
            row["high"], row["low"] = _halves(point.id)
            row["content"] = int(str(point.payload["checksum"])[:16], 16)
            row["picture"] = _hash(point.payload["picture"])
            row["label"] = self._labels.setdefault(label, len(self._labels))
            row["negative"], row["end"] = negative, last
            row["check"] = _check_of(row, vector, record)
        parts = [vectors.tobytes(), rows.tobytes(), b"".join(records)]
        try:
            with ExitStack() as stack:
                for path, size, part in zip(
                    self._head.paths(self._folder), self._head.sizes(), parts, strict=True
                ):
                    file = stack.enter_context(open(path, "r+b" if self._head.count else "xb"))
                    if file.seek(0, os.SEEK_END) < size:
                        raise OSError(f"{path} is too short")
                    file.seek(size)
                    file.write(part)
                    file.flush()
                    os.fsync(file.fileno())
        except OSError:
            self._given_up = True
            return
        self._head = replace(
            self._head,
            count=self._head.count + len(points),
            dimension=vectors.shape[1],
            labels=tuple(self._labels),
            outline_bytes=int(end[-1]),
        )

    def remove(self, ids: Sequence[str]) -> None:
        """Takes out the rows of ids that are there."""
        if not ids or self._given_up:
            return
        try:
            rows: Rows = _mapped(self._head.paths(self._folder)[1], ROW, (self._head.count,))
        except (OSError, ValueError):
            self._given_up = True
            return
        wanted = {_halves(key) for key in ids}
        places = np.flatnonzero(np.isin(rows["low"], _lows(wanted))).tolist()
        gone = [p for p in places if (int(rows["high"][p]), int(rows["low"][p])) in wanted]
        self._head = replace(self._head, removed=np.union1d(self._head.removed, gone).astype(int))
        self._given_up = len(self._head.removed) > MOST_REMOVED

    def finish(self, generation: str) -> None:
        """What was appended and removed is the library of this generation."""
        if not self._given_up and self._head.count:
            KeptFiles(self._folder).write(HEAD, generation, self._head)


def _mapped(path: Path, dtype: npt.DTypeLike, shape: tuple[int, ...]) -> npt.NDArray[Any]:
    # As a plain array: each view of a memory map costs microseconds.
    return np.memmap(path, dtype, "r", shape=shape).view(np.ndarray)


def _halves(key: str) -> tuple[int, int]:
    number = uuid.UUID(key).int
    return number >> 64, number & (2**64 - 1)


def _lows(halves: Iterable[tuple[int, int]]) -> npt.NDArray[np.uint64]:
    return np.array([low for _, low in halves], np.uint64)


def _hash(digest: str) -> int:
    """64 bits of the digest of a picture, not 0; 0 of none."""
    if not digest:
        return 0
    return int.from_bytes(hashlib.blake2b(digest.encode(), digest_size=8).digest(), "little") or 1


def _check_of(row: np.void, vector: FloatArray, record: bytes) -> int:
    before = row.tobytes()[:CHECKED_BYTES]
    return zlib.crc32(record, zlib.crc32(vector.data, zlib.crc32(before)))
