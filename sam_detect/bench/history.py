"""A history of measurements: one JSON object a line, appended by ``bench`` and ``evaluate``.

Every record has ``kind`` (``bench`` or ``evaluate``), ``date``, ``commit``, ``dirty``,
``machine``, ``load`` and ``versions`` from :func:`stamp`, and beside them what was measured:

* ``bench``: ``suite``, ``repeat``, ``stages``, ``pairs``, ``figures``, ``skipped``.
* ``evaluate``: ``dataset``, ``method``, ``shots``, ``recipe``, ``f1``, ``precision``, ``recall``,
  ``proposal_recall``, ``seconds_per_image``, ``peak_memory_mb``; optionally ``task``,
  ``protocol``, ``seeds``, ``group_by``, ``iou``, ``learning_curve`` (``[{"shots", "f1"}, ...]``)
  and ``variant`` (what a sweep varied, by name).

Fields that a reader does not know are left alone.
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Iterator, Mapping
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from sam_detect.bench.machine import current_commit, describe_machine, versions
from sam_detect.errors import OutputError, SamDetectError

STAGE_NUMBERS = ("median_ms", "spread_ms", "peak_memory_mb")
PAIR_NUMBERS = ("a_median", "b_median", "ratio", "spread")
QUALITY_NUMBERS = (
    "f1", "precision", "recall", "proposal_recall", "seconds_per_image", "peak_memory_mb",
)  # fmt: skip


def stamp(kind: str) -> dict[str, Any]:
    """The fields that every record begins with: ``kind``, ``date`` (UTC, ISO 8601), ``commit``,
    ``dirty``, ``machine``, ``load`` (how many processes wanted a core in the minute before, so
    that times of a busy machine can be told; None where it is not known) and ``versions``."""
    commit = current_commit()
    return {
        "kind": kind,
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": commit.id,
        "dirty": commit.dirty,
        "machine": describe_machine(),
        "load": round(os.getloadavg()[0], 1) if hasattr(os, "getloadavg") else None,
        "versions": versions(),
    }


def require_writable(path: Path) -> None:
    """Raises ``OutputError`` where nothing can be appended, before a long measurement is made."""
    with _opened(path):
        pass


def append_record(path: Path, record: Mapping[str, Any]) -> None:
    """Appends one record as one line, whole, after those of any other process.

    A process that is killed meanwhile may leave half of its own line. The next line does not
    continue it, so it is all that :func:`read_history` has to skip. The folder is made if needed.

    Raises:
        OutputError: the file cannot be written; it is as it was.
        ValueError: the record holds something that is not JSON, or NaN.
    """
    line = json.dumps(record, allow_nan=False).encode("ascii") + b"\n"
    with _opened(path) as descriptor, _alone(descriptor):
        _append(descriptor, line)


def read_history(path: Path) -> tuple[list[dict[str, Any]], list[str]]:
    """The records of a history in the order of the file, and one line for each that is damaged.

    Raises:
        SamDetectError: the file cannot be read.
    """
    try:
        lines = path.read_bytes().split(b"\n")
    except OSError as error:
        reason = error.strerror or str(error)
        raise SamDetectError(
            f"cannot read the history '{path}': {reason}; "
            f"make one with: sam-detect bench stages --history '{path}'"
        ) from error
    records, problems = [], []
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            records.append(_parsed(line))
        except ValueError as error:
            problems.append(f"{path}, line {number} is skipped: {error}")
    return records, problems


def _parsed(line: bytes) -> dict[str, Any]:
    try:
        record = json.loads(line, parse_constant=_refuse)
    except (ValueError, RecursionError) as error:
        raise ValueError(f"it is not JSON ({error})") from error
    if not isinstance(record, dict):
        raise ValueError("it is not a JSON object")
    for name in ("kind", "date"):
        if not isinstance(record.get(name), str):
            raise ValueError(f"it has no '{name}'")
    if not isinstance(record.get("machine"), dict):
        raise ValueError("it has no 'machine'")
    _check_content(record)
    return record


def _check_content(record: dict[str, Any]) -> None:
    """Raises ``ValueError`` where a record of a known kind is not built as such, so that whoever
    reads it need not ask."""
    if record["kind"] == "bench":
        _require(record, str, "suite")
        _require(record, dict, "stages", "pairs")
        for group, numbers in (("stages", STAGE_NUMBERS), ("pairs", PAIR_NUMBERS)):
            for name, each in record[group].items():
                if not isinstance(each, dict) or not all(
                    _is_number(each.get(n, "")) for n in numbers
                ):
                    raise ValueError(f"its {group} are damaged at '{name}'")
    elif record["kind"] == "evaluate":
        _require(record, str, "dataset", "method")
        _require(record, int, "shots")
        curve = record.get("learning_curve") or []
        if not isinstance(curve, list) or not all(_is_point(each) for each in curve):
            raise ValueError("its learning_curve is no list of {shots, f1}")
        for name in QUALITY_NUMBERS:
            if not _is_number(record.get(name)):
                raise ValueError(f"its {name} is no number")


def _require(record: dict[str, Any], kind: type, *names: str) -> None:
    for name in names:
        if not isinstance(record.get(name), kind):
            raise ValueError(f"it has no '{name}', or one of another type")


def _is_number(value: Any) -> bool:
    """Whether it is a number from 0 on, or null for one that is not known."""
    plain = isinstance(value, (int, float)) and not isinstance(value, bool)
    return value is None or (plain and value >= 0)


def _is_point(value: Any) -> bool:
    known = isinstance(value, dict) and value.get("shots") is not None
    return known and all(_is_number(value.get(name)) for name in ("shots", "f1"))


def _refuse(constant: str) -> None:
    raise ValueError(f"{constant} is no number")


def _append(descriptor: int, line: bytes) -> None:
    size = os.fstat(descriptor).st_size
    if size:
        os.lseek(descriptor, size - 1, os.SEEK_SET)
        if os.read(descriptor, 1) != b"\n":
            line = b"\n" + line
    try:
        if os.write(descriptor, line) != len(line):
            raise OSError(None, "the disk is full")
        os.fsync(descriptor)
    except OSError:
        os.ftruncate(descriptor, size)
        raise


@contextlib.contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A descriptor to append with; what the system refuses becomes an ``OutputError``."""
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_APPEND, 0o666)
        try:
            yield descriptor
        finally:
            os.close(descriptor)
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(
            f"cannot append to the history '{path}': {reason}; choose another with --history"
        ) from error


@contextlib.contextmanager
def _alone(descriptor: int) -> Iterator[None]:
    """Keeps other processes from appending meanwhile, where the system can lock a file."""
    try:
        import fcntl
    except ImportError:
        yield
        return
    fcntl.flock(descriptor, fcntl.LOCK_EX)
    try:
        yield
    finally:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
