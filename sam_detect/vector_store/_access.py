"""Access to an embedded library: its lock, a copy where it may only be read, and its open shard."""

from __future__ import annotations

import errno
import os
import shutil
import tempfile
import threading
import time
import weakref
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import filelock

from sam_detect.errors import LibraryBusyError, StoreError
from sam_detect.vector_store._files import LibraryFiles, State, copy_without_holes

if TYPE_CHECKING:
    from sam_detect.vector_store._engine import Shard

try:
    import fcntl
except ImportError:  # Windows
    fcntl = None  # type: ignore[assignment]

POLL_S = 0.01
MOST_TRIES = 100
"""So often a directory may be gone that was just made."""
NOT_ALLOWED = (errno.EACCES, errno.EPERM, errno.EROFS)
TRIES = 5
CREATE_RESERVE_BYTES = 100_000_000
WRITE_RESERVE_BYTES = 70_000_000
OPEN_RESERVE_BYTES = 1_000_000
"""Free disk space below which no library is made, nothing written, or not even opened: see
``require_space``. The engine's files grow by 32 MB each, which some file systems allocate at once.
"""


class HeldLibrary:
    """Opens on the first use, closes when the last user is done.

    ``mutex`` keeps other threads out: for a whole session, for one page of a scan.
    """

    def __init__(self, files: LibraryFiles, lock_timeout_s: float) -> None:
        self._files, self._timeout_s = files, lock_timeout_s
        self.shard: Shard | None = None
        self.begin()
        _held.add(self)

    def begin(self) -> None:
        """As if unused: also in a forked process, which owns none of its parent's locks.
        A shard that the parent has open stays as it is, and is not used here."""
        # The order of locks: docs/architecture.md, "Which lock before which".
        self.mutex = threading.RLock()
        self._inherited, self.shard = self.shard, None
        self._lock = LibraryLock(self._files, self._timeout_s)
        self._copy = ReadOnlyCopy(self._files, self._lock)
        self._read_only = False
        self._users = 0

    @contextmanager
    def session(self) -> Iterator[None]:
        """Holds the library, and keeps other threads of this process out."""
        with self.mutex, self.holding():
            yield

    @contextmanager
    def holding(self) -> Iterator[None]:
        """Holds the library against other processes, not against other threads."""
        with self.mutex:
            if not self._users:
                self._acquire()
            self._users += 1
        try:
            yield
        finally:
            with self.mutex:
                self._users -= 1
                if not self._users:
                    try:
                        self.close()
                    finally:
                        if self._lock.held:
                            self._lock.release()

    @contextmanager
    def reading(self) -> Iterator[Shard | None]:
        """The open shard, or None (and nothing touched) where there are no points."""
        with self.mutex:
            if not self._users and not self._files.exists():
                yield None
                return
            with self.holding():
                state = self._files.read_state()
                yield None if state is None else self.open(state)

    @contextmanager
    def writing(self) -> Iterator[State]:
        """The state of a library that now exists, without the leftovers of a killed process."""
        with self.session():
            self._acquire_for_writing()
            state = self._files.read_state()
            if state is None:
                state = State()
                self._files.require_space(CREATE_RESERVE_BYTES)
                self._files.write_state(state)
            self._files.sweep(state)
            yield state

    def remove(self) -> None:
        """Removes the library, if there is one."""
        with self.session():
            if self._files.read_state() is None:
                return
            self._acquire_for_writing()
            self.close()
            self._files.remove()

    def open(self, state: State) -> Shard | None:
        """The shard that the state names, None if it names none.

        Raises:
            LibraryCorruptError: its files are damaged, or points are missing.
        """
        from sam_detect.vector_store._engine import Shard

        copied = None
        if self._read_only and self.shard is None:
            now, copied = self._copy.shard()
            state = State() if now is None else now
        if state.shard is None or state.dimension is None:
            return None
        path = copied or self._files.shard_path(state)
        if self.shard is not None:
            return self.shard
        if copied is None:
            self._files.require_space(OPEN_RESERVE_BYTES)
        shard = Shard(self._files, path, dimension=state.dimension)
        try:
            # The engine repairs some damage by forgetting the points it struck.
            found = shard.count()
            if found < state.least_points:
                why = f"{found} points are left of at least {state.least_points}"
                raise self._files.corrupt(why)
        except BaseException:
            with suppress(StoreError):
                shard.close()
            raise
        self.shard = shard
        return shard

    def close(self) -> None:
        shard, self.shard = self.shard, None
        if shard is not None:
            shard.close()

    def _acquire(self) -> None:
        self._read_only = False
        try:
            self._lock.acquire()
        except StoreError as error:
            # Where nothing can be made, a library that is not there can still be read as empty.
            if not self._files.exists():
                return
            cause = error.__cause__
            if not isinstance(cause, OSError) or cause.errno not in NOT_ALLOWED:
                raise
            self._read_only = True
        else:
            self._read_only = not self._files.may_be_written()

    def _acquire_for_writing(self) -> None:
        """Raises ``StoreError`` where the library may only be read: what would be written to a
        copy would be lost."""
        self._lock.acquire()
        if self._read_only:
            raise StoreError(
                f"the library in {self._files.directory} may only be read; check the permissions "
                "of its files, or copy it: sam-detect library export"
            )


_held: weakref.WeakSet[HeldLibrary] = weakref.WeakSet()


def _begin_again() -> None:
    for each in list(_held):
        each.begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_begin_again)


class LibraryLock:
    """Makes the directory where it must, and leaves none behind that stayed without a library.

    So the first writers of a new library exclude each other as well, and reading a library that
    does not exist leaves nothing on disk.

    A process that waits for the lock holds a turnstile, which every process passes. So one that
    takes the lock again and again cannot overtake those that wait.
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
            with self._files.errors("written"):
                try:
                    self._make_directories()
                    left_s = max(0.0, deadline - time.monotonic())
                    with self._turnstile.acquire(left_s, POLL_S):
                        self._lock.acquire(max(0.0, deadline - time.monotonic()), POLL_S)
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
        """Also removes what was made for a library that is not there."""
        try:
            unused = not self._files.exists()
        except StoreError:
            unused = False
        if unused:
            # Before the release: a waiting process sees that this file is gone and starts over.
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

    def _make_directories(self) -> None:
        missing = []
        for folder in (self._files.directory, *self._files.directory.parents):
            if folder.exists():
                break
            missing.append(folder)
        self._files.directory.mkdir(parents=True, exist_ok=True)
        self._made += missing[1:]


class ReadOnlyCopy:
    """A copy of the shard of a library that this process may not write (another user's, or on a
    read-only disk), kept until the library changes. The engine opens its files for writing.

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
            LibraryBusyError: it was written all the time.
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
                # Without a lock (its file may not be read) it may have been written meanwhile.
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
            deadline = time.monotonic() + self._lock.timeout_s
            with suppress(OSError):  # the file system knows no locks
                while True:
                    try:
                        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                        break
                    except BlockingIOError:
                        if time.monotonic() > deadline:
                            raise self._lock.busy() from None
                        time.sleep(POLL_S)
            yield
        finally:
            os.close(descriptor)
