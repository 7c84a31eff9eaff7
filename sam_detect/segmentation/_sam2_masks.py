"""From mask logits to masks of the image.

The logits have a fourth of the model's side. Official code scales every mask to the whole image.
Here a mask is scaled up only where it can be true, by the same bilinear rule
(``align_corners=False``), and compressed at once:

1. Which masks can pass, and the window in which each can be true: one answer for the batch.
2. The windows are scaled up, many in one tensor, and only the places where a column turns
   true or false are sent to the host.
3. The run lengths are made of these, with numpy.

On a CPU each mask is a batch of its own, and all else of the logits is left out first.
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
from torch.nn.functional import pad

from sam_detect.errors import ConfigError
from sam_detect.models.running import to_device
from sam_detect.options import require_number
from sam_detect.types.masks import (
    BoolArray,
    FloatArray,
    IntArray,
    compress_rle,
    decode_crop,
    runs_between,
    tight_box_xyxy,
)

ROUNDING = 1e-4
"""What is at most so far from a threshold may be on either side of it after upscaling."""
ONE_BY_ONE = {"cpu"}
"""Devices on which memory bandwidth takes the time; on others launches and answers do."""
WINDOW_PIXELS = 2**24
"""Upscaled pixels at once: about 400 MB."""
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


@dataclass(frozen=True, eq=False)
class Axis:
    """Bilinear interpolation (``align_corners=False``) along one axis.

    Attributes:
        first: place in the image of the first of K upscaled values.
        low, high: ``(K,)`` the two small values that each lies between.
        share: ``(K,)`` float32, weight of the higher one.
    """

    first: int
    low: IntArray
    high: IntArray
    share: FloatArray

    def part(self, start: int, stop: int) -> tuple[slice, Axis]:
        """What the small values ``start:stop`` change: with their neighbours, as a slice; and the
        interpolation of these."""
        chosen = slice(int(np.searchsorted(self.high, start)), int(np.searchsorted(self.low, stop)))
        begin = max(start - 1, 0)
        part = Axis(
            self.first + chosen.start,
            self.low[chosen] - begin,
            self.high[chosen] - begin,
            self.share[chosen],
        )
        return slice(begin, stop + 1), part


@lru_cache(maxsize=64)
def axis_of(out: int, size: int) -> Axis:
    """From ``size`` to ``out`` values."""
    centres = (np.arange(out, dtype=np.float64) + 0.5) * (size / out) - 0.5
    centres = np.clip(centres, 0, None)
    low = np.minimum(centres.astype(np.int64), size - 1)
    return Axis(0, low, np.minimum(low + 1, size - 1), (centres - low).astype(np.float32))


Axes = tuple[Axis, Axis]
"""Of rows and of columns."""


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


def cut_out(logits: Tensor, size_hw: tuple[int, int], limits: Limits) -> list[Cut | None]:
    """The masks of ``(S, h, w)`` small logits in an image of ``size_hw``; None for those that are
    empty or outside the limits."""
    if limits.region_area:
        cleaned = [without_small_regions(each, limits) for each in logits.cpu()]
        logits = to_device(torch.stack(cleaned), logits.device)
    rows, columns = (axis_of(size_hw[i], logits.shape[1 + i]) for i in (0, 1))
    if logits.device.type not in ONE_BY_ONE:
        return _cut_out(logits, (rows, columns), limits)
    found: list[Cut | None] = []
    for each in logits:
        box = tight_box_xyxy((each > limits.threshold - limits.offset).numpy())
        x0, y0, x1, y1 = box or (0, 0, 0, 0)
        (down, own_rows), (across, own_columns) = rows.part(y0, y1), columns.part(x0, x1)
        part, own_axes = each[None, down, across], (own_rows, own_columns)
        size = len(own_columns.low), len(own_rows.low)
        if not all(size) or not may_be_stable(part, own_axes, limits):
            found.append(None)
            continue
        window = _Windows(np.zeros(1, np.int64), np.zeros((1, 2), np.int64), np.array([size]))
        found += _cuts(part, window, own_axes, limits)
    return found


def _cut_out(logits: Tensor, axes: Axes, limits: Limits) -> list[Cut | None]:
    found: list[Cut | None] = [None] * len(logits)
    for group in _windows(logits, axes, limits).groups():
        cuts = _cuts(logits, group, axes, limits)
        for number, cut in zip(group.masks.tolist(), cuts, strict=True):
            found[number] = cut
    return found


def _windows(logits: Tensor, axes: Axes, limits: Limits) -> _Windows:
    """Windows of the masks that can pass."""
    within = logits > limits.threshold - limits.offset
    possible = within.flatten(1).any(1) & may_be_stable(logits, axes, limits)
    answer = torch.stack([possible.long(), *_boxes(within)], dim=1).cpu().numpy()
    can_pass, x0, y0, x1, y1 = answer.T
    ends = [(axes[1], x0, x1), (axes[0], y0, y1)]
    corners = np.stack([np.searchsorted(axis.high, low) for axis, low, _ in ends], axis=1)
    sizes = np.stack([np.searchsorted(axis.low, high) for axis, _, high in ends], axis=1) - corners
    chosen = (can_pass > 0) & (sizes > 0).all(axis=1)
    return _Windows(np.arange(len(logits)), corners, sizes)[chosen]


def may_be_stable(logits: Tensor, axes: Axes, limits: Limits) -> Tensor:
    """``(S,)`` bool: whether masks could be stable, by a bound that needs no upscaling.

    An upscaled pixel lies between the lowest and the highest of the four small ones around it. So
    it is not above the raised threshold if none of them is, and it is above the lowered threshold
    if all of them are. Pixels of which both is true lower the stability; all others may not.
    """
    columns_of = {of: of(logits[:, :-1], logits[:, 1:]) for of in (torch.maximum, torch.minimum)}
    highest, lowest = (of(each[:, :, :-1], each[:, :, 1:]) for of, each in columns_of.items())
    inner = highest > limits.threshold + limits.offset - ROUNDING
    between = ~inner & (lowest > limits.threshold - limits.offset + ROUNDING)
    # the last small value has no next one: its pixels count with those of the one before
    rows, columns = (
        to_device(
            np.bincount(np.minimum(axis.low, size - 2), minlength=size - 1), logits.device
        ).float()
        for axis, size in zip(axes, logits.shape[1:], strict=True)
    )
    most, least = ((each.float() @ columns) @ rows for each in (inner, between))
    return most * (1 + ROUNDING) >= limits.stability * (most + least)


def _measured(values: Tensor, limits: Limits) -> Tensor:
    """``(S, 7)`` int64 of ``(S, h, w)`` logits: pixels above the threshold plus the offset, above
    it minus the offset, and above it; then the tight half-open box of these."""
    above = [values > limits.threshold + sign * limits.offset for sign in (1, -1, 0)]
    return torch.stack([*(each.flatten(1).sum(1) for each in above), *_boxes(above[2])], dim=1)


def _boxes(masks: Tensor) -> list[Tensor]:
    """x0, y0, x1 and y1, each ``(S,)``, of the true pixels of ``(S, h, w)``."""
    firsts, lasts = [], []
    for axis in (1, 2):
        true = masks.view(torch.uint8).amax(axis)
        firsts.append(true.argmax(1))
        lasts.append(true.shape[1] - true.flip(1).argmax(1))
    return [*firsts, *lasts]


def _cuts(logits: Tensor, windows: _Windows, axes: Axes, limits: Limits) -> Iterator[Cut | None]:
    values = _scaled_up(logits, windows, axes)
    measured = _measured(values, limits)
    # with a border of false above and below each column, changes come in pairs
    columns = pad((values > limits.threshold).mT, (1, 1))
    turns = (columns[..., 1:] != columns[..., :-1]).flatten().nonzero()[:, 0]
    answer = torch.cat([measured.flatten(), turns]).cpu().numpy()
    numbers, turns_at = answer[: measured.numel()], answer[measured.numel() :]
    of_each = numbers.reshape(-1, measured.shape[1])
    places = _places(turns_at, of_each[:, 3:], (values.shape[1], values.shape[2]))
    least, most = limits.area
    for (inner, outer, area, *box), corner, turned in zip(
        of_each.tolist(), windows.corners.tolist(), places, strict=True
    ):
        stability = inner / outer if outer else 0.0
        if not max(1, least) <= area <= (most or area) or stability < limits.stability:
            yield None
            continue
        x0, y0, x1, y1 = box
        left, top = axes[1].first + corner[0], axes[0].first + corner[1]
        size = (y1 - y0, x1 - x0)
        rle = compress_rle(runs_between(turned, size[0] * size[1]), size)["counts"].encode("ascii")
        yield Cut((left + x0, top + y0, left + x1, top + y1), rle, area, stability)


def _scaled_up(logits: Tensor, windows: _Windows, axes: Axes) -> Tensor:
    """``(S, H, W)`` logits of the windows, of which the largest gives H and W; minus infinity
    beyond a window's own size."""
    device = logits.device
    numbers, lefts, tops, widths, heights = to_device(
        np.concatenate([windows.masks[:, None], windows.corners, windows.sizes], axis=1), device
    ).T[:, :, None]
    width, height = windows.sizes.max(axis=0).tolist()
    values = logits[numbers[:, 0]].mT
    beyond = []
    # columns first, on the transposed logits: whole rows are taken both times
    for axis, starts, lengths, longest in (
        (axes[1], lefts, widths, width), (axes[0], tops, heights, height)
    ):  # fmt: skip
        steps = torch.arange(longest, device=device)
        places = (starts + steps).clamp(max=len(axis.low) - 1)
        low, high, share = (
            to_device(each, device)[places] for each in (axis.low, axis.high, axis.share)
        )
        values = values.contiguous()
        values = torch.lerp(_rows(values, low), _rows(values, high), share[:, :, None]).mT
        beyond.append(steps >= lengths)
    values = values.mT
    if len(values) > 1:
        values.masked_fill_(beyond[1][:, :, None] | beyond[0][:, None, :], -torch.inf)
    return values


def _rows(values: Tensor, numbers: Tensor) -> Tensor:
    """``(S, K, B)``: K rows of each of ``(S, A, B)``."""
    if len(values) == 1:  # copies whole rows, which is quicker on a CPU
        return values[0].index_select(0, numbers[0])[None]
    return values.gather(1, numbers[:, :, None].expand(-1, -1, values.shape[2]))


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
