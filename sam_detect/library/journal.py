"""What changes of examples replaced, in files, so that a change can be undone after a restart.

Each change has two files: ``ID.zip``, an exported library of the examples as they were, and
``ID.json``, what became of them. Both are on the disk before anything is changed. What is read
back is checked as any exported file is.
"""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from sam_detect.config import home_dir
from sam_detect.errors import LibraryCorruptError
from sam_detect.interfaces import VectorStore
from sam_detect.io.files import write_atomically
from sam_detect.library.archive import Archive, read_json, write_archive
from sam_detect.library.example import LISTED
from sam_detect.library.history import new_batch, time_of
from sam_detect.types import Point

MOST_CHANGES = 100
MOST_BYTES = 4 << 30
"""Of all changes of one library; the newest one is kept however large it is."""
VERSION = 1

Became = Mapping[str, Mapping[str, str]]
"""For the id of each example that was replaced: the ids and digests of what took its place."""


@dataclass(frozen=True)
class Change:
    """A change of examples that can be undone.

    Attributes:
        id: ids of changes sort by time.
        action: what was done: "rename", "merge", "move", "remove" or "undo batch".
        labels: the labels that were changed.
        target: the label that they got; empty where there is none.
        examples: how many were asked to be changed.
        dropped: how many more were removed, because they say "not this label" of what now has it.
    """

    id: str
    action: str
    labels: tuple[str, ...]
    target: str
    examples: int
    dropped: int = 0

    @property
    def time(self) -> str:
        """When, ISO 8601 in UTC."""
        return time_of(self.id).isoformat(timespec="seconds")


class Journal:
    """The changes of one library that can be undone.

    Args:
        store: of the library. The files are in its folder of what was kept; for a server under
            ``SAM_DETECT_HOME``; for a store in memory they go with the process.
    """

    def __init__(self, store: VectorStore) -> None:
        self._temporary: tempfile.TemporaryDirectory[str] | None = None
        if store.kept_path is not None:
            self._folder = store.kept_path / "changes"
        elif store.location.startswith(("http://", "https://")):
            name = hashlib.blake2b(store.location.encode(), digest_size=16).hexdigest()
            self._folder = home_dir() / "changes" / name
        else:
            self._temporary = tempfile.TemporaryDirectory(prefix="sam-detect-changes-")
            self._folder = Path(self._temporary.name)

    def changes(self) -> list[Change]:
        """Those that can be undone, newest first."""
        found = []
        for path in self._folder.glob("*.json"):
            with suppress(OSError, ValueError, KeyError, TypeError):
                found.append(
                    _change_of(path.stem, read_json(path.read_bytes().partition(b"\n")[0]))
                )
        return sorted(found, key=lambda each: each.id, reverse=True)

    def write(
        self,
        manifest: dict[str, Any],
        points: Iterable[Point],
        became: dict[str, dict[str, str]],
        **what: Any,
    ) -> Change:
        """Puts a change on record, durably.

        Args:
            points: the examples as they are before it, whole; read once.
            became: filled while ``points`` are read.
            what: the fields of :class:`Change` without ``id``.

        Raises:
            OutputError: it cannot be written; nothing may be changed then.
        """
        newest = next(iter(self.changes()), None)
        change = Change(new_batch(newest.id if newest else ""), **what)

        def write(stream: IO[bytes]) -> None:
            write_archive(stream, manifest, points)

        write_atomically(self._folder / f"{change.id}.zip", write)
        data = {**vars(change), "version": VERSION}
        del data["id"]
        lines = [data, *([key, after] for key, after in became.items())]
        text = "\n".join(json.dumps(each) for each in lines).encode()
        write_atomically(self._folder / f"{change.id}.json", lambda file: file.write(text))
        _sync(self._folder)
        self._forget_oldest()
        return change

    @contextmanager
    def read(self, change: Change) -> Iterator[tuple[Archive, Became]]:
        """The examples that a change replaced, and what became of them.

        Raises:
            LibraryCorruptError: the files are damaged, or go beyond a limit.
            LibraryError: they cannot be read.
        """
        with Archive.open(self._folder / f"{change.id}.zip") as archive:
            archive.check()
            lines = (self._folder / f"{change.id}.json").read_bytes().split(b"\n")[1:]
            became = dict(read_json(line) for line in lines)
            if not all(isinstance(each, dict) for each in became.values()):
                raise LibraryCorruptError(f"the record of change {change.id} is damaged")
            yield archive, became

    def forget(self, change: Change) -> None:
        """Removes the record of a change."""
        for ending in (".json", ".zip"):
            (self._folder / (change.id + ending)).unlink(missing_ok=True)

    def _forget_oldest(self) -> None:
        total = 0
        for number, change in enumerate(self.changes()):
            with suppress(OSError):
                total += (self._folder / f"{change.id}.zip").stat().st_size
            if number >= MOST_CHANGES or (number and total > MOST_BYTES):
                self.forget(change)


def digest_of(point: Point) -> str:
    """Of what lists show of a point: it stays the same when the library is reindexed."""
    listed = [point.id, *(point.payload[name] for name in LISTED)]
    text = json.dumps(listed, sort_keys=True).encode()
    return hashlib.blake2b(text, digest_size=12).hexdigest()


def _change_of(key: str, data: Any) -> Change:
    time_of(key)
    if data["version"] != VERSION:
        raise ValueError("another version")
    labels, target = tuple(str(each) for each in data["labels"]), str(data["target"])
    return Change(
        key, str(data["action"]), labels, target, int(data["examples"]), int(data["dropped"])
    )


def _sync(folder: Path) -> None:
    """Makes new names in a folder durable, where the system can."""
    with suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
