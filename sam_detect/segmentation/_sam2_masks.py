"""From mask logits to masks of the image, one by one or in batches.

The logits have a fourth of the model's side. Official code scales every mask to the whole image.
Here a mask is scaled up only where it can be true, by the same bilinear rule
(``align_corners=False``), and compressed at once.

On a CPU masks are scaled one by one (:func:`cut_out`). On a GPU each answer must be waited for, so
:func:`cut_out_batch` does the same for a batch:

1. Which masks can pass, and the box in which each can be true: one answer for the batch.
2. These boxes are scaled up in one tensor, by the same rule and in the same order of operations,
   and only the places where a column turns true or false are sent back.
3. The run lengths are made of these on the host, with numpy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import cv2
import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sam_detect.errors import ConfigError
from sam_detect.masks import (
    BoolArray,
    IntArray,
    compress_rle,
    decode_crop,
    encode_crop,
    runs_between,
    tight_box_xyxy,
)
from sam_detect.models.running import sent
from sam_detect.options import require_number

STABILITY_MARGIN = 0.02, 1.0
"""Largest difference between the stability of small and of upscaled logits: a constant, and a term
that is divided by the square root of the area."""
FILLED = 10.0
"""Distance from the threshold of the logits of filled holes and removed specks."""


@dataclass(frozen=True)
class Limits:
    """Which masks pass; the names and meanings are the official generator's.

    Attributes:
        pred_iou: least predicted IoU, exclusive; 0 for no limit.
        stability: least stability, inclusive; 0 for no limit.
        offset: shift of the threshold, up and down, that measures stability.
        threshold: logits above it are true.
        region_area: holes and specks of at most this many pixels of the small logits are removed.
        area: least and most pixels of a mask; a maximum of 0 is no limit.
    """

    pred_iou: float = 0.8
    stability: float = 0.95
    offset: float = 1.0
    threshold: float = 0.0
    region_area: int = 0
    area: tuple[int, int] = (0, 0)

    def __post_init__(self) -> None:
        require_number("pred_iou_thresh", self.pred_iou, 0, 1)
        require_number("stability_score_thresh", self.stability, 0, 1)
        require_number("stability_score_offset", self.offset, 0)
        require_number("mask_threshold", self.threshold)
        require_number("min_mask_region_area", self.region_area, 0)
        least, most = self.area
        require_number("min_area", least, 0)
        require_number("max_area", most, 0)
        if most and least > most:
            raise ConfigError(f"min_area {least} is larger than max_area {most}")


@dataclass(frozen=True)
class Cut:
    """A mask of the image: its tight half-open box, its run lengths in the box, its pixels and its
    stability."""

    box_xyxy: tuple[int, int, int, int]
    rle: bytes
    area: int
    stability: float

    def crop(self) -> BoolArray:
        x0, y0, x1, y1 = self.box_xyxy
        return decode_crop(self.rle, (y1 - y0, x1 - x0))


def cut_out(logits: Tensor, size_hw: tuple[int, int], limits: Limits) -> Cut | None:
    """The mask of ``(h, w)`` small logits in an image of ``size_hw``; None if it is empty or
    outside the limits."""
    if limits.region_area:
        logits = without_small_regions(logits, limits)
    if limits.stability:
        counts = [*_offset_counts(logits, limits), int((logits > limits.threshold).sum())]
        if not may_be_stable(np.array(counts, np.int64), limits):
            return None
    found = _scaled_up(logits, size_hw, limits.threshold - limits.offset)
    if found is None:
        return None
    values, (left, top) = found
    crop = values > limits.threshold
    area = int(np.count_nonzero(crop))
    inner, outer = _offset_counts(values, limits)
    stability = inner / outer if outer else 0.0
    if not passes_limits(area, stability, limits):
        return None
    x0, y0, x1, y1 = tight_box_xyxy(crop) or (0, 0, 0, 0)
    box = (left + x0, top + y0, left + x1, top + y1)
    return Cut(box, encode_crop(crop[y0:y1, x0:x1]), area, stability)


def passes_limits(area: int, stability: float, limits: Limits) -> bool:
    """Whether a mask of this area (pixels) and stability passes."""
    least, most = limits.area
    if area == 0 or area < least or (most and area > most):
        return False
    return stability >= limits.stability


def may_be_stable(counts: IntArray, limits: Limits) -> BoolArray:
    """``(S,)`` whether upscaled masks could pass: a cheap test that avoids most of the upscaling.

    Args:
        counts: ``(3, S)`` small logits above the threshold plus the offset, above the threshold
            minus the offset, and above the threshold.
    """
    inner, outer, area = counts
    always, by_size = STABILITY_MARGIN
    least = limits.stability - always - by_size / np.sqrt(np.maximum(area, 1))
    passing = inner / np.maximum(outer, 1) >= least
    return np.asarray(passing | (limits.stability == 0))


def _offset_counts(values: np.ndarray | Tensor, limits: Limits) -> tuple[int, int]:
    """How many are above the threshold plus the offset, and above it minus the offset."""
    inner = (values > limits.threshold + limits.offset).sum()
    outer = (values > limits.threshold - limits.offset).sum()
    return int(inner), int(outer)


def _scaled_up(
    logits: Tensor, size_hw: tuple[int, int], floor: float
) -> tuple[np.ndarray, tuple[int, int]] | None:
    """The logits at the image's scale wherever they can be above ``floor``, and the x and y of that
    window; None if there is no such place."""
    box = tight_box_xyxy((logits > floor).cpu().numpy())
    if box is None:
        return None
    left, x_low, x_high, x_share = _taps(size_hw[1], logits.shape[1], box[0], box[2])
    top, y_low, y_high, y_share = _taps(size_hw[0], logits.shape[0], box[1], box[3])
    taps = [torch.from_numpy(part).to(logits.device) for part in
            (x_low, x_high, x_share, y_low, y_high, y_share)]  # fmt: skip
    # columns first, on the transposed logits: whole rows are gathered both times
    columns = logits.T.contiguous()
    wide = torch.lerp(columns[taps[0]], columns[taps[1]], taps[2]).T.contiguous()
    values = torch.lerp(wide[taps[3]], wide[taps[4]], taps[5])
    return values.cpu().numpy(), (left, top)


def _taps(
    out: int, size: int, start: int, stop: int
) -> tuple[int, np.ndarray, np.ndarray, np.ndarray]:
    """Interpolation of those of ``out`` values that ``start:stop`` of ``size`` values affect: the
    first of them, and for each the lower and upper source and the upper's weight."""
    low, high, share = taps_of(out, size)
    first, last = np.searchsorted(high, start), np.searchsorted(low, stop)
    part = slice(int(first), int(last))
    return part.start, low[part], high[part], share[part, None]


