"""Re-identification of hidden objects by their predicted boxes.

ByteTrack (Zhang et al. 2022, from the package ``trackers``) follows the boxes of all frames with a
Kalman filter, and predicts the boxes of hidden objects.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import numpy as np
import supervision as sv
from trackers import ByteTrackTracker

from sam_detect.masks import IntArray

HIDDEN_S = 2.0
"""Seconds after which a hidden object's track ends."""
BYTETRACK_FPS = 30.0
"""The unit in which ByteTrack counts time; frames come with their own time stamps."""


@dataclass(frozen=True)
class _Owner:
    """The track of a ByteTrack box, and when it was last visible."""

    track: int
    seen_s: float


class Boxes:
    """The boxes of all tracks, of all frames so far."""

    def __init__(self) -> None:
        # Every box is of a confirmed object, so none is delayed or dropped.
        self._tracker = ByteTrackTracker(
            lost_track_buffer=round(HIDDEN_S * BYTETRACK_FPS),
            frame_rate=BYTETRACK_FPS,
            track_activation_threshold=0.0,
            high_conf_det_threshold=0.0,
            minimum_consecutive_frames=1,
        )
        self._owners: dict[int, _Owner] = {}

    def follow(
        self, ids: Sequence[int], boxes_xyxy: IntArray, new: AbstractSet[int], time_s: float
    ) -> dict[int, int]:
        """Adds the boxes of a frame; maps each new track to the one whose box it continues.

        Args:
            ids: of the N visible tracks.
            boxes_xyxy: ``(N, 4)`` theirs.
            new: ids of tracks that no frame has shown before.
            time_s: of the frame.
        """
        given = sv.Detections(
            xyxy=boxes_xyxy.astype(np.float64),
            confidence=np.ones(len(ids)),
            data={"track": np.array(ids, np.int64)},
        )
        out = self._tracker.update(given, timestamp=time_s)
        continued = {}
        tracks = np.asarray(out.data.get("track", ()), np.int64)
        for track, box in zip(tracks.tolist(), _ids(out), strict=True):
            if box < 0:
                continue
            before = self._owners.get(box)
            owner = track if before is None else before.track
            if track in new and owner != track:
                continued[track] = owner
            else:
                owner = track
            self._owners[box] = _Owner(owner, time_s)
        # ByteTrack has given up the others by now.
        lately = time_s - 2 * HIDDEN_S
        self._owners = {b: owner for b, owner in self._owners.items() if owner.seen_s >= lately}
        return continued

    def rename(self, old: int, new: int) -> None:
        """A track has another id from now on."""
        self._owners = {
            box: replace(owner, track=new) if owner.track == old else owner
            for box, owner in self._owners.items()
        }


def _ids(tracked: sv.Detections) -> list[int]:
    return [] if tracked.tracker_id is None else [int(each) for each in tracked.tracker_id]
