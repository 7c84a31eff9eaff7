"""The lock of an embedded library's directory, shared by all processes of a machine."""

from __future__ import annotations

import time
from contextlib import suppress
from pathlib import Path

import filelock

from sam_detect.errors import LibraryBusyError, StoreError
from sam_detect.vector_store._files import LibraryFiles

POLL_S = 0.01
MOST_TRIES = 100
"""So often a directory may be gone that was just made."""


class LibraryLock:
    """Makes the directory where it must, and leaves none behind that stayed without a library.

    So the first writers of a new library exclude each other as well, and reading a library that
    does not exist leaves nothing on disk.

    Who waits for the lock holds a turnstile that everyone passes: a process that takes the lock
    again and again cannot overtake those that wait.
    """

    def __init__(self, files: LibraryFiles, timeout_s: float) -> None:
        self._files = files
        self.timeout_s = timeout_s
        # Not thread-local: a scan may be finished by another thread than began it.
        self._lock = filelock.FileLock(files.lock_path, thread_local=False)
        self._turnstile = filelock.FileLock(files.queue_path, thread_local=False)
        self._made: list[Path] = []

    @property
    def held(self) -> bool:
        return self._lock.is_locked

    def acquire(self) -> None:
        """Waits for the lock.

        Raises:
            LibraryBusyError: it was not free in time.
            StoreError: the directory cannot be made or written.
        """
        deadline = time.monotonic() + self.timeout_s
        gone = 0
        while not self.held:
            with self._files.errors("write"):
                try:
                    self._make_directories()
                    self._acquire_until(self._turnstile, deadline)
                    try:
                        self._acquire_until(self._lock, deadline)
                    finally:
                        self._turnstile.release()
                except filelock.Timeout:
                    raise self.busy() from None
                except (FileNotFoundError, FileExistsError):
                    # The last user removed the empty directory between two of our steps; or
                    # there is a file in its place, which `exists` says; or nothing can be made
                    # there at all (/proc).
                    self._files.exists()
                    gone += 1
                    if gone > MOST_TRIES or time.monotonic() > deadline:
                        raise
                    time.sleep(POLL_S)

    def release(self) -> None:
        """Lets go, and tidies up when there is no library."""
        try:
            unused = not self._files.exists()
        except StoreError:
            unused = False
        if unused:
            # Before the release: who waits sees that this file is gone and starts over.
            with suppress(OSError):
                self._files.lock_path.unlink(missing_ok=True)
                self._files.queue_path.unlink(missing_ok=True)
        self._lock.release()
        if unused:
            with suppress(OSError):
                for folder in (self._files.directory, *self._made):
                    if folder.exists():
                        folder.rmdir()
        self._made = []

    def busy(self) -> LibraryBusyError:
        return LibraryBusyError(
            f"the library in {self._files.directory} is in use by another process, and was not "
            f"free within {self.timeout_s:g} s; try again when that is done, or wait longer with "
            f"SAM_DETECT_LOCK_TIMEOUT_S"
        )

    def _acquire_until(self, lock: filelock.BaseFileLock, deadline: float) -> None:
        lock.acquire(timeout=max(0.0, deadline - time.monotonic()), poll_interval=POLL_S)

    def _make_directories(self) -> None:
        missing = []
        for folder in (self._files.directory, *self._files.directory.parents):
            if folder.exists():
                break
            missing.append(folder)
        self._files.directory.mkdir(parents=True, exist_ok=True)
        self._made += missing[1:]
