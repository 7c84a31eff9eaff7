"""Objects that several parts share: kept as long as one of them holds a reference."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Callable, Hashable
from pathlib import Path
from typing import Generic, TypeVar
from weakref import WeakKeyDictionary, WeakValueDictionary

Value = TypeVar("Value")
Owner = TypeVar("Owner")
Key = TypeVar("Key", bound=Hashable)


class Shared(Generic[Value]):
    """Objects that are made once for each key, and freed with their last reference.

    Thread-safe: threads that ask for the same key at once get one object.
    """

    def __init__(self) -> None:
        self._values: WeakValueDictionary[Hashable, Value] = WeakValueDictionary()
        self._lock = threading.RLock()

    def get(self, key: Hashable, make: Callable[[], Value]) -> Value:
        """What was made for a key (and is still held), else what ``make`` makes now."""
        with self._lock:
            found = self._values.get(key)
            if found is None:
                found = self._values[key] = make()
            return found


class WhileAlive(Generic[Owner, Value]):
    """Values computed from objects, each kept no longer than its object lives. Thread-safe.

    Args:
        most: values are kept of so many objects, the last ones.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: WeakKeyDictionary[Owner, Value] = WeakKeyDictionary()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._values)

    def of(self, owner: Owner, make: Callable[[], Value]) -> Value:
        """What was made of this very object, else what ``make`` makes now.

        ``make`` runs unlocked: two threads may both make it, and each gets its own.
        """
        with self._lock:
            found = self._values.get(owner)
        if found is None:
            found = make()
            self.put(owner, found)
        return found

    def put(self, owner: Owner, value: Value) -> None:
        with self._lock:
            self._values.pop(owner, None)
            self._values[owner] = value
            for oldest in list(self._values)[: -self._most]:
                del self._values[oldest]


class LastUsed(Generic[Key, Value]):
    """The values used last (LRU), by key. Thread-safe.

    Args:
        most: so many are kept.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._values: OrderedDict[Key, Value] = OrderedDict()
        self._lock = threading.Lock()

    def get(self, key: Key, make: Callable[[], Value]) -> Value:
        """What was made for a key, else what ``make`` makes now.

        ``make`` runs unlocked: two threads may both make it, and each gets its own.
        """
        with self._lock:
            if key in self._values:
                self._values.move_to_end(key)
                return self._values[key]
        made = make()
        with self._lock:
            self._values[key] = made
            while len(self._values) > self._most:
                self._values.popitem(last=False)
        return made


LOADED_FROM: dict[str, str] = {}
"""Digest of a model of the user's own to the file or folder that this process has it from. Recipes
do not say that; a command to paste has to."""


def file_key(path: Path) -> tuple[str, int, int]:
    """What changes when a file does: where it really lies, its bytes, and when it was written.

    Raises:
        OSError: there is no such file.
    """
    stat = path.stat()
    return str(path.resolve()), stat.st_size, stat.st_mtime_ns
