"""Where to ask: the points that a picture's automatic masks are asked at."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt
from sam2.utils.amg import build_point_grid

from sam_detect.errors import ConfigError
from sam_detect.masks import BoolArray, FloatArray
from sam_detect.types import ImageRGB

Floats = npt.NDArray[np.float64]
Response = npt.NDArray[np.float32]

PROMPTERS = ("grid", "adaptive", "blobs")
COARSE_STEP = 4
"""``adaptive`` begins with every so many-th point of the grid in each direction."""
COVERING_SHARE = 0.05
"""A mask of more than this share of the picture may have objects in it, so it covers nothing."""
BLOB_SIDE = 512
"""Pictures are reduced to this longest side before blobs of unknown size are looked for."""
BLOB_RADIUS = 5.0
"""Radius (pixels) of the smallest blobs of a known size, in the picture reduced for them."""
BLOB_RADII = (2.0, 64.0)
"""Least and most radius of blobs, pixels of the reduced picture, where no areas are asked for."""
RADIUS_STEP = 1.4
NOISES = 3.0
"""By how many times the picture's noise a blob has to differ from what is around it ..."""
LEAST_CONTRASTS = (1.0, 4.0)
"""... but by at least 1 (of 0..255) in the cleanest picture, and by 4 in any."""


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
    needed = np.hypot(*size_hw) / (2 * _radius(least_area))
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

    needs_cover: bool = False
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
    """Centres of blobs, bright or dark, at the sizes of interest: local maxima of differences of
    Gaussians (Lowe 2004, "Distinctive image features from scale-invariant keypoints", section 3),
    the clearest first.

    Lowe looks for maxima of space and scale at once. Here each scale has its own, and of those
    that lie in one another the clearest is kept: else a group of things that touch each other
    would hide the single ones.

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
        height, width = image_rgb.shape[:2]
        scale = min(1.0, self._scale(max(height, width)))
        size = max(1, round(width * scale)), max(1, round(height * scale))
        small = cv2.resize(image_rgb, size, interpolation=cv2.INTER_AREA)
        lab = cv2.cvtColor(np.asarray(small, np.uint8), cv2.COLOR_RGB2LAB).astype(np.float32)
        radii = self._radii(scale, size)
        responses = list(_differences(lab, radii))
        centres = _clearest(responses, radii, _least_contrasts(lab, radii), most=per_side**2)
        yield np.asarray((centres + 0.5) / size, np.float32)

    def _scale(self, longest_side: int) -> float:
        least = self.areas[0]
        return BLOB_RADIUS / _radius(least) if least else BLOB_SIDE / longest_side

    def _radii(self, scale: float, size: tuple[int, int]) -> Floats:
        least, most = (
            max(scale * _radius(area), 1) if area else default
            for area, default in zip(self.areas, BLOB_RADII, strict=True)
        )
        most = min(most, max(size) / 2)
        steps = np.floor(np.log(max(most / least, 1)) / np.log(RADIUS_STEP))
        return np.asarray(least * RADIUS_STEP ** np.arange(steps + 1))


def _radius(area: float) -> float:
    """Of the disc of an area."""
    return float((area / np.pi) ** 0.5)


def _differences(lab: Response, radii: Floats) -> Iterator[Response]:
    """``(h, w)`` for each radius: how far a disc of it differs from what is around it, in any
    channel. Radii grow by ``RADIUS_STEP``, so that what is around one is inside the next."""
    # The response to a disc is largest at a sigma of its radius over the root of two.
    sigmas = np.append(radii, radii[-1] * RADIUS_STEP) / (2 * RADIUS_STEP) ** 0.5
    inside = cv2.GaussianBlur(lab, (0, 0), sigmas[0])
    for narrow, wide in itertools.pairwise(sigmas):
        around = cv2.GaussianBlur(inside, (0, 0), (wide**2 - narrow**2) ** 0.5)
        yield np.maximum.reduce(cv2.split(cv2.absdiff(inside, around)))
        inside = around


def _least_contrasts(lab: Response, radii: Floats) -> Floats:
    """For each radius what is clearly more than noise, whose responses fall with the radius."""
    finest = BLOB_RADII[0]
    noise = np.median(next(_differences(lab, np.array([finest]))))
    least, most = LEAST_CONTRASTS
    return np.asarray(np.clip(NOISES * noise * np.minimum(finest / radii, 1), least, most))


def _clearest(
    responses: Sequence[Response], radii: Floats, contrasts: Floats, *, most: int
) -> Floats:
    """``(B, 2)`` columns and rows of local maxima, the clearest first, without those that lie in
    a clearer one (as far as the smaller of their two radii reaches)."""
    kernel = np.ones((3, 3), np.uint8)
    peaks = [
        (response == cv2.dilate(response, kernel)) & (response >= contrast)
        for response, contrast in zip(responses, contrasts, strict=True)
    ]
    levels, rows, columns = np.nonzero(np.stack(peaks))
    heights = np.stack(responses)[levels, rows, columns]
    taken = [np.zeros(response.shape, np.uint8) for response in responses]
    kept: list[tuple[int, int]] = []
    for index in np.argsort(-heights, kind="stable").tolist():
        level, at = int(levels[index]), (int(columns[index]), int(rows[index]))
        if taken[level][at[1], at[0]]:
            continue
        kept.append(at)
        if len(kept) == most:
            break
        for other, radius in zip(taken, radii, strict=True):
            cv2.circle(other, at, int(min(radius, radii[level])), 1, thickness=-1)
    return np.array(kept, np.float64).reshape(-1, 2)


def make_prompter(name: str, areas: tuple[int, int] = (0, 0)) -> Prompter:
    """The prompter of a name.

    Args:
        areas: least and most pixels of what is asked for; 0 for no limit.

    Raises:
        ConfigError: there is none of this name.
    """
    if name == "blobs":
        return BlobPrompter(areas)
    plain: dict[str, type[Prompter]] = {"grid": GridPrompter, "adaptive": AdaptivePrompter}
    if name not in plain:
        raise ConfigError(f"prompts must be one of {', '.join(PROMPTERS)}, got {name!r}")
    return plain[name]()
