"""One object through the frames: carried, hidden, found again."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from sam_detect.masks import FloatArray
from sam_detect.types import ImageRGB, Verdict
from sam_detect.video.appearance import WHOLE_SHARE, Appearance, over
from sam_detect.video.belief import LOOKS, belief
from sam_detect.video.motion import Flow, SoftMask

LEAST_SHARE = 0.35
"""An object of which less than this is to be seen, or left, is hidden."""
BACK_SHARE = 0.5
"""A hidden one of which so much is to be seen again is back."""
CLEAR_SHARE = 0.95
"""One of which so much is to be seen has nothing in front of it."""
SMALLER = 0.9
"""A mask of a smaller share of the object, of which something is hidden, is not all of it."""
ALIKE_LEVELS = 25.0
"""Of 255: mean difference of the colours of two objects that look alike."""
FADING = 0.995
"""Per frame, of the quality of a mask that is only carried."""
INERTIA = 0.9
"""Share of the velocity so far in the velocity."""
ABOUT = (0.0, -0.25, 0.25)
"""Of its size: how far from where a hidden object should be it is looked for."""


@dataclass
class Track:
    """One object through the frames.

    Attributes:
        id: from 1, never used twice.
        body: all of it in the last frame, also what is hidden or beside the picture.
        anchor: its body in the frame of the last look.
        appearance: how it looked then; None where that says nothing.
        quality: of its mask, 0 to 1.
        looks: what the detector said of it, oldest first.
        verdict: what that says together.
        seen_s: time of the last frame that showed it.
        hidden: whether too little of it is to be seen.
        shown: ``(h, w)`` 0 to 1, what of the body is to be seen; None for all.
        share: of it that is to be seen, 0 to 1.
        gain: how many times brighter the picture has become since the last look.
        velocity_xy: pixels a second.
        steady_xy: the same, one frame ago.
        expected: its body in the last frame, if it went on as before.
        rest_xy: pixels by which that is not a whole number of pixels.
        crowded: whether one that looks like it is in the same place.
        behind: whether that one is in front of it.
        left_xyxy: the box of its body when it was last to be seen.
        missed: looks in a row that did not find it.
        new: whether no frame has shown it yet.
    """

    id: int
    body: SoftMask
    anchor: SoftMask
    appearance: Appearance | None
    quality: float
    looks: list[Verdict]
    verdict: Verdict
    seen_s: float
    hidden: bool = False
    shown: FloatArray | None = None
    share: float = 1.0
    gain: float = 1.0
    velocity_xy: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    steady_xy: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    expected: SoftMask | None = None
    rest_xy: npt.NDArray[np.float64] = field(default_factory=lambda: np.zeros(2))
    crowded: bool = False
    behind: bool = False
    left_xyxy: tuple[int, int, int, int] = (0, 0, 0, 0)
    missed: int = 0
    new: bool = True

    @property
    def mask(self) -> SoftMask | None:
        """What is to be seen of it; None while it is hidden."""
        if self.hidden:
            return None
        if self.shown is None:
            return self.body
        return replace(self.body, values=self.body.values * self.shown)

    @property
    def whole(self) -> bool:
        """Whether about all of it is to be seen."""
        return self.share >= WHOLE_SHARE

    def advance(self, flow: Flow, image_rgb: ImageRGB, elapsed_s: float) -> None:
        """Brings it to the next frame, as that moved, or as it moved itself while it is hidden."""
        self.quality *= FADING
        self.gain *= flow.gain
        self.steady_xy = self.velocity_xy
        way = self.velocity_xy * elapsed_s + self.rest_xy
        by = np.rint(way).astype(int)
        self.expected, self.rest_xy = self.body.moved((int(by[0]), int(by[1]))), way - by
        if self.hidden:
            self._look_for(image_rgb)
            return
        carried = flow.carry(self.body, shown=self.shown)
        if carried.area < LEAST_SHARE * self.anchor.area:
            self.hidden = True
            return
        step = _middle(carried) - _middle(self.body)
        velocity = step / max(elapsed_s, 1e-3)
        self.velocity_xy = INERTIA * self.velocity_xy + (1 - INERTIA) * velocity
        self.body = carried
        self.watch(image_rgb)

    def watch(self, image_rgb: ImageRGB) -> None:
        """Sees what of it is to be seen where it is now."""
        if self.appearance is None or not self.body.area:
            self.hidden, self.shown, self.share = not self.body.area, None, 1.0
            return
        visible = self.appearance.visible(image_rgb, self.body, self.gain)
        self.share = self.appearance.share(visible)
        self.hidden = self.share < (BACK_SHARE if self.hidden else LEAST_SHARE)
        self.shown = None if self.whole else over(visible, self.body)

    def keep_going(self, *, behind: bool) -> None:
        """Goes on as before, whatever the flow says.

        Args:
            behind: whether what is to be seen there is another one of its kind.
        """
        self.behind = behind
        self.hidden |= behind
        if self.expected is not None:
            self.body, self.velocity_xy, self.shown = self.expected, self.steady_xy, None

    def resembles(self, other: Track, image_rgb: ImageRGB) -> bool:
        """Whether it looks about as the other one does, so that the flow may take one for both."""
        if self.appearance is None or not other.body.area:
            return False
        return self.appearance.difference(image_rgb, other.body, self.gain) < ALIKE_LEVELS

    def _look_for(self, image_rgb: ImageRGB) -> None:
        """Looks for a hidden object where it should be by now, and about there."""
        self.body = self.expected or self.body
        if self.appearance is None or not self.body.area:
            return
        size = self.body.area**0.5
        places = [
            self.body.moved((round(dx * size), round(dy * size))) for dx in ABOUT for dy in ABOUT
        ]
        shares = [
            self.appearance.share(self.appearance.visible(image_rgb, place, self.gain))
            for place in places
        ]
        best = int(np.argmax(shares))
        if shares[best] >= BACK_SHARE:
            self.body = places[best]
            self.watch(image_rgb)

    def renew(
        self,
        mask: SoftMask,
        verdict: Verdict,
        *,
        quality: float,
        image_rgb: ImageRGB,
        since: Sequence[Flow],
        threshold: float,
        relearnt: bool,
    ) -> None:
        """Takes in that a look found it.

        Args:
            mask: in the frame of the look.
            verdict: what the look says of it.
            quality: of the mask.
            image_rgb: the frame of the look.
            since: the flows of the frames after it, up to the present one.
            threshold: least belief for a name.
            relearnt: whether what earlier looks said no longer counts.
        """
        self.missed = 0
        before = [] if relearnt else self.looks
        if before and not self._all_of_it(mask) and verdict.label != self.verdict.label:
            return  # a part of it, or several, which look like something else
        self.looks = [*before, verdict][-LOOKS:]
        self.verdict = belief(self.looks, threshold)
        if self._all_of_it(mask):
            self.anchor, self.quality = mask, quality
            self.appearance = Appearance.of(image_rgb, mask) or self.appearance
            self.body, self.gain = carried(mask, since)

    def _all_of_it(self, mask: SoftMask) -> bool:
        """Whether a mask that was found is all of the object, and not what is to be seen of it."""
        if self.crowded:
            return False
        large = mask.area >= SMALLER * min(self.body.area, self.anchor.area)
        return large or self.share >= CLEAR_SHARE


def carried(mask: SoftMask, since: Sequence[Flow]) -> tuple[SoftMask, float]:
    """A mask brought through several frames, and how many times brighter these became."""
    gain = 1.0
    for flow in since:
        mask, gain = flow.carry(mask), gain * flow.gain
    return mask, gain


def _middle(mask: SoftMask) -> npt.NDArray[np.float64]:
    x0, y0, x1, y1 = mask.box_xyxy
    return np.array([x0 + x1, y0 + y1]) / 2
