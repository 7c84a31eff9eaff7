"""Votes for regions that have no track yet.

A region that is unknown at one key frame and labelled at the next has two votes, and both count.
To keep this cheap, regions are not carried from frame to frame, but once from each key frame to
the next one.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sam_detect.types import Classification, Detections, Frame, ImageRGB, Masks
from sam_detect.video.appearance import WHOLE_SHARE, Appearance
from sam_detect.video.matching import assign
from sam_detect.video.motion import Flow, SoftMask
from sam_detect.video.votes import VOTE_WINDOW

KEPT_UNSEEN = 2
"""Key frames without a matching proposal after which a region is forgotten."""

Votes = tuple[Classification, ...]


@dataclass(frozen=True, eq=False)
class _UntrackedRegion:
    """A region, as it was when it was last proposed or carried."""

    mask: SoftMask
    votes: Votes
    appearance: Appearance | None
    unseen: int = 0

    def still_there(self, image_rgb: ImageRGB, gain: float) -> bool:
        """Whether its colours are the same; otherwise another object has taken its place."""
        if self.appearance is None:
            return True
        visible = self.appearance.visible(image_rgb, self.mask, gain)
        return self.appearance.share(visible) >= WHOLE_SHARE


class UntrackedVotes:
    """The regions of the last key frames of one scene, with their votes."""

    def __init__(self) -> None:
        self._regions: list[_UntrackedRegion] = []

    def update(self, frame: Frame, found: Detections, moved: Flow | None) -> tuple[Votes, ...]:
        """Adds the detections of a key frame, and returns the earlier votes of each, oldest first.

        Args:
            frame: the key frame.
            found: its detections.
            moved: the flow from the last key frame to this one; None after a cut.
        """
        before = [] if moved is None else self._carried(frame, moved)
        masks = _masks(before, found.size_hw)
        matched = assign(found.masks, masks)
        earlier = [before[matched[i]].votes if i in matched else () for i in range(len(found))]
        again = set(matched.values())
        unseen = [
            replace(region, unseen=region.unseen + 1)
            for place, region in enumerate(before)
            if place not in again and region.unseen < KEPT_UNSEEN
        ]
        self._regions = unseen + [
            _region(
                frame,
                SoftMask.of(found.masks, index),
                (*votes, found.classifications[index])[-VOTE_WINDOW:],
            )
            for index, votes in enumerate(earlier)
        ]
        return tuple(earlier)

    def _carried(self, frame: Frame, moved: Flow) -> list[_UntrackedRegion]:
        carried = [replace(each, mask=moved.carry(each.mask)) for each in self._regions]
        return [
            each
            for each in carried
            if each.mask.cut(moved.size_hw) is not None
            and each.still_there(frame.image_rgb, moved.gain)
        ]


def _region(frame: Frame, mask: SoftMask, votes: Votes) -> _UntrackedRegion:
    return _UntrackedRegion(mask, votes, Appearance.of(frame.image_rgb, mask))


def _masks(regions: list[_UntrackedRegion], size_hw: tuple[int, int]) -> Masks:
    cuts = [each.mask.cut(size_hw) for each in regions]
    return Masks.from_crops(
        size_hw=size_hw,
        boxes_xyxy=np.array([cut[0] for cut in cuts if cut], np.int64).reshape(-1, 4),
        crops=[cut[1] for cut in cuts if cut],
    )
