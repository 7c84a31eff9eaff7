"""From clicks on and off an object, and perhaps a box, to its mask."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.errors import MaskError
from sam_detect.interfaces import ClickedSegmenter, PromptedSegmenter, Segmenter
from sam_detect.segmentation._places import (
    Place,
    disc,
    distance_to_outline,
    in_box,
    place_of,
    square_around,
    value_at,
)
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
from sam_detect.types.masks import BoolArray, Box, IntArray, tightened, union

DAB_RADIUS = 3
"""Around a click, in pixels as GrabCut sees them, that surely are, or are not, the object."""
LEAST_WINDOW, WINDOW_SHARE = 48, 0.25
"""Where nothing is proposed, GrabCut sees so much around the clicks: pixels, or a share of the
shorter side."""
LEAST_GAIN = 1.5
"""GrabCut found nothing if its foreground is less than so many times what was given as certain."""
MOST_SHARE = 0.95
"""... or more than this share of its window."""
OTHER_OBJECT = 0.25
"""A click so far from the outline, relative to the radius of a disc of the mask's area, says that
the mask is of something else. Chosen on two annotated sets (docs/segmentation.md)."""
SURE, REACH, LEAST_REACH = 0.9, 3.0, 10.0
"""Around a click, what is within the first share of its distance to the outline surely belongs to
it; what is within the second share, or that many pixels, may change with it."""
AGREEING = 0.9
"""A proposal agrees with a click if it covers this share of what surely belongs to it; or, with a
click off the object, leaves out as much."""


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
                flag for each click, a pixel is both on and off the object, or there is neither a
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
                f"off it, got {flags.tolist()!r:.60}"
            )
        box = None if box_xywh is None else clip_box(box_xywh, size_hw)
        given = cls(
            np.array(points, np.float64).reshape(-1, 2), flags.astype(np.bool_), box, box_xywh
        )
        if box is None and not given.positive.any():
            raise MaskError("an object needs a click on it or a box around it: none was given")
        off = set(map(tuple, given.pixels(positive=False).tolist()))
        for x, y in given.pixels(positive=True).tolist():
            if (x, y) in off:
                raise MaskError(f"the click {x},{y} is both on the object and off it: remove one")
        return given

    def of(self, numbers: IntArray) -> Clicks:
        """Some of the clicks, in this order, with the box."""
        return replace(self, points_xy=self.points_xy[numbers], positive=self.positive[numbers])

    def pixels(self, *, positive: bool) -> IntArray:
        """``(K, 2)`` x, y of the pixels that are clicked on, or off, the object."""
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
    """The mask of one object. It covers all positive clicks and no negative one.

    It begins with the mask of the box (:func:`~sam_detect.segmentation.prompted.masks_for_boxes`),
    or with the best proposal at the first positive click; where there is none, with the foreground
    around the clicks (GrabCut, Rother et al. 2004). Then each click on which it is wrong corrects
    it, in their order. A click far from its outline takes the best proposal that agrees with all
    clicks up to this one (and with the box). Another one, or one without such a proposal, adds or
    removes the region around it that GrabCut finds.

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
    flags = clicks.positive
    if clicks.box_xywh is not None:
        first, rest = masks_for_boxes(frame, proposals, [clicks.box_xywh]), np.arange(len(flags))
    else:
        start = int(np.argmax(flags))
        first = _at_first(frame, proposals, clicks, clicks.points_xy[start])
        rest = np.concatenate([[start], np.delete(np.arange(len(flags)), start)])
    place = place_of(first, 0)
    for number in range(len(rest)):
        place = _corrected(frame, proposals, clicks.of(rest[: number + 1]), place)
    tight = tightened(*place)
    if tight is None:
        raise _nothing_at(clicks)
    return Masks.from_crops(size_hw=frame.size_hw, boxes_xyxy=[tight[0]], crops=[tight[1]])


def _at_first(
    frame: Frame, proposals: Masks, clicks: Clicks, point_xy: npt.NDArray[np.float64]
) -> Masks:
    """The best proposal at a click; where there is none, the foreground around all clicks."""
    there = np.flatnonzero(_covers(proposals, point_xy[None].astype(np.int64))[:, 0])
    if there.size:
        return proposals[[_best(proposals, there)[0]]]
    return _foreground(frame, clicks)


