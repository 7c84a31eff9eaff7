"""Coarse outlines redrawn along the edges of the picture, without weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.segmentation._pixel_forest import PixelForest
from sam_detect.types import Crop, ImageRGB, Masks
from sam_detect.types.masks import BoolArray, tight_box_xyxy
from sam_detect.types.overlaps import meeting_boxes

CORE = 0.35
"""What is surely inside: farther from the coarse outline than this share of the farthest pixel. It
and the next were chosen on 6 pictures of nuts and 12 of nuclei."""
MARGIN = 0.6
"""Of the window around an outline, as a share of the radius of a disc of its area."""
GROWTH = 0.3
"""So far around a coarse outline its object may reach, as a share of the radius of a disc of its
area, unless another outline is there. Chosen on nuts and glands; with none, outlines that are too
small lose (nuts .715 to .505; with this .846), and those that are too large are .01 better."""
ROUNDS = 4
ENOUGH_TO_LEARN = 3
SIDE = 160
"""Longest side of a window as it is worked on, in pixels."""
Labels = npt.NDArray[np.uint8]


def redraw(
    image_rgb: ImageRGB, coarse: Masks, *, crops: Sequence[Crop] = ()
) -> list[tuple[BoolArray, tuple[int, int]] | None]:
    """For each coarse mask the foreground in it: GrabCut (Rother et al. 2004) of its own window.

    An object reaches at most a little beyond its coarse outline (:data:`GROWTH`).

    Args:
        image_rgb: ``(H, W, 3)`` uint8.
        coarse: masks of it.
        crops: of some of the coarse masks. A pixel classifier that is trained on them tells objects
            from background, besides the light; of less than :data:`ENOUGH_TO_LEARN` nothing is
            learnt.

    Returns:
        ``(h, w)`` bool and the x, y of its corner, for each; None where nothing is found.
    """
    height, width = coarse.size_hw
    near = _near(coarse)
    if len(crops) >= ENOUGH_TO_LEARN:
        image_rgb = _with_foreground(image_rgb, crops)
    found: list[tuple[BoolArray, tuple[int, int]] | None] = []
    for index in range(len(coarse)):
        margin = max(4, round(MARGIN * math.sqrt(coarse.areas[index] / math.pi)))
        x0, y0, x1, y1 = coarse.boxes_xyxy[index].tolist()
        left, top = max(0, x0 - margin), max(0, y0 - margin)
        right, bottom = min(width, x1 + margin), min(height, y1 + margin)
        mask = np.zeros((bottom - top, right - left), np.bool_)
        mask[y0 - top : y1 - top, x0 - left : x1 - left] = coarse.crop(index)
        others = _others(coarse, near[index], (left, top, right, bottom)) & ~mask
        inside = _foreground(image_rgb[top:bottom, left:right], mask, others)
        found.append(None if inside is None else (inside, (left, top)))
    return found


def _with_foreground(image_rgb: ImageRGB, crops: Sequence[Crop]) -> ImageRGB:
    """``(H, W, 3)`` uint8: grey levels and, twice, how likely each pixel is an object's by a forest
    that is trained on crops of objects."""
    likely = PixelForest(crops).see(image_rgb).foreground
    height, width = image_rgb.shape[:2]
    foreground = np.clip(cv2.resize(likely, (width, height)) * 255, 0, 255).astype(np.uint8)
    grey = cv2.cvtColor(image_rgb, cv2.COLOR_RGB2GRAY)
    return np.stack([grey, foreground, foreground], axis=-1)


def padded(
    mask: BoolArray, corner_xy: tuple[int, int], pixels: int, size_hw: tuple[int, int]
) -> tuple[BoolArray, tuple[int, int, int, int]] | None:
    """A mask grown (or shrunk, below 0) by so many pixels: its tight ``(h, w)`` crop and half-open
    box xyxy in a picture of this size; None where nothing is left of it.

    Args:
        corner_xy: where the mask lies in the picture.
    """
    room = max(pixels, 0) + 1
    full = np.pad(mask, room)
    if pixels > 0:
        full = cv2.distanceTransform((~full).astype(np.uint8), cv2.DIST_L2, 5) <= pixels
    elif pixels < 0:
        full = cv2.distanceTransform(full.astype(np.uint8), cv2.DIST_L2, 5) > -pixels
    left, top = corner_xy[0] - room, corner_xy[1] - room
    cut_x, cut_y = max(0, -left), max(0, -top)
    full = full[cut_y : size_hw[0] - top, cut_x : size_hw[1] - left]
    box = tight_box_xyxy(full)
    if box is None:
        return None
    x0, y0, x1, y1 = box
    left, top = left + cut_x, top + cut_y
    crop = np.ascontiguousarray(full[y0:y1, x0:x1])
    return crop, (left + x0, top + y0, left + x1, top + y1)


def _near(coarse: Masks) -> list[list[int]]:
    """Of each mask those that its window may meet."""
    sides = np.maximum(4, np.round(MARGIN * np.sqrt(coarse.areas / math.pi))).astype(np.int64)
    windows = coarse.boxes_xyxy + sides[:, None] * np.array([-1, -1, 1, 1])
    found: list[list[int]] = [[] for _ in range(len(coarse))]
    for one, other in meeting_boxes(windows).tolist():
        found[one].append(other)
        found[other].append(one)
    return found


def _others(
    coarse: Masks, near: Sequence[int], window_xyxy: tuple[int, int, int, int]
) -> BoolArray:
    """What other masks cover of a window."""
    left, top, right, bottom = window_xyxy
    found = np.zeros((bottom - top, right - left), np.bool_)
    for index in near:
        x0, y0, x1, y1 = coarse.boxes_xyxy[index].tolist()
        at = np.s_[max(0, y0 - top) : max(0, y1 - top), max(0, x0 - left) : max(0, x1 - left)]
        part = found[at]
        crop = coarse.crop(index)[max(0, top - y0) :, max(0, left - x0) :]
        part |= crop[: part.shape[0], : part.shape[1]]
    return found


def _foreground(window_rgb: ImageRGB, mask: BoolArray, others: BoolArray) -> BoolArray | None:
    """The largest part of the foreground in and closely around the mask, without holes.

    Args:
        others: where other objects are.
    """
    height, width = mask.shape
    scale = min(1.0, SIDE / max(mask.shape))
    size = max(1, round(width * scale)), max(1, round(height * scale))
    seen = cv2.resize(window_rgb, size, interpolation=cv2.INTER_AREA)
    small = cv2.resize(mask.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5
    depth = cv2.distanceTransform(np.pad(small, 1).astype(np.uint8), cv2.DIST_L2, 5)[1:-1, 1:-1]
    outside = cv2.distanceTransform((~small).astype(np.uint8), cv2.DIST_L2, 5)
    taken = cv2.resize(others.astype(np.float32), size, interpolation=cv2.INTER_AREA) > 0.5
    perhaps = ~small & ~taken & (outside < GROWTH * math.sqrt(np.count_nonzero(small) / math.pi))
    labels = np.where(small, cv2.GC_PR_FGD, cv2.GC_BGD).astype(np.uint8)
    labels[perhaps] = cv2.GC_PR_BGD
    labels[small & (depth > CORE * depth.max())] = cv2.GC_FGD
    if len(np.unique(labels)) < 3:
        return None
    models = np.zeros((1, 65)), np.zeros((1, 65))
    cv2.setRNGSeed(0)  # of the clusters it starts with
    try:
        cv2.grabCut(
            np.ascontiguousarray(seen), labels, None, *models, ROUNDS, cv2.GC_INIT_WITH_MASK
        )
    except cv2.error:  # the colours of one side cannot be told apart
        return None
    inside = np.isin(labels, (cv2.GC_FGD, cv2.GC_PR_FGD)).astype(np.uint8)
    whole = _main_part(cv2.morphologyEx(inside, cv2.MORPH_OPEN, np.ones((3, 3), np.uint8)), small)
    if whole is None:
        return None
    large = cv2.resize(whole, (width, height), interpolation=cv2.INTER_LINEAR)
    return np.asarray(large > 127)


def _main_part(inside: npt.NDArray[np.integer], mask: BoolArray) -> Labels | None:
    """The region that shares most pixels with the mask: 255 there and in its holes."""
    count, labels = cv2.connectedComponents(inside.astype(np.uint8), connectivity=4)
    shared = np.bincount(labels[mask], minlength=count)
    shared[0] = 0
    if not shared.any():
        return None
    part = (labels == shared.argmax()).astype(np.uint8)
    outlines, _ = cv2.findContours(part, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    filled = np.zeros_like(part)
    cv2.drawContours(filled, outlines, -1, 255, -1)
    return np.asarray(filled, np.uint8)
