"""The file that carries a library: a zip of three members.

``library.json`` (the manifest), ``examples.jsonl`` (a line of id and payload per example) and
``vectors.npy`` (``(N, D)`` float32, in the order of the lines). Nothing in it is ever executed or
unpickled, and neither writing nor reading holds more than one example at a time.
"""

from __future__ import annotations

import json
import lzma
import shutil
import struct
import tempfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any, cast

import numpy as np

from sam_detect.errors import LibraryCorruptError, LibraryError, SamDetectError, one_line
from sam_detect.labels import normalised_label
from sam_detect.library import manifest as manifests
from sam_detect.library import schema
from sam_detect.library.example import Example
from sam_detect.types import Point, Recipe

MANIFEST, EXAMPLES, VECTORS = "library.json", "examples.jsonl", "vectors.npy"
MAX_MANIFEST_BYTES = 1 << 20
MAX_LINE_BYTES = 64 << 20
FLOAT = np.dtype("<f4")
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
    """An exported file, open for reading.

    Attributes:
        recipe: how its vectors were made.
    """

    def __init__(self, file: Path, members: zipfile.ZipFile) -> None:
        self._file = file
        self._members = members
        if {MANIFEST, EXAMPLES, VECTORS} - set(members.namelist()):
            raise LibraryCorruptError(f"{file} is not a sam-detect export: it lacks a member")
        with members.open(MANIFEST) as stream:
            text = stream.read(MAX_MANIFEST_BYTES + 1)
        if len(text) > MAX_MANIFEST_BYTES:
            raise ValueError(f"its {MANIFEST} is too large")
        manifest = schema.read_json(text)
        self._version = manifests.check(manifest, str(file))
        manifest = manifests.read(manifests.migrate_manifest(manifest, self._version), str(file))
        self.recipe: Recipe = manifests.read_recipe(manifest, str(file))

    @classmethod
    @contextmanager
    def open(cls, file: Path) -> Iterator[Archive]:
        """Opens a file; whatever is wrong with it, now or later, is said in one line.

        Raises:
            LibraryCorruptError: it is not an export, or is damaged.
            LibraryError: it cannot be read, or was written by a newer version.
        """
        try:
            with zipfile.ZipFile(file) as members:
                yield cls(file, members)
        except SamDetectError:
            raise
        except OSError as error:
            why = error.strerror or one_line(error)
            raise LibraryError(f"the export {file} cannot be read: {why}") from error
        except (*DAMAGES, RecursionError) as error:
            raise LibraryCorruptError(
                f"{file} is not a complete sam-detect export: {one_line(error)[:200]}"
            ) from error

    def points(self, *, checked: bool) -> Iterator[Point]:
        """All points in the present format.

        Args:
            checked: also decode every crop and look at every field; without, only the second of
                two readings of a file should be.
        """
        with self._members.open(VECTORS) as rows, self._members.open(EXAMPLES) as lines:
            count, dimension = _shape(rows, self.recipe)
            for _ in range(count):
                row = rows.read(dimension * FLOAT.itemsize)
                point = self._point(lines.readline(MAX_LINE_BYTES), np.frombuffer(row, FLOAT))
                if checked:
                    self._check(point, dimension)
                yield point
            if rows.read(1) or lines.readline(2):
                raise ValueError("its vectors do not fit its examples")

    def check(self) -> int:
        """Reads everything; returns the number of examples, or raises."""
        return sum(1 for _ in self.points(checked=True))

    def _point(self, line: bytes, vector: Any) -> Point:
        if not line:
            raise ValueError("its vectors do not fit its examples")
        row = schema.read_json(line)
        if not isinstance(row, dict) or not isinstance(row.get("payload"), dict):
            raise ValueError("an example has no payload")
        key = schema.check_id(row.get("id"))
        point = Point(key, vector.astype(np.float32), row["payload"])
        return manifests.migrate_point(point, self._version)

    def _check(self, point: Point, dimension: int) -> None:
        vector = point.vector
        if vector is None or vector.shape != (dimension,):
            raise ValueError(f"the vector of example {point.id} is damaged")
        schema.check_vectors(vector[None], [point.id], dimension)
        try:
            normalised_label(Example.from_point(point).label)
        except LibraryError as error:
            raise LibraryCorruptError(f"{self._file} is damaged: {error}") from error


def _shape(rows: IO[bytes], recipe: Recipe) -> tuple[int, int]:
    """``(N, D)`` from the header of the vectors, which are then next to read."""
    version = np.lib.format.read_magic(rows)
    if version != (1, 0):
        raise ValueError(f"its vectors have version {version}")
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(rows, max_header_size=1000)
    if dtype != FLOAT or fortran or shape[1:] != (recipe.dimension,):
        raise ValueError(f"its vectors are {dtype} of shape {shape}")
    return int(shape[0]), int(shape[1])
