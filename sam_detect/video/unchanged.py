"""Vectors of unchanged crops are reused at the next key frame; only changed crops are embedded.

A camera's noise changes every pixel, so crops are compared as a grid of cells, each the mean of
many pixels. This takes a hundredth of the time that a model needs for a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from sam_detect.features.extraction import Make
from sam_detect.masks import FloatArray
from sam_detect.types import Crop, Recipe

CELLS = 12
"""Along each side of a crop."""
LEAST_PX = 12
"""A smaller crop has cells of less than a pixel, and is always embedded again."""
MOST_OUTLINE = 0.15
"""Largest change of the mask, as a share of the object's area."""
MOST_LEVELS, MOST_AROUND = 6.0, 12.0
"""Largest mean colour difference of the object, and of its background, in levels of 255."""
MOST_SIZE = 0.1
"""Largest relative change of the crop's side in the picture."""
KEPT_UNSEEN = 2
"""Key frames without a matching crop after which a vector is forgotten."""


@dataclass(frozen=True, eq=False)
class CropSignature:
    """A crop reduced to cells, for comparison.

    Attributes:
        levels: ``(CELLS * CELLS * 3,)`` float32, the mean colours of the cells, 0 to 255.
        cover: ``(CELLS * CELLS,)`` float32, how much of each cell is the object, 0 to 1.
        side_px: of the crop's window in the picture.
    """

    levels: FloatArray
    cover: FloatArray
    side_px: int

    @classmethod
    def of(cls, crop: Crop) -> CropSignature | None:
        """None of a crop that is too small."""
        if min(crop.mask.shape) < LEAST_PX:
            return None
        size = (CELLS, CELLS)
        image = cv2.resize(crop.image_rgb, size, interpolation=cv2.INTER_AREA)
        solid = crop.mask.view(np.uint8) * np.uint8(255)
        cover = cv2.resize(solid, size, interpolation=cv2.INTER_AREA)
        left, _, right, _ = crop.window_xyxy
        levels = image.astype(np.float32).ravel()
        return cls(levels, cover.astype(np.float32).ravel() / 255, right - left)

    @property
    def summary(self) -> FloatArray:
        """``(3,)``: mean level, area in cells, side. Where these differ much, more does."""
        return np.array([self.levels.mean(), self.cover.sum(), self.side_px], np.float32)


@dataclass(frozen=True, eq=False)
class _KnownVector:
    """A crop's signature and its vector."""

    view: CropSignature
    vector: FloatArray
    unseen: int = 0


class UnchangedVectors:
    """The vectors of one key frame: computed, or reused from an earlier key frame.

    A vector stays with the signature of the crop that it was computed from, so an object that
    changes slowly is embedded again once it has changed enough. Vectors of the same key frame are
    never reused: the result must not depend on the order of the calls.

    Args:
        before: of the last key frame.

    Attributes:
        made, taken: how many vectors were computed, and reused.
    """

    def __init__(self, before: UnchangedVectors | None = None) -> None:
        self.made = self.taken = 0
        self._recipe: Recipe | None = None if before is None else before._recipe
        self._own: list[_KnownVector] = []
        self._look_up_in([] if before is None else before._after())

    def keys_of_crops(
        self, crops: Sequence[Crop], recipe: Recipe
    ) -> Sequence[CropSignature | None]:
        """Their signatures. Vectors of another recipe are forgotten."""
        if recipe != self._recipe:
            self._recipe, self._own = recipe, []
            self._look_up_in([])
        return [CropSignature.of(crop) for crop in crops]

    def vectors(self, keys: Sequence[CropSignature | None], make: Make) -> FloatArray:
        """``(N, D)`` vectors of N signatures; ``make`` computes those without a match."""
        found = [None if view is None else self._alike(view) for view in keys]
        missing = [index for index, place in enumerate(found) if place is None]
        taken = {index: place for index, place in enumerate(found) if place is not None}
        self.made, self.taken = self.made + len(missing), self.taken + len(taken)
        self._used |= set(taken.values())
        rows = {index: self._before[place].vector for index, place in taken.items()}
        if missing or not keys:
            made = make(missing)
            # Copies: a NumPy view of one row would keep the whole array.
            rows |= {index: np.array(row) for index, row in zip(missing, made, strict=True)}
        views = [(keys[index], index) for index in missing]
        self._own += [_KnownVector(view, rows[index]) for view, index in views if view is not None]
        return np.stack([rows[index] for index in range(len(keys))]) if keys else made

    def _look_up_in(self, known: list[_KnownVector]) -> None:
        self._before, self._used = known, set[int]()
        views = [each.view for each in known]
        self._levels = np.array([view.levels for view in views])
        self._covers = np.array([view.cover for view in views])
        self._summaries = np.array([view.summary for view in views]).reshape(-1, 3)

    def _alike(self, view: CropSignature) -> int | None:
        """Index of the best match at the last key frame; None where none is close enough."""
        level, area, side_px = view.summary
        most = np.array([MOST_AROUND, MOST_OUTLINE * area, MOST_SIZE * side_px], np.float32)
        apart = np.abs(self._summaries - (level, area, side_px))
        near = np.flatnonzero((apart < most).all(axis=1))
        if not len(near):
            return None
        change = _change(view, self._levels[near], self._covers[near])
        best = int(change.argmin())
        return int(near[best]) if change[best] < 1 else None

    def _after(self) -> list[_KnownVector]:
        """What the next key frame may reuse."""
        again = [replace(each, unseen=0) for i, each in enumerate(self._before) if i in self._used]
        unseen = [
            replace(each, unseen=each.unseen + 1)
            for i, each in enumerate(self._before)
            if i not in self._used and each.unseen < KEPT_UNSEEN
        ]
        return [*self._own, *again, *unseen]


def _change(view: CropSignature, levels: FloatArray, covers: FloatArray) -> FloatArray:
    """``(M,)`` float32: how different other signatures are; less than 1 counts as the same."""
    area, around = view.cover.sum(), (1 - view.cover).sum()
    outline = np.abs(covers - view.cover).sum(axis=1) / (area * MOST_OUTLINE)
    inside = view.cover / (area * MOST_LEVELS)
    outside = (1 - view.cover) / (max(around, 1) * MOST_AROUND)
    each = np.repeat(np.stack([inside, outside], axis=1), 3, axis=0) / 3
    colours = np.abs(levels - view.levels) @ each
    return np.asarray(np.maximum(outline, colours.max(axis=1)), np.float32)
