"""From clicks on an object, and next to it, to its mask."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.errors import MaskError
from sam_detect.interfaces import ClickedSegmenter, Segmenter
from sam_detect.masks import BoolArray, tight_box_xyxy
from sam_detect.segmentation.prompted import (
    GRABCUT_ROUNDS,
    GRABCUT_SIDE,
    Numbers,
    background_like,
    box_ious,
    clip_box,
    masks_for_boxes,
    require_point,
)
from sam_detect.types import Frame, Masks

FITTING_IOU = 0.5
"""Least IoU of a proposal's box with the given one."""
REACH = 3.0
"""Without a proposal, an object is sought within so many times the extent of the clicks..."""
LEAST_REACH = 24
"""... and at least so many pixels around them."""
DAB_SHARE = 0.02
"""Pixels around a click, as a share of the longer side of what is searched, are what it says."""


def outline_clicks(
    frame: Frame,
    segmenter: Segmenter,
    *,
    propose: Callable[[Frame], Masks],
    clicks_xy: Sequence[Numbers],
    positive: Sequence[bool],
    box_xywh: Numbers | None = None,
) -> Masks:
    """The one object that clicks show.

    Args:
        frame: the image.
        segmenter: draws it, if it is a :class:`~sam_detect.interfaces.ClickedSegmenter`.
        propose: returns the proposals among which it is chosen otherwise.
        clicks_xy: N points ``x, y`` in pixels.
        positive: whether each is on the object; else it is next to it.
        box_xywh: around the object, ``x, y, width, height`` in pixels.

    Returns:
        One mask.

    Raises:
        MaskError: a click or the box is malformed or outside the image, there is neither a positive
            click nor a box, or nothing is there.
    """
    if len(clicks_xy) != len(positive):
        raise MaskError(f"{len(clicks_xy)} clicks need as many signs, got {len(positive)}")
    for click in clicks_xy:
        require_point(click, frame.size_hw)
    if box_xywh is not None:
        clip_box(box_xywh, frame.size_hw)
    elif not any(positive):
        raise MaskError("click on the object first, or draw a box around it")
    if isinstance(segmenter, ClickedSegmenter):
        return segmenter.segment_clicks(frame, clicks_xy, positive, box_xywh)
    return mask_for_clicks(frame, propose(frame), clicks_xy, positive, box_xywh)


def mask_for_clicks(
    frame: Frame,
    proposals: Masks,
    clicks_xy: Sequence[Numbers],
    positive: Sequence[bool],
    box_xywh: Numbers | None = None,
) -> Masks:
    """The proposal that agrees with all clicks; else proposals put together and cut off; else the
    foreground of the clicks (GrabCut, Rother et al. 2004). Takes and raises what
    :func:`outline_clicks` does.

    Args:
        proposals: the segmenter's masks of the image, best first.
    """
    if not len(clicks_xy) and box_xywh is not None:
        return masks_for_boxes(frame, proposals, [box_xywh])
    points = np.array(clicks_xy, np.float64).reshape(-1, 2).astype(np.int64)
    signs = np.array(positive, np.bool_)
    covers = _covering(proposals, points)
    fitting = np.ones(len(proposals), np.bool_)
    if box_xywh is not None:
        fitting = box_ious(proposals, clip_box(box_xywh, frame.size_hw)) >= FITTING_IOU
    agreeing = np.flatnonzero(
        fitting & covers[:, signs].all(axis=1) & ~covers[:, ~signs].any(axis=1)
    )
    if len(agreeing):
        ground = background_like(proposals)
        return proposals[[min(agreeing.tolist(), key=lambda i: bool(ground[i]))]]
    if box_xywh is None:
        put_together = _combined(proposals, covers, signs)
        if put_together is not None:
            return put_together
    return _foreground_of(frame, points, signs, box_xywh)


def _covering(proposals: Masks, points: npt.NDArray[np.int64]) -> BoolArray:
    """``(N, P)`` bool: which proposal covers which point."""
    boxes = proposals.boxes_xyxy[:, None, :]
    x, y = points[None, :, 0], points[None, :, 1]
    within = (boxes[..., 0] <= x) & (x < boxes[..., 2]) & (boxes[..., 1] <= y) & (y < boxes[..., 3])
    covers = np.zeros(within.shape, np.bool_)
    for index in np.flatnonzero(within.any(axis=1)).tolist():
        crop, (x0, y0) = proposals.crop(index), proposals.boxes_xyxy[index, :2]
        inside = np.flatnonzero(within[index])
        covers[index, inside] = crop[points[inside, 1] - y0, points[inside, 0] - x0]
    return covers


