"""The small record beside a library's points: format, name, recipe, generation."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from sam_detect.errors import LibraryCorruptError, LibraryError
from sam_detect.types import Recipe

FORMAT_VERSION = 1
KIND = "sam-detect library"

Payload = dict[str, Any]
MIGRATIONS: dict[int, Callable[[Payload], Payload]] = {}
"""``{version: step}``: the step takes a payload of that version to the next one."""


def new_manifest(name: str, recipe: Recipe) -> dict[str, Any]:
    return {
        "kind": KIND,
        "format_version": FORMAT_VERSION,
        "name": name,
        "recipe": recipe.to_dict(),
        "generation": 0,
    }


def check(manifest: dict[str, Any], where: str) -> int:
    """The format version of a manifest.

    Raises:
        LibraryCorruptError: it is not a manifest of this project.
        LibraryError: it was written by a newer version.
    """
    version = manifest.get("format_version")
    if manifest.get("kind") != KIND or not isinstance(version, int) or "recipe" not in manifest:
        raise LibraryCorruptError(
            f"{where} holds something else than a sam-detect library; choose another library name"
        )
    if version > FORMAT_VERSION:
        raise LibraryError(
            f"{where} has format {version}, this version reads up to {FORMAT_VERSION}; "
            "upgrade sam-detect"
        )
    return version


def migrate_payload(payload: Payload, version: int) -> Payload:
    """A payload of an older format, brought to the present one."""
    for step in range(version, FORMAT_VERSION):
        payload = MIGRATIONS[step](payload)
    return payload
