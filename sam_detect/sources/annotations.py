"""Outlined and named objects from an annotation file."""

from __future__ import annotations

import json
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam_detect.errors import ImageError, MaskError
from sam_detect.masks import BoolArray, polygons_to_mask, rle_to_mask

MAX_ANNOTATION_BYTES = 1 << 30


@dataclass(frozen=True)
class Outline:
    """One annotated object.

    Attributes:
        label: its category's name.
        bbox_xywh: the box in pixels, or None.
        segmentation: COCO polygons (lists) or RLE (a dict), or None where only the box is known.
    """

    label: str
    bbox_xywh: tuple[float, float, float, float] | None
    segmentation: Any

    def mask(self, size_hw: tuple[int, int]) -> BoolArray | None:
        """``(H, W)`` mask, or None where only the box is known.

        Raises:
            MaskError: the outline is malformed, of another size, or has no pixel inside.
        """
        if not self.segmentation:
            if self.bbox_xywh is None:
                raise MaskError("it has neither a segmentation nor a bbox")
            return None
        if isinstance(self.segmentation, dict):
            size = self.segmentation.get("size")
            if size != list(size_hw):  # compared first: decoding an absurd size takes long
                raise MaskError(f"its mask has the size {size}, the picture {list(size_hw)}")
            mask = rle_to_mask(self.segmentation)
        else:
            mask = polygons_to_mask(self.segmentation, size_hw)
        if not mask.any():
            raise MaskError("its outline has no pixel inside the picture")
        return mask


@dataclass(frozen=True)
class AnnotatedImage:
    """A picture with its outlines: ``path`` as found, ``file_name`` as annotated."""

    path: str
    file_name: str
    outlines: tuple[Outline, ...]


def read_coco(
    file: str | Path, images: Sequence[str], *, tag: str | None = None
) -> tuple[list[AnnotatedImage], list[str]]:
    """Pairs a COCO file's annotations with pictures.

    Args:
        file: the COCO JSON file.
        images: paths of the pictures at hand; matched by the end of their path, then by name.
        tag: only annotations of this category.

    Returns:
        The annotated pictures in the file's order, and a line for each thing left out.

    Raises:
        ImageError: the file cannot be read, is not COCO, or no picture of it is at hand.
    """
    data = _read_json(Path(file))
    categories = {c["id"]: str(c["name"]) for c in data["categories"]}
    if tag is not None and tag not in categories.values():
        known = ", ".join(sorted(categories.values()))
        raise ImageError(f"{file} has no category '{tag}' (it has: {known})")
    by_image: dict[Any, list[Outline]] = defaultdict(list)
    problems: list[str] = []
    for annotation in data["annotations"]:
        category, image_id = annotation.get("category_id"), annotation.get("image_id")
        name = categories.get(category) if _is_name(category) else None
        if name is None:
            problems.append(f"annotation {annotation.get('id')}: its category is not in {file}")
        elif not _is_name(image_id):
            problems.append(f"annotation {annotation.get('id')}: its image is not in {file}")
        elif not annotation.get("iscrowd") and tag in (None, name):
            outline = _outline(annotation, name)
            if outline is None:
                problems.append(f"annotation {annotation.get('id')}: its bbox is not x, y, w, h")
            else:
                by_image[image_id].append(outline)
    by_name: dict[str, list[str]] = defaultdict(list)
    for given in images:
        by_name[Path(given).name].append(given)
    found, missing = [], []
    for image in data["images"]:
        outlines = by_image.get(image["id"], [])
        wanted = Path(str(image["file_name"]))
        path = _match(wanted, by_name.get(wanted.name, []))
        if path is not None and outlines:
            found.append(AnnotatedImage(path, str(image["file_name"]), tuple(outlines)))
        elif path is None and outlines:
            missing.append(str(image["file_name"]))
    if not found:
        raise ImageError(f"none of the annotated pictures of {file} is among those given")
    return found, problems + [f"{name}: annotated, but not among the pictures" for name in missing]


def _read_json(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_ANNOTATION_BYTES:
            raise ImageError(f"{path} is larger than {MAX_ANNOTATION_BYTES >> 20} MiB: split it")
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise ImageError(f"the annotations {path} cannot be read: {error.strerror}") from error
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{path} is not a JSON file: {error}") from error
    keys = {"images": ("id", "file_name"), "annotations": (), "categories": ("id", "name")}
    for key, needed in keys.items():
        rows = data.get(key) if isinstance(data, dict) else None
        if not isinstance(rows, list) or not all(
            isinstance(row, dict) and all(_is_name(row.get(field)) for field in needed)
            for row in rows
        ):
            raise ImageError(f"{path} is not a COCO file: it needs a list '{key}' of objects"
                             + (f" with {' and '.join(needed)}" if needed else ""))  # fmt: skip
        if needed and len({row["id"] for row in rows}) < len(rows):
            raise ImageError(f"{path} is not a COCO file: two {key} have the same id")
    return dict(data)


def _is_name(value: Any) -> bool:
    return isinstance(value, (int, str))


def _outline(annotation: dict[str, Any], label: str) -> Outline | None:
    bbox = annotation.get("bbox")
    if bbox is not None:
        try:
            x, y, w, h = (float(v) for v in bbox)
        except (TypeError, ValueError, OverflowError):
            return None
        if not all(math.isfinite(v) for v in (x, y, w, h)):
            return None
        return Outline(label, (x, y, w, h), annotation.get("segmentation"))
    return Outline(label, None, annotation.get("segmentation"))


def _match(wanted: Path, named: Sequence[str]) -> str | None:
    """Of the pictures of one name the one whose path ends like the annotated name (the shortest,
    where a folder below holds another); else the only one. Nothing where that leaves several."""
    ending = [path for path in named if Path(path).parts[-len(wanted.parts) :] == wanted.parts]
    if not ending:
        return named[0] if len(named) == 1 else None
    shortest = min(len(Path(path).parts) for path in ending)
    nearest = [path for path in ending if len(Path(path).parts) == shortest]
    return nearest[0] if len(nearest) == 1 else None
