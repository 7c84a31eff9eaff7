"""The vectors of what still looks as it did: at a look only what has changed is described anew.

A camera's noise changes every pixel, so equal pixels are not to be expected. Crops are compared
reduced to a few cells, of which each is the mean of many pixels: that takes a hundredth of the time
that a model needs for a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from sam_detect.features.vector_cache import Make
from sam_detect.masks import FloatArray
from sam_detect.types import Crop, Recipe

CELLS = 12
"""Along each side of a crop."""
LEAST_PX = 12
"""A smaller crop has cells of less than a pixel, and is always described anew."""
MOST_OUTLINE = 0.15
"""Of the object's area: so much of its mask may be another."""
MOST_LEVELS, MOST_AROUND = 6.0, 12.0
"""Mean difference of the colours of the object, and of what is around it, in levels of 255."""
MOST_SIZE = 0.1
"""Share by which the crop's side in the picture may have grown or shrunk."""
KEPT_UNSEEN = 2
"""Looks at which nothing looks like it before a vector is forgotten."""


@dataclass(frozen=True, eq=False)
class View:
    """A crop in cells.

    Attributes:
        levels: ``(CELLS * CELLS * 3,)`` float32, the mean colours of the cells, 0 to 255.
        cover: ``(CELLS * CELLS,)`` float32, how much of each cell is the object, 0 to 1.
        side_px: of the crop's window in the picture.
    """

    levels: FloatArray
    cover: FloatArray
    side_px: int

    @classmethod
    def of(cls, crop: Crop) -> View | None:
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
class _Known:
    """A view and the vector that was made of it."""

    view: View
    vector: FloatArray
    unseen: int = 0


class Unchanged:
    """The vectors of one look: made anew, or taken from a look before.

    A vector stays with the view that it was made of, so what changes slowly is described anew once
    it has changed enough. What was described at the same look is never taken: the result must not
    depend on the order in which things are asked for.

    Args:
        before: of the look before.

    Attributes:
        made, taken: how many vectors.
    """

    def __init__(self, before: Unchanged | None = None) -> None:
        self.made = self.taken = 0
        self._recipe: Recipe | None = None if before is None else before._recipe
        self._own: list[_Known] = []
        self._look_up_in([] if before is None else before._after())

    def keys_of_crops(self, crops: Sequence[Crop], recipe: Recipe) -> Sequence[View | None]:
        """Their views. Another recipe's vectors are forgotten."""
        if recipe != self._recipe:
            self._recipe, self._own = recipe, []
            self._look_up_in([])
        return [View.of(crop) for crop in crops]

    def vectors(self, keys: Sequence[View | None], make: Make) -> FloatArray:
        """``(N, D)`` vectors of N views; ``make`` is asked for those that nothing looks like."""
        found = [None if view is None else self._alike(view) for view in keys]
        missing = [index for index, place in enumerate(found) if place is None]
        taken = {index: place for index, place in enumerate(found) if place is not None}
        self.made, self.taken = self.made + len(missing), self.taken + len(taken)
        self._used |= set(taken.values())
        rows = {index: self._before[place].vector for index, place in taken.items()}
        if missing or not keys:
            made = make(missing)
            # Copies: a view of one row would keep all of them.
            rows |= {index: np.array(row) for index, row in zip(missing, made, strict=True)}
        views = [(keys[index], index) for index in missing]
        self._own += [_Known(view, rows[index]) for view, index in views if view is not None]
        return np.stack([rows[index] for index in range(len(keys))]) if keys else made

    def _look_up_in(self, known: list[_Known]) -> None:
        self._before, self._used = known, set[int]()
        views = [each.view for each in known]
        self._levels = np.array([view.levels for view in views])
        self._covers = np.array([view.cover for view in views])
        self._summaries = np.array([view.summary for view in views]).reshape(-1, 3)

    def _alike(self, view: View) -> int | None:
        """The one of the look before that this looks like."""
        level, area, side_px = view.summary
        most = np.array([MOST_AROUND, MOST_OUTLINE * area, MOST_SIZE * side_px], np.float32)
        apart = np.abs(self._summaries - (level, area, side_px))
        near = np.flatnonzero((apart < most).all(axis=1))
        if not len(near):
            return None
        change = _change(view, self._levels[near], self._covers[near])
        best = int(change.argmin())
        return int(near[best]) if change[best] < 1 else None

    def _after(self) -> list[_Known]:
        """What the next look may take."""
        again = [replace(each, unseen=0) for i, each in enumerate(self._before) if i in self._used]
        unseen = [
            replace(each, unseen=each.unseen + 1)
            for i, each in enumerate(self._before)
            if i not in self._used and each.unseen < KEPT_UNSEEN
        ]
        return [*self._own, *again, *unseen]


def _change(view: View, levels: FloatArray, covers: FloatArray) -> FloatArray:
    """``(M,)`` float32: how different other views are; less than 1 counts as the same."""
    area, around = view.cover.sum(), (1 - view.cover).sum()
    outline = np.abs(covers - view.cover).sum(axis=1) / (area * MOST_OUTLINE)
    inside = view.cover / (area * MOST_LEVELS)
    beside = (1 - view.cover) / (max(around, 1) * MOST_AROUND)
    each = np.repeat(np.stack([inside, beside], axis=1), 3, axis=0) / 3
    colours = np.abs(levels - view.levels) @ each
    return np.asarray(np.maximum(outline, colours.max(axis=1)), np.float32)
