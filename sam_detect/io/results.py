"""sam-detect's own results (``detect --json``), read as annotations."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from sam_detect.errors import MaskError
from sam_detect.io.annotation_values import checked_properties, checked_tags, short
from sam_detect.types import AnnotatedImage, Annotation
from sam_detect.types.annotations import checked_size

PROPERTIES = ("confidence", "area", "score")


def is_results(data: Any) -> bool:
    """Whether parsed JSON is the results of a picture, or a list of several."""
    first = data[0] if isinstance(data, list) and data else data
    return isinstance(first, Mapping) and "image" in first and "detections" in first


def decode(data: Any, problems: list[str]) -> list[AnnotatedImage]:
    """Parsed JSON as the pictures that it names."""
    images = []
    for row in data if isinstance(data, list) else [data]:
        found = row.get("detections") if isinstance(row, Mapping) else None
        if not isinstance(found, list) or not isinstance(row.get("image"), str):
            problems.append(f"not the results of a picture: {short(row)}")
            continue
        outlines = []
        for number, each in enumerate(found, start=1):
            try:
                outlines.append(_annotation(each))
            except MaskError as error:
                problems.append(f"{short(row['image'])}: detection {number}: {error}")
        size_hw = checked_size(row.get("height"), row.get("width"))
        images.append(AnnotatedImage("", row["image"], tuple(outlines), size_hw))
    return images


def _annotation(row: Any) -> Annotation:
    if not isinstance(row, Mapping) or not isinstance(row.get("segmentation"), Mapping):
        raise MaskError(f"it has no segmentation: {short(row)}")
    return Annotation(
        tags=checked_tags(row.get("label")),
        mask_rle=row["segmentation"],
        properties=checked_properties({key: row.get(key) for key in PROPERTIES}),
    )
