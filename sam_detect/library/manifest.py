"""What belongs to a library as a whole: its manifest with the recipe, and the record of its
examples.

An exported file, a server or a copied folder may come from a stranger. Import, every read and every
write go through this module and the payload's schema in ``example.py``, so nothing else has to ask
whether a value has a sane type, size or range. Unknown fields of manifests are dropped; those of
recipes are refused, since a recipe names everything that decides a vector. Functions named
``check...`` raise ``ValueError`` with a part of a sentence: "its occupancy should ...".

The checksum of each example is its own; that an example is missing, or that a removed one is back,
shows only in their number and the sum of their checksums, which the manifest keeps.
"""

from __future__ import annotations

import reprlib
import secrets
from collections.abc import Iterable, Iterator, Sequence
from typing import Annotated, Any, Literal, NoReturn

import numpy as np
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import NotRequired, TypedDict

from sam_detect.config import Settings
from sam_detect.errors import ConfigError, LibraryCorruptError, LibraryError
from sam_detect.interfaces import VectorStore
from sam_detect.library import places
from sam_detect.models.catalogue import checked_model
from sam_detect.options import options_of
from sam_detect.registry import BUILT_IN
from sam_detect.types import Point, Recipe
from sam_detect.types.masks import FloatArray

Data = dict[str, Any]
FORMAT_VERSION = 5
OLDEST_FORMAT = 4
"""Its examples have no background. A library of it gets the present format with its next change."""
KIND = "sam-detect library"
CONTENTS_FIELDS = ("checksum", "batch")
MODULUS = 1 << 128
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
    known = validate(_RECIPE, data)
    known["model"] = checked_model(known["embedder"], known["model"])
    try:
        Settings(**{name: known[name] for name in ("occupancy", "crop_side")})
        if known["fade"] in BUILT_IN["fade"]:
            options_of("fade", known["fade"]).model_validate(known["fade_params"], strict=True)
    except ValidationError as error:
        _say(error)
    return Recipe(**known)


def check_vectors(vectors: FloatArray, ids: Sequence[str], dimension: int) -> None:
    """``(N, D)`` vectors of N examples: of the recipe's dimension, finite, of length 1."""
    if vectors.ndim != 2 or vectors.shape[1] != dimension:
        raise ValueError(f"its vectors have shape {vectors.shape}, its recipe says {dimension}")
    lengths = np.linalg.norm(vectors.astype(np.float64), axis=1)
    wrong = np.flatnonzero(~(np.abs(lengths - 1) <= UNIT_TOLERANCE))
    if len(wrong):
        where = int(wrong[0])
        raise ValueError(f"the vector of example {ids[where]} has length {lengths[where]:.3g}")


def validate(adapter: TypeAdapter[Any], data: Any) -> dict[str, Any]:
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


# -- the manifest ----------------------------------------------------------------------


def new_manifest(name: str, recipe: Recipe) -> Data:
    """Raises ``ConfigError`` for a recipe that could not be read again."""
    try:
        check_recipe(recipe.to_dict())
    except ValueError as error:
        raise ConfigError(f"no library can have this recipe: {error}") from error
    return {
        "kind": KIND,
        "format_version": FORMAT_VERSION,
        "name": name,
        "recipe": recipe.to_dict(),
        "generation": secrets.token_hex(8),  # a counter could repeat in a library made again
    }


def with_new_generation(manifest: Data) -> Data:
    """The manifest of a library whose examples changed."""
    fresh = {"generation": secrets.token_hex(8), "format_version": FORMAT_VERSION}
    return {**manifest, **fresh}


def may_be_removed(manifest: Any) -> bool:
    """Whether this is a library, perhaps a damaged or an older one; not one of a newer version."""
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        return False
    version = manifest.get("format_version")
    return not (isinstance(version, int) and version > FORMAT_VERSION)


