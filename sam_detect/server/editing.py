"""Editing outlines: brush, eraser, vertices, split and merge.

All work is done on the part of the picture that an edit touches, so a picture may be of any size.
"""

from __future__ import annotations

from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.errors import MaskError
from sam_detect.masks import BoolArray, tight_box_xyxy
from sam_detect.polygons import Polygon, Ring, checked_ring, nested, polygons_to_crop, simplified
from sam_detect.types import Masks

SPECK_SHARE, SPECK_PIXELS = 0.02, 3
"""A part that an edit cuts off is dropped if it has less than this share of the largest part, or so
few pixels: nobody sees what is left there."""
COARSEST = 0.06
"""With no detail, a ring leaves the outline by this share of its box's diagonal at most."""
SUBPIXEL_BITS = 4
"""Strokes are drawn at sixteenths of a pixel."""
Box = tuple[int, int, int, int]


def brush(mask: Masks, stroke_xy: npt.ArrayLike, radius: float, *, erase: bool) -> Masks:
    """A mask to which a stroke is added, or from which it is taken.

    Args:
        mask: one mask, or none to begin a new one.
        stroke_xy: ``(N, 2)`` the way of the brush, in pixels.
        radius: of the brush, in pixels.
        erase: whether the stroke is taken away. What it cuts off stays, unless it is a speck.

    Raises:
        MaskError: the stroke has no point, or nothing is left.
    """
    stroke = _points(stroke_xy, least=1)
    height, width = mask.size_hw
    low, high = np.floor(stroke.min(axis=0) - radius - 1), np.ceil(stroke.max(axis=0) + radius + 1)
    low, high = np.maximum(low, 0), np.minimum(high, (width, height))
    if (low >= high).any():
        raise MaskError("the stroke lies outside of the picture")
    touched = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
    own = mask.boxes_xyxy[0].tolist() if len(mask) else touched
    box = own if erase else _around([own, touched])
    canvas = np.zeros((box[3] - box[1], box[2] - box[0]), np.uint8)
    fixed = np.rint((stroke - box[:2] - 0.5) * 2**SUBPIXEL_BITS).astype(np.int32)
    if len(fixed) > 1:
        thickness = max(1, round(2 * radius))
        cv2.polylines(canvas, [fixed[:, None]], False, 1, thickness, cv2.LINE_8, SUBPIXEL_BITS)
    for x, y in fixed.tolist():
        dab = max(1, round(radius * 2**SUBPIXEL_BITS))
        cv2.circle(canvas, (x, y), dab, 1, cv2.FILLED, cv2.LINE_8, SUBPIXEL_BITS)
    painted = canvas.astype(np.bool_)
    before = _in_box(mask, box) if len(mask) else np.zeros_like(painted)
    after = _without_specks(before & ~painted) if erase else before | painted
    return _mask_of(after, box, mask.size_hw)


def reshape(rings: Sequence[npt.ArrayLike], size_hw: tuple[int, int]) -> Masks:
    """The mask inside of rings, by the even-odd rule: outlines of parts, and of holes in them.

    Args:
        rings: each ``(K, 2)`` corners x, y in pixels.
        size_hw: of the picture, which cuts off what lies outside.

    Raises:
        MaskError: a ring is malformed, or no pixel lies inside.
    """
    if not rings:
        raise MaskError("an outline needs a ring of at least 3 points")
    polygon: Polygon = tuple(checked_ring(ring) for ring in rings)
    found = polygons_to_crop([polygon], size_hw)
    if found is None:
        raise MaskError("no pixel of the picture lies inside of this outline")
    box, crop = found
    return Masks.from_crops(size_hw=size_hw, boxes_xyxy=[box], crops=[crop])


