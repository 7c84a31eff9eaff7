"""Places the labels and the legend of an image: next to objects, never over each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.io.drawing import (
    PANEL_COLOR,
    PANEL_TEXT,
    BoxXYXY,
    ColorRGB,
    clean,
    draw_alpha,
    line_height,
    rounded_rectangle,
    text_alpha,
    text_color_on,
)
from sam_detect.types import ImageRGB
from sam_detect.types.masks import FloatArray, IntArray

Counts = list[tuple[str | None, int, ColorRGB]]
"""Label (None for unknown), number and colour, in the order to show."""

TAG_OPACITY = 0.92
PANEL_OPACITY = 0.78
LEGEND_ROWS = 8
MAX_HIDDEN = 0.15
"""Share of another object's box that a tag may hide."""
MAX_HIDDEN_OF_OWN = 0.35
SHORTER = 0.15
"""Cost of a shorter text: it is taken if the longer one would hide more."""
CROWDED_AT = 40
"""With more objects than this, a tag may cover objects by only ``MAX_COVERED_IN_CROWD``."""
MAX_COVERED_IN_CROWD = 0.1
MAX_TAGGED, MAX_TAGGED_IN_CROWD = 0.25, 0.12
"""Share of the image's area that all tags together may take."""
MAX_TAG = 0.08
"""Share of the image's area that one tag may take."""
TAG_HYSTERESIS, LEGEND_HYSTERESIS = 0.4, 0.25
"""In a video, how much better another place must be to move a tag or the legend."""
NO_CORNER = 0.05
"""Cost of a place of the legend that is no corner."""


@dataclass(frozen=True)
class Tag:
    """A label next to an object.

    Attributes:
        box_xyxy: the object's.
        color: the label's.
        texts: from the longest to the shortest.
        track_id: of the object, in a video; else 0.
    """

    box_xyxy: BoxXYXY
    color: ColorRGB
    texts: tuple[str, ...]
    track_id: int = 0


@dataclass
class LastPlaces:
    """Where tags and legend were in the last frame of a video.

    Attributes:
        of_track: for each track the index of its tag's place.
        legend: index of the legend's place.
    """

    of_track: dict[int, int] = field(default_factory=dict)
    legend: int | None = None


