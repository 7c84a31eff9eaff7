"""Carrying libraries: to one file and back, and from store to store.

The file is a zip of three members: ``library.json`` (the manifest), ``examples.jsonl`` (a line of
id and payload per example) and ``vectors.npy``. Nothing in it is ever executed or unpickled.
"""

from __future__ import annotations

import io
import itertools
import json
import os
import tempfile
import uuid
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sam_detect.errors import ConfigError, LibraryCorruptError, LibraryError, OutputError
from sam_detect.library import manifest as manifests
from sam_detect.library.example import Example
from sam_detect.library.library import Added, Library
from sam_detect.types import Point, Recipe

BATCH = 64
MANIFEST, EXAMPLES, VECTORS = "library.json", "examples.jsonl", "vectors.npy"
MAX_UNPACKED_BYTES = 16 << 30
MAX_LINE_BYTES = 64 << 20


def export_library(library: Library, file: Path) -> int:
    """Writes a library into one file, whole or not at all; returns the number of examples.

    Raises:
        OutputError: the file cannot be written.
    """
    with library.store.session():
        manifest = library.require()
        try:
            file.parent.mkdir(parents=True, exist_ok=True)
            handle, temporary = tempfile.mkstemp(dir=file.parent, prefix=f".{file.name}.")
            try:
                with os.fdopen(handle, "wb") as stream:
                    count = _write(stream, manifest, library.store.scan(with_vectors=True))
                    stream.flush()
                    os.fsync(stream.fileno())
                os.replace(temporary, file)
            except BaseException:
                Path(temporary).unlink(missing_ok=True)
                raise
        except OSError as error:
            raise OutputError(f"the export {file} cannot be written: {error.strerror}") from error
    return count


def import_library(library: Library, file: Path) -> Added:
    """Adds the examples of an exported file; each batch is durable, and a second try goes on.

    Raises:
        LibraryCorruptError: the file is not an export, or is damaged. Nothing was added.
        RecipeMismatchError: the library has another recipe.
    """
    try:
        with zipfile.ZipFile(file) as archive:
            recipe, points = _read(archive, file)
            return _add_all(library, points, recipe)
    except OSError as error:
        raise LibraryError(f"the export {file} cannot be read: {error.strerror}") from error
    except (zipfile.BadZipFile, zipfile.LargeZipFile, EOFError, NotImplementedError) as error:
        raise LibraryCorruptError(f"{file} is not a complete sam-detect export: {error}") from error


def copy_library(source: Library, target: Library) -> Added:
    """Adds all examples of one library to another, perhaps on a server."""
    manifest = source.require()
    points = source.store.scan(with_vectors=True)
    return _add_all(target, points, Recipe.from_dict(manifest["recipe"]))


def _add_all(library: Library, points: Iterable[Point], recipe: Recipe) -> Added:
    added = relabelled = 0
    total = len(library)
    iterator = iter(points)
    while batch := [Example.from_point(point) for point in itertools.islice(iterator, BATCH)]:
        done = library.add(batch, recipe)
        added, relabelled, total = added + done.added, relabelled + done.relabelled, done.total
    return Added(added=added, relabelled=relabelled, total=total)


def _write(stream: Any, manifest: dict[str, Any], points: Iterator[Point]) -> int:
    vectors = []
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr(MANIFEST, json.dumps(manifest, indent=1, ensure_ascii=False))
        with archive.open(EXAMPLES, "w", force_zip64=True) as lines:
            for point in points:
                line = {"id": point.id, "payload": point.payload}
                lines.write(json.dumps(line, ensure_ascii=False).encode("utf-8") + b"\n")
                vectors.append(point.vector)
        buffer = io.BytesIO()
        dimension = int(manifest["recipe"]["dimension"])
        matrix = np.array(vectors, np.float32).reshape(len(vectors), dimension)
        np.save(buffer, matrix, allow_pickle=False)
        archive.writestr(VECTORS, buffer.getvalue())
    return len(vectors)


def _read(archive: zipfile.ZipFile, file: Path) -> tuple[Recipe, list[Point]]:
    """Everything is read and checked before anything is added."""
    if {MANIFEST, EXAMPLES, VECTORS} - set(archive.namelist()):
        raise LibraryCorruptError(f"{file} is not a sam-detect export: it lacks a member")
    if sum(info.file_size for info in archive.infolist()) > MAX_UNPACKED_BYTES:
        raise LibraryCorruptError(f"{file} unpacks to more than {MAX_UNPACKED_BYTES >> 30} GiB")
    try:
        manifest = json.loads(archive.read(MANIFEST))
        version = manifests.check(manifest, str(file))
        recipe = Recipe.from_dict(manifest["recipe"])
        vectors = np.load(io.BytesIO(archive.read(VECTORS)), allow_pickle=False)
        points = list(_points(archive, vectors, version))
    except (ValueError, KeyError, TypeError, IndexError, ConfigError) as error:
        raise LibraryCorruptError(f"{file} is damaged: {error}") from error
    if vectors.shape != (len(points), recipe.dimension) or not np.isfinite(vectors).all():
        raise LibraryCorruptError(f"{file} is damaged: its vectors do not fit its examples")
    return recipe, points


def _points(archive: zipfile.ZipFile, vectors: Any, version: int) -> Iterator[Point]:
    with archive.open(EXAMPLES) as lines:
        for number in itertools.count():
            line = lines.readline(MAX_LINE_BYTES)
            if not line:
                return
            row = json.loads(line)
            payload = manifests.migrate_payload(row["payload"], version)
            point = Point(
                str(uuid.UUID(row["id"])), np.asarray(vectors[number], np.float32), payload
            )
            Example.from_point(point)
            yield point
