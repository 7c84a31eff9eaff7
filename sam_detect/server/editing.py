"""Editing the outline of an object by hand: pure functions on masks, without HTTP.

Coordinates are those of :mod:`sam_detect.types.polygons`: x, y in pixels, and pixel ``i`` covers
``[i, i + 1]``, so its centre is at ``i + 0.5``. Everything is computed in crops: time and memory
follow the box of the object and of the stroke, not the picture. What a user has drawn has quality
1, as :meth:`~sam_detect.types.Masks.from_crops` gives it. Pixels that touch at a corner are one
part.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.errors import MaskError
from sam_detect.server.cutting import parts_along
from sam_detect.types import Masks
from sam_detect.types.masks import BoolArray, Box, tightened, union
from sam_detect.types.polygons import (
    MAX_COORDINATE,
    Polygon,
    Ring,
    checked_ring,
    polygons_to_crop,
)

SPECK_PIXELS, SPECK_SHARE = 16, 0.05
"""Most pixels of a speck, and its largest share of the pixels of its object."""
LEAST_RADIUS = math.sqrt(0.5)
"""Any round dab of this radius contains the centre of a pixel."""
COARSEST = 0.1
"""Error of the simplest outline, relative to the square root of its area."""

MAX_STROKE_ROWS = 50_000_000
"""Longest stroke: rows of pixels that its dabs cover, each dab for itself."""
ROWS_AT_ONCE = 1_000_000

Labels = npt.NDArray[np.integer[Any]]
Stroke = npt.NDArray[np.float64]
"""``(N, 2)`` points x, y in pixels."""


def brush(mask: Masks, stroke_xy: npt.ArrayLike, radius: float, *, erase: bool) -> Masks:
    """A mask with a stroke painted or erased: all pixels whose centre is at most ``radius`` from
    the line through the points.

    What an erased stroke cuts off stays part of the object, unless it is a speck
    (:data:`SPECK_PIXELS`). What lies outside the picture is ignored.

    Args:
        mask: one mask; or none, for a new object that is painted.
        stroke_xy: ``(N, 2)`` float, N >= 1: x, y in pixels.
        radius: in pixels, above 0; below :data:`LEAST_RADIUS` it is that, so that each point
            covers a pixel.
        erase: whether the stroke is removed instead of added.

    Raises:
        MaskError: no pixel is left, there is not one mask, or a number cannot be used.
    """
    new = not len(mask) and not erase
    box, crop = ((0, 0, 0, 0), None) if new else _only(mask)
    stroke = _points(stroke_xy, "a stroke", least=1)
    if not (math.isfinite(radius) and 0 < radius <= MAX_COORDINATE):
        raise MaskError(f"the radius of a brush is a number of pixels above 0, got {radius!r}")
    radius = max(float(radius), LEAST_RADIUS)
    height, width = mask.size_hw
    corners = np.concatenate([stroke.min(axis=0) - radius, stroke.max(axis=0) + radius])
    limits = np.array(box if erase else (0, 0, width, height))
    low = np.clip(np.floor(corners[:2]), limits[:2], limits[2:]).astype(int)
    high = np.clip(np.ceil(corners[2:]), limits[:2], limits[2:]).astype(int)
    if (low >= high).any():
        if crop is None:
            raise MaskError("the stroke lies outside of the picture")
        return _drawn(mask.size_hw, box, crop)
    painted_box = (int(low[0]), int(low[1]), int(high[0]), int(high[1]))
    painted = _painted(stroke, radius, painted_box)
    if crop is None:
        return _drawn(mask.size_hw, painted_box, painted)
    if not erase:
        return _drawn(mask.size_hw, *union([(box, crop), (painted_box, painted)]))
    erased = _placed(painted, painted_box, box) & crop
    return _drawn(mask.size_hw, box, _without_new_specks(crop & ~erased, erased))


def reshape(rings: Sequence[npt.ArrayLike], size_hw: tuple[int, int]) -> Masks:
    """The mask of edited outlines, by the even-odd rule: a ring inside another one is a hole, and
    where outlines cross, what an even number of them encloses is outside.

    Args:
        rings: outlines and holes in any order, each ``(K, 2)`` float x, y in pixels, K >= 3.
        size_hw: of the picture; what lies beyond it is cut off.

    Raises:
        MaskError: a ring is malformed, or no pixel's centre lies inside.
    """
    if not len(rings):
        raise MaskError("an outline needs at least one ring of 3 points")
    found = polygons_to_crop([tuple(checked_ring(ring) for ring in rings)], size_hw)
    if found is None:
        raise MaskError("the outline has no pixel inside the picture: draw it larger")
    return _drawn(size_hw, *found)


def split(mask: Masks, line_xy: npt.ArrayLike, size_hw: tuple[int, int]) -> list[Masks]:
    """The parts into which a line cuts a mask, the largest first; together they are the mask.

    Pixels stay together as long as the way between them does not cross the line. Parts of a mask
    that were apart before stay with its largest part, unless the line passes between them. Specks
    (:data:`SPECK_PIXELS`) join their largest neighbour.

    Args:
        mask: one mask.
        line_xy: ``(N, 2)`` float, N >= 2: x, y in pixels, drawn across the mask from outside to
            outside (or into a hole).
        size_hw: of the picture.

    Returns:
        Two masks or more, each a batch of one.

    Raises:
        MaskError: the line does not separate the mask, there is not one mask, or a number cannot
            be used.
    """
    box, crop = _only(mask)
    if tuple(size_hw) != mask.size_hw:
        raise MaskError(
            f"a mask of a {mask.size_hw[1]}x{mask.size_hw[0]} picture does not fit one of "
            f"{size_hw[1]}x{size_hw[0]}"
        )
    line = _points(line_xy, "a line", least=2)
    labels = _specks_joined(parts_along(crop, line - np.array(box[:2])))
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    order = [int(i) for i in np.argsort(-sizes, kind="stable") if sizes[i]]
    if len(order) < 2:
        raise MaskError(
            "the line does not separate the object: draw it from one side of the object to the "
            "other, beyond its outline at both ends"
        )
    places, parts = _places(labels), []
    for part in order:
        y, x = places[part - 1]
        own = (box[0] + x.start, box[1] + y.start, box[0] + x.stop, box[1] + y.stop)
        parts.append(_drawn(mask.size_hw, own, labels[y, x] == part))
    return parts


def merged(masks: Masks) -> Masks:
    """The union of one or more masks of a picture, as one mask; its parts may lie apart.

    Raises:
        MaskError: there is no mask.
    """
    if not len(masks):
        raise MaskError("nothing to merge: choose at least one object")
    placed = list(zip(masks.boxes_xyxy.tolist(), masks.crops(), strict=True))
    return _drawn(masks.size_hw, *union(placed))


def simplified(polygons: Sequence[Polygon], detail: float) -> list[Ring]:
    """Outlines with fewer corners (Douglas and Peucker 1973, by shapely, which keeps them valid).

    No corner that is left out is farther than ``0.1 * (1 - detail)**2 * sqrt(area)`` pixels from
    the new outline, with the area of the object without its holes. No part and no hole vanishes.

    Args:
        polygons: of a mask, as :meth:`~sam_detect.types.Masks.polygons_with_holes` gives them.
        detail: 0 (fewest corners) to 1 (the outlines as they are).
    """
    import shapely  # imported on use: the page starts without

    shape = shapely.MultiPolygon([(outer, holes) for outer, *holes in polygons])
    simple, tolerance = shape, COARSEST * (1 - detail) ** 2 * math.sqrt(shape.area)
    while tolerance > 1e-3:
        simple = shape.simplify(tolerance)
        # shapely promises validity for a polygon, not for neighbours that nearly touch
        if simple.is_valid and _counts(simple) == _counts(shape):
            break
        simple, tolerance = shape, tolerance / 2
    lines = [
        ring for part in shapely.get_parts(simple) for ring in (part.exterior, *part.interiors)
    ]
    return [np.asarray(line.coords, np.float64)[:-1, :2] for line in lines]


def _counts(shape: Any) -> tuple[int, int]:
    """Parts and holes."""
    import shapely

    parts = shapely.get_parts(shape)
    return len(parts), int(shapely.get_num_interior_rings(parts).sum())


# -- strokes ---------------------------------------------------------------------------------


def _painted(stroke: Stroke, radius: float, box: Box) -> BoolArray:
    """``(h, w)`` the pixels of a box whose centre is at most ``radius`` from a line through points.

    What lies near the line between two neighbouring points is convex: it has one run of pixels in
    each row. So a wide brush costs its rows and not its pixels. Raises ``MaskError`` where the
    stroke covers more than :data:`MAX_STROKE_ROWS`.
    """
    height, width = box[3] - box[1], box[2] - box[0]
    moving = np.append(True, (stroke[1:] != stroke[:-1]).any(axis=1))
    points = stroke[moving] - box[:2]
    starts, ends = (points[:-1], points[1:]) if len(points) > 1 else (points, points)
    low, high = np.minimum(starts[:, 1], ends[:, 1]), np.maximum(starts[:, 1], ends[:, 1])
    spans = np.stack([np.ceil(low - radius - 0.5), np.floor(high + radius - 0.5) + 1])
    first, last = np.clip(spans, 0, height).astype(np.int64)
    counts = last - first
    if int(counts.sum()) > MAX_STROKE_ROWS:
        raise MaskError("the stroke is too long for its brush: draw it in shorter pieces")
    painted = np.zeros((height, width), np.bool_)
    groups = np.cumsum(counts) // ROWS_AT_ONCE
    for group in np.unique(groups):
        some = np.flatnonzero(groups == group)
        each, before = np.repeat(some, counts[some]), np.cumsum(counts[some]) - counts[some]
        rows = np.arange(len(each)) - np.repeat(before - first[some], counts[some])
        left, right = _run_ends(starts[each], ends[each], radius, rows + 0.5)
        begin = rows * width + np.clip(np.ceil(left - 0.5), 0, width).astype(np.int64)
        end = rows * width + np.clip(np.floor(right - 0.5) + 1, 0, width).astype(np.int64)
        _fill(painted.reshape(-1), begin[begin < end], end[begin < end])
    return painted


def _run_ends(
    start: Stroke, end: Stroke, radius: float, y: npt.NDArray[np.float64]
) -> list[npt.NDArray[np.float64]]:
    """Where the lines ``y`` enter and leave what is near the line between two points.

    A dab at the share ``t`` of the way has its ends in a row at ``x + t dx -+ sqrt(r^2 - s^2)``,
    with ``s = y - t dy`` from the start: convex in t, and extreme where
    ``s = +-r dx sign(dy) / length``.
    """
    dx, dy = (end - start).T
    above, length = y - start[:, 1], np.hypot(dx, dy)
    dy = np.where(dy == 0, 1e-200, dy)  # any t is right for all rows then, so an end is
    both = np.stack([above - radius, above + radius]) / dy
    least, most = np.clip(np.sort(both, axis=0), 0, 1)
    lean = radius * dx * np.sign(dy) / np.where(length > 0, length, 1)
    found = []
    for side in (-1, 1):
        share = np.clip((above + side * lean) / dy, least, most)
        half = np.sqrt(np.maximum(radius**2 - (above - share * dy) ** 2, 0))
        found.append(start[:, 0] + share * dx + side * half)
    return found


def _fill(flat: BoolArray, begin: npt.NDArray[np.int64], end: npt.NDArray[np.int64]) -> None:
    """Sets the runs of a flat array, which may overlap."""
    if not len(begin):
        return
    order = np.argsort(begin)
    begin, end = begin[order], np.maximum.accumulate(end[order])
    apart = begin[1:] > end[:-1]
    begin, end = begin[np.append(True, apart)], end[np.append(apart, True)]
    steps = np.zeros(end[-1] - begin[0] + 1, np.int8)
    steps[begin - begin[0]], steps[end - begin[0]] = 1, -1
    flat[begin[0] : end[-1]] |= np.cumsum(steps[:-1], dtype=np.int8).view(np.bool_)


# -- parts -----------------------------------------------------------------------------------


def _without_new_specks(left: BoolArray, erased: BoolArray) -> BoolArray:
    """What is left after erasing, without the specks that erasing made."""
    count, labels, stats, _ = cv2.connectedComponentsWithStats(left.view(np.uint8), connectivity=8)
    sizes = stats[:, cv2.CC_STAT_AREA].copy()
    sizes[0] = 0
    near = cv2.dilate(erased.view(np.uint8), np.ones((3, 3), np.uint8)).astype(np.bool_)
    touched = np.bincount(labels[near], minlength=count) > 0
    specks = touched & _are_specks(sizes)
    return left & ~specks[labels] if specks.any() else left


def _specks_joined(labels: Labels) -> Labels:
    """Numbered parts (0 is outside), each speck with the largest part that it touches."""
    places, sizes = _places(labels), np.bincount(labels.ravel())
    sizes[0] = 0
    while (specks := np.flatnonzero(_are_specks(sizes))).size:
        smallest = int(specks[np.argmin(sizes[specks])])
        y, x = places[smallest - 1]
        around = labels[max(0, y.start - 1) : y.stop + 1, max(0, x.start - 1) : x.stop + 1]
        own = (around == smallest).astype(np.uint8)
        near = cv2.dilate(own, np.ones((3, 3), np.uint8)).astype(np.bool_)
        others = np.setdiff1d(around[near], [0, smallest])
        if not others.size:  # it lies apart from all others
            others = np.setdiff1d(np.flatnonzero(sizes), [smallest])
        into = int(others[np.argmax(sizes[others])])
        around[own.astype(np.bool_)] = into
        sizes[into] += sizes[smallest]
        sizes[smallest] = 0
        both = zip(places[into - 1], (y, x), strict=True)
        places[into - 1] = [slice(min(a.start, b.start), max(a.stop, b.stop)) for a, b in both]
    return labels


def _are_specks(sizes: Labels) -> BoolArray:
    """Which of these numbers of pixels are specks of their sum; never the largest."""
    most = min(SPECK_PIXELS, SPECK_SHARE * float(sizes.sum()))
    found = (sizes > 0) & (sizes <= most)
    found[np.argmax(sizes)] = False
    return np.asarray(found)


def _places(labels: Labels) -> list[Any]:
    """The rows and columns of each part, so that none takes the time of all of them."""
    from scipy.ndimage import find_objects

    return list(find_objects(labels))


# -- crops -----------------------------------------------------------------------------------


def _only(mask: Masks) -> tuple[Box, BoolArray]:
    if len(mask) != 1:
        raise MaskError(f"one mask is edited at a time, got {len(mask)}")
    x0, y0, x1, y1 = mask.boxes_xyxy[0].tolist()
    return (x0, y0, x1, y1), mask.crop(0)


def _points(points_xy: npt.ArrayLike, what: str, *, least: int) -> Stroke:
    try:
        points = np.asarray(points_xy, np.float64)
    except (TypeError, ValueError, OverflowError) as error:
        raise MaskError(f"{what} is a list of points x, y in pixels") from error
    if points.ndim != 2 or points.shape[1] != 2 or len(points) < least:
        raise MaskError(
            f"{what} is a list of at least {least} points x, y, got shape {points.shape}"
        )
    if not np.isfinite(points).all() or np.abs(points).max() > MAX_COORDINATE:
        raise MaskError(f"{what} has a coordinate that is not a usable number")
    return points


def _placed(crop: BoolArray, own: Box, box: Box) -> BoolArray:
    """A crop of one box in another box, which contains it."""
    found = np.zeros((box[3] - box[1], box[2] - box[0]), np.bool_)
    found[own[1] - box[1] : own[3] - box[1], own[0] - box[0] : own[2] - box[0]] = crop
    return found


def _drawn(size_hw: tuple[int, int], box: Box, crop: BoolArray) -> Masks:
    """The mask of a crop, whose box need not be tight."""
    tight = tightened(box, crop)
    if tight is None:
        raise MaskError("nothing would be left of the object: delete it instead")
    return Masks.from_crops(size_hw=size_hw, boxes_xyxy=[tight[0]], crops=[tight[1]])
