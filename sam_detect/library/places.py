"""Where libraries live: which store, and which collection, a library's name means; and what is
said of a library that does not exist, or has another recipe than the one asked for."""

from __future__ import annotations

import contextlib
import difflib
import re
import shlex
import sys
import unicodedata
from collections.abc import Sequence
from pathlib import PurePath
from urllib.parse import unquote

from pydantic import BaseModel

from sam_detect import options as part_options
from sam_detect.config import Settings
from sam_detect.errors import ConfigError, LibraryNotFoundError
from sam_detect.interfaces import VectorStore
from sam_detect.models.sharing import LOADED_FROM
from sam_detect.options import Options, hint
from sam_detect.parts import make_store, require_used
from sam_detect.types import Recipe

DEFAULT_LIBRARY = "default"
DEFAULT_COLLECTION = "sam_detect"
LEARN = "sam-detect learn IMAGE --label NAME --box x,y,w,h"
CROP_FIELDS = ("occupancy", "crop_side", "crop_version")
"""Fields of a recipe that decide the kept crops, so that no reindexing can change them."""
SHOWN = 8
"""So many names of libraries are listed in a message."""
_SWAPPED = {DEFAULT_LIBRARY: DEFAULT_COLLECTION, DEFAULT_COLLECTION: DEFAULT_LIBRARY}
"""The library ``default`` is the collection ``sam_detect``. So that each name means one library,
the library ``sam_detect`` is the collection ``default``."""
_WRITTEN = "n--"
"""In front of a collection whose library has letters that no folder and server must have: all but
ASCII letters, digits and ``-`` are written as ``_`` and two digits for each byte of UTF-8."""


def collection_of(library: str) -> str:
    """The collection of a library, which has its name; see ``_SWAPPED`` and ``_WRITTEN`` for the
    others. Names that no library may have are left as they are, for the store to refuse."""
    name = unicodedata.normalize("NFC", library)
    if re.fullmatch(r"[\w.-]*", name, re.ASCII) and not name.startswith(_WRITTEN):
        return _SWAPPED.get(name, name)
    if not name.isprintable() or name.strip() != name or set(name) & set("/\\"):
        return library
    with contextlib.suppress(UnicodeEncodeError):
        name = _WRITTEN + re.sub(
            "[^A-Za-z0-9-]", lambda found: "".join(f"_{b:02x}" for b in found[0].encode()), name
        )
    return name


def library_of(collection: str) -> str:
    """The library of a collection: the inverse of :func:`collection_of`."""
    if collection.startswith(_WRITTEN):
        with contextlib.suppress(ValueError):
            text = unquote(collection[len(_WRITTEN) :].replace("_", "%"), errors="strict")
            return text if collection_of(text) == collection else collection
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

    require_used(settings, {"store": settings.store or "qdrant"})
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


def not_found(settings: Settings, location: str = "", make: str = "") -> LibraryNotFoundError:
    """The error for a library that does not exist; it names those that may be meant.

    Args:
        location: of its store; empty: it is not said.
        make: what makes the library; empty: the command.
    """
    name, place = settings.library, f" in {location}" if location else ""
    make = make or f"{LEARN} --library {shlex.quote(name)}"
    there = list_libraries(settings)
    close = similar_libraries(settings, among=there)
    others = "."
    if close:
        others = f"; did you mean {' or '.join(map(repr, close))}?"
    elif there:
        others = f" ({_listed(there)})."
    return LibraryNotFoundError(
        f"there is no library '{name}'{place}{others} To make '{name}': {make}"
    )


# -- another recipe ----------------------------------------------------------------------


def learning_message(name: str, location: str, mine: Recipe, wanted: Recipe) -> str:
    """What is said when a library has the recipe ``mine``, and ``wanted`` is asked for."""
    differences = mine.differences(wanted)
    said = f"library '{name}' was made with another recipe ({_changes(mine, wanted)}); "
    if any(field in differences for field in CROP_FIELDS):
        return said + (
            "its crops cannot be changed: leave the option out (in Python, the argument), or learn "
            "the pictures into another library (--library NAME, in Python library=)"
        )
    if mine.embedder == wanted.embedder and mine.embedder_version > wanted.embedder_version:
        return said + "that is a newer version of the embedder: upgrade sam-detect"
    if mine.embedder == wanted.embedder and mine.embedder_version < wanted.embedder_version:
        return said + f"the embedder was improved since: {_reindex(location, wanted)}"
    return said + (
        "leave the option out (in Python, the argument), or convert it: "
        f"{_reindex(location, wanted)}"
    )


def reading_message(name: str, location: str, count: int, mine: Recipe, wanted: Recipe) -> str:
    """What is said when a library of so many examples is read in another recipe than its own."""
    examples = "1 example gets" if count == 1 else f"{count} examples get"
    return (
        f"library '{name}' was made with another recipe ({_changes(mine, wanted)}): for this run "
        f"its {examples} new vectors, in memory. To convert the library: "
        f"{_reindex(location, wanted)}"
    )


def _changes(mine: Recipe, wanted: Recipe) -> str:
    """What differs; parameters only of an embedder and of a fade that are the same."""
    found = mine.differences(wanted)
    for part, parameters in (("embedder", "model"), ("fade", "fade_params")):
        ours, theirs = found.pop(parameters, ({}, {}))
        if part not in found:
            names = sorted({*ours, *theirs})
            both = {name: (ours.get(name), theirs.get(name)) for name in names}
            found |= {name: pair for name, pair in both.items() if pair[0] != pair[1]}
    if "embedder" in found:
        found.pop("embedder_version", None)
    if len(found) > 1:
        found.pop("dimension", None)  # it follows from the others
    said = (f"{name} is {ours!r}, not {theirs!r}" for name, (ours, theirs) in found.items())
    return ", ".join(said)


def _reindex(location: str, wanted: Recipe) -> str:
    place = options_of(location)
    if not place:
        return "learn the pictures again with a new detector"
    if ":" in wanted.fade and ("__main__" in wanted.fade or "<" in wanted.fade):
        return (
            f"move the fade {wanted.fade} to a module of its own for 'library reindex', "
            "or use another library"
        )
    if "file" in wanted.model and "model_name" in wanted.model:
        return "no command takes other weights for a model: use another library"
    options: list[str] = [place, f"--embedder {shlex.quote(wanted.embedder)}"]
    declared = _options_of("embedder", wanted.embedder)
    for option, info in declared.model_fields.items():
        value = wanted.model.get(info.serialization_alias or option)
        if option == getattr(declared, "names_model", None):
            loaded_from = LOADED_FROM.get(str(wanted.model.get("digest")), "PATH")
            value = loaded_from if "file" in wanted.model else value
        value = ",".join(map(str, value)) if isinstance(value, list) else value
        if value is not None:
            options.append(f"--{option.replace('_', '-')} {shlex.quote(str(value))}")
    options.append(f"--fade {shlex.quote(wanted.fade)}")
    for option, info in _options_of("fade", wanted.fade).model_fields.items():
        value = wanted.fade_params.get(option)
        number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if number and not hint(info, "hidden"):
            options.append(f"--{option.replace('_', '-')} {value!r}")
    return f"sam-detect library reindex {' '.join(options)}"


def _options_of(room: str, name: str) -> type[BaseModel]:
    """The options of a part that is built in or loaded; of another one, none."""
    try:
        loaded = ":" not in name or name.partition(":")[0] in sys.modules
        return part_options.options_of(room, name) if loaded else Options
    except ConfigError:
        return Options
