"""Which object of a frame is which object of the frames before, and what it is called.

Between looks of the detector a track's mask is carried by the optical flow, so its identity needs
no guess. Guesses are needed in two places, and both are made by something well known:

* What the detector finds at a look is laid onto the tracks of that frame by mask IoU (Hungarian
  method).
* An object that was hidden comes back as a new detection. ByteTrack (Zhang et al. 2022, from the
  package ``trackers``) follows the boxes of all frames with a Kalman filter, goes on predicting
  those that are gone, and says which of them the new box continues.

A track is called what the looks at it say together, see :func:`belief`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import supervision as sv
from scipy.optimize import linear_sum_assignment
from trackers import ByteTrackTracker

from sam_detect.masks import IntArray, iou_matrix
from sam_detect.types import Detections, Frame, Masks, Verdict
from sam_detect.video.motion import Flow, SoftMask

SAME_IOU = 0.3
"""A detection and a carried mask that overlap more are one object."""
LEAST_SHARE = 0.35
"""A mask of which less than this is left since it was last looked at is of a hidden object."""
HIDDEN_S = 2.0
"""How long a hidden object is waited for."""
MISSES = 2
"""Looks that must not find a track before it ends."""
FADING = 0.995
"""Per frame, of the quality of a mask that is only carried."""
MOST_ODDS = 4.0
"""Log-odds of the surest single look; more would never be outvoted."""
MEMORY = 20
"""Looks that a track's name rests on."""
BYTETRACK_FPS = 30.0
"""The unit in which ByteTrack counts time; frames come with their own time stamps."""


@dataclass
class Track:
    """One object through the frames.

    Attributes:
        id: from 1, never used twice.
        mask: in the last frame; None while it is hidden.
        area: pixels when it was last looked at.
        quality: of its mask, 0 to 1.
        looks: what the detector said of it, oldest first.
        verdict: what that says together.
        seen_s: time of the last frame that showed it.
        missed: looks in a row that did not find it.
        new: whether no frame has shown it yet.
    """

    id: int
    mask: SoftMask | None
    area: int
    quality: float
    looks: list[Verdict]
    verdict: Verdict
    seen_s: float
    missed: int = 0
    new: bool = True


@dataclass(frozen=True)
class Snapshot:
    """Where the tracks were in one frame.

    Attributes:
        masks: of the tracks.
        ids: theirs, in the same order.
    """

    masks: Masks
    ids: tuple[int, ...]


