"""What is annotated in a picture, and which of the objects that are shown it is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from sam_detect.server import editing
from sam_detect.server.annotation import AnnotationSession
from sam_detect.server.pictures import ShownObject
from sam_detect.types import Masks
from sam_detect.types.masks import intersection

IOU = 0.5
STROKES = 5
"""Strokes of the brush where one along the object is not enough."""


@dataclass(frozen=True)
class Truth:
    """What is annotated in a picture: outlines with their labels."""

    masks: Masks
    labels: tuple[str, ...]


def matched(
    session: AnnotationSession,
    picture: int,
    shown: Sequence[ShownObject],
    truth: Truth,
    *,
    taught: bool = False,
) -> dict[int, ShownObject]:
    """The shown object of each annotated one; those that were named come first."""
    found: dict[int, tuple[bool, float, ShownObject]] = {}
    for each in shown:
        if taught and not each.taught:
            continue
        mask = session.outline(picture, each.id)
        for row, iou in overlaps(mask, truth.masks):
            right = each.taught and each.label == truth.labels[row]
            if taught and not right:
                continue
            if row not in found or (right, iou) > found[row][:2]:
                found[row] = right, iou, each
    return {row: each for row, (_, _, each) in found.items()}


def overlaps(mask: Masks, truths: Masks) -> list[tuple[int, float]]:
    """Which annotated objects a mask is, with the IoU."""
    box, area, crop = mask.boxes_xyxy[0], int(mask.areas[0]), mask.crop(0)
    corners = truths.boxes_xyxy
    meet = (corners[:, :2] < box[2:]).all(axis=1) & (corners[:, 2:] > box[:2]).all(axis=1)
    found = []
    for row in np.flatnonzero(meet).tolist():
        shared = intersection(crop, box.tolist(), truths.crop(row), corners[row].tolist())
        iou = shared / (area + int(truths.areas[row]) - shared)
        if iou >= IOU:
            found.append((row, float(iou)))
    return found


def ends_of(mask: Any) -> Any:
    """``(2, 2)`` x, y in pixels: the ends of a mask along its longer axis."""
    y, x = np.nonzero(mask)
    points = np.stack([x + 0.5, y + 0.5], axis=1)
    away = points - points.mean(axis=0)
    _, axes = np.linalg.eigh(away.T @ away)
    along, across = away @ axes[:, 1], np.abs(away @ axes[:, 0])
    along = along[across <= max(1.0, float(across.min()))]
    return points.mean(axis=0) + np.outer([along.min() - 0.5, along.max() + 0.5], axes[:, 1])


def brushed(truths: Masks, row: int) -> tuple[Masks, int]:
    """The outline of an object with the brush, and how many strokes it took: one, where a straight
    one along the object is right, else :data:`STROKES`."""
    wanted = truths.dense(row)
    y, x = np.nonzero(wanted)
    points = np.stack([x + 0.5, y + 0.5], axis=1)
    middle = points.mean(axis=0)
    values, axes = np.linalg.eigh(np.cov(points.T) + np.eye(2) / 12 if len(x) > 1 else np.eye(2))
    across, along = 2 * np.sqrt(values)
    for share in (1.0, 0.85, 1.15):
        radius = float(across * share)
        way = axes[:, 1] * max(0.0, along - radius)
        made = editing.brush(
            Masks.empty(truths.size_hw), [middle - way, middle + way], radius, erase=False
        )
        found = made.dense(0)
        if (found & wanted).sum() >= IOU * (found | wanted).sum():
            return made, 1
    return truths[[row]], STROKES
