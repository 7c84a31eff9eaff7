"""Masks carried by features: label propagation (Jabri et al. 2020, "Space-time correspondence as a
contrastive random walk"), without any training.

Each cell of a new frame takes the labels of the cells that are most like it: of the frame where
the object's outline is known, and of two frames just before, where it was carried to. Cells are
compared by the features of :mod:`sam_detect.models.efficientnet_lite0` and by their colours, and
only within a window around the place that the object's motion leads to.

Every object has a scale of its own, at which it is so many cells wide as :data:`ACROSS` says, and
only the part of the picture around it is described. So time and memory for an object hardly depend
on its size or on the picture's, and a small object is compared finely.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.models.efficientnet_lite0 import Network, normalised, shared_network
from sam_detect.types import Frame, ImageRGB
from sam_detect.types.masks import BoolArray, FloatArray, tight_box_xyxy
from sam_detect.video.appearance import EDGE, SoftMask

CELL = 8
"""Pixels of the scaled picture that a cell is wide."""
ACROSS = 32
"""Cells that the side of a square of the object's area is long..."""
SCALES = (0.25, 2.0)
"""... where the picture's scale stays within these."""
GROWN, SHRUNK = 2.0, 4.0
"""Ratios of its area at which an object gets another scale. What hides a part of it makes it
smaller, too."""
WINDOW = 0.4
"""How far a match may be off the place where the motion leads, to each side, as a share of that."""
AROUND = 5
"""Cells around those that may be of the object that are described, too, for the next frames."""
RECENT = 1, 6
"""Cells are compared with the first frame, and with those so many frames ago."""
NEAREST = 10
"""Most similar cells whose labels count..."""
TEMPERATURE = 0.07
"""... by the softmax of their similarity over this."""
FAR = -9.0
"""Instead of the similarity of cells that are too far apart."""
COLOUR = 0.014
"""Weight of the distance of two colours (CIELAB). Half its square is taken from the similarity."""
FAITHFUL = 0.8
"""Share of its usual similarity below which what is found is not the object."""
USUAL = 0.8
"""What that is at first: .71 to .88 from frame to frame in seven videos. What lies at the place
of an object in another one of these is similar by .28 to .62."""
INERTIA = 0.9
"""Share of the usual similarity so far in the usual similarity."""
CONFIRMED = 0.5
"""Share of the mask, with its edge at the picture's, in the labels that are remembered."""
REACH = 4
"""Cells around the last mask that may be of the object, too."""
FAINT = 0.02
"""Of a soft mask, what is less than this is nothing."""
BLOCK = 8
"""Cells along each side of a block that is compared at once."""
MARGIN = 4
"""Cells around those that are compared: at its border the network knows less."""
SHAPE = 16
"""Numbers of cells that are described are multiples of this: each new shape is slow once, and takes
megabytes."""
SMOOTH_PX, SMOOTH_VARIANCE = 4, 1e-3
"""Radius of the guided filter that brings a mask's edge to the picture's, and the variance of grey
levels (0 to 1) that it keeps."""

CellXY = npt.NDArray[np.intp]
"""A row and a column of cells of the scaled picture."""


@dataclass(frozen=True, eq=False)
class _Labelled:
    """A part of a frame at an object's scale.

    Attributes:
        features: ``(h, w, C)`` float32, see :func:`_joined`.
        labels: ``(h, w)`` float32, 0 to 1, how much of each cell is the object.
        corner: ``(2,)`` row and column of the first cell.
        middle: ``(2,)`` row and column of the object's centre of mass, in cells.
    """

    features: FloatArray
    labels: FloatArray
    corner: CellXY
    middle: npt.NDArray[np.float64]


