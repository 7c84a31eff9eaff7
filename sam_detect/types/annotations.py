"""Annotated objects, as files of any format say them: the one form of them in memory."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from sam_detect.errors import MaskError
from sam_detect.masks import (
    BoolArray,
    MaskRLE,
    checked_rle,
    crop_to_rle,
    rle_box_xywh,
    rle_to_crop,
    rle_to_mask,
)
from sam_detect.polygons import Polygon, polygons_to_crop

Location = tuple[int, int, int]
"""XY, Z and T of a plane in a stack, from 0."""


@dataclass(frozen=True, eq=False)
class Annotation:
    """One annotated object.

    Its outline is the first of these that is there: ``mask_rle``, ``polygons``; else only its box
    or a point of it is known.

    Attributes:
        tags: its names; the first is its label. Empty for an object without one.
        polygons: its parts with their holes; x, y in pixels, pixel ``i`` covers ``[i, i + 1]``.
        mask_rle: COCO RLE of the whole picture, as a file says it; checked by :meth:`crop`.
        bbox_xywh: the box in pixels, or None.
        point_xy: a point of it in pixels, or None.
        location: the plane of a stack that it lies in, or None.
        properties: name to number or text: what was measured, such as ``similarity``.
        id: whatever the file gives there.
        references: what the file says besides, as plain values: other ids (``category_id``,
            ``track_id``, the dataset), colours, connections. A writer of the same format writes
            them back.
        crowd: a region of many objects, not one.
    """

    tags: tuple[str, ...] = ()
    polygons: tuple[Polygon, ...] = ()
    mask_rle: Mapping[str, Any] | None = None
    bbox_xywh: tuple[float, float, float, float] | None = None
    point_xy: tuple[float, float] | None = None
    location: Location | None = None
    properties: Mapping[str, Any] = field(default_factory=dict)
    id: Any = None
    references: Mapping[str, Any] = field(default_factory=dict)
    crowd: bool = False

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


@dataclass(frozen=True, eq=False)
class AnnotatedImage:
    """A picture with its outlines.

    Attributes:
        path: the picture as found; empty where it is not at hand.
        file_name: as the file names it; empty where it names none.
        outlines: its annotations, in the file's order.
        size_hw: of the picture in pixels, where it is known.
        references: what the file says of itself besides, for a writer of the same format.
        plane: the plane of a stack that the outlines lie in, which is read instead of ``path``;
            None for a picture.
    """

    path: str
    file_name: str
    outlines: tuple[Annotation, ...]
    size_hw: tuple[int, int] | None = None
    references: Mapping[str, Any] = field(default_factory=dict)
    plane: Any = None

    @property
    def name(self) -> str:
        """The picture or plane as messages name it."""
        return self.path if self.plane is None else str(self.plane.name)

    @property
    def picture(self) -> Any:
        """What is read: the plane, or the path."""
        return self.path if self.plane is None else self.plane
