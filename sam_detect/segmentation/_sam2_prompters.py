"""Prompters: the points at which automatic mask generation prompts the model."""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence

import cv2
import numpy as np
import numpy.typing as npt
from sam2.utils.amg import build_point_grid

from sam_detect.types import HintName, Hints, ImageRGB, Similarity
from sam_detect.types.masks import BoolArray, FloatArray

Floats = npt.NDArray[np.float64]
Response = npt.NDArray[np.float32]

COARSE_STEP = 4
"""``adaptive`` starts with every fourth point of the grid in each direction."""
COVERING_SHARE = 0.05
"""A mask of more than this share of the image may contain objects, so it covers nothing."""
BLOB_SIDE = 512
"""Images are reduced to this longest side for the detection of blobs of unknown size."""
BLOB_RADIUS = 5.0
"""Radius (pixels) of the smallest blobs of a known size, in the image reduced for them."""
BLOB_RADII = (2.0, 64.0)
"""Least and most radius of blobs in pixels of the reduced image, if no areas are given."""
RADIUS_STEP = 1.4
NOISES = 3.0
"""Least contrast of a blob with its surroundings, as a multiple of the image's noise ..."""
LEAST_CONTRASTS = (1.0, 4.0)
"""... clipped to this range (of 0..255)."""
AREA_REACH = np.e
"""Factor by which objects may be smaller or larger than the known examples."""
RELIABLE = 0.15
"""Least similarity to the examples of a pixel that is asked. Of .15, .3 and .5 the first left out
the fewest objects on each of glands, neurites and nuclei, for 1.2 to 2.4 times the prompts of the
last."""
FEWEST_POINTS, USUAL_POINTS, MOST_POINTS = 16, 32, 256
"""Along a side of a grid that follows the sizes; the official generator has 32."""


def points_for(least_area: int, size_hw: tuple[int, int], usual: int = USUAL_POINTS) -> int:
    """Points along a side of a grid that misses no object between its points.

    A disc contains a point wherever it is if the diagonal between neighbouring points is at most
    its diameter; on average it then contains pi / 2 of them in a square image. Fewer points than
    usual are taken only for large objects: if the diagonal is at most the radius of the smallest,
    which then contains about six of them.

    Args:
        least_area: pixels of the smallest object, taken as a disc.
        size_hw: of the image.
        usual: points along a side without known sizes.

    Returns:
        From 16 to 256.
    """
    needed = np.hypot(*size_hw) / (2 * _radius(least_area))
    wanted = max(needed, min(usual, 2 * needed))
    return int(np.clip(np.ceil(wanted), FEWEST_POINTS, MOST_POINTS))


class Covered:
    """The part of an image that accepted masks cover."""

    def __init__(self, size_hw: tuple[int, int]) -> None:
        self._map = np.zeros(size_hw, np.bool_)
        self._most = COVERING_SHARE * size_hw[0] * size_hw[1]

    def add(self, crop: BoolArray, box_xyxy: tuple[int, int, int, int]) -> None:
        if np.count_nonzero(crop) <= self._most:
            x0, y0, x1, y1 = box_xyxy
            self._map[y0:y1, x0:x1] |= crop

    def at(self, points: FloatArray) -> BoolArray:
        """``(B,)`` whether each of ``(B, 2)`` points, relative to width and height, is covered."""
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

    uses: tuple[HintName, ...] = ()
    """As of :class:`~sam_detect.interfaces.Segmenter`."""

    def knowing(self, hints: Hints) -> Prompter:
        """This prompter for objects like the examples; itself unless it :attr:`uses` any hints."""
        return self

    @property
    def finds_small(self) -> bool:
        """Whether objects that lie between the points of a grid are asked for, too."""
        return False


class GridPrompter(Prompter):
    """All points of an even grid, as in the official generator."""

    def rounds(self, image_rgb: ImageRGB, per_side: int, covered: Covered) -> Iterator[FloatArray]:
        yield np.asarray(build_point_grid(per_side))


class AdaptivePrompter(Prompter):
    """The same grid from coarse to fine, without points that accepted masks cover."""

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
    those of the highest contrast first.

    Lowe takes maxima over space and scale together. Here each scale has its own, and of those
    inside one another that of the highest contrast is kept: otherwise a group of touching objects
    would hide the single ones.

    Args:
        areas: least and most pixels of the objects, in the image; 0 if not known.
    """

    def __init__(self, areas: tuple[float, float] = (0, 0)) -> None:
        self.areas = areas

    uses = ("areas",)

    def knowing(self, hints: Hints) -> BlobPrompter:
        """Blobs of about the examples' areas, within the given limits."""
        if hints.areas is None:
            return self
        (least, most), (smallest, largest) = self.areas, hints.areas
        return BlobPrompter((least or smallest / AREA_REACH, most or largest * AREA_REACH))

    @property
    def finds_small(self) -> bool:
        return True

    def rounds(self, image_rgb: ImageRGB, per_side: int, covered: Covered) -> Iterator[FloatArray]:
        height, width = image_rgb.shape[:2]
        size, scale = _reduced_size((height, width), self.areas[0])
        small = cv2.resize(image_rgb, size, interpolation=cv2.INTER_AREA)
        lab = cv2.cvtColor(np.asarray(small, np.uint8), cv2.COLOR_RGB2LAB).astype(np.float32)
        radii = self._radii(scale, size)
        responses = list(_differences(lab, radii))
        centres = clearest(responses, radii, _least_contrasts(lab, radii), most=per_side**2)
        yield np.asarray((centres + 0.5) / size, np.float32)

    def _radii(self, scale: float, size: tuple[int, int]) -> Floats:
        least, most = (
            max(scale * _radius(area), 1) if area else default
            for area, default in zip(self.areas, BLOB_RADII, strict=True)
        )
        most = min(most, max(size) / 2)
        steps = np.floor(np.log(max(most / least, 1)) / np.log(RADIUS_STEP))
        return np.asarray(least * RADIUS_STEP ** np.arange(steps + 1))


