"""Proposals of pictures that are too large for their objects to be seen at once.

A segmenter reduces a large picture before it works on it, and small objects are lost. Then the
picture is proposed in *windows* with overlap, as large as the smallest example allows. An object
that reaches over the border of a window is whole in another one, or, if it is longer than the
overlap, in the windows of the next *level*, which are four times as large. What several windows
propose is kept once. The masks lie in the whole picture, so whatever comes after them is as in any
picture.
"""

from __future__ import annotations

import math
import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import CancelledError, ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass, replace
from functools import lru_cache, partial

import numpy as np

from sam_detect.interfaces import Segmenter
from sam_detect.types import NO_HINTS, Areas, Frame, Hints, Masks
from sam_detect.types.masks import BoolArray, IntArray, intersection
from sam_detect.types.overlaps import Clashes, meeting_boxes, sparse_nms
from sam_detect.types.polygons import box_around
from sam_detect.types.scratch import release

MARGIN = 2.3
"""The smallest example must have so many times the least area that is proposed at all."""
SHARED = (1 / 16, 1 / 4)
"""Overlap of windows, as shares of their side: least, and most."""
REACH = 2.0
"""Objects may be so many times as long as the largest example, where it is round."""
LEVEL = 4
"""Windows of the next level are so many times as large."""
SIZES = 16.0
"""In windows, proposals so many times smaller or larger than any example are left out: none of
them could be named, and a large picture has very many."""
ROUND = math.pi / 4
"""Share of its box that a round object fills."""
MOST_THREADS = 8
"""Windows that are proposed at once take memory at once."""
SAME_IOU = 0.8
"""Two proposals of different windows that overlap more are one."""

Box = tuple[int, int, int, int]
Progress = Callable[[int, int], None]
"""Told of each window: how many are done, of how many."""
progress: ContextVar[Progress | None] = ContextVar("tiling_progress", default=None)
"""Whom :func:`propose` tells of its progress in this thread."""


@dataclass(frozen=True)
class Level:
    """Windows of one size.

    Attributes:
        side: of a window, in pixels of the picture.
        overlap: that neighbours share; no longer object can be cut by all of them.
    """

    side: int
    overlap: int

    def windows(self, size_hw: tuple[int, int]) -> list[Box]:
        """Half-open boxes xyxy, row by row: as few as can be, of one size, evenly spaced."""
        rows, columns = (self._spans(length) for length in size_hw)
        return [(x0, y0, x1, y1) for y0, y1 in rows for x0, x1 in columns]

    def _spans(self, length: int) -> list[tuple[int, int]]:
        if length <= self.side:
            return [(0, length)]
        count = math.ceil((length - self.overlap) / (self.side - self.overlap))
        side = math.ceil((length + (count - 1) * self.overlap) / count)
        starts = [round(i * (length - side) / (count - 1)) for i in range(count)]
        return [(start, start + side) for start in starts]


def levels(
    size_hw: tuple[int, int], segmenter: Segmenter, hints: Hints = NO_HINTS, tile: int = 0
) -> list[Level]:
    """The levels in which a picture is proposed; none where it is proposed as a whole.

    Args:
        hints: with the areas of the examples; without, only ``tile`` makes windows.
        tile: side of the smallest windows; 0: as large as the smallest example allows. Windows
            that could not hold that one would propose its parts, so they are larger.
    """
    longest = max(size_hw)
    areas = hints.areas
    side = _holding(tile, areas) if tile else _widest(size_hw, segmenter, hints)
    reach = math.inf if areas is None else REACH * math.sqrt(areas[1] * 4 / math.pi)
    found: list[Level] = []
    while side < longest:
        least, most = (max(1, round(share * side)) for share in SHARED)
        found.append(Level(side, max(least, math.ceil(min(reach, most)))))
        if reach <= most:
            return found
        side *= LEVEL
    return [*found, Level(longest, 0)] if found else []


def _holding(tile: int, areas: Areas) -> int:
    """Side of the windows of the first level that can hold the smallest example."""
    needed = 0.0 if areas is None else REACH * math.sqrt(areas[0] * 4 / math.pi)
    side = tile
    while side < needed:
        side *= LEVEL
    return side


def _widest(size_hw: tuple[int, int], segmenter: Segmenter, hints: Hints) -> int:
    """Side of the largest windows in which the smallest example would be proposed."""
    areas = hints.areas
    longest, worked = max(size_hw), segmenter.worked_pixels(size_hw)
    # A picture that is not reduced shows no more in windows.
    if areas is None or worked >= size_hw[0] * size_hw[1]:
        return longest
    least, most = min(longest, math.isqrt(worked)), longest
    limit = segmenter.smallest_area(size_hw, hints)
    # A limit in pixels of the picture is the same in windows.
    if areas[0] >= MARGIN * limit or segmenter.smallest_area((least, least), hints) >= limit:
        return longest
    while most - least > 1:
        side = (least + most) // 2
        fits = areas[0] >= MARGIN * segmenter.smallest_area((side, side), hints)
        least, most = (side, most) if fits else (least, side)
    return least


