"""What is said where a library has another recipe than the one asked for, and what to do."""

from __future__ import annotations

import shlex
import sys

from pydantic import BaseModel

from sam_detect import options as part_options
from sam_detect.errors import ConfigError
from sam_detect.library.places import options_of
from sam_detect.options import Options, hint
from sam_detect.types import Recipe

CROP_FIELDS = ("occupancy", "crop_side", "crop_version")
"""Fields of a recipe that decide the kept crops, so that no reindexing can change them."""


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
    options: list[str] = [place, f"--embedder {shlex.quote(wanted.embedder)}"]
    declared = _options_of("embedder", wanted.embedder)
    for option, info in declared.model_fields.items():
        value = wanted.model.get(info.serialization_alias or option)
        if option == getattr(declared, "names_model", None):
            value = value or wanted.model.get("file", "PATH")
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
