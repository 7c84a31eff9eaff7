"""Annotated objects, as files of any format say them: the one form of them in memory."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sam_detect.errors import MaskError
from sam_detect.types.masks import (
    BoolArray,
    MaskRLE,
    checked_rle,
    crop_to_rle,
    rle_box_xywh,
    rle_to_crop,
    rle_to_mask,
)
from sam_detect.types.polygons import Polygon, Ring, box_around, mask_polygons, polygons_to_crop

MAX_MASK_PIXELS = 1 << 28
Location = tuple[int, int, int]
"""XY, Z and T of a plane in a stack, from 0."""


@dataclass(frozen=True, eq=False)
class Annotation:
    """One annotated object.

    Its outline is the first of these that is there: ``mask_rle``, ``polygons``; else only its box
    (turned or upright) or a point of it is known.

    Attributes:
        tags: its names; the first is its label. Empty for an object without one.
        polygons: its parts with their holes; x, y in pixels, pixel ``i`` covers ``[i, i + 1]``.
        mask_rle: COCO RLE of the whole picture, as a file says it; checked by :meth:`crop`.
        bbox_xywh: the box in pixels, or None.
        corners_xy: ``x0, y0, ..., x3, y3`` of a turned box, of which ``bbox_xywh`` is the upright
            one around it; empty for others.
        point_xy: a point of it in pixels, or None.
        location: the plane of a stack that it lies in, or None.
        properties: name to number or text: what was measured, such as ``similarity``.
        id: whatever the file gives there.
        references: what the file says besides, as plain values: other ids (``category_id``,
            ``track_id``, the dataset), colours, connections. A writer of the same format writes
            them back.
        crowd: a region of many objects, not one.

    Raises:
        MaskError: a box or a point has a number that is not finite.
    """

    tags: tuple[str, ...] = ()
    polygons: tuple[Polygon, ...] = ()
    mask_rle: Mapping[str, Any] | None = None
    bbox_xywh: tuple[float, float, float, float] | None = None
    corners_xy: tuple[float, ...] = ()
    point_xy: tuple[float, float] | None = None
    location: Location | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    id: Any = None
    references: Mapping[str, Any] = field(default_factory=dict)
    crowd: bool = False

    def __post_init__(self) -> None:
        numbers = (*(self.bbox_xywh or ()), *(self.point_xy or ()))
        if not all(map(math.isfinite, numbers)):
            raise MaskError("its box or point has a number that is not finite")

    @property
    def label(self) -> str | None:
        """The first tag."""
        return self.tags[0] if self.tags else None

    @property
    def is_outlined(self) -> bool:
        """Whether more than a box or a point is known."""
        return self.mask_rle is not None or bool(self.polygons)

    def crop(self, size_hw: tuple[int, int]) -> tuple[tuple[int, int, int, int], BoolArray] | None:
        """The tight half-open box xyxy in a picture of this size, and the ``(h, w)`` mask in it;
        None where only a box or a point is known.

        Raises:
            MaskError: the outline is malformed, of another size, or has no pixel inside.
        """
        if not self.is_outlined:
            if self.bbox_xywh is None and self.point_xy is None:
                raise MaskError("it has neither a segmentation nor a bbox")
            return None
        if self.mask_rle is not None:
            size = self.mask_rle.get("size")
            if size != list(size_hw):  # compared first: decoding an absurd size takes long
                raise MaskError(f"its mask has the size {size}, the picture {list(size_hw)}")
            rle = checked_rle(dict(self.mask_rle))
            if rle_box_xywh(rle) is None:
                raise MaskError("its outline has no pixel inside the picture")
            return rle_to_crop(dict(rle))
        found = polygons_to_crop(self.polygons, size_hw)
        if found is None:
            raise MaskError("its outline has no pixel inside the picture")
        return found

    def rle(self, size_hw: tuple[int, int]) -> MaskRLE | None:
        """Full-size COCO RLE of :meth:`crop`."""
        found = self.crop(size_hw)
        return None if found is None else crop_to_rle(found[1], found[0], size_hw)

    def mask(self, size_hw: tuple[int, int]) -> BoolArray | None:
        """``(H, W)`` mask of :meth:`crop`."""
        rle = self.rle(size_hw)
        return None if rle is None else rle_to_mask(rle)

    def turned(self, corners: Ring) -> Annotation:
        """The same object by the corners of a turned box."""
        return replace(
            self, corners_xy=tuple(corners.ravel().tolist()), bbox_xywh=box_around(corners)
        )

    def scaled(self, x: float, y: float) -> Annotation:
        """The same object in a picture whose sides are so many times as long; run lengths become
        polygons. Raises ``MaskError`` where these are malformed."""
        polygons, box, point = self.polygons, self.bbox_xywh, self.point_xy
        if self.mask_rle is not None:
            rle = checked_rle(dict(self.mask_rle))
            _, _, w, h = rle_box_xywh(rle) or (0, 0, 0, 0)
            if w * h > MAX_MASK_PIXELS:
                raise MaskError(f"its mask of {w}x{h} pixels is too large")
            corners, crop = rle_to_crop(dict(rle))
            polygons = tuple(mask_polygons(crop, corners))
        return replace(
            self,
            polygons=tuple(tuple(ring * (x, y) for ring in polygon) for polygon in polygons),
            mask_rle=None,
            bbox_xywh=box and (box[0] * x, box[1] * y, box[2] * x, box[3] * y),
            corners_xy=tuple(
                value * (y if number % 2 else x) for number, value in enumerate(self.corners_xy)
            ),
            point_xy=point and (point[0] * x, point[1] * y),
        )


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """A picture with its outlines.

    Attributes:
        path: the picture as found; empty where it is not at hand.
        file_name: as the file names it; empty where it names none.
        outlines: its annotations, in the file's order.
        size_hw: of the picture in pixels, as the file says it; 0 for a side that it does not say.
        references: what the file says of itself besides, for a writer of the same format.
        plane: the plane of a stack that the outlines lie in, which is read instead of ``path``;
            None for a picture.
        fit: what is done where they do not fit the picture: ``check`` refuses, ``scale`` scales
            where the ratio is one number, ``as-is`` takes them as they are.
    """

    path: str
    file_name: str
    outlines: tuple[Annotation, ...]
    size_hw: tuple[int, int] | None = None
    references: Mapping[str, Any] = field(default_factory=dict)
    plane: Any = None
    fit: str = "check"

    def fitted(self, size_hw: tuple[int, int], *, turned: bool) -> tuple[AnnotatedImage, str]:
        """The annotations in pixels of the picture as it is read, and a line about what was
        changed; all readers of annotated pictures pass here.

        Args:
            size_hw: of the picture.
            turned: whether its EXIF orientation exchanges its sides. Outlines are upright, whether
                the size that the file says is so or not.

        Raises:
            MaskError: the annotations were made on a picture of another size.
        """
        rle = next((o.mask_rle.get("size") for o in self.outlines if o.mask_rle is not None), 0)
        own = checked_size(*rle) if isinstance(rle, list) and len(rle) == 2 else None
        said, (height, width) = self.size_hw or own, size_hw
        fits = said is None or all(a in (0, b) for a, b in zip(said, size_hw, strict=True))
        if said is None or fits or self.fit == "as-is":
            return self, ""
        if turned:
            x, y = reach_xy(self.outlines)
            if x <= width + 1 and y <= height + 1:
                return self, ""
            raise MaskError(
                f"its annotations reach {x:.0f},{y:.0f}, and the picture is {width}x{height} once "
                "its EXIF orientation turns it: they were made on the picture as it is stored; "
                "save it turned, and annotate that"
            )
        old_h, old_w = said
        sizes = (f"its annotations were made on {old_w}x{old_h} pixels, and the picture has "
                 f"{width}x{height}")  # fmt: skip
        # Sizes are whole numbers, so each may be up to a pixel off the ratio.
        off = abs(old_h * width - old_w * height) - max(old_h, height) - max(old_w, width)
        if off > 0 or 0 in said or self.fit != "scale":
            way = ", scale them (--fit scale)" if off <= 0 and 0 not in said else ""
            raise MaskError(f"{sizes}: give the picture that they were made on{way}, or take them "
                            "as they are (--fit as-is); learn, fewshot and evaluate have --fit"
                            )  # fmt: skip
        outlines = []
        for each in self.outlines:
            with suppress(MaskError):  # its crop says what is wrong
                if each.mask_rle is None or each.mask_rle.get("size") == list(said):
                    each = each.scaled(width / old_w, height / old_h)  # noqa: PLW2901
            outlines.append(each)
        return replace(self, outlines=tuple(outlines)), f"{sizes}: scaled by {width / old_w:.4g}"

    def in_one_plane(self) -> tuple[AnnotatedImage, str]:
        """The annotations as those of a picture of one plane, whatever plane of a stack they name,
        and a line where they name one; raises ``MaskError`` where they name several."""
        places = {each.location for each in self.outlines}
        if places <= {None, (0, 0, 0)}:
            return self, ""
        if len(places) > 1:
            raise MaskError("its annotations lie in several planes of a stack, and the picture has "
                            "one: give the stack, or those of this plane")  # fmt: skip
        outlines = tuple(replace(each, location=None) for each in self.outlines)
        return replace(self, outlines=outlines), (
            "its annotations name a plane of a stack, and the picture has one: taken as that"
        )

    @property
    def name(self) -> str:
        """The picture or plane as messages name it."""
        return self.path if self.plane is None else str(self.plane.name)

    @property
    def picture(self) -> Any:
        """What is read: the plane, or the path."""
        return self.path if self.plane is None else self.plane


def checked_size(height: Any, width: Any) -> tuple[int, int] | None:
    """A file's height and width of its picture, 0 for one that it does not say; None for both."""
    sides = []
    for value in (height, width):
        try:
            sides.append(0 if isinstance(value, bool) else max(0, round(float(value))))
        except (TypeError, ValueError, OverflowError):
            sides.append(0)
    return (sides[0], sides[1]) if any(sides) else None


def reach_xy(outlines: Sequence[Annotation]) -> tuple[float, float]:
    """How far right and down polygons, boxes and points reach."""
    rings = [ring for each in outlines for polygon in each.polygons for ring in polygon]
    boxes = [each.bbox_xywh for each in outlines if each.bbox_xywh is not None]
    points = [each.point_xy for each in outlines if each.point_xy is not None]
    ends = [*(ring.max(axis=0) for ring in rings), *((x + w, y + h) for x, y, w, h in boxes)]
    x, y = np.max([(0.0, 0.0), *ends, *points], axis=0).tolist()
    return x, y
