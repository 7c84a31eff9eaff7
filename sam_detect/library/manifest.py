"""The small record beside a library's points: format, name, recipe, generation."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from sam_detect.errors import ConfigError, LibraryCorruptError, LibraryError
from sam_detect.library import schema
from sam_detect.library.checksums import sealed
from sam_detect.library.migrations import MIGRATIONS, Data, new_generation
from sam_detect.types import Point, Recipe

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
        "generation": new_generation(),
    }


def changed(manifest: Data) -> Data:
    """The manifest of a library whose examples changed."""
    return {**manifest, "generation": new_generation()}


def is_ours(manifest: Any) -> bool:
    return isinstance(manifest, dict) and manifest.get("kind") == schema.KIND


def check(manifest: Any, where: str) -> int:
    """The format version of a manifest that this version can read.

    Raises:
        LibraryCorruptError: it is not a manifest of this project, or is damaged.
        LibraryError: it was written by a newer version.
    """
    if not is_ours(manifest):
        raise LibraryCorruptError(
            f"{where} holds something else than a sam-detect library; choose another library name"
        )
    version = manifest.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise damaged(where, f"its format version is {version!r:.40}")
    if version > FORMAT_VERSION:
        raise LibraryError(
            f"{where} has format {version}, this version reads up to {FORMAT_VERSION}; "
            "upgrade sam-detect"
        )
    if "generation" not in manifest:
        raise damaged(where, "it has no generation")
    return version


def read(manifest: Data, where: str) -> Data:
    """The known fields of a manifest in the present format; raises ``LibraryCorruptError``."""
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


def migrate_manifest(manifest: Data, version: int) -> Data:
    """A manifest of an older format, brought to the present one."""
    for step in range(version, FORMAT_VERSION):
        manifest = MIGRATIONS[step].manifest(manifest)
    return {**manifest, "format_version": FORMAT_VERSION}


def migrate_point(point: Point, version: int) -> Point:
    """A whole point of an older format, brought to the present one; without unknown fields."""
    payload = point.payload
    for step in range(version, FORMAT_VERSION):
        payload = MIGRATIONS[step].payload(payload)
    known = replace(point, payload=schema.known_fields(payload))
    return known if version == FORMAT_VERSION else sealed(known)


def damaged(where: str, why: str) -> LibraryCorruptError:
    return LibraryCorruptError(
        f"the library in {where} is damaged ({why}); nothing was changed: restore it from an export"
    )
