"""Annotated data, whatever format it was read from, and how readers build it: pictures and objects
are checked, and what is left out is recorded."""

from __future__ import annotations

import math
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from pathlib import Path, PurePath
from typing import Any

import numpy as np

from sam_detect.errors import ImageError, MaskError, SamDetectError, one_line
from sam_detect.io import Plane, load_image, picture_size
from sam_detect.types import Frame, Masks
from sam_detect.types.masks import MaskRLE, rle_box_xywh, rle_to_mask
from sam_detect.types.polygons import polygons_to_mask

Id = int | str


@dataclass(frozen=True)
class AnnotatedObject:
    """One annotated object, outlined or boxed.

    Attributes:
        id: the annotation's id, unique in its dataset.
        label: its category's name.
        bbox_xywh: its box in pixels, clipped to the picture.
        mask_rle: full-size COCO RLE, or None where only the box is known.
        crowd: a region of many objects, or of one that cannot be compared: neither one to find,
            nor false to find things in.
        corners_xy: ``x0, y0, ..., x3, y3`` of a turned box; empty for others.
    """

    id: Id
    label: str
    bbox_xywh: tuple[float, float, float, float]
    mask_rle: MaskRLE | None
    crowd: bool = False
    corners_xy: tuple[float, ...] = ()


@dataclass(frozen=True)
class AnnotatedPicture:
    """One picture of a dataset with its objects.

    Attributes:
        id: the image's id, unique in its dataset.
        path: where it is.
        size_hw: height and width in pixels, as the file has them.
        objects: what is annotated in it; may be empty.
        fields: what else the dataset has of it (``modality``, ``patient``), by name.
        plane: the plane of the stack at ``path`` that it is; None for a picture.
    """

    id: Id
    path: Path
    size_hw: tuple[int, int]
    objects: tuple[AnnotatedObject, ...]
    fields: dict[str, Any] = field(default_factory=dict)
    plane: Plane | None = None

    def read(self, *, max_pixels: int) -> Frame:
        """Its pixels; raises ``ImageError`` where they cannot be read."""
        if self.plane is not None:
            return self.plane.read(max_pixels=max_pixels)
        return load_image(self.path, max_pixels=max_pixels)


@dataclass(frozen=True)
class Dataset:
    """Annotated pictures.

    Attributes:
        name: for people.
        pictures: in the order of the annotation file (of file names, where there is none).
        categories: name to the id of the annotation file, of every category it names, in its order.
        problems: one line for each thing that was skipped, naming it and why.
    """

    name: str
    pictures: tuple[AnnotatedPicture, ...]
    categories: dict[str, Id]
    problems: tuple[str, ...] = ()

    def only(self, label: str) -> Dataset:
        """Only its objects with a label, and the pictures that have some.

        Raises:
            ImageError: there are none.
        """
        pictures = (
            replace(p, objects=tuple(o for o in p.objects if o.label == label))
            for p in self.pictures
        )
        found = tuple(each for each in pictures if each.objects)
        if not found:
            names = ", ".join(sorted(self.categories))
            raise ImageError(f"{self.name} has no object with the tag '{label}' (it has: {names})")
        return replace(self, pictures=found, categories={label: self.categories[label]})

    @cached_property
    def boxes_only(self) -> bool:
        """Whether any object has no outline: then boxes are compared with boxes throughout.

        Where only a few have none, a reader makes crowds of them.
        """
        objects = (o for picture in self.pictures for o in picture.objects)
        return any(o.mask_rle is None and not o.crowd for o in objects)


def masks_of(picture: AnnotatedPicture, objects: Sequence[AnnotatedObject]) -> Masks:
    """The outlines of objects of one picture; a filled box where only the box is known."""
    none = Masks.empty(picture.size_hw)
    return Masks.concatenate([none, *(_mask_of(each, picture.size_hw) for each in objects)])


def _mask_of(each: AnnotatedObject, size_hw: tuple[int, int]) -> Masks:
    if each.mask_rle is not None:
        return Masks.from_dense(rle_to_mask(each.mask_rle), size_hw=size_hw)
    if each.corners_xy:
        return Masks.from_dense(polygons_to_mask([(np.reshape(each.corners_xy, (4, 2)),)], size_hw))
    height, width = size_hw
    x, y, w, h = each.bbox_xywh
    x0, y0 = min(round(x), width - 1), min(round(y), height - 1)
    x1, y1 = min(max(round(x + w), x0 + 1), width), min(max(round(y + h), y0 + 1), height)
    filled = np.ones((y1 - y0, x1 - x0), np.bool_)
    return Masks.from_crops(size_hw=size_hw, boxes_xyxy=[[x0, y0, x1, y1]], crops=[filled])


LONGEST_LINE = 400
LONGEST_NAME = 200


