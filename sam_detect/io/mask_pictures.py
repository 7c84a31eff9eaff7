"""Mask pictures: which pixels are objects. One rule for files and arrays, however they are read.

One value besides 0, also with soft edges, is a mask of objects in pieces (:func:`separate`). Of
several values or colours each is an object. All else is refused, with what was seen.
"""

from __future__ import annotations

import math
import warnings
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from sam_detect.errors import ConfigError, MaskError
from sam_detect.types.masks import BoolArray, union

Placed = tuple[tuple[int, int, int, int], BoolArray]
"""A half-open box xyxy in the picture, and the ``(h, w)`` mask in it."""

MAX_PIXELS = 1 << 27
"""Larger label maps are refused before they are decoded."""
MOST_OBJECTS = 100_000
MOST_PIECES = 10_000
"""Of one value."""
MOST_CLASSES = 64
"""A map with more values numbers objects."""
MAX_SCATTER = 25
"""How often the boxes of all values may cover the picture. Those of objects hardly overlap; in a
photograph each grey's box is the picture."""
SPECK = 5
"""Pixels of a place of a value that counts."""
LEFTOVER, LEFTOVER_SHARE = 16, 0.01
"""Pixels, and share of the largest piece: a smaller one is no piece, a brush left it over."""
BACKGROUND_SHARE = 0.75
"""What has so much of the picture's edges is the background."""
SOFT_EDGE, WIDEST_BAND, FEW_GREYS = 12, 9, 32
"""Pixels from white to the last grey of a soft edge, and of one grey that is no edge."""
NEARLY = 7 / 8
VOIDS = (255, 0xE0E0C0, 0xFFFFFF)
"""A grey and colours of outlines that belong to no object: PASCAL VOC's void, and white."""
SMOOTHED_JUMPS, SMOOTHED_EDGES = 1 / 8, 1 / 20
"""Pixels at edges that have a value between those beside them, for each place where a value is
left out, and for each edge between two pixels: more are of smooth resizing or JPEG."""
MOST_OF_ONE, HULL_SHARE = 32, 0.9
"""Pieces of one object, at most; and how much of their hull they fill with the gaps closed."""


class Numbered(NamedTuple):
    """``codes`` ``(H, W)``, from 1 for objects; the picture's ``numbers`` and the ``places`` of
    each; whether they are ``colours``, and whether most are ``scattered``, as classes are."""

    codes: npt.NDArray[Any]
    numbers: list[int]
    places: list[tuple[slice, slice]]
    colours: bool
    scattered: bool

    def crop(self, index: int) -> Placed:
        rows, columns = self.places[index]
        box = (columns.start, rows.start, columns.stop, rows.stop)
        return box, self.codes[rows, columns] == index + 1


def objects_of(
    values: npt.NDArray[Any], name: str, pieces: str | None = None, *, given: bool = False
) -> list[tuple[int, Placed]]:
    """Number and place of each object of a mask picture; takes and raises what :func:`numbered`
    and :func:`separate` do."""
    found = numbered(values, name, given=given)
    if found.scattered and pieces is None:
        raise MaskError(
            f"it seems to hold classes ({_listed(found.numbers, found.colours)}), not objects: "
            "most values lie in several places. Give each object a value of its own, or save a "
            "black-and-white mask for each class. learn --pieces each (in Python pieces='each') "
            "takes each piece as an object, --pieces one each value"
        )
    split = pieces == "each" or (len(found.numbers) == 1 and not given)
    return [
        (number, part)
        for index, number in enumerate(found.numbers)
        for part in (separate(*found.crop(index), name, pieces) if split else [found.crop(index)])
    ]


