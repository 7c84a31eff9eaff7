"""The examples of a library as annotations of their pictures, in the formats of detections."""

from __future__ import annotations

import os
import zipfile
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from sam_detect.errors import NotFoundError
from sam_detect.io import natural_key
from sam_detect.io.files import stem_of
from sam_detect.library.example import label_of
from sam_detect.library.library import Library
from sam_detect.registry import load_class
from sam_detect.types import Classification, Detections, Frame, Masks, Point
from sam_detect.types.masks import rle_to_crop

FORMATS = {
    "coco": "annotations.json", "yolo": "yolo", "labelme": "labelme", "geojson": "geojson",
    "imagej": "imagej", "labelmap": "labelmap", "nimbus": "nimbus", "jsonl": "annotations.jsonl",
    "counts": "counts.csv",
}  # fmt: skip
"""The formats that need no pixels of the pictures, and the file or folder of each in the zip."""


def export_annotations(library: Library, name: str, folder: Path) -> Path:
    """Writes the positive examples of a library in a format, as a zip.

    Args:
        name: one of :data:`FORMATS`.
        folder: an empty one for the files.

    Returns:
        The zip, in ``folder``.

    Raises:
        NotFoundError: there is no such format.
        OutputError: the files cannot be written.
    """
    if name not in FORMATS:
        raise NotFoundError(f"there is no format '{name}': {', '.join(FORMATS)}")
    content = folder / "content"
    content.mkdir()
    # A library from elsewhere may name any file: none is copied because a library names it.
    given = {"pictures": False} if name == "yolo" else {}
    sink = load_class("format", name)(content / FORMATS[name], multiple=True, **given)
    for frame, found in annotated_pictures(library):
        sink.write(frame, found)
    sink.close()
    target = folder / f"{name}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(each for each in content.rglob("*") if each.is_file()):
            archive.write(path, path.relative_to(content).as_posix())
    return target


def annotated_pictures(library: Library) -> Iterator[tuple[Frame, Detections]]:
    """Each picture with the outlines of its positive examples, in natural order, named relative to
    the folder that all have in common. The frames are black: a library does not have the pixels.

    Different pictures of one name (all arrays are called ``array``) get the beginning of their
    digest added to it.
    """
    groups: dict[tuple[str, tuple[int, int]], list[Point]] = {}
    for point in library.listing():
        data = point.payload
        if not data["negative"]:
            height, width = data["segmentation"]["size"]
            key = data["picture"] or data["source"]
            groups.setdefault((key, (height, width)), []).append(point)
    stems = Counter(stem_of(points[0].payload["source"]) for points in groups.values())
    folders = {os.path.dirname(points[0].payload["source"]) for points in groups.values()}
    common = os.path.commonpath(folders) if all(map(os.path.isabs, folders)) and folders else ""
    ordered = sorted(groups.items(), key=lambda each: natural_key(each[1][0].payload["source"]))
    for (key, size_hw), points in ordered:
        source = points[0].payload["source"]
        source = os.path.relpath(source, common) if common else source
        if stems[stem_of(source)] > 1:
            path = Path(source)
            name = f"{stem_of(source)[:40]}-{key[:8]}{path.suffix}"
            source = str(path.parent / name)  # its own name may be empty
        yield _annotated(source, size_hw, points)


def _annotated(source: str, size_hw: tuple[int, int], points: list[Point]) -> tuple[Frame, Any]:
    outlines = [rle_to_crop(point.payload["segmentation"]) for point in points]
    masks = Masks.from_crops(
        size_hw=size_hw, boxes_xyxy=[box for box, _ in outlines], crops=[c for _, c in outlines]
    )
    labels = [label_of(point)[0] for point in points]
    said = tuple(Classification(label, label, 1.0, taught=True) for label in labels)
    black = np.broadcast_to(np.zeros(3, np.uint8), (*size_hw, 3))
    return Frame(black, source), Detections(source, masks, said)
