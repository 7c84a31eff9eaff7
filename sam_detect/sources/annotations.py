"""Outlined and named objects from an annotation file."""

from __future__ import annotations

import json
import math
import stat
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sam_detect.errors import ImageError, MaskError
from sam_detect.masks import (
    BoolArray,
    MaskRLE,
    checked_rle,
    polygons_to_rle,
    rle_box_xywh,
    rle_to_mask,
)

MAX_ANNOTATION_BYTES = 1 << 30

Id = int | str


@dataclass(frozen=True)
class Outline:
    """One annotated object.

    Attributes:
        label: its category's name.
        bbox_xywh: the box in pixels, or None.
        segmentation: COCO polygons (lists) or RLE (a dict), or None where only the box is known.
        id: the annotation's, whatever the file gives there.
        category_id: its category's.
        crowd: a region of many objects, not one.
        track_id: of a video: the object's, the same in all frames, whatever the file gives there.
    """

    label: str
    bbox_xywh: tuple[float, float, float, float] | None
    segmentation: Any
    id: Any = None
    category_id: Id = 0
    crowd: bool = False
    track_id: Any = None

    def mask(self, size_hw: tuple[int, int]) -> BoolArray | None:
        """``(H, W)`` mask of :meth:`rle`."""
        rle = self.rle(size_hw)
        return None if rle is None else rle_to_mask(rle)

    def rle(self, size_hw: tuple[int, int]) -> MaskRLE | None:
        """Full-size COCO RLE, or None where only the box is known.

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
            rle = checked_rle(self.segmentation)
        else:
            rle = polygons_to_rle(self.segmentation, size_hw)
        if rle_box_xywh(rle) is None:
            raise MaskError("its outline has no pixel inside the picture")
        return rle


@dataclass(frozen=True)
class CocoFile:
    """What a COCO file says, of which every object has a picture and a category that are in it.

    Attributes:
        categories: id to name, in the file's order.
        images: the rows of ``images``, each with ``id`` and ``file_name``, in the file's order.
        outlines: the objects by the id of their picture, in the file's order.
        problems: a line for each annotation left out.
    """

    categories: dict[Id, str]
    images: tuple[dict[str, Any], ...]
    outlines: dict[Id, list[Outline]]
    problems: tuple[str, ...]


@dataclass(frozen=True)
class AnnotatedImage:
    """A picture with its outlines: ``path`` as found, ``file_name`` as annotated."""

    path: str
    file_name: str
    outlines: tuple[Outline, ...]


def read_coco(
    file: str | Path, images: Sequence[str], *, tag: str | None = None
) -> tuple[list[AnnotatedImage], list[str]]:
    """Pairs a COCO file's annotations with pictures; leaves out crowds.

    Args:
        file: the COCO JSON file.
        images: paths of the pictures at hand; matched by the end of their path, then by name.
        tag: only annotations of this category.

    Returns:
        The annotated pictures in the file's order, and a line for each thing left out.

    Raises:
        ImageError: the file cannot be read, is not COCO, or no picture of it is at hand.
    """
    coco = load_coco(file, tag=tag)
    paths = match_pictures((str(image["file_name"]) for image in coco.images), images)
    found, missing = [], []
    for image, path in zip(coco.images, paths, strict=True):
        outlines = tuple(o for o in coco.outlines.get(image["id"], ()) if not o.crowd)
        if path is not None and outlines:
            found.append(AnnotatedImage(path, str(image["file_name"]), outlines))
        elif outlines:
            missing.append(f"{image['file_name']}: annotated, but not among the pictures")
    if not found:
        raise ImageError(f"none of the annotated pictures of {file} is among those given")
    return found, [*coco.problems, *missing]


def load_coco(file: str | Path, *, tag: str | None = None) -> CocoFile:
    """Reads a COCO file. Outlines are checked when they are drawn, by :meth:`Outline.rle`.

    Args:
        file: the COCO JSON file.
        tag: only annotations of this category.

    Raises:
        ImageError: the file cannot be read, is not COCO, or has no category ``tag``.
    """
    data = _read_json(Path(file))
    categories = {c["id"]: str(c["name"]) for c in data["categories"]}
    if tag is not None and tag not in categories.values():
        known = ", ".join(sorted(categories.values()))
        raise ImageError(f"{file} has no category '{tag}' (it has: {known})")
    images = {image["id"] for image in data["images"]}
    outlines: dict[Id, list[Outline]] = defaultdict(list)
    problems: list[str] = []
    for annotation in data["annotations"]:
        category, image_id = annotation.get("category_id"), annotation.get("image_id")
        name = categories.get(category) if is_id(category) else None
        if name is None:
            problems.append(f"annotation {annotation.get('id')}: its category is not in {file}")
        elif not is_id(image_id) or image_id not in images:
            problems.append(f"annotation {annotation.get('id')}: its image is not in {file}")
        elif tag in (None, name):
            outline = _outline(annotation, name)
            if outline is None:
                problems.append(f"annotation {annotation.get('id')}: its bbox is not x, y, w, h")
            else:
                outlines[image_id].append(outline)
    return CocoFile(categories, tuple(data["images"]), dict(outlines), tuple(problems))


def match_pictures(wanted: Iterable[str], images: Iterable[str]) -> list[str | None]:
    """For each annotated name the picture that it means, among those at hand, or None.

    That is the picture whose path ends like the name, else the only one of that file name. No
    file is opened or looked for by an annotated name itself, so that it cannot lead elsewhere.
    """
    by_name: dict[str, list[str]] = defaultdict(list)
    for given in images:
        by_name[Path(given).name].append(given)
    names = [Path(name) for name in wanted]
    return [_match(name, by_name.get(name.name, [])) for name in names]


def read_text(path: Path, kind: str) -> str:
    """A text file of annotations; ``kind`` says in errors what it should be.

    Raises:
        ImageError: it cannot be read, is too large, or is no UTF-8 text.
    """
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe or device may never end
            raise ImageError(f"the annotations {path} cannot be read: this is not a file")
        if found.st_size > MAX_ANNOTATION_BYTES:
            raise ImageError(f"{path} is larger than {MAX_ANNOTATION_BYTES >> 20} MiB: split it")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise ImageError(f"the annotations {path} cannot be read: {error.strerror}") from error
    except ValueError as error:
        raise ImageError(f"{path} is not {kind}: {error}") from error


def is_id(value: Any) -> bool:
    """Whether a file's value can be an id or a name."""
    return isinstance(value, (int, str))