def split(mask: Masks, line_xy: npt.ArrayLike) -> Masks:
    """The parts into which a line divides a mask, the largest first.

    Args:
        mask: one mask.
        line_xy: ``(N, 2)`` a line across it, in pixels.

    Raises:
        MaskError: the line does not divide it.
    """
    line = _points(line_xy, least=2)
    box = mask.boxes_xyxy[0].tolist()
    whole = mask.crop(0)
    cut = np.zeros(whole.shape, np.uint8)
    fixed = np.rint((line - box[:2] - 0.5) * 2**SUBPIXEL_BITS).astype(np.int32)
    cv2.polylines(cut, [fixed[:, None]], False, 1, 2, cv2.LINE_4, SUBPIXEL_BITS)
    # Four neighbours: what only touches at a corner is divided.
    rest = (whole & (cut == 0)).astype(np.uint8)
    count, parts, stats, _ = cv2.connectedComponentsWithStats(rest, connectivity=4)
    before = cv2.connectedComponents(whole.astype(np.uint8), connectivity=4)[0] - 1
    areas = stats[1:, cv2.CC_STAT_AREA]
    if not len(areas):
        raise MaskError("the line covers the whole object")
    kept = np.flatnonzero(areas > max(SPECK_PIXELS, SPECK_SHARE * areas.max())) + 1
    if len(kept) < 2 or count - 1 <= before:
        raise MaskError("the line does not divide the object: draw it from edge to edge")
    from scipy.ndimage import distance_transform_edt

    # The line itself, and specks, go to the nearest part.
    _, nearest = distance_transform_edt(~np.isin(parts, kept), return_indices=True)
    owners = np.where(whole, parts[tuple(nearest)], 0)
    each = [_mask_of(owners == part, box, mask.size_hw) for part in kept.tolist()]
    return Masks.concatenate(sorted(each, key=lambda one: -int(one.areas[0])))


def merged(masks: Sequence[Masks]) -> Masks:
    """The union of several masks of one picture, each given as one mask.

    Raises:
        MaskError: there is none, or they are of pictures of several sizes.
    """
    together = Masks.concatenate(masks)
    box = _around(together.boxes_xyxy.tolist())
    union = np.zeros((box[3] - box[1], box[2] - box[0]), np.bool_)
    for index in range(len(together)):
        union |= _in_box(together[[index]], box)
    return _mask_of(union, box, together.size_hw)


def with_detail(rings: Sequence[Ring], detail: float) -> list[Ring]:
    """Rings with fewer corners, so that a hand can move them.

    Args:
        rings: each ``(K, 2)`` corners x, y in pixels.
        detail: 1 keeps all corners; 0 keeps so few that a ring leaves the outline by up to
            :data:`COARSEST` of the diagonal of its box.
    """
    if detail >= 1 or not rings:
        return list(rings)
    found: list[Ring] = []
    for polygon in nested(rings):
        diagonal = float(np.linalg.norm(np.ptp(polygon[0], axis=0)))
        for simpler in simplified([polygon], COARSEST * (1 - detail) ** 2 * diagonal):
            found.extend(simpler)
    return found


def _points(points_xy: npt.ArrayLike, *, least: int) -> npt.NDArray[np.float64]:
    points = np.asarray(points_xy, np.float64)
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < least:
        raise MaskError(f"a stroke needs {least} or more points x, y")
    if not np.isfinite(points).all() or np.abs(points).max() > 1e6:
        raise MaskError("a point of the stroke is no usable number")
    return points


def _around(boxes: Sequence[Sequence[int]]) -> Box:
    x0, y0, x1, y1 = np.array(boxes).T
    return int(x0.min()), int(y0.min()), int(x1.max()), int(y1.max())


def _in_box(mask: Masks, box: Sequence[int]) -> BoolArray:
    """One mask in a box that holds its own."""
    x0, y0, x1, y1 = mask.boxes_xyxy[0].tolist()
    found = np.zeros((box[3] - box[1], box[2] - box[0]), np.bool_)
    found[y0 - box[1] : y1 - box[1], x0 - box[0] : x1 - box[0]] = mask.crop(0)
    return found


def _without_specks(mask: BoolArray) -> BoolArray:
    count, parts, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    areas = stats[1:, cv2.CC_STAT_AREA]
    if count < 3:
        return mask
    least = max(SPECK_PIXELS, SPECK_SHARE * areas.max())
    kept = np.flatnonzero(areas > least) + 1
    return np.isin(parts, kept) if len(kept) else mask


def _mask_of(crop: BoolArray, box: Sequence[int], size_hw: tuple[int, int]) -> Masks:
    tight = tight_box_xyxy(crop)
    if tight is None:
        raise MaskError("nothing would be left of the object: delete it instead")
    x0, y0, x1, y1 = tight
    inside = np.ascontiguousarray(crop[y0:y1, x0:x1])
    placed = [x0 + box[0], y0 + box[1], x1 + box[0], y1 + box[1]]
    return Masks.from_crops(size_hw=size_hw, boxes_xyxy=[placed], crops=[inside])
