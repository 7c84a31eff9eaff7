"""The closed schema of what a library keeps: payloads, recipes and manifests, each with limits.

An exported file, a server or a copied folder may come from anybody. Import, migration, every read
and every write go through this module, so nothing else has to ask whether a value has a sane type,
size or range. Unknown fields of payloads and manifests are dropped; those of recipes are refused,
since a recipe names everything that decides a vector.

All functions raise ``ValueError`` with a part of a sentence: "its bbox should ...".
"""

from __future__ import annotations

import json
import math
import reprlib
import uuid
from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, NoReturn, get_type_hints

import numpy as np
from pydantic import AfterValidator, ConfigDict, Field, TypeAdapter, ValidationError, with_config
from typing_extensions import NotRequired, TypedDict

from sam_detect.config import Settings
from sam_detect.library.batches import BATCH
from sam_detect.masks import MAX_RLE_PIXELS, FloatArray
from sam_detect.models.recipes import checked_model
from sam_detect.parts import FADE_SETTINGS
from sam_detect.registry import BUILT_IN
from sam_detect.types import Recipe

KIND = "sam-detect library"
MAX_JSON_DEPTH = 12
MAX_JSON_MARKS = 20_000
"""Quotes, and commas and brackets, of one JSON text; an example has some 500."""
MAX_DIGITS = 18
MAX_DIMENSION = 65_536
MAX_REGIONS = 64
"""Four times what any version keeps around an example."""
UNIT_TOLERANCE = 0.01
"""The stores normalise vectors; half precision moves a length by a thousandth."""
MAX_VALUE_DEPTH = 7
"""``before`` holds states whose ``surroundings`` hold lists of boxes. Qdrant's log cannot be read
with more than 128 levels."""
MAX_STATES = 64
"""Earlier states of an example, four times what is kept."""


def _printable(text: str) -> str:
    if not text.isprintable():
        raise ValueError("should have no control characters")
    return text


def _time(text: str) -> str:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("should be a time in ISO 8601") from None
    return text


def _picture_size(size_hw: list[int]) -> list[int]:
    if size_hw[0] * size_hw[1] > MAX_RLE_PIXELS:
        raise ValueError(f"should have at most {MAX_RLE_PIXELS} pixels")
    return size_hw


def _box_xywh(box: list[int]) -> list[int]:
    if min(box) < 0 or min(box[2:]) < 1:
        raise ValueError("should be x, y, width, height in a picture")
    return box


def _window_xyxy(box: list[int]) -> list[int]:
    if box[0] >= box[2] or box[1] >= box[3]:
        raise ValueError("should be x0, y0, x1, y1 of a window")
    return box


Name = Annotated[str, Field(min_length=1, max_length=300), AfterValidator(_printable)]
Text = Annotated[str, Field(max_length=1000), AfterValidator(_printable)]
Version = Annotated[int, Field(ge=1, le=1_000_000)]
Pixels = Annotated[int, Field(ge=1, le=MAX_RLE_PIXELS)]
Four = Annotated[
    list[Annotated[int, Field(ge=-MAX_RLE_PIXELS, le=MAX_RLE_PIXELS)]],
    Field(min_length=4, max_length=4),
]
Finite = Annotated[float, Field(ge=-(10**MAX_DIGITS), le=10**MAX_DIGITS, allow_inf_nan=False)]
Batch = Annotated[str, Field(max_length=40, pattern=rf"^({BATCH})?$")]
Checksum = Annotated[str, Field(pattern=r"^[0-9a-f]{32}$")]
Counts = Annotated[str, Field(max_length=4_000_000)]
"""COCO's run lengths: a million runs of some pixels each."""
Regions = Field(max_length=MAX_REGIONS)
Plain = bool | Annotated[int, Field(ge=-(10**MAX_DIGITS), le=10**MAX_DIGITS)] | Finite | Text | None
Parameters = Annotated[
    dict[Annotated[str, Field(max_length=64, pattern=r"^[A-Za-z_]\w*$")],
         Plain | Annotated[list[Plain], Field(max_length=64)]],
    Field(max_length=32),
]  # fmt: skip


