"""Where to ask: the points that a picture's automatic masks are asked at."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from typing import ClassVar

import cv2
import numpy as np
import numpy.typing as npt
from sam2.utils.amg import build_point_grid

from sam_detect.masks import BoolArray, FloatArray
from sam_detect.types import ImageRGB

COARSE_STEP = 4
"""``adaptive`` begins with every so many-th point of the grid in each direction."""
COVERING_SHARE = 0.05
"""A mask of more than this share of the picture may have objects in it, so it covers nothing."""
BLOB_SIDE = 512
"""Pictures are reduced to this longest side before blobs are looked for."""
BLOB_RADII = (2.0, 64.0)
"""Least and most radius of blobs, pixels of the reduced picture, where no areas are asked for."""
RADIUS_STEP = 1.4
LEAST_CONTRAST = 4.0
"""Least difference (of 0..255) of a blob from what is around it."""


AREA_REACH = np.e
"""Objects may be so many times smaller or larger than the examples that are known of them."""
FEWEST_POINTS, USUAL_POINTS, MOST_POINTS = 16, 32, 256
"""Along a side of a grid that is chosen by sizes; 32 is what the official generator has."""


def points_for(least_area: int, size_hw: tuple[int, int], usual: int = USUAL_POINTS) -> int:
    """Points along a side of a grid with which no object is missed between the points.

    A disc has a point inside wherever it lies if the diagonal between neighbouring points is at
    most its diameter; on average it then has pi / 2 of them in a square picture. Fewer points
    than usual are taken only for large objects: where the diagonal is still at most the radius of
    the smallest, which then has about six of them.

    Args:
        least_area: pixels of the smallest object, taken as a disc.
        size_hw: of the picture.
        usual: points along a side where nothing is known.

    Returns:
        From 16 to 256.
    """
    diameter = 2 * (least_area / np.pi) ** 0.5
    needed = np.hypot(*size_hw) / diameter
    wanted = max(needed, min(usual, 2 * needed))
    return int(np.clip(np.ceil(wanted), FEWEST_POINTS, MOST_POINTS))


class Covered:
    """What the masks accepted so far cover of a picture."""

    def __init__(self, size_hw: tuple[int, int]) -> None:
        self._map = np.zeros(size_hw, np.bool_)
        self._most = COVERING_SHARE * size_hw[0] * size_hw[1]

    def add(self, crop: BoolArray, box_xyxy: tuple[int, int, int, int]) -> None:
        if np.count_nonzero(crop) <= self._most:
            x0, y0, x1, y1 = box_xyxy
            self._map[y0:y1, x0:x1] |= crop

    def at(self, points: FloatArray) -> BoolArray:
        """``(B,)`` whether each of ``(B, 2)`` points, as shares of width and height, is covered."""
        height, width = self._map.shape
        columns = np.minimum((points[:, 0] * width).astype(np.int64), width - 1)
        rows = np.minimum((points[:, 1] * height).astype(np.int64), height - 1)
        return np.asarray(self._map[rows, columns])


class Prompter(ABC):
    """Chooses points."""

    needs_cover: ClassVar[bool] = False
    """Whether what was accepted is to be drawn into ``covered`` between rounds."""

    @abstractmethod
    def rounds(self, image_rgb: ImageRGB, per_side: int, covered: Covered) -> Iterator[FloatArray]:
        """Rounds of ``(B, 2)`` points, x and y as shares of width and height; each round is
        asked, and what is accepted of it drawn into ``covered``, before the next is made."""

    def for_areas(self, areas: tuple[int, int]) -> Prompter:
        """This prompter for objects of about these areas; itself unless it goes by sizes."""
        return self


class GridPrompter(Prompter):
    """All points of an even grid, as the official generator has them."""

    def rounds(self, image_rgb: ImageRGB, per_side: int, covered: Covered) -> Iterator[FloatArray]:
        yield np.asarray(build_point_grid(per_side))


class AdaptivePrompter(Prompter):
    """The same grid from coarse to fine, without the points that accepted masks cover."""

    needs_cover = True

    def rounds(self, image_rgb: ImageRGB, per_side: int, covered: Covered) -> Iterator[FloatArray]:
        grid = np.asarray(build_point_grid(per_side)).reshape(per_side, per_side, 2)
        asked = np.zeros((per_side, per_side), np.bool_)
        step = COARSE_STEP
        while step:
            chosen = np.zeros_like(asked)
            first = min(step // 2, 1)  # so that each level is part of the next
            chosen[first::step, first::step] = True
            chosen &= ~asked
            asked |= chosen
            points = grid[chosen]
            yield points[~covered.at(points)]
            step //= 2


class BlobPrompter(Prompter):
    """Centres of blobs, bright or dark, at the sizes of interest: extrema in space and scale of
    differences of Gaussians (Lowe 2004, "Distinctive image features from scale-invariant
    keypoints", section 3), the clearest first.

    Args:
        areas: least and most pixels of the objects, in the picture; 0 for not known.
    """

    def __init__(self, areas: tuple[float, float] = (0, 0)) -> None:
        self.areas = areas

    def for_areas(self, areas: tuple[int, int]) -> BlobPrompter:
        """Blobs of about these areas, within the limits that were asked for."""
        least, most = self.areas
        return BlobPrompter((least or areas[0] / AREA_REACH, most or areas[1] * AREA_REACH))

    def rounds(self, image_rgb: ImageRGB, per_side: int, covered: Covered) -> Iterator[FloatArray]:
        yield self._centres(image_rgb)[: per_side**2]

    def _centres(self, image_rgb: ImageRGB) -> FloatArray:
        height, width = image_rgb.shape[:2]
        scale = min(1.0, BLOB_SIDE / max(height, width))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = cv2.resize(image_rgb, size, interpolation=cv2.INTER_AREA)
        lab = cv2.cvtColor(np.asarray(small, np.uint8), cv2.COLOR_RGB2LAB).astype(np.float32)
        responses = [_differences(lab, radius) for radius in self._radii(scale, size)]
        if not responses:
            return np.zeros((0, 2), np.float32)
        stack = np.stack(responses)
        peaks = (stack == _neighbourhood(stack)) & (stack >= LEAST_CONTRAST)
        _, rows, columns = np.nonzero(peaks)
        order = np.argsort(-stack[peaks], kind="stable")
        centres = np.stack([(columns + 0.5) / size[0], (rows + 0.5) / size[1]], axis=1)
        return np.asarray(centres[order], np.float32)

    def _radii(self, scale: float, size: tuple[int, int]) -> npt.NDArray[np.float64]:
        least, most = (
            scale * (area / np.pi) ** 0.5 if area else default
            for area, default in zip(self.areas, BLOB_RADII, strict=True)
        )
        most = min(most, max(size) / 2)
        steps = np.floor(np.log(max(most / least, 1)) / np.log(RADIUS_STEP))
        return np.asarray(least * RADIUS_STEP ** np.arange(steps + 1))


def _differences(lab: npt.NDArray[np.float32], radius: float) -> npt.NDArray[np.float32]:
    """``(h, w)``: how far a disc of the radius differs from what is around it, in any channel."""
    sigma = radius / 2**0.5  # where the response to a disc of this radius is largest
    inside = cv2.GaussianBlur(lab, (0, 0), sigma / RADIUS_STEP**0.5)
    around = cv2.GaussianBlur(lab, (0, 0), sigma * RADIUS_STEP**0.5)
    return np.asarray(np.abs(inside - around).max(axis=2), np.float32)


def _neighbourhood(stack: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    """The largest response in the 3 x 3 x 3 around each."""
    kernel = np.ones((3, 3), np.uint8)
    wide = np.stack([cv2.dilate(level, kernel) for level in stack])
    padded = np.pad(wide, ((1, 1), (0, 0), (0, 0)), constant_values=-np.inf)
    return np.asarray(np.maximum(np.maximum(padded[:-2], padded[1:-1]), padded[2:]))
