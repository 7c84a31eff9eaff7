"""Outlines of masks as polygons with holes, and the masks that such polygons cover.

Coordinates are x, y in pixels, and pixel ``i`` covers ``[i, i + 1]``. A pixel belongs to a polygon
whose inside holds the pixel's centre, by the even-odd rule. So :func:`mask_polygons` and
:func:`polygons_to_crop` are inverse to each other: no pixel is lost, however often.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from sam_detect.errors import MaskError
from sam_detect.types.masks import BoolArray, FloatArray, MaskRLE, crop_to_rle, tight_box_xyxy

Ring = npt.NDArray[np.float64]
"""``(K, 2)`` corners x, y of a closed outline, the first one not repeated at the end."""
Polygon = tuple[Ring, ...]
"""The outline of one part of an object, then those of the holes in it."""

MAX_OUTLINE_PIXELS = 2_000_000
"""Longest polygon, in rows of pixels that its edges cross."""
MOST_RINGS = 25_000
"""Pieces and holes of a mask that becomes polygons."""
MAX_COORDINATE = 1e7
EXACT_TOLERANCE_PX = 0.3
"""A bevel passes .35 pixels from the nearest centre, so none changes its side."""
LONG_EDGE_PX = 3
ON_OUTLINE_PX = 0.01


def checked_ring(points_xy: Any) -> Ring:
    """A file's points as a ring; a last point that repeats the first is dropped.

    Args:
        points_xy: ``(K, 2)`` or flat ``x0, y0, x1, y1, ...``; further columns (z) are ignored.

    Raises:
        MaskError: fewer than 3 points, an odd count, or a number that is not usable.
    """
    try:
        values = np.asarray(points_xy, dtype=np.float64)
    except OverflowError as error:  # a whole number of hundreds of digits
        raise MaskError("a polygon has a coordinate that is not a usable number") from error
    except (TypeError, ValueError, RecursionError) as error:
        raise MaskError("a polygon is a list of numbers x0, y0, x1, y1, ...") from error
    if values.ndim == 1 and values.size % 2 == 0:
        values = values.reshape(-1, 2)
    if values.ndim != 2 or not 2 <= values.shape[1] <= 3:
        raise MaskError("a polygon needs at least 3 points as a list x0, y0, x1, y1, ...")
    ring = values[:, :2]
    if len(ring) > 3 and (ring[0] == ring[-1]).all():
        ring = ring[:-1]
    if len(ring) < 3:
        raise MaskError("a polygon needs at least 3 points as a list x0, y0, x1, y1, ...")
    if not np.isfinite(ring).all() or np.abs(ring).max() > MAX_COORDINATE:
        raise MaskError("a polygon has a coordinate that is not a usable number")
    return np.ascontiguousarray(ring)


def share_inside(polygons: Sequence[Polygon], size_hw: tuple[int, int]) -> float:
    """The share of the area of polygons that lies in the picture; 1 of those without an area."""
    height, width = size_hw
    points = np.concatenate([ring for polygon in polygons for ring in polygon])
    if (points >= 0).all() and (points <= (width, height)).all():
        return 1.0
    import shapely

    valid = shapely.make_valid([shapely.Polygon(outer, holes) for outer, *holes in polygons])
    parts = shapely.get_parts(valid)
    whole = shapely.union_all(parts[shapely.area(parts) > 0])  # without their spikes
    inside = whole.intersection(shapely.box(0, 0, width, height))
    return float(inside.area / whole.area) if whole.area else 1.0


def is_rectangle(ring: Ring) -> bool:
    """Whether four corners are those of a rectangle, upright or turned, within a pixel."""
    if ring.shape != (4, 2):
        return False
    rays = ring - ring.mean(axis=0)
    away = np.hypot(*rays.T)
    halved = np.hypot(*(rays[:2] + rays[2:]).T) / 2
    return bool(halved.max() <= 1 and np.abs(away - away.mean()).max() <= 1)


def box_around(ring: Ring) -> tuple[float, float, float, float]:
    """The upright box x, y, width, height around corners."""
    (x0, y0), (x1, y1) = ring.min(axis=0).tolist(), ring.max(axis=0).tolist()
    return x0, y0, x1 - x0, y1 - y0


def polygons_to_crop(
    polygons: Sequence[Polygon], size_hw: tuple[int, int]
) -> tuple[tuple[int, int, int, int], BoolArray] | None:
    """The tight half-open box xyxy of the union of polygons, and its ``(h, w)`` crop.

    What lies outside the picture is cut off; None where no pixel's centre lies inside.

    Raises:
        MaskError: there is no polygon, or one is longer than any picture's.
    """
    if not polygons:
        raise MaskError("an outline needs a list of polygons")
    points = np.concatenate([ring for polygon in polygons for ring in polygon])
    height, width = size_hw
    x0, y0 = np.clip(np.floor(points.min(axis=0)), 0, (width, height)).astype(int).tolist()
    x1, y1 = np.clip(np.ceil(points.max(axis=0)), 0, (width, height)).astype(int).tolist()
    if x0 >= x1 or y0 >= y1:
        return None
    filled = _filled(polygons[0], (x0, y0, x1, y1))
    for polygon in polygons[1:]:
        filled |= _filled(polygon, (x0, y0, x1, y1))
    box = tight_box_xyxy(filled)
    if box is None:
        return None
    left, top, right, bottom = box
    moved = (x0 + left, y0 + top, x0 + right, y0 + bottom)
    return moved, np.ascontiguousarray(filled[top:bottom, left:right])


def _filled(polygon: Polygon, box_xyxy: tuple[int, int, int, int]) -> BoolArray:
    """The pixels of a box whose centre lies inside: those left of which an odd number of edges
    crosses the centre line of their row."""
    left, top, right, bottom = box_xyxy
    height, width = bottom - top, right - left
    starts = np.concatenate(polygon) - (left, top)
    ends = np.concatenate([_following(ring) for ring in polygon]) - (left, top)
    levels = np.ceil(np.stack([starts[:, 1], ends[:, 1]]) - 0.5)
    first, last = np.clip(np.sort(levels, axis=0), 0, height).astype(np.int64)
    counts = last - first
    total = int(counts.sum())
    if total > MAX_OUTLINE_PIXELS:
        raise MaskError(f"a polygon is more than {MAX_OUTLINE_PIXELS} pixels long")
    edges = np.repeat(np.arange(len(starts)), counts)
    rows = np.arange(total) + np.repeat(first - np.cumsum(counts) + counts, counts)
    (x, y), (to_x, to_y) = starts[edges].T, ends[edges].T
    crossing = x + (rows + 0.5 - y) * ((to_x - x) / (to_y - y))
    columns = np.clip(np.ceil(crossing - 0.5), 0, width).astype(np.int64)
    toggles = np.bincount(rows * (width + 1) + columns, minlength=height * (width + 1))
    inside = np.cumsum(toggles.reshape(height, width + 1)[:, :width], axis=1) & 1
    return inside.astype(np.bool_)


def require_mostly_inside(polygons: Sequence[Polygon], size_hw: tuple[int, int]) -> None:
    """Raises ``MaskError`` where more than half of an outline's area is cut off by the picture."""
    share = 1 - share_inside(polygons, size_hw)
    if 0.5 < share < 1:  # without a pixel inside it is none, which is said of it
        raise MaskError(
            f"{share:.0%} of its outline is outside of the {size_hw[1]}x{size_hw[0]} picture: is "
            "it of another picture? Give the part inside, or (but for YOLO) --fit as-is"
        )


