"""What is known of a file of weights, in a small JSON file beside it.

Its SHA-256 is what the file's source publishes, where it publishes one, else that of the first
download, so that a file that changes later is noticed.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from collections.abc import Callable
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from sam_detect.errors import UnavailableError

BLOCK = 1 << 20


@dataclass(frozen=True)
class Record:
    """Attributes:
    sha256: 64 hexadecimal digits.
    published: whether the file's source publishes this checksum; else it was found here.
    bytes: size of the file.
    mtime_ns: when the file was changed last, at its last check: as long as time and size stay,
        it is not read again only to be checked.
    url: where it came from; empty for a file that somebody put here.
    added: when, ISO 8601.
    """

    sha256: str
    published: bool
    bytes: int
    mtime_ns: int
    url: str
    added: str


def record_path(path: Path) -> Path:
    return path.with_name(f"{path.name}.json")


def read_record(path: Path) -> Record | None:
    """What is recorded of the file at ``path``, or None.

    Raises:
        UnavailableError: there is a record that cannot be read.
    """
    place = record_path(path)
    try:
        return Record(**json.loads(place.read_text(encoding="utf-8")))
    except FileNotFoundError:
        return None
    except (OSError, ValueError, TypeError, RecursionError) as error:
        raise UnavailableError(
            f"the record {place} cannot be read ({type(error).__name__}): delete it, and the file "
            f"beside it is recorded anew by sam-detect download-models"
        ) from error


def write_record(path: Path, record: Record) -> None:
    write_json(record_path(path), asdict(record))


def write_json(path: Path, data: dict[str, Any]) -> None:
    """Replaces a small JSON file in one step."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_text(json.dumps(data, indent=1) + "\n", encoding="utf-8")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)


def sha256_of(path: Path, progressed: Callable[[int], None] | None = None) -> str:
    """The file's SHA-256, read in blocks; ``progressed`` gets the bytes read so far."""
    digest, done = hashlib.sha256(), 0
    with path.open("rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
            done += len(block)
            if progressed is not None:
                progressed(done)
    return digest.hexdigest()


def is_whole(path: Path, *, thoroughly: bool = False) -> bool:
    """Whether the file is what its record says; one without a record is taken as it is.

    Args:
        thoroughly: read and check all of it, even where size and time say that it is unchanged.

    Raises:
        UnavailableError: there is a record that cannot be read.
    """
    record = read_record(path)
    if record is None:
        return True
    found = path.stat()
    if found.st_size != record.bytes:
        return False
    if found.st_mtime_ns == record.mtime_ns and not thoroughly:
        return True
    if sha256_of(path) != record.sha256:
        return False
    with contextlib.suppress(OSError):  # a folder for reading only: it is checked again next time
        write_record(path, replace(record, mtime_ns=found.st_mtime_ns))
    return True
