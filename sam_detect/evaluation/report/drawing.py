"""Which outlines lie over a picture, what they say, and where."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sam_detect.evaluation.dataset import AnnotatedObject, AnnotatedPicture, masks_of
from sam_detect.evaluation.matching import Matches
from sam_detect.evaluation.metrics.semantic import regions
from sam_detect.evaluation.report.fates import (
    BACKGROUND,
    DUPLICATE,
    FALSE_KINDS,
    PART,
    WRONG_NAME,
    Fates,
)
from sam_detect.evaluation.report.outlines import box_path, mask_path, region_path
from sam_detect.evaluation.report.results import Result
from sam_detect.types import Masks

TRUE, FALSE, MISSED, SHOWN, ASIDE = KINDS = ("true", "false", "missed", "shown", "aside")
"""``shown`` are examples, ``aside`` are crowds: neither is to be found."""
DRAWN = (ASIDE, SHOWN, MISSED, TRUE, FALSE)
"""The last lies on top."""


@dataclass(frozen=True)
class Outline:
    """One object or detection.

    Attributes:
        path: of SVG.
        text: what it is and why.
    """

    path: str
    text: str


def outlines_of(result: Result, scale: float, boxes: bool) -> dict[str, list[Outline]]:
    """Everything there is to see in a picture, by kind, in the order to draw it.

    Args:
        scale: units of the drawing per pixel.
        boxes: draw boxes.
    """
    picture, shown = result.query.picture, result.split.shown
    found: dict[str, list[Outline]] = {kind: [] for kind in DRAWN}
    for each in picture.objects:
        if each.crowd or each.id in shown:
            kind, why = (ASIDE, "crowd") if each.crowd else (SHOWN, "example")
            text = f"{each.label}, {why}: not to be found"
            found[kind].append(object_outline(picture, each, scale, boxes, text))
    if result.matches is None or result.fates is None:
        return found | _of_pixels(result, scale)
    found[MISSED] = _missed(result, result.fates, scale, boxes)
    for index in np.argsort(-result.query.found.masks.areas, kind="stable").tolist():
        side = _side(result.matches, index)
        if side is not None:
            path = _detection_path(result.query.found.masks, index, scale, boxes)
            text = _said(result, result.matches, result.fates, index)
            found[side].append(Outline(path, text))
    return found


def object_outline(
    picture: AnnotatedPicture, each: AnnotatedObject, scale: float, boxes: bool, text: str
) -> Outline:
    """An annotated object as its outline, or as its box."""
    if boxes or each.mask_rle is None:
        x, y, w, h = each.bbox_xywh
        return Outline(box_path((x, y, x + w, y + h), scale), text)
    return Outline(mask_path(masks_of(picture, [each]), 0, scale), text)


def _side(matches: Matches, index: int) -> str | None:
    if matches.objects[index] >= 0:
        return TRUE
    return FALSE if matches.false[index] else None


def _detection_path(masks: Masks, index: int, scale: float, boxes: bool) -> str:
    if boxes:
        x0, y0, x1, y1 = (float(value) for value in masks.boxes_xyxy[index])
        return box_path((x0, y0, x1, y1), scale)
    return mask_path(masks, index, scale)


def _missed(result: Result, fates: Fates, scale: float, boxes: bool) -> list[Outline]:
    picture, shown = result.query.picture, result.split.shown
    wanted = [o for o in picture.objects if not o.crowd and o.id not in shown]
    missed = [(o, fate) for o, fate in zip(wanted, fates.objects, strict=True) if fate != "found"]
    return [
        object_outline(picture, each, scale, boxes, f"missed {each.label}: {fate}")
        for each, fate in missed
    ]


def _said(result: Result, matches: Matches, fates: Fates, index: int) -> str:
    found, labels = result.query.found, result.query.comparison.object_labels
    said = f"{found.labels[index]} {found.scores[index]:.2f}"
    fate = fates.detections[index]
    if fate not in FALSE_KINDS:
        return f"{said}, IoU {matches.ious[index]:.2f}"
    nearest = labels[fates.nearest[index]] if fates.nearest[index] >= 0 else ""
    overlap = float(result.query.comparison.iou[index].max(initial=0.0))
    why = {
        WRONG_NAME: f"it is {nearest}",
        DUPLICATE: "another detection found this object",
        PART: f"it overlaps {nearest} by IoU {overlap:.2f} only",
        BACKGROUND: "no object is annotated here",
    }
    return f"false {said}: {why[fate]}"


def _of_pixels(result: Result, scale: float) -> dict[str, list[Outline]]:
    """The pixels of each class that are true, false and missed."""
    found: dict[str, list[Outline]] = {MISSED: [], TRUE: [], FALSE: []}
    item = (result.query.picture, result.query.found, result.split.shown)
    for label, each in regions(item).items():
        for kind, region in ((MISSED, each.missed), (TRUE, each.true), (FALSE, each.false)):
            if region.any():
                found[kind].append(Outline(region_path(region, scale), f"{kind}: {label}"))
    return found
