"""Reading a library that this process may not write: another user's, or on a read-only disk.

The engine opens its files for writing, so it gets a copy of them in a temporary folder.
"""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from sam_detect.errors import StoreError
from sam_detect.vector_store._files import LibraryFiles, State
from sam_detect.vector_store._lock import POLL_S, LibraryLock

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
TRIES = 5
BLOCK = 1 << 20


def is_not_allowed(error: StoreError) -> bool:
    """Whether something could not be written because that is not allowed."""
    cause = error.__cause__
    return isinstance(cause, OSError) and cause.errno in NOT_ALLOWED


class ReadOnlyCopy:
    """A copy of a library's shard, kept until the library changes or nobody needs it.

    Args:
        files: the library.
        lock: its lock, for its time-out and its error.
    """

    def __init__(self, files: LibraryFiles, lock: LibraryLock) -> None:
        self._files = files
        self._lock = lock
        self._folder: Path | None = None
        self._state: State | None = None

    def shard(self) -> tuple[State | None, Path | None]:
        """What the library's state is now, and a copy of the shard that it names.

        Raises:
            LibraryBusyError: who may write the library did so for too long.
            StoreError: it cannot be read, or there is no room for the copy.
        """
        for _ in range(TRIES):
            with self._shared_lock():
                state = self._files.read_state()
                if state is None or state.shard is None:
                    return state, None
                if state != self._state or self._folder is None:
                    if self._folder is not None:
                        shutil.rmtree(self._folder, ignore_errors=True)
                    self._folder = self._copied(self._files.shard_path(state))
                    self._state = state
                # Without a lock (its file may not be read) somebody may have written meanwhile.
                if self._files.read_state() == state:
                    return state, self._folder / state.shard
                self._state = None
        raise self._lock.busy()

    def _copied(self, shard: Path) -> Path:
        try:
            folder = Path(tempfile.mkdtemp(prefix="sam-detect-"))
            weakref.finalize(self, shutil.rmtree, folder, ignore_errors=True)
            with self._files.errors("read"):
                shutil.copytree(shard, folder / shard.name, copy_function=copy_without_holes)
        except (OSError, shutil.Error) as error:
            raise StoreError(
                f"the library in {self._files.directory} may only be read, for which a copy in the "
                f"temporary folder is needed, and that failed: {error}; set TMPDIR to a folder "
                "with room"
            ) from error
        for each in (folder, *folder.rglob("*")):
            each.chmod(0o700 if each.is_dir() else 0o600)
        return folder

    @contextmanager
    def _shared_lock(self) -> Iterator[None]:
        """Keeps writers out for the time of the copy, where the lock's file can be read."""
        if self._lock.held or fcntl is None:
            yield
            return
        try:
            descriptor = os.open(self._files.lock_path, os.O_RDONLY)
        except OSError:
            yield
            return
        try:
            self._wait_for(descriptor)
            yield
        finally:
            os.close(descriptor)

    def _wait_for(self, descriptor: int) -> None:
        deadline = time.monotonic() + self._lock.timeout_s
        while True:
            try:
                return fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                if time.monotonic() > deadline:
                    raise self._lock.busy() from None
                time.sleep(POLL_S)
            except OSError:  # the file system knows no locks
                return None


def copy_without_holes(source: str, target: str) -> None:
    """Copies a file, and leaves out what is zero: the engine's files are mostly that."""
    with open(source, "rb") as old, open(target, "wb") as new:
        while block := old.read(BLOCK):
            if block.count(0) == len(block):
                new.seek(len(block), os.SEEK_CUR)
            else:
                new.write(block)
        new.truncate(new.tell())
