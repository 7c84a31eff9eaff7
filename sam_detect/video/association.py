"""Data association: which masks, boxes and votes belong to one object.

* :func:`assign` matches the masks of one frame by their overlap.
* :class:`BoxTracker` re-identifies hidden objects by their predicted boxes.
* :func:`weighted_vote` labels an object from its last key frames, and :class:`UntrackedVotes` keeps
  the votes of regions that have no track yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

import numpy as np
import supervision as sv
from scipy.optimize import linear_sum_assignment
from scipy.special import expit, logit
from trackers import ByteTrackTracker

from sam_detect.types import Classification, Detections, Frame, Masks
from sam_detect.types.masks import BoolArray, IntArray, intersection
from sam_detect.types.overlaps import shared_areas
from sam_detect.video.appearance import EDGE, WHOLE_SHARE, Appearance, SoftMask, stack_masks
from sam_detect.video.motion import Flow

SAME_IOU = 0.3
"""Least IoU of two masks of one object."""
INSIDE_SHARE = 0.6
"""Least share of a mask inside the other one for it to count as a part of that one."""
HIDDEN_S = 2.0
"""Seconds after which a hidden object's track ends."""
BYTETRACK_FPS = 30.0
"""The unit in which ByteTrack counts time; frames come with their own time stamps."""
MAX_LOG_ODDS = 4.0
"""Limit of a single vote's log-odds, so that no vote is too strong to be outvoted."""
VOTE_WINDOW = 20
"""The number of latest votes that count."""
SURE = 0.8
"""A new object of less confidence is shown once another key frame confirms it."""
KEPT_UNSEEN = 2
"""Key frames without a matching proposal after which a region is forgotten."""

Votes = tuple[Classification, ...]


def assign(some: Masks, others: Masks, *, alike: BoolArray | None = None) -> dict[int, int]:
    """Index of each matched mask to the index of its match, with the largest total overlap
    (Hungarian method).

    Args:
        alike: ``(len(some), len(others))``, which pairs have the same label. In these one mask
            may also be a part of the other, since occlusion may have changed.
    """
    if not len(some) or not len(others):
        return {}
    shared = shared_areas(some, others)
    areas, other_areas = some.areas[:, None], others.areas[None]
    iou = shared / (areas + other_areas - shared)
    likely = np.where(iou > SAME_IOU, 1 + iou, 0.0)
    if alike is not None:
        inside = shared / np.minimum(areas, other_areas)
        likely = np.maximum(likely, np.where(alike & (inside > INSIDE_SHARE), iou, 0))
    rows, columns = linear_sum_assignment(likely, maximize=True)
    pairs = zip(rows.tolist(), columns.tolist(), strict=True)
    return {row: column for row, column in pairs if likely[row, column] > 0}


def shared_of_smaller(one: SoftMask, other: SoftMask) -> float:
    """Intersection of two masks over the area of the smaller one."""
    smaller = min(one.area, other.area)
    return _shared_area(one, other) / smaller if smaller else 0.0


def iou(one: SoftMask, other: SoftMask) -> float:
    """Intersection over union of two masks."""
    shared = _shared_area(one, other)
    return shared / max(one.area + other.area - shared, 1)


def _shared_area(one: SoftMask, other: SoftMask) -> int:
    """Pixels that two masks have in common."""
    a, b = np.array(one.box_xyxy), np.array(other.box_xyxy)
    if (np.maximum(a, b)[:2] >= np.minimum(a, b)[2:]).any():
        return 0
    crops = [
        np.asarray(mask.values[box[1] - y : box[3] - y, box[0] - x : box[2] - x] > EDGE, np.bool_)
        for mask, box, (x, y) in ((one, a, one.corner_xy), (other, b, other.corner_xy))
    ]
    return intersection(crops[0], a.tolist(), crops[1], b.tolist())


