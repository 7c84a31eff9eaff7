"""Label maps: for each picture another one, in which each pixel has the number of its object, or
(with a legend) that of its class."""

from __future__ import annotations

import json
import os
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sam_detect.errors import ImageError, LibraryError, MaskError, one_line
from sam_detect.evaluation.dataset import (
    AnnotatedObject,
    Dataset,
    DatasetBuilder,
    Id,
    annotated_object,
    ids_by_name,
    relative,
)
from sam_detect.io import PlaneRanges, find_images, planes_at, planes_of
from sam_detect.io.coco import read_text
from sam_detect.io.decoding import PictureFile
from sam_detect.io.mask_files import require_size
from sam_detect.io.mask_pictures import MOST_CLASSES, Placed, numbered, pieces_of
from sam_detect.types.labels import normalised_label, shown_label
from sam_detect.types.masks import crop_to_rle


def read(root: Path, *, ranges: PlaneRanges | None = None, max_pixels: int) -> Dataset:
    """Reads ``images/`` and ``masks/`` of ``root``: files of one name but for the ending.

    In a mask 0 is background and each other value one object, whether its pixels touch or not.
    All objects are of one category, named like the folder. An object's id is its mask's path and
    value. A picture without a mask is left out: it is not known to be empty.

    With a legend (``classes.txt`` or ``classes.json`` in ``root``, see :func:`read_legend`) each
    value is a class, and each connected region of it an object.

    With ``ranges`` the files are stacks, and each selected plane is a picture, with the same plane
    of the mask.

    Raises:
        ImageError: also if the values seem to be classes, and there is no legend.
    """
    label = shown_label(root.resolve().name) or "object"
    builder = DatasetBuilder(label, max_pixels=max_pixels)
    legend = read_legend(root)
    seen = _Seen(label, legend)
    pictures, masks = (_by_name(root, folder, builder) for folder in ("images", "masks"))
    for name, path in pictures.items():
        what = relative(path, root)
        if name not in masks:
            builder.note(what, "it has no mask")
            continue
        mask = relative(masks[name], root)
        if ranges:
            _add_planes(
                builder, seen, ranges, picture=(path, what), mask=(masks[name], mask),
                max_pixels=max_pixels,
            )  # fmt: skip
            continue
        size_hw = builder.size_of(path, what)
        if size_hw is None:
            continue
        try:
            left_out = PictureFile(masks[name]).left_out_of_tiff()
            if left_out and left_out != PictureFile(path).left_out_of_tiff():
                raise MaskError(f"it is a stack of which {left_out}, and its picture is none such")
            map_file = PictureFile(masks[name], max_pixels=max_pixels)
            require_size(map_file.size_hw(), size_hw, "the mask")  # before it is decoded
            objects = seen.objects(map_file.values(as_stored=legend is not None)[0], mask)
            if left_out:
                builder.note(mask, f"{left_out}, and the same of its picture")
        except (ImageError, MaskError) as error:
            builder.note(mask, error)
            continue
        builder.add(what, path, size_hw, objects)
    for name in masks.keys() - pictures.keys():
        builder.note(relative(masks[name], root), "a mask without a picture")
    if legend is not None:
        for value, count in sorted(seen.foreign.items()):
            builder.note(f"value {value}", f"it is in {count} masks, but not in the legend")
        return builder.dataset(ids_by_name(builder, dict(legend), seen.values()))
    seen.refuse_classes(root)
    if seen.numbers <= {0, 1} and seen.in_parts:
        builder.note(f"{seen.in_parts} masks", "all objects have one value, so they count as "
                       "one; give each a number of its own")  # fmt: skip
    return builder.dataset({label: 1})


def _add_planes(
    builder: DatasetBuilder,
    seen: _Seen,
    ranges: PlaneRanges,
    *,
    picture: tuple[str, str],
    mask: tuple[str, str],
    max_pixels: int,
) -> None:
    """Takes the selected planes of a stack; of picture and mask the path and the shown name."""
    path, what = picture
    try:
        planes = planes_of(path, ranges, max_pixels=max_pixels)
        maps = planes_at(mask[0], [each.location for each in planes], max_pixels=max_pixels)
    except ImageError as error:
        builder.note(what, error)
        return
    for plane, labels in zip(planes, maps, strict=True):
        at = plane.name.removeprefix(path)
        try:
            size_hw = plane.values(max_pixels=max_pixels).shape[:2]
            values = labels.values(max_pixels=max_pixels)
            require_size(values.shape[:2], size_hw, "the mask")
            objects = seen.objects(values, mask[1] + at)
        except (ImageError, MaskError) as error:
            builder.note(mask[1] + at, error)
            continue
        builder.add(what + at, path, size_hw, objects, plane=plane)