class FeatureMemory:
    """An object's cells in the frame where it was outlined, and in the last ones.

    Args:
        frame: where the object is outlined.
        mask: its outline there; not empty.
        across: cells that the object is about wide. The time it takes grows with the square.
        network: None for the one that the embedder uses.
        faithful: as :data:`FAITHFUL`; after a cut that counts.

    Raises:
        UnavailableError: the network or its weights are not installed.
    """

    def __init__(
        self,
        frame: Frame,
        mask: SoftMask,
        *,
        across: int = ACROSS,
        network: Network | None = None,
        faithful: float = FAITHFUL,
    ) -> None:
        self._network = network or shared_network()
        self._across, self._window = across, round(WINDOW * across)
        self._recent: deque[_Labelled] = deque(maxlen=max(RECENT))
        self._usual, self._faithful = USUAL, faithful
        self._first = self._outlined(frame, mask)

    def _outlined(self, frame: Frame, mask: SoftMask) -> _Labelled:
        """An object's cells where it is outlined, at the scale for its present size."""
        self._sized_for = mask.area
        scale = float(np.clip(self._across * CELL / max(mask.area, 1) ** 0.5, *SCALES))
        height, width = frame.size_hw
        self._size_xy = max(1, round(width * scale)), max(1, round(height * scale))
        self._factors_xy = self._size_xy[0] / width, self._size_xy[1] / height
        box = np.array(mask.box_xyxy) * np.tile(self._factors_xy, 2) / CELL
        low, high = np.floor(box[1::-1]).astype(int), np.ceil(box[:1:-1]).astype(int)
        features, corner = self._describe(frame.image_rgb, low, high)
        labels = self._in_cells(mask, corner, features.shape[:2])
        return _Labelled(features, labels, corner, self._middle(mask))

    def carry(
        self, frame: Frame, about: SoftMask, *, least_px: float = 0, cut: bool = False
    ) -> SoftMask | None:
        """The object in a later frame, see
        :meth:`sam_detect.video.propagators.ObjectMemory.carry`. Of where it is about, only its
        centre of mass counts; a mask that is not the object is not remembered."""
        latest = self._recent[-1] if self._recent else self._first
        middle = self._middle(about) if about.area else latest.middle
        places = self._reached(latest, np.rint(middle - latest.middle).astype(int))
        if not len(places):
            return None
        features, corner = self._describe(
            frame.image_rgb, places.min(axis=0), places.max(axis=0) + 1
        )
        wanted = np.zeros(features.shape[:2], np.bool_)
        wanted[tuple((places - corner).T)] = True
        compared = [self._recent[-ago] for ago in RECENT if ago <= len(self._recent)]
        memory = [self._first, *compared]
        offsets = [
            corner - each.corner - np.rint(middle - each.middle).astype(int) for each in memory
        ]
        labels, similar = _propagated(features, wanted, memory, offsets, self._window)
        carried = self._to_picture(frame.image_rgb, labels, corner)
        if carried is None or carried.area < least_px:
            return None
        if not self._recognised(labels, similar, FAITHFUL if cut else self._faithful):
            return None
        solid = replace(carried, values=np.asarray(carried.values > EDGE, np.float32))
        labels += CONFIRMED * (self._in_cells(solid, corner, labels.shape) - labels)
        self._recent.append(_Labelled(features, labels, corner, self._middle(carried)))
        if not 1 / SHRUNK < carried.area / self._sized_for < GROWN:
            # Its first cells are compared as they are: relative to the object, they are as wide.
            now = self._outlined(frame, carried)
            self._recent.clear()
            self._recent.append(now)
        return carried

    def _recognised(self, labels: FloatArray, similar: FloatArray, least: float) -> bool:
        """Whether the object's cells are about as similar to remembered ones as they usually are;
        in another scene, or where something else covers it, they are not."""
        there = labels > EDGE
        now = float(similar[there].mean()) if there.any() else FAR
        if now < least * self._usual:
            return False
        self._usual = INERTIA * self._usual + (1 - INERTIA) * now
        return True

    def _in_cells(self, mask: SoftMask, corner: CellXY, size_hw: Sequence[int]) -> FloatArray:
        """``(h, w)`` how much of each cell a mask covers."""
        start = (corner[::-1] * CELL - np.array(mask.corner_xy) * self._factors_xy).tolist()
        drawn = _warped(mask.values, self._factors_xy, start, size_hw)
        cells = drawn.reshape(size_hw[0], CELL, size_hw[1], CELL)
        return np.asarray(cells.mean(axis=(1, 3)), np.float32)

    def _middle(self, mask: SoftMask) -> npt.NDArray[np.float64]:
        """A mask's centre of mass: row and column, in cells."""
        total = mask.values.sum(dtype=np.float64)
        found = [
            (mask.values.sum(axis=1 - axis) @ np.arange(length) / total + start) * factor / CELL
            for axis, (length, start, factor) in enumerate(
                zip(mask.values.shape, mask.corner_xy[::-1], self._factors_xy[::-1], strict=True)
            )
        ]
        return np.array(found, np.float64)

    def _reached(self, latest: _Labelled, by: CellXY) -> CellXY:
        """``(N, 2)`` cells of the picture that may be of the object, once it has moved."""
        likely = np.pad(latest.labels > FAINT, REACH).astype(np.uint8)
        reach = np.ones((2 * REACH + 1, 2 * REACH + 1), np.uint8)
        places = np.argwhere(cv2.dilate(likely, reach)) + latest.corner + by - REACH
        return places[((places >= 0) & (places < self._cells)).all(axis=1)]

    @property
    def _cells(self) -> CellXY:
        """Rows and columns of the whole picture."""
        return -(-np.array(self._size_xy[::-1]) // CELL)

    def _describe(
        self, image_rgb: ImageRGB, low: CellXY, high: CellXY
    ) -> tuple[FloatArray, CellXY]:
        """``(h, w, C)`` features of a part's cells and of those around it, and the first cell."""
        low = np.maximum(low - AROUND, 0) - MARGIN
        high = np.minimum(high + AROUND, self._cells) + MARGIN
        low = low // 2 * 2  # the coarsest features have cells twice as wide
        shape = -(-(high - low) // SHAPE) * SHAPE
        picture, factors = image_rgb, self._factors_xy
        if self._size_xy[0] < image_rgb.shape[1]:
            picture = cv2.resize(image_rgb, self._size_xy, interpolation=cv2.INTER_AREA)
            factors = (1.0, 1.0)
        start = (low[::-1] * CELL).tolist()
        part = _warped(picture, factors, start, shape.tolist(), border=cv2.BORDER_REPLICATE)
        pixels = np.asarray(part, np.uint8)
        features = _joined(self._network(normalised(pixels)[None]), pixels)
        inside = features[MARGIN:-MARGIN, MARGIN:-MARGIN]
        return np.ascontiguousarray(inside, np.float32), low + MARGIN

    def _to_picture(
        self, image_rgb: ImageRGB, labels: FloatArray, corner: CellXY
    ) -> SoftMask | None:
        """Labels of cells as a mask of the picture, its edge at the picture's edge."""
        box = tight_box_xyxy(np.asarray(labels > FAINT))
        if box is None:
            return None
        height, width = image_rgb.shape[:2]
        factors = np.array(self._factors_xy) / CELL
        low = np.floor((np.array(box[:2]) - 1 + corner[::-1]) / factors).astype(int)
        high = np.ceil((np.array(box[2:]) + 1 + corner[::-1]) / factors).astype(int)
        (x0, y0), (x1, y1) = np.maximum(low, 0).tolist(), np.minimum(high, (width, height)).tolist()
        shift = (np.array([x0, y0]) + 0.5) * factors - 0.5 - corner[::-1]
        matrix = np.column_stack([np.diag(factors), shift])
        soft = cv2.warpAffine(
            labels, matrix, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        soft = guided(image_rgb[y0:y1, x0:x1], np.asarray(soft, np.float32))
        return SoftMask(soft, (x0, y0)) if (soft > EDGE).any() else None


def guided(image_rgb: ImageRGB, values: FloatArray) -> FloatArray:
    """A soft mask whose edge follows the picture's: the guided filter (He et al. 2010).

    Args:
        image_rgb: ``(h, w, 3)``.
        values: ``(h, w)`` float32, 0 to 1.
    """
    side = 2 * SMOOTH_PX + 1

    def mean(each: FloatArray) -> FloatArray:
        return np.asarray(cv2.blur(each, (side, side)), np.float32)

    grey = np.asarray(image_rgb.mean(axis=2, dtype=np.float32) / 255, np.float32)
    level, value = mean(grey), mean(values)
    covariance, variance = mean(grey * values) - level * value, mean(grey * grey) - level * level
    slope = np.asarray(covariance / (variance + SMOOTH_VARIANCE), np.float32)
    found = mean(slope) * grey + mean(value - slope * level)
    return np.asarray(np.clip(found, 0, 1), np.float32)


def _joined(maps: Mapping[int, FloatArray], pixels_rgb: ImageRGB) -> FloatArray:
    """``(h, w, C)`` float32, by which the cells of a picture are compared.

    The product of one cell's with another's, after :func:`_query`, is the cosine similarity of
    their features, less half the squared distance of their colours, except for what depends on the
    first cell only.

    Args:
        maps: features of the picture, by stride; those of each count as much.
        pixels_rgb: ``(CELL * h, CELL * w, 3)``, the picture.
    """
    size_xy = pixels_rgb.shape[1] // CELL, pixels_rgb.shape[0] // CELL
    parts = []
    for stride, features in maps.items():
        each = features[0].transpose(1, 2, 0)
        each = each / np.maximum(np.linalg.norm(each, axis=2, keepdims=True), 1e-6)
        how = cv2.INTER_AREA if stride < CELL else cv2.INTER_LINEAR
        parts.append(cv2.resize(each, size_xy, interpolation=how))
    found = np.concatenate(parts, axis=2)
    found /= np.linalg.norm(found, axis=2, keepdims=True)
    small = cv2.resize(pixels_rgb, size_xy, interpolation=cv2.INTER_AREA)
    colours = COLOUR * cv2.cvtColor(small.astype(np.float32) / 255, cv2.COLOR_RGB2LAB)
    rest = -0.5 * (colours * colours).sum(axis=2, keepdims=True)
    return np.asarray(np.concatenate([found, colours, rest], axis=2), np.float32)


def _query(features: FloatArray) -> FloatArray:
    """``(..., C)`` features of cells that look for similar ones: those do the reckoning."""
    found: FloatArray = features.copy()
    found[..., -1] = 1
    return found


def _propagated(
    features: FloatArray,
    wanted: BoolArray,
    memory: Sequence[_Labelled],
    offsets: Sequence[CellXY],
    window: int,
) -> tuple[FloatArray, FloatArray]:
    """``(h, w)`` labels of the wanted cells, 0 elsewhere; and how similar the most similar one is,
    at most 1.

    Args:
        features: ``(h, w, C)``.
        wanted: ``(h, w)``.
        memory: cells with labels.
        offsets: what leads from a cell to its place in each of these.
        window: how far the cells may be from there.
    """
    height, width = (-(-np.array(wanted.shape) // BLOCK) * BLOCK).tolist()
    beyond = (0, height - wanted.shape[0]), (0, width - wanted.shape[1])
    asked, queries = np.pad(wanted, beyond), np.pad(_query(features), [*beyond, (0, 0)])
    cells = [
        _aligned(each, by, (height, width), window)
        for each, by in zip(memory, offsets, strict=True)
    ]
    keys, labels = (np.stack(each) for each in zip(*cells, strict=True))
    penalty = _beyond_window(window)
    places, similar, known = [], [], []
    for y0, x0 in np.ndindex(height // BLOCK, width // BLOCK):
        block = np.s_[y0 * BLOCK : (y0 + 1) * BLOCK, x0 * BLOCK : (x0 + 1) * BLOCK]
        inside = asked[block]
        if not inside.any():
            continue
        near = (slice(None), *(slice(each.start, each.stop + 2 * window) for each in block))
        some = keys[near].reshape(-1, keys.shape[-1])
        alike = queries[block][inside] @ some.T
        alike += np.tile(penalty[inside.ravel()], len(memory))
        best = np.argpartition(alike, -NEAREST, axis=1)[:, -NEAREST:]
        places.append(np.argwhere(inside) + BLOCK * np.array([y0, x0]))
        similar.append(np.take_along_axis(alike, best, axis=1))
        known.append(labels[near].ravel()[best])
    top = np.concatenate(similar)
    weights = np.exp((top - top.max(axis=1, keepdims=True)) / TEMPERATURE) * (top > FAR / 2)
    mean = (weights * np.concatenate(known)).sum(axis=1) / np.maximum(weights.sum(axis=1), 1e-6)
    found, alike = np.zeros(wanted.shape, np.float32), np.full(wanted.shape, FAR, np.float32)
    here = tuple(np.concatenate(places).T)
    found[here], alike[here] = mean, top.max(axis=1)
    return found, alike + features[..., -1]  # what depends on these cells only, too


def _aligned(
    each: _Labelled, offset: CellXY, size_hw: tuple[int, int], window: int
) -> tuple[FloatArray, FloatArray]:
    """The features and labels of remembered cells, where they are sought, with a window around; a
    cell that is not known is far from all."""
    size = np.array(size_hw) + 2 * window
    features = np.zeros((*size, each.features.shape[2]), np.float32)
    labels = np.zeros(size, np.float32)
    features[..., -1] = FAR
    shift = window - offset
    low, high = np.maximum(shift, 0), np.minimum(shift + each.labels.shape, size)
    if (low < high).all():
        there = slice(low[0], high[0]), slice(low[1], high[1])
        first, last = low - shift, high - shift
        here = slice(first[0], last[0]), slice(first[1], last[1])
        features[there], labels[there] = each.features[here], each.labels[here]
    return features, labels


@lru_cache(maxsize=4)
def _beyond_window(window: int) -> FloatArray:
    """``(BLOCK ** 2, (BLOCK + 2 * window) ** 2)``: what is added to the similarity of each cell of
    a block with each cell around the block, so that only those in its window count."""
    apart = np.arange(BLOCK)[:, None] + window - np.arange(BLOCK + 2 * window)
    near = np.abs(apart) <= window
    both = near[:, None, :, None] & near[None, :, None, :]
    return np.asarray(np.where(both.reshape(BLOCK**2, -1), 0, FAR), np.float32)


def _warped(
    values: npt.NDArray[np.generic],
    factors_xy: tuple[float, float],
    start_xy: Sequence[float],
    size_hw: Sequence[int],
    *,
    border: int = cv2.BORDER_CONSTANT,
) -> npt.NDArray[np.generic]:
    """A part of an array that is scaled, where its cells are ``CELL`` pixels wide.

    Args:
        start_xy: its first pixel, in the scaled array.
        size_hw: its cells.
    """
    factors = np.array(factors_xy)
    shift = (np.array(start_xy) + 0.5) / factors - 0.5
    matrix = np.column_stack([np.diag(1 / factors), shift])
    size = int(size_hw[1]) * CELL, int(size_hw[0]) * CELL
    how = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    return np.asarray(cv2.warpAffine(values, matrix, size, flags=how, borderMode=border))
