"""What all readers share: they check pictures and objects, and record what is left out."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable
from dataclasses import replace
from pathlib import Path
from typing import Any

from sam_detect.errors import ImageError, MaskError, SamDetectError, one_line
from sam_detect.evaluation.dataset import AnnotatedObject, AnnotatedPicture, Dataset, Id
from sam_detect.masks import MaskRLE, rle_box_xywh
from sam_detect.sources import picture_size

LONGEST_LINE = 400
LONGEST_NAME = 200


class Gathering:
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
        *,
        id: Id,  # noqa: A002 - the field's name
        path: str,
        size_hw: tuple[int, int],
        objects: Iterable[AnnotatedObject],
        fields: dict[str, Any] | None = None,
    ) -> None:
        """Takes a picture with its objects."""
        picture = AnnotatedPicture(id, Path(path), size_hw, tuple(objects), fields or {})
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
        if 0 < total - boxed < boxed:
            self.note("outlines", f"only {total - boxed} of {total} objects have one, "
                                  "so boxes are compared")  # fmt: skip
        if boxed == 0 or boxed > total - boxed:
            return tuple(self._pictures)
        return tuple(
            replace(picture, objects=tuple(self._outlined_or_crowd(o) for o in picture.objects))
            for picture in self._pictures
        )

    def _outlined_or_crowd(self, each: AnnotatedObject) -> AnnotatedObject:
        if each.mask_rle is not None or each.crowd:
            return each
        self.note(f"annotation {each.id}", "it has no outline, as most have: "
                                           "what is found in its box is not counted")  # fmt: skip
        return replace(each, crowd=True)


def annotated_object(
    *,
    id: Id,  # noqa: A002 - the field's name
    label: str,
    size_hw: tuple[int, int],
    mask_rle: MaskRLE | None = None,
    bbox_xywh: tuple[float, float, float, float] | None = None,
    crowd: bool = False,
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
    return AnnotatedObject(id, label, _clipped(bbox_xywh, size_hw), None, crowd)


def ids_by_name(gathering: Gathering, names: dict[Id, str], used: set[Id]) -> dict[str, Id]:
    """Category names to ids; of several ids with one name, the first that an object has.

    Args:
        gathering: gets a line for each id that another stands for.
        names: id to name.
        used: ids that objects have.
    """
    ids: dict[str, Id] = {}
    for id_ in sorted(names, key=lambda each: each not in used):  # a stable sort
        other = ids.setdefault(names[id_], id_)
        if other != id_:
            gathering.note(
                f"category {id_}", f"its name '{names[id_]}' is that of {other}: taken as one"
            )
    return {name: ids[name] for name in names.values()}


def printable(text: str, longest: int = LONGEST_LINE) -> str:
    """The text in one line of bounded length, without control characters."""
    line = "".join(c if c.isprintable() else "?" for c in " ".join(text.split()))
    return line if len(line) <= longest else f"{line[: longest - 1]}…"


def _clipped(
    bbox_xywh: tuple[float, float, float, float], size_hw: tuple[int, int]
) -> tuple[float, float, float, float]:
    x, y, w, h = bbox_xywh
    if not all(map(math.isfinite, bbox_xywh)):
        raise MaskError("its box has a number that is not finite")
    if not (w > 0 and h > 0):
        raise MaskError(f"its box has the size {w:g}x{h:g}")
    x0, y0 = max(x, 0.0), max(y, 0.0)
    x1, y1 = min(x + w, float(size_hw[1])), min(y + h, float(size_hw[0]))
    if x0 >= x1 or y0 >= y1:
        raise MaskError("its box is outside the picture")
    return (x0, y0, x1 - x0, y1 - y0) if (x0, y0, x1, y1) != (x, y, x + w, y + h) else bbox_xywh