def propose(
    frame: Frame,
    segmenter: Segmenter,
    hints: Hints = NO_HINTS,
    *,
    tile: int = 0,
    near: IntArray | None = None,
) -> Masks:
    """A segmenter's proposals of a picture of any size, best first.

    Args:
        segmenter: is asked for the picture, or for each window.
        hints, tile: as of :func:`levels`.
        near: ``(N, 4)`` boxes xyxy; only windows that one of them meets are proposed.
    """
    plan = levels(frame.size_hw, segmenter, hints, tile)
    given = hints if "areas" in segmenter.uses else replace(hints, areas=None)
    if not plan:
        return segmenter.propose(frame, given)
    windows = [box for level in plan for box in level.windows(frame.size_hw)]
    if near is not None:
        windows = [box for box in windows if _meets(box, near)]
    told, found = progress.get(), []
    in_window = partial(_in_window, frame, partial(segmenter.propose, hints=given), hints.areas)
    for done, masks in enumerate(_each(in_window, windows, _threads(segmenter)), start=1):
        found.append(masks)
        if told is not None:
            told(done, len(windows))
    return merged([Masks.empty(frame.size_hw), *found])


def _threads(segmenter: Segmenter) -> int:
    """How many windows are proposed at once: as many as there are cores, or as the variable says
    that all numeric libraries obey."""
    if not segmenter.thread_safe:
        return 1
    asked = os.environ.get("OMP_NUM_THREADS", "")
    cores = int(asked) if asked.isdecimal() and int(asked) else usable_cores()
    return min(cores, MOST_THREADS)