def numbered(values: npt.NDArray[Any], name: str, *, given: bool = False) -> Numbered:
    """The values of a mask picture.

    Args:
        values: ``(H, W)`` greys or numbers, or ``(H, W, C)``: opacity, colours or both.
        name: of the picture, for warnings.
        given: it is known what the numbers mean.

    Raises:
        MaskError: they are neither objects nor classes; it says what was seen.
    """
    from scipy.ndimage import find_objects

    greys, colours = _flat(values)
    codes, numbers = _coded(greys)
    found = Numbered(codes, numbers, find_objects(codes), colours, False)
    if given:
        return found
    if void := _void(found):
        shown = _listed([void], colours)
        warnings.warn(f"{name}: {shown}, thin outlines around the others, is a void border and no "
                      "object", stacklevel=2)  # fmt: skip
        codes, numbers = _coded(greys := np.where(greys == void, 0, greys))
        found = Numbered(codes, numbers, find_objects(codes), colours, False)
    scattered, scraps = _unlike_objects(found) if len(numbers) > 1 else (False, False)
    if (scattered or scraps) and not colours and _has_soft_edges(greys, len(numbers)):
        warnings.warn(f"{name} has {len(numbers)} greys, as of soft edges: what is lighter than "
                      "half is taken", stacklevel=2)  # fmt: skip
        white = int(np.iinfo(greys.dtype).max)
        codes, numbers, scattered = (greys > white / 2).astype(np.uint16), [white], False
    elif scraps or (scattered and len(numbers) > MOST_CLASSES):
        raise MaskError(
            f"it has {len(numbers)} {'colours' if colours else 'greys'}, most of them in thin or "
            "scattered bits, as of a photograph, or of a mask with soft edges, resized or saved as "
            "JPEG: "
            "save it as PNG, black and white or with one value for each object, without soft edges"
        )
    edge = np.concatenate([codes[0], codes[-1], codes[:, 0], codes[:, -1]])
    share = np.bincount(edge) / len(edge)
    most = int(share.argmax())
    several = len(numbers) > 1 or codes.min() == 0
    if most and several and share[most] >= BACKGROUND_SHARE and values.dtype != bool:
        raise MaskError(
            f"its value {_listed([numbers[most - 1]], colours)} is on {share[most]:.0%} of the "
            "picture's edges, so it seems to be the background, which must be 0 (black): invert "
            "it; or give a .npy file or an array of booleans, where an object does cover the edges"
        )
    return Numbered(codes, numbers, find_objects(codes), colours, scattered)


def separate(
    box_xyxy: tuple[int, int, int, int], mask: BoolArray, name: str, pieces: str | None = "each"
) -> list[Placed]:
    """The objects of a mask of one value: its pieces but for specks, or all of them as one.

    Args:
        pieces: ``one``, ``each``, or None: one object where they share a hull, else each; a warning
            then says which.
    """
    parts = pieces_of(box_xyxy, mask)
    areas = np.array([np.count_nonzero(crop) for _, crop in parts])
    specks = _specks(areas)
    if specks.any():
        what = f"{specks.sum()} of {len(areas)} regions, of at most {areas[specks].max()} pixels"
        warnings.warn(f"{name}: left out {what}; the other regions are far larger", stacklevel=3)
    found = [part for part, speck in zip(parts, specks, strict=True) if not speck]
    whole, count = union(found), len(found)
    together = pieces == "one" or (pieces is None and _share_a_hull(whole[1], areas[~specks]))
    if pieces is None and count > 1:
        one, each = f"1 example of {count} pieces", f"{count} examples"
        shown = (
            f"{one}, as they share a hull (learn --pieces each, in Python pieces='each': {each})"
        )
        shown = shown if together else f"{each} (learn --pieces one, in Python pieces='one': {one})"
        warnings.warn(f"{name}: {count} pieces of one value are {shown}", stacklevel=3)
    return [whole] if together else found


def pieces_of(box_xyxy: tuple[int, int, int, int], mask: BoolArray) -> list[Placed]:
    """The connected regions of a mask; raises ``MaskError`` where there are so many that it is
    noise."""
    import cv2

    _, labels, stats, _ = cv2.connectedComponentsWithStats(mask.astype(np.uint8))
    if len(stats) > MOST_PIECES:
        raise MaskError(f"one of its values lies in {len(stats) - 1:,} places: it is noise")
    left, top = box_xyxy[:2]
    return [
        (
            (left + x, top + y, left + x + w, top + y + h),
            labels[y : y + h, x : x + w] == number,
        )
        for number, (x, y, w, h, _) in enumerate(stats[1:].tolist(), start=1)
    ]


def require_pieces(pieces: str | None) -> None:
    """Raises ``ConfigError`` for another word than ``one`` and ``each``."""
    if pieces not in (None, "one", "each"):
        raise ConfigError(f"pieces must be 'one' or 'each', got {pieces!r}")


def count_pieces(mask: BoolArray) -> int:
    """How many pieces an object has, without specks."""
    import cv2

    stats = cv2.connectedComponentsWithStats(mask.astype(np.uint8))[2]
    return int(np.count_nonzero(~_specks(stats[1:, cv2.CC_STAT_AREA])))


def _specks(areas: npt.NDArray[Any]) -> BoolArray:
    return np.asarray(areas < min(LEFTOVER, LEFTOVER_SHARE * areas.max(initial=0)))


def _listed(numbers: list[int], colours: bool) -> str:
    return ", ".join(f"#{each:06x}" if colours else str(each) for each in numbers[:8])


