"""Learned features of a whole picture under many masks, each object at the scale of its size.

A crop is scaled so that its object has about as many feature cells as any other. Here the picture
is scaled instead, once for all objects of about one size: a pyramid with steps of an octave. The
scale follows from the mask alone, so a vector does not depend on what else is in the picture or in
the library. Each level is read and described in tiles, and only where a mask lies: memory does not
depend on the size of the picture.

An example is described by its crop at the same scale. The crop's borders are reflected, since the
features of a picture know what lies around.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.models.efficientnet_lite0 import CHANNELS, Network, normalised
from sam_detect.types import Crop, ImageRGB, Masks
from sam_detect.types.masks import FloatArray
from sam_detect.types.scratch import reduced, release

OCCUPANCY = 0.2
"""Share of its window that an object takes..."""
WINDOW = 96.0
"""... and the side of the window at the object's level, in pixels: up to 1.4 times more or less,
as the levels are an octave apart."""
STEPS = 1
"""Levels in an octave. Two cost about twice the pixels; F1 was .044 lower on nuclei, .002 lower on
nuts and .008 higher on plates."""
LARGEST_SCALE = 8.0
"""No picture is enlarged more."""
MARGIN = 2
"""Pixels between a window and the object's box."""
CELL, COARSE = 8, 16
"""Strides of the features."""
HALO, CORE = 32, 256
"""Pixels of context around the inside of a tile, and the side of that."""
SHAPES = 64
"""Sides of a small picture are filled up to multiples of this: the network is slow the first time
that it gets a shape."""
CANVAS = 160
"""Side of the input for a single object: its window with some context around."""
MASKS_AT_ONCE = 256
CROPS_AT_ONCE = 8
"""Inputs of the network for single objects. More take longer each, as they leave the processor's
cache (64: a quarter longer), and a gigabyte more; and each new number is slow the first time."""

Numbers = npt.NDArray[np.float64]
Sums = dict[int, FloatArray]
"""By stride, ``(N, C)`` sums of features under N masks."""


def features_of_frame(
    network: Network, image_rgb: ImageRGB, masks: Masks, *, finest: float = math.inf
) -> Sums:
    """The features of N masks of a picture, up to a factor for each mask.

    Args:
        finest: the largest scale; smaller objects have fewer cells.
    """
    found = _zeros(len(masks))
    sides = masks.boxes_xyxy[:, 2:] - masks.boxes_xyxy[:, :2]
    scales = np.minimum(scales_of(masks.areas, sides.max(axis=1, initial=0)), finest)
    for scale in np.unique(scales):
        level, chosen = _Level.of(image_rgb, float(scale)), np.flatnonzero(scales == scale)
        shares = []
        for index in chosen.tolist():
            box = masks.boxes_xyxy[index].tolist()
            corner = box[0] * level.factors_xy[0], box[1] * level.factors_xy[1]
            shares.append(_Shares.of(masks.crop(index), corner, level.factors_xy))
        for stride, sums in level.sums(network, shares).items():
            found[stride][chosen] = sums
    return found


