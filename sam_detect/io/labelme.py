"""LabelMe: a JSON file for each picture.

A polygon of LabelMe has neither holes nor parts: other objects are shapes of the type ``mask``
(LabelMe 5.3 and later), a picture of the object in its box. LabelMe keeps further keys of a shape:
``tags``, ``location``, ``properties`` and ``id`` are such. In files of others, shapes of one label
and one ``group_id`` are parts of one object.
"""

from __future__ import annotations

import base64
import binascii
import io
import math
import struct
from collections import Counter
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from PIL import Image

from sam_detect.errors import ImageError, MaskError
from sam_detect.io.annotation_values import (
    box_polygon,
    checked_location,
    checked_point,
    checked_properties,
    checked_tags,
    polygons_of,
    rounded,
    short,
    to_json_bytes,
)
from sam_detect.types import AnnotatedImage, Annotation
from sam_detect.types.annotations import checked_size
from sam_detect.types.masks import BoolArray
from sam_detect.types.polygons import checked_ring, is_rectangle, mask_polygons, polygons_to_crop

VERSION = "5.5.0"
UNTAGGED = "unknown"
MAX_MASK_PIXELS, MAX_MASK_RINGS = 1 << 26, 25_000
"""Of all masks of a file: pixels, and pieces and holes."""
CORNERED = ("polygon", "rotation", "quadrilateral", "oriented_rectangle")
"""Shapes that are their corners."""
TURNED = ("rotation", "oriented_rectangle")
"""The boxes that X-AnyLabeling and others turn."""
CIRCLE_CORNERS = 64
FAR = 10**7


def encode(image: AnnotatedImage) -> bytes:
    """The objects of one picture, which it names, but does not contain."""
    height, width = image.size_hw or (None, None)
    return to_json_bytes({
        "version": VERSION, "flags": {}, "shapes": [_shape(each) for each in image.outlines],
        "imagePath": image.file_name, "imageData": None, "imageHeight": height, "imageWidth": width,
    })  # fmt: skip


def decode(data: Mapping[str, Any], problems: list[str]) -> list[AnnotatedImage]:
    """Parsed JSON as one picture."""
    shapes, name = data.get("shapes"), data.get("imagePath")
    if not isinstance(shapes, list):
        raise ImageError("it is no LabelMe file: 'shapes' must be a list")
    outlines: list[Annotation] = []
    groups: dict[tuple[Any, ...], int] = {}
    spent = Counter[str]()
    for number, shape in enumerate(shapes, start=1):
        try:
            found = _annotation(shape, spent)
        except MaskError as error:
            problems.append(f"shape {number}: {error}")
            continue
        group = shape.get("group_id")
        key = (group, found.tags, found.location)
        if isinstance(group, int) and found.polygons and key in groups:
            first = outlines[groups[key]]
            outlines[groups[key]] = replace(first, polygons=first.polygons + found.polygons)
            continue
        if isinstance(group, int) and found.polygons:
            groups[key] = len(outlines)
        outlines.append(found)
    size_hw = checked_size(data.get("imageHeight"), data.get("imageWidth"))
    file_name = name.replace("\\", "/") if isinstance(name, str) else ""
    return [AnnotatedImage("", file_name, tuple(outlines), size_hw=size_hw)]


def _shape(annotation: Annotation) -> dict[str, Any]:
    tags = annotation.tags
    shape: dict[str, Any] = {
        "label": tags[0] if tags else UNTAGGED, "points": [], "group_id": None, "description": "",
        "shape_type": "polygon", "flags": {}, "mask": None, "tags": list(tags),
    }  # fmt: skip
    if annotation.location is not None:
        shape["location"] = list(annotation.location)
    if annotation.properties:
        shape["properties"] = dict(annotation.properties)
    if annotation.id is not None:
        shape["id"] = annotation.id
    if not annotation.is_outlined and annotation.point_xy is not None:
        return shape | {"shape_type": "point", "points": [list(annotation.point_xy)]}
    polygons = polygons_of(annotation)
    if len(polygons) == 1 and len(polygons[0]) == 1:
        return shape | {"points": rounded(polygons[0][0])}
    found = polygons_to_crop(polygons, (FAR, FAR))
    if found is None:
        raise MaskError("an object to write has no pixel")
    (x0, y0, x1, y1), crop = found
    corners = [[x0, y0], [x1 - 1, y1 - 1]]
    return shape | {"shape_type": "mask", "points": corners, "mask": _png(crop)}


