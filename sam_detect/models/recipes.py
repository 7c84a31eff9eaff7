"""What a library's recipe may say of a model: a name of the catalogue, or the name of a file.

A library may come from anybody, so its recipe never says what to load. A model of the catalogue is
found by its name; a file or folder of the user's own has to be given again, and is checked.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import PurePosixPath, PureWindowsPath
from typing import Any

from sam_detect.models.catalogue import find_sam2
from sam_detect.types import Recipe

FILE = "file"
"""The parameter that is the name, without its folder, of a file or folder of the user's own."""
DIGESTS = ("digest", "config_digest")
DIGEST = re.compile(r"[0-9a-f]{16,64}")
CLIP_NAME = re.compile(r"\w[\w.+-]*/\w[\w.+-]*")
LIKE_A_PLACE = re.compile(r"[/\\:~]|^\.")
"""In a text: it may be a path, an address or ``module:Class``."""
PARAMETERS: dict[str, tuple[str, ...]] = {
    "average": (),
    "appearance": (),
    "clip": ("model_name", FILE, *DIGESTS, "dtype"),
    "sam2": ("model_size", FILE, *DIGESTS, "pooling", "occupancies", "dtype"),
}
"""Of each built-in embedder, those that a recipe may have."""
PATHS = {"clip": ("model_name", "weights"), "sam2": ("model_size", "config")}
"""Parameters that older versions wrote paths into."""
CHOICES = {"dtype": ("auto", "fp32", "bf16", "fp16"), "pooling": ("crop", "frame")}


def checked_model(embedder: str, model: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters of a recipe's embedder, without any path.

    Args:
        embedder: its name. Parameters of embedders that are not built in are given back as they
            are; :func:`names_a_place` tells which of them are not to be used.

    Raises:
        ValueError: a parameter that the embedder does not have, or that has no such value.
    """
    if embedder not in PARAMETERS:
        return dict(model)
    found = _without_paths(embedder, model)
    unknown = sorted(found.keys() - set(PARAMETERS[embedder]))
    if unknown:
        raise ValueError(f"its embedder {embedder} has no parameter {unknown[0]!r:.60}")
    for name in DIGESTS:
        if name in found and not (isinstance(found[name], str) and DIGEST.fullmatch(found[name])):
            raise ValueError(f"its model's {name} should be hexadecimal, got {found[name]!r:.60}")
    if FILE in found and "digest" not in found:
        raise ValueError("its model is a file without a digest")
    for name, choices in CHOICES.items():
        if name in found and found[name] not in choices:
            raise ValueError(f"its model's {name} should be one of {choices}")
    return found


def made_with_weights(recipe: Recipe) -> bool:
    """Whether the embedder of a recipe runs a pretrained model.

    One of another package says so by the digest of its weights, among its parameters.
    """
    known = PARAMETERS.get(recipe.embedder)
    return bool(known) if known is not None else "digest" in recipe.model


def names_a_place(parameters: Mapping[str, Any]) -> str | None:
    """The first parameter whose text may be a path, an address or code; None where none is."""
    for name, value in parameters.items():
        texts = value if isinstance(value, list) else [value]
        if any(isinstance(text, str) and LIKE_A_PLACE.search(text) for text in texts):
            return name
    return None


def same_weights(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> bool:
    """Whether two models' parameters tell of the same weights and settings."""
    return all(mine.get(name) == theirs.get(name) for name in DIGESTS)


def _without_paths(embedder: str, model: Mapping[str, Any]) -> dict[str, Any]:
    """The parameters, with a file's name for each path that an older version wrote."""
    found = dict(model)
    for name in PATHS.get(embedder, ()):
        value = found.get(name)
        if value is None or _in_catalogue(name, value):
            continue
        if not isinstance(value, str):
            raise ValueError(f"its model's {name} should be a text, got {value!r:.60}")
        del found[name]
        if name != "config":
            found[FILE] = value
    if FILE in found:
        if not isinstance(found[FILE], str):
            raise ValueError(f"its model's {FILE} should be a text, got {found[FILE]!r:.60}")
        found[FILE] = PureWindowsPath(PurePosixPath(found[FILE]).name).name or "unknown"
    return found


def _in_catalogue(parameter: str, value: Any) -> bool:
    if parameter == "model_size":
        official = find_sam2(value) if isinstance(value, str) else None
        return official is not None and official.name == value
    return parameter == "model_name" and isinstance(value, str) and bool(CLIP_NAME.fullmatch(value))
