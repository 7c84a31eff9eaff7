"""From a user's box or point to the mask of the object."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial

import cv2
import numpy as np

from sam_detect.errors import MaskError
from sam_detect.interfaces import PromptedSegmenter, Segmenter
from sam_detect.segmentation._regions import large_holes
from sam_detect.types import Frame, ImageRGB, Masks
from sam_detect.types.masks import BoolArray, FloatArray, intersection
from sam_detect.types.polygons import Ring, box_around, is_rectangle

FITTING_BOX_IOU = 0.55
"""Least IoU of a proposal's box with the given box."""
FITTING_IOU = 0.5
"""Least IoU of a proposal's mask with the foreground of the box. Both were chosen on two annotated
sets (docs/segmentation.md): boxes around objects pass, boxes next to them do not."""
TAKEN_IOU = 0.6
"""Below this IoU of a proposal and the foreground, the foreground is the better mask."""
SURE_BOX_IOU, SURE_IOU = 0.8, 0.3
"""Least box IoU and mask IoU of a proposal that is preferred to the foreground all the same: the
foreground is wrong for an object with the colours of its surroundings."""
LEAST_FOREGROUND = 0.2
"""Share of the box; of a smaller foreground the largest part has to fit the box: a thin thing."""
TRUSTED_BOX_IOU = 0.65
"""Least IoU of the box of a foreground that is no guess with the given one. Chosen on nuts."""
HOLLOW = 0.05
"""So much better does a proposal with holes agree than one that fills them."""
BOX_WEIGHT = 0.5
"""Weight of the box IoU against the mask IoU, if several proposals fit."""
LEAST_SHARE, MOST_SHARE = 0.05, 0.9
"""Shares of the image's area: a smaller mask in its centre is a speck, a larger one the image."""
GROUND_SHARE, GROUND_SIDES, AT_SIDE = 0.2, 2, 0.02
"""Background covers at least this share of the image, and is close to at least this many of its
sides: within the last figure, relative to the image."""
GUESS = """no object that was proposed fits it, so its outline is a guess: it is learnt only with \
--accept-guess (in Python accept_guess=True)"""
VIEW_SIDE, VIEW_MARGIN, MOST_TURNED = 1024, 8, 32_000
"""Pixels of the longer side of a turned box in its view, at most; of what is seen around it, at
least; and of the sides of what OpenCV turns, at most."""
GRABCUT_ROUNDS = 4
GRABCUT_SIDE = 300
Numbers = Sequence[float]


@dataclass(frozen=True, eq=False)
class Outlined:
    """The masks of boxes and points.

    Attributes:
        masks: one for each box, then one for each point.
        box_ious: ``(N,)`` float32, overlap (IoU) of each mask's box with the given box; NaN for
            points.
        fits: ``(N,)`` bool, false if no proposal fits the box: the mask is then a guess.
    """

    masks: Masks
    box_ious: FloatArray
    fits: BoolArray

    def problems(self, boxes_xywh: Sequence[Numbers]) -> list[str]:
        """One line for each box that is suspicious or that no proposal fits."""
        lines = []
        for index, box in enumerate(boxes_xywh):
            found = [box_problem(box, self.masks.size_hw)]
            if not self.fits[index]:
                found.append(GUESS)
            if any(found):
                named = ",".join(f"{float(value):g}" for value in box)
                lines.append(f"box {index + 1} ({named}): {'; '.join(filter(None, found))}")
        return lines


