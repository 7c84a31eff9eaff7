"""One labelled example: what it is in memory, what is stored of it, and how each becomes the other.

:class:`Payload` is the closed schema of the stored fields, with limits. A new field is declared
there and, where it has another form in memory, in :meth:`Example.to_point` and
:meth:`Example.from_point`; all else follows. This is format 5 (``FORMAT_VERSION``); format 4 had
no ``background``.

Each example has three checksums, so that a reader checks what it reads and no more.
``vector_checksum`` covers the vector and the hard negatives, ``crop_checksum`` the crop and the
earlier states, and ``checksum`` the listed fields and the other two. They are made of stored bytes
and text, with numbers rounded to what every JSON reader gives back unchanged.
"""

from __future__ import annotations

import hashlib
import json
import math
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timezone
from typing import Annotated, Any, get_type_hints

import numpy as np
from pydantic import AfterValidator, Field, TypeAdapter
from typing_extensions import TypedDict

from sam_detect.config import MAX_CROP_SIDE
from sam_detect.errors import LibraryCorruptError, MaskError
from sam_detect.features.hard_negatives import BACKGROUND_SIDE, HardNegatives
from sam_detect.library import manifest as manifests
from sam_detect.library.manifest import Batch, Checksum, Text
from sam_detect.library.webp import decode_webp, encode_webp
from sam_detect.types import Crop, Point
from sam_detect.types.labels import shown_label
from sam_detect.types.masks import MAX_RLE_PIXELS, FloatArray, MaskRLE, encode_crop, rle_to_mask
from sam_detect.vector_store._checks import normalised

ID_NAMESPACE = uuid.UUID("6d3b1c5e-0f0a-5c55-9a39-5a3d0c6f2c11")
MAX_REGIONS = 64
"""Four times what is kept around an example."""
MAX_STATES = 64
"""Earlier states of an example, four times what is kept."""
DECIMALS, DIGITS = 12, 15

# -- what is stored ----------------------------------------------------------------------------


def _time(text: str) -> str:
    try:
        datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("should be a time in ISO 8601") from None
    return text


def _where(holds: Callable[[list[int]], bool], should: str) -> AfterValidator:
    """Refuses numbers for which a condition does not hold."""

    def check(numbers: list[int]) -> list[int]:
        if not holds(numbers):
            raise ValueError(f"should {should}")
        return numbers

    return AfterValidator(check)


Pixels = Annotated[int, Field(ge=1, le=MAX_RLE_PIXELS)]
Four = Annotated[
    list[Annotated[int, Field(ge=-MAX_RLE_PIXELS, le=MAX_RLE_PIXELS)]],
    Field(min_length=4, max_length=4),
]
Counts = Annotated[str, Field(max_length=4_000_000)]
"""COCO's run lengths: a million runs of some pixels each."""
Regions = Field(max_length=MAX_REGIONS)
Scale = Annotated[float, Field(ge=1e-9, le=1, allow_inf_nan=False)]
Window = Annotated[
    Four, _where(lambda b: b[0] < b[2] and b[1] < b[3], "be x0, y0, x1, y1 of a window")
]


class Segmentation(TypedDict):
    """A full-size mask, as COCO's run lengths."""

    size: Annotated[
        list[Pixels],
        Field(min_length=2, max_length=2),
        _where(lambda hw: hw[0] * hw[1] <= MAX_RLE_PIXELS, f"have at most {MAX_RLE_PIXELS} pixels"),
    ]
    counts: Counts


class Around(TypedDict):
    """The hard negatives of an example; ``features/hard_negatives.py`` checks how the parts fit."""

    proposer: Text
    quality: Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)] | None
    boxes: Annotated[list[Four], Regions]
    masks: Annotated[list[Counts], Regions]
    touching: Annotated[list[bool], Regions]
    vectors: Annotated[str, Field(max_length=3 * MAX_REGIONS * manifests.MAX_DIMENSION)]


