"""The nouns of annotated data, whatever format they were read from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from sam_detect.masks import MaskRLE, rle_to_mask
from sam_detect.types import Masks

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
    """

    id: Id
    label: str
    bbox_xywh: tuple[float, float, float, float]
    mask_rle: MaskRLE | None
    crowd: bool = False


@dataclass(frozen=True)
class AnnotatedPicture:
    """One picture of a dataset with its objects.

    Attributes:
        id: the image's id, unique in its dataset.
        path: where it is.
        size_hw: height and width in pixels, as the file has them.
        objects: what is annotated in it; may be empty.
        fields: what else the dataset has of it (``modality``, ``patient``), by name.
    """

    id: Id
    path: Path
    size_hw: tuple[int, int]
    objects: tuple[AnnotatedObject, ...]
    fields: dict[str, Any] = field(default_factory=dict)


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
    height, width = size_hw
    x, y, w, h = each.bbox_xywh
    x0, y0 = min(round(x), width - 1), min(round(y), height - 1)
    x1, y1 = min(max(round(x + w), x0 + 1), width), min(max(round(y + h), y0 + 1), height)
    filled = np.ones((y1 - y0, x1 - x0), np.bool_)
    return Masks.from_crops(size_hw=size_hw, boxes_xyxy=[[x0, y0, x1, y1]], crops=[filled])