def outline(
    frame: Frame,
    segmenter: Segmenter,
    *,
    propose: Callable[[Frame], Masks],
    boxes_xywh: Sequence[Numbers] = (),
    points_xy: Sequence[Numbers] = (),
    of_finds: bool = False,
) -> Outlined:
    """One mask for each box, then one for each point.

    Args:
        frame: the image.
        segmenter: makes them, if it is a :class:`~sam_detect.interfaces.PromptedSegmenter`.
        propose: returns the proposals among which they are chosen otherwise; called only if needed.
        boxes_xywh: ``x, y, width, height`` in pixels; clipped to the image. Or the corners ``x0,
            y0, ..., x3, y3`` of a turned box.
        points_xy: ``x, y`` in pixels, each on an object.
        of_finds: whether the boxes may be those of detections: a proposal with exactly the given
            box is then taken, whatever else is in the box.

    Raises:
        MaskError: a box or point is malformed, in fractions or outside the image, or nothing is at
            a point.
    """
    turned = [_numbers(box, 8) for box in boxes_xywh]
    if any(turned):
        one = partial(outline, frame, segmenter, propose=propose, of_finds=of_finds)
        parts = [
            one(boxes_xywh=[box]) if corners is None
            else _in_turned_box(frame, segmenter, np.array(corners).reshape(4, 2))
            for box, corners in zip(boxes_xywh, turned, strict=True)
        ]  # fmt: skip
        parts.append(one(points_xy=points_xy))
        return Outlined(
            Masks.concatenate([each.masks for each in parts]),
            np.concatenate([each.box_ious for each in parts]),
            np.concatenate([each.fits for each in parts]),
        )
    for box in boxes_xywh:
        _require_pixels(box, frame.size_hw)
    count = len(boxes_xywh) + len(points_xy)
    ious, fits = np.full(count, np.nan, np.float32), np.ones(count, np.bool_)
    if not count:
        return Outlined(Masks.empty(frame.size_hw), ious, fits)
    fitting: BoolArray | None = None
    if isinstance(segmenter, PromptedSegmenter):
        by_box = _drawn_in_boxes(frame, segmenter, boxes_xywh)
        by_point = segmenter.segment_points(frame, points_xy)
    else:
        proposals = propose(frame)
        by_box, fitting = _chosen_for_boxes(frame, proposals, boxes_xywh)
        by_point = masks_for_points(frame, proposals, points_xy)
    if of_finds and len(boxes_xywh):
        by_box, same = _with_same_boxes(by_box, propose(frame), boxes_xywh)
        fitting = None if fitting is None else fitting | same
    for index, box in enumerate(boxes_xywh):
        ious[index] = box_ious(by_box[[index]], clip_box(box, frame.size_hw))[0]
    boxed = slice(len(boxes_xywh))
    fits[boxed] = ious[boxed] >= FITTING_BOX_IOU if fitting is None else fitting
    return Outlined(Masks.concatenate([by_box, by_point]), ious, fits)


def _in_turned_box(frame: Frame, segmenter: Segmenter, corners: Ring) -> Outlined:
    """The mask of a turned box: that of the upright box in a view that is turned with it."""
    named = ",".join(f"{value:g}" for value in corners.ravel())
    sides = np.linalg.norm(np.diff(corners[:3], axis=0), axis=1)
    if not is_rectangle(corners) or not sides.min() > 0:
        raise MaskError(f"a turned box is the corners of a rectangle, got {named}")
    clip_box(box_around(corners), frame.size_hw)
    sides *= min(1, VIEW_SIDE / sides.max())
    margin = max(VIEW_MARGIN, round(sides.max() / 2))
    w, h = size = (np.ceil(sides).astype(int) + 2 * margin).tolist()
    ends = np.array([(0, 0), (sides[0], 0), (0, sides[1])]) + margin
    turn = cv2.getAffineTransform(corners[[0, 1, 3]].astype(np.float32), ends.astype(np.float32))
    view = np.array([[(0, 0), (w, 0), (w, h), (0, h)]], np.float64)
    reach = cv2.transform(view, cv2.invertAffineTransform(turn))[0].astype(np.float64)
    x0, y0, x1, y1 = clip_box(box_around(reach), frame.size_hw)
    if max(x1 - x0, y1 - y0) > MOST_TURNED:
        raise MaskError(f"the turned box {named} is too large: outline what is in it")
    turn[:, 2] += turn[:, :2] @ (x0 + 0.5, y0 + 0.5) - 0.5  # OpenCV counts from pixels' centres
    window = np.ascontiguousarray(frame.image_rgb[y0:y1, x0:x1])
    pixels = cv2.warpAffine(window, turn, size, borderMode=cv2.BORDER_REPLICATE)
    found = outline(
        replace(frame, image_rgb=pixels.astype(np.uint8), source_id=f"{frame.source_id}#{named}"),
        segmenter, propose=segmenter.propose, boxes_xywh=[(margin, margin, *sides.tolist())],
    )  # fmt: skip
    mask, inside = np.zeros((h, w), np.uint8), np.s_[margin : h - margin, margin : w - margin]
    mask[inside] = found.masks.dense(0)[inside] * np.uint8(255)
    back = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    whole = np.zeros(frame.size_hw, np.bool_)
    whole[y0:y1, x0:x1] = cv2.warpAffine(mask, turn, (x1 - x0, y1 - y0), flags=back) > 127
    return replace(found, masks=Masks.from_dense(whole))


