"""Vectors kept on disk for the next run, by the content of what they describe and by the recipe.

One SQLite file, which several processes may use at once. A row is a key, a vector with its
checksum, and when it was used last; the oldest give way where the file would grow beyond its
limit. Whatever is wrong with the file (damaged, locked, read-only, a full disk) is nothing worse
than the work done again. Nothing in it is executed.
"""

from __future__ import annotations

import hashlib
import sqlite3
import time
import zlib
from collections.abc import Iterable, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from sam_detect.types.masks import FloatArray

PACKAGES = ("embedding", "fading", "features", "models")
"""Whose code makes vectors: other code would make others."""
AT_ONCE = 500
"""Keys of one question; SQLite takes at least 999."""
WAIT_S = 2.0
LEFT = 0.8
"""Share of the limit that is left when the oldest have gone."""
ROW_BYTES = 64
"""What a row takes besides its vector, about."""
TABLE = (
    "CREATE TABLE IF NOT EXISTS vectors"
    " (key BLOB PRIMARY KEY, vector BLOB, checksum INTEGER, used REAL) WITHOUT ROWID"
)


@dataclass(frozen=True)
class KeptVectors:
    """The vectors of a file.

    Attributes:
        path: the file; its folder is made with it.
        limit_bytes: about how large it may become.
    """

    path: Path
    limit_bytes: int

    def read(self, keys: Sequence[bytes]) -> dict[bytes, FloatArray]:
        """Those of the vectors that are kept and undamaged, ``(D,)`` float32 by key."""
        found: dict[bytes, FloatArray] = {}
        with suppress(sqlite3.Error, OSError):
            if not self.path.exists():
                return found
            wanted = [_full(key) for key in keys]
            short = dict(zip(wanted, keys, strict=True))
            with closing(self._open()) as file:
                for start in range(0, len(wanted), AT_ONCE):
                    some = wanted[start : start + AT_ONCE]
                    marks = ",".join("?" * len(some))
                    question = f"SELECT key, vector, checksum FROM vectors WHERE key IN ({marks})"  # noqa: S608 - marks only
                    for key, content, checksum in file.execute(question, some):
                        if zlib.crc32(content) == checksum:
                            found[short[key]] = np.frombuffer(content, "<f4").astype(np.float32)
                with file:
                    used = [(time.time(), _full(key)) for key in found]
                    file.executemany("UPDATE vectors SET used = ? WHERE key = ?", used)
        return found

    def write(self, vectors: Mapping[bytes, FloatArray]) -> None:
        """Keeps vectors ``(D,)`` by key, in one step."""
        now = time.time()
        contents = {key: np.asarray(each, "<f4").tobytes() for key, each in vectors.items()}
        rows = [(_full(key), each, zlib.crc32(each), now) for key, each in contents.items()]
        with suppress(sqlite3.Error, OSError):
            self.path.parent.mkdir(parents=True, exist_ok=True)
            try:
                self._store(rows)
            except sqlite3.DatabaseError as error:
                if isinstance(error, sqlite3.OperationalError):  # locked, full, read-only
                    return
                self.path.unlink(
                    missing_ok=True
                )  # damaged: it holds nothing that is not made again
                self._store(rows)

    def _store(self, rows: Iterable[tuple[bytes, bytes, int, float]]) -> None:
        with closing(self._open()) as file:
            with file:
                file.execute(TABLE)
                file.executemany("INSERT OR REPLACE INTO vectors VALUES (?, ?, ?, ?)", rows)
            self._shrink(file)

    def _shrink(self, file: sqlite3.Connection) -> None:
        """Removes those that were used longest ago, where there are too many."""
        count, size = file.execute("SELECT COUNT(*), SUM(LENGTH(vector)) FROM vectors").fetchone()
        total = (size or 0) + count * ROW_BYTES
        if total <= self.limit_bytes:
            return
        gone = count - int(count * LEFT * self.limit_bytes / total)
        with file:
            file.execute(
                "DELETE FROM vectors WHERE key IN (SELECT key FROM vectors ORDER BY used LIMIT ?)",
                (gone,),
            )
        file.execute("VACUUM")

    def _open(self) -> sqlite3.Connection:
        return sqlite3.connect(self.path, timeout=WAIT_S)


def _full(key: bytes) -> bytes:
    return hashlib.blake2b(key + _code(), digest_size=16).digest()


@cache
def _code() -> bytes:
    """A digest of the sources that make vectors."""
    digest = hashlib.blake2b(digest_size=16)
    root = Path(__file__).resolve().parents[1]
    for package in PACKAGES:
        for path in sorted((root / package).glob("*.py")):
            digest.update(path.read_bytes())
    return digest.digest()