def _flat(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], bool]:
    """``(H, W)`` numbers, and whether they are colours; what is transparent is 0."""
    channels = values.shape[2] if values.ndim == 3 else 1
    if values.ndim not in (2, 3) or channels not in (1, 2, 3, 4) or values.dtype.kind not in "buif":
        raise MaskError(
            f"it must have shape (H, W), (H, W, 3) or (H, W, 4), got {values.shape} {values.dtype}"
        )
    values = values.reshape(*values.shape[:2], channels)
    greys = values[..., 0]
    colours = channels > 2 and bool((values[..., 1:3] != values[..., :1]).any())
    if colours:
        if values.dtype != np.uint8:
            raise MaskError(f"it is in colour with values of {values.dtype}, expected 8 bits")
        greys = greys.astype(np.int32) << 16
        greys |= (values[..., 1].astype(np.int32) << 8) | values[..., 2]
    if channels in (2, 4) and (opacity := values[..., -1]).min() != opacity.max():
        visible = greys[opacity > 0]
        if visible.min() == visible.max():
            return opacity, False
        greys = np.where(opacity > opacity.max() / 2, greys, 0)
    return greys, colours


def _coded(values: npt.NDArray[Any]) -> tuple[npt.NDArray[Any], list[int]]:
    """The values as numbers from 1 (0 stays 0), and the value of each."""
    least, most = (values.min(), values.max()) if values.size else (0, math.nan)
    if not (np.isfinite(least) and np.isfinite(most)):
        raise MaskError("it has no pixels, or values that are NaN or infinite")
    rows = max(1, (1 << 22) // values.shape[1])  # some at a time, so that a copy stays small
    parts = [slice(start, start + rows) for start in range(0, len(values), rows)]
    if values.dtype.kind == "f" and any((values[p] != np.rint(values[p])).any() for p in parts):
        raise MaskError(f"it has fractions, from {least:g} to {most:g}, as of probabilities: save "
                        "what is an object as 1, all else as 0")  # fmt: skip
    if least < 0:
        raise MaskError("it has numbers below 0; 0 is the background")
    if most < 1 << 24:  # a table takes far less memory than sorting all pixels
        table = np.zeros(int(most) + 1, np.int32)
        for part in parts:
            table[values[part].astype(np.intp)] = 1
        known = np.flatnonzero(table[1:]) + 1
        table[0], table[known] = 0, np.arange(1, len(known) + 1)
        table = table.astype(np.uint16) if len(known) < 1 << 16 else table
        codes = np.concatenate([table[values[part].astype(np.intp)] for part in parts])
    else:
        known, codes = np.unique(values, return_inverse=True)
        codes = codes.reshape(values.shape).astype(np.int32) + (1 if known[0] else 0)
        known = known[known > 0]
    if len(known) > MOST_OBJECTS:
        raise MaskError(f"it has {len(known):,} values: more than {MOST_OBJECTS:,} are no objects")
    return codes, [int(each) for each in known]


def _void(found: Numbered) -> int:
    """The value of a void border, or 0: most of it is thin, and it is around half of the others
    that are solid, as soft edges are not."""
    import cv2

    band, count = np.ones((WIDEST_BAND, WIDEST_BAND), np.uint8), len(found.numbers)
    for code in (found.numbers.index(each) + 1 for each in VOIDS if each in found.numbers):
        rows, columns = (slice(max(0, s.start - 1), s.stop + 1) for s in found.places[code - 1])
        near = found.codes[rows, columns]
        void = (near == code).astype(np.uint8)
        wide = cv2.morphologyEx(void, cv2.MORPH_OPEN, band)
        edges, outlined = np.zeros((2, count + 1), np.int64)
        for one, other in ((near[1:], near[:-1]), (near[:, 1:], near[:, :-1])):
            for inside, outside in ((one, other), (other, one)):
                edges += np.bincount(inside[inside != outside], minlength=count + 1)
                outlined += np.bincount(inside[outside == code], minlength=count + 1)
        solid = np.setdiff1d(near[_inner(near)], (0, code))
        around = np.count_nonzero(2 * outlined[solid] >= edges[solid])
        if 2 * wide.sum() <= void.sum() and 2 * around >= max(1, len(solid), count / 2):
            return found.numbers[code - 1]
    return 0


def _unlike_objects(found: Numbered) -> tuple[bool, bool]:
    """Whether half of the values lie in several places each (or all over the picture); and whether
    half are scraps: nowhere two pixels wide, and at other values; or there is what smoothing
    leaves at edges."""
    import cv2

    codes, count = found.codes, len(found.numbers)
    boxes = sum((y.stop - y.start) * (x.stop - x.start) for y, x in found.places)
    if boxes > MAX_SCATTER * codes.size:
        return True, count > MOST_CLASSES
    solid, touching = np.zeros((2, count + 1), np.bool_)
    for start in range(0, len(codes), 1024):
        rows = codes[start : start + 1025]
        same = (rows[1:, 1:] == rows[:-1, :-1]) & (rows[1:, :-1] == rows[:-1, :-1])
        solid[rows[:-1, :-1][same & (rows[:-1, 1:] == rows[:-1, :-1])]] = True
        for one, other in ((rows[1:], rows[:-1]), (rows[:, 1:], rows[:, :-1])):
            differ = (one != other) & (one > 0) & (other > 0)
            touching[one[differ]] = touching[other[differ]] = True
    scattered = 0
    for index in range(count):
        crop = found.crop(index)[1]
        stats = cv2.connectedComponentsWithStats(crop.astype(np.uint8))[2]
        areas = np.sort(stats[1:, cv2.CC_STAT_AREA])
        if len(areas) > 1 and areas[-2] >= max(SPECK, areas[-1] / 5):
            scattered += not _share_a_hull(crop, areas)
    scraps = 2 * np.count_nonzero(~solid[1:] & touching[1:]) >= count
    return 2 * scattered >= count, scraps or (not found.colours and _is_smoothed(codes, count))


def _is_smoothed(codes: npt.NDArray[Any], count: int) -> bool:
    """Whether edges have values between those of both sides, in thin places of values that are
    solid elsewhere."""
    import cv2

    band = np.ones((WIDEST_BAND, WIDEST_BAND), np.uint8)
    if count == 2 and not cv2.erode((codes == 1).astype(np.uint8), band).any():
        return False  # a class of borders
    pixels, solid, false = np.zeros((3, count + 1), np.int64)
    edges = jumps = 0
    for start in range(0, len(codes), 1024):
        rows = codes[start : start + 1026]
        wide = cv2.dilate(_inner(rows).astype(np.uint8), np.ones((3, 3), np.uint8)) > 0
        between = np.zeros(rows.shape, np.bool_)
        for values, found in ((rows, between), (rows.T, between.T)):
            for far in (1, 2):
                one, here, other = values[: -2 * far], values[far:-far], values[2 * far :]
                found[far:-far] |= np.where(one < here, here < other, (one > here) & (here > other))
        between &= ~wide
        for values, found in ((rows, between), (rows.T, between.T)):
            steps = np.abs(np.diff(values.astype(np.int32), axis=0))
            edges += np.count_nonzero(steps)
            jumps += np.count_nonzero((steps > 1) & ~found[1:] & ~found[:-1])
        pixels += np.bincount(rows.ravel(), minlength=count + 1)
        solid += np.bincount(rows[wide], minlength=count + 1)
        false += np.bincount(rows[between], minlength=count + 1)
    smoothed = int(false[4 * solid >= pixels].sum())
    return smoothed > max(SPECK, SMOOTHED_JUMPS * jumps, SMOOTHED_EDGES * edges)


def _inner(codes: npt.NDArray[Any]) -> BoolArray:
    """The pixels that have the value of all those around them."""
    import cv2

    values, window = codes.astype(np.float32), np.ones((3, 3), np.uint8)
    return np.asarray(cv2.erode(values, window) == cv2.dilate(values, window))


def _has_soft_edges(greys: npt.NDArray[Any], count: int) -> bool:
    """Whether it is black and white, with bands of greys around white only. Of many greys, dark
    ones are black: JPEG has them anywhere."""
    import cv2

    if greys.dtype not in (np.uint8, np.uint16):
        return False
    most = np.iinfo(greys.dtype).max
    white = greys >= most * NEARLY
    solid = cv2.morphologyEx(white.astype(np.uint8), cv2.MORPH_OPEN, np.ones((3, 3), np.uint8))
    away = cv2.distanceTransform(1 - solid, cv2.DIST_L2, 3)
    band = np.ones((WIDEST_BAND, WIDEST_BAND), np.uint8)
    wide = cv2.erode(greys, band) == cv2.dilate(greys, band)
    grey = (greys > (most * (1 - NEARLY) if count > FEW_GREYS else 0)) & ~white
    return bool(solid.any() and away[grey].max(initial=0) <= SOFT_EDGE and not (wide & grey).any())


def _share_a_hull(mask: BoolArray, areas: npt.NDArray[Any]) -> bool:
    """Whether pieces are one object behind thin things: with the gaps closed, which are at most
    half as wide as the usual piece, they are one region that fills its convex hull."""
    import cv2
    from skimage.morphology import convex_hull_image, isotropic_closing

    if not 2 <= len(areas) <= MOST_OF_ONE:
        return False
    step = math.ceil(max(mask.shape) / 1000)  # coarser is enough for large ones
    widest = int(math.sqrt(float(np.median(areas))) / 4 / step)
    small = np.pad(mask[::step, ::step], 2 * widest + 2)
    away = cv2.distanceTransform((~small).astype(np.uint8), cv2.DIST_L2, 5)
    for reach in range(widest + 1):
        if cv2.connectedComponents((away <= reach).astype(np.uint8))[0] == 2:
            closed = isotropic_closing(small, 1.5 * reach)
            return bool(closed.sum() >= HULL_SHARE * convex_hull_image(closed).sum())
    return False