def box_problem(box_xywh: Numbers, size_hw: tuple[int, int]) -> str:
    """The problem of a box ``x, y, width, height``, in words; empty if there is none.

    A box around the whole picture, one that leaves the picture by more than a pixel, and one whose
    numbers look like two corners.
    """
    values = _numbers(box_xywh, 4)
    if values is None:
        return ""
    height, width = size_hw
    x, y, w, h = values
    if x <= 1 and y <= 1 and x + w >= width - 1 and y + h >= height - 1:
        return "covers the whole picture: a box goes around one object"
    if x >= -1 and y >= -1 and x + w <= width + 1 and y + h <= height + 1:
        return ""
    if 0 <= x < w <= width and 0 <= y < h <= height:
        return (
            f"leaves the {width}x{height} picture and looks like two corners: "
            f"as x,y,w,h it would be {x:g},{y:g},{w - x:g},{h - y:g}"
        )
    return f"leaves the {width}x{height} picture: only the part inside is used"


def _require_pixels(box_xywh: Numbers, size_hw: tuple[int, int]) -> None:
    """Raises ``MaskError`` for a box in fractions of the image's size: it would be one pixel."""
    values = _numbers(box_xywh, 4)
    if values is None or min(values) < 0 or max(values) > 1:
        return
    scaled = [v * size for v, size in zip(values, (size_hw[1], size_hw[0]) * 2, strict=True)]
    if scaled == list(values):  # the picture is one pixel
        return
    given = ",".join(f"{value:g}" for value in values)
    pixels = ",".join(f"{value:.0f}" for value in scaled)
    raise MaskError(
        f"the box {given} (x,y,w,h) looks like fractions of the picture: give it in pixels, "
        f"{pixels}"
    )


def _with_same_boxes(
    masks: Masks, proposals: Masks, boxes_xywh: Sequence[Numbers]
) -> tuple[Masks, BoolArray]:
    """The masks, replaced by the (first) proposal with exactly the given box if there is one; and
    ``(N,)`` bool: which were replaced."""
    there = proposals.boxes_xywh
    rows = [np.flatnonzero((there == np.asarray(box, float)).all(axis=1)) for box in boxes_xywh]
    chosen = [proposals[row[:1]] if len(row) else masks[[index]] for index, row in enumerate(rows)]
    return Masks.concatenate(chosen), np.array([len(row) > 0 for row in rows], np.bool_)


def _drawn_in_boxes(
    frame: Frame, segmenter: PromptedSegmenter, boxes_xywh: Sequence[Numbers]
) -> Masks:
    """The segmenter's mask of each box; the foreground of a box in which it finds nothing."""
    try:
        return segmenter.segment_boxes(frame, boxes_xywh)
    except MaskError:
        if len(boxes_xywh) == 1:
            return masks_for_boxes(frame, Masks.empty(frame.size_hw), boxes_xywh)
    return Masks.concatenate([_drawn_in_boxes(frame, segmenter, [box]) for box in boxes_xywh])


def masks_for_boxes(frame: Frame, proposals: Masks, boxes_xywh: Sequence[Numbers]) -> Masks:
    """One mask per box: the proposal that fits it best, else the box's foreground (GrabCut,
    Rother et al. 2004), else the ellipse that fills it.

    A proposal fits if its box overlaps the given one, and its outline the foreground. The best
    proposal has the largest sum of both: boxes alone do not tell an object from the object with
    its shadow, or with the wall behind it.

    Args:
        frame: the image.
        proposals: the segmenter's masks of it.
        boxes_xywh: ``x, y, width, height`` in pixels; clipped to the image.

    Raises:
        MaskError: a box is malformed, empty or outside the picture.
    """
    return _chosen_for_boxes(frame, proposals, boxes_xywh)[0]


def _chosen_for_boxes(
    frame: Frame, proposals: Masks, boxes_xywh: Sequence[Numbers]
) -> tuple[Masks, BoolArray]:
    """:func:`masks_for_boxes`, and ``(N,)``: whether a proposal fits each."""
    found = [_mask_for_box(frame, proposals, box) for box in boxes_xywh]
    masks = Masks.concatenate([Masks.empty(frame.size_hw), *(mask for mask, _ in found)])
    return masks, np.array([fits for _, fits in found], np.bool_)


def masks_for_points(frame: Frame, proposals: Masks, points_xy: Sequence[Numbers]) -> Masks:
    """One mask per point: the best proposal that covers it; background only if there is no other.

    Raises:
        MaskError: a point is malformed or outside the picture, or no proposal covers it.
    """
    found = [_mask_at(frame, proposals, point) for point in points_xy]
    return Masks.concatenate([Masks.empty(frame.size_hw), *found])