def polygons_to_rle(polygons: Sequence[Polygon], size_hw: tuple[int, int]) -> MaskRLE | None:
    """Full-size COCO RLE of :func:`polygons_to_crop`, or None without a pixel."""
    found = polygons_to_crop(polygons, size_hw)
    return None if found is None else crop_to_rle(found[1], found[0], size_hw)


def polygons_to_mask(polygons: Sequence[Polygon], size_hw: tuple[int, int]) -> BoolArray:
    """``(H, W)`` mask of :func:`polygons_to_crop`; empty where that is None."""
    mask = np.zeros(size_hw, np.bool_)
    if (found := polygons_to_crop(polygons, size_hw)) is not None:
        x0, y0, x1, y1 = found[0]
        mask[y0:y1, x0:x1] = found[1]
    return mask


def coco_polygons(polygons_xy: Any) -> list[Polygon]:
    """COCO's polygons (flat ``x0, y0, x1, y1, ...``), of which an object is the union.

    Raises:
        MaskError: it is no list of polygons, or as :func:`checked_ring`.
    """
    if not isinstance(polygons_xy, (list, tuple)) or not polygons_xy:
        raise MaskError("an outline needs a list of polygons")
    return [(checked_ring(each),) for each in polygons_xy]


def pycocotools_rle(polygons: Sequence[Polygon], size_hw: tuple[int, int]) -> MaskRLE:
    """Full-size COCO RLE of the union of polygons without holes, as pycocotools draws it: up to a
    few pixels of an outline between pixels differ. For figures that others can compute again.

    Raises:
        MaskError: one is longer than any picture's: pycocotools' C code walks every pixel of it,
            and crashes where memory ends.
    """
    from pycocotools import mask  # imported on use: `import sam_detect` stays light

    for ring, *_ in polygons:
        if np.abs(ring - _preceding(ring)).max(axis=1).sum() > MAX_OUTLINE_PIXELS:
            raise MaskError(f"a polygon is more than {MAX_OUTLINE_PIXELS} pixels long")
    height, width = size_hw
    tool: Any = mask
    parts = tool.frPyObjects([polygon[0].ravel().tolist() for polygon in polygons], height, width)
    counts: bytes = tool.merge(parts)["counts"]
    return {"size": [height, width], "counts": counts.decode("ascii")}


