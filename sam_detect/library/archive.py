"""The file that carries a library: a zip of three members.

``library.json`` (the manifest), ``examples.jsonl`` (a line of id and payload per example) and
``vectors.npy`` (``(N, D)`` float32, in the order of the lines). Nothing in it is ever executed or
unpickled, no name in it is used as a path, and neither writing nor reading holds more than one
example at a time.
"""

from __future__ import annotations

import io
import json
import lzma
import math
import os
import re
import reprlib
import shutil
import stat
import struct
import tempfile
import time
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from sam_detect.errors import (
    LibraryCorruptError,
    LibraryError,
    MaskError,
    SamDetectError,
    one_line,
)
from sam_detect.library import manifest as manifests
from sam_detect.library.example import PAYLOAD_FIELDS, Example
from sam_detect.types import Point, Recipe
from sam_detect.types.labels import normalised_label
from sam_detect.types.masks import checked_rle
from sam_detect.vector_store._checks import is_canonical_uuid

MANIFEST, EXAMPLES, VECTORS = "library.json", "examples.jsonl", "vectors.npy"
MAX_DIRECTORY_BYTES = 1 << 18
"""What is read of a file to find its members; the list of our three takes some 200 bytes."""
MAX_MANIFEST_BYTES = 1 << 16
MAX_LINE_BYTES = 16 << 20
ROW_BYTES, FREE_ROWS = 64, 10_000
"""Least bytes of a row in a file: its id and checksums alone have that many. A file that says that
it has more rows is not ours; small ones are simply read."""
MAX_RATIO, FREE_BYTES = 100, 64 << 20
"""How far a file may expand: crops are compressed already, so real ones grow to about double."""
BASE_SECONDS, SECONDS_PER_ROW, SECONDS_PER_MB = 8.0, 0.02, 1.0
"""Processor time to check a file; a row of a real one takes 2 to 5 ms."""
MAX_JSON_DEPTH = 12
MAX_JSON_MARKS = 20_000
"""Quotes, and commas and brackets, of one JSON text; an example has some 500."""
NO_WAIT = getattr(os, "O_NONBLOCK", 0)
FLOAT = np.dtype("<f4")
VECTOR_HEADER = re.compile(
    rb"\{'descr': '<f4', 'fortran_order': False, 'shape': \(([0-9]{1,9}), ([0-9]{1,9})\), \} *\n"
)
DAMAGES = (
    zipfile.BadZipFile, zipfile.LargeZipFile, zlib.error, lzma.LZMAError, struct.error, EOFError,
    ValueError, KeyError, TypeError, IndexError, OverflowError, RuntimeError, NotImplementedError,
)  # fmt: skip
"""What zipfile, json and numpy raise on bytes that are not theirs (an encrypted member, an
unknown compression, nesting without end, ...)."""


def write_archive(stream: IO[bytes], manifest: dict[str, Any], points: Iterable[Point]) -> int:
    """Writes a library's points with vectors; returns how many."""
    count, dimension = 0, int(manifest["recipe"]["dimension"])
    with (
        zipfile.ZipFile(stream, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive,
        tempfile.TemporaryFile() as rows,
    ):
        archive.writestr(MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False))
        with archive.open(EXAMPLES, "w", force_zip64=True) as lines:
            for point in points:
                line = {"id": point.id, "payload": point.payload}
                lines.write(json.dumps(line, ensure_ascii=False).encode("utf-8") + b"\n")
                rows.write(np.asarray(point.vector, FLOAT).tobytes())
                count += 1
        rows.seek(0)
        header = {"descr": FLOAT.str, "fortran_order": False, "shape": (count, dimension)}
        with archive.open(VECTORS, "w", force_zip64=True) as vectors:
            np.lib.format.write_array_header_1_0(cast(Any, vectors), header)
            shutil.copyfileobj(rows, vectors, 1 << 20)
    return count