@lru_cache(maxsize=64)
def taps_of(out: int, size: int) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Bilinear interpolation (``align_corners=False``) from ``size`` to ``out`` values: ``(out,)``
    lower source, upper source, and the upper's weight."""
    centres = (np.arange(out, dtype=np.float64) + 0.5) * (size / out) - 0.5
    centres = np.clip(centres, 0, None)
    low = np.minimum(centres.astype(np.int64), size - 1)
    high = np.minimum(low + 1, size - 1)
    return low, high, (centres - low).astype(np.float32)


def without_small_regions(logits: Tensor, limits: Limits) -> Tensor:
    """Fills small holes and removes small specks, as the official predictor does on a GPU (on a CPU
    it warns and leaves them)."""
    values = logits.cpu().numpy()
    above = values > limits.threshold
    changed = np.where(_small(~above, limits.region_area), limits.threshold + FILLED, values)
    changed = np.where(_small(above, limits.region_area), limits.threshold - FILLED, changed)
    return torch.from_numpy(changed.astype(np.float32)).to(logits.device)


def _small(regions: BoolArray, area: int) -> BoolArray:
    """The pixels of those 8-connected regions that have at most ``area`` of them."""
    _, labels, stats, _ = cv2.connectedComponentsWithStats(regions.astype(np.uint8), connectivity=8)
    small = np.asarray(stats[:, cv2.CC_STAT_AREA]) <= area
    small[0] = False  # the background
    return np.asarray(small[labels])


