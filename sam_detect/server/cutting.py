"""Cutting a mask along a line that has no width: every pixel falls to one of the parts."""

from __future__ import annotations

from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.errors import MaskError
from sam_detect.types.masks import BoolArray

OFF_CENTRES = (np.pi * 1e-6, np.e * 1e-6)
"""How far lines are moved, in pixels: none then passes exactly through the centre of a pixel, where
rows and columns could disagree on which side of it the pixel is."""
MAX_LINE_PIXELS = 2_000_000
"""Longest line, in rows and columns of pixels that it crosses."""
MOST_PARTS = 1000
"""No user needs more; a line that hatches it would, and each part takes time."""

Labels = npt.NDArray[np.int32]
Points = npt.NDArray[np.float64]


def parts_along(crop: BoolArray, line_xy: Points) -> Labels:
    """The parts of a mask between whose pixels no way leads but across a line.

    Pixels that share a side or a corner are linked, and each part of the mask that lies apart is
    linked to the nearest pixel of the largest part. Links that cross the line an odd number of
    times are cut.

    Args:
        crop: ``(h, w)`` bool with at least one true pixel.
        line_xy: ``(N, 2)``, N >= 2: x, y in pixels from the corner of the crop.

    Returns:
        ``(h, w)`` int32: 0 outside the mask, and the number of its part, from 1, on it.

    Raises:
        MaskError: the line is too long, or there would be too many parts.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    line = line_xy + OFF_CENTRES
    across = _crossed(line, crop.shape)  # (h, w - 1): between neighbours of a row
    down = _crossed(line[:, ::-1], crop.shape[::-1]).T  # (h - 1, w): of a column
    height, width = crop.shape
    # Pixels and the links between them as pixels of a picture twice as large.
    linked = np.zeros((2 * height - 1, 2 * width - 1), np.uint8)
    linked[::2, ::2] = crop
    linked[::2, 1::2] = crop[:, 1:] & crop[:, :-1] & ~across
    linked[1::2, ::2] = crop[1:] & crop[:-1] & ~down
    count, doubled = cv2.connectedComponents(linked, connectivity=4)
    labels = np.ascontiguousarray(doubled[::2, ::2])
    pairs = np.concatenate([
        _corner_links(crop, labels, across, down), _links_of_islands(crop, labels, line)
    ])  # fmt: skip
    links = coo_array((np.ones(len(pairs)), (pairs[:, 0], pairs[:, 1])), shape=(count, count))
    found, joined = connected_components(links, directed=False)
    if found > MOST_PARTS:
        raise MaskError(
            f"the line cuts the object into {found} parts: draw one that crosses it less"
        )
    numbers: Labels = joined.astype(np.int32)[labels] + 1
    numbers[~crop] = 0
    return numbers


def _crossed(line_xy: Points, size_hw: tuple[int, ...]) -> BoolArray:
    """``(h, w - 1)``: whether a line crosses the way between the centres of each two neighbours of
    a row an odd number of times."""
    height, width = size_hw[0], size_hw[1]
    starts, ends = line_xy[:-1], line_xy[1:]
    levels = np.ceil(np.stack([starts[:, 1], ends[:, 1]]) - 0.5)
    first, last = np.clip(np.sort(levels, axis=0), 0, height).astype(np.int64)
    counts = last - first
    total = int(counts.sum())
    if total > MAX_LINE_PIXELS:
        raise MaskError(f"the line is more than {MAX_LINE_PIXELS} pixels long")
    each = np.repeat(np.arange(len(starts)), counts)
    rows = np.arange(total) + np.repeat(first - np.cumsum(counts) + counts, counts)
    (x, y), (to_x, to_y) = starts[each].T, ends[each].T
    columns = np.ceil(x + (rows + 0.5 - y) * ((to_x - x) / (to_y - y)) - 0.5)
    inside = (columns >= 1) & (columns < width)
    crossed = np.zeros((height, max(0, width - 1)), np.bool_)
    np.logical_xor.at(crossed, (rows[inside], columns[inside].astype(np.int64) - 1), True)
    return crossed


def _corner_links(
    crop: BoolArray, labels: Labels, across: BoolArray, down: BoolArray
) -> npt.NDArray[np.int64]:
    """``(K, 2)`` labels of pixels that touch only at a corner and are on one side of the line."""
    found = [np.zeros((0, 2), np.int64)]
    upper, lower = crop[:-1], crop[1:]
    for near, far, over in (
        (np.s_[:, :-1], np.s_[:, 1:], down[:, 1:]),
        (np.s_[:, 1:], np.s_[:, :-1], down[:, :-1]),
    ):
        touching = upper[near] & lower[far] & ~upper[far] & ~lower[near]
        touching &= ~(across[:-1] ^ over)
        ends = labels[:-1][near][touching], labels[1:][far][touching]
        found.append(np.stack(ends, axis=1).astype(np.int64))
    return np.concatenate(found)


def _links_of_islands(crop: BoolArray, labels: Labels, line: Points) -> npt.NDArray[np.int64]:
    """``(K, 2)`` labels: of each part that lay apart before the cut and of the largest, where the
    shortest way between them does not cross the line."""
    found: list[tuple[int, int]] = []
    count, islands, stats, _ = cv2.connectedComponentsWithStats(crop.view(np.uint8), connectivity=8)
    if count <= 2:
        return np.zeros((0, 2), np.int64)
    if count > MOST_PARTS:
        raise MaskError(f"the object has {count} parts that lie apart: split a part by itself")
    largest = 1 + int(np.argmax(stats[1:, cv2.CC_STAT_AREA]))
    main = islands == largest
    distances, nearest = cv2.distanceTransformWithLabels(
        (~main).astype(np.uint8), cv2.DIST_L2, cv2.DIST_MASK_5, labelType=cv2.DIST_LABEL_PIXEL
    )
    numbered = np.zeros(int(nearest.max()) + 1, np.int64)
    numbered[nearest[main]] = np.flatnonzero(main)
    for island in range(1, count):
        if island == largest:
            continue
        x, y, w, h = stats[island, :4].tolist()
        part = np.s_[y : y + h, x : x + w]
        gaps = np.where(islands[part] == island, distances[part], np.inf)
        row, column = np.unravel_index(int(np.argmin(gaps)), gaps.shape)
        here = int(row) + y, int(column) + x
        to_row, to_column = divmod(int(numbered[nearest[here]]), crop.shape[1])
        if not _crosses(line, (here[1], here[0]), (to_column, to_row)):
            found.append((int(labels[here]), int(labels[to_row, to_column])))
    return np.array(found, np.int64).reshape(-1, 2)


def _crosses(line: Points, one_xy: tuple[int, int], other_xy: tuple[int, int]) -> bool:
    """Whether the way between the centres of two pixels crosses the line an odd number of times."""
    one, other = np.array(one_xy) + 0.5, np.array(other_xy) + 0.5

    def side(a: Any, b: Any, c: Any) -> Any:
        turned = (b - a)[..., 0] * (c - a)[..., 1] - (b - a)[..., 1] * (c - a)[..., 0]
        return turned > 0

    starts, ends = line[:-1], line[1:]
    apart = side(one, other, starts) != side(one, other, ends)
    apart &= side(starts, ends, one) != side(starts, ends, other)
    return bool(np.count_nonzero(apart) % 2)