def features_of_crops(network: Network, crops: Sequence[Crop]) -> Sums:
    """The features of the objects of N crops, comparable with those of masks of a frame."""
    found = _zeros(len(crops))
    whole = _Side(slice(0, CANVAS), slice(0, CANVAS // CELL))
    for start in range(0, len(crops), CROPS_AT_ONCE):
        placed = [_on_canvas(crop) for crop in crops[start : start + CROPS_AT_ONCE]]
        features = network(np.stack([normalised(picture) for picture, _ in placed]))
        for index, (_, shares) in enumerate(placed):
            maps = {stride: features[stride][index] for stride in found}
            for stride, sums in _sums(maps, [shares], (whole, whole)).items():
                found[stride][start + index] = sums[0]
    return found


def scales_of(areas: npt.NDArray[Any], sides: npt.NDArray[Any]) -> Numbers:
    """``(N,)`` scales at which objects are described; 2 doubles the sides of the picture.

    Args:
        areas: ``(N,)`` in pixels of the picture.
        sides: ``(N,)`` the longer sides of their boxes, likewise.
    """
    windows = np.maximum(np.sqrt(areas / OCCUPANCY), sides + 2.0 * MARGIN)
    octaves = np.round(np.log2(WINDOW / windows) * STEPS) / STEPS
    return np.asarray(np.minimum(2.0**octaves, LARGEST_SCALE), np.float64)


@dataclass(frozen=True, eq=False)
class _Shares:
    """How much of each feature cell of stride ``CELL`` a mask covers.

    Attributes:
        cells: ``(h, w)`` float32.
        first_yx: the first cell; both are even, so that two by two cells are a coarse one.
    """

    cells: FloatArray
    first_yx: tuple[int, int]

    @classmethod
    def of(
        cls,
        mask: npt.NDArray[np.bool_],
        corner_xy: tuple[float, float],
        factors_xy: tuple[float, float],
    ) -> _Shares:
        """Of a mask whose pixels are ``factors_xy`` wide and high, and begin at a corner."""
        across, column = _overlaps(corner_xy[0], mask.shape[1], factors_xy[0])
        down, row = _overlaps(corner_xy[1], mask.shape[0], factors_xy[1])
        return cls(np.asarray(down.T @ mask.astype(np.float32) @ across, np.float32), (row, column))


@dataclass(frozen=True, eq=False)
class _Level:
    """A picture at one scale.

    Attributes:
        image_rgb: reduced, where the scale is below 1; else as it is, and enlarged tile by tile.
        size_yx: at this scale.
        factors_xy: exact scales from the picture to this level.
        enlarged: from ``image_rgb`` to this level.
    """

    image_rgb: ImageRGB
    size_yx: tuple[int, int]
    factors_xy: tuple[float, float]
    enlarged: float

    @classmethod
    def of(cls, image_rgb: ImageRGB, scale: float) -> _Level:
        height, width = image_rgb.shape[:2]
        if scale > 1:
            size_yx = math.ceil(height * scale), math.ceil(width * scale)
            return cls(image_rgb, size_yx, (scale, scale), scale)
        size = max(1, round(width * scale)), max(1, round(height * scale))
        return cls(reduced(image_rgb, size), size[::-1], (size[0] / width, size[1] / height), 1.0)

    def sums(self, network: Network, shares: Sequence[_Shares]) -> Sums:
        """The features under masks of this level."""
        found = _zeros(len(shares))
        for tile, indices in self._tiles(shares):
            picture = self._read(tile)
            release(self.image_rgb)
            maps = {stride: features[0] for stride, features in network(picture[None]).items()}
            for start in range(0, len(indices), MASKS_AT_ONCE):
                some = indices[start : start + MASKS_AT_ONCE]
                for stride, sums in _sums(maps, [shares[index] for index in some], tile).items():
                    found[stride][some] += sums
        return found

    def _tiles(self, shares: Sequence[_Shares]) -> list[tuple[_Tile, list[int]]]:
        """What the network gets, each with the masks in it: tiles of the whole picture that have
        any, or, where these are more pixels, a window around each mask."""
        rows, columns = (_sides(length) for length in self.size_yx)
        members: dict[tuple[int, int], list[int]] = defaultdict(list)
        for index, one in enumerate(shares):
            for row in _met(rows, one.first_yx[0], one.cells.shape[0]):
                for column in _met(columns, one.first_yx[1], one.cells.shape[1]):
                    members[row, column].append(index)
        tiles = [((rows[row], columns[column]), each) for (row, column), each in members.items()]
        around = [((_around(one, 0), _around(one, 1)), [i]) for i, one in enumerate(shares)]
        return min(tiles, around, key=_pixels)

    def _read(self, tile: _Tile) -> FloatArray:
        """A tile as the network takes it, ``(3, h, w)``; beyond the picture it is grey."""
        rows, columns = (side.window for side in tile)
        picture = np.zeros((3, rows.stop - rows.start, columns.stop - columns.start), np.float32)
        bottom, right = min(rows.stop, self.size_yx[0]), min(columns.stop, self.size_yx[1])
        if self.enlarged > 1:
            part = self._enlarge(slice(rows.start, bottom), slice(columns.start, right))
        else:
            part = self.image_rgb[rows.start : bottom, columns.start : right]
        picture[:, : part.shape[0], : part.shape[1]] = normalised(part)
        return picture

    def _enlarge(self, rows: slice, columns: slice) -> ImageRGB:
        """A part of the level, read from the picture around it."""
        spans = []
        for part, length in ((rows, self.image_rgb.shape[0]), (columns, self.image_rgb.shape[1])):
            low, high = (math.floor((end + 0.5) / self.enlarged - 0.5) for end in
                         (part.start, part.stop))  # fmt: skip
            spans.append((max(low, 0), min(high + 2, length)))
        (top, bottom), (left, right) = spans
        each = 1 / self.enlarged  # the centre of a pixel lies half a pixel from its corner
        shift_x = (columns.start + 0.5) * each - 0.5 - left
        shift_y = (rows.start + 0.5) * each - 0.5 - top
        return np.asarray(
            cv2.warpAffine(
                self.image_rgb[top:bottom, left:right],
                np.array([[each, 0, shift_x], [0, each, shift_y]]),
                (columns.stop - columns.start, rows.stop - rows.start),
                flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
                borderMode=cv2.BORDER_REPLICATE,
            ),
            np.uint8,
        )


class _Side(NamedTuple):
    """One side of a tile.

    Attributes:
        window: in pixels.
        inside: cells whose features are its own; of all tiles of a picture, every cell once.
    """

    window: slice
    inside: slice


_Tile = tuple[_Side, _Side]
"""Its rows and its columns."""


def _sides(length: int) -> list[_Side]:
    """Of tiles along so many pixels."""
    count = max(1, math.ceil((length - 2 * HALO) / CORE))
    size = CORE + 2 * HALO if count > 1 else math.ceil(length / SHAPES) * SHAPES
    found = []
    for start in range(0, count * CORE, CORE):
        begin = start + HALO if start else 0
        end = start + (size if start == (count - 1) * CORE else CORE + HALO)
        found.append(_Side(slice(start, start + size), slice(begin // CELL, end // CELL)))
    return found


def _around(mask: _Shares, axis: int) -> _Side:
    """Of a window with a mask in its middle."""
    first, count = mask.first_yx[axis], mask.cells.shape[axis]
    size = max(CANVAS // CELL, count)
    start = max(0, (first + (count - size) // 2) // 2 * 2)
    return _Side(slice(start * CELL, (start + size) * CELL), slice(start, start + size))


def _pixels(tiles: Sequence[tuple[_Tile, list[int]]]) -> int:
    return sum(
        math.prod(side.window.stop - side.window.start for side in tile) for tile, _ in tiles
    )


def _met(tiles: Sequence[_Side], first: int, count: int) -> range:
    """The tiles whose own cells are some of ``count`` cells."""
    low, high = ((cell * CELL - HALO) // CORE for cell in (first, first + count - 1))
    return range(min(max(low, 0), len(tiles) - 1), min(max(high, 0), len(tiles) - 1) + 1)


def _overlaps(start: float, count: int, factor: float) -> tuple[FloatArray, int]:
    """``(count, cells)``: how much each of ``count`` intervals shares with each cell, in cells; and
    the number of the first cell. Two cells are never parted.

    Args:
        start: where the first interval begins, in pixels.
        factor: length of each interval, in pixels.
    """
    edges = (start + np.arange(count + 1) * factor) / CELL
    # Rounding errors must not reach a cell that is not there.
    first, last = (2 * math.floor(end / 2) for end in (edges[0] + 1e-6, edges[-1] - 1e-6))
    cells = np.arange(first, last + 3)
    low = np.maximum(edges[:-1, None], cells[None, :-1])
    shared = np.minimum(edges[1:, None], cells[None, 1:]) - low
    return np.asarray(np.clip(shared, 0, None), np.float32), first


def _on_canvas(crop: Crop) -> tuple[ImageRGB, _Shares]:
    """A crop at its object's scale, in the middle of a canvas that its reflections fill, and the
    cells of its object."""
    height, width = crop.mask.shape
    rows, columns = (np.flatnonzero(crop.mask.any(axis=axis)) for axis in (1, 0))
    side = max(np.ptp(rows), np.ptp(columns)) + 1
    scale = scales_of(np.array([crop.area]), np.array([side / crop.scale]))[0] / crop.scale
    scale = min(scale, CANVAS / max(height, width))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    interpolation = cv2.INTER_AREA if scale < 1 else cv2.INTER_LINEAR
    picture = cv2.resize(crop.image_rgb, size, interpolation=interpolation)
    left, top = (CANVAS - size[0]) // 2, (CANVAS - size[1]) // 2
    right, bottom = CANVAS - size[0] - left, CANVAS - size[1] - top
    picture = cv2.copyMakeBorder(picture, top, bottom, left, right, cv2.BORDER_REFLECT_101)
    factors = size[0] / width, size[1] / height
    return np.asarray(picture, np.uint8), _Shares.of(crop.mask, (left, top), factors)


def _sums(maps: Sums, shares: Sequence[_Shares], tile: _Tile) -> Sums:
    """The features of a tile, ``(C, h, w)`` by stride, under N masks."""
    height, width = maps[CELL].shape[1:]
    dense = np.zeros((len(shares), height, width), np.float32)
    for index, one in enumerate(shares):
        places, parts = [], []
        for side, own, count in zip(tile, one.first_yx, one.cells.shape, strict=True):
            first = side.window.start // CELL
            low, high = max(side.inside.start, own), min(side.inside.stop, own + count)
            places.append(slice(low - first, high - first))
            parts.append(slice(low - own, high - own))
        dense[index][tuple(places)] = one.cells[tuple(parts)]
    coarse = dense.reshape(len(shares), height // 2, 2, width // 2, 2).sum(axis=(2, 4))
    return {
        stride: np.asarray(weights.reshape(len(shares), -1) @ _flat(maps[stride]).T, np.float32)
        for stride, weights in ((CELL, dense), (COARSE, coarse))
    }


def _flat(features: FloatArray) -> FloatArray:
    return features.reshape(len(features), -1)


def _zeros(count: int) -> Sums:
    return {stride: np.zeros((count, CHANNELS[stride]), np.float32) for stride in (CELL, COARSE)}
