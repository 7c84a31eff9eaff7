"""Label maps: beside each picture another one, in which every object's pixels have its number."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from skimage import measure

from sam_detect.errors import ImageError, MaskError
from sam_detect.evaluation.dataset import AnnotatedObject, Dataset
from sam_detect.evaluation.readers.gathering import Gathering, annotated_object
from sam_detect.labels import shown_label
from sam_detect.masks import BoolArray, crop_to_rle
from sam_detect.sources import DEFAULT_MAX_BYTES, find_images
from sam_detect.sources.decoding import Origin, left_out_of_tiff, read_values

MAX_SCATTER = 100
"""How often the boxes of a map's objects may cover the picture. Those of real objects hardly
overlap; of a photograph taken for a label map, each grey's box is the picture, and a 16-bit one
would take hours."""


class Region(NamedTuple):
    """The pixels of one value of a label map: a half-open box and the ``(h, w)`` mask in it."""

    value: int
    box_xyxy: tuple[int, int, int, int]
    crop: BoolArray


def read(root: Path, *, max_pixels: int) -> Dataset:
    """Reads ``images/`` and ``masks/`` of ``root``: files of one name but for the ending.

    In a mask 0 is background and each other value one object, whether its pixels touch or not.
    All objects are of one category, named like the folder. An object's id is its mask's path and
    value. A picture without a mask is left out: nobody said that it is empty.
    """
    label = shown_label(root.resolve().name) or "object"
    gathering = Gathering(label, max_pixels=max_pixels)
    pictures, masks = (_by_name(root, folder, gathering) for folder in ("images", "masks"))
    numbers, in_parts = set(), 0
    for name, path in pictures.items():
        what = _shown(path, root)
        if name not in masks:
            gathering.note(what, "it has no mask")
            continue
        size_hw = gathering.size_of(path, what)
        if size_hw is None:
            continue
        mask = _shown(masks[name], root)
        try:
            left_out = left_out_of_tiff(Origin(masks[name]))
            if left_out and left_out != left_out_of_tiff(Origin(path)):
                raise MaskError(f"it is a stack of which {left_out}, and its picture is none such")
            found = [*_regions(_values(masks[name], size_hw, max_pixels))]
            if left_out:
                gathering.note(mask, f"{left_out}, and the same of its picture")
        except (ImageError, MaskError) as error:
            gathering.note(mask, error)
            continue
        objects = [_object(each, mask, label, size_hw) for each in found]
        gathering.add(id=what, path=path, size_hw=size_hw, objects=objects)
        numbers.add(len(found))
        in_parts += len(found) == 1 and bool(measure.label(found[0].crop).max() > 1)
    for name in masks.keys() - pictures.keys():
        gathering.note(_shown(masks[name], root), "a mask without a picture")
    if numbers <= {0, 1} and in_parts:
        gathering.note(f"{in_parts} masks", "all objects have one value, so they count as one; "
                                            "give each a number of its own")  # fmt: skip
    return gathering.dataset({label: 1})


def _by_name(root: Path, folder: str, gathering: Gathering) -> dict[str, str]:
    """Paths of the pictures in a folder, by their path in it without the ending."""
    found: dict[str, str] = {}
    for path in find_images(root / folder):
        name = os.path.splitext(os.path.relpath(path, root / folder))[0]
        if found.setdefault(name, path) != path:
            gathering.note(_shown(path, root), f"{_shown(found[name], root)} has its name, too")
    return found


def _shown(path: str, root: Path) -> str:
    return PurePath(os.path.relpath(path, root)).as_posix()


def _values(mask: str, size_hw: tuple[int, int], max_pixels: int) -> npt.NDArray[Any]:
    """``(H, W)`` whole numbers of a label map.

    Raises:
        ImageError: it cannot be read.
        MaskError: it is of another size than its picture, or no label map.
    """
    values = read_values(Origin(mask), max_pixels=max_pixels, max_bytes=DEFAULT_MAX_BYTES)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim != 2:
        raise MaskError("it is in colour; a label map has one number for each pixel")
    if values.shape != size_hw:
        raise MaskError(
            f"the mask is {values.shape[1]}x{values.shape[0]}, "
            f"its picture {size_hw[1]}x{size_hw[0]}"
        )
    if values.dtype.kind == "f" and not (np.isfinite(values) & (values == np.rint(values))).all():
        raise MaskError("it has fractions; a label map has whole numbers")
    if values.min() < 0:
        raise MaskError("it has numbers below 0; a label map has 0 for the background")
    return values


def _regions(values: npt.NDArray[Any]) -> Iterator[Region]:
    """The objects of a label map, by value.

    Raises:
        MaskError: before the first one, if they are scattered all over the picture.
    """
    numbers, dense = _renumbered(values)
    regions = measure.regionprops(dense)
    sides = np.array([region.bbox for region in regions], np.int64).reshape(-1, 4)
    covered = np.prod(sides[:, 2:] - sides[:, :2], axis=1).sum()  # area_bbox would make each mask
    if covered > MAX_SCATTER * values.size:
        raise MaskError(f"its {len(regions)} values are all over the picture; it is no label map")
    for region in regions:
        y0, x0, y1, x1 = region.bbox
        yield Region(int(numbers[region.label]), (x0, y0, x1, y1), region.image)


def _renumbered(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], npt.NDArray[Any]]:
    """A label map of small numbers, and the value of each; regionprops counts up to the highest."""
    if values.dtype.itemsize <= 2:  # small as it is, and sorting all pixels takes long
        return np.arange(int(values.max()) + 1), values.astype(np.uint16, copy=False)
    numbers, dense = np.unique(values, return_inverse=True)
    if numbers[0] != 0:
        numbers, dense = np.concatenate([np.zeros(1, values.dtype), numbers]), dense + 1
    return numbers, dense.reshape(values.shape)


def _object(region: Region, mask: str, label: str, size_hw: tuple[int, int]) -> AnnotatedObject:
    rle = crop_to_rle(region.crop, region.box_xyxy, size_hw)
    name = f"{mask}:{region.value}"
    return annotated_object(id=name, label=label, size_hw=size_hw, mask_rle=rle)