def _best(proposals: Masks, indices: IntArray) -> list[int]:
    """Indices of proposals, best first, those that are like background last."""
    order = np.argsort(is_ground(proposals)[indices], kind="stable")
    return [int(index) for index in indices[order]]


def _corrected(frame: Frame, proposals: Masks, clicks: Clicks, place: Place) -> Place:
    """A mask that is right at the last click, and still at those before it."""
    (x, y), flag = clicks.points_xy[-1], bool(clicks.positive[-1])
    if value_at(place, int(x), int(y)) == flag:
        return place
    gap = distance_to_outline(place, x, y) if place[1].any() else LEAST_REACH
    others = clicks.points_xy[clicks.positive != flag]
    if len(others):
        gap = min(gap, float(np.hypot(*(others - (x, y)).T).min()) / 2)
    radius = max(1.0, SURE * gap)
    if radius >= OTHER_OBJECT * math.sqrt(np.count_nonzero(place[1]) / math.pi):
        found = _agreeing(proposals, clicks, radius)
        if found is not None:
            return found
    return _changed(frame, clicks, place, radius)


def _agreeing(proposals: Masks, clicks: Clicks, radius: float) -> Place | None:
    """The best proposal that covers the positive clicks and no negative one, and covers, or leaves
    out, what is around the last click; with a box, one that fits it."""
    on, off = (_covers(proposals, clicks.pixels(positive=flag)) for flag in (True, False))
    agreeing = on.all(axis=1) & ~off.any(axis=1)
    if clicks.box_xyxy is not None:
        agreeing &= box_ious(proposals, clicks.box_xyxy) >= FITTING_BOX_IOU
    x, y = clicks.points_xy[-1]
    box = square_around(x, y, radius + 1, (0, 0, *proposals.size_hw[::-1]))
    dab = disc(x, y, radius, box)
    for index in _best(proposals, np.flatnonzero(agreeing)):
        place = place_of(proposals, index)
        share = np.count_nonzero(in_box(*place, box) & dab) / np.count_nonzero(dab)
        if (share if clicks.positive[-1] else 1 - share) >= AGREEING:
            return place
    return None


def _changed(frame: Frame, clicks: Clicks, place: Place, radius: float) -> Place:
    """The mask with the region around the last click added or removed."""
    (x, y), flag = clicks.points_xy[-1], bool(clicks.positive[-1])
    reach = max(REACH * radius, LEAST_REACH)
    height, width = frame.size_hw
    window = square_around(x, y, 1.5 * reach + 8, (0, 0, width, height))
    x0, y0, x1, y1 = window
    now = in_box(*place, window)
    sure = disc(x, y, radius, window)
    kept = np.zeros(now.shape, np.bool_)
    for left, top in clicks.pixels(positive=not flag).tolist():
        if x0 <= left < x1 and y0 <= top < y1:
            kept[top - y0, left - x0] = True
    labels = np.where(now, cv2.GC_FGD, cv2.GC_BGD).astype(np.uint8)
    near = disc(x, y, reach, window)
    labels[near] = np.where(now, cv2.GC_PR_FGD, cv2.GC_PR_BGD)[near]
    labels[sure] = cv2.GC_FGD if flag else cv2.GC_BGD
    labels[kept] = cv2.GC_BGD if flag else cv2.GC_FGD
    pixels = frame.image_rgb[y0:y1, x0:x1]
    ratio = min(1.0, GRABCUT_SIDE / max(now.shape))
    side_xy = [max(1, round(side * ratio)) for side in now.shape[::-1]]
    small = np.ascontiguousarray(cv2.resize(pixels, side_xy, interpolation=cv2.INTER_AREA))
    cut = _grab_cut(small, cv2.resize(labels, side_xy, interpolation=cv2.INTER_NEAREST))
    change = np.zeros(now.shape, np.uint8)
    if cut is not None:
        full = cv2.resize(cut.view(np.uint8), now.shape[::-1], interpolation=cv2.INTER_NEAREST)
        change[near & (full == flag)] = 1
    change[sure] = 1
    change[(now == flag) | kept] = 0
    _, parts = cv2.connectedComponents(change, connectivity=8)
    region = np.isin(parts, np.setdiff1d(parts[sure], [0]))
    if flag:
        return union([place, (window, region)])
    box, crop = place
    return box, crop & ~in_box(window, region, box)


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


