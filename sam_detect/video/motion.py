"""How a picture moved since the one before, and masks carried along.

The movement is a dense optical flow (Kroeger et al. 2016, "Fast optical flow using dense inverse
search"), from each pixel of the later picture back to where it came from: so a mask is carried by a
lookup, and each of its pixels gets a value. A mask is carried as a soft one, whose edge would
otherwise be rounded to whole pixels in every frame.

At an object's edge the flow is wrong: what is uncovered behind it came from nowhere, and the flow,
which is smooth, lets it come from the object, which so draws a trail. Therefore the edge moves as
the object's inside does (:func:`object_motion`): by an affine map that most of the inside agrees
with (iteratively reweighted least squares with Cauchy's weights), and by how the flow differs from
that map nearby, where it differs little. So a bending object bends.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.types import Frame
from sam_detect.types.masks import BoolArray, FloatArray, tight_box_xyxy
from sam_detect.video.appearance import EDGE, SoftMask

ByteArray = npt.NDArray[np.uint8]

FLOW_PIXELS = 420_000
"""Larger pictures are reduced to about as many pixels before they are compared."""
MARGIN_PX = 2
TAILS = (0.02, 0.98)
SAMPLE = 4
"""One of so many rows and columns is compared to measure what is new."""
CHANGED_LEVELS, LEAST_LEVELS = 25, 5
"""Grey levels by which a pixel may differ from where it came from, and those of noise."""
FULL_LEVELS = 150
"""Of a picture with a smaller range of grey levels, a smaller difference counts."""
BLANK_LEVELS = 8
"""Range of grey levels of a picture that shows nothing: black, or one colour."""
SMALL_PIXELS = 160_000
"""Smaller pictures have smaller objects, and are compared more finely."""
HALF, QUARTER = 1, 2
"""The finest scale that is compared, as a power of two."""
MOST_GAIN = 2.0
"""Largest change of brightness within a scene, as when a lamp is switched on."""
CUT_SHARE = 0.35
"""A larger share of new picture content is a cut: .42 to .90 between clips, up to .16 in them."""
KEPT_FLOWS = 32
LEAST_SIDE, MOST_SIDE = 16, 4096
GRID_PX = 4
"""The flow's own resolution: it is made at a quarter, and is smooth in between."""
GRID_ACROSS = 24
"""But an object is at least about so many steps of the grid wide."""
FAINT = 0.02
"""Of a soft mask, what is less than this is nothing."""
LEAST_INSIDE = 0.2
"""Share of an object that must be left without its edge; a thin one is taken whole."""
LEAST_POINTS = 6
MOST_POINTS = 400
ROUNDS = 3
LEAST_SCALE_PX = 0.05
OUTLIER = 4.0
"""Of typical residuals: what differs more from the affine map does not move with the object."""
NEARBY = 2
"""Steps of the grid that residuals are smoothed over, to each side."""
FAR = 0.1
"""Share of a neighbourhood that must be inside for its residual to count about fully."""


