"""What earlier looks said of regions that are on no track.

A region that was unknown at the last look and is named at this one has been looked at twice, and
both looks count. So that this costs nothing between looks, regions are not carried from frame to
frame but once, by the flow from one look's frame to the next one's.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import numpy as np

from sam_detect.types import Detections, Frame, ImageRGB, Masks, Verdict
from sam_detect.video.appearance import WHOLE_SHARE, Appearance
from sam_detect.video.belief import LOOKS
from sam_detect.video.matching import assign
from sam_detect.video.motion import Flow, SoftMask

KEPT_UNSEEN = 2
"""Looks that may not propose a region before it is forgotten."""

Past = tuple[Verdict, ...]


@dataclass(frozen=True, eq=False)
class _Region:
    """A region, as it was when it was last proposed or carried."""

    mask: SoftMask
    past: Past
    appearance: Appearance | None
    unseen: int = 0

    def still_there(self, image_rgb: ImageRGB, gain: float) -> bool:
        """Whether it looks as it did: what has come into its place is something else."""
        if self.appearance is None:
            return True
        visible = self.appearance.visible(image_rgb, self.mask, gain)
        return self.appearance.share(visible) >= WHOLE_SHARE


class Memory:
    """The regions of the last looks at one scene."""

    def __init__(self) -> None:
        self._regions: list[_Region] = []

    def recall(self, frame: Frame, found: Detections, moved: Flow | None) -> tuple[Past, ...]:
        """What was said of each detection at earlier looks, oldest first; remembers these.

        Args:
            frame: in which it was found.
            moved: from the frame of the last look to this one; None where the scene is another.
        """
        before = [] if moved is None else self._carried(frame, moved)
        masks = _masks(before, found.size_hw)
        matched = assign(found.masks, masks)
        pasts = [before[matched[i]].past if i in matched else () for i in range(len(found))]
        again = set(matched.values())
        unseen = [
            replace(region, unseen=region.unseen + 1)
            for place, region in enumerate(before)
            if place not in again and region.unseen < KEPT_UNSEEN
        ]
        self._regions = unseen + [
            _region(frame, SoftMask.of(found.masks, index), (*past, found.verdicts[index])[-LOOKS:])
            for index, past in enumerate(pasts)
        ]
        return tuple(pasts)

    def _carried(self, frame: Frame, moved: Flow) -> list[_Region]:
        carried = [replace(each, mask=moved.carry(each.mask)) for each in self._regions]
        return [
            each
            for each in carried
            if each.mask.cut(moved.size_hw) is not None
            and each.still_there(frame.image_rgb, moved.gain)
        ]


def _region(frame: Frame, mask: SoftMask, past: Past) -> _Region:
    return _Region(mask, past, Appearance.of(frame.image_rgb, mask))


def _masks(regions: list[_Region], size_hw: tuple[int, int]) -> Masks:
    cuts = [each.mask.cut(size_hw) for each in regions]
    return Masks.from_crops(
        size_hw=size_hw,
        boxes_xyxy=np.array([cut[0] for cut in cuts if cut], np.int64).reshape(-1, 4),
        crops=[cut[1] for cut in cuts if cut],
    )