def _foreground(frame: Frame, clicks: Clicks) -> Masks:
    """The foreground around the clicks, of the parts that hold a positive one.

    Raises:
        MaskError: the clicks tell nothing apart.
    """
    window = _around(clicks.pixels(positive=True), frame.size_hw)
    x0, y0, x1, y1 = window
    pixels = frame.image_rgb[y0:y1, x0:x1]
    ratio = min(1.0, GRABCUT_SIDE / max(pixels.shape[:2]))
    side_xy = [max(1, round(side * ratio)) for side in pixels.shape[1::-1]]
    small = np.ascontiguousarray(cv2.resize(pixels, side_xy, interpolation=cv2.INTER_AREA))
    labels = np.where(_likely(clicks, window, side_xy), cv2.GC_PR_FGD, cv2.GC_PR_BGD)
    labels = np.ascontiguousarray(labels, np.uint8)
    for flag, certain in ((False, cv2.GC_BGD), (True, cv2.GC_FGD)):
        for x, y in clicks.points_xy[clicks.positive == flag]:
            at = int((x - x0) * ratio), int((y - y0) * ratio)
            cv2.circle(labels, at, DAB_RADIUS, certain, -1)
    given = int(np.count_nonzero(labels == cv2.GC_FGD))
    found = _grab_cut(small, labels)
    share = 0 if found is None else np.count_nonzero(found)
    if found is None or share < LEAST_GAIN * given or share > MOST_SHARE * found.size:
        raise _nothing_at(clicks)
    full = cv2.resize(found.view(np.uint8), pixels.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    on = clicks.pixels(positive=True) - (x0, y0)
    full[on[:, 1], on[:, 0]] = 1
    _, parts = cv2.connectedComponents(full, connectivity=4)
    kept = np.isin(parts, parts[on[:, 1], on[:, 0]])
    tight = tightened(window, kept)
    if tight is None:
        raise _nothing_at(clicks)
    return Masks.from_crops(size_hw=frame.size_hw, boxes_xyxy=[tight[0]], crops=[tight[1]])


def _grab_cut(small: npt.NDArray[np.uint8], labels: npt.NDArray[np.uint8]) -> BoolArray | None:
    """The foreground; None where one side has no pixel, or its colours cannot be told apart."""
    sides = labels & 1
    if sides.all() or not sides.any():
        return None
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # of the clusters it starts with
    try:
        cv2.grabCut(small, labels, None, *models, GRABCUT_ROUNDS, cv2.GC_INIT_WITH_MASK)
    except cv2.error:
        return None
    return (labels & 1).astype(np.bool_)


def _around(pixels_xy: IntArray, size_hw: tuple[int, int]) -> Box:
    """Where GrabCut works: around all positive clicks."""
    margin = math.ceil(max(LEAST_WINDOW / 2, WINDOW_SHARE * min(size_hw) / 2))
    (x0, y0), (x1, y1) = pixels_xy.min(axis=0).tolist(), pixels_xy.max(axis=0).tolist()
    height, width = size_hw
    low_xy = max(0, x0 - margin), max(0, y0 - margin)
    return (*low_xy, min(width, x1 + 1 + margin), min(height, y1 + 1 + margin))


def _likely(clicks: Clicks, window: Box, side_xy: Sequence[int]) -> BoolArray:
    """What of the window is probably the object: nearer to a positive click than a quarter of its
    side, and nearer than to any negative one."""
    x0, y0, x1, y1 = window
    columns = (np.arange(side_xy[0]) + 0.5) * ((x1 - x0) / side_xy[0]) + x0
    rows = (np.arange(side_xy[1]) + 0.5) * ((y1 - y0) / side_xy[1]) + y0

    def nearest(points_xy: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        gaps = np.full((len(rows), len(columns)), np.inf)
        for x, y in points_xy:
            gaps = np.minimum(gaps, np.hypot((columns - x)[None], (rows - y)[:, None]))
        return gaps

    on = nearest(clicks.points_xy[clicks.positive])
    reach = max(x1 - x0, y1 - y0) / 4
    return np.asarray((on <= reach) & (on < nearest(clicks.points_xy[~clicks.positive])))


def _nothing_at(clicks: Clicks) -> MaskError:
    where = "; ".join(f"{x:g},{y:g}" for x, y in clicks.points_xy[clicks.positive][:3])
    return MaskError(
        f"no object was found at {where or 'the box'}; outline it with a box, or with a closer one "
        "(x,y,w,h, in Python box_xywh=)"
    )