class Segmentation(TypedDict):
    """A full-size mask, as COCO's run lengths."""

    size: Annotated[list[Pixels], Field(min_length=2, max_length=2), AfterValidator(_picture_size)]
    counts: Counts


class Around(TypedDict):
    """What was proposed around an example; ``surroundings.py`` checks how its parts fit."""

    proposer: Text
    quality: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None
    boxes: Annotated[list[Four], Regions]
    masks: Annotated[list[Counts], Regions]
    touching: Annotated[list[bool], Regions]
    vectors: Annotated[str, Field(max_length=3 * MAX_REGIONS * MAX_DIMENSION)]


class Known(TypedDict, total=False):
    """What is known of an example, or differs in an earlier state of it."""

    label: Annotated[str, Field(max_length=200, pattern=r"\S")]
    negative: bool
    source: Annotated[str, Field(max_length=10_000)]
    bbox: Annotated[Four, AfterValidator(_box_xywh)]
    area: Pixels
    added: Annotated[str, Field(max_length=40), AfterValidator(_time)]
    segmentation: Segmentation
    picture: Annotated[str, Field(max_length=128, pattern=r"^[0-9a-f]*$")]
    crop_webp: Annotated[str, Field(max_length=6_000_000)]
    crop_mask: Counts
    crop_scale: Annotated[float, Field(ge=1e-9, le=1, allow_inf_nan=False)]
    crop_window: Annotated[Four, AfterValidator(_window_xyxy)]
    surroundings: Around | None
    batch: Batch


class State(TypedDict):
    """An earlier state of an example, as ``history.py`` keeps it."""

    by: Batch
    id: Annotated[str, Field(max_length=36)]
    vector: Annotated[str, Field(max_length=6 * MAX_DIMENSION)] | None
    payload: Known


class Payload(Known, total=False):
    """The payload of an example in the present format; a read may ask for some fields only."""

    before: Annotated[list[State], Field(max_length=MAX_STATES)]
    checksum: Checksum
    vector_checksum: Checksum
    crop_checksum: Checksum


KNOWN_FIELDS = tuple(get_type_hints(Known))
"""All fields but the earlier states and the checksums."""
PAYLOAD_FIELDS = tuple(get_type_hints(Payload))


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


class Contents(TypedDict):
    """All examples of a library at once: how many, and their checksums added up."""

    examples: Annotated[int, Field(ge=0, le=10**MAX_DIGITS)]
    sum: Checksum
    batch: Batch


class Manifest(TypedDict):
    """The record beside a library's points."""

    kind: Literal["sam-detect library"]
    format_version: Version
    name: Name
    recipe: dict[str, Any]
    generation: Annotated[str, Field(min_length=1, max_length=64), AfterValidator(_printable)]
    contents: NotRequired[Contents | None]


_PAYLOAD: TypeAdapter[Any] = TypeAdapter(Payload)
_RECIPE: TypeAdapter[Any] = TypeAdapter(_Recipe)
_MANIFEST: TypeAdapter[Any] = TypeAdapter(Manifest)


def check_payload(data: dict[str, Any], fields: Sequence[str] = PAYLOAD_FIELDS) -> dict[str, Any]:
    """The known fields of an example's payload.

    Args:
        data: what is stored.
        fields: those that must be there.
    """
    for name in fields:
        if name not in data:
            raise ValueError(f"it has no {name}")
    known = _checked(_PAYLOAD, data)
    if "bbox" in known:
        x, y, width, height = known["bbox"]
        if known.get("area", 1) > width * height:
            raise ValueError(f"its area is {known['area']} pixels in a box of {width}x{height}")
        size = known.get("segmentation", {}).get("size", (MAX_RLE_PIXELS, MAX_RLE_PIXELS))
        if y + height > size[0] or x + width > size[1]:
            raise ValueError("its bbox lies outside of its picture")
    return known


