"""Strict checks of the recipe, the manifest and the vectors of a library.

An exported file, a server or a copied folder may come from anybody. Import, every read and every
write go through this module and the payload's schema in ``example.py``, so nothing else has to ask
whether a value has a sane type, size or range. Unknown fields of manifests are dropped; those of
recipes are refused, since a recipe names everything that decides a vector.

All functions raise ``ValueError`` with a part of a sentence: "its occupancy should ...".
"""

from __future__ import annotations

import reprlib
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NoReturn

import numpy as np
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import NotRequired, TypedDict

from sam_detect.config import Settings
from sam_detect.masks import FloatArray
from sam_detect.models.recipes import checked_model
from sam_detect.options import options_of
from sam_detect.registry import BUILT_IN
from sam_detect.types import Recipe

KIND = "sam-detect library"
MAX_DIGITS = 18
MAX_DIMENSION = 65_536
UNIT_TOLERANCE = 0.01
"""The stores normalise vectors; half precision moves a length by a thousandth."""
BATCH_PATTERN = r"20[0-9]{6}T[0-9]{6}\.[0-9]{6}Z-[0-9a-f]{8}"
"""The id of a learning batch: its time in UTC, with microseconds, and chance. Ids sort by time."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("should have no control characters")
    return text


Name = Annotated[str, Field(min_length=1, max_length=300), AfterValidator(_printable)]
Text = Annotated[str, Field(max_length=1000), AfterValidator(_printable)]
Version = Annotated[int, Field(ge=1, le=1_000_000)]
Finite = Annotated[float, Field(ge=-(10**MAX_DIGITS), le=10**MAX_DIGITS, allow_inf_nan=False)]
Batch = Annotated[str, Field(max_length=40, pattern=rf"^({BATCH_PATTERN})?$")]
Checksum = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Plain = bool | Annotated[int, Field(ge=-(10**MAX_DIGITS), le=10**MAX_DIGITS)] | Finite | Text | None
Parameters = Annotated[
    dict[Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z_]\w*$")],
         Plain | Annotated[list[Plain], Field(max_length=64)]],
    Field(max_length=32),
]  # fmt: skip


@with_config(ConfigDict(extra="forbid"))
class _Recipe(TypedDict):
    embedder: Name
    embedder_version: Version
    model: Parameters
    fade: Name
    fade_params: Parameters
    occupancy: Finite
    crop_side: int
    crop_version: Version
    dimension: Annotated[int, Field(ge=1, le=MAX_DIMENSION)]


class _Contents(TypedDict):
    """All examples of a library at once: how many, and their checksums added up."""

    examples: Annotated[int, Field(ge=0, le=10**MAX_DIGITS)]
    sum: Checksum
    batch: Batch


class _Manifest(TypedDict):
    """What a library says of all its examples."""

    kind: Literal["sam-detect library"]
    format_version: Version
    name: Name
    recipe: dict[str, Any]
    generation: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_printable)]
    contents: NotRequired[_Contents | None]


_RECIPE: TypeAdapter[Any] = TypeAdapter(_Recipe)
_MANIFEST: TypeAdapter[Any] = TypeAdapter(_Manifest)


def check_recipe(data: Any) -> Recipe:
    """The recipe of a manifest: exactly the fields, within the limits of the settings."""
    known = checked(_RECIPE, data)
    known["model"] = checked_model(known["embedder"], known["model"])
    try:
        Settings(**{name: known[name] for name in ("occupancy", "crop_side")})
        if known["fade"] in BUILT_IN["fade"]:
            options_of("fade", known["fade"]).model_validate(known["fade_params"], strict=True)
    except ValidationError as error:
        _say(error)
    return Recipe(**known)


def check_manifest(data: dict[str, Any]) -> dict[str, Any]:
    """The known fields of a manifest in the present format, its recipe checked."""
    known = checked(_MANIFEST, data)
    return {**known, "recipe": check_recipe(known["recipe"]).to_dict()}


def check_vectors(vectors: FloatArray, ids: Sequence[str], dimension: int) -> None:
    """``(N, D)`` vectors of N examples: of the recipe's dimension, finite, of length 1."""
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise ValueError(f"its vectors have shape {vectors.shape}, its recipe says {dimension}")
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT_TOLERANCE))
    if len(wrong):
        where = int(wrong[0])
        raise ValueError(f"the vector of example {ids[where]} has length {lengths[where]:.3g}")


def checked(adapter: TypeAdapter[Any], data: Any) -> dict[str, Any]:
    try:
        return dict(adapter.validate_python(data, strict=True))
    except ValidationError as error:
        _say(error)


def _say(error: ValidationError) -> NoReturn:
    """The first thing that is wrong, in half a line."""
    first = error.errors(include_url=False, include_context=False)[0]
    where = ".".join(str(part) for part in first["loc"][:2]) or "recipe"
    if first["type"] == "missing":
        raise ValueError(f"it has no {where}") from None
    if first["type"] == "extra_forbidden":
        raise ValueError(f"it has the unknown field {reprlib.repr(where)}") from None
    text = first["msg"].removeprefix("Value error, ").replace("Input should", "should")
    text = text if text.startswith("should") else f"is wrong ({text})"
    raise ValueError(f"its {where} {text}, got {reprlib.repr(first['input'])[:60]}") from None
