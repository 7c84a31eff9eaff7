"""One tracked object: carried by a propagator or by optical flow, occluded, re-identified."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace

import numpy as np
import numpy.typing as npt

from sam_detect.types import Classification, Frame, ImageRGB
from sam_detect.types.masks import FloatArray
from sam_detect.video.appearance import WHOLE_SHARE, Appearance, SoftMask, spread_visible
from sam_detect.video.association import VOTE_WINDOW, iou, weighted_vote
from sam_detect.video.motion import Flow
from sam_detect.video.propagators import ObjectMemory

LEAST_SHARE = 0.35
"""An object with a smaller visible share is hidden."""
BACK_SHARE = 0.5
"""Visible share from which on a hidden object is visible again."""
CLEAR_SHARE = 0.95
"""Visible share from which on an object is not occluded."""
SMALLER = 0.9
"""A mask with a smaller share of a partly occluded object's area is only a part of it."""
ALIKE_LEVELS = 25.0
"""Largest mean colour difference of two similar objects, in levels of 255."""
FADING = 0.995
"""Per frame, of the quality of a mask that is only carried."""
SAME_IOU = 0.97
"""Of the masks of the flow and of a propagator, at which the flow may carry for longer..."""
MOST_PAUSE = 4
"""... frames, at most so many less one."""
INERTIA = 0.9
"""Share of the velocity so far in the velocity."""
REACH = 3.0
"""Largest distance, in object sizes, at which a hidden object is re-identified."""
ABOUT = (0.0, -0.25, 0.25)
"""Search offsets around a hidden object's predicted place, as shares of its size."""


