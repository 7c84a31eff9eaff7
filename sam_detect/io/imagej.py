"""ImageJ's regions of interest: a zip of ``.roi`` files, or one of them; by ``roifile``.

Outlines lie on the edges of pixels, with sub-pixel coordinates. An object with holes or of several
parts is a composite. The name is the label with a number; tags, id and properties are the region's
properties, as JSON. The plane of a stack is the region's position (C is not set).
"""

from __future__ import annotations

import io
import json
import math
import re
import zipfile
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from sam_detect.errors import ImageError, MaskError, one_line
from sam_detect.io.annotation_values import (
    box_polygon,
    checked_properties,
    checked_tags,
    polygons_of,
)
from sam_detect.types import AnnotatedImage, Annotation
from sam_detect.types.polygons import Polygon, Ring, checked_ring, nested

UNTAGGED = "unknown"
MAX_NAME = 60
MAX_ROIS = 2_000_000
MAX_ROI_BYTES = 1 << 28
MAX_ZIP_BYTES = 1 << 30
"""Unpacked, all regions together."""
ROI_MAGIC, ZIP_MAGIC = b"Iout", b"PK"
ELLIPSE_CORNERS = 64
NO_LABEL = re.compile(r"[\d\s._-]*|[A-Z]\d+-C\d+", re.ASCII)
"""Names that programs make up: ``0012-0034``, ``F01-C7``."""
NUMBER = re.compile(r"[-_ ]\d+$", re.ASCII)
CLOSED = {"POLYGON", "FREEHAND", "TRACED"}


def encode(image: AnnotatedImage) -> bytes:
    """A zip with a region for each object, all with names of their own."""
    data = io.BytesIO()
    counts: Counter[str] = Counter()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for annotation in image.outlines:
            label = _plain(annotation.tags[0] if annotation.tags else UNTAGGED)
            counts[label.casefold()] += 1  # some file systems ignore case
            name = f"{label}-{counts[label.casefold()]}"
            entry = zipfile.ZipInfo(f"{name}.roi", (1980, 1, 1, 0, 0, 0))
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, _roi(annotation, name))
    return data.getvalue()


def decode(data: bytes, problems: list[str]) -> list[AnnotatedImage]:
    """The regions of a file as one picture without a name."""
    outlines: list[Annotation] = []
    for name, content in _entries(data, problems):
        try:
            outlines += _annotations(content)
        except MaskError as error:
            problems.append(f"{name}: {error}")
    return [AnnotatedImage("", "", tuple(outlines))]


def _plain(label: str) -> str:
    """A label as a part of a file name, in characters that ImageJ counts as one."""
    kept = (c if c.isprintable() and c not in '<>:"|?*\\/' and c < "\ud800" else "_" for c in label)
    return "".join(kept).strip(" .")[:MAX_NAME] or UNTAGGED


def _roi(annotation: Annotation, name: str) -> bytes:
    import roifile

    polygons = polygons_of(annotation)
    if not polygons:
        x, y = annotation.point_xy or (0.0, 0.0)
        roi = roifile.ImagejRoi.frompoints(np.array([[x, y]], np.float32), name=name)
        roi.roitype = roifile.ROI_TYPE.POINT
    elif len(polygons) == 1 and len(polygons[0]) == 1:
        roi = roifile.ImagejRoi.frompoints(polygons[0][0].astype(np.float32), name=name)
    else:
        roi = _composite(polygons, name)
    if annotation.location is not None:
        _, z, t = annotation.location
        roi.z_position, roi.t_position = z + 1, t + 1
    facts = dict(annotation.properties) | {"tags": list(annotation.tags)}
    if annotation.id is not None:
        facts["id"] = annotation.id
    lines = (
        (re.sub(r"[^\x20-\x7e]|:", "_", key), json.dumps(value)) for key, value in facts.items()
    )
    roi.props = "".join(f"{key}: {value}\n" for key, value in lines)
    content: bytes = roi.tobytes()
    return content


def _composite(polygons: tuple[Polygon, ...], name: str) -> Any:
    import roifile

    rings = [ring for polygon in polygons for ring in polygon]
    path: list[float] = []
    for ring in rings:
        operations = np.concatenate([np.ones((len(ring), 1)), ring], axis=1)
        operations[0, 0] = 0  # move there; lines to the others; 4 closes
        path += [*operations.ravel().tolist(), 4.0]
    points = np.concatenate(rings)
    (x0, y0), (x1, y1) = np.floor(points.min(axis=0)), np.ceil(points.max(axis=0))
    roi = roifile.ImagejRoi()
    roi.roitype = roifile.ROI_TYPE.RECT
    roi.name = name
    roi.left, roi.top, roi.right, roi.bottom = int(x0), int(y0), int(x1), int(y1)
    roi.multi_coordinates = np.array(path, np.float32)
    roi.shape_roi_size = len(path)
    return roi


