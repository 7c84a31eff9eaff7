"""A library's lock and open shard, held for as long as anyone in this process needs them."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

from sam_detect.errors import StoreError
from sam_detect.vector_store._files import LibraryFiles, State
from sam_detect.vector_store._lock import LibraryLock
from sam_detect.vector_store._read_only import ReadOnlyCopy, is_not_allowed

if TYPE_CHECKING:
    from sam_detect.vector_store._engine import Shard

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
        self.mutex = threading.RLock()
        self.shard: Shard | None = None
        self._files = files
        self._lock = LibraryLock(files, lock_timeout_s)
        self._users = 0
        self._copy = ReadOnlyCopy(files, self._lock)
        self._read_only = False

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
                    self._let_go()

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

        if self._read_only and self.shard is None:
            now, copied = self._copy.shard()
            state = State() if now is None else now
        else:
            copied = None
        if state.shard is None or state.dimension is None:
            return None
        path = copied or self._files.shard_path(state)
        if self.shard is None:
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
        return self.shard

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
            if not is_not_allowed(error):
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

    def _let_go(self) -> None:
        try:
            self.close()
        finally:
            if self._lock.held:
                self._lock.release()