@dataclass
class Track:
    """One object through the frames.

    Attributes:
        id: from 1, never used twice.
        body: all of it in the last frame, including what is occluded or outside the picture.
        anchor: its body in the last key frame.
        appearance: its colours then; None where it was too small or partly outside the picture.
        quality: of its mask, 0 to 1.
        votes: its classifications at key frames, oldest first.
        classification: the joint classification of these, or what it was taught.
        seen_s: time of the last frame that showed it.
        hidden: whether too little of it is visible.
        shown: ``(h, w)`` 0 to 1, the visible part of the body; None for all.
        share: the visible share, 0 to 1.
        gain: how many times brighter the picture has become since the last key frame.
        velocity_xy: pixels a second.
        steady_xy: the same, one frame ago.
        expected: its body in the last frame, if it went on as before.
        rest_xy: pixels by which that is not a whole number of pixels.
        crowded: whether a similar object overlaps it.
        behind: whether that one is in front of it.
        left_xyxy: the box of its body when it was last visible.
        missed: key frames in a row that did not find it.
        new: whether no frame has shown it yet.
        memory: of a propagator, which carries its visible part; None where the flow carries it.
        waited: frames since it did.
        pause: frames from one time that it is to the next, more where the flow gives the same.
        taught: what it was taught while the video ran, which no vote changes.
    """

    id: int
    body: SoftMask
    anchor: SoftMask
    appearance: Appearance | None
    quality: float
    votes: list[Classification]
    classification: Classification
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
    memory: ObjectMemory | None = None
    waited: int = 0
    pause: int = 1
    taught: Classification | None = None

    @property
    def mask(self) -> SoftMask | None:
        """Its visible part; None while it is hidden."""
        if self.hidden:
            return None
        if self.shown is None:
            return self.body
        return replace(self.body, values=self.body.values * self.shown)

    @property
    def whole(self) -> bool:
        """Whether nearly all of it is visible."""
        return self.share >= WHOLE_SHARE

    @property
    def deviation_px(self) -> float:
        """Distance from its place at constant velocity."""
        return float(np.hypot(*(_middle(self.body) - _middle(self.expected or self.body))))

    def due(self, flow: Flow, frame: Frame) -> bool:
        """Whether its propagator is to carry it to the next frame: after its pause, or where the
        flow would carry it to what does not look like it."""
        if self.memory is None:
            return False
        if self.hidden or self.waited + 1 >= self.pause or self.appearance is None:
            return True
        there = flow.carry(self.body)
        visible = self.appearance.visible(frame.image_rgb, there, self.gain * flow.gain)
        return self.appearance.share(visible) < BACK_SHARE

    def advance(self, flow: Flow, frame: Frame, elapsed_s: float, *, quick: bool = False) -> None:
        """Brings it to the next frame, as that moved, or as it moved itself while it is hidden.

        Args:
            flow: from the last frame.
            frame: the next one.
            elapsed_s: between the two.
            quick: whether its propagator need not carry it, or has no time.
        """
        self.quality *= FADING
        self.gain *= flow.gain
        self.steady_xy = self.velocity_xy
        way = self.velocity_xy * elapsed_s + self.rest_xy
        by = np.rint(way).astype(int)
        self.expected, self.rest_xy = self.body.moved((int(by[0]), int(by[1]))), way - by
        self.waited += 1
        if self.memory is not None and not quick:
            self._match(self.memory, flow, frame, elapsed_s)
        elif self.hidden:
            self._search(frame.image_rgb)
        else:
            carried = flow.carry(self.body, shown=self.shown)
            if carried.area < LEAST_SHARE * self.anchor.area:
                self.hidden = True
                return
            self._move_to(carried, elapsed_s)
            self.watch(frame.image_rgb)

    def jump(self, frame: Frame) -> bool:
        """Finds it after a cut, about where it was, if its propagator can. Whether it did."""
        found = None
        if self.memory is not None:
            least_px = LEAST_SHARE * self.anchor.area
            found = self.memory.carry(frame, self.body, least_px=least_px, cut=True)
        if found is None:
            return False
        self.body, self.expected, self.hidden = found, None, False
        self.waited, self.pause = 0, 1
        self.velocity_xy = self.steady_xy = np.zeros(2)
        return True

    def _move_to(self, carried: SoftMask, elapsed_s: float) -> None:
        step = _middle(carried) - _middle(self.body)
        velocity = step / max(elapsed_s, 1e-3)
        self.velocity_xy = INERTIA * self.velocity_xy + (1 - INERTIA) * velocity
        self.body = carried

    def _match(self, memory: ObjectMemory, flow: Flow, frame: Frame, elapsed_s: float) -> None:
        """Carries it by its propagator; a hidden one is sought where it would be."""
        self.waited = 0
        expected = self.expected or self.body
        before, hidden = self.pause, self.hidden
        about = expected if self.hidden else flow.carry(self.body)
        least = BACK_SHARE if self.hidden else LEAST_SHARE
        carried = memory.carry(frame, about, least_px=least * self.anchor.area)
        self.hidden, self.pause = carried is None, 1
        if carried is None:
            self.body = expected
            return
        if not hidden and iou(about, carried) >= SAME_IOU:
            self.pause = min(MOST_PAUSE, 2 * before)
        self._move_to(carried, elapsed_s)

    def watch(self, image_rgb: ImageRGB) -> None:
        """Measures which part of it is visible at its present place."""
        if self.memory is not None:
            return
        if self.appearance is None or not self.body.area:
            self.hidden, self.shown, self.share = not self.body.area, None, 1.0
            return
        visible = self.appearance.visible(image_rgb, self.body, self.gain)
        self.share = self.appearance.share(visible)
        self.hidden = self.share < (BACK_SHARE if self.hidden else LEAST_SHARE)
        self.shown = None if self.whole else spread_visible(visible, self.body)

    def keep_going(self, *, behind: bool) -> None:
        """Continues with its last velocity, and ignores the flow.

        Args:
            behind: whether a similar object is in front of it.
        """
        self.behind = behind
        self.hidden |= behind
        if self.expected is not None:
            self.body, self.velocity_xy, self.shown = self.expected, self.steady_xy, None

    def resembles(self, other: Track, image_rgb: ImageRGB) -> bool:
        """Whether the two are so similar that the flow may confuse them."""
        if self.appearance is None or not other.body.area:
            return False
        return self.appearance.difference(image_rgb, other.body, self.gain) < ALIKE_LEVELS

    def _search(self, image_rgb: ImageRGB) -> None:
        """Searches a hidden object around its predicted place."""
        self.body = self.expected or self.body
        if self.appearance is None or self.memory is not None or not self.body.area:
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
        classification: Classification,
        *,
        then: SoftMask,
        quality: float,
        image_rgb: ImageRGB,
        since: Sequence[Flow],
        threshold: float,
        relearnt: bool,
    ) -> None:
        """Updates it with its detection at a key frame.

        Args:
            mask: in the key frame.
            classification: the vote of this key frame.
            then: its body in the key frame.
            quality: of the mask.
            image_rgb: the key frame.
            since: the flows of the frames after it, up to the present one.
            threshold: least confidence of a label.
            relearnt: whether earlier votes no longer count.
        """
        self.missed = 0
        before = [] if relearnt else self.votes
        if (
            before
            and not self._all_of_it(mask)
            and classification.label != self.classification.label
        ):
            return  # a part of it, or several objects, which may have another label
        self.votes = [*before, classification][-VOTE_WINDOW:]
        self.vote(threshold)
        known = self.memory is not None and not relearnt
        if known:
            mask = then  # its propagator knows it better than one detection
        if known or self._all_of_it(mask):
            self.anchor, self.quality = mask, quality
            self.appearance = Appearance.of(image_rgb, mask) or self.appearance
            body, self.gain = carry_mask(mask, since)
            self.body = self.body if known else body

    def vote(self, threshold: float) -> None:
        """Classifies it by its votes, if it was not taught what it is."""
        if self.votes:
            voted = weighted_vote(self.votes, threshold)
            taught = self.taught and replace(self.taught, neighbours=voted.neighbours)
            self.classification = taught or voted

    def _all_of_it(self, mask: SoftMask) -> bool:
        """Whether a detected mask is the whole object, and not only its visible part."""
        if self.crowded:
            return False
        large = mask.area >= SMALLER * min(self.body.area, self.anchor.area)
        return large or self.share >= CLEAR_SHARE


def carry_mask(mask: SoftMask, since: Sequence[Flow]) -> tuple[SoftMask, float]:
    """A mask brought through several frames, and how many times brighter these became."""
    gain = 1.0
    for flow in since:
        mask, gain = flow.carry(mask), gain * flow.gain
    return mask, gain


def nearest(track: Track, hidden: Sequence[Track]) -> Track | None:
    """The nearest of the hidden tracks, by its predicted or its last visible place."""
    box, reach_px = track.body.box_xyxy, REACH * max(track.body.area, 1) ** 0.5

    def distance(other: Track) -> float:
        return min(_distance(box, other.body.box_xyxy), _distance(box, other.left_xyxy))

    nearest = min(hidden, key=distance, default=None)
    return nearest if nearest is not None and distance(nearest) < reach_px else None


def _distance(one_xyxy: Sequence[int], other_xyxy: Sequence[int]) -> float:
    """Distance between the centres of two boxes, in pixels."""
    apart = np.array(one_xyxy) - np.array(other_xyxy)
    return float(np.hypot(*(apart[:2] + apart[2:]) / 2))


def _middle(mask: SoftMask) -> npt.NDArray[np.float64]:
    x0, y0, x1, y1 = mask.box_xyxy
    return np.array([x0 + x1, y0 + y1]) / 2