class SimilarityPrompter(Prompter):
    """Where the picture is like the examples. First the peaks of the similarity, smoothed by half
    the radius of the smallest example. Then, among the pixels that are reliably similar and that
    no mask covers yet, the one farthest from all points, again and again. Without examples: all
    points of the grid.

    Args:
        similarity: of pictures; None without examples.
        least: pixels of the smallest example; 0 if not known.
    """

    needs_cover = True

    def __init__(self, similarity: Similarity | None = None, least: float = 0) -> None:
        self.similarity, self.least = similarity, least

    uses = ("areas", "similarity")

    def knowing(self, hints: Hints) -> SimilarityPrompter:
        least = max(self.least, hints.areas[0]) if hints.areas else self.least
        return SimilarityPrompter(hints.similarity or self.similarity, least)

    @property
    def finds_small(self) -> bool:
        return self.similarity is not None

    def rounds(self, image_rgb: ImageRGB, per_side: int, covered: Covered) -> Iterator[FloatArray]:
        if self.similarity is None:
            yield from GridPrompter().rounds(image_rgb, per_side, covered)
            return
        size, scale = _reduced_size(image_rgb.shape[:2], self.least)
        similar = np.zeros(size[::-1], np.float32)
        for each in self.similarity(image_rgb):
            np.maximum(similar, cv2.resize(each, size), out=similar)
        radius = max(1.0, scale * _radius(self.least) if self.least else BLOB_RADII[0])
        smooth = np.asarray(cv2.GaussianBlur(similar, (0, 0), radius / 2), np.float32)
        radii, least = np.array([radius]), np.array([RELIABLE])
        peaks = clearest([smooth], radii, least, most=per_side**2)
        yield np.asarray((peaks + 0.5) / size, np.float32)
        free = np.ones(smooth.shape, np.uint8)
        free[peaks[:, 1].astype(np.int64), peaks[:, 0].astype(np.int64)] = 0
        away = cv2.distanceTransform(free, cv2.DIST_L2, cv2.DIST_MASK_PRECISE)
        step = max(1, int(radius / 2))
        rows, columns = (step * each for each in np.nonzero(smooth[::step, ::step] >= RELIABLE))
        places = np.column_stack([columns, rows]).astype(np.float64)
        uncovered = ~covered.at(np.asarray((places + 0.5) / size, np.float32))
        further = _farthest(
            places[uncovered],
            away[rows, columns][uncovered],
            spacing=2 * radius,
            most=per_side**2 - len(peaks),
        )
        yield np.asarray((further + 0.5) / size, np.float32)


def _farthest(places: Floats, distances: FloatArray, *, spacing: float, most: int) -> Floats:
    """``(B, 2)`` of the places, each the farthest from all before, and at least ``spacing`` away.

    Args:
        distances: of each place from what was chosen earlier.
    """
    chosen = np.zeros((0, 2))
    while len(chosen) < most and distances.max(initial=0) >= spacing:
        best = places[int(distances.argmax())]
        chosen = np.vstack([chosen, best])
        distances = np.minimum(distances, np.hypot(*(places - best).T))
    return chosen


def _reduced_size(size_hw: tuple[int, ...], least: float) -> tuple[tuple[int, int], float]:
    """Width and height at which an image is searched, and the scale.

    Args:
        least: pixels of the smallest object; 0 if not known.
    """
    height, width = size_hw[:2]
    wanted = BLOB_RADIUS / _radius(least) if least else BLOB_SIDE / max(height, width)
    scale = min(1.0, wanted)
    return (max(1, round(width * scale)), max(1, round(height * scale))), scale


def _radius(area: float) -> float:
    """Radius of the disc of an area."""
    return float((area / np.pi) ** 0.5)


def _differences(lab: Response, radii: Floats) -> Iterator[Response]:
    """``(h, w)`` for each radius: contrast of a disc with its surroundings, the largest over the
    channels. Radii grow by ``RADIUS_STEP``: the outer Gaussian of one is the inner of the next."""
    # the response to a disc is largest at sigma = radius / sqrt(2)
    sigmas = np.append(radii, radii[-1] * RADIUS_STEP) / (2 * RADIUS_STEP) ** 0.5
    inside = cv2.GaussianBlur(lab, (0, 0), sigmas[0])
    for narrow, wide in itertools.pairwise(sigmas):
        around = cv2.GaussianBlur(inside, (0, 0), (wide**2 - narrow**2) ** 0.5)
        yield np.maximum.reduce(cv2.split(cv2.absdiff(inside, around)))
        inside = around


def _least_contrasts(lab: Response, radii: Floats) -> Floats:
    """Least contrast for each radius: responses to noise fall with the radius."""
    finest = BLOB_RADII[0]
    noise = np.median(next(_differences(lab, np.array([finest]))))
    least, most = LEAST_CONTRASTS
    return np.asarray(np.clip(NOISES * noise * np.minimum(finest / radii, 1), least, most))


def clearest(
    responses: Sequence[Response], radii: Floats, contrasts: Floats, *, most: int
) -> Floats:
    """``(B, 2)`` columns and rows of local maxima, by falling contrast, without those inside one of
    higher contrast (within the smaller of their two radii)."""
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
