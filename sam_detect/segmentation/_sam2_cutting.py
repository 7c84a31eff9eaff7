"""Many masks cut out at once: what ``_sam2_masks.cut_out`` makes of one, for a GPU.

A GPU does much at once, but whoever asks it for a number waits until all that it was given before
is done. So nothing here is asked for a single mask:

1. Which masks can pass, and the box in which each can be true: one answer for the batch.
2. These boxes are scaled up side by side, by the bilinear rule and in the order of operations of
   ``cut_out``, and the places where a column turns true or false are all that is sent back.
3. The run lengths are made of these on the host, with numpy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from sam_detect.masks import IntArray, compress_rle, runs_between
from sam_detect.models.running import sent
from sam_detect.segmentation._sam2_masks import (
    Cut,
    Limits,
    is_wanted,
    may_be_stable,
    taps_of,
    without_small_regions,
)

WINDOW_PIXELS = 2**24
"""Pixels of the picture's scale that are made at once: some 400 MB while they are looked at."""


@dataclass(frozen=True)
class _Windows:
    """The parts of the picture in which S masks can be true.

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
        """Windows that can be made side by side, the largest first."""
        ordered = self[np.argsort(-self.sizes.max(axis=1), kind="stable")]
        start = 0
        while start < len(ordered.masks):
            count = max(1, WINDOW_PIXELS // int(ordered.sizes[start].max()) ** 2)
            yield ordered[np.arange(start, min(start + count, len(ordered.masks)))]
            start += count


def cut_out_batch(logits: Tensor, size_hw: tuple[int, int], limits: Limits) -> list[Cut | None]:
    """The masks of ``(S, h, w)`` small logits in a picture of ``size_hw``; None for those that are
    empty, not stable enough, or of a size that is not wanted."""
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
    """Where the masks that can pass can be true."""
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
    """``(S, 7)`` int64 of ``(S, h, w)`` logits: pixels above the threshold and its offset, above
    it less its offset, above it; and the half-open box of the second, or if ``tight`` the third."""
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
    values = _scaled_up(logits, windows, size_hw)
    measured = _measured(values, limits, tight=True)
    # With a border of false above and below each column, turns come in pairs.
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
        if not is_wanted(int(area), stability, limits):
            yield None
            continue
        x0, y0, x1, y1 = (int(each) for each in box)
        left, top = corner.tolist()
        size = (y1 - y0, x1 - x0)
        rle = compress_rle(runs_between(turned, size[0] * size[1]), size)["counts"].encode("ascii")
        yield Cut((left + x0, top + y0, left + x1, top + y1), rle, int(area), stability)


def _scaled_up(logits: Tensor, windows: _Windows, size_hw: tuple[int, int]) -> Tensor:
    """``(S, H, W)`` logits of the windows, of which the largest gives H and W; minus infinity
    beyond a window's own size."""
    device = logits.device
    numbers, lefts, tops, widths, heights = sent(
        np.concatenate([windows.masks[:, None], windows.corners, windows.sizes], axis=1), device
    ).T[:, :, None]
    width, height = windows.sizes.max(axis=0).tolist()
    y_low, y_high, y_share, below = _taps(size_hw[0], logits.shape[1], tops, heights, height)
    x_low, x_high, x_share, beside = _taps(size_hw[1], logits.shape[2], lefts, widths, width)
    x_share = x_share[:, None, :]

    def wide(y: Tensor) -> Tensor:
        n, rows = numbers[:, :, None], y[:, :, None]
        low, high = (logits[n, rows, x[:, None, :]] for x in (x_low, x_high))
        return torch.lerp(low, high, x_share)

    values = torch.lerp(wide(y_low), wide(y_high), y_share[:, :, None])
    return values.masked_fill_(below[:, :, None] | beside[:, None, :], -torch.inf)


def _taps(
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
    """For each mask, where its pixels turn true and false, counted column by column in its box.

    Args:
        turns: places in ``(S, W, H + 1)`` where a pixel is other than the one above it.
        boxes_xyxy: ``(S, 4)``, tight.
        size_hw: H and W.
    """
    height, width = size_hw
    mask, place = np.divmod(turns, width * (height + 1))
    x, y = np.divmod(place, height + 1)
    x0, y0, _, y1 = boxes_xyxy[mask].T
    counted = (x - x0) * (y1 - y0) + (y - y0)
    return np.split(counted, np.searchsorted(mask, np.arange(1, len(boxes_xyxy))))