class Tracks:
    """The tracks of one video.

    Args:
        threshold: least belief for a name.
        unknown: whether objects without a name are followed, too.
    """

    def __init__(self, *, threshold: float = 0.5, unknown: bool = False) -> None:
        self._threshold, self._unknown = threshold, unknown
        self._tracks: dict[int, Track] = {}
        self._next_id = 1
        self._boxes = _Boxes()

    def advance(self, flow: Flow | None, time_s: float) -> None:
        """Carries every mask to the next frame; without a flow (the scene is another) none."""
        for track in self._tracks.values():
            if track.mask is None:
                continue
            carried = None if flow is None else flow.carry(track.mask)
            area = 0 if carried is None else np.count_nonzero(carried.values > 0.5)
            track.mask = carried if area > LEAST_SHARE * track.area else None
            track.quality *= FADING
            if track.mask is not None:
                track.seen_s = time_s
        gone = [t.id for t in self._tracks.values() if time_s - t.seen_s > HIDDEN_S]
        for each in gone:
            del self._tracks[each]

    def forget(self) -> None:
        """Ends every track, hidden ones too; the next ones have new ids."""
        self._tracks.clear()
        self._boxes = _Boxes()

    def snapshot(self, size_hw: tuple[int, int]) -> Snapshot:
        """Where the tracks are now, and how good their masks are."""
        shown = [track for track in self._tracks.values() if track.mask is not None]
        return _snapshot(shown, size_hw)

    def join(
        self,
        found: Detections,
        then: Snapshot,
        since: Sequence[Flow],
        *,
        time_s: float,
    ) -> None:
        """Takes in what the detector found in a frame.

        Args:
            found: all of it.
            then: where the tracks were in that frame.
            since: the flows of the frames that came after it, up to the present one.
            time_s: of the present frame.
        """
        of_track = _assign(found.masks, then)
        claimed = set(of_track.values())
        for index, track_id in of_track.items():
            if track_id in self._tracks:
                self._renew(self._tracks[track_id], found, index, since)
        for track_id in set(then.ids) - claimed:
            self._miss(track_id)
        for index in set(range(len(found))) - set(of_track):
            self._begin(found, index, since, time_s)

    def present(self, frame: Frame, *, time_s: float) -> tuple[Detections, IntArray]:
        """The objects of the present frame and their tracks, in the order of the tracks."""
        self._continue_hidden(time_s)
        named = [t for t in self._shown() if self._unknown or t.verdict.label is not None]
        masks = _snapshot(named, frame.size_hw)
        verdicts = tuple(self._tracks[each].verdict for each in masks.ids)
        ids = np.array(masks.ids, np.int64)
        return Detections(frame.source_id, masks.masks, verdicts), ids

    def forget_looks(self) -> None:
        """What was said so far no longer counts, since the library knows something else now."""
        for track in self._tracks.values():
            track.looks = []

    def mask(self, track_id: int, size_hw: tuple[int, int]) -> Masks | None:
        """Where a track is now; None where it is hidden or has ended."""
        track = self._tracks.get(track_id)
        found = _snapshot([] if track is None else [track], size_hw).masks
        return found if len(found) else None

    def _shown(self) -> list[Track]:
        return [self._tracks[each] for each in sorted(self._tracks) if self._tracks[each].mask]

    def _renew(self, track: Track, found: Detections, index: int, since: Sequence[Flow]) -> None:
        track.mask = _carried(SoftMask.of(found.masks, index), since)
        track.area = int(found.masks.areas[index])
        track.quality = float(found.masks.predicted_ious[index])
        track.missed = 0
        track.looks = [*track.looks, found.verdicts[index]][-MEMORY:]
        track.verdict = belief(track.looks, self._threshold)

    def _miss(self, track_id: int) -> None:
        track = self._tracks.get(track_id)
        if track is not None:
            track.missed += 1
            if track.missed >= MISSES:
                del self._tracks[track_id]

    def _begin(self, found: Detections, index: int, since: Sequence[Flow], time_s: float) -> None:
        verdict = found.verdicts[index]
        mask = _carried(SoftMask.of(found.masks, index), since)
        if mask is None or (verdict.label is None and not self._unknown):
            return
        self._tracks[self._next_id] = Track(
            id=self._next_id,
            mask=mask,
            area=int(found.masks.areas[index]),
            quality=float(found.masks.predicted_ious[index]),
            looks=[verdict],
            verdict=verdict,
            seen_s=time_s,
        )
        self._next_id += 1

    def _continue_hidden(self, time_s: float) -> None:
        """New tracks that are hidden ones come back take up their ids."""
        shown = self._shown()
        for new, old in self._boxes.follow(shown, time_s).items():
            track, hidden = self._tracks[new], self._tracks.get(old)
            alike = hidden is not None and hidden.verdict.label == track.verdict.label
            if hidden is None or hidden.mask is not None or not alike:
                continue
            track.looks = [*hidden.looks, *track.looks][-MEMORY:]
            if track.looks:
                track.verdict = belief(track.looks, self._threshold)
            track.id = old
            self._tracks[old] = self._tracks.pop(new)
            self._boxes.rename(new, old)
        for track in shown:
            track.new = False