def read(manifest: Any, where: str) -> Data:
    """The known fields of a manifest of a format that can be read; ``Recipe(**found["recipe"])`` is
    its recipe.

    Raises:
        LibraryCorruptError: it is not a manifest of this project, or is damaged.
        LibraryError: it has another format.
    """
    if not isinstance(manifest, dict) or manifest.get("kind") != KIND:
        raise LibraryCorruptError(
            f"{where} holds something else than a sam-detect library; choose another library name"
        )
    version = manifest.get("format_version")
    if not isinstance(version, int) or isinstance(version, bool) or version < 1:
        raise damage_error(where, f"its format version is {version!r:.40}")
    if not OLDEST_FORMAT <= version <= FORMAT_VERSION:
        advice = (
            "upgrade sam-detect"
            if version > FORMAT_VERSION
            else "learn its pictures again into a new library"
        )
        raise LibraryError(
            f"{where} has format {version}, this version reads formats {OLDEST_FORMAT} to "
            f"{FORMAT_VERSION}; {advice}"
        )
    try:
        known = validate(_MANIFEST, manifest)
        return {**known, "recipe": check_recipe(known["recipe"]).to_dict()}
    except ValueError as error:
        raise damage_error(where, str(error)) from error


def damage_error(where: str, why: str) -> LibraryCorruptError:
    return LibraryCorruptError(
        f"the library in {where} is damaged ({why}); nothing was changed: restore it from an export"
    )


# -- the record of all examples --------------------------------------------------------


class ContentsRecord:
    """How many examples there are, their checksums added up, and the newest batch."""

    def __init__(self, points: Iterable[Point] = ()) -> None:
        self.examples, self.sum, self.batch = 0, 0, ""
        self.put(points)

    @classmethod
    def of_manifest(cls, manifest: dict[str, Any]) -> ContentsRecord | None:
        """What a manifest says; None where it says nothing, as while examples are written."""
        data, found = manifest.get("contents"), cls()
        if data is None:
            return None
        found.examples, found.batch = data["examples"], data["batch"]
        found.sum = int(data["sum"], 16)
        return found

    def put(self, points: Iterable[Point]) -> None:
        for point in points:
            self.examples += 1
            self.sum = (self.sum + checksum_of(point)) % MODULUS
            self.batch = max(self.batch, str(point.payload.get("batch", "")))

    def drop(self, points: Iterable[Point]) -> None:
        for point in points:
            self.examples -= 1
            self.sum = (self.sum - checksum_of(point)) % MODULUS

    def count_through(self, points: Iterable[Point]) -> Iterator[Point]:
        """The points, each counted as it is passed on."""
        for point in points:
            self.put([point])
            yield point

    def to_dict(self) -> dict[str, Any]:
        return {"examples": self.examples, "sum": f"{self.sum:032x}", "batch": self.batch}

    def problem(self, examples: int, checksums: int) -> str:
        """What is wrong where so many examples with this sum of checksums are found; or nothing."""
        if examples != self.examples:
            return f"it has {examples} examples, {self.examples} were stored"
        return "" if checksums == self.sum else "its examples are not those that were stored"


def checksum_of(point: Point) -> int:
    try:
        return int(str(point.payload.get("checksum")), 16)
    except ValueError:  # it is damaged, which a reader reports
        return 0


def replace_all(store: VectorStore, points: Iterable[Point], manifest: dict[str, Any]) -> None:
    """Puts other examples and another manifest in place, with their record."""
    contents = ContentsRecord()
    store.replace_all(contents.count_through(points), {**manifest, "contents": None})
    if store.exclusive:
        store.write_manifest({**manifest, "contents": contents.to_dict()})


def require_complete(
    store: VectorStore, name: str, manifest: dict[str, Any], points: Sequence[Point]
) -> None:
    """Raises ``LibraryCorruptError`` unless these points, with their checksums, are all examples
    that were stored."""
    require_contents(store, name, manifest, ContentsRecord(points))


def require_contents(
    store: VectorStore, name: str, manifest: dict[str, Any], found: ContentsRecord
) -> None:
    """The same of examples that were counted."""
    stored = ContentsRecord.of_manifest(manifest)
    if stored is None or not store.exclusive:
        return
    why = stored.problem(found.examples, found.sum)
    if not why:
        return
    place = places.options_of(store.location) or f"--library {name}"
    raise LibraryCorruptError(
        f"library '{name}' is damaged: {why}; keep what is sound: sam-detect library repair {place}"
    )