def usable_cores() -> int:
    """The cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _each(
    in_window: Callable[[Box], Masks], windows: Sequence[Box], threads: int
) -> Iterator[Masks]:
    """The masks of each window, in the order of the windows whatever the number of threads."""
    if min(threads, len(windows)) < 2:
        yield from map(in_window, windows)
        return
    failed: list[int] = []

    def unless_one_failed(index: int, window: Box) -> Masks:
        # The pool itself goes on with those that wait until its caller sees the error.
        if failed and index > min(failed):
            raise CancelledError
        try:
            return in_window(window)
        except BaseException:
            failed.append(index)
            raise

    with ThreadPoolExecutor(threads) as pool:
        yield from pool.map(unless_one_failed, range(len(windows)), windows)


def places(
    size_hw: tuple[int, int],
    boxes_xywh: Sequence[Sequence[float]],
    points_xy: Sequence[Sequence[float]],
) -> tuple[IntArray, Areas]:
    """Where a user says that objects are: ``(N, 4)`` boxes xyxy, and the areas of the smallest and
    of the largest, where boxes tell them. What is malformed, and reported by others, is left out.
    """
    turned = [np.reshape(each, (4, 2)) for each in _finite(boxes_xywh, 8)]
    boxes = [*map(tuple, _finite(boxes_xywh, 4)), *map(box_around, turned)]
    shown = [(x, y, x + w, y + h) for x, y, w, h in boxes]
    height, width = size_hw
    most = height * width
    sizes = [math.ceil(min(ROUND * w * h, most)) for *_, w, h in boxes
             if w > 0 and h > 0]  # fmt: skip
    shown += [(x, y, x + 1, y + 1) for x, y in _finite(points_xy, 2)]
    near = np.clip(np.array(shown, np.float64).reshape(-1, 4), 0, [width, height, width, height])
    # half as large: outlines that are learnt are worth more pixels than those that are found
    areas = (max(1, min(*sizes, most) // 2), min(max(sizes), most)) if sizes else None
    return np.asarray(near, np.int64), areas


def _finite(rows: Sequence[Sequence[float]], count: int) -> list[list[float]]:
    found = []
    for row in rows:
        try:
            numbers = [float(value) for value in row]
        except (TypeError, ValueError):
            continue
        if len(numbers) == count and all(math.isfinite(number) for number in numbers):
            found.append(numbers)
    return found


def _in_window(frame: Frame, propose: Callable[[Frame], Masks], areas: Areas, window: Box) -> Masks:
    """The proposals in a window, as masks of the picture, without those that its border cuts."""
    x0, y0, x1, y1 = window
    height, width = frame.size_hw
    pixels = frame.image_rgb[y0:y1, x0:x1]
    if (pixels == pixels[0, 0]).all():  # nothing is proposed where there is no structure
        return Masks.empty(frame.size_hw)
    name = f"{frame.source_id}#{x0},{y0},{x1 - x0},{y1 - y0}"
    masks = propose(replace(frame, image_rgb=pixels, source_id=name))
    release(frame.image_rgb)
    inner = np.array([x0 > 0, y0 > 0, x1 < width, y1 < height])
    at_side = masks.boxes_xyxy == np.array([0, 0, x1 - x0, y1 - y0])
    kept = ~(at_side & inner).any(axis=1)
    if areas is not None:
        kept &= (masks.areas * SIZES >= areas[0]) & (masks.areas <= areas[1] * SIZES)
    return moved(masks[kept], (x0, y0), frame.size_hw)


def moved(masks: Masks, by_xy: tuple[int, int], size_hw: tuple[int, int]) -> Masks:
    """The masks of a window in the picture that it is cut from, at its corner ``by_xy``."""
    corner = np.array(by_xy, np.float32)
    return replace(
        masks,
        size_hw=size_hw,
        boxes_xyxy=masks.boxes_xyxy + np.tile(np.array(by_xy, np.int64), 2),
        prompts_xy=masks.prompts_xy + corner,
    )


def merged(found: Sequence[Masks]) -> Masks:
    """The masks of several windows, best first; of nearly equal ones of different windows the
    best."""
    masks = Masks.concatenate(found)
    order = np.argsort(-masks.predicted_ious, kind="stable")
    masks = masks[order]
    windows = np.repeat(np.arange(len(found)), [len(each) for each in found])[order]
    pairs = np.concatenate([np.zeros((0, 2), np.int64), *_nearly_equal(masks, windows)])
    return masks[sparse_nms(range(len(masks)), Clashes(len(masks), pairs), len(masks))]


def _nearly_equal(masks: Masks, windows: IntArray) -> Iterator[IntArray]:
    """The pairs of masks of different windows that are nearly equal."""
    boxes, areas = masks.boxes_xyxy, masks.areas
    pairs = meeting_boxes(boxes)
    pairs = pairs[windows[pairs[:, 0]] != windows[pairs[:, 1]]]
    one, other = boxes[pairs[:, 0]], boxes[pairs[:, 1]]
    sides = np.minimum(one[:, 2:], other[:, 2:]) - np.maximum(one[:, :2], other[:, :2])
    smaller, larger = np.sort(areas[pairs], axis=1).T
    pairs = pairs[np.minimum(sides.prod(axis=1), smaller) > SAME_IOU * larger]
    crop: Callable[[int], BoolArray] = lru_cache(256)(masks.crop)
    listed = boxes.tolist()
    for i, j in pairs.tolist():
        shared = intersection(crop(i), listed[i], crop(j), listed[j])
        if shared > SAME_IOU * (int(areas[i]) + int(areas[j]) - shared):
            yield np.array([[i, j]])


def _meets(box: Box, others: IntArray) -> bool:
    x0, y0, x1, y1 = others.T
    return bool(((x0 < box[2]) & (x1 > box[0]) & (y0 < box[3]) & (y1 > box[1])).any())


def warn_if_too_small(frame: Frame, segmenter: Segmenter, hints: Hints, tile: int = 0) -> None:
    """Warns if objects of the smallest example's area (pixels) are lost in this picture, and if the
    windows that were asked for are smaller than they."""
    areas = hints.areas
    taken = min(_holding(tile, areas), max(frame.size_hw)) if tile else 0
    if taken > tile and areas is not None:
        warnings.warn(
            f"{frame.source_id}: windows of {tile} pixels (tile) are too small for the smallest "
            f"example ({2 * math.sqrt(areas[0] / math.pi):.0f} across): they have {taken}",
            stacklevel=3,
        )
    plan = levels(frame.size_hw, segmenter, hints, tile)
    height, width = plan[0].windows(frame.size_hw)[0][2:][::-1] if plan else frame.size_hw
    least = segmenter.smallest_area((height, width), hints)
    if areas is None or areas[0] >= least:
        return
    smallest = areas[0]
    seen = smallest * segmenter.worked_pixels((height, width)) / (height * width)
    smaller_windows = ", or take smaller windows (tile)" if seen < smallest else ""
    warnings.warn(
        f"{frame.source_id}: in {'windows' if plan else 'a picture'} of {width}x{height} pixels, "
        f"objects of fewer than about {math.ceil(least)} pixels "
        f"({2 * math.sqrt(least / math.pi):.0f} across) are lost; the smallest example has "
        f"{smallest}, and {seen:.1f} in the picture as it is worked on: enlarge the picture"
        f"{smaller_windows}",
        stacklevel=3,
    )