def _read_json(path: Path) -> dict[str, Any]:
    try:
        data = json.loads(read_text(path, "a JSON file"))
    except (ValueError, RecursionError, MemoryError) as error:
        raise ImageError(f"{path} is not a JSON file: {error}") from error
    keys = {"images": ("id", "file_name"), "annotations": (), "categories": ("id", "name")}
    for key, needed in keys.items():
        rows = data.get(key) if isinstance(data, dict) else None
        if not isinstance(rows, list) or not all(
            isinstance(row, dict) and all(is_id(row.get(field)) for field in needed) for row in rows
        ):
            raise ImageError(f"{path} is not a COCO file: it needs a list '{key}' of objects"
                             + (f" with {' and '.join(needed)}" if needed else ""))  # fmt: skip
        if needed and len({row["id"] for row in rows}) < len(rows):
            raise ImageError(f"{path} is not a COCO file: two {key} have the same id")
    return dict(data)


def _outline(annotation: dict[str, Any], label: str) -> Outline | None:
    bbox = annotation.get("bbox")
    box = None
    if bbox is not None:
        try:
            x, y, w, h = (float(v) for v in bbox)
        except (TypeError, ValueError, OverflowError):
            return None
        if not all(math.isfinite(v) for v in (x, y, w, h)):
            return None
        box = x, y, w, h
    return Outline(
        label,
        box,
        annotation.get("segmentation"),
        id=annotation.get("id"),
        category_id=annotation["category_id"],
        crowd=bool(annotation.get("iscrowd")),
        track_id=annotation.get("track_id"),
    )


def _match(wanted: Path, named: Sequence[str]) -> str | None:
    """Of the pictures of one name the one whose path ends like the annotated name (the shortest,
    where a folder below holds another); else the only one. Nothing where that leaves several."""
    ending = [path for path in named if Path(path).parts[-len(wanted.parts) :] == wanted.parts]
    if not ending:
        return named[0] if len(named) == 1 else None
    shortest = min(len(Path(path).parts) for path in ending)
    nearest = [path for path in ending if len(Path(path).parts) == shortest]
    return nearest[0] if len(nearest) == 1 else None