WINDOW_PIXELS = 2**24
"""Upscaled pixels at once: about 400 MB."""


@dataclass(frozen=True)
class _Windows:
    """The parts of the image in which S masks can be true.

    Attributes:
        masks: ``(S,)``, their numbers.
        corners: ``(S, 2)``, x and y of the upper left pixels.
        sizes: ``(S, 2)``, widths and heights.
    """

    masks: IntArray
    corners: IntArray
    sizes: IntArray

    def __getitem__(self, some: IntArray | npt.NDArray[np.bool_]) -> _Windows:
        return _Windows(self.masks[some], self.corners[some], self.sizes[some])

    def groups(self) -> Iterator[_Windows]:
        """Windows that are upscaled together, the largest first."""
        ordered = self[np.argsort(-self.sizes.max(axis=1), kind="stable")]
        start = 0
        while start < len(ordered.masks):
            count = max(1, WINDOW_PIXELS // int(ordered.sizes[start].max()) ** 2)
            yield ordered[np.arange(start, min(start + count, len(ordered.masks)))]
            start += count


def cut_out_batch(logits: Tensor, size_hw: tuple[int, int], limits: Limits) -> list[Cut | None]:
    """The masks of ``(S, h, w)`` small logits in an image of ``size_hw``; None for those that are
    empty or outside the limits."""
    if limits.region_area:
        cleaned = [without_small_regions(each, limits) for each in logits.cpu()]
        logits = sent(torch.stack(cleaned), logits.device)
    found: list[Cut | None] = [None] * len(logits)
    for group in _windows(logits, size_hw, limits).groups():
        for number, cut in zip(
            group.masks.tolist(), _cuts(logits, group, size_hw, limits), strict=True
        ):
            found[number] = cut
    return found


def _windows(logits: Tensor, size_hw: tuple[int, int], limits: Limits) -> _Windows:
    """Windows of the masks that can pass."""
    counts, box = np.split(_measured(logits, limits).cpu().numpy().T, [3])
    possible = (counts[1] > 0) & may_be_stable(counts, limits)
    begins, ends = [], []
    for axis, (start, stop) in enumerate([(box[0], box[2]), (box[1], box[3])]):
        low, high, _ = taps_of(size_hw[1 - axis], logits.shape[2 - axis])
        begins.append(np.searchsorted(high, start))
        ends.append(np.searchsorted(low, stop))
    corners = np.stack(begins, axis=1)
    sizes = np.stack(ends, axis=1) - corners
    possible &= (sizes > 0).all(axis=1)
    return _Windows(np.arange(len(logits)), corners, sizes)[possible]


def _measured(values: Tensor, limits: Limits, *, tight: bool = False) -> Tensor:
    """``(S, 7)`` int64 of ``(S, h, w)`` logits: pixels above the threshold plus the offset, above
    it minus the offset, and above it; then the half-open box of the second, or of the third if
    ``tight``."""
    above = [values > limits.threshold + sign * limits.offset for sign in (1, -1, 0)]
    counts = [each.flatten(1).sum(1) for each in above]
    within = above[2 if tight else 1]
    return torch.stack([*counts, *_boxes(within)], dim=1)


def _boxes(masks: Tensor) -> list[Tensor]:
    """x0, y0, x1 and y1, each ``(S,)``, of the true pixels of ``(S, h, w)``."""
    firsts, lasts = [], []
    for axis in (1, 2):
        true = masks.any(axis).to(torch.int32)
        firsts.append(true.argmax(1))
        lasts.append(true.shape[1] - true.flip(1).argmax(1))
    return [*firsts, *lasts]


def _cuts(
    logits: Tensor, windows: _Windows, size_hw: tuple[int, int], limits: Limits
) -> Iterator[Cut | None]:
    values = _scaled_up_batch(logits, windows, size_hw)
    measured = _measured(values, limits, tight=True)
    # with a border of false above and below each column, changes come in pairs
    columns = torch.nn.functional.pad((values > limits.threshold).mT, (1, 1))
    turns = (columns[..., 1:] != columns[..., :-1]).flatten().nonzero()[:, 0]
    answer = torch.cat([measured.flatten(), turns]).cpu().numpy()
    numbers, turns_at = answer[: measured.numel()], answer[measured.numel() :]
    of_each = numbers.reshape(-1, measured.shape[1])
    places = _places(turns_at, of_each[:, 3:], (values.shape[1], values.shape[2]))
    for (inner, outer, area, *box), corner, turned in zip(
        of_each, windows.corners, places, strict=True
    ):
        stability = float(inner) / float(outer) if outer else 0.0
        if not passes_limits(int(area), stability, limits):
            yield None
            continue
        x0, y0, x1, y1 = (int(each) for each in box)
        left, top = corner.tolist()
        size = (y1 - y0, x1 - x0)
        rle = compress_rle(runs_between(turned, size[0] * size[1]), size)["counts"].encode("ascii")
        yield Cut((left + x0, top + y0, left + x1, top + y1), rle, int(area), stability)


def _scaled_up_batch(logits: Tensor, windows: _Windows, size_hw: tuple[int, int]) -> Tensor:
    """``(S, H, W)`` logits of the windows, of which the largest gives H and W; minus infinity
    beyond a window's own size."""
    device = logits.device
    numbers, lefts, tops, widths, heights = sent(
        np.concatenate([windows.masks[:, None], windows.corners, windows.sizes], axis=1), device
    ).T[:, :, None]
    width, height = windows.sizes.max(axis=0).tolist()
    y_low, y_high, y_share, below = _taps_batch(size_hw[0], logits.shape[1], tops, heights, height)
    x_low, x_high, x_share, beside = _taps_batch(size_hw[1], logits.shape[2], lefts, widths, width)
    x_share = x_share[:, None, :]

    def wide(y: Tensor) -> Tensor:
        n, rows = numbers[:, :, None], y[:, :, None]
        low, high = (logits[n, rows, x[:, None, :]] for x in (x_low, x_high))
        return torch.lerp(low, high, x_share)

    values = torch.lerp(wide(y_low), wide(y_high), y_share[:, :, None])
    return values.masked_fill_(below[:, :, None] | beside[:, None, :], -torch.inf)


def _taps_batch(
    out: int, size: int, starts: Tensor, lengths: Tensor, longest: int
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """``(S, longest)`` each: as ``taps_of`` from each start on, and what is beyond each length."""
    low, high, share = _tables(out, size, starts.device)
    steps = torch.arange(longest, device=starts.device)
    places = (starts + steps).clamp(max=out - 1)
    return low[places], high[places], share[places], steps >= lengths


@lru_cache(maxsize=64)
def _tables(out: int, size: int, device: torch.device) -> tuple[Tensor, Tensor, Tensor]:
    low, high, share = (sent(each, device) for each in taps_of(out, size))
    return low, high, share


def _places(turns: IntArray, boxes_xyxy: IntArray, size_hw: tuple[int, int]) -> list[IntArray]:
    """For each mask the positions where its pixels change, counted column by column in its box.

    Args:
        turns: positions in ``(S, W, H + 1)`` where a pixel differs from the one above it.
        boxes_xyxy: ``(S, 4)``, tight.
        size_hw: H and W.
    """
    height, width = size_hw
    mask, place = np.divmod(turns, width * (height + 1))
    x, y = np.divmod(place, height + 1)
    x0, y0, _, y1 = boxes_xyxy[mask].T
    counted = (x - x0) * (y1 - y0) + (y - y0)
    return np.split(counted, np.searchsorted(mask, np.arange(1, len(boxes_xyxy))))
