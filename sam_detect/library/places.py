"""Where libraries live: which store, and which collection, a library's name means."""

from __future__ import annotations

import difflib
import shlex
from collections.abc import Sequence
from pathlib import PurePath

from sam_detect.config import Settings
from sam_detect.errors import LibraryNotFoundError
from sam_detect.interfaces import VectorStore
from sam_detect.parts import make_store, require_used

DEFAULT_LIBRARY = "default"
DEFAULT_COLLECTION = "sam_detect"
SHOWN = 8
"""So many names of libraries are listed in a message."""


_SWAPPED = {DEFAULT_LIBRARY: DEFAULT_COLLECTION, DEFAULT_COLLECTION: DEFAULT_LIBRARY}
"""The library ``default`` is the collection ``sam_detect``. So that each name means one library,
the library ``sam_detect`` is the collection ``default``."""


def collection_of(library: str) -> str:
    """The collection of a library, which has its name; see ``_SWAPPED`` for the two others."""
    return _SWAPPED.get(library, library)


def library_of(collection: str) -> str:
    """The library of a collection: the inverse of :func:`collection_of`."""
    return _SWAPPED.get(collection, collection)


def options_of(location: str) -> str:
    """The options that name the library at a store's location; empty for one in memory."""
    if location.startswith(("http://", "https://")):
        url, _, name = location.partition("/collections/")
        return f"--library {shlex.quote(library_of(name))} --qdrant-url {shlex.quote(url)}"
    name = PurePath(location).name
    return f"--library {shlex.quote(library_of(name))}" if name != location else ""


def open_store(settings: Settings) -> VectorStore:
    """The store that the settings name: embedded Qdrant unless a server or memory is asked for."""
    require_used(settings, {"store": settings.store or "qdrant"})
    return make_store(settings, collection_of(settings.library))


def list_libraries(settings: Settings) -> list[str]:
    """Names of the libraries at the place the settings name."""
    from sam_detect.vector_store import qdrant

    if settings.store not in (None, "qdrant"):
        return []
    url = settings.option("qdrant_url")
    if url:
        found = qdrant.server_collections(url, settings.option("qdrant_api_key"))
    else:
        found = qdrant.embedded_collections(qdrant.libraries_dir())
    return sorted(library_of(collection) for collection in found)


def similar_libraries(settings: Settings, *, among: Sequence[str] | None = None) -> list[str]:
    """Names of libraries that resemble the one that the settings name, most similar first.

    Args:
        among: the names of all libraries, where they are known.
    """
    names = list_libraries(settings) if among is None else among
    by_key = {name.casefold(): name for name in names if name != settings.library}
    close = difflib.get_close_matches(settings.library.casefold(), by_key, n=3)
    return [by_key[key] for key in close]


def other_libraries(settings: Settings) -> str:
    """What is said where the default library does not exist, but others do; else nothing."""
    there = list_libraries(settings)
    if settings.library != DEFAULT_LIBRARY or not there:
        return ""
    absent = f"there is no library '{DEFAULT_LIBRARY}' yet"
    return f"{absent}; to read another one: --library NAME ({_listed(there)})"


def _listed(names: Sequence[str]) -> str:
    more = f" and {len(names) - SHOWN} more" if len(names) > SHOWN else ""
    return f"there are: {', '.join(names[:SHOWN])}{more}"


def not_found(settings: Settings, location: str) -> LibraryNotFoundError:
    """The error for a library that does not exist; it names those that may be meant."""
    name = settings.library
    said = f"there is no library '{name}' in {location}"
    there = list_libraries(settings)
    close = similar_libraries(settings, among=there)
    if close:
        said += f"; did you mean {' or '.join(repr(each) for each in close)}?"
    elif there:
        said += f" ({_listed(there)})."
    else:
        said += "."
    place = f"--library {shlex.quote(name)}"
    return LibraryNotFoundError(
        f"{said} To make '{name}': sam-detect learn IMAGE --label NAME --box x,y,w,h {place}"
    )