def nested(rings: Sequence[Ring]) -> list[Polygon]:
    """Rings that stand for their even-odd area, as polygons with holes: a ring inside an odd number
    of others is a hole. Rings that cross each other or themselves stay one polygon."""
    import shapely

    shapes = shapely.polygons([shapely.linearrings(ring) for ring in rings])
    if len(rings) == 1 or not shapely.is_valid(shapes).all():
        return [tuple(rings)]
    points = shapely.point_on_surface(shapes)
    inside, around = shapely.STRtree(shapes).query(points, predicate="within")
    areas = shapely.area(shapes)
    parents: dict[int, list[int]] = {}
    for ring, other in zip(inside.tolist(), around.tolist(), strict=True):
        if areas[other] > areas[ring]:
            parents.setdefault(ring, []).append(other)
    shells = [index for index in range(len(rings)) if len(parents.get(index, ())) % 2 == 0]
    holes: dict[int, list[Ring]] = {}
    for ring, others in parents.items():
        if len(others) % 2:
            holes.setdefault(min(others, key=lambda i: float(areas[i])), []).append(rings[ring])
    return [(rings[index], *holes.get(index, ())) for index in shells]


def from_pixel_centres(polygon: Polygon) -> Polygon:
    """A polygon whose coordinates are those of pixels' centres, in those of their edges. Pixels
    whose centre lies on its outline are inside, as with OpenCV's contours."""
    import shapely

    shape = shapely.Polygon(polygon[0] + 0.5, [ring + 0.5 for ring in polygon[1:]])
    wider = (shape if shape.is_valid else shapely.make_valid(shape)).buffer(ON_OUTLINE_PX)
    parts = [part for part in getattr(wider, "geoms", [wider]) if not part.is_empty]
    rings = [ring for part in parts for ring in (part.exterior, *part.interiors)]
    return tuple(np.asarray(ring.coords)[:-1, :2] for ring in rings) or polygon