class DatasetBuilder:
    """A dataset as it is read.

    Attributes:
        problems: a line for each thing left out so far.
    """

    def __init__(self, name: str, *, max_pixels: int) -> None:
        self.name = printable(name) or "dataset"
        self.problems: list[str] = []
        self._max_pixels = max_pixels
        self._pictures: list[AnnotatedPicture] = []

    def note(self, what: str, why: str | SamDetectError) -> None:
        """Notes that something is left out, in one line whatever a file's names hold."""
        reason = why if isinstance(why, str) else one_line(why)
        self.problems.append(printable(f"{printable(what, LONGEST_NAME)}: {reason}"))

    def size_of(self, path: str, what: str) -> tuple[int, int] | None:
        """``(height, width)`` of a picture; notes a picture that cannot be read, as None."""
        try:
            return picture_size(path, max_pixels=self._max_pixels)
        except ImageError as error:
            self.note(what, error)
            return None

    def add(
        self,
        id: Id,  # noqa: A002 - the field's name
        path: str,
        size_hw: tuple[int, int],
        objects: Iterable[AnnotatedObject],
        fields: dict[str, Any] | None = None,
        *,
        plane: Plane | None = None,
    ) -> None:
        """Takes a picture, or a plane of a stack, with its objects."""
        picture = AnnotatedPicture(id, Path(path), size_hw, tuple(objects), fields or {}, plane)
        self._pictures.append(picture)

    def dataset(self, categories: dict[str, Id]) -> Dataset:
        """All that was taken.

        Raises:
            ImageError: that is no object at all.
        """
        objects = [o for picture in self._pictures for o in picture.objects if not o.crowd]
        if not objects:
            first = (
                f" (problems: {len(self.problems)}; {self.problems[0]})" if self.problems else ""
            )
            raise ImageError(f"the dataset {self.name} has no object that can be used{first}")
        counts = Counter(o.label for o in objects)
        for name in categories:
            if not counts[name]:
                self.note(f"category '{name}'", "it has no object")
        pictures = self._compared_alike(sum(o.mask_rle is None for o in objects), len(objects))
        return Dataset(self.name, pictures, categories, tuple(self.problems))

    def _compared_alike(self, boxed: int, total: int) -> tuple[AnnotatedPicture, ...]:
        """The pictures, with outlines or with boxes to be compared, as most objects have them.

        The few of an outlined dataset that have a box alone cannot be compared by outline. They
        become crowds: something is there, so that finding it is not false either.
        """
        if boxed > total - boxed:
            if total > boxed:
                self.note("outlines", f"only {total - boxed} of {total} objects have one, "
                                      "so boxes are compared")  # fmt: skip
            return tuple(self._pictures)
        pictures = []
        for picture in self._pictures:
            objects = []
            for each in picture.objects:
                if each.mask_rle is None and not each.crowd:
                    self.note(f"annotation {each.id}", "it has no outline, as most have: "
                              "what is found in its box is not counted")  # fmt: skip
                    each = replace(each, crowd=True)  # noqa: PLW2901
                objects.append(each)
            pictures.append(replace(picture, objects=tuple(objects)))
        return tuple(pictures)


def annotated_object(
    *,
    id: Id,  # noqa: A002 - the field's name
    label: str,
    size_hw: tuple[int, int],
    mask_rle: MaskRLE | None = None,
    bbox_xywh: tuple[float, float, float, float] | None = None,
    crowd: bool = False,
    corners_xy: tuple[float, ...] = (),
) -> AnnotatedObject:
    """An object by its outline, or else by its box; the box is that of the outline, or clipped.

    Raises:
        MaskError: it is empty, or outside the picture.
    """
    if mask_rle is not None:
        box = rle_box_xywh(mask_rle)
        if box is None:
            raise MaskError("its outline has no pixel inside the picture")
        return AnnotatedObject(id, label, box, mask_rle, crowd)
    if bbox_xywh is None:
        raise MaskError("it has neither an outline nor a box")
    x, y, w, h = bbox_xywh
    if not all(map(math.isfinite, bbox_xywh)):
        raise MaskError("its box has a number that is not finite")
    if not (w > 0 and h > 0):
        raise MaskError(f"its box has the size {w:g}x{h:g}")
    x0, y0 = max(x, 0.0), max(y, 0.0)
    x1, y1 = min(x + w, float(size_hw[1])), min(y + h, float(size_hw[0]))
    if x0 >= x1 or y0 >= y1:
        raise MaskError("its box is outside the picture")
    if (x0, y0, x1, y1) != (x, y, x + w, y + h):
        bbox_xywh = (x0, y0, x1 - x0, y1 - y0)
    return AnnotatedObject(id, label, bbox_xywh, None, crowd, corners_xy)


def ids_by_name(builder: DatasetBuilder, names: dict[Id, str], used: set[Id]) -> dict[str, Id]:
    """Category names to ids; of several ids with one name, the first that an object has.

    Args:
        builder: gets a line for each id that another stands for.
        names: id to name.
        used: ids that objects have.
    """
    ids: dict[str, Id] = {}
    for id_ in sorted(names, key=lambda each: each not in used):  # a stable sort
        other = ids.setdefault(names[id_], id_)
        if other != id_:
            builder.note(
                f"category {id_}", f"its name '{names[id_]}' is that of {other}: taken as one"
            )
    return {name: ids[name] for name in names.values()}


def relative(path: str | Path, root: Path) -> str:
    """A path below a folder, with slashes on every system."""
    return PurePath(os.path.relpath(path, root)).as_posix()


def printable(text: str, longest: int = LONGEST_LINE) -> str:
    """The text in one line of bounded length, without control characters."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return line if len(line) <= longest else f"{line[: longest - 1]}…"