def _png(crop: BoolArray) -> str:
    data = io.BytesIO()
    Image.fromarray(crop).save(data, format="PNG")
    return base64.b64encode(data.getvalue()).decode("ascii")


def _annotation(shape: Any, spent: Counter[str]) -> Annotation:
    """Raises ``MaskError`` that says why the shape cannot be used. ``spent`` counts the pixels and
    rings of the file's masks."""
    if not isinstance(shape, Mapping):
        raise MaskError(f"it must be an object, got {short(shape)}")
    points = shape.get("points")
    if not isinstance(points, list):
        raise MaskError(f"its points must be a list, got {short(points)}")
    given = shape["tags"] if isinstance(shape.get("tags"), list) else shape.get("label")
    place = shape.get("location")
    known = isinstance(place, list) and len(place) == 3
    found = Annotation(
        tags=checked_tags(given),
        location=checked_location(*place) if known and place is not None else None,
        properties=checked_properties(shape.get("properties")),
        id=shape.get("id"),
    )
    kind = shape.get("shape_type") or "polygon"
    if kind in TURNED and len(points) == 4 and is_rectangle(corners := checked_ring(points)):
        return found.turned(corners)
    if kind in CORNERED:
        return replace(found, polygons=((checked_ring(points),),))
    if kind == "rectangle" and len(points) in (2, 4):  # by all corners, as X-AnyLabeling writes it
        corners = np.array([checked_point(each) for each in points])
        (x0, y0), (x1, y1) = corners.min(axis=0).tolist(), corners.max(axis=0).tolist()
        if not (np.isclose(corners, (x0, y0)) | np.isclose(corners, (x1, y1))).all():
            if is_rectangle(corners):
                return found.turned(corners)
            return replace(found, polygons=((checked_ring(corners),),))
        box_polygon(x0, y0, x1, y1)  # raises where it has no area
        return replace(found, bbox_xywh=(x0, y0, x1 - x0, y1 - y0))
    if kind == "point" and points:
        return replace(found, point_xy=checked_point(points[0]))
    if kind not in ("circle", "mask") or len(points) < 2:
        raise MaskError(f"a {short(kind)} of {len(points)} points outlines no object")
    (x0, y0), (x1, y1) = checked_point(points[0]), checked_point(points[1])
    if kind == "mask":
        polygons = tuple(mask_polygons(*_mask(shape, (x0, y0), spent)))
        spent["rings"] += sum(map(len, polygons))
        return replace(found, polygons=polygons)
    turns = np.linspace(0, 2 * math.pi, CIRCLE_CORNERS, endpoint=False)
    circle = np.stack([np.cos(turns), np.sin(turns)], axis=1) * math.hypot(x1 - x0, y1 - y0)
    return replace(found, polygons=((checked_ring(circle + np.array([x0, y0])),),))


def _mask(
    shape: Mapping[str, Any], corner: tuple[float, float], spent: Counter[str]
) -> tuple[BoolArray, tuple[int, int, int, int]]:
    try:
        content = base64.b64decode(shape.get("mask") or "", validate=True)
        if not content.startswith(b"\x89PNG") or len(content) < 24:
            raise MaskError("its mask is no PNG picture in base64")
        width, height = struct.unpack(">II", content[16:24])  # before Pillow decodes it
        spent["pixels"] += width * height
        if spent["pixels"] > MAX_MASK_PIXELS or spent["rings"] > MAX_MASK_RINGS:
            raise MaskError(
                f"its mask of {width}x{height} pixels is too large, or all masks of the file are "
                f"(limits: {MAX_MASK_PIXELS:,} pixels, {MAX_MASK_RINGS:,} pieces and holes)"
            )
        with Image.open(io.BytesIO(content), formats=["PNG"]) as picture:
            values = np.asarray(picture.convert("L"))
            crop = values > values.max() / 2  # without soft edges
    except (binascii.Error, TypeError, ValueError, OSError, SyntaxError) as error:
        raise MaskError("its mask is no PNG picture in base64") from error
    if not crop.any():
        raise MaskError("its mask has no pixel")
    if max(abs(corner[0]), abs(corner[1])) > FAR:
        raise MaskError("its mask lies outside of every picture")
    x, y = round(corner[0]), round(corner[1])
    return np.ascontiguousarray(crop), (x, y, x + width, y + height)
