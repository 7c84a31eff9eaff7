"""From mask logits at a fourth of the model's side to masks of the picture.

Official code scales every mask to the whole picture. Here a mask is scaled up only where it can be
true, by the same bilinear rule (``align_corners=False``), and compressed at once.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import torch
from torch import Tensor

from sam_detect.errors import ConfigError
from sam_detect.masks import BoolArray, IntArray, decode_crop, encode_crop, tight_box_xyxy

SLACK = 0.02, 1.0
"""How far the stability of the small logits may be from that of the large ones: a part that holds
for all sizes, and one that shrinks with the root of the area."""
FILLED = 10.0
"""Logit, beside the threshold, of holes that are filled and specks that are removed."""


@dataclass(frozen=True)
class Limits:
    """Which masks pass; the names and meanings are the official generator's.

    Attributes:
        pred_iou: least predicted IoU, exclusive; 0 for no limit.
        stability: least stability, inclusive; 0 for no limit.
        offset: by how much the threshold is moved up and down to measure stability.
        threshold: logits above it are true.
        region_area: holes and specks of at most so many small-logit pixels are removed.
        area: least and most pixels of a mask; a most of 0 is no limit.
    """

    pred_iou: float = 0.8
    stability: float = 0.95
    offset: float = 1.0
    threshold: float = 0.0
    region_area: int = 0
    area: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        require_range("pred_iou_thresh", self.pred_iou, 0, 1)
        require_range("stability_score_thresh", self.stability, 0, 1)
        require_range("stability_score_offset", self.offset, 0, math.inf)
        require_range("mask_threshold", self.threshold, -math.inf, math.inf)
        require_range("min_mask_region_area", self.region_area, 0, math.inf)
        least, most = self.area
        require_range("min_area", least, 0, math.inf)
        require_range("max_area", most, 0, math.inf)
        if most and least > most:
            raise ConfigError(f"min_area {least} is larger than max_area {most}")


def require_range(name: str, value: float, least: float, most: float) -> None:
    """Raises ``ConfigError`` for a parameter that is no number from least to most."""
    if not least <= value <= most:
        limits = f"from {least:g} to {most:g}" if most < math.inf else f"of at least {least:g}"
        raise ConfigError(f"{name} must be a number {limits}, got {value}")


@dataclass(frozen=True)
class Cut:
    """A mask of the picture: its tight half-open box, the run lengths and number of its pixels
    there, and how stable it is."""

    box_xyxy: tuple[int, int, int, int]
    rle: bytes
    area: int
    stability: float

    def crop(self) -> BoolArray:
        x0, y0, x1, y1 = self.box_xyxy
        return decode_crop(self.rle, (y1 - y0, x1 - x0))


def cut_out(logits: Tensor, size_hw: tuple[int, int], limits: Limits) -> Cut | None:
    """The mask of ``(h, w)`` small logits in a picture of ``size_hw``; None where it is empty,
    not stable enough, or of a size that is not wanted."""
    if limits.region_area:
        logits = without_small_regions(logits, limits)
    if limits.stability and not _looks_stable(logits, limits):
        return None
    found = _scaled_up(logits, size_hw, limits.threshold - limits.offset)
    if found is None:
        return None
    values, (left, top) = found
    crop = values > limits.threshold
    area = int(np.count_nonzero(crop))
    inner, outer = _beside_threshold(values, limits)
    stability = inner / outer if outer else 0.0
    if not is_wanted(area, stability, limits):
        return None
    x0, y0, x1, y1 = tight_box_xyxy(crop) or (0, 0, 0, 0)
    box = (left + x0, top + y0, left + x1, top + y1)
    return Cut(box, encode_crop(crop[y0:y1, x0:x1]), area, stability)


def is_wanted(area: int, stability: float, limits: Limits) -> bool:
    """Whether a mask of so many pixels, and so stable, passes."""
    least, most = limits.area
    if area == 0 or area < least or (most and area > most):
        return False
    return stability >= limits.stability


def may_be_stable(counts: IntArray, limits: Limits) -> BoolArray:
    """``(S,)`` whether scaled-up masks could pass: a cheap look that spares most of the scaling.

    Args:
        counts: ``(3, S)`` small logits above the threshold and its offset, above it less its
            offset, and above it.
    """
    inner, outer, area = counts
    always, by_size = SLACK
    least = limits.stability - always - by_size / np.sqrt(np.maximum(area, 1))
    passing = inner / np.maximum(outer, 1) >= least
    return np.asarray(passing | (limits.stability == 0))


def _looks_stable(logits: Tensor, limits: Limits) -> bool:
    inner, outer = _beside_threshold(logits, limits)
    area = int((logits > limits.threshold).sum())
    return bool(may_be_stable(np.array([inner, outer, area], np.int64), limits))


def _beside_threshold(values: np.ndarray | Tensor, limits: Limits) -> tuple[int, int]:
    """How many are above the threshold and its offset, and above it less its offset."""
    inner = (values > limits.threshold + limits.offset).sum()
    outer = (values > limits.threshold - limits.offset).sum()
    return int(inner), int(outer)


def _scaled_up(
    logits: Tensor, size_hw: tuple[int, int], floor: float
) -> tuple[np.ndarray, tuple[int, int]] | None:
    """The logits at the picture's scale wherever they can be above ``floor``, and the x and y
    where that begins; None where they are not."""
    box = tight_box_xyxy((logits > floor).cpu().numpy())
    if box is None:
        return None
    left, x_low, x_high, x_share = _taps(size_hw[1], logits.shape[1], box[0], box[2])
    top, y_low, y_high, y_share = _taps(size_hw[0], logits.shape[0], box[1], box[3])
    taps = [torch.from_numpy(part).to(logits.device) for part in
            (x_low, x_high, x_share, y_low, y_high, y_share)]  # fmt: skip
    # Columns first, on the transposed logits: whole rows are gathered both times.
    columns = logits.T.contiguous()
    wide = torch.lerp(columns[taps[0]], columns[taps[1]], taps[2]).T.contiguous()
    values = torch.lerp(wide[taps[3]], wide[taps[4]], taps[5])
    return values.cpu().numpy(), (left, top)


def _taps(
    out: int, size: int, start: int, stop: int
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Which of ``size`` values make those of ``out`` scaled-up ones that ``start:stop`` reach:
    the first of these, and for each the lower value, the upper, and the upper's share."""
    low, high, share = taps_of(out, size)
    first, last = np.searchsorted(high, start), np.searchsorted(low, stop)
    part = slice(int(first), int(last))
    return part.start, low[part], high[part], share[part, None]