class Archive:
    """An exported file, open for reading. It may come from a stranger.

    Attributes:
        name: the library's name, as it was exported.
        recipe: how its vectors were made.
        count: number of examples.
    """

    def __init__(self, file: Path, stream: _File, members: zipfile.ZipFile) -> None:
        self._file, self._members = file, members
        self._bytes = stream.size
        stream.left = None
        _check_members(members, self._bytes)
        with members.open(MANIFEST) as text:
            manifest = read_json(text.read())
        manifest = manifests.read(manifest, str(file))
        self.name: str = manifest["name"]
        self.recipe = Recipe(**manifest["recipe"])
        with members.open(VECTORS) as rows:
            self.count = _rows(rows, self.recipe.dimension)
        if self.count > max(FREE_ROWS, self._bytes // ROW_BYTES):
            raise ValueError(f"it says that its {self._bytes} bytes have {self.count} examples")

    @classmethod
    @contextmanager
    def open(cls, file: Path) -> Iterator[Archive]:
        """Opens a file; whatever is wrong with it, now or later, is said in one line.

        Raises:
            LibraryCorruptError: it is not an export, or is damaged, or goes beyond a limit.
            LibraryError: it cannot be read, or was written by a newer version.
        """
        try:
            with _File(file) as stream, zipfile.ZipFile(stream) as members:
                yield cls(file, stream, members)
        except SamDetectError:
            raise
        except OSError as error:
            why = error.strerror or one_line(error)
            raise LibraryError(f"the export {file} cannot be read: {why}") from error
        except (*DAMAGES, RecursionError) as error:
            raise LibraryCorruptError(
                f"{file} is not a complete sam-detect export: {one_line(error)[:200]}"
            ) from error

    def points(self) -> Iterator[Point]:
        """All points without unknown fields, their crops not decoded; see :meth:`check`."""
        dimension = self.recipe.dimension
        with (
            self._members.open(VECTORS) as rows,
            io.BufferedReader(cast(Any, self._members.open(EXAMPLES)), 1 << 16) as lines,
        ):
            _rows(rows, dimension)
            for _ in range(self.count):
                line, row = lines.readline(MAX_LINE_BYTES + 1), rows.read(4 * dimension)
                if not line or len(row) < 4 * dimension:
                    raise ValueError("its vectors are not as many as its examples")
                if len(line) > MAX_LINE_BYTES:
                    raise ValueError(f"an example has more than {MAX_LINE_BYTES} bytes")
                yield self._point(line, np.frombuffer(row, FLOAT))
            if rows.read(1) or lines.readline(2):
                raise ValueError("its vectors are not as many as its examples")

    def check(self) -> None:
        """Reads everything, and raises where anything is wrong.

        The time is limited, too: a file's rows and bytes say how long sound ones take at most.
        """
        most_s = BASE_SECONDS + SECONDS_PER_ROW * self.count + SECONDS_PER_MB * self._bytes / 1e6
        began, ids = time.thread_time(), set[str]()
        for point in self.points():
            if point.id in ids:
                raise ValueError(f"two examples have the id {point.id}")
            ids.add(point.id)
            try:
                example = Example.from_point(point)
                normalised_label(example.label)
                checked_rle(dict(example.segmentation))
                if max(example.crop.mask.shape) > (side := self.recipe.crop_side):
                    raise LibraryError(f"its crop is larger than the {side} pixels of the recipe")
            except (LibraryError, MaskError) as error:
                raise LibraryCorruptError(
                    f"{self._file} is damaged at example {point.id}: {error}"
                ) from error
            if time.thread_time() - began > most_s:
                raise ValueError(f"reading it takes longer than {most_s:.0f} s")

    def _point(self, line: bytes, vector: Any) -> Point:
        row = read_json(line)
        if not isinstance(row, dict) or not isinstance(row.get("payload"), dict):
            raise ValueError("an example has no payload")
        key = row.get("id")
        if not is_canonical_uuid(key):
            raise ValueError(f"an id should be a UUID, got {reprlib.repr(key)}")
        manifests.check_vectors(vector[None], [key], self.recipe.dimension)
        known = {name: row["payload"][name] for name in PAYLOAD_FIELDS if name in row["payload"]}
        return Point(key, vector.astype(np.float32), known)


class _File(io.FileIO):
    """A regular file, of which little is read until its list of members is known to be short.

    ``zipfile`` reads that list at once, however long the file says that it is.
    """

    def __init__(self, path: Path) -> None:
        # Opening a pipe would wait for its writer.
        super().__init__(path, opener=lambda name, flags: os.open(name, flags | NO_WAIT))
        found = os.fstat(self.fileno())
        self.size = found.st_size
        self.left: int | None = MAX_DIRECTORY_BYTES
        if not stat.S_ISREG(found.st_mode):
            self.close()
            raise LibraryError(f"the export {path} cannot be read: it is no regular file")

    def read(self, size: int | None = -1) -> bytes:
        wanted = self.size - self.tell() if size is None or size < 0 else size
        if self.left is not None:
            self.left -= wanted
            if self.left < 0:
                raise ValueError("its list of members is too long")
        return super().read(wanted) or b""


def _check_members(members: zipfile.ZipFile, file_bytes: int) -> None:
    """Raises ``ValueError`` unless these are our three members, each by itself, of sane sizes."""
    found = sorted(members.infolist(), key=lambda member: member.header_offset)
    if sorted(member.filename for member in found) != sorted([MANIFEST, EXAMPLES, VECTORS]):
        raise ValueError(f"its members are not {MANIFEST}, {EXAMPLES} and {VECTORS}")
    end = 0
    for member in found:
        if member.flag_bits & 1:
            raise ValueError(f"its {member.filename} is encrypted")
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise ValueError(f"its {member.filename} has an unknown compression")
        if member.header_offset < end:
            raise ValueError("its members overlap")
        end = member.header_offset + len(member.filename) + member.compress_size
        if member.filename == MANIFEST and member.file_size > MAX_MANIFEST_BYTES:
            raise ValueError(f"its {MANIFEST} is larger than {MAX_MANIFEST_BYTES} bytes")
    expanded = sum(member.file_size for member in found)
    if end > file_bytes or expanded > FREE_BYTES + MAX_RATIO * file_bytes:
        raise ValueError(f"its {file_bytes} bytes would expand to {expanded}")


def _rows(rows: IO[bytes], dimension: int) -> int:
    """N of the ``(N, D)`` vectors, whose first is then next to read."""
    start = rows.read(10)
    length = int.from_bytes(start[8:], "little")
    header = VECTOR_HEADER.fullmatch(rows.read(length) if length < 1000 else b"")
    if start[:8] != b"\x93NUMPY\x01\x00" or header is None:
        raise ValueError("its vectors are no plain array of float32")
    count, found = (int(each) for each in header.groups())
    if found != dimension:
        raise ValueError(f"its vectors have length {found}, its recipe says {dimension}")
    return count


def read_json(text: bytes) -> Any:
    """Untrusted JSON: UTF-8, not deep, of few values, without what JSON does not have.

    Depth and number of values are counted before anything is parsed: parsing itself recurses, and
    a list takes 30 times the memory of its text. The caller limits the length of the text.
    """
    outside = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    if outside.count(b'"') > MAX_JSON_MARKS:
        raise ValueError("its JSON has too many values")
    marks = b"".join(outside.split(b'"')[::2])
    if sum(marks.count(mark) for mark in (b",", b"[", b"{")) > MAX_JSON_MARKS:
        raise ValueError("its JSON has too many values")
    depth = 0
    for mark in marks.translate(None, bytes(set(range(256)) - set(b"[]{}"))):
        depth += 1 if mark in b"[{" else -1
        if depth > MAX_JSON_DEPTH:
            raise ValueError(f"its JSON is nested deeper than {MAX_JSON_DEPTH}")
    return json.loads(
        text.decode("utf-8"),
        object_pairs_hook=_without_repeats,
        parse_int=_whole,
        parse_float=_finite,
        parse_constant=_finite,
    )


def _without_repeats(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("its JSON names a field twice")
    return found


def _whole(digits: str) -> int:
    if len(digits) > manifests.MAX_DIGITS + 1:
        raise ValueError(f"its JSON has a number of {len(digits)} digits")
    return int(digits)


def _finite(text: str) -> float:
    if len(text) > 2 * manifests.MAX_DIGITS or not math.isfinite(number := float(text)):
        raise ValueError(f"its JSON has the number {reprlib.repr(text)}")
    return number
