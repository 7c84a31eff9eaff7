"""How few presses select objects on the annotation page: boxes that are dragged, and clicks."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

MOST_BOXES = 60
"""Boxes that are tried around each object, to its nearest others."""


def presses(middles_xy: npt.ArrayLike, wanted: Sequence[bool], indifferent: Sequence[bool]) -> int:
    """Presses that select some objects, and none of which the selection would be wrong.

    Shift-drag selects all objects whose middles lie in a box; a click selects an object, or takes
    it out. Boxes are chosen one by one, each time the one that saves most clicks.

    Args:
        middles_xy: ``(N, 2)`` of the objects that are shown.
        wanted: of each, whether it is to be selected.
        indifferent: of each that is not wanted, whether it may be selected as well.
    """
    points = np.asarray(middles_xy, np.float64).reshape(-1, 2)
    targets, free = np.asarray(wanted, np.bool_), np.asarray(indifferent, np.bool_)
    left, harmful, pressed = targets.copy(), ~targets & ~free, 0
    while left.sum() > 1:
        saved, box = _best_box(points, left, harmful)
        if saved <= 0:
            break
        inside = within(points, box)
        pressed += 1 + int(np.count_nonzero(inside & harmful))
        left &= ~inside
        harmful &= ~inside
    return pressed + int(left.sum())


def within(points_xy: npt.NDArray[np.float64], box_xyxy: Any) -> npt.NDArray[np.bool_]:
    """``(N,)`` whether each point lies in a box, with its sides."""
    x0, y0, x1, y1 = box_xyxy
    x, y = points_xy.T
    return np.asarray((x >= x0) & (x <= x1) & (y >= y0) & (y <= y1))


def best_clean_box(
    middles_xy: npt.ArrayLike, wanted: Sequence[bool], indifferent: Sequence[bool]
) -> npt.NDArray[np.bool_]:
    """``(N,)`` the wanted objects in the one box that saves most clicks; none, if none does."""
    points = np.asarray(middles_xy, np.float64).reshape(-1, 2)
    targets, free = np.asarray(wanted, np.bool_), np.asarray(indifferent, np.bool_)
    if targets.sum() < 2:
        return np.zeros(len(points), np.bool_)
    saved, box = _best_box(points, targets, ~targets & ~free)
    return targets & within(points, box) if saved > 0 else np.zeros(len(points), np.bool_)


def _best_box(
    points: npt.NDArray[np.float64],
    targets: npt.NDArray[np.bool_],
    harmful: npt.NDArray[np.bool_],
) -> tuple[int, Any]:
    """How many clicks the best box saves, and the box."""
    chosen = np.flatnonzero(targets)
    there = points[chosen]
    boxes = [np.concatenate([there.min(axis=0), there.max(axis=0)])[None]]
    for point in there:
        near = np.argsort(((there - point) ** 2).sum(axis=1), kind="stable")[1:MOST_BOXES]
        low, high = np.minimum(there[near], point), np.maximum(there[near], point)
        # Around it and another one, and around it and its nearest ones.
        boxes.append(np.hstack([low, high]))
        boxes.append(np.hstack([np.minimum.accumulate(low), np.maximum.accumulate(high)]))
    every = np.concatenate(boxes)
    counts = np.zeros(len(every), np.int64)
    for each, sign in ((targets, 1), (harmful, -1)):
        x, y = points[each].T
        inside = (x >= every[:, :1]) & (x <= every[:, 2:3])
        inside &= (y >= every[:, 1:2]) & (y <= every[:, 3:])
        counts += sign * inside.sum(axis=1)
    best = int(counts.argmax())
    return int(counts[best]) - 1, every[best]
