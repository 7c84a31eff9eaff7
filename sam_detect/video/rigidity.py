"""How an object moves as a whole, from a flow that is wrong at its edge.

The inside of the object says how all of it moves: by an affine map that most of it agrees with
(iteratively reweighted least squares with Cauchy's weights), and by how the flow differs from that
map nearby, where it differs little: so a bending object bends, and neither uncovered background
nor an object that passes in front distorts it.
"""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.masks import BoolArray, FloatArray

LEAST_INSIDE = 0.2
"""Share of an object that must be left without its edge; a thin one is taken whole."""
LEAST_POINTS = 6
MOST_POINTS = 400
ROUNDS = 3
LEAST_SCALE_PX = 0.05
OUTLIER = 4.0
"""Of typical residuals: what differs more from the affine map does not move with the object."""
NEARBY = 2
"""Steps of the grid that residuals are smoothed over, to each side."""
FAR = 0.1
"""Share of a neighbourhood that must be inside for its residual to count about fully."""

Affine = npt.NDArray[np.float64]


def object_motion(back_xy: FloatArray, rough: BoolArray) -> FloatArray:
    """The motion of an object, continued over a whole window.

    Args:
        back_xy: ``(h, w, 2)``, the flow on a grid, in pixels.
        rough: ``(h, w)``, where the object is about.

    Returns:
        ``(h, w, 2)`` float32, in pixels; the flow itself where too little of the object is there.
    """
    inside = _inside(rough)
    places = np.argwhere(inside)
    if len(places) < LEAST_POINTS:
        return back_xy
    some = places[:: max(1, len(places) // MOST_POINTS)]
    affine, spread_px = _fit(some, back_xy[some[:, 0], some[:, 1]])
    whole = _applied(affine, rough.shape)
    residual = back_xy - whole
    agrees = inside & (np.abs(residual).max(axis=-1) < OUTLIER * spread_px)
    return np.asarray(whole + _spread(residual, agrees), np.float32)


def ranked(values: npt.NDArray[np.floating[Any]], share: float) -> npt.NDArray[np.floating[Any]]:
    """The value of each column that a share of the others, 0 to 1, lies below: a quantile that is
    one of the values, in a fifth of the time of ``np.quantile``."""
    place = round(share * (len(values) - 1))
    return np.asarray(np.partition(values, place, axis=0)[place])


def _inside(rough: BoolArray) -> BoolArray:
    """The object without its edge, which the picture's own border is not."""
    eroded = cv2.erode(
        rough.astype(np.uint8), np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE
    )
    core = np.asarray(eroded, np.bool_)
    return core if core.sum() >= LEAST_INSIDE * rough.sum() else rough


def _fit(places: npt.NDArray[np.intp], flow_xy: FloatArray) -> tuple[Affine, float]:
    """``(3, 2)`` affine map of (row, column, 1) that most of the flow agrees with, and the scale
    (1.5 medians) of what it leaves."""
    known = np.column_stack([places, np.ones(len(places))])
    # In units of the object's size, as otherwise rows and columns would outweigh the ones.
    units = np.diag([1 / max(1.0, float(np.ptp(places)))] * 2 + [1.0])
    known = known @ units
    left = flow_xy - ranked(flow_xy, 0.5)
    for _ in range(ROUNDS):
        size = np.hypot(left[:, 0], left[:, 1])
        scale = 1.5 * float(ranked(size, 0.5)) + LEAST_SCALE_PX
        weighted = known / (1 + (size / scale) ** 2)[:, None]
        ridge = 1e-6 * len(places) * np.eye(3)
        solved = np.linalg.solve(weighted.T @ known + ridge, weighted.T @ flow_xy)
        left = flow_xy - known @ solved
    size = np.hypot(left[:, 0], left[:, 1])
    return units @ solved, 1.5 * float(ranked(size, 0.5)) + LEAST_SCALE_PX


def _applied(affine: Affine, shape: tuple[int, ...]) -> FloatArray:
    rows = np.arange(shape[0], dtype=np.float64)[:, None, None] * affine[0]
    columns = np.arange(shape[1], dtype=np.float64)[None, :, None] * affine[1]
    return np.asarray(rows + columns + affine[2], np.float32)


def _spread(residual: FloatArray, known: BoolArray) -> FloatArray:
    """The residual where it is known, smoothed; elsewhere extrapolated and fading."""
    side = 2 * NEARBY + 1
    weight = known.astype(np.float32)

    def smooth(values: FloatArray) -> FloatArray:
        once = cv2.blur(values, (side, side))
        return np.asarray(cv2.blur(once, (side, side)), np.float32)

    return smooth(residual * weight[..., None]) / (smooth(weight) + FAR)[..., None]
