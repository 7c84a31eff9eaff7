"""Checksums of stored examples, so that what is read is what was written.

There are three, so that a reader checks what it reads and no more. ``vector_checksum`` covers the
vector and the surroundings, ``crop_checksum`` the crop and the earlier states, and ``checksum`` the
label, the outline and what else lists show, and the other two: all of the example.

They are made of stored bytes and text. Stores give vectors back bit for bit, and numbers are
rounded to what every engine's JSON gives back unchanged, so no processor's arithmetic matters.
"""

from __future__ import annotations

import hashlib
import json
import math
from typing import Any

import numpy as np

from sam_detect.types import Point
from sam_detect.vector_store._checks import normalised

CHECKSUM, VECTOR_CHECKSUM, CROP_CHECKSUM = "checksum", "vector_checksum", "crop_checksum"
LISTED = (
    "label", "negative", "source", "bbox", "area", "added", "segmentation", "picture", "batch",
)  # fmt: skip
"""What lists, counts and the log read."""
LISTED_FIELDS = (*LISTED, CHECKSUM, VECTOR_CHECKSUM, CROP_CHECKSUM)
"""The same with the checksums, so that it can be checked."""
NAMING_FIELDS = (*LISTED_FIELDS, "surroundings")
"""What naming reads, with the vector."""
CHECKSUMS = {CHECKSUM, VECTOR_CHECKSUM, CROP_CHECKSUM}
DECIMALS = 12
DIGITS = 15
"""Numbers of so many digits come back from any JSON reader as they were written."""


def sealed(point: Point) -> Point:
    """The point as a library stores it: with right checksums and a vector of length 1.

    Args:
        point: with its vector and its whole payload.
    """
    vector = None if point.vector is None else normalised(np.asarray(point.vector, np.float32))
    payload = {k: _storable(v) for k, v in point.payload.items() if k not in CHECKSUMS}
    fresh = Point(point.id, vector, payload)
    payload[VECTOR_CHECKSUM] = _of_vector(fresh)
    payload[CROP_CHECKSUM] = _of_crop(fresh)
    payload[CHECKSUM] = _of_all(fresh)
    return fresh


def check_read(point: Point) -> None:
    """Checks what was read of a stored point, as far as it can be; raises ``ValueError``.

    With the fields of a list these are checked, with :data:`NAMING_FIELDS` and the vector those,
    and with the whole payload and the vector all.
    """
    payload = point.payload
    if "crop_webp" in payload:
        _require(point, CROP_CHECKSUM, _of_crop(point))
    if point.vector is not None and "surroundings" in payload:
        _require(point, VECTOR_CHECKSUM, _of_vector(point))
    if CHECKSUM in payload:
        _require(point, CHECKSUM, _of_all(point))


def _require(point: Point, name: str, expected: str) -> None:
    if point.payload.get(name) != expected:
        which = {VECTOR_CHECKSUM: "its vector", CROP_CHECKSUM: "its crop"}.get(name, "it")
        raise ValueError(f"{which} is not what was stored")


def _of_vector(point: Point) -> str:
    # Adding zero makes -0.0 and 0.0 the same, as not every transport keeps them apart.
    vector = b"" if point.vector is None else (np.asarray(point.vector, "<f4") + 0.0).tobytes()
    return _digest(vector, _text(point.payload.get("surroundings")))


def _of_crop(point: Point) -> str:
    apart = CHECKSUMS.union(NAMING_FIELDS)
    return _digest(_text({k: v for k, v in point.payload.items() if k not in apart}))


def _of_all(point: Point) -> str:
    listed = {name: point.payload.get(name) for name in LISTED}
    parts = [point.payload.get(name) for name in (VECTOR_CHECKSUM, CROP_CHECKSUM)]
    return _digest(_text([point.id, listed, parts]))


def _digest(*parts: bytes) -> str:
    digest = hashlib.blake2b(digest_size=16)
    for part in parts:
        digest.update(len(part).to_bytes(8, "little"))
        digest.update(part)
    return digest.hexdigest()


def _text(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def _storable(value: Any) -> Any:
    """The value with its numbers rounded; lists and dicts are copies."""
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{round(value, DECIMALS):.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _storable(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_storable(each) for each in value]
    return value
