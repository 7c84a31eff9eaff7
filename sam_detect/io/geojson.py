"""GeoJSON as QuPath writes and reads it (0.3 to 0.6): a feature for each object.

QuPath's pixel ``i`` covers ``[i, i + 1]``. Holes are rings of their polygon, parts are those of a
``MultiPolygon``. Numbers are ``measurements``, texts ``metadata``, and the plane of a stack is
``geometry.plane``. Tags beyond the first are ``properties.tags``, which QuPath leaves alone.
"""

from __future__ import annotations

import uuid
from collections.abc import Iterator, Mapping
from typing import Any

from sam_detect.errors import ImageError, MaskError
from sam_detect.io.annotation_values import (
    checked_location,
    checked_point,
    checked_properties,
    checked_tags,
    content_id,
    label_colour,
    polygons_of,
    rounded,
    short,
    to_json_bytes,
    turned,
)
from sam_detect.types import AnnotatedImage, Annotation
from sam_detect.types.polygons import Polygon, checked_ring

KEPT = ("objectType", "name", "isLocked", "color")
MAX_DEPTH = 20
"""Of features in features, which QuPath's cells have."""


def encode(image: AnnotatedImage) -> bytes:
    """A ``FeatureCollection``; an object of which only a point is known is a ``Point``."""
    features = [_feature(each, number) for number, each in enumerate(image.outlines)]
    return to_json_bytes({"type": "FeatureCollection", "features": features})


def is_geojson(data: Any) -> bool:
    """Whether parsed JSON is a collection, a feature, or a plain list of features."""
    if isinstance(data, list):
        return bool(data) and isinstance(data[0], dict) and data[0].get("type") == "Feature"
    return isinstance(data, dict) and data.get("type") in ("FeatureCollection", "Feature")


def decode(data: Any, problems: list[str]) -> list[AnnotatedImage]:
    """Parsed JSON as one picture without a name."""
    outlines = []
    for number, feature in enumerate(_features(data), start=1):
        try:
            outlines.append(_annotation(feature))
        except MaskError as error:
            problems.append(f"feature {number}: {error}")
    return [AnnotatedImage("", "", tuple(outlines))]


def _feature(annotation: Annotation, number: int) -> dict[str, Any]:
    properties: dict[str, Any] = {"objectType": "annotation", "isLocked": False}
    properties |= {k: v for k, v in annotation.references.items() if k in KEPT}
    if annotation.tags:
        label = annotation.tags[0]
        colour = annotation.references.get("class_color") or list(label_colour(label))
        properties["classification"] = {"name": label, "color": colour}
    if len(annotation.tags) > 1:
        properties["tags"] = list(annotation.tags)
    texts = {k: v for k, v in annotation.properties.items() if isinstance(v, str)}
    numbers = {k: v for k, v in annotation.properties.items() if k not in texts}
    properties |= {"measurements": numbers} if numbers else {}
    properties |= {"metadata": texts} if texts else {}
    geometry = _geometry(annotation)
    if annotation.location is not None:
        _, z, t = annotation.location
        geometry["plane"] = {"c": -1, "z": z, "t": t}
    given = annotation.id
    if not isinstance(given, str):
        given = str(uuid.UUID(content_id(annotation, number, 32)))
    return {"type": "Feature", "id": given, "geometry": geometry, "properties": properties}


def _geometry(annotation: Annotation) -> dict[str, Any]:
    if not annotation.is_outlined and annotation.point_xy is not None:
        return {"type": "Point", "coordinates": list(annotation.point_xy)}
    parts = [_closed(polygon) for polygon in polygons_of(annotation)]
    if len(parts) == 1:
        return {"type": "Polygon", "coordinates": parts[0]}
    return {"type": "MultiPolygon", "coordinates": parts}


def _closed(polygon: Polygon) -> list[list[list[float]]]:
    rings = [rounded(turned(ring, clockwise=index > 0)) for index, ring in enumerate(polygon)]
    return [[*ring, ring[0]] for ring in rings]


def _features(data: Any, depth: int = 0) -> Iterator[Any]:
    """The features of a collection, of a list, or one alone."""
    if isinstance(data, list):
        for each in data:
            if isinstance(each, Mapping) and each.get("type") == "FeatureCollection":
                yield from _features(each, depth + 1)
            else:
                yield each
    elif isinstance(data, Mapping) and "features" in data:
        if not isinstance(data["features"], list):
            raise ImageError("it is no GeoJSON: 'features' must be a list")
        if depth > MAX_DEPTH:
            raise ImageError(f"it is no GeoJSON: collections in more than {MAX_DEPTH} others")
        yield from _features(data["features"], depth + 1)
    else:
        yield data


def _annotation(feature: Any) -> Annotation:
    """Raises ``MaskError`` that says why the feature cannot be used."""
    if not isinstance(feature, Mapping):
        raise MaskError(f"it must be an object, got {short(feature)}")
    geometry, properties = feature.get("geometry"), feature.get("properties")
    if not isinstance(geometry, Mapping):
        raise MaskError("it has no geometry")
    properties = properties if isinstance(properties, Mapping) else {}
    kind, coordinates = geometry.get("type"), geometry.get("coordinates")
    polygons: tuple[Polygon, ...] = ()
    point = None
    if kind == "Polygon":
        polygons = (_polygon(coordinates),)
    elif kind == "MultiPolygon" and isinstance(coordinates, list) and coordinates:
        polygons = tuple(_polygon(each) for each in coordinates)
    elif kind == "Point":
        point = checked_point(coordinates)
    else:
        raise MaskError(f"its geometry must be a Polygon, MultiPolygon or Point, got {short(kind)}")
    plane = geometry.get("plane")
    location = None
    if isinstance(plane, Mapping):
        location = checked_location(0, plane.get("z", 0), plane.get("t", 0))
    measured = properties.get("measurements")
    if isinstance(measured, list):  # QuPath 0.3
        measured = {
            each.get("name"): each.get("value") for each in measured if isinstance(each, Mapping)
        }
    references = {key: properties[key] for key in KEPT if key in properties}
    classified = properties.get("classification")
    if isinstance(classified, Mapping) and "color" in classified:
        references["class_color"] = classified["color"]
    return Annotation(
        tags=_tags(properties, classified),
        polygons=polygons,
        point_xy=point,
        location=location,
        properties=checked_properties(measured) | checked_properties(properties.get("metadata")),
        id=feature.get("id"),
        references=references,
    )


def _tags(properties: Mapping[str, Any], classified: Any) -> tuple[str, ...]:
    """Its tags; else its class, which QuPath 0.5 gives as ``names``."""
    if properties.get("tags"):
        return checked_tags(properties["tags"])
    if isinstance(classified, Mapping):
        return checked_tags(classified.get("names") or classified.get("name") or ())
    return checked_tags(classified) if isinstance(classified, str) else ()


def _polygon(rings: Any) -> Polygon:
    if not isinstance(rings, list) or not rings:
        raise MaskError("its polygon must be a list of rings")
    return tuple(checked_ring(ring) for ring in rings)