def known_fields(data: dict[str, Any]) -> dict[str, Any]:
    """The fields of a payload that the schema knows, as far as an engine can keep them.

    For what is moved unchecked (a migration, a rename). A field nested too deep is left out; the
    example is then named as damaged when it is read.
    """
    return {
        name: data[name]
        for name in PAYLOAD_FIELDS
        if name in data and _within(data[name], MAX_VALUE_DEPTH)
    }


def check_recipe(data: Any) -> Recipe:
    """The recipe of a manifest: exactly the fields, within the limits of the settings."""
    known = _checked(_RECIPE, data)
    known["model"] = checked_model(known["embedder"], known["model"])
    asked = {name: known[name] for name in ("occupancy", "crop_side")}
    if known["fade"] in BUILT_IN["fade"]:
        for name, value in known["fade_params"].items():
            if value is not None and type(value) not in (int, float):
                raise ValueError(f"its {name} should be a number, got {reprlib.repr(value)}")
            if value is not None and name in FADE_SETTINGS:
                asked[name] = value
        share = known["fade_params"].get("sigma_per_diameter")  # no setting has its limits
        if share is not None and not 0.001 <= share <= 100:
            raise ValueError(f"its sigma_per_diameter should be from 0.001 to 100, got {share}")
    try:
        Settings(**asked)
    except ValidationError as error:
        _say(error)
    return Recipe(**known)


def check_manifest(data: dict[str, Any]) -> dict[str, Any]:
    """The known fields of a manifest in the present format, its recipe checked."""
    known = _checked(_MANIFEST, data)
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


def check_id(text: Any) -> str:
    """A UUID in its canonical text form."""
    with_hyphens = 36
    if isinstance(text, str) and len(text) == with_hyphens:
        try:
            if str(uuid.UUID(text)) == text:
                return text
        except ValueError:
            pass
    raise ValueError(f"an id should be a UUID, got {reprlib.repr(text)}")


def read_json(text: bytes) -> Any:
    """JSON of somebody else: UTF-8, not deep, of few values, without what JSON does not have.

    Depth and number of values are counted before anything is parsed: parsing itself recurses, and
    a list takes 30 times the memory of its text. Whoever reads the text limits its length.
    """
    outside = text.replace(b"\\\\", b"").replace(b'\\"', b"")
    if outside.count(b'"') > MAX_JSON_MARKS:
        raise ValueError("its JSON has too many values")
    marks = b"".join(outside.split(b'"')[::2])
    if sum(marks.count(mark) for mark in (b",", b"[", b"{")) > MAX_JSON_MARKS:
        raise ValueError("its JSON has too many values")
    depth = 0
    for mark in marks.translate(None, bytes(set(range(256)) - set(b"[]{}"))):
        depth += 1 if mark in b"[{" else -1
        if depth > MAX_JSON_DEPTH:
            raise ValueError(f"its JSON is nested deeper than {MAX_JSON_DEPTH}")
    return json.loads(
        text.decode("utf-8"),
        object_pairs_hook=_once,
        parse_int=_whole,
        parse_float=_finite,
        parse_constant=_no_constant,
    )


def _checked(adapter: TypeAdapter[Any], data: Any) -> dict[str, Any]:
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


def _within(value: Any, depth: int) -> bool:
    """Whether a value is nested no deeper than this."""
    if not isinstance(value, (dict, list)):
        return True
    inner: Iterable[Any] = value.values() if isinstance(value, dict) else value
    return depth > 0 and all(_within(each, depth - 1) for each in inner)


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) < len(pairs):
        raise ValueError("its JSON names a field twice")
    return found


def _whole(digits: str) -> int:
    if len(digits) > MAX_DIGITS + 1:
        raise ValueError(f"its JSON has a number of {len(digits)} digits")
    return int(digits)


def _finite(text: str) -> float:
    if len(text) > 2 * MAX_DIGITS or not math.isfinite(number := float(text)):
        raise ValueError(f"its JSON has the number {reprlib.repr(text)}")
    return number


def _no_constant(text: str) -> NoReturn:
    raise ValueError(f"its JSON has the number {text}")
