"""The manifest of a library: format, name, recipe, generation."""

from __future__ import annotations

import secrets
from typing import Any

from sam_detect.errors import ConfigError, LibraryCorruptError, LibraryError
from sam_detect.library import schema
from sam_detect.types import Recipe

Data = dict[str, Any]
FORMAT_VERSION = 4


def new_manifest(name: str, recipe: Recipe) -> Data:
    """Raises ``ConfigError`` for a recipe that could not be read again."""
    try:
        schema.check_recipe(recipe.to_dict())
    except ValueError as error:
        raise ConfigError(f"no library can have this recipe: {error}") from error
    return {
        "kind": schema.KIND,
        "format_version": FORMAT_VERSION,
        "name": name,
        "recipe": recipe.to_dict(),
        "generation": _new_generation(),
    }


def changed(manifest: Data) -> Data:
    """The manifest of a library whose examples changed."""
    return {**manifest, "generation": _new_generation()}


def may_be_removed(manifest: Any) -> bool:
    """Whether this is a library, perhaps a damaged or an older one; not one of a newer version."""
    if not isinstance(manifest, dict) or manifest.get("kind") != schema.KIND:
        return False
    version = manifest.get("format_version")
    return not (isinstance(version, int) and version > FORMAT_VERSION)


def read(manifest: Any, where: str) -> Data:
    """The known fields of a manifest of the present format.

    Raises:
        LibraryCorruptError: it is not a manifest of this project, or is damaged.
        LibraryError: it has another format.
    """
    if not isinstance(manifest, dict) or manifest.get("kind") != schema.KIND:
        raise LibraryCorruptError(
            f"{where} holds something else than a sam-detect library; choose another library name"
        )
    version = manifest.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise damaged(where, f"its format version is {version!r:.40}")
    if version != FORMAT_VERSION:
        advice = (
            "upgrade sam-detect"
            if version > FORMAT_VERSION
            else "learn its pictures again into a new library"
        )
        raise LibraryError(
            f"{where} has format {version}, this version reads format {FORMAT_VERSION}; {advice}"
        )
    try:
        return schema.check_manifest(manifest)
    except ValueError as error:
        raise damaged(where, str(error)) from error


def read_recipe(manifest: Data, where: str) -> Recipe:
    """The recipe of a manifest in the present format; raises ``LibraryCorruptError``."""
    try:
        return schema.check_recipe(manifest.get("recipe"))
    except ValueError as error:
        raise damaged(where, str(error)) from error


def damaged(where: str, why: str) -> LibraryCorruptError:
    return LibraryCorruptError(
        f"the library in {where} is damaged ({why}); nothing was changed: restore it from an export"
    )


def _new_generation() -> str:
    """Chance: a counter would start again in a library that was removed and made again."""
    return secrets.token_hex(8)
