"""The outline around a click, of an object about as large as others that are known; or around a
line from one end of an object to the other.

From the click, or the middle of the line, rays go out. On each, the outline is where what looks
like that place ends, not too far from where it is expected, and not beyond other objects;
neighbouring rays agree. Dynamic programming finds the best closed outline (as Geiger et al. 1995
for snakes, in polar coordinates). It needs no proposal, no weights and no training: only how large
such objects are, which a line says itself.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.segmentation._places import Place, value_at
from sam_detect.types import ImageRGB
from sam_detect.types.masks import BoolArray, FloatArray

ANGLES, STEPS = 48, 14
"""Rays; and steps on each to the radius of a disc of the typical area."""
RADII = (0.3, 2.2)
"""Between which the outline is sought, in such radii, or in those of the ellipse around a line."""
INNER = 0.35
"""What is so near to where the rays begin, in such radii, shows what the object looks like."""
SMOOTHING = 0.08
"""Of the picture, likewise."""
ACROSS = 2
"""Steps on both sides of the outline whose difference counts."""
JUMP = 2
"""Steps by which the outline may be farther out on the next ray."""
STRONG = 0.95
"""Quantile of the differences that counts 1; more than :data:`MOST` counts as that."""
MOST = 1.5
SIZE_WEIGHT, SPREAD = 0.3, 0.35
"""Cost of being out by one spread (log), twice; chosen on nuclei, the same on blood cells."""
BLOCKED = 4.0
"""Cost of what is surely not the object."""
LONGEST = 256
"""Half of a line, in pixels: for a longer one the picture is reduced."""
BREADTH = 0.7
"""Around a line an ellipse is expected, of this breadth to its length..."""
LINE_WEIGHT, END_WEIGHT, END_POWER = 0.6, 6.0, 8
"""... which weighs so much instead of :data:`SIZE_WEIGHT`, and more towards the ends of the line.
All chosen on nuclei that nothing proposes."""
NEARER, FARTHER = 0.7, 0.9
"""A click off the object says that its radius is this share of the way to it, or less; one on it,
that it is this share or more."""
ALIKE_SIZES = 1.5
"""Sizes that differ by a smaller factor are tried once."""
MOST_SIZES = 4

Reals = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class Rays:
    """What lies on the rays from a point.

    Attributes:
        origin_xy: where they begin.
        units: ``(A,)`` length of a step on each ray, pixels: a share of where the outline is
            expected.
        steps: ``(R,)`` at which the outline is sought.
        cost: ``(A, R)`` of the outline being there.
    """

    origin_xy: tuple[float, float]
    units: Reals
    steps: npt.NDArray[np.int64]
    cost: FloatArray

    @classmethod
    def of(
        cls,
        image_rgb: ImageRGB,
        origin_xy: tuple[float, float],
        radii: Reals,
        weights: Reals | float,
        taken: BoolArray,
    ) -> Rays:
        """The rays from a point.

        Args:
            radii: ``(A,)`` where the outline is expected on each, pixels.
            weights: ``(A,)`` of that, against what the picture shows.
            taken: ``(H, W)`` what belongs to other objects.
        """
        x, y = origin_xy
        angles, units = _angles(), radii / STEPS
        steps = np.arange(round(RADII[0] * STEPS), round(RADII[1] * STEPS) + 1)
        along = np.arange(steps[0] - ACROSS, steps[-1] + ACROSS + 1) * units[:, None]
        xs = (x + np.cos(angles)[:, None] * along).astype(np.float32)
        ys = (y + np.sin(angles)[:, None] * along).astype(np.float32)
        # Of a disc as large as what is expected.
        radius = math.sqrt(float((radii**2).mean()))
        unlike = _unlike(image_rgb, origin_xy, radius, xs, ys)
        count = len(steps)
        before = sum(unlike[:, k : k + count] for k in range(ACROSS)) / ACROSS
        after = sum(unlike[:, ACROSS + 1 + k :][:, :count] for k in range(ACROSS)) / ACROSS
        edge = after - before
        edge = np.clip(edge / max(float(np.quantile(edge, STRONG)), 1e-6), -1, MOST)
        apart = np.log(steps / STEPS) / SPREAD
        cost = np.reshape(weights, (-1, 1)) / 2 * apart[None] ** 2 - edge
        met = cv2.remap(taken.view(np.uint8), xs, ys, cv2.INTER_NEAREST)[:, ACROSS:-ACROSS]
        cost += BLOCKED * (np.cumsum(met, axis=1) > 1)
        return cls(origin_xy, units, steps, np.asarray(cost, np.float32))

    @classmethod
    def around_clicks(
        cls,
        image_rgb: ImageRGB,
        points_xy: npt.NDArray[np.float64],
        positive: BoolArray,
        radius: float,
        taken: BoolArray,
    ) -> Rays:
        """The rays from the first positive click; at all clicks the outline is right.

        Args:
            radius: of the typical object, pixels.
        """
        x, y = points_xy[int(np.argmax(positive))].tolist()
        away = points_xy - (x, y)
        gaps, turned = np.hypot(*away.T), np.arctan2(away[:, 1], away[:, 0])
        off = gaps[~positive]
        radius = max(radius, FARTHER * float(gaps[positive].max()))
        radius = max(1.0, min(radius, NEARER * float(off.min(initial=np.inf))))
        rays = cls.of(image_rgb, (x, y), np.full(ANGLES, radius), SIZE_WEIGHT, taken)
        for gap, turn, flag in zip(gaps, turned, positive, strict=True):
            ray = round(turn / (2 * math.pi) * ANGLES)
            # A pixel's width apart, and on the next rays as well, since the outline is a polygon.
            for near in (ray - 1, ray, ray + 1):
                out = rays.steps * rays.units[near % ANGLES]
                wrong = out < gap + 1 if flag else out > gap - 1
                rays.cost[near % ANGLES] += BLOCKED * ANGLES * wrong * (gap > 0)
        return rays

    def outline(self, size_hw: tuple[int, int]) -> tuple[float, Place | None]:
        """The cheapest outline, after its cost; None where it has no pixel."""
        found = _cheapest(self.cost)
        out = self.steps[found] * self.units
        (x, y), angles = self.origin_xy, _angles()
        place = _filled(x + np.cos(angles) * out, y + np.sin(angles) * out, size_hw)
        return float(self.cost[np.arange(ANGLES), found].mean()), place


def outline_around(
    image_rgb: ImageRGB,
    points_xy: npt.ArrayLike,
    positive: npt.ArrayLike,
    areas: Sequence[float],
    taken: BoolArray,
) -> Place | None:
    """The outline of an object around clicks; None where none is right at all of them.

    Args:
        points_xy: ``(N, 2)`` in pixels, inside the picture, at least one of them positive; the
            rays go out from the first of these.
        positive: ``(N,)`` whether each is on the object.
        areas: that such objects usually have, pixels, at least one: the one that fits best is
            taken.
        taken: ``(H, W)`` what belongs to other objects.
    """
    points = np.asarray(points_xy, np.float64).reshape(-1, 2)
    flags = np.asarray(positive, np.bool_).reshape(-1)
    size_hw = image_rgb.shape[0], image_rgb.shape[1]
    found = []
    for area in _apart(areas):
        radius = math.sqrt(area / math.pi)
        rays = Rays.around_clicks(image_rgb, points, flags, radius, taken)
        cost, place = rays.outline(size_hw)
        pixels = [(int(x), int(y)) for x, y in points.tolist()]
        if place is not None and all(
            value_at(place, *pixel) == flag
            for pixel, flag in zip(pixels, flags.tolist(), strict=True)
        ):
            found.append((cost, place))
    return min(found, key=lambda each: each[0])[1] if found else None


def outline_along(image_rgb: ImageRGB, line_xy: npt.ArrayLike, taken: BoolArray) -> Place | None:
    """The outline of an object around a line from one of its ends to the other; None where it has
    no pixel.

    Args:
        line_xy: ``(2, 2)`` both ends x, y in pixels, the middle inside the picture.
        taken: ``(H, W)`` what belongs to other objects.
    """
    (x0, y0), (x1, y1) = np.asarray(line_xy, np.float64).reshape(2, 2).tolist()
    half = max(1.0, math.hypot(x1 - x0, y1 - y0) / 2)
    off = _angles() - math.atan2(y1 - y0, x1 - x0)
    radii = BREADTH * half / np.hypot(BREADTH * np.cos(off), np.sin(off))
    weights = LINE_WEIGHT * (1 + END_WEIGHT * np.abs(np.cos(off)) ** END_POWER)
    middle = (x0 + x1) / 2, (y0 + y1) / 2
    size_hw, factor = (image_rgb.shape[0], image_rgb.shape[1]), min(1.0, LONGEST / half)
    if factor < 1:
        size_wh = max(1, round(factor * size_hw[1])), max(1, round(factor * size_hw[0]))
        image_rgb = np.asarray(cv2.resize(image_rgb, size_wh, interpolation=cv2.INTER_AREA))
        taken = cv2.resize(taken.view(np.uint8), size_wh, interpolation=cv2.INTER_NEAREST) > 0
    seen = factor * middle[0], factor * middle[1]
    rays = Rays.of(image_rgb, seen, factor * radii, weights, taken)
    return replace(rays, origin_xy=middle, units=rays.units / factor).outline(size_hw)[1]


def _apart(areas: Sequence[float]) -> list[float]:
    """The areas without those that are about the same as another."""
    kept: list[float] = []
    for area in areas:
        if all(abs(math.log(area / other)) > math.log(ALIKE_SIZES) for other in kept):
            kept.append(area)
    return kept[:MOST_SIZES]


def _angles() -> Reals:
    return np.arange(ANGLES, dtype=np.float64) * (2 * math.pi / ANGLES)


def _unlike(
    image_rgb: ImageRGB,
    origin_xy: tuple[float, float],
    radius: float,
    xs: FloatArray,
    ys: FloatArray,
) -> FloatArray:
    """How far the colours at some points are from those at the click (in CIE Lab)."""
    height, width = image_rgb.shape[:2]
    left, top = max(0, int(xs.min()) - 3), max(0, int(ys.min()) - 3)
    right, bottom = min(width, int(xs.max()) + 4), min(height, int(ys.max()) + 4)
    window = image_rgb[top:bottom, left:right].astype(np.float32) / 255
    lab = cv2.cvtColor(window, cv2.COLOR_RGB2LAB)
    lab = cv2.GaussianBlur(lab, (0, 0), max(0.7, SMOOTHING * radius))
    y, x = np.mgrid[top:bottom, left:right]
    near = np.hypot(x - origin_xy[0], y - origin_xy[1]) <= max(1.0, INNER * radius)
    distance = np.linalg.norm(lab - np.median(lab[near], axis=0), axis=2).astype(np.float32)
    return np.asarray(
        cv2.remap(distance, xs - left, ys - top, cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE)
    )


def _cheapest(cost: FloatArray) -> npt.NDArray[np.int64]:
    """``(A,)`` the index on each ray of the cheapest closed outline: that of two rounds whose
    middle half no longer depends on where it began."""
    count, radii = cost.shape
    total, came = np.zeros(radii), np.zeros((2 * count, radii), np.int64)
    index = np.arange(radii)
    for step in range(2 * count):
        padded = np.pad(total, JUMP, constant_values=np.inf)
        choices = np.stack([padded[k : k + radii] for k in range(2 * JUMP + 1)])
        best = choices.argmin(axis=0)
        came[step] = index + best - JUMP
        total = choices[best, index] + cost[step % count]
    at, path = int(total.argmin()), np.zeros(2 * count, np.int64)
    for step in range(2 * count - 1, -1, -1):
        path[step] = at
        at = int(came[step, at])
    return np.roll(path[count // 2 : count // 2 + count], count // 2)


def _filled(xs: Reals, ys: Reals, size_hw: tuple[int, int]) -> Place | None:
    """What a ring encloses of the picture."""
    height, width = size_hw
    x0, y0 = max(0, math.floor(xs.min())), max(0, math.floor(ys.min()))
    x1, y1 = min(width, math.ceil(xs.max()) + 1), min(height, math.ceil(ys.max()) + 1)
    if x0 >= x1 or y0 >= y1:
        return None
    crop = np.zeros((y1 - y0, x1 - x0), np.uint8)
    ring = np.round((np.stack([xs, ys], axis=1) - (x0, y0)) * 16).astype(np.int32)
    cv2.fillPoly(crop, [ring], 1, shift=4)
    return ((x0, y0, x1, y1), crop > 0) if crop.any() else None
