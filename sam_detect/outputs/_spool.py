"""Texts that grow side by side and end up one after the other in a file.

They wait on the disk, so that neither memory nor the time to join them depends on how long they
have been growing.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable
from pathlib import Path

from sam_detect.outputs._atomic import writing_to

MOST_WAITING = 4_000_000
"""Characters in memory."""


class Spool:
    """The texts of one output, in a file without a name: it is gone when the process is.

    Args:
        path: the output.
        folder: where there is room for as much; None for the system's temporary files.

    Raises:
        OutputError: here, and where a text grows or is copied, for what the disk refuses.
    """

    def __init__(self, path: Path, folder: Path | None) -> None:
        self._path = path
        self._growing: list[SpooledText] = []
        self._waiting = self._end = 0
        with writing_to(path):
            self._file = tempfile.TemporaryFile(dir=folder)  # noqa: SIM115 - open until close()

    def text(self) -> SpooledText:
        """Another text, which is empty."""
        return SpooledText(self)

    def close(self) -> None:
        """Forgets all texts; may be called twice."""
        self._file.close()

    def grown(self, text: SpooledText, by: int, *, first: bool) -> None:
        """Takes note of a text that grew in memory by so many characters.

        Args:
            first: whether nothing of it waited in memory before.
        """
        if first:
            self._growing.append(text)
        self._waiting += by
        if self._waiting > MOST_WAITING:
            self._to_disk()

    def read(self, start: int, size: int) -> bytes:
        with writing_to(self._path):
            self._file.seek(start)
            return self._file.read(size)

    def _to_disk(self) -> None:
        with writing_to(self._path):
            for text in self._growing:
                data = text.taken()
                text.pieces.append((self._end, len(data)))
                self._file.write(data)
                self._end += len(data)
            self._file.flush()
        self._growing, self._waiting = [], 0


class SpooledText:
    """One text, in ASCII.

    Attributes:
        pieces: start and size of what is on the disk, in order.
    """

    __slots__ = ("_spool", "_waiting", "pieces")

    def __init__(self, spool: Spool) -> None:
        self.pieces: list[tuple[int, int]] = []
        self._spool = spool
        self._waiting: list[str] = []

    def add(self, text: str) -> None:
        self._waiting.append(text)
        self._spool.grown(self, len(text), first=len(self._waiting) == 1)

    def taken(self) -> bytes:
        """What waits in memory, which waits no longer."""
        data = "".join(self._waiting).encode("ascii")
        self._waiting = []
        return data

    def copy(self, write: Callable[[bytes], None]) -> None:
        """Writes all of it; it stays as it is."""
        for start, size in self.pieces:
            write(self._spool.read(start, size))
        write("".join(self._waiting).encode("ascii"))