@lru_cache(maxsize=64)
def taps_of(out: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """``(out,)`` each: which of ``size`` values make those of ``out`` scaled-up ones: the lower,
    the upper, and the upper's share (bilinear, ``align_corners=False``)."""
    centres = (np.arange(out, dtype=np.float64) + 0.5) * (size / out) - 0.5
    centres = np.clip(centres, 0, None)
    low = np.minimum(centres.astype(np.int64), size - 1)
    high = np.minimum(low + 1, size - 1)
    return low, high, (centres - low).astype(np.float32)


def without_small_regions(logits: Tensor, limits: Limits) -> Tensor:
    """Small holes filled and small specks removed, as the official predictor does on a GPU (on
    a CPU it warns and leaves them)."""
    values = logits.cpu().numpy()
    above = values > limits.threshold
    changed = np.where(_small(~above, limits.region_area), limits.threshold + FILLED, values)
    changed = np.where(_small(above, limits.region_area), limits.threshold - FILLED, changed)
    return torch.from_numpy(changed.astype(np.float32)).to(logits.device)


def _small(regions: BoolArray, area: int) -> BoolArray:
    """The pixels of those 8-connected regions that have at most ``area`` of them."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(regions.astype(np.uint8), connectivity=8)
    small = np.asarray(stats[:, cv2.CC_STAT_AREA]) <= area
    small[0] = False  # what is no region
    return np.asarray(small[labels])
