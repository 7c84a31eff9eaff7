"""The detectors of a service: one for each library that is asked for."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Mapping
from contextlib import suppress
from typing import Any

from sam_detect.api import SAMDetect
from sam_detect.errors import ConfigError, SamDetectError
from sam_detect.library.places import DEFAULT_LIBRARY, list_libraries, not_found
from sam_detect.server.warned import heard

MOST_OPEN = 8
"""How many of the last libraries stay open."""


class Detectors:
    """Detectors with the same settings and different libraries. Safe for several threads.

    Args:
        settings: as of :class:`SAMDetect`, by name.
        default: is used where a request names no library.
    """

    def __init__(self, settings: Mapping[str, Any], default: SAMDetect) -> None:
        self._settings, self.default = dict(settings), default
        self._open = OrderedDict({self.default.library.name: self.default})
        # The order of locks: docs/architecture.md, "Which lock before which".
        self._lock = threading.Lock()

    def names(self) -> list[str]:
        """Of the libraries that are there."""
        there = list_libraries(self.default.settings)
        own = self.default.library
        return sorted({*there, *([own.name] if own.manifest() else [])})

    def get(self, library: str | None, *, make: bool = False) -> SAMDetect:
        """The detector of a library.

        Args:
            library: its name; None: the default one.
            make: whether the library may be a new one.

        Raises:
            LibraryNotFoundError: there is no such library. The one named "default" need not exist
                where it is that of the service.
            ConfigError: this is no name of a library.
        """
        if library is None or library == self.default.library.name:
            _require(self.default, make or self.default.settings.library == DEFAULT_LIBRARY)
            return self.default
        with self._lock:
            found = self._open.pop(library, None)
            if found is None:
                with heard():  # said when the service began
                    found = SAMDetect(**{**self._settings, "library": library})
            _require(found, make)
            self._open[library] = found
            while len(self._open) > MOST_OPEN:
                self._open.popitem(last=False)
            return found

    def open_libraries(self) -> dict[str, int]:
        """How many examples each open library has, as its manifest says: no lock is waited for.
        Those that are being written, or cannot be read, are left out."""
        found = {}
        for name, detector in self._open.copy().items():
            with suppress(SamDetectError):
                library = detector.library
                contents = (library.manifest() or {}).get("contents")
                if contents is not None or not library.store.exclusive:
                    found[name] = contents["examples"] if contents else len(library)
        return found


def _require(detector: SAMDetect, new: bool) -> None:
    """Raises ``LibraryNotFoundError`` for a library that does not exist, unless it may be new."""
    if not new and detector.library.manifest() is None:
        raise not_found(detector.settings, make="learn into it (POST /v1/examples)")


def require_no_memory_store(settings: Mapping[str, Any]) -> None:
    """Raises ``ConfigError`` where examples would not outlive the service."""
    if settings.get("store") == "memory":
        raise ConfigError("a service keeps its examples: leave --store memory out")