def _combined(proposals: Masks, covers: BoolArray, signs: BoolArray) -> Masks | None:
    """The union of the best proposals of the clicks on the object that no other click speaks
    against, without the smallest ones of the clicks next to it; None where that is none."""
    parts: list[int] = []
    for click in np.flatnonzero(signs).tolist():
        if any(covers[part, click] for part in parts):
            continue
        alone = np.flatnonzero(covers[:, click] & ~covers[:, ~signs].any(axis=1))
        if len(alone):
            parts.append(int(alone[0]))
        else:
            around = np.flatnonzero(covers[:, click])
            if not len(around):
                return None
            parts.append(int(around[np.argmin(proposals.areas[around])]))
    away: list[int] = []
    for click in np.flatnonzero(~signs).tolist():
        if covers[parts, click].any():
            there = np.flatnonzero(covers[:, click] & ~covers[:, signs].any(axis=1))
            if not len(there):
                return None
            away.append(int(there[np.argmax(proposals.areas[there])]))
    chosen = [*parts, *away]
    corners = proposals.boxes_xyxy[chosen]
    x0, y0 = corners[:, :2].min(axis=0).tolist()
    x1, y1 = corners[:, 2:].max(axis=0).tolist()
    drawn = np.zeros((y1 - y0, x1 - x0), np.bool_)
    for index in chosen:
        left, top, right, bottom = proposals.boxes_xyxy[index].tolist()
        place = drawn[top - y0 : bottom - y0, left - x0 : right - x0]
        place[proposals.crop(index)] = index in parts
    return _placed(drawn, (x0, y0), proposals.size_hw)


def _foreground_of(
    frame: Frame,
    points: npt.NDArray[np.int64],
    signs: BoolArray,
    box_xywh: Numbers | None,
) -> Masks:
    """What has the colours of the clicks on the object, and not those of the others."""
    height, width = frame.size_hw
    if box_xywh is not None:
        inner = clip_box(box_xywh, frame.size_hw)
        reach = max(4, max(inner[2] - inner[0], inner[3] - inner[1]) // 4)
        low, high = np.array(inner[:2]), np.array(inner[2:]) - 1
    else:
        low, high = points.min(axis=0), points.max(axis=0)
        reach = max(LEAST_REACH, int(REACH * (high - low).max()))
    x0, y0 = max(0, int(low[0]) - reach), max(0, int(low[1]) - reach)
    x1, y1 = min(width, int(high[0]) + reach + 1), min(height, int(high[1]) + reach + 1)
    window = frame.image_rgb[y0:y1, x0:x1]
    ratio = min(1.0, GRABCUT_SIDE / max(window.shape[:2]))
    side_xy = [max(1, round(side * ratio)) for side in window.shape[1::-1]]
    small = cv2.resize(window, side_xy, interpolation=cv2.INTER_AREA)
    labels = np.full(small.shape[:2], cv2.GC_BGD, np.uint8)
    if box_xywh is None:
        labels[1:-1, 1:-1] = cv2.GC_PR_BGD
    else:
        left, top, right, bottom = (round(v * ratio) for v in np.subtract(inner, (x0, y0) * 2))
        labels[top:bottom, left:right] = cv2.GC_PR_FGD
    dab = max(1, round(DAB_SHARE * max(side_xy)))
    for (x, y), sign in zip(points.tolist(), signs.tolist(), strict=True):
        place = int((x - x0) * ratio), int((y - y0) * ratio)
        if sign:
            cv2.circle(labels, place, 3 * dab, cv2.GC_PR_FGD, cv2.FILLED)
    for (x, y), sign in zip(points.tolist(), signs.tolist(), strict=True):
        place = int((x - x0) * ratio), int((y - y0) * ratio)
        cv2.circle(labels, place, dab, cv2.GC_FGD if sign else cv2.GC_BGD, cv2.FILLED)
    if (labels & 1).any() and not (labels & 1).all():
        cv2.setRNGSeed(0)
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(small, labels, None, *models, GRABCUT_ROUNDS, cv2.GC_INIT_WITH_MASK)
    full = cv2.resize(labels & 1, window.shape[1::-1], interpolation=cv2.INTER_NEAREST)
    # Of what has these colours, the parts that were clicked on.
    _, parts = cv2.connectedComponents(full)
    inside = points[signs] - (x0, y0)
    inside = inside[((inside >= 0) & (inside < (x1 - x0, y1 - y0))).all(axis=1)]
    clicked = set(parts[inside[:, 1], inside[:, 0]].tolist()) - {0}
    found = np.isin(parts, list(clicked)) if clicked else full.astype(np.bool_)
    return _placed(found, (x0, y0), frame.size_hw)


def _placed(drawn: BoolArray, corner_xy: tuple[int, int], size_hw: tuple[int, int]) -> Masks:
    tight = tight_box_xyxy(drawn)
    if tight is None:
        raise MaskError(
            "nothing was found at these clicks: paint the object with the brush instead"
        )
    x0, y0, x1, y1 = tight
    crop = np.ascontiguousarray(drawn[y0:y1, x0:x1])
    left, top = corner_xy
    box = [x0 + left, y0 + top, x1 + left, y1 + top]
    return Masks.from_crops(size_hw=size_hw, boxes_xyxy=[box], crops=[crop])