def read_legend(root: Path) -> dict[Id, str] | None:
    """The names of a folder's values; None where it has no legend.

    ``classes.txt`` has a line ``VALUE NAME`` for each class. ``classes.json`` is an object
    ``{"VALUE": "NAME"}``, or a list of ``{"id": VALUE, "name": "NAME"}``, as it is or under
    ``categories``. The value 0 is the background, whatever it is called.

    Raises:
        ImageError: a legend that cannot be read.
    """
    for file, parse in ((root / "classes.txt", _lines), (root / "classes.json", _entries)):
        if not file.exists():
            continue
        try:
            return _checked(parse(read_text(file, "a legend")))
        except (ValueError, TypeError, KeyError, RecursionError, LibraryError) as error:
            raise ImageError(
                f"the legend {file} cannot be read ({one_line(error)[:100]}): it needs a value "
                "and a name for each class, such as '1 tumour'"
            ) from error
    return None


def _checked(rows: list[tuple[Any, Any]]) -> dict[Id, str]:
    """Value to name, without the background."""
    found: dict[Id, str] = {}
    for value, name in rows:
        if type(value) is not int and not (isinstance(value, str) and value.isdecimal()):
            raise ValueError(f"{value!r:.40} is no whole number")
        number = int(value)
        if found.setdefault(number, normalised_label(name)) != normalised_label(name):
            raise ValueError(f"the value {number} has two names")
    found.pop(0, None)
    if not found:
        raise ValueError("it names no class")
    return found


def _lines(text: str) -> list[tuple[str, str]]:
    rows = [line.replace(":", " ", 1).split(None, 1) for line in text.splitlines() if line.strip()]
    return [(value, name) for value, name in rows]


def _entries(text: str) -> list[tuple[Any, Any]]:
    found = json.loads(text)
    if isinstance(found, dict) and isinstance(found.get("categories"), list):
        found = found["categories"]
    if isinstance(found, list):
        return [(each["id"], each["name"]) for each in found]
    if not isinstance(found, dict):
        raise ValueError("it is no object or list")
    return list(found.items())


class _Seen:
    """What the maps of a folder hold.

    Attributes:
        numbers: how many values maps have.
        in_parts: maps of one value that lies in several places.
        foreign: values that are not in the legend, and in how many maps.
    """

    def __init__(self, label: str, legend: dict[Id, str] | None) -> None:
        self.numbers: set[int] = set()
        self.in_parts = 0
        self.foreign: Counter[int] = Counter()
        self._label, self._legend = label, legend
        self._maps: Counter[int] = Counter()
        self._scattered = 0
        self._least_covered = 1.0
        self._count = 0

    def values(self) -> set[Id]:
        return set(self._maps)

    def objects(self, values: npt.NDArray[Any], mask: str) -> list[AnnotatedObject]:
        """The objects of one map.

        Raises:
            MaskError: it shows no objects (:mod:`sam_detect.io.mask_pictures`).
        """
        found = numbered(values, f"the mask {mask}", given=self._legend is not None)
        self._maps.update(found.numbers)
        size_hw, places = found.codes.shape, [found.crop(i) for i in range(len(found.numbers))]
        if self._legend is not None:
            self.foreign.update(each for each in found.numbers if each not in self._legend)
            return [
                _object(part, f"{mask}:{value}.{number}", self._legend[value], size_hw)
                for value, place in zip(found.numbers, places, strict=True)
                if value in self._legend
                for number, part in enumerate(pieces_of(*place), start=1)
            ]
        self._count += 1
        covered = np.count_nonzero(found.codes) / found.codes.size
        self._least_covered = min(self._least_covered, covered)
        self.numbers.add(len(places))
        self.in_parts += len(places) == 1 and len(pieces_of(*places[0])) > 1
        self._scattered += len(places) * found.scattered
        return [
            _object(place, f"{mask}:{value}", self._label, size_hw)
            for value, place in zip(found.numbers, places, strict=True)
        ]

    def refuse_classes(self, root: Path) -> None:
        """Raises ``ImageError`` where the values are hardly numbers of objects: each lies in
        several places, or the same few values cover all of every picture."""
        total = sum(self._maps.values())
        few = 2 <= len(self._maps) <= MOST_CLASSES
        scattered = 2 * self._scattered >= total
        everywhere = (
            self._count > 1 and self._least_covered >= 0.95 and total >= 2 * len(self._maps)
        )
        if few and (scattered or everywhere):
            shown = ", ".join(map(str, sorted(self._maps)[:8]))
            raise ImageError(
                f"the masks of {root} seem to hold classes ({shown}), not objects: add "
                "classes.txt there, with a line 'VALUE NAME' for each class; or give each object "
                "a number of its own"
            )


def _by_name(root: Path, folder: str, builder: DatasetBuilder) -> dict[str, str]:
    """Paths of the pictures in a folder, by their path in it without the ending."""
    found: dict[str, str] = {}
    for path in find_images(root / folder):
        name = os.path.splitext(os.path.relpath(path, root / folder))[0]
        if found.setdefault(name, path) != path:
            builder.note(relative(path, root), f"{relative(found[name], root)} has its name, too")
    return found


def _object(place: Placed, name: str, label: str, size_hw: tuple[int, ...]) -> AnnotatedObject:
    height, width = size_hw
    rle = crop_to_rle(place[1], place[0], (height, width))
    return annotated_object(id=name, label=label, size_hw=(height, width), mask_rle=rle)
