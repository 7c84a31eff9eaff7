"""Steps from each older format of a library to the next one.

A step gets plain data as it was stored and returns it in the next format. It must not fail on a
damaged example: what cannot be converted is carried on, and is named when it is asked for.
"""

from __future__ import annotations

import secrets
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

from sam_detect.library import pictures

Data = dict[str, Any]


@dataclass(frozen=True)
class Migration:
    """One step: what it makes of the manifest (format version aside), and of each payload."""

    manifest: Callable[[Data], Data]
    payload: Callable[[Data], Data]


def new_generation() -> str:
    return secrets.token_hex(8)


def _manifest_1_to_2(manifest: Data) -> Data:
    """A counter starts again in a library that was removed and made again; chance does not."""
    return {**manifest, "generation": new_generation()}


def _payload_1_to_2(payload: Data) -> Data:
    """Crops are lossless WebP, about half the size of PNG; each example knows its picture."""
    new = {**payload, "picture": ""}
    damaged = new.pop("crop_png", "")
    new["crop_webp"] = damaged
    with suppress(ValueError):
        new["crop_webp"] = pictures.encode_webp(pictures.decode(damaged, "PNG"))
    return new


def _payload_2_to_3(payload: Data) -> Data:
    """Examples know what was proposed around them; of older ones nobody looked."""
    return {**payload, "surroundings": None}


def _payload_3_to_4(payload: Data) -> Data:
    """Examples know their learning batch and what they replaced; of older ones nobody does.

    The checksums come last, when the point is whole.
    """
    return {**payload, "batch": "", "before": []}


MIGRATIONS: dict[int, Migration] = {
    1: Migration(_manifest_1_to_2, _payload_1_to_2),
    2: Migration(dict, _payload_2_to_3),
    3: Migration(dict, _payload_3_to_4),
}
"""``{version: step to the next version}``"""