class Layout:
    """What is where in an image.

    Args:
        objects: ``(H, W)`` uint8, 1 where there is an object.
    """

    def __init__(self, objects: npt.NDArray[np.uint8]) -> None:
        self.height, self.width = objects.shape
        # large images are subsampled: a rough share is enough
        self._step = max(1, round((objects.size / 1_000_000) ** 0.5))
        self._sums = cv2.integral(np.ascontiguousarray(objects[:: self._step, :: self._step]))
        self._taken: list[BoxXYXY] = []

    def take(self, box: BoxXYXY) -> None:
        self._taken.append(box)

    def is_free(self, boxes: IntArray) -> npt.NDArray[np.bool_]:
        """``(N,)``: whether each of ``(N, 4)`` boxes is inside the image and free."""
        x0, y0, x1, y1 = boxes.T
        free = (x0 >= 0) & (y0 >= 0) & (x1 <= self.width) & (y1 <= self.height)
        if self._taken:
            a0, b0, a1, b1 = np.array(self._taken).T[:, :, None]
            free &= ~((x0 < a1) & (x1 > a0) & (y0 < b1) & (y1 > b0)).any(axis=0)
        return np.asarray(free, np.bool_)

    def covered(self, boxes: IntArray) -> FloatArray:
        """``(N,)``: share of each of ``(N, 4)`` boxes that is on objects."""
        height, width = np.array(self._sums.shape) - 1
        x0, y0, x1, y1 = np.clip(boxes // self._step, 0, (width, height, width, height)).T
        x1, y1 = np.clip(x1, x0 + 1, width), np.clip(y1, y0 + 1, height)
        sums = self._sums
        inside = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
        return np.asarray(inside / np.maximum((x1 - x0) * (y1 - y0), 1), np.float32)


def place_tags(
    canvas: ImageRGB,
    layout: Layout,
    tags: Sequence[Tag],
    size_px: int,
    *,
    without_tags: Sequence[BoxXYXY] = (),
    last: LastPlaces | None = None,
) -> int:
    """Draws as many tags as there is room for, in their order, and returns how many.

    No tag hides a small object, or much of any.

    Args:
        canvas: the image, changed in place.
        layout: takes the tags' places.
        tags: the most important first.
        size_px: size of the text.
        without_tags: boxes of the objects that have no tag.
        last: in a video, changed to the places in this frame.
    """
    before = {} if last is None else last.of_track
    after: dict[int, int] = {}
    boxes = np.array([*(tag.box_xyxy for tag in tags), *without_tags], np.int64).reshape(-1, 4)
    crowded = len(boxes) > CROWDED_AT
    room = (MAX_TAGGED_IN_CROWD if crowded else MAX_TAGGED) * layout.width * layout.height
    placed = 0
    for index, tag in enumerate(tags):
        if room <= 0:
            break
        best = _best_place(
            layout, tag, size_px, boxes=boxes, own=index,
            max_covered=MAX_COVERED_IN_CROWD if crowded else 1.0, last=before.get(tag.track_id),
        )  # fmt: skip
        if best is not None:
            after[tag.track_id], (x0, y0, x1, y1), text = best
            layout.take((x0 - 1, y0 - 1, x1 + 1, y1 + 1))
            back = rounded_rectangle((x1 - x0, y1 - y0), size_px * 0.28)
            draw_alpha(canvas, back, (x0, y0), tag.color, TAG_OPACITY)
            letters = text_alpha(text, size_px)
            draw_alpha(canvas, letters, (x0 + _padding(size_px), y0), text_color_on(tag.color))
            room -= (x1 - x0) * (y1 - y0)
            placed += 1
    if last is not None:
        last.of_track = after
    return placed


def _best_place(
    layout: Layout,
    tag: Tag,
    size_px: int,
    *,
    boxes: IntArray,
    own: int,
    max_covered: float,
    last: int | None,
) -> tuple[int, BoxXYXY, str] | None:
    """The cheapest place over all texts: its index, its box and the text; None if none is left.

    Args:
        boxes: ``(M, 4)`` of all objects.
        own: index of the tag's object.
        max_covered: largest share of a tag that may be on other objects.
        last: index of its place in the last frame.
    """
    areas = np.maximum((boxes[:, 2:] - boxes[:, :2]).prod(axis=1), 1)
    best, least = None, np.inf
    for shorter, text in enumerate(tag.texts):
        size_wh = text_alpha(text, size_px).shape[1] + 2 * _padding(size_px), line_height(size_px)
        if size_wh[0] * size_wh[1] > MAX_TAG * layout.width * layout.height:
            continue
        places = _candidate_places(tag.box_xyxy, size_wh, (layout.width, layout.height))
        shared = _intersections(places, boxes)
        hidden = shared / areas
        refused = hidden[:, own] > MAX_HIDDEN_OF_OWN
        hidden[:, own] = 0
        on_own = shared[:, own] / (size_wh[0] * size_wh[1])
        covered = np.maximum(layout.covered(places) - on_own, 0)
        cost = SHORTER * shorter + 3 * hidden.sum(axis=1) + 0.3 * (covered + on_own)
        cost += 0.03 * np.arange(len(places))
        if last is not None:
            cost[last] -= TAG_HYSTERESIS
        refused |= (hidden.max(axis=1) > MAX_HIDDEN) | (covered > max_covered)
        cost[refused | ~layout.is_free(places)] = np.inf
        place = int(np.argmin(cost))
        if cost[place] < least:
            x0, y0, x1, y1 = places[place].tolist()
            best, least = (place, (x0, y0, x1, y1), text), cost[place]
    return best


def _padding(size_px: int) -> int:
    return max(2, round(size_px * 0.4))


def _intersections(boxes: IntArray, others: IntArray) -> IntArray:
    """``(N, M)``: pixels that each of ``(N, 4)`` boxes shares with each of ``(M, 4)`` others."""
    (x0, y0, x1, y1), (a0, b0, a1, b1) = boxes.T[:, :, None], others.T
    width = np.minimum(x1, a1) - np.maximum(x0, a0)
    height = np.minimum(y1, b1) - np.maximum(y0, b0)
    return np.asarray(np.maximum(width, 0) * np.maximum(height, 0), np.int64)


def _candidate_places(
    box: BoxXYXY, size_wh: tuple[int, int], image_wh: tuple[int, int]
) -> npt.NDArray[Any]:
    """``(N, 4)`` places for a tag, the preferred first, moved into the image.

    A tag overlaps the edge of a large object, which shows what it belongs to; it keeps off a small
    one.
    """
    (x0, y0, x1, y1), (width, height) = box, size_wh
    gap = 1 if y1 - y0 < 2.5 * height else -round(0.3 * height)
    middle_x, middle_y = (x0 + x1 - width) // 2, (y0 + y1 - height) // 2
    above, below = y0 - height - gap, y1 + gap
    corners = [
        (middle_x, above), (middle_x, below),
        (x0, above), (x1 - width, above), (x0, below), (x1 - width, below),
        (x1 + 1, middle_y), (x0 - width - 1, middle_y),
        (middle_x, y0), (middle_x, y1 - height), (middle_x, middle_y),
    ]  # fmt: skip
    places = np.clip(corners, 0, np.maximum(np.array(image_wh) - size_wh, 0))
    return np.concatenate([places, places + size_wh], axis=1)


def draw_legend(
    canvas: ImageRGB,
    layout: Layout,
    counts: Counts,
    size_px: int,
    *,
    last: LastPlaces | None = None,
) -> bool:
    """A small panel with the number of objects of each label, where it hides few objects.

    Args:
        canvas: the image, changed in place.
        layout: takes the panel's place.
        counts: what to show.
        size_px: size of the text.
        last: in a video, changed to the place in this frame.

    Returns:
        Whether there was room: a panel never takes more than half the width or the height.
    """
    rows = _legend_rows(counts)
    names = [text_alpha(name, size_px) for name, _, _ in rows]
    numbers = [text_alpha(number, size_px) for _, number, _ in rows]
    row_height, pad = line_height(size_px), round(size_px * 0.6)
    text_x = pad + round(size_px * 1.25)
    number_x = text_x + max(name.shape[1] for name in names) + size_px
    width = number_x + max(number.shape[1] for number in numbers) + pad
    height = pad + len(rows) * row_height + pad
    if width > canvas.shape[1] / 2 or height > canvas.shape[0] / 2:
        return False
    x, y = _legend_corner(layout, (width, height), pad, last or LastPlaces())
    layout.take((x, y, x + width, y + height))
    panel = rounded_rectangle((width, height), size_px * 0.5)
    draw_alpha(canvas, panel, (x, y), PANEL_COLOR, PANEL_OPACITY)
    side = round(size_px * 0.8)
    swatch = rounded_rectangle((side, side), side * 0.3)
    for row, ((_, _, color), name, number) in enumerate(zip(rows, names, numbers, strict=True)):
        top = y + pad + row * row_height
        if color is not None:
            draw_alpha(canvas, swatch, (x + pad, top + (row_height - side) // 2), color)
        draw_alpha(canvas, name, (x + text_x, top), PANEL_TEXT)
        draw_alpha(canvas, number, (x + width - pad - number.shape[1], top), PANEL_TEXT)
    return True


def _legend_rows(counts: Counts) -> list[tuple[str, str, ColorRGB | None]]:
    """Label, number and colour of each row; the last row sums those that have no room."""
    rows: list[tuple[str, str, ColorRGB | None]] = [
        ("unknown" if label is None else clean(label), str(number), color)
        for label, number, color in counts
    ]
    if len(rows) <= LEGEND_ROWS:
        return rows
    rest = counts[LEGEND_ROWS - 1 :]
    total = sum(number for _, number, _ in rest)
    return [*rows[: LEGEND_ROWS - 1], (f"{len(rest)} more", str(total), None)]


def _legend_corner(
    layout: Layout, size_wh: tuple[int, int], margin: int, last: LastPlaces
) -> tuple[int, int]:
    """The corner or place at an edge with the fewest objects; corners and the last place first."""
    width, height = size_wh
    right = max(0, layout.width - width - margin)
    bottom = max(0, layout.height - height - margin)
    places = [(margin, margin), (right, margin), (margin, bottom), (right, bottom)]
    for share in (0.5, 0.25, 0.75):
        x, y = round(share * right), round(share * bottom)
        places += [(x, margin), (x, bottom), (margin, y), (right, y)]
    corners = np.array(places, np.int64)
    cost = np.round(layout.covered(np.concatenate([corners, corners + size_wh], axis=1)), 2)
    cost[4:] += NO_CORNER
    if last.legend is not None:
        cost[last.legend] -= LEGEND_HYSTERESIS
    last.legend = int(np.argmin(cost))
    return places[last.legend]