def _entries(data: bytes, problems: list[str]) -> Iterator[tuple[str, bytes]]:
    """The regions by name, within limits; of two of one name the later one."""
    if not data.startswith(ZIP_MAGIC):
        yield "the region", data
        return
    try:
        archive = zipfile.ZipFile(io.BytesIO(data))
    except Exception as error:  # of a damaged file the module may raise nearly anything
        raise ImageError(f"it is no zip file that can be read: {one_line(error)}") from error
    with archive:
        found = [info for info in archive.infolist() if info.filename.lower().endswith(".roi")]
        if not found and archive.infolist():
            raise ImageError("it is a zip file without an ImageJ region (.roi): unpack it, and "
                             "name what is in it")  # fmt: skip
        if len(found) > MAX_ROIS or sum(info.file_size for info in found) > MAX_ZIP_BYTES:
            raise ImageError(f"its regions are larger than {MAX_ZIP_BYTES >> 20} MiB: split it")
        by_name = {info.filename: info for info in found}
        if len(by_name) < len(found):
            problems.append(
                f"{len(found) - len(by_name)} regions have the name of a later one: left out"
            )
        for info in by_name.values():
            try:
                with archive.open(info) as file:
                    content = file.read(MAX_ROI_BYTES + 1)
            except Exception as error:  # zlib.error, struct.error, NotImplementedError, ...
                problems.append(f"{info.filename}: it cannot be unpacked: {one_line(error)}")
                continue
            yield info.filename, content


def _annotations(content: bytes) -> list[Annotation]:
    """The object of a region, or one for each of its points; raises ``MaskError``."""
    import roifile

    if len(content) > MAX_ROI_BYTES:
        raise MaskError(f"it is larger than {MAX_ROI_BYTES >> 20} MiB")
    try:
        roi: Any = roifile.ImagejRoi.frombytes(content)
        rings = [np.asarray(each, np.float64) for each in roi.coordinates(multi=True)]
    except Exception as error:  # of a damaged file the parser may raise anything
        raise MaskError(f"it is no ImageJ region that can be read: {error}") from error
    facts = _facts(roi.props)
    given = facts.pop("tags", None)
    own = facts.pop("id", None)
    known: dict[str, Any] = {
        "tags": checked_tags(given if isinstance(given, list) else _label_of(roi.name)),
        "location": _location(roi),
        "id": own if isinstance(own, (int, str)) else None,
        "properties": checked_properties(facts),
    }
    kind = roi.roitype.name
    if kind == "POINT":
        points = np.concatenate(rings)
        if not np.isfinite(points).all():
            raise MaskError("its points are not usable numbers")
        return [Annotation(point_xy=(x, y), **known) for x, y in points.tolist()]
    return [Annotation(polygons=_polygons(roi, kind, rings), **known)]


def _polygons(roi: Any, kind: str, rings: list[Ring]) -> tuple[Polygon, ...]:
    if roi.subtype.name in ("TEXT", "IMAGE"):
        raise MaskError(f"a region of the type {roi.subtype.name} outlines no object")
    if roi.composite:
        return tuple(nested([checked_ring(ring) for ring in rings if len(ring) >= 3]))
    if kind in CLOSED and len(rings) == 1:
        return ((checked_ring(rings[0]),),)
    if kind not in ("RECT", "OVAL"):
        raise MaskError(f"a region of the type {kind} outlines no object")
    x0, y0, x1, y1 = roi.left, roi.top, roi.right, roi.bottom
    if roi.subpixelrect:
        x0, y0, x1, y1 = roi.xd, roi.yd, roi.xd + roi.widthd, roi.yd + roi.heightd
    box = box_polygon(x0, y0, x1, y1)
    if kind == "RECT":
        return (box,)
    turns = np.linspace(0, 2 * math.pi, ELLIPSE_CORNERS, endpoint=False)
    radii, centre = np.array([x1 - x0, y1 - y0]) / 2, np.array([x0 + x1, y0 + y1]) / 2
    return ((centre + radii * np.stack([np.cos(turns), np.sin(turns)], axis=1),),)


def _facts(properties: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for line in properties.splitlines():
        key, colon, text = line.partition(":")
        try:
            found[key.strip()] = json.loads(text) if colon else text
        except (ValueError, RecursionError):
            found[key.strip()] = text.strip()
    return found


def _label_of(name: str) -> list[str]:
    """A region's name without its number; none where a program made it up."""
    stem = name[:-4] if name.lower().endswith(".roi") else name
    return [] if NO_LABEL.fullmatch(stem) else [NUMBER.sub("", stem)]


def _location(roi: Any) -> tuple[int, int, int] | None:
    """Its plane from 0; a plain stack's position counts as Z."""
    z, t = int(roi.z_position or roi.position), int(roi.t_position)
    return None if z <= 0 and t <= 0 else (0, max(0, z - 1), max(0, t - 1))
