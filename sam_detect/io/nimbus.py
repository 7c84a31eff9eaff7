"""NimbusImage's JSON: what it exports and imports of a dataset.

Its coordinates have pixel ``i`` cover ``[i, i + 1]``: the centre of column 3 is x = 3.5. A polygon
has neither holes nor parts, so these are joined by lines that lead there and back, and turn the
other way round: the same pixels are inside, and the area is right.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from sam_detect.errors import ImageError, MaskError
from sam_detect.io.annotation_values import (
    checked_location,
    checked_point,
    checked_properties,
    checked_tags,
    content_id,
    polygons_of,
    rounded,
    short,
    to_json_bytes,
    turned,
)
from sam_detect.types import AnnotatedImage, Annotation
from sam_detect.types.polygons import checked_ring, join_rings

KEPT = ("channel", "color", "datasetId", "name")
LISTS = ("annotationConnections", "annotationProperties")
ID_DIGITS = 24
BLOB = "blob"
"""A polygon by another name, which newer servers give what programs have drawn."""
OWN = "sam-detect"
"""The property whose values are an object's numbers by their own names."""


def encode(image: AnnotatedImage) -> bytes:
    """The objects, their properties and connections."""
    objects = [to_object(each, number) for number, each in enumerate(image.outlines)]
    names = sorted({name for each in image.outlines for name in each.properties})
    given = [p for p in image.references.get("annotationProperties", ()) if isinstance(p, Mapping)]
    ids = {str(each.get("name")): str(_id(each)) for each in given}
    added = [_property(name) for name in names if name not in ids]
    ids |= {each["name"]: each["id"] for each in added}
    values = {
        made["_id"]: {ids[name]: value for name, value in each.properties.items()}
        for made, each in zip(objects, image.outlines, strict=True)
        if each.properties
    }
    return to_json_bytes({
        "annotations": objects,
        "annotationConnections": list(image.references.get("annotationConnections", ())),
        "annotationProperties": [*map(dict, given), *added],
        "annotationPropertyValues": values,
    })  # fmt: skip


def is_nimbus(data: Any) -> bool:
    """Whether parsed JSON is an export of NimbusImage."""
    if not isinstance(data, Mapping) or not isinstance(data.get("annotations"), list):
        return False
    first = next(iter(data["annotations"]), None)
    return any(key in data for key in LISTS) or (
        isinstance(first, Mapping) and "coordinates" in first and "shape" in first
    )


def decode(data: Mapping[str, Any], problems: list[str]) -> list[AnnotatedImage]:
    """Parsed JSON as one picture without a name."""
    names = {}
    for each in data.get("annotationProperties") or ():
        if isinstance(each, Mapping) and isinstance(each.get("name"), str):
            names[str(_id(each))] = each["name"]
    by_id = data.get("annotationPropertyValues")
    values = by_id if isinstance(by_id, Mapping) else {}
    if not isinstance(data.get("annotations"), list):
        raise ImageError("it is no NimbusImage file: 'annotations' must be a list")
    outlines = []
    for number, each in enumerate(data["annotations"], start=1):
        try:
            outlines.append(to_annotation(each, names, values))
        except MaskError as error:
            problems.append(f"annotation {own_id(each, number)}: {error}")
    kept = {key: data[key] for key in LISTS if isinstance(data.get(key), list)}
    return [AnnotatedImage("", "", tuple(outlines), references=kept)]


def to_object(annotation: Annotation, number: int) -> dict[str, Any]:
    """One object as the server takes it."""
    xy, z, t = annotation.location or (0, 0, 0)
    made: dict[str, Any] = {
        "tags": list(annotation.tags), "shape": "polygon", "channel": 0,
        "location": {"XY": xy, "Z": z, "Time": t}, "coordinates": [], "datasetId": "",
    }  # fmt: skip
    made |= {key: annotation.references[key] for key in KEPT if key in annotation.references}
    polygons = polygons_of(annotation)
    if annotation.references.get("shape") == BLOB:
        made["shape"] = BLOB
    if polygons:
        rings = [
            turned(ring, clockwise=index > 0)
            for each in polygons
            for index, ring in enumerate(each)
        ]
        points = rounded(join_rings(rings))
    else:
        made["shape"] = "point"
        points = [list(annotation.point_xy or (0.0, 0.0))]
    made["coordinates"] = [{"x": x, "y": y, "z": z} for x, y in points]
    given = annotation.id if isinstance(annotation.id, str) and annotation.id else None
    made["_id"] = made["id"] = given or content_id(annotation, number, ID_DIGITS)
    return made


def to_annotation(given: Any, names: Mapping[str, str], values: Mapping[str, Any]) -> Annotation:
    """One object of the server; raises ``MaskError`` that says why it cannot be used.

    Args:
        given: the object.
        names: of its properties, by their ids.
        values: of the properties, by the objects' ids and their own.
    """
    if not isinstance(given, Mapping):
        raise MaskError(f"it must be an object, got {short(given)}")
    place, corners = given.get("location"), given.get("coordinates")
    if not isinstance(corners, list) or not corners:
        raise MaskError("it has no coordinates")
    try:
        points = [(float(corner["x"]), float(corner["y"])) for corner in corners]
    except (KeyError, TypeError, ValueError, OverflowError) as error:
        raise MaskError("its coordinates are not objects with x and y") from error
    plane = place if isinstance(place, Mapping) else {}
    own = values.get(str(_id(given)))
    measured: dict[str, Any] = {}
    for key, value in own.items() if isinstance(own, Mapping) else ():
        name = names.get(str(key), str(key))
        if isinstance(value, Mapping):  # a worker's several values
            prefix = "" if name == OWN else f"{name} / "
            measured |= {f"{prefix}{part}": each for part, each in value.items()}
        else:
            measured[name] = value
    shape = given.get("shape")
    if shape not in ("polygon", "rectangle", "point", BLOB):
        raise MaskError(f"a {short(shape)} outlines no object")
    return Annotation(
        tags=checked_tags(given.get("tags")),
        polygons=() if shape == "point" else ((checked_ring(np.array(points)),),),
        point_xy=checked_point(points[0]) if shape == "point" else None,
        location=checked_location(plane.get("XY", 0), plane.get("Z", 0), plane.get("Time", 0)),
        properties=checked_properties(measured),
        id=_id(given),
        references={key: given[key] for key in KEPT if key in given}
        | ({"shape": BLOB} if shape == BLOB else {}),
    )


def own_id(row: Any, number: int) -> str:
    """What an annotation is called in messages: by its own id, else by its place in the list."""
    given = _id(row) if isinstance(row, Mapping) else None
    return short(given) if isinstance(given, (str, int)) and given else str(number)


def _id(row: Mapping[str, Any]) -> Any:
    return row.get("_id", row.get("id"))


def _property(name: str) -> dict[str, Any]:
    number = hashlib.sha256(name.encode("utf-8", "replace")).hexdigest()[:ID_DIGITS]
    return {
        "_id": number, "id": number, "name": name, "image": "properties/none:latest",
        "shape": "polygon", "tags": {"tags": [], "exclusive": False}, "workerInterface": {},
    }  # fmt: skip
