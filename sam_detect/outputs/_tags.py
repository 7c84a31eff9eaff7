"""Where the labels of a picture go: beside their objects, never over each other."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.masks import FloatArray
from sam_detect.outputs._painting import paint_alpha, rounded_rectangle
from sam_detect.outputs._palette import ColorRGB, ink_on
from sam_detect.outputs._text import clean, line_height, text_alpha
from sam_detect.types import ImageRGB

Box = tuple[int, int, int, int]

TAG_OPACITY = 0.92
PANEL_COLOR: ColorRGB = (18, 20, 24)
PANEL_OPACITY = 0.78
PANEL_TEXT: ColorRGB = (245, 245, 245)
LEGEND_ROWS = 8
MOST_HIDDEN = 0.15  # of another object's box, by a tag
MOST_HIDDEN_OF_OWN = 0.35
SHORTER = 0.15  # what a shorter text costs: it is taken where the longer one would cover more
CROWDED_AT = 40  # with more objects than this, tags must leave the others nearly free
MOST_COVERED_IN_CROWD = 0.1  # share of a tag under which other objects lie
MOST_TAGGED = 0.25  # of the picture's area, by all tags together
MOST_TAGGED_IN_CROWD = 0.12
STAYING = 0.4  # how much better another place must be, of a video, for a tag to leave its own
LEGEND_STAYING = 0.25
NO_CORNER = 0.05  # what a place of the legend costs that is no corner
LARGEST_TAG = 0.08  # of the picture's area: on a stamp-sized picture a tag would hide everything


@dataclass(frozen=True)
class Tag:
    """A label beside an object.

    Attributes:
        box_xyxy: the object's.
        color: the label's.
        texts: from the longest to the shortest.
        track_id: of the object, in a video; else 0.
    """

    box_xyxy: Box
    color: ColorRGB
    texts: tuple[str, ...]
    track_id: int = 0


class Places:
    """Where the tags and the legend of a video were in its last frame: they stay where they can.

    Attributes:
        of_track: for each track which of its places it had.
        legend: which of its places the legend had.
    """

    def __init__(self) -> None:
        self.of_track: dict[int, int] = {}
        self.legend: int | None = None


class Layout:
    """Keeps track of what lies where in a picture.

    Args:
        objects: ``(H, W)`` uint8, 1 where there is an object.
    """

    def __init__(self, objects: npt.NDArray[np.uint8]) -> None:
        self.height, self.width = objects.shape
        # coarser on large pictures: what counts is where there is room
        self._step = max(1, round((objects.size / 1_000_000) ** 0.5))
        self._sums = cv2.integral(np.ascontiguousarray(objects[:: self._step, :: self._step]))
        self._taken: list[Box] = []

    def take(self, box: Box) -> None:
        self._taken.append(box)

    def is_free(self, boxes: npt.NDArray[np.int64]) -> npt.NDArray[np.bool_]:
        """``(N,)``: whether each of ``(N, 4)`` boxes lies in the picture, on nothing taken."""
        x0, y0, x1, y1 = boxes.T
        free = (x0 >= 0) & (y0 >= 0) & (x1 <= self.width) & (y1 <= self.height)
        if self._taken:
            a0, b0, a1, b1 = np.array(self._taken).T[:, :, None]
            free &= ~((x0 < a1) & (x1 > a0) & (y0 < b1) & (y1 > b0)).any(axis=0)
        return np.asarray(free, np.bool_)

    def covered(self, boxes: npt.NDArray[np.int64]) -> FloatArray:
        """``(N,)``: share of each box that lies on objects."""
        high = np.array([self._sums.shape[1] - 1, self._sums.shape[0] - 1] * 2)
        x0, y0, x1, y1 = np.clip(boxes // self._step, 0, high).T
        x1, y1 = np.minimum(np.maximum(x1, x0 + 1), high[0]), np.maximum(y1, y0 + 1)
        y1 = np.minimum(y1, high[1])
        sums = self._sums
        inside = sums[y1, x1] - sums[y0, x1] - sums[y1, x0] + sums[y0, x0]
        share: FloatArray = (inside / np.maximum((x1 - x0) * (y1 - y0), 1)).astype(np.float32)
        return share


def place_tags(
    canvas: ImageRGB,
    layout: Layout,
    tags: Sequence[Tag],
    size_px: int,
    *,
    without_tags: Sequence[Box] = (),
    places: Places | None = None,
) -> int:
    """Draws as many tags as there is room for, in their order, and returns how many.

    No tag hides a small object, or much of any.

    Args:
        canvas: the picture, changed in place.
        layout: takes the tags' places.
        tags: the most important first.
        size_px: size of the text.
        without_tags: boxes of the objects that have no tag.
        places: of a video, changed to those of this frame.
    """
    before = {} if places is None else places.of_track
    after: dict[int, int] = {}
    boxes = np.array([*(tag.box_xyxy for tag in tags), *without_tags], np.int64).reshape(-1, 4)
    crowded = len(boxes) > CROWDED_AT
    most_covered = MOST_COVERED_IN_CROWD if crowded else 1.0
    picture_area = layout.width * layout.height
    room = (MOST_TAGGED_IN_CROWD if crowded else MOST_TAGGED) * picture_area
    placed = 0
    for index, tag in enumerate(tags):
        if room <= 0:
            break
        drawn = _draw_tag(
            canvas, layout, tag, size_px, others=np.delete(boxes, index, axis=0),
            most_covered=most_covered, was=before.get(tag.track_id),
        )  # fmt: skip
        if drawn is not None:
            after[tag.track_id], place = drawn
            room -= (place[2] - place[0]) * (place[3] - place[1])
            placed += 1
    if places is not None:
        places.of_track = after
    return placed


def _draw_tag(
    canvas: ImageRGB,
    layout: Layout,
    tag: Tag,
    size_px: int,
    *,
    others: npt.NDArray[np.int64],
    most_covered: float,
    was: int | None,
) -> tuple[int, Box] | None:
    """Draws the tag where it costs least, with the longest of its texts that is worth its room;
    returns which of its places that is, and where."""
    best: tuple[float, int, Box, str] | None = None
    padding = _padding(size_px)
    for number, text in enumerate(tag.texts):
        size_wh = text_alpha(text, size_px).shape[1] + 2 * padding, line_height(size_px)
        if size_wh[0] * size_wh[1] > LARGEST_TAG * layout.width * layout.height:
            continue
        places = _places(tag.box_xyxy, size_wh, (layout.width, layout.height))
        own = _overlaps(places, np.array([tag.box_xyxy]))[:, 0]
        overlaps = _overlaps(places, others)
        hidden = overlaps.max(axis=1, initial=0)
        share_of_own = _share_inside(places, tag.box_xyxy)
        covered = np.maximum(layout.covered(places) - share_of_own, 0)
        cost = SHORTER * number + 3 * overlaps.sum(axis=1) + 0.3 * (covered + share_of_own)
        cost += 0.03 * np.arange(len(places))
        if was is not None:
            cost[was] -= STAYING
        refused = (hidden > MOST_HIDDEN) | (own > MOST_HIDDEN_OF_OWN) | (covered > most_covered)
        cost[~layout.is_free(places) | refused] = np.inf
        place = int(np.argmin(cost))
        if np.isfinite(cost[place]) and (best is None or cost[place] < best[0]):
            x0, y0, x1, y1 = (int(v) for v in places[place])
            best = float(cost[place]), place, (x0, y0, x1, y1), text
    if best is None:
        return None
    _, place, (x0, y0, x1, y1), text = best
    layout.take((x0 - 1, y0 - 1, x1 + 1, y1 + 1))
    back = rounded_rectangle((x1 - x0, y1 - y0), size_px * 0.28)
    paint_alpha(canvas, back, (x0, y0), tag.color, TAG_OPACITY)
    paint_alpha(canvas, text_alpha(text, size_px), (x0 + padding, y0), ink_on(tag.color))
    return place, (x0, y0, x1, y1)


def _overlaps(boxes: npt.NDArray[np.int64], objects: npt.NDArray[np.int64]) -> FloatArray:
    """``(N, M)``: share of each object's box that lies in each of the boxes."""
    low = np.maximum(boxes[:, None, :2], objects[None, :, :2])
    high = np.minimum(boxes[:, None, 2:], objects[None, :, 2:])
    inside = np.maximum(high - low, 0).prod(axis=2)
    areas = (objects[:, 2:] - objects[:, :2]).prod(axis=1)
    share: FloatArray = (inside / np.maximum(areas, 1)).astype(np.float32)
    return share


