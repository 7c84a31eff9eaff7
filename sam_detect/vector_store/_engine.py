"""One shard of the embedded Qdrant engine, with our types and errors, and what a repair can read.

The only module that touches ``qdrant_edge``. The engine is Rust: its errors come as bare
``Exception`` (or a panic, which derives from ``BaseException``) with a text.
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import qdrant_edge as edge

from sam_detect.errors import LibraryBusyError, LibraryCorruptError, SamDetectError, StoreError
from sam_detect.interfaces import StoredPoints
from sam_detect.types import Hit, Point
from sam_detect.types.masks import FloatArray
from sam_detect.vector_store._checks import normalised, pick_fields
from sam_detect.vector_store._files import DISK_FULL, LibraryFiles, copy_without_holes

SYSTEM_ERROR = re.compile(r"(?:os error|code:) (\d+)")
OF_DAMAGE = (0, errno.ENOENT, errno.ENOTDIR, errno.EISDIR, errno.EINVAL)
"""What the system says of files that are missing or cut off; 0: it said nothing. All else that it
says (no memory, too many open files, no permission) is no damage."""
PLAIN_FIELD = re.compile(r"[A-Za-z0-9_-]+")
SCAN_PAGE = 256
OPEN_MEMORY_BYTES, CALL_MEMORY_BYTES = 288 << 20, 64 << 20
"""Memory that must be left to open a shard, and for each call: see ``require_memory``."""

FIXED_SIZES = {
    "segment.json": 2,
    "version.info": 5,
    "vector_storage/vectors/status.dat": 8,
    "vector_storage/deleted/status.dat": 16,
}
"""Files of a segment with their least size in bytes. Without them this version of the engine
panics, or quietly drops the segment and its points."""

COUNTS = ("vector_storage/vectors/status.dat", "vector_storage/deleted/status.dat")
"""Files of a segment that begin with the number of its vectors, as 8 bytes."""
MOST_POINTS = 1 << 28
SETTINGS = (
    "segment.json",
    "version.info",
    "vector_storage/vectors/config.json",
    "payload_storage/config.json",
    "payload_index/config.json",
)
"""Files of a segment that say how it is kept; of two libraries of one vector length the same."""


class Shard(StoredPoints):
    """An open shard: the engine lets one process open it, once.

    Vectors are put at length 1 and come back bit for bit: of those the dot product is the cosine,
    and for that the engine scales nothing. (Shards of older versions have its cosine distance.)
    """

    def __init__(self, files: LibraryFiles, path: Path, *, dimension: int) -> None:
        """Opens an existing shard.

        Raises:
            LibraryBusyError: another program holds it.
            LibraryCorruptError: its files are damaged.
        """
        self._files = files
        self.path = path
        self.dimension = dimension
        self._check_segments()
        with files.errors("read"):
            mapped = sum(file.stat().st_size for file in path.glob("segments/**/*"))
        files.require_memory(OPEN_MEMORY_BYTES + mapped)
        with self._errors(writing=False):
            self._shard = edge.EdgeShard.load(str(path))

    @classmethod
    def create(cls, files: LibraryFiles, path: Path, *, dimension: int) -> Shard:
        """Makes an empty shard in a new directory."""
        shard = cls.__new__(cls)
        shard._files, shard.path, shard.dimension = files, path, dimension
        vectors = edge.EdgeVectorParams(size=dimension, distance=edge.Distance.Dot)
        # Payloads mapped as a whole: with `Cold`, reading the labels of 5,000 examples with their
        # pictures took 1.8 s instead of 0.1 s; opening costs 25 us an example more.
        config = edge.EdgeConfig(vectors=vectors, payload_memory=edge.Memory.Cached)
        with shard._errors(writing=True):
            shard._shard = edge.EdgeShard.create(str(path), config)
        return shard

    def close(self) -> None:
        with self._errors(writing=True):
            self._shard.close()

    def count(self) -> int:
        with self._errors(writing=False):
            return int(self._shard.info().points_count)

    def upsert(self, points: Sequence[Point], vectors: FloatArray) -> None:
        """Adds or replaces points; durable after :meth:`flush`."""
        rows = normalised(vectors).tolist()
        with self._errors(writing=True):
            batch = [
                edge.Point(id=point.id, vector=row, payload=point.payload)
                for point, row in zip(points, rows, strict=True)
            ]
            self._shard.update(edge.UpdateOperation.upsert_points(batch))

    def delete(self, ids: Sequence[str]) -> None:
        with self._errors(writing=True):
            self._shard.update(edge.UpdateOperation.delete_points(list(ids)))

    def flush(self) -> None:
        with self._errors(writing=True):
            self._shard.flush()

    def retrieve(
        self, ids: Sequence[str], *, fields: Sequence[str] | None, with_vectors: bool
    ) -> list[Point]:
        """The points of these ids that exist, by id."""
        with self._errors(writing=False):
            records = self._shard.retrieve(list(ids), _selector(fields), with_vectors)
        return sorted((self._point(r, fields, with_vectors) for r in records), key=lambda p: p.id)

    def scan(
        self,
        ids: Sequence[str] | None = None,
        *,
        fields: Sequence[str] | None = None,
        with_vectors: bool = False,
    ) -> Iterator[Point]:
        for page in self.pages(ids, fields=fields, with_vectors=with_vectors):
            yield from page

    def pages(
        self, ids: Sequence[str] | None, *, fields: Sequence[str] | None, with_vectors: bool
    ) -> Iterator[list[Point]]:
        """All points by id, or those of the ids, in lists of at most ``SCAN_PAGE``."""
        if ids is not None:
            for start in range(0, len(ids), SCAN_PAGE):
                some = ids[start : start + SCAN_PAGE]
                yield self.retrieve(some, fields=fields, with_vectors=with_vectors)
            return
        after: str | None = None
        while True:
            request = edge.ScrollRequest(
                offset=after,
                limit=SCAN_PAGE,
                with_payload=_selector(fields),
                with_vector=with_vectors,
            )
            with self._errors(writing=False):
                records, following = self._shard.scroll(request)
            yield [self._point(record, fields, with_vectors) for record in records]
            if following is None:
                return
            after = str(following)

    def nearest(self, queries: FloatArray, limit: int) -> list[list[Hit]]:
        """The ``limit`` best of each query in any order among ties, without payload; exact."""
        requests = [
            edge.QueryRequest(
                limit=limit,
                query=edge.Query.Nearest(query),
                with_payload=False,
                params=edge.SearchParams(exact=True),
            )
            for query in queries.tolist()
        ]
        with self._errors(writing=False):
            answers = self._shard.query_batch(edge.QueryBatchRequest(requests))
        return [[Hit(str(hit.id), float(hit.score), {}) for hit in row] for row in answers]

    # -- inside ------------------------------------------------------------------------------

    def _point(self, record: Any, fields: Sequence[str] | None, with_vectors: bool) -> Point:
        vector = None
        if with_vectors:
            if len(record.vector) != self.dimension:
                raise self._files.corrupt(f"point {record.id} has no vector")
            vector = np.array(record.vector, np.float32)
        return Point(str(record.id), vector, pick_fields(record.payload or {}, fields))

    def _check_segments(self) -> None:
        with self._files.errors("read"):
            segments = self.path / "segments"
            found = list(segments.iterdir()) if segments.is_dir() else []
            if not found:
                raise self._files.corrupt(f"{self.path.name} has no segments")
            for segment in found:
                for name, size in FIXED_SIZES.items():
                    file = segment / name
                    if not file.is_file() or file.stat().st_size < size:
                        raise self._files.corrupt(f"{self.path.name}: {name}")
                for name in COUNTS:
                    # A count that was struck makes the engine ask for terabytes, and hang.
                    if int.from_bytes((segment / name).read_bytes()[:8], "little") > MOST_POINTS:
                        raise self._files.corrupt(f"{self.path.name}: {name}")

    @contextmanager
    def _errors(self, *, writing: bool) -> Iterator[None]:
        self._files.require_memory(CALL_MEMORY_BYTES)
        try:
            yield
        except (SamDetectError, KeyboardInterrupt, SystemExit, GeneratorExit, MemoryError):
            raise
        except BaseException as error:  # a panic of the engine is no Exception
            raise self._translate(error, writing) from error

    def _translate(self, error: BaseException, writing: bool) -> SamDetectError:
        text = " ".join(str(error).split())
        lower, text = text.lower(), text[:200]
        said = SYSTEM_ERROR.search(lower)
        code = int(said[1]) if said else 0
        place = f"the library in {self._files.directory}"
        if "wouldblock" in lower:
            return LibraryBusyError(
                f"{place} is in use by another program; try again when that is done"
            )
        # EAGAIN: a thread that cannot be started.
        if code in (errno.ENOMEM, errno.EAGAIN) or "out of memory" in lower:
            return self._files.out_of_memory("the engine says so")
        if code in (*DISK_FULL, errno.EFBIG) or "no space left" in lower:
            return self._files.disk_full(text)
        if "permission" in lower or "read-only" in lower or code not in OF_DAMAGE:
            why = os.strerror(code) if code else text
            return StoreError(
                f"{place} cannot be used: {why}; nothing was changed: check the permissions of its "
                "files, and the limits of this process (ulimit -a)"
            )
        if writing:
            return StoreError(
                f"{place} could not be written: {text}; what was acknowledged is kept"
            )
        return self._files.corrupt(text)


def _selector(fields: Sequence[str] | None) -> bool | list[str]:
    """The engine reads names as JSON paths: unusual ones are picked here instead."""
    if fields is None:
        return True
    if not fields:
        return False
    return list(fields) if all(PLAIN_FIELD.fullmatch(name) for name in fields) else True


@contextmanager
def salvage_shard(
    files: LibraryFiles, shard: Path, dimension: int
) -> Iterator[list[StoredPoints | None]]:
    """The files as they are; and their vectors and payloads alone, in a new shard without log.

    Raises:
        StoreError: there is no room for the copies.
    """
    with ExitStack() as stack:
        try:
            folder = stack.enter_context(
                tempfile.TemporaryDirectory(prefix="sam-detect-", ignore_cleanup_errors=True)
            )
        except OSError as error:
            raise StoreError(f"a repair needs a temporary folder: {error}; set TMPDIR") from error
        found: list[StoredPoints | None] = []
        for name in ("as-it-is", "data-alone"):
            path = Path(folder, name)
            try:
                if name == "as-it-is":
                    _copy(shard, path)
                else:
                    _new_with_data(shard, path, files, dimension)
                opened = Shard(files, path, dimension=dimension)
                stack.callback(_close, opened)
                list(opened.scan(fields=()))
                found.append(opened)
            except LibraryCorruptError:  # a StoreError is no damage: it ends the repair
                found.append(None)
            except (OSError, shutil.Error) as error:
                raise StoreError(
                    f"the library in {files.directory} cannot be copied for its repair: {error}; "
                    "set TMPDIR to a folder with room"
                ) from error
        yield found


def _new_with_data(shard: Path, path: Path, files: LibraryFiles, dimension: int) -> None:
    """Makes a new shard with the data of another's segments, in the place of its own.

    The segments hold all that was acknowledged. The log is left out: with a damaged log the engine
    forgets the newest writes. So are the small files of settings, which are always the same.
    """
    path.mkdir(parents=True)
    Shard.create(files, path, dimension=dimension).close()
    [new] = (path / "segments").iterdir()
    made = path / "settings"
    shutil.move(new, made)
    for segment in (shard / "segments").iterdir():
        target = path / "segments" / segment.name
        _copy(segment, target)
        for setting in SETTINGS:
            if (made / setting).is_file():
                shutil.copyfile(made / setting, target / setting)
        versions = target / "mutable_id_tracker.versions"
        if versions.is_file():
            count = (versions.stat().st_size // 8).to_bytes(8, "little")
            for name in COUNTS:
                rest = (target / name).read_bytes()[8:16] if "deleted" in name else b""
                (target / name).write_bytes(count + rest)
    shutil.rmtree(made)


def _copy(source: Path, target: Path) -> None:
    if not source.is_dir():
        raise LibraryCorruptError(f"{source} is missing")
    shutil.copytree(source, target, copy_function=copy_without_holes)


def _close(shard: Shard) -> None:
    with suppress(StoreError):
        shard.close()