class BoxTracker:
    """ByteTrack (Zhang et al. 2022, from the package ``trackers``) over the boxes of all tracks.

    Its Kalman filter predicts the boxes of hidden objects.
    """

    def __init__(self) -> None:
        # Every box is of a confirmed object, so none is delayed or dropped.
        self._tracker = ByteTrackTracker(
            lost_track_buffer=round(HIDDEN_S * BYTETRACK_FPS),
            frame_rate=BYTETRACK_FPS,
            track_activation_threshold=0.0,
            high_conf_det_threshold=0.0,
            minimum_consecutive_frames=1,
        )
        # For each of ByteTrack's ids: our track, and when it was last visible.
        self._owners: dict[int, tuple[int, float]] = {}

    def update(
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
        tracks = np.asarray(out.data.get("track", ()), np.int64).tolist()
        boxes = [] if out.tracker_id is None else out.tracker_id.tolist()
        continued = {}
        for track, box in zip(tracks, boxes, strict=True):
            if box < 0:
                continue
            owner, _ = self._owners.get(box, (track, time_s))
            if track in new and owner != track:
                continued[track] = owner
            else:
                owner = track
            self._owners[box] = owner, time_s
        # ByteTrack has given up the others by now.
        lately = time_s - 2 * HIDDEN_S
        self._owners = {box: each for box, each in self._owners.items() if each[1] >= lately}
        return continued

    def rename(self, old: int, new: int) -> None:
        """A track has another id from now on."""
        self._owners = {
            box: (new if track == old else track, seen_s)
            for box, (track, seen_s) in self._owners.items()
        }


def weighted_vote(votes: Sequence[Classification], threshold: float = 0.5) -> Classification:
    """The joint classification of several key frames on one object.

    Each vote supports its ``best_label`` with the log-odds ``ln(c / (1 - c))`` of its confidence
    ``c``, and opposes every other label. The sum is divided by the square root of the number of
    votes, since votes on the same object are correlated: ``n`` equal votes have ``sqrt(n)`` times
    the log-odds of one.

    Args:
        votes: oldest first; at least one.
        threshold: least confidence of a label.
    """
    confidences = np.array([vote.confidence for vote in votes], np.float64)
    log_odds = np.clip(logit(confidences), -MAX_LOG_ODDS, MAX_LOG_ODDS)
    odds: dict[str, float] = {}
    for label in {vote.best_label for vote in votes if vote.best_label is not None}:
        agrees = np.array([vote.best_label == label for vote in votes])
        odds[label] = float(np.where(agrees, log_odds, -np.maximum(log_odds, 0)).sum())
    latest = votes[-1]
    if not odds:
        return latest
    label = max(odds, key=lambda name: odds[name])
    confidence = float(expit(odds[label] / len(votes) ** 0.5))
    return Classification.decided(
        label, confidence, threshold=threshold, neighbours=latest.neighbours
    )


def is_confirmed(
    classification: Classification, votes: Sequence[Classification], *, first: bool
) -> bool:
    """Whether a new object is shown: with two votes, or if certain.

    Args:
        first: whether it was found by what was just learnt, and is shown at once.
    """
    if classification.label is None:
        return False
    agreeing = sum(vote.label == classification.label for vote in votes)
    return first or agreeing > 1 or classification.confidence >= SURE


@dataclass(frozen=True, eq=False)
class _UntrackedRegion:
    """A region, as it was when it was last proposed or carried."""

    mask: SoftMask
    votes: Votes
    appearance: Appearance | None
    unseen: int = 0


class UntrackedVotes:
    """The regions without a track of the last key frames of one scene, with their votes.

    A region that is unknown at one key frame and labelled at the next has two votes, and both
    count. To keep this cheap, regions are not carried from frame to frame, but once from each key
    frame to the next one.
    """

    def __init__(self) -> None:
        self._regions: list[_UntrackedRegion] = []

    def update(self, frame: Frame, found: Detections, moved: Flow | None) -> tuple[Votes, ...]:
        """Adds the detections of a key frame, and returns the earlier votes of each, oldest first.

        Args:
            frame: the key frame.
            found: its detections.
            moved: the flow from the last key frame to this one; None after a cut.
        """
        before = [] if moved is None else self._carry(frame, moved)
        kept, masks = stack_masks([region.mask for region in before], found.size_hw)
        before = [before[index] for index in kept]
        matched = assign(found.masks, masks)
        earlier = [before[matched[i]].votes if i in matched else () for i in range(len(found))]
        unseen = [
            replace(region, unseen=region.unseen + 1)
            for place, region in enumerate(before)
            if place not in matched.values() and region.unseen < KEPT_UNSEEN
        ]
        self._regions = unseen
        for index, votes in enumerate(earlier):
            mask = SoftMask.of(found.masks, index)
            latest = (*votes, found.classifications[index])[-VOTE_WINDOW:]
            appearance = Appearance.of(frame.image_rgb, mask)
            self._regions.append(_UntrackedRegion(mask, latest, appearance))
        return tuple(earlier)

    def _carry(self, frame: Frame, moved: Flow) -> list[_UntrackedRegion]:
        """The regions in this frame, without those whose place another object has taken."""
        carried = []
        for region in self._regions:
            mask, appearance = moved.carry(region.mask), region.appearance
            if appearance is not None and mask.area:
                visible = appearance.visible(frame.image_rgb, mask, moved.gain)
                if appearance.share(visible) < WHOLE_SHARE:
                    continue
            carried.append(replace(region, mask=mask))
        return carried