def _share_inside(boxes: npt.NDArray[np.int64], frame: Box) -> FloatArray:
    """``(N,)``: share of each box that lies in the frame."""
    x0, y0, x1, y1 = boxes.T
    width = np.minimum(x1, frame[2]) - np.maximum(x0, frame[0])
    height = np.minimum(y1, frame[3]) - np.maximum(y0, frame[1])
    inside = np.maximum(width, 0) * np.maximum(height, 0)
    share: FloatArray = (inside / ((x1 - x0) * (y1 - y0))).astype(np.float32)
    return share


def draw_legend(
    canvas: ImageRGB,
    layout: Layout,
    counts: list[tuple[str | None, int, ColorRGB]],
    size_px: int,
    *,
    places: Places | None = None,
) -> bool:
    """A small panel with the number of objects of each label, where few objects are under it.

    Args:
        canvas: the picture, changed in place.
        layout: takes the panel's place.
        counts: label (None for unknown), number and colour, in the order to show.
        size_px: size of the text.
        places: of a video, changed to those of this frame.

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
    x, y = _corner(layout, (width, height), round(size_px * 0.6), places or Places())
    layout.take((x, y, x + width, y + height))
    panel = rounded_rectangle((width, height), size_px * 0.5)
    paint_alpha(canvas, panel, (x, y), PANEL_COLOR, PANEL_OPACITY)
    side = round(size_px * 0.8)
    swatch = rounded_rectangle((side, side), side * 0.3)
    for row, ((_, _, color), name, number) in enumerate(zip(rows, names, numbers, strict=True)):
        top = y + pad + row * row_height
        if color is not None:
            paint_alpha(canvas, swatch, (x + pad, top + (row_height - side) // 2), color)
        paint_alpha(canvas, name, (x + text_x, top), PANEL_TEXT)
        paint_alpha(canvas, number, (x + width - pad - number.shape[1], top), PANEL_TEXT)
    return True


def _padding(size_px: int) -> int:
    return max(2, round(size_px * 0.4))


def _legend_rows(
    counts: list[tuple[str | None, int, ColorRGB]],
) -> list[tuple[str, str, ColorRGB | None]]:
    rows: list[tuple[str, str, ColorRGB | None]] = [
        ("unknown" if label is None else clean(label), str(number), color)
        for label, number, color in counts
    ]
    if len(rows) <= LEGEND_ROWS:
        return rows
    kept, rest = rows[: LEGEND_ROWS - 1], counts[LEGEND_ROWS - 1 :]
    total = sum(number for _, number, _ in rest)
    return [*kept, (f"{len(rest)} more", str(total), None)]


def _corner(
    layout: Layout, size_wh: tuple[int, int], margin: int, places: Places
) -> tuple[int, int]:
    """The emptiest corner, or a much emptier place at an edge; of a video, that of the last frame
    unless another is much emptier."""
    width, height = size_wh
    right = max(0, layout.width - width - margin)
    bottom = max(0, layout.height - height - margin)
    edges = [
        place
        for share in (0.5, 0.25, 0.75)
        for x, y in [(round(share * right), round(share * bottom))]
        for place in [(x, margin), (x, bottom), (margin, y), (right, y)]
    ]
    corners = [(margin, margin), (right, margin), (margin, bottom), (right, bottom), *edges]
    boxes = np.array([(x, y, x + width, y + height) for x, y in corners], np.int64)
    covered = np.round(layout.covered(boxes), 2)
    covered[4:] += NO_CORNER
    if places.legend is not None:
        covered[places.legend] -= LEGEND_STAYING
    places.legend = int(np.argmin(covered))
    return corners[places.legend]


def _places(box: Box, size_wh: tuple[int, int], picture_wh: tuple[int, int]) -> npt.NDArray[Any]:
    """``(N, 4)`` places for a tag, the preferred first, moved into the picture where they leave it.

    A tag laps over the edge of a large object, so that it is plain whose it is; it keeps off a
    small one.
    """
    (x0, y0, x1, y1), (width, height) = box, size_wh
    gap = 1 if y1 - y0 < 2.5 * height else -round(0.3 * height)
    middle_x, middle_y = (x0 + x1 - width) // 2, (y0 + y1 - height) // 2
    above, below = y0 - height - gap, y1 + gap
    corners = np.array(
        [
            (middle_x, above),
            (middle_x, below),
            (x0, above),
            (x1 - width, above),
            (x0, below),
            (x1 - width, below),
            (x1 + 1, middle_y),
            (x0 - width - 1, middle_y),
            (middle_x, y0),
            (middle_x, y1 - height),
            (middle_x, middle_y),
        ],
        np.int64,
    )
    limit = np.maximum(np.array(picture_wh) - size_wh, 0)
    corners = np.clip(corners, 0, limit)
    return np.concatenate([corners, corners + size_wh], axis=1)