def mask_polygons(
    crop: BoolArray, box_xyxy: Sequence[int], *, tolerance_px: float = EXACT_TOLERANCE_PX
) -> list[Polygon]:
    """The parts of one mask as polygons with holes, the largest first.

    An outline follows the edges of the pixels. Steps of one pixel become slopes, and long edges
    keep their corners. Pixels that touch at a corner are one part.

    Args:
        crop: ``(h, w)`` bool with at least one true pixel; fills the box.
        box_xyxy: where the crop lies in the picture; half-open, in pixels.
        tolerance_px: how far the outline may be from the mask's. Up to
            :data:`EXACT_TOLERANCE_PX`, :func:`polygons_to_crop` makes the same mask of it. Above,
            outlines are simplified, and holes that are smaller disappear (Douglas and Peucker
            1973, by shapely, which keeps polygons valid).

    Raises:
        MaskError: it is noise, which would take minutes.
    """
    import cv2  # imported on use: `import sam_detect` stays light

    noise = "its mask has so many pieces and holes that it is noise"
    if np.count_nonzero(crop[:, 1:] != crop[:, :-1]) > MAX_OUTLINE_PIXELS:
        raise MaskError(noise)
    # Each pixel twice as large: OpenCV's contour runs through the centres of pixels, and here
    # their half pixels tell on which side of a pixel the edge is.
    doubled = np.repeat(np.repeat(crop.view(np.uint8), 2, axis=0), 2, axis=1)
    contours, hierarchy = cv2.findContours(doubled, cv2.RETR_CCOMP, cv2.CHAIN_APPROX_SIMPLE)
    if len(contours) > MOST_RINGS:
        raise MaskError(noise)
    cornered = []
    for contour in contours:
        corners = (contour[:, 0, :] + 1) // 2
        cornered.append(corners[(corners != _preceding(corners)).any(axis=1)])
    everywhere = np.concatenate(cornered) @ (1, crop.shape[1] + 1)
    _, number, times = np.unique(everywhere, return_inverse=True, return_counts=True)
    shared = np.split(times[number.ravel()] > 1, np.cumsum([len(c) for c in cornered])[:-1])
    rings: dict[int, Ring] = {}
    for index, (corners, touching) in enumerate(zip(cornered, shared, strict=True)):
        points = _bevelled(corners, touching)[:, None]
        smooth = cv2.approxPolyDP(points, min(tolerance_px, EXACT_TOLERANCE_PX), closed=True)
        rings[index] = smooth[:, 0, :].astype(np.float64) + np.asarray(box_xyxy[:2], np.float64)
    parents = hierarchy[0, :, 3].tolist()
    order = sorted(rings, key=lambda i: cv2.contourArea(rings[i].astype(np.float32)), reverse=True)
    holes: dict[int, list[Ring]] = {}
    for index in order:
        holes.setdefault(parents[index], []).append(rings[index])
    polygons = [(rings[part], *holes.get(part, ())) for part in order if parents[part] < 0]
    return polygons if tolerance_px <= EXACT_TOLERANCE_PX else simplified(polygons, tolerance_px)


def simplified(polygons: Iterable[Polygon], tolerance_px: float) -> list[Polygon]:
    """Polygons with fewer corners; none gets far from its outline, crosses itself or vanishes."""
    import shapely

    found: list[Polygon] = []
    for polygon in polygons:
        shape = shapely.Polygon(polygon[0], polygon[1:]).simplify(tolerance_px)
        holes = [ring for ring in shape.interiors if shapely.Polygon(ring).area > tolerance_px**2]
        rings = tuple(np.asarray(ring.coords)[:-1, :2] for ring in (shape.exterior, *holes))
        found.append(rings if len(rings[0]) >= 3 else polygon)
    return found


def _bevelled(corners: npt.NDArray[np.int32], touching: BoolArray) -> FloatArray:
    """Points half a pixel before and after each corner; of a rectangle, and between two long
    edges, the corner itself, unless another outline touches it there."""
    steps = _following(corners) - corners
    lengths, signs = np.abs(steps).sum(axis=1), np.sign(steps)
    after = corners + 0.5 * signs
    before = corners - 0.5 * _preceding(signs)
    sharp = (np.minimum(lengths, _preceding(lengths)) >= LONG_EDGE_PX) | (len(corners) == 4)
    sharp &= ~touching
    before[sharp] = after[sharp] = corners[sharp]
    points = np.stack([before, after], axis=1).reshape(-1, 2)
    kept = (points != _preceding(points)).any(axis=1)
    return np.asarray(points[kept], np.float32)


def _following(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    """For each row of a closed outline the next one; ``np.roll`` takes six times as long."""
    return np.concatenate((rows[1:], rows[:1]))


def _preceding(rows: npt.NDArray[Any]) -> npt.NDArray[Any]:
    return np.concatenate((rows[-1:], rows[:-1]))


def join_rings(rings: Sequence[Ring]) -> Ring:
    """One outline for an object of several parts and holes, for formats that know only one.

    From the first ring a line leads to the nearest corner of the next one, around it and back.
    Filled by the even-odd rule, as OpenCV and pycocotools fill, the lines disappear.
    """
    joined, *rest = rings
    waiting = list(rest)
    while waiting:
        gaps = [np.linalg.norm(joined[:, None] - ring[None], axis=2) for ring in waiting]
        nearest = int(np.argmin([gap.min() for gap in gaps]))
        ring, gap = waiting.pop(nearest), gaps[nearest]
        here, there = np.unravel_index(int(np.argmin(gap)), gap.shape)
        around = np.roll(ring, -int(there), axis=0)
        joined = np.concatenate([joined[: here + 1], around, around[:1], joined[here:]])
    return joined
