"""The small record beside a library's points: format, name, recipe, generation."""

from __future__ import annotations

from typing import Any

from sam_detect.errors import ConfigError, LibraryCorruptError, LibraryError
from sam_detect.library.migrations import MIGRATIONS, Data, new_generation
from sam_detect.types import Recipe

FORMAT_VERSION = 3
KIND = "sam-detect library"

_RECIPE_TYPES: dict[str, type | tuple[type, ...]] = {
    "embedder": str,
    "embedder_version": int,
    "model": dict,
    "fade": str,
    "fade_params": dict,
    "occupancy": (int, float),
    "crop_side": int,
    "crop_version": int,
    "dimension": int,
}


def new_manifest(name: str, recipe: Recipe) -> Data:
    return {
        "kind": KIND,
        "format_version": FORMAT_VERSION,
        "name": name,
        "recipe": recipe.to_dict(),
        "generation": new_generation(),
    }


def changed(manifest: Data) -> Data:
    """The manifest of a library whose examples changed."""
    return {**manifest, "generation": new_generation()}


def check(manifest: Any, where: str) -> int:
    """The format version of a manifest that this version can read.

    Raises:
        LibraryCorruptError: it is not a manifest of this project, or is damaged.
        LibraryError: it was written by a newer version.
    """
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise LibraryCorruptError(
            f"{where} holds something else than a sam-detect library; choose another library name"
        )
    version = manifest.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise _damaged(where, f"its format version is {version!r}")
    if version > FORMAT_VERSION:
        raise LibraryError(
            f"{where} has format {version}, this version reads up to {FORMAT_VERSION}; "
            "upgrade sam-detect"
        )
    if "generation" not in manifest:
        raise _damaged(where, "it has no generation")
    if version == FORMAT_VERSION:
        read_recipe(manifest, where)
    return version


def read_recipe(manifest: Data, where: str) -> Recipe:
    """The recipe of a manifest in the present format; raises ``LibraryCorruptError``."""
    try:
        recipe = Recipe.from_dict(manifest["recipe"])
    except (KeyError, TypeError, ConfigError) as error:
        raise _damaged(where, "its recipe is incomplete") from error
    for name, kind in _RECIPE_TYPES.items():
        if not isinstance(getattr(recipe, name), kind):
            raise _damaged(where, f"{name} in its recipe is {getattr(recipe, name)!r}")
    return recipe


def migrate_manifest(manifest: Data, version: int) -> Data:
    """A manifest of an older format, brought to the present one."""
    for step in range(version, FORMAT_VERSION):
        manifest = MIGRATIONS[step].manifest(manifest)
    return {**manifest, "format_version": FORMAT_VERSION}


def migrate_payload(payload: Data, version: int) -> Data:
    """A payload of an older format, brought to the present one."""
    for step in range(version, FORMAT_VERSION):
        payload = MIGRATIONS[step].payload(payload)
    return payload


def _damaged(where: str, why: str) -> LibraryCorruptError:
    return LibraryCorruptError(
        f"the library in {where} is damaged ({why}); nothing was changed: restore it from an export"
    )