def middle_mask(proposals: Masks) -> BoolArray:
    """``(H, W)``: the best proposal that covers the image's centre and is neither a speck nor
    nearly the whole image; the whole image if there is none."""
    height, width = proposals.size_hw
    low, high = LEAST_SHARE * height * width, MOST_SHARE * height * width
    for index in np.flatnonzero((proposals.areas >= low) & (proposals.areas <= high)):
        dense = proposals.dense(index)
        if dense[height // 2, width // 2]:
            return dense
    return np.ones((height, width), np.bool_)


def _mask_for_box(frame: Frame, proposals: Masks, box_xywh: Numbers) -> tuple[Masks, bool]:
    """The mask, and whether a proposal or the colours in the box fit it."""
    box = clip_box(box_xywh, frame.size_hw)
    foreground, box_iou = _foreground(frame.image_rgb, box)
    trusted = box_iou >= TRUSTED_BOX_IOU
    overlap = box_ious(proposals, box)
    # Without a foreground the box alone may choose: what is thin agrees with no ellipse.
    best, chosen, fits = (False, False, 0.0), -1, trusted
    for index in np.flatnonzero(overlap >= FITTING_BOX_IOU).tolist():
        iou = _agreement(foreground, box, proposals, index)
        fits |= iou >= FITTING_IOU
        sure = overlap[index] >= SURE_BOX_IOU and not trusted
        agreed, partly = iou >= TAKEN_IOU, iou >= SURE_IOU
        worth = iou + BOX_WEIGHT * float(overlap[index]) if agreed else float(overlap[index])
        rank = (agreed, partly, worth)
        if (agreed or (sure and (partly or not box_iou))) and rank > best:
            best, chosen = rank, index
    if chosen >= 0:
        return proposals[[chosen]], True
    x0, y0, x1, y1 = box
    mask = np.zeros(frame.size_hw, bool)
    mask[y0:y1, x0:x1] = foreground
    return Masks.from_dense(mask), fits


def _agreement(
    foreground: BoolArray, box: tuple[int, int, int, int], proposals: Masks, index: int
) -> float:
    """IoU of a proposal with the foreground of a box. Its holes were looked at when it was
    proposed: they count as agreed, whether or not a foreground that covers the rest fills them."""
    crop, own = proposals.crop(index), proposals.boxes_xyxy[index].tolist()
    holes, shared = large_holes(crop), intersection(foreground, box, crop, own)
    pixels = np.count_nonzero(foreground) + np.count_nonzero(crop)
    if holes is None or shared < FITTING_IOU * np.count_nonzero(crop):
        return float(shared / (pixels - shared))
    closed = shared + np.count_nonzero(holes)
    filled = intersection(foreground, box, holes, own)
    return float(closed / (pixels - shared - filled + np.count_nonzero(holes))) + HOLLOW


def _mask_at(frame: Frame, proposals: Masks, point_xy: Numbers) -> Masks:
    x, y = (int(value) for value in require_point(point_xy, frame.size_hw))
    x0, y0, x1, y1 = proposals.boxes_xyxy.T
    boxed = np.flatnonzero((x0 <= x) & (x < x1) & (y0 <= y) & (y < y1))
    there = [i for i in boxed.tolist() if proposals.crop(i)[y - y0[i], x - x0[i]]]
    if not there:
        raise MaskError(
            f"no object was found at {x},{y}; outline it with a box instead (--box x,y,w,h, in "
            "Python boxes_xywh=)"
        )
    ground = is_ground(proposals)
    return proposals[[min(there, key=lambda i: bool(ground[i]))]]


def is_ground(proposals: Masks) -> BoolArray:
    """``(N,)`` bool: whether each is like background and not like an object."""
    height, width = proposals.size_hw
    near = np.array([width, height, width, height]) * AT_SIDE
    gaps = np.abs(proposals.boxes_xyxy - np.array([0, 0, width, height]))
    sides = (gaps <= near).sum(axis=1)
    return np.asarray((sides >= GROUND_SIDES) & (proposals.areas > GROUND_SHARE * height * width))


def require_point(point_xy: Numbers, size_hw: tuple[int, int]) -> tuple[float, ...]:
    """The point as two numbers; raises ``MaskError`` if it is outside the image."""
    values = _numbers(point_xy, 2)
    if values is None:
        raise MaskError(f"a point is two numbers x,y, got {point_xy!r}")
    height, width = size_hw
    if not (0 <= values[0] < width and 0 <= values[1] < height):
        named = ",".join(f"{v:g}" for v in values)
        raise MaskError(f"the point {named} lies outside the {width}x{height} picture")
    return values


def clip_box(box_xywh: Numbers, size_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """The box as half-open whole pixels inside the image.

    Raises:
        MaskError: not four finite numbers, or no pixel of it lies inside.
    """
    values = _numbers(box_xywh, 4)
    if values is None:
        raise MaskError(f"a box is four numbers x,y,w,h, got {box_xywh!r}")
    height, width = size_hw
    x, y, w, h = values
    x0, y0 = max(0, int(np.floor(x))), max(0, int(np.floor(y)))
    x1, y1 = int(np.ceil(min(width, x + w))), int(np.ceil(min(height, y + h)))
    if w <= 0 or h <= 0 or x0 >= x1 or y0 >= y1:
        raise MaskError(
            f"the box {','.join(f'{v:g}' for v in values)} (x,y,w,h) has no pixel inside the "
            f"{width}x{height} picture"
        )
    return x0, y0, x1, y1


def _numbers(values: Numbers, count: int) -> tuple[float, ...] | None:
    """The values as ``count`` finite floats, or None if they are something else."""
    try:
        numbers = tuple(float(value) for value in values)
    except (TypeError, ValueError):
        return None
    usable = len(numbers) == count and all(math.isfinite(number) for number in numbers)
    return numbers if usable else None


def box_ious(proposals: Masks, box: tuple[int, int, int, int]) -> np.ndarray:
    boxes = proposals.boxes_xyxy
    x0, y0 = np.maximum(boxes[:, 0], box[0]), np.maximum(boxes[:, 1], box[1])
    x1, y1 = np.minimum(boxes[:, 2], box[2]), np.minimum(boxes[:, 3], box[3])
    shared = np.clip(x1 - x0, 0, None) * np.clip(y1 - y0, 0, None)
    areas = (boxes[:, 2] - boxes[:, 0]) * (boxes[:, 3] - boxes[:, 1])
    own = (box[2] - box[0]) * (box[3] - box[1])
    return np.asarray(shared / np.maximum(areas + own - shared, 1))


def _foreground(image_rgb: ImageRGB, box: tuple[int, int, int, int]) -> tuple[BoolArray, float]:
    """``(h, w)`` foreground of the box by GrabCut: the colours inside against those around it; and
    the IoU of the box of its largest part with the given one. Where it is small and does not fit:
    the ellipse that fills the box, and 0."""
    x0, y0, x1, y1 = box
    size = (y1 - y0, x1 - x0)
    margin = max(4, max(size) // 4)
    top, left = max(0, y0 - margin), max(0, x0 - margin)
    window = image_rgb[top : y1 + margin, left : x1 + margin]
    ratio = min(1.0, GRABCUT_SIDE / max(window.shape[:2]))
    side_xy = [max(1, round(side * ratio)) for side in window.shape[1::-1]]
    small = cv2.resize(window, side_xy, interpolation=cv2.INTER_AREA)
    rect = [round(v * ratio) for v in (x0 - left, y0 - top, x1 - x0, y1 - y0)]
    labels = np.full(small.shape[:2], cv2.GC_BGD, np.uint8)
    labels[rect[1] : rect[1] + rect[3], rect[0] : rect[0] + rect[2]] = cv2.GC_PR_FGD
    if min(rect[2:]) >= 3 and (labels == cv2.GC_BGD).any():
        cv2.setRNGSeed(0)
        models = np.zeros((1, 65)), np.zeros((1, 65))
        cv2.grabCut(small, labels, None, *models, GRABCUT_ROUNDS, cv2.GC_INIT_WITH_MASK)
        full = cv2.resize(labels & 1, window.shape[1::-1], interpolation=cv2.INTER_NEAREST)
        found = full[y0 - top : y1 - top, x0 - left : x1 - left]
        _, parts, stats, _ = cv2.connectedComponentsWithStats(found)
        if len(stats) > 1:
            largest = 1 + int(stats[1:, cv2.CC_STAT_AREA].argmax())
            fit = float(stats[largest, [cv2.CC_STAT_WIDTH, cv2.CC_STAT_HEIGHT]].prod() / found.size)
            if found.mean() >= LEAST_FOREGROUND:
                return found.astype(bool), fit
            if fit >= FITTING_BOX_IOU:
                return parts == largest, fit
    ellipse = np.zeros(size, np.uint8)
    center = ((size[1] - 1) / 2, (size[0] - 1) / 2)
    cv2.ellipse(ellipse, (center, (max(size[1] - 1, 1), max(size[0] - 1, 1)), 0), 1, -1)
    return ellipse.astype(bool) if ellipse.any() else np.ones(size, bool), 0.0