class SmallCrop(TypedDict):
    """The crop of a region of the background; the fields are as those of the example's own."""

    webp: Annotated[str, Field(max_length=8 * BACKGROUND_SIDE**2)]
    mask: Counts
    scale: Scale
    window: Window


class Listed(TypedDict, total=False):
    """What lists, counts and the log read."""

    label: Annotated[str, Field(max_length=200, pattern=r"\S")]
    negative: bool
    source: Annotated[str, Field(max_length=10_000)]
    bbox: Annotated[
        Four, _where(lambda b: min(b) >= 0 < min(b[2:]), "be x, y, width, height in a picture")
    ]
    area: Pixels
    added: Annotated[str, Field(max_length=40), AfterValidator(_time)]
    segmentation: Segmentation
    picture: Annotated[str, Field(max_length=128, pattern=r"^[0-9a-f]*$")]
    batch: Batch


class Known(Listed, total=False):
    """What is known of an example, or differs in an earlier state of it."""

    crop_webp: Annotated[str, Field(max_length=6_000_000)]
    crop_mask: Counts
    crop_scale: Scale
    crop_window: Window
    surroundings: Around | None
    background: Annotated[list[SmallCrop], Regions]


class StoredState(TypedDict):
    """An earlier state of an example, as ``history.py`` keeps it."""

    by: Batch
    id: Annotated[str, Field(max_length=36)]
    vector: Annotated[str, Field(max_length=6 * manifests.MAX_DIMENSION)] | None
    payload: Known


class Payload(Known, total=False):
    """The payload of an example; a read may ask for some fields only."""

    before: Annotated[list[StoredState], Field(max_length=MAX_STATES)]
    checksum: Checksum
    vector_checksum: Checksum
    crop_checksum: Checksum


CHECKSUM, VECTOR_CHECKSUM, CROP_CHECKSUM = "checksum", "vector_checksum", "crop_checksum"
CHECKSUMS = (CHECKSUM, VECTOR_CHECKSUM, CROP_CHECKSUM)
LISTED = tuple(get_type_hints(Listed))
LISTED_FIELDS = (*LISTED, *CHECKSUMS)
NAMING_FIELDS = (*LISTED_FIELDS, "surroundings")
"""What naming reads, with the vector."""
KNOWN_FIELDS = tuple(get_type_hints(Known))  # all but the earlier states and the checksums
PAYLOAD_FIELDS = tuple(get_type_hints(Payload))
WRITTEN_FIELDS = (*KNOWN_FIELDS, "before")
"""What a new example has before it gets its checksums."""
FORMAT_4_HAS: dict[str, Any] = {"background": []}
"""What a payload of format 4 does not say."""
_PAYLOAD: TypeAdapter[Any] = TypeAdapter(Payload)


def check_payload(data: dict[str, Any], fields: Sequence[str] = PAYLOAD_FIELDS) -> dict[str, Any]:
    """The known fields of a stored payload; others are left out.

    Raises:
        ValueError: one of ``fields`` is missing, or a field is not as the schema has it.
    """
    if set(FORMAT_4_HAS) <= set(fields):
        data = {**FORMAT_4_HAS, **data}
    for name in fields:
        if name not in data:
            raise ValueError(f"it has no {name}")
    known = manifests.validate(_PAYLOAD, data)
    if "bbox" in known:
        x, y, width, height = known["bbox"]
        if known.get("area", 1) > width * height:
            raise ValueError(f"its area is {known['area']} pixels in a box of {width}x{height}")
        size = known.get("segmentation", {}).get("size", (MAX_RLE_PIXELS, MAX_RLE_PIXELS))
        if y + height > size[0] or x + width > size[1]:
            raise ValueError("its bbox is outside of its picture")
    return known