class _Boxes:
    """ByteTrack beside the tracks: it knows where those that are gone should be by now."""

    def __init__(self) -> None:
        # Every box is of an object that is known to be there, so none is put off or left out.
        self._tracker = ByteTrackTracker(
            lost_track_buffer=round(HIDDEN_S * BYTETRACK_FPS),
            frame_rate=BYTETRACK_FPS,
            track_activation_threshold=0.0,
            high_conf_det_threshold=0.0,
            minimum_consecutive_frames=1,
        )
        self._owners: dict[int, int] = {}

    def follow(self, shown: Sequence[Track], time_s: float) -> dict[int, int]:
        """Takes the boxes of a frame; gives new tracks whose box continues that of another one."""
        boxes = {t.id: t.mask.hard[0] for t in shown if t.mask and t.mask.hard}
        given = sv.Detections(
            xyxy=np.array(list(boxes.values()), np.float64).reshape(-1, 4),
            confidence=np.ones(len(boxes)),
            data={"track": np.array(list(boxes), np.int64)},
        )
        out = self._tracker.update(given, timestamp=time_s)
        new = {track.id for track in shown if track.new}
        continued = {}
        tracks = np.asarray(out.data.get("track", ()), np.int64)
        for track, box in zip(tracks.tolist(), _ids(out), strict=True):
            owner = self._owners.setdefault(box, track) if box >= 0 else track
            if track in new and owner != track:
                continued[track] = owner
            elif box >= 0:
                self._owners[box] = track
        return continued

    def rename(self, old: int, new: int) -> None:
        self._owners = {box: new if t == old else t for box, t in self._owners.items()}


def _ids(tracked: sv.Detections) -> list[int]:
    return [] if tracked.tracker_id is None else [int(each) for each in tracked.tracker_id]


def belief(looks: Sequence[Verdict], threshold: float = 0.5) -> Verdict:
    """What several looks at one object say together.

    Each look believes in its ``best_label`` with its confidence ``c``, that is with log-odds
    ``ln(c / (1 - c))``; looks that say something else count against a label. The sum is divided by
    the root of the number of looks, since looks at the same object are far from independent: ``n``
    equal looks have ``sqrt(n)`` times the log-odds of one.
    """
    odds: dict[str, float] = {}
    for label in {look.best_label for look in looks if look.best_label is not None}:
        votes = (_odds(look.confidence) for look in looks if look.best_label == label)
        against = (_odds(look.confidence) for look in looks if look.best_label != label)
        odds[label] = sum(votes) - sum(max(0.0, vote) for vote in against)
    latest = looks[-1]
    if not odds:
        return latest
    label = max(odds, key=lambda name: odds[name])
    confidence = 1 / (1 + math.exp(-odds[label] / math.sqrt(len(looks))))
    return Verdict(
        label=label if confidence >= threshold else None,
        best_label=label,
        confidence=confidence,
        neighbours=latest.neighbours,
    )


def _odds(confidence: float) -> float:
    safe = min(max(confidence, 1e-6), 1 - 1e-6)
    return float(np.clip(math.log(safe / (1 - safe)), -MOST_ODDS, MOST_ODDS))


def _snapshot(tracks: Sequence[Track], size_hw: tuple[int, int]) -> Snapshot:
    boxes, crops, kept = [], [], []
    for track in tracks:
        hard = None if track.mask is None else track.mask.hard
        if hard is not None:
            boxes.append(hard[0])
            crops.append(hard[1])
            kept.append(track)
    masks = Masks.from_crops(
        size_hw=size_hw,
        boxes_xyxy=np.array(boxes, np.int64).reshape(-1, 4),
        crops=crops,
        predicted_ious=np.array([track.quality for track in kept], np.float32),
    )
    return Snapshot(masks, tuple(track.id for track in kept))


def _assign(found: Masks, then: Snapshot) -> dict[int, int]:
    """Index of a found mask to the id of the track it is, one to one."""
    if not len(found) or not then.ids:
        return {}
    iou = _ious(found, then.masks)
    rows, columns = linear_sum_assignment(iou, maximize=True)
    return {
        int(row): then.ids[column]
        for row, column in zip(rows, columns, strict=True)
        if iou[row, column] > SAME_IOU
    }


def _ious(one: Masks, other: Masks) -> npt.NDArray[np.float64]:
    both = Masks.concatenate([one, other])
    return iou_matrix(both.crops(), both.boxes_xyxy)[: len(one), len(one) :]


def _carried(mask: SoftMask, since: Sequence[Flow]) -> SoftMask | None:
    for flow in since:
        mask = flow.carry(mask)
    return mask if (mask.values > 0.5).any() else None
