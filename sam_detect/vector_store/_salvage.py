"""What can still be read of an engine's damaged files, each way from a copy of its own."""

from __future__ import annotations

import shutil
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path

from sam_detect.errors import LibraryCorruptError, StoreError
from sam_detect.interfaces import StoredPoints
from sam_detect.vector_store._access import copy_without_holes
from sam_detect.vector_store._engine import COUNTS, Shard
from sam_detect.vector_store._files import LibraryFiles

SETTINGS = (
    "segment.json",
    "version.info",
    "vector_storage/vectors/config.json",
    "payload_storage/config.json",
    "payload_index/config.json",
)
"""Files of a segment that say how it is kept; of two libraries of one vector length the same."""


@contextmanager
def salvaged(
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
            except (LibraryCorruptError, StoreError):
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
    _close(Shard.create(files, path, dimension=dimension))
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
        raise StoreError(f"{source} is missing")
    shutil.copytree(source, target, copy_function=copy_without_holes)


def _close(shard: Shard) -> None:
    with suppress(StoreError):
        shard.close()