def check_point(point: Point, fields: Sequence[str] = PAYLOAD_FIELDS) -> Point:
    """The point with the known fields of its payload, as far as it was read.

    With :data:`LISTED_FIELDS` these are compared with their checksum, with :data:`NAMING_FIELDS`
    and the vector those, and with the whole payload and the vector all.

    Raises:
        ValueError: it breaks the schema, or is not what was stored.
    """
    known = replace(point, payload=check_payload(point.payload, fields))
    payload = known.payload
    if "crop_webp" in payload:
        _require(payload, CROP_CHECKSUM, _of_crop(payload))
    if point.vector is not None and "surroundings" in payload:
        _require(payload, VECTOR_CHECKSUM, _of_vector(known))
    if CHECKSUM in payload:
        _require(payload, CHECKSUM, _of_all(known))
    return known


def with_checksums(point: Point) -> Point:
    """A whole point as a library stores it: with right checksums and a vector of length 1."""
    vector = None if point.vector is None else normalised(np.asarray(point.vector, np.float32))
    payload = {k: _storable(v) for k, v in point.payload.items() if k not in CHECKSUMS}
    fresh = Point(point.id, vector, payload)
    payload[VECTOR_CHECKSUM] = _of_vector(fresh)
    payload[CROP_CHECKSUM] = _of_crop(payload)
    payload[CHECKSUM] = _of_all(fresh)
    return fresh


def _require(payload: dict[str, Any], name: str, expected: str) -> None:
    if payload.get(name) != expected:
        which = {VECTOR_CHECKSUM: "its vector", CROP_CHECKSUM: "its crop"}.get(name, "it")
        raise ValueError(f"{which} is not what was stored")


def _of_vector(point: Point) -> str:
    # Adding zero makes -0.0 and 0.0 the same: not every transport keeps them apart.
    vector = b"" if point.vector is None else (np.asarray(point.vector, "<f4") + 0.0).tobytes()
    return _digest(vector, _text(point.payload.get("surroundings")))


def _of_crop(payload: dict[str, Any]) -> str:
    covered = {k: v for k, v in payload.items() if k not in NAMING_FIELDS}
    if not covered.get("background"):  # as in format 4
        covered.pop("background", None)
    return _digest(_text(covered))


def _of_all(point: Point) -> str:
    listed = {name: point.payload.get(name) for name in LISTED}
    parts = [point.payload.get(name) for name in (VECTOR_CHECKSUM, CROP_CHECKSUM)]
    return _digest(_text([point.id, listed, parts]))


def _digest(*parts: bytes) -> str:
    framed = b"".join(len(part).to_bytes(8, "little") + part for part in parts)
    return hashlib.blake2b(framed, digest_size=16).hexdigest()


def _text(value: Any) -> bytes:
    return json.dumps(value, sort_keys=True, separators=(",", ":")).encode("ascii")


def _storable(value: Any) -> Any:
    """The value with its numbers rounded; lists and dicts are copies."""
    if isinstance(value, (str, int)):  # most are
        return value
    if isinstance(value, float) and math.isfinite(value):
        return float(f"{round(value, DECIMALS):.{DIGITS}g}")
    if isinstance(value, dict):
        return {key: _storable(each) for key, each in value.items()}
    if isinstance(value, (list, tuple)):
        return [_storable(each) for each in value]
    return value


# -- what it is in memory -------------------------------------------------------------------------


