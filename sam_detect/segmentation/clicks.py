"""From clicks on an object and beside it, and perhaps a box, to its mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.errors import MaskError
from sam_detect.interfaces import ClickedSegmenter, PromptedSegmenter, Segmenter
from sam_detect.masks import BoolArray, Box, IntArray, tightened, union
from sam_detect.segmentation.prompted import (
    FITTING_BOX_IOU,
    GRABCUT_ROUNDS,
    GRABCUT_SIDE,
    Numbers,
    box_ious,
    clip_box,
    is_ground,
    masks_for_boxes,
    outline,
    require_point,
)
from sam_detect.types import Frame, Masks

DAB_RADIUS = 3
"""Around a click, in pixels as GrabCut sees them, that surely are, or are not, the object."""
LEAST_WINDOW, WINDOW_SHARE = 48, 0.25
"""Without a box, GrabCut sees so much around the clicks: pixels, or a share of the shorter side."""
LEAST_GAIN = 1.5
"""GrabCut found nothing if its foreground is less than so many times what was given as certain."""
MOST_SHARE = 0.95
"""... or more than this share of its window."""

Place = tuple[Box, BoolArray]


@dataclass(frozen=True, eq=False)
class Clicks:
    """What a user says of one object.

    Attributes:
        points_xy: ``(N, 2)`` float64, x, y in pixels, all inside the picture.
        positive: ``(N,)`` bool, whether each is on the object.
        box_xyxy: half-open whole pixels inside the picture, or None.
        box_xywh: the box as it was given, or None.
    """

    points_xy: npt.NDArray[np.float64]
    positive: BoolArray
    box_xyxy: Box | None
    box_xywh: Numbers | None

    @classmethod
    def checked(
        cls,
        clicks_xy: npt.ArrayLike,
        positive: npt.ArrayLike,
        box_xywh: Numbers | None,
        size_hw: tuple[int, int],
    ) -> Clicks:
        """Clicks in a picture of this size.

        Raises:
            MaskError: a click or the box is malformed or outside the picture, there is not one
                flag for each click, a pixel is on and beside the object, or there is neither a
                positive click nor a box.
        """
        try:
            rows: list[Any] = list(clicks_xy)  # type: ignore[arg-type]
            flags = np.asarray(positive).reshape(-1)
        except (TypeError, ValueError) as error:
            raise MaskError("clicks are a list of points x,y, and a flag for each") from error
        points = [require_point(row, size_hw) for row in rows]
        if len(points) != len(flags) or not np.isin(flags, (0, 1)).all():
            raise MaskError(
                f"each of the {len(points)} clicks needs a flag, true on the object and false "
                f"beside it, got {flags.tolist()!r:.60}"
            )
        box = None if box_xywh is None else clip_box(box_xywh, size_hw)
        given = cls(
            np.array(points, np.float64).reshape(-1, 2), flags.astype(np.bool_), box, box_xywh
        )
        if box is None and not given.positive.any():
            raise MaskError("an object needs a click on it or a box around it: none was given")
        beside = set(map(tuple, given.pixels(positive=False).tolist()))
        for x, y in given.pixels(positive=True).tolist():
            if (x, y) in beside:
                raise MaskError(f"the click {x},{y} is on the object and beside it: remove one")
        return given

    def pixels(self, *, positive: bool) -> IntArray:
        """``(K, 2)`` x, y of the pixels that are clicked on, or beside, the object."""
        found: IntArray = self.points_xy[self.positive == positive].astype(np.int64)
        return found


def outline_clicks(
    frame: Frame,
    segmenter: Segmenter,
    *,
    propose: Callable[[Frame], Masks],
    clicks_xy: npt.ArrayLike,
    positive: npt.ArrayLike,
    box_xywh: Numbers | None = None,
) -> Masks:
    """The mask of one object.

    Args:
        frame: the image.
        segmenter: makes it, if it is a :class:`~sam_detect.interfaces.ClickedSegmenter`.
        propose: as of :func:`~sam_detect.segmentation.prompted.outline`.
        clicks_xy, positive, box_xywh: as of :func:`mask_for_clicks`.

    Raises:
        MaskError: as :func:`mask_for_clicks`.
    """
    clicks = Clicks.checked(clicks_xy, positive, box_xywh, frame.size_hw)
    if not len(clicks.positive):
        boxes = [box_xywh] if box_xywh is not None else []
        return outline(frame, segmenter, propose=propose, boxes_xywh=boxes).masks
    if isinstance(segmenter, ClickedSegmenter):
        return segmenter.segment_clicks(frame, clicks.points_xy, clicks.positive, box_xywh)
    if isinstance(segmenter, PromptedSegmenter) and len(clicks.positive) == 1 and box_xywh is None:
        return segmenter.segment_points(frame, clicks.points_xy.tolist())
    return mask_for_clicks(frame, propose(frame), clicks_xy, positive, box_xywh)


def mask_for_clicks(
    frame: Frame,
    proposals: Masks,
    clicks_xy: npt.ArrayLike,
    positive: npt.ArrayLike,
    box_xywh: Numbers | None = None,
) -> Masks:
    """The mask of one object, by the first of these that covers all positive clicks and no
    negative one:

    1. with a box, what :func:`~sam_detect.segmentation.prompted.masks_for_boxes` gives for it;
    2. the best proposal (with a box, that which fits it best); background only if there is no
       other;
    3. the union of the smallest proposals at positive clicks, without the smallest ones at
       negative clicks that hold no positive click;
    4. the foreground around the clicks (GrabCut, Rother et al. 2004), to which they are certain.

    Args:
        frame: the image.
        proposals: the segmenter's masks of it, best first.
        clicks_xy: ``(N, 2)`` x, y in pixels; N may be 0 with a box.
        positive: ``(N,)`` bool, whether each click is on the object.
        box_xywh: ``x, y, width, height`` in pixels, or None.

    Raises:
        MaskError: a click or the box is malformed or outside the picture, there is neither a
            positive click nor a box, or nothing is found.
    """
    clicks = Clicks.checked(clicks_xy, positive, box_xywh, frame.size_hw)
    if clicks.box_xywh is not None:
        boxed = masks_for_boxes(frame, proposals, [clicks.box_xywh])
        if not len(clicks.positive) or _agrees(boxed, clicks):
            return boxed
    on = _covers(proposals, clicks.pixels(positive=True))
    beside = _covers(proposals, clicks.pixels(positive=False))
    agreeing = np.flatnonzero(on.all(axis=1) & ~beside.any(axis=1))
    if clicks.box_xyxy is not None:
        ious = box_ious(proposals, clicks.box_xyxy)
        fitting = agreeing[ious[agreeing] >= FITTING_BOX_IOU]
        agreeing = fitting[np.argsort(-ious[fitting], kind="stable")]
    if agreeing.size:
        ground = is_ground(proposals)[agreeing]
        return proposals[[int(agreeing[np.argsort(ground, kind="stable")[0]])]]
    combined = _combined(proposals, on, beside)
    if combined is not None:
        mask = _of(frame.size_hw, combined)
        if mask is not None and _agrees(mask, clicks):
            return mask
    return _foreground(frame, clicks, combined)


def _covers(masks: Masks, pixels_xy: IntArray) -> BoolArray:
    """``(M, K)``: whether each mask covers each pixel."""
    found = np.zeros((len(masks), len(pixels_xy)), np.bool_)
    x, y = pixels_xy.T
    x0, y0, x1, y1 = (side[:, None] for side in masks.boxes_xyxy.T)
    boxed = (x0 <= x) & (x < x1) & (y0 <= y) & (y < y1)
    for index in np.flatnonzero(boxed.any(axis=1)).tolist():
        inside, crop = boxed[index], masks.crop(index)
        found[index, inside] = crop[y[inside] - y0[index], x[inside] - x0[index]]
    return found


def _agrees(mask: Masks, clicks: Clicks) -> bool:
    on, beside = (_covers(mask, clicks.pixels(positive=flag)) for flag in (True, False))
    return bool(on.all() and not beside.any())


def _combined(proposals: Masks, on: BoolArray, beside: BoolArray) -> Place | None:
    """The union of the smallest proposals at positive clicks, less those at negative ones; None
    where a positive click has no proposal."""
    if not on.size or not on.any(axis=0).all():
        return None
    pure = ~beside.any(axis=1)
    added: set[int] = set()
    for column in on.T:
        there = np.flatnonzero(column & pure) if (column & pure).any() else np.flatnonzero(column)
        added.add(int(there[np.argmin(proposals.areas[there])]))
    removed: set[int] = set()
    for column in beside.T:
        there = np.flatnonzero(column & ~on.any(axis=1))
        if there.size:
            removed.add(int(there[np.argmin(proposals.areas[there])]))
    boxes = proposals.boxes_xyxy.tolist()
    box, whole = union([(boxes[index], proposals.crop(index)) for index in sorted(added)])
    for index in removed:
        whole &= ~_window(boxes[index], proposals.crop(index), box)
    return box, whole


def _window(own: Sequence[int], crop: BoolArray, box: Sequence[int]) -> BoolArray:
    """What a crop of one box covers of another box."""
    found = np.zeros((box[3] - box[1], box[2] - box[0]), np.bool_)
    x0, y0, x1, y1 = (
        max(own[0], box[0]), max(own[1], box[1]), min(own[2], box[2]), min(own[3], box[3])
    )  # fmt: skip
    if x0 < x1 and y0 < y1:
        found[y0 - box[1] : y1 - box[1], x0 - box[0] : x1 - box[0]] = crop[
            y0 - own[1] : y1 - own[1], x0 - own[0] : x1 - own[0]
        ]
    return found


def _foreground(frame: Frame, clicks: Clicks, guess: Place | None) -> Masks:
    """The foreground around the clicks, of the parts that hold a positive one.

    Args:
        guess: what is probably the object; None for the middle of the window.

    Raises:
        MaskError: the clicks tell nothing apart.
    """
    window = _around(clicks, guess, frame.size_hw)
    x0, y0, x1, y1 = window
    pixels = frame.image_rgb[y0:y1, x0:x1]
    ratio = min(1.0, GRABCUT_SIDE / max(pixels.shape[:2]))
    side_xy = [max(1, round(side * ratio)) for side in pixels.shape[1::-1]]
    small = np.ascontiguousarray(cv2.resize(pixels, side_xy, interpolation=cv2.INTER_AREA))
    labels = np.full(small.shape[:2], cv2.GC_PR_BGD, np.uint8)
    labels[_likely(clicks, guess, window, side_xy)] = cv2.GC_PR_FGD
    allowed = np.ones(labels.shape, np.bool_)
    if clicks.box_xyxy is not None:
        bx0, by0, bx1, by1 = clicks.box_xyxy
        allowed[:] = False
        left, right = ((v - x0) * ratio for v in (bx0, bx1))
        top, bottom = ((v - y0) * ratio for v in (by0, by1))
        allowed[round(top) : max(round(bottom), round(top) + 1),
                round(left) : max(round(right), round(left) + 1)] = True  # fmt: skip
    labels[~allowed] = cv2.GC_BGD
    for flag, certain in ((False, cv2.GC_BGD), (True, cv2.GC_FGD)):
        for x, y in clicks.points_xy[clicks.positive == flag]:
            at = int((x - x0) * ratio), int((y - y0) * ratio)
            cv2.circle(labels, at, DAB_RADIUS, certain, -1)
    given = int(np.count_nonzero(labels == cv2.GC_FGD))
    found = _grab_cut(small, labels)
    share = np.count_nonzero(found)
    if share < LEAST_GAIN * given or share > MOST_SHARE * found.size:
        raise _nothing_at(clicks)
    full = cv2.resize(found.astype(np.uint8), pixels.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    for flag in (True, False):
        for x, y in clicks.pixels(positive=flag).tolist():
            if x0 <= x < x1 and y0 <= y < y1:
                full[y - y0, x - x0] = flag
    kept = _parts_at(full, clicks.pixels(positive=True) - (x0, y0))
    mask = _of(frame.size_hw, (window, kept))
    if mask is None:
        raise _nothing_at(clicks)
    return mask


def _grab_cut(small: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> BoolArray:
    """The foreground; none where one side has no pixel, or its colours cannot be told apart."""
    sides = labels & 1
    if sides.all() or not sides.any():
        return np.zeros(labels.shape, np.bool_)
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # of the clusters it starts with
    try:
        cv2.grabCut(small, labels, None, *models, GRABCUT_ROUNDS, cv2.GC_INIT_WITH_MASK)
    except cv2.error:
        return np.zeros(labels.shape, np.bool_)
    return (labels & 1).astype(np.bool_)


def _around(clicks: Clicks, guess: Place | None, size_hw: tuple[int, int]) -> Box:
    """Where GrabCut works: the box or the guess with a margin, and all positive clicks with enough
    around them."""
    known = [box for box in (clicks.box_xyxy, guess and guess[0]) if box is not None]
    if known:
        margin = max(4.0, max(max(x1 - x0, y1 - y0) for x0, y0, x1, y1 in known) / 4)
    else:
        margin = max(LEAST_WINDOW / 2, WINDOW_SHARE * min(size_hw) / 2)
    spots = [(x, y, x + 1, y + 1) for x, y in clicks.pixels(positive=True).tolist()]
    all_boxes = np.array([*known, *spots], np.float64)
    low = np.maximum(np.floor(all_boxes[:, :2].min(axis=0) - margin), 0).astype(int)
    high = np.ceil(all_boxes[:, 2:].max(axis=0) + margin)
    high = np.minimum(high, size_hw[::-1]).astype(int)
    return int(low[0]), int(low[1]), int(high[0]), int(high[1])


def _likely(clicks: Clicks, guess: Place | None, window: Box, side_xy: Sequence[int]) -> BoolArray:
    """What of the window is probably the object: the guess, else the box, else what is nearer to a
    positive click than half of the margin and to any negative one."""
    x0, y0, x1, y1 = window
    columns = (np.arange(side_xy[0]) + 0.5) * ((x1 - x0) / side_xy[0]) + x0
    rows = (np.arange(side_xy[1]) + 0.5) * ((y1 - y0) / side_xy[1]) + y0
    if guess is not None:
        inside = _window(guess[0], guess[1], window)
        index = rows.astype(int) - y0, columns.astype(int) - x0
        return np.asarray(inside[np.ix_(*index)])
    if clicks.box_xyxy is not None:
        left, top, right, bottom = clicks.box_xyxy
        across = (columns >= left) & (columns <= right)
        return np.asarray(((rows >= top) & (rows <= bottom))[:, None] & across)

    def nearest(points_xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        gaps = np.full((len(rows), len(columns)), np.inf)
        for x, y in points_xy:
            gaps = np.minimum(gaps, np.hypot((columns - x)[None], (rows - y)[:, None]))
        return gaps

    on = nearest(clicks.points_xy[clicks.positive])
    reach = max(x1 - x0, y1 - y0) / 4
    return np.asarray((on <= reach) & (on < nearest(clicks.points_xy[~clicks.positive])))


def _parts_at(full: npt.NDArray[np.uint8], pixels_xy: IntArray) -> BoolArray:
    """The parts of a foreground that hold one of the pixels; all without pixels."""
    if not len(pixels_xy):
        return full.astype(np.bool_)
    _, labels = cv2.connectedComponents(full, connectivity=4)
    return np.isin(labels, labels[pixels_xy[:, 1], pixels_xy[:, 0]])


def _of(size_hw: tuple[int, int], place: Place) -> Masks | None:
    """The mask of a crop, whose box need not be tight."""
    tight = tightened(*place)
    if tight is None:
        return None
    return Masks.from_crops(size_hw=size_hw, boxes_xyxy=[tight[0]], crops=[tight[1]])


def _nothing_at(clicks: Clicks) -> MaskError:
    where = "; ".join(f"{x:g},{y:g}" for x, y in clicks.points_xy[clicks.positive][:3])
    return MaskError(
        f"no object was found at {where or 'the box'}; outline it with a box, or with a closer one "
        "(x,y,w,h, in Python box_xywh=)"
    )
