"""What the formats share: values of others checked, ids made of contents, colours of labels."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from sam_detect.errors import LibraryError, MaskError, OutputError
from sam_detect.types import Annotation, Location
from sam_detect.types.labels import normalised_label
from sam_detect.types.masks import checked_rle, rle_to_crop
from sam_detect.types.polygons import Polygon, Ring, mask_polygons

MAX_PROPERTIES = 1000
MAX_TEXT = 10_000
MAX_SHOWN = 60
MAX_PLANE = 1 << 31
DECIMALS = 3
"""Of coordinates in text: outlines keep .05 pixels away from the centres of pixels."""
PALETTE = (
    (230, 25, 75), (60, 180, 75), (0, 130, 200), (245, 130, 48), (145, 30, 180), (70, 240, 240),
    (240, 50, 230), (210, 245, 60), (250, 190, 212), (0, 128, 128), (170, 110, 40), (128, 0, 0),
)  # fmt: skip
"""Sasha Trubetskoy's distinct colours."""


def to_json_bytes(data: Any) -> bytes:
    """Strict JSON in ASCII, with one line end."""
    try:
        return json.dumps(data, allow_nan=False, separators=(",", ":")).encode("ascii") + b"\n"
    except (TypeError, ValueError, RecursionError) as error:
        raise OutputError(f"the annotations cannot be written as JSON: {error}") from error


def short(value: Any) -> str:
    """A file's value for one line: as JSON shows it, cut off."""
    try:
        text = value if isinstance(value, str) else json.dumps(value)
    except (ValueError, TypeError, RecursionError):  # an integer of thousands of digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def checked_tags(values: Any) -> tuple[str, ...]:
    """A file's names of one object as labels, each once.

    Raises:
        MaskError: one of them is no text, or cannot be a label.
    """
    if values is None:
        return ()
    if not isinstance(values, (list, tuple)):
        values = [values]
    try:
        tags = [normalised_label(each) for each in values if isinstance(each, str)]
    except LibraryError as error:
        raise MaskError(str(error)) from error
    if len(tags) < len(values):
        raise MaskError(f"its tags are not texts: {short(values)}")
    return tuple(dict.fromkeys(tags))


def checked_location(xy: Any, z: Any, t: Any) -> Location:
    """A file's plane, from 0; raises ``MaskError``."""
    plane = []
    for name, value in (("XY", xy), ("Z", z), ("T", t)):
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        if not is_number or not 0 <= value < MAX_PLANE or value != int(value):
            raise MaskError(f"its {name} must be a whole number from 0, got {short(value)}")
        plane.append(int(value))
    return plane[0], plane[1], plane[2]


def checked_properties(values: Any) -> dict[str, Any]:
    """Of a file's object those values that are finite numbers or short texts, by name."""
    if not isinstance(values, Mapping):
        return {}
    found: dict[str, Any] = {}
    for name, value in values.items():
        is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
        usable = abs(value) < 1e300 if is_number else isinstance(value, str)
        if usable and len(str(name)) <= MAX_TEXT and len(found) < MAX_PROPERTIES:
            found[str(name)] = value[:MAX_TEXT] if isinstance(value, str) else value
    return found


def checked_point(values: Any) -> tuple[float, float]:
    """A file's x, y (and perhaps z); raises ``MaskError``."""
    try:
        x, y = (float(value) for value in list(values)[:2])
    except (TypeError, ValueError, OverflowError) as error:
        raise MaskError(f"its point is not x, y: {short(values)}") from error
    if not (math.isfinite(x) and math.isfinite(y)):
        raise MaskError(f"its point is not x, y: {short(values)}")
    return x, y


def box_polygon(x0: float, y0: float, x1: float, y1: float) -> Polygon:
    """A rectangle; raises ``MaskError`` for one without area."""
    x0, x1 = sorted((x0, x1))
    y0, y1 = sorted((y0, y1))
    if not (x1 > x0 and y1 > y0 and math.isfinite(x1 - x0) and math.isfinite(y1 - y0)):
        raise MaskError("it is a box without area")
    return (np.array([(x0, y0), (x1, y0), (x1, y1), (x0, y1)], np.float64),)


def polygons_of(annotation: Annotation) -> tuple[Polygon, ...]:
    """Its outline as polygons; those of a box where only that is known; none for a point."""
    if annotation.mask_rle is not None:
        box, crop = rle_to_crop(dict(checked_rle(dict(annotation.mask_rle))))
        return tuple(mask_polygons(crop, box))
    if annotation.polygons or annotation.bbox_xywh is None:
        return annotation.polygons
    if annotation.corners_xy:
        return ((np.reshape(annotation.corners_xy, (4, 2)),),)
    x, y, w, h = annotation.bbox_xywh
    return (box_polygon(x, y, x + w, y + h),)


def turned(ring: Ring, *, clockwise: bool) -> Ring:
    """The ring in this direction, with y upwards."""
    x, y = ring.T
    area = float(x[:-1] @ y[1:] - y[:-1] @ x[1:] + x[-1] * y[0] - y[-1] * x[0])
    return ring[::-1] if (area < 0) is not clockwise else ring


def rounded(ring: Ring) -> list[list[float]]:
    points: list[list[float]] = np.round(ring, DECIMALS).tolist()
    return points


def content_id(annotation: Annotation, number: int, size: int) -> str:
    """So many hexadecimal digits, the same whenever the same objects are written."""
    digest = hashlib.sha256(repr((number, annotation.tags, annotation.location)).encode())
    for polygon in annotation.polygons:
        for ring in polygon:
            digest.update(ring.tobytes())
    digest.update(repr((annotation.mask_rle, annotation.bbox_xywh, annotation.point_xy)).encode())
    return digest.hexdigest()[:size]


def label_colour(label: str) -> tuple[int, int, int]:
    """The same colour for a label in every file."""
    return PALETTE[hashlib.sha256(label.encode("utf-8", "replace")).digest()[0] % len(PALETTE)]