@dataclass(frozen=True, eq=False)
class Example:
    """A labelled object as the library keeps it.

    Attributes:
        id: UUID made of the picture's pixels, the mask and, for a negative, the label.
        label: its name; for a negative, the name it is *not*.
        negative: polarity.
        source: where the picture came from, as it was given.
        bbox: ``[x, y, w, h]`` in pixels of the picture.
        area: pixels of the mask.
        added: when it was learnt, ISO 8601 in UTC.
        segmentation: the full-size mask, COCO RLE.
        crop: the unfaded context crop, from which any embedder can make the vector again.
        vector: ``(D,)`` float32 of length 1, or None where it was not loaded.
        picture: :attr:`~sam_detect.types.Frame.digest` of its picture; empty where it was learnt in
            format 1.
        hard_negatives: regions around it that are not it; None if nothing was proposed.
        batch: id of the learning batch it came with; empty where it was learnt before format 4.
        before: the states that this one replaced, as :mod:`~sam_detect.library.history` keeps them.
    """

    id: str
    label: str
    negative: bool
    source: str
    bbox: list[int]
    area: int
    added: str
    segmentation: MaskRLE
    crop: Crop
    vector: FloatArray | None = None
    picture: str = ""
    hard_negatives: HardNegatives | None = None
    batch: str = ""
    before: Sequence[dict[str, Any]] = ()

    def to_point(self) -> Point:
        """The point to store, with its checksums."""
        return with_checksums(Point(id=self.id, vector=self.vector, payload=self.to_payload()))

    def to_payload(self) -> dict[str, Any]:
        """The payload to store, without its checksums."""
        around = self.hard_negatives
        return {
            **{name: getattr(self, name) for name in LISTED},
            "segmentation": dict(self.segmentation),
            **{f"crop_{name}": each for name, each in _stored_crop(self.crop).items()},
            "surroundings": around.to_payload() if around else None,
            "background": [_stored_crop(each) for each in around.background] if around else [],
            "before": list(self.before),
        }

    @classmethod
    def from_point(cls, point: Point) -> Example:
        """The example of a stored point; raises ``LibraryCorruptError`` where it is damaged."""
        try:
            return cls._decoded(check_point(point))
        except (KeyError, TypeError, ValueError, OverflowError, MaskError) as error:
            why = f"it has no {error}" if isinstance(error, KeyError) else str(error)
            raise LibraryCorruptError(f"example {point.id} is damaged: {why}") from error

    @classmethod
    def _decoded(cls, point: Point) -> Example:
        data = point.payload
        if point.vector is not None:
            manifests.check_vectors(point.vector[None], [point.id], len(point.vector))
        crop = _crop_of({name: data[f"crop_{name}"] for name in get_type_hints(SmallCrop)})
        background = [_crop_of(each, most_side=BACKGROUND_SIDE) for each in data["background"]]
        around: HardNegatives | None = None
        if data["surroundings"] is not None:
            length = None if point.vector is None else len(point.vector)
            around = HardNegatives.from_payload(
                data["surroundings"], crop, dimension=length, background=background
            )
        same = {name: data[name] for name in (*LISTED, "before")}
        return cls(id=point.id, crop=crop, vector=point.vector, hard_negatives=around, **same)


def _stored_crop(crop: Crop) -> dict[str, Any]:
    return {
        "webp": encode_webp(crop.image_rgb),
        "mask": encode_crop(crop.mask).decode("ascii"),
        "scale": crop.scale,
        "window": list(crop.window_xyxy),
    }


def _crop_of(stored: dict[str, Any], *, most_side: int = MAX_CROP_SIDE) -> Crop:
    image = decode_webp(stored["webp"], most_side=most_side)
    # Decoded by our own code: pycocotools trusts what it is given, and a file is not ours.
    mask = rle_to_mask({"size": list(image.shape[:2]), "counts": stored["mask"]})
    x0, y0, x1, y1 = stored["window"]
    return Crop(image_rgb=image, mask=mask, scale=stored["scale"], window_xyxy=(x0, y0, x1, y1))


def label_of(point: Point) -> tuple[str, bool]:
    """Normalised label and polarity of a stored point; ``LibraryCorruptError`` without one."""
    label, negative = point.payload.get("label"), point.payload.get("negative")
    if not isinstance(label, str) or not label.strip() or not isinstance(negative, bool):
        raise LibraryCorruptError(f"example {point.id} is damaged: it has no label")
    return shown_label(label), negative


def example_id(*, digest: str, mask_rle: MaskRLE, label: str, negative: bool) -> str:
    """The id of an object: the same picture and mask give the same id, whatever the file's path.

    A positive's label is no part of it, so that naming an object again corrects its label.
    An object can be a negative of several labels, so there it is.
    """
    polarity = f"not {label}" if negative else ""
    return str(uuid.uuid5(ID_NAMESPACE, "\n".join([digest, mask_rle["counts"], polarity])))


def now() -> str:
    return datetime.now(timezone.utc).isoformat(timespec="seconds")