@dataclass(frozen=True, eq=False)
class Flow:
    """Backward optical flow: where each pixel of a picture came from, in the picture before.

    Attributes:
        back_xy: ``(h, w, 2)`` float32, of the picture as it was compared, in its own pixels.
        size_hw: the picture's height and width.
        new_share: share of the picture that matches nothing in the one before, 0 to 1.
        gain: how many times brighter the picture is.
        blank: whether the picture shows nothing, as between two fades; nothing moves then.
    """

    back_xy: FloatArray
    size_hw: tuple[int, int]
    new_share: float
    gain: float = 1.0
    blank: bool = False

    @property
    def scale_xy(self) -> FloatArray:
        """``(2,)``: pixels that were compared per pixel of the picture."""
        height, width = self.back_xy.shape[:2]
        return np.array([width / self.size_hw[1], height / self.size_hw[0]], np.float32)

    @property
    def typical_px(self) -> float:
        """How far nearly all of the picture moved, at most."""
        moved = np.abs(self.back_xy / self.scale_xy).max(axis=-1)
        return float(np.quantile(moved, TAILS[1]))

    def _at(self, grid_x: FloatArray, grid_y: FloatArray) -> FloatArray:
        """``(h, w, 2)`` float32 at places of the picture, in the picture's pixels."""
        scale = self.scale_xy
        sampled = cv2.remap(
            self.back_xy, (grid_x + 0.5) * scale[0] - 0.5, (grid_y + 0.5) * scale[1] - 0.5,
            cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        return np.asarray(sampled / scale, np.float32)

    def coarse(self) -> Flow:
        """The same at about its own resolution, which is enough to follow it back for long."""
        height, width = self.back_xy.shape[:2]
        size = max(1, width // GRID_PX), max(1, height // GRID_PX)
        small = cv2.resize(self.back_xy, size, interpolation=cv2.INTER_AREA)
        small *= np.array([size[0] / width, size[1] / height], np.float32)
        return replace(self, back_xy=np.asarray(small, np.float32))

    def after(self, earlier: Flow) -> Flow:
        """From this flow's picture back to where the earlier flow's came from.

        Args:
            earlier: the flow of the picture before, at the same resolution.
        """
        height, width = self.back_xy.shape[:2]
        grid_x, grid_y = np.meshgrid(
            np.arange(width, dtype=np.float32), np.arange(height, dtype=np.float32)
        )
        before = cv2.remap(
            earlier.back_xy, grid_x + self.back_xy[..., 0], grid_y + self.back_xy[..., 1],
            cv2.INTER_LINEAR, borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        return replace(
            self,
            back_xy=self.back_xy + before,
            new_share=self.new_share + earlier.new_share,
            gain=self.gain * earlier.gain,
        )

    def carry(self, mask: SoftMask, *, shown: FloatArray | None = None) -> SoftMask:
        """The mask of the picture before, in this picture; all 0 where it has left.

        Pixels that leave the picture stay in the mask, up to the mask's size outside the picture.

        Args:
            shown: ``(h, w)`` 0 to 1, how much of the mask is visible.
        """
        window = self._window(mask)
        x0, y0, x1, y1 = window
        if x0 >= x1 or y0 >= y1:
            return SoftMask(np.zeros((1, 1), np.float32), (0, 0))
        came_x, came_y = self._came_from(mask, window, shown)
        left, top = mask.corner_xy
        carried = cv2.remap(mask.values, came_x - left, came_y - top, cv2.INTER_LINEAR)
        box = tight_box_xyxy(np.asarray(carried > FAINT))
        if box is None:
            return SoftMask(np.zeros((1, 1), np.float32), (0, 0))
        part = carried[box[1] : box[3], box[0] : box[2]]
        return SoftMask(np.asarray(part, np.float32), (x0 + box[0], y0 + box[1]))

    def _came_from(
        self,
        mask: SoftMask,
        window_xyxy: tuple[int, int, int, int],
        shown: FloatArray | None,
    ) -> tuple[FloatArray, FloatArray]:
        """Where each pixel of a window came from, x and y ``(h, w)``, if it is of the object.

        Found on a grid that is as wide as the flow is smooth, and as the object allows.
        """
        x0, y0, x1, y1 = window_xyxy
        left, top = mask.corner_xy
        across = mask.area**0.5
        step = int(np.clip(across / GRID_ACROSS, 1, GRID_PX))
        grid_x, grid_y = np.meshgrid(
            np.arange(x0, x1 + step - 1, step, dtype=np.float32),
            np.arange(y0, y1 + step - 1, step, dtype=np.float32),
        )
        back = self._at(grid_x, grid_y)
        known = mask.values if shown is None else mask.values * shown
        rough = cv2.remap(
            known, grid_x + back[..., 0] - left, grid_y + back[..., 1] - top, cv2.INTER_LINEAR
        )
        height, width = self.size_hw
        rough[(grid_x < 0) | (grid_x >= width) | (grid_y < 0) | (grid_y >= height)] = 0
        came = object_motion(back, rough > EDGE) + np.stack([grid_x, grid_y], axis=-1)
        finer = np.array([[1 / step, 0, 0], [0, 1 / step, 0]], np.float32)
        every = cv2.warpAffine(
            came, finer, (x1 - x0, y1 - y0), flags=cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP,
            borderMode=cv2.BORDER_REPLICATE,
        )  # fmt: skip
        came_x, came_y = cv2.split(every)
        return np.asarray(came_x), np.asarray(came_y)

    def _window(self, mask: SoftMask) -> tuple[int, int, int, int]:
        """Where the mask's pixels may be now: its box, moved and widened as the flow around says.

        The flow is sampled where the mask was and, once, where that flow leads: an object that
        moves farther than its own size has left its first place.
        """
        height, width = self.size_hw
        x0, y0, x1, y1 = mask.box_xyxy
        margin_x, margin_y = x1 - x0, y1 - y0
        moved = (x0, y0, x1, y1)
        for _ in range(2):
            flow = self._flow_in(moved)
            if not flow.size:
                break
            # A flow has wild values where something was uncovered; the object is not among them.
            low, high = (ranked(flow.reshape(-1, 2), share) for share in TAILS)
            moved = (
                min(moved[0], int(x0 - high[0])), min(moved[1], int(y0 - high[1])),
                max(moved[2], int(x1 - low[0]) + 1), max(moved[3], int(y1 - low[1]) + 1),
            )  # fmt: skip
        return (
            max(-margin_x, moved[0] - MARGIN_PX), max(-margin_y, moved[1] - MARGIN_PX),
            min(width + margin_x, moved[2] + MARGIN_PX),
            min(height + margin_y, moved[3] + MARGIN_PX),
        )  # fmt: skip

    def _flow_in(self, box_xyxy: tuple[int, int, int, int]) -> FloatArray:
        """The flow in a box, in the picture's pixels, at the flow's own resolution."""
        scale = self.scale_xy
        x0, y0, x1, y1 = np.rint(np.array(box_xyxy) * np.tile(scale, 2)).astype(int).tolist()
        flow = self.back_xy[
            max(0, y0) : max(0, y1) + 1 : SAMPLE, max(0, x0) : max(0, x1) + 1 : SAMPLE
        ]
        return np.asarray(flow / scale, np.float32)


def object_motion(back_xy: FloatArray, rough: BoolArray) -> FloatArray:
    """The motion of an object, continued over a whole window.

    Args:
        back_xy: ``(h, w, 2)``, the flow on a grid, in pixels.
        rough: ``(h, w)``, where the object is about.

    Returns:
        ``(h, w, 2)`` float32, in pixels; the flow itself where too little of the object is there.
    """
    # Without the object's edge, which the picture's own border is not.
    core = cv2.erode(
        rough.astype(np.uint8), np.ones((3, 3), np.uint8), borderType=cv2.BORDER_REPLICATE
    )
    inside = core.astype(np.bool_) if core.sum() >= LEAST_INSIDE * rough.sum() else rough
    places = np.argwhere(inside)
    if len(places) < LEAST_POINTS:
        return back_xy
    some = places[:: max(1, len(places) // MOST_POINTS)]
    affine, spread_px = _fit_affine(some, back_xy[some[:, 0], some[:, 1]])
    rows, columns = np.arange(rough.shape[0])[:, None, None], np.arange(rough.shape[1])[:, None]
    whole = np.asarray(rows * affine[0] + columns * affine[1] + affine[2], np.float32)
    residual = back_xy - whole
    agrees = inside & (np.abs(residual).max(axis=-1) < OUTLIER * spread_px)
    return np.asarray(whole + _spread(residual, agrees), np.float32)


def ranked(values: npt.NDArray[np.floating[Any]], share: float) -> npt.NDArray[np.floating[Any]]:
    """The value of each column that a share of the others, 0 to 1, lies below: a quantile that is
    one of the values, in a fifth of the time of ``np.quantile``."""
    place = round(share * (len(values) - 1))
    return np.asarray(np.partition(values, place, axis=0)[place])


def _fit_affine(
    places: npt.NDArray[np.intp], flow_xy: FloatArray
) -> tuple[npt.NDArray[np.float64], float]:
    """``(3, 2)`` affine map of (row, column, 1) that most of the flow agrees with, and the scale
    (1.5 medians) of what it leaves."""
    known = np.column_stack([places, np.ones(len(places))])
    # In units of the object's size, as otherwise rows and columns would outweigh the ones.
    units = np.diag([1 / max(1.0, float(np.ptp(places)))] * 2 + [1.0])
    known = known @ units
    ridge = 1e-6 * len(places) * np.eye(3)
    left = flow_xy - ranked(flow_xy, 0.5)
    for _ in range(ROUNDS):
        size = np.hypot(left[:, 0], left[:, 1])
        scale = 1.5 * float(ranked(size, 0.5)) + LEAST_SCALE_PX
        weighted = known / (1 + (size / scale) ** 2)[:, None]
        solved = np.linalg.solve(weighted.T @ known + ridge, weighted.T @ flow_xy)
        left = flow_xy - known @ solved
    size = np.hypot(left[:, 0], left[:, 1])
    return units @ solved, 1.5 * float(ranked(size, 0.5)) + LEAST_SCALE_PX


def _spread(residual: FloatArray, known: BoolArray) -> FloatArray:
    """The residual where it is known, smoothed; elsewhere extrapolated and fading."""
    side = 2 * NEARBY + 1
    weight = known.astype(np.float32)

    def smooth(values: FloatArray) -> FloatArray:
        once = cv2.blur(values, (side, side))
        return np.asarray(cv2.blur(once, (side, side)), np.float32)

    return smooth(residual * weight[..., None]) / (smooth(weight) + FAR)[..., None]


class Motion:
    """Compares each frame with the last one that shows something."""

    def __init__(self) -> None:
        self._flow = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
        self._last: tuple[tuple[int, int], ByteArray] | None = None
        self._after_blank = False  # then another scene is likely, and it is still dim

    def next(self, frame: Frame) -> Flow | None:
        """How the frame moved since the last one; None for the first, another size and a cut."""
        grey, last = _reduced(frame), self._last
        if last is not None and last[0] == frame.size_hw and _is_blank(grey):
            self._after_blank = True
            still = np.zeros((*grey.shape, 2), np.float32)
            return Flow(still, frame.size_hw, new_share=0.0, blank=True)
        self._last = frame.size_hw, grey
        if last is None or last[0] != frame.size_hw:
            return None
        self._flow.setFinestScale(QUARTER if grey.size > SMALL_PIXELS else HALF)
        back = np.asarray(self._flow.calc(grey, last[1], None), np.float32)
        new_share, gain = _new_share(grey, last[1], back)
        most, self._after_blank = CUT_SHARE / (1 + self._after_blank), False
        return None if new_share > most else Flow(back, frame.size_hw, new_share, gain)


def direct_flow(before: Frame, now: Frame, about: Flow) -> Flow:
    """How a picture moved since one that is several frames older.

    What is added up from frame to frame adds up its errors, too. So the two pictures are compared
    themselves, from where that leads, and more finely than there is time for in each frame.

    Args:
        about: the same, added up from frame to frame.
    """
    grey, older = _reduced(now), _reduced(before)
    height, width = grey.shape
    factor = width / about.back_xy.shape[1], height / about.back_xy.shape[0]
    start = cv2.resize(about.back_xy, (width, height)) * np.array(factor, np.float32)
    finer = cv2.DISOpticalFlow.create(cv2.DISOPTICAL_FLOW_PRESET_ULTRAFAST)
    finer.setFinestScale(HALF)
    back = np.asarray(finer.calc(grey, older, np.ascontiguousarray(start)), np.float32)
    return Flow(back, now.size_hw, about.new_share, about.gain)


def _reduced(frame: Frame) -> ByteArray:
    grey = cv2.cvtColor(frame.image_rgb, cv2.COLOR_RGB2GRAY)
    height, width = frame.size_hw
    scale = min(1.0, (FLOW_PIXELS / (height * width)) ** 0.5)
    # The flow compares patches of 8 pixels on two scales.
    # Of a narrow one the longer side is reduced further: DIS fails beyond about 1 to 300.
    size = (
        min(max(LEAST_SIDE, round(width * scale)), MOST_SIDE),
        min(max(LEAST_SIDE, round(height * scale)), MOST_SIDE),
    )
    if size != (width, height):
        grey = cv2.resize(grey, size, interpolation=cv2.INTER_AREA)
    return np.asarray(grey, np.uint8)


def _new_share(grey: ByteArray, before: ByteArray, back_xy: FloatArray) -> tuple[float, float]:
    """Share of a picture that differs from where the flow says it came from, and how many times
    brighter all of it is; that alone is no difference."""
    some = back_xy[::SAMPLE, ::SAMPLE]
    rows, columns = np.mgrid[: some.shape[0], : some.shape[1]].astype(np.float32) * SAMPLE
    came = cv2.remap(
        before, columns + some[..., 0], rows + some[..., 1], cv2.INTER_LINEAR,
        borderMode=cv2.BORDER_REPLICATE,
    ).astype(np.float32)  # fmt: skip
    now = grey[::SAMPLE, ::SAMPLE].astype(np.float32)
    gain = float(np.clip(np.median((now + 1) / (came + 1)), 1 / MOST_GAIN, MOST_GAIN))
    levels = max(_levels(now), _levels(came) * gain)
    threshold = max(LEAST_LEVELS, CHANGED_LEVELS * min(1.0, levels / FULL_LEVELS))
    changed = np.abs(now - np.minimum(came * gain, 255)) > threshold
    return float(changed.mean()), gain


def _levels(grey: FloatArray) -> float:
    """The range of nearly all grey levels of a picture."""
    return float(np.ptp(np.quantile(grey, TAILS)))


def _is_blank(grey: ByteArray) -> bool:
    """Whether a picture shows nothing but noise."""
    return int(np.ptp(cv2.blur(grey, (5, 5)))) < BLANK_LEVELS


class Flows:
    """The flows since some frame. Older ones are added up: a large model's keyframe detection lasts
    for hundreds of frames, and each flow takes megabytes."""

    def __init__(self) -> None:
        self._old: Flow | None = None
        self._recent: list[Flow] = []

    def add(self, flow: Flow) -> None:
        self._recent.append(flow)
        if len(self._recent) > KEPT_FLOWS:
            oldest = self._recent.pop(0)
            self._old = oldest if self._old is None else oldest.after(self._old)

    def all(self) -> list[Flow]:
        """From the first frame to the last, in few steps."""
        return [*([] if self._old is None else [self._old]), *self._recent]
