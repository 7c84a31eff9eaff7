"""Multi-object tracking: data association and re-identification.

Between key frames a track's mask is carried by its features or by the optical flow, and so keeps
its identity. Objects are associated in two places:

* Detections of a key frame are matched to the tracks of that frame by mask IoU (Hungarian method).
* An object that was hidden comes back as a new detection. ByteTrack decides which hidden track the
  new box continues; otherwise the label and the distance do.

A track's label is a vote over its key frames, see
:func:`sam_detect.video.association.weighted_vote`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import count

import numpy as np

from sam_detect.types import Classification, Detections, Frame, Masks
from sam_detect.types.masks import BoolArray, IntArray
from sam_detect.video.appearance import Appearance, SoftMask, stack_masks
from sam_detect.video.association import (
    HIDDEN_S,
    SAME_IOU,
    VOTE_WINDOW,
    BoxTracker,
    Votes,
    assign,
    iou,
    is_confirmed,
    shared_of_smaller,
    weighted_vote,
)
from sam_detect.video.crowds import keep_apart
from sam_detect.video.motion import Flow
from sam_detect.video.propagators import Propagator
from sam_detect.video.track import Track, carry_mask, nearest

MISSES = 2
"""Key frames in a row without a match that end a track."""
COMMON_SHARE = 0.3
"""Share of the smaller of two objects above which only one of them can be visible."""


@dataclass(frozen=True)
class TrackSnapshot:
    """Where the tracks were in one frame.

    Attributes:
        masks: the visible part of each track.
        ids: the tracks, in the same order.
        bodies: each whole object, including what is occluded.
        anchors: the same in the key frame before.
        direct: whether the flow may carry its anchor to this frame: it carries the track, and
            nearly all of it is visible.
    """

    masks: Masks
    ids: tuple[int, ...]
    bodies: tuple[SoftMask, ...] = ()
    anchors: tuple[SoftMask, ...] = ()
    direct: tuple[bool, ...] = ()


@dataclass(frozen=True)
class KeyFrameResult:
    """The detections of a key frame.

    Attributes:
        frame: the key frame.
        found: its detections.
        earlier_votes: of each detection at earlier key frames, oldest first. A track has its own.
        first: whether it is the first one since something was learnt while the video ran: then
            no new object has to be confirmed.
        relearnt: whether something was learnt since the last key frame, so that earlier votes no
            longer count.
    """

    frame: Frame
    found: Detections
    earlier_votes: tuple[Votes, ...]
    first: bool = False
    relearnt: bool = False


class Tracks:
    """The tracks of one video.

    Args:
        threshold: least confidence of a label.
        unknown: whether unknown objects are tracked, too.
        propagator: carries named objects; None: the flow carries all.
        ids: of new tracks.

    Attributes:
        undecided: whether the last key frame labelled an object that another one has to confirm.
    """

    def __init__(
        self,
        *,
        threshold: float = 0.5,
        unknown: bool = False,
        propagator: Propagator | None = None,
        ids: Iterator[int] | None = None,
    ) -> None:
        self._threshold, self._unknown, self._propagator = threshold, unknown, propagator
        self._tracks: dict[int, Track] = {}
        self._ids = count(1) if ids is None else ids
        self._time_s, self._size_hw = 0.0, (0, 0)
        self._blank = False
        self._boxes = BoxTracker()
        self.undecided = False

    def advance(self, flow: Flow | None, frame: Frame, time_s: float) -> None:
        """Moves every track to the next frame. Without a flow (after a cut) those end that their
        propagator does not find again, and while a picture shows nothing they wait."""
        self._blank = flow is not None and flow.blank
        if self._blank:  # what comes next is compared with what was before
            return
        elapsed_s, self._time_s = time_s - self._time_s, time_s
        same_size, self._size_hw = frame.size_hw == self._size_hw, frame.size_hw
        if flow is None:
            found = {i: each for i, each in self._tracks.items() if same_size and each.jump(frame)}
            self.forget()
            self._tracks |= found
            return
        self._carry(flow, frame, elapsed_s)
        keep_apart([self._tracks[i] for i in sorted(self._tracks)], frame.image_rgb)
        for track in list(self._tracks.values()):
            if not track.hidden:
                track.seen_s, track.left_xyxy = time_s, track.body.box_xyxy
            elif time_s - track.seen_s > HIDDEN_S:
                del self._tracks[track.id]

    def _carry(self, flow: Flow, frame: Frame, elapsed_s: float) -> None:
        """Carries every track, by the propagator those first that waited longest for it."""
        by = self._propagator or Propagator(lambda frame, mask: None)
        by.budget.next_frame()
        for track in sorted(self._tracks.values(), key=lambda each: -each.waited):
            due = track.due(flow, frame) or (by.every_frame and track.memory is not None)
            if due and by.budget.left:
                with by.budget.spent():
                    track.advance(flow, frame, elapsed_s)
            else:
                track.advance(flow, frame, elapsed_s, quick=True)

    def forget(self) -> None:
        """Ends every track, hidden ones too; the next ones have new ids."""
        self._tracks.clear()
        self._boxes = BoxTracker()

    def snapshot(self, size_hw: tuple[int, int]) -> TrackSnapshot:
        """The visible tracks in the present frame."""
        return _snapshot(self._shown(), size_hw)

    def join(
        self, result: KeyFrameResult, then: TrackSnapshot, since: Sequence[Flow], frame: Frame
    ) -> None:
        """Associates the detections of a key frame with the tracks, and begins new tracks.

        Args:
            result: of the key frame.
            then: the tracks in the key frame.
            since: the flows of the frames after it, up to the present one.
            frame: the present one.
        """
        of_track = assign(
            result.found.masks, then.masks, alike=self._same_labels(result.found, then.ids)
        )
        for index, place in of_track.items():
            track = self._tracks.get(then.ids[place])
            if track is not None:
                track.renew(
                    SoftMask.of(result.found.masks, index),
                    result.found.classifications[index],
                    then=then.bodies[place],
                    quality=float(result.found.masks.predicted_ious[index]),
                    image_rgb=result.frame.image_rgb,
                    since=since,
                    threshold=self._threshold,
                    relearnt=result.relearnt,
                )
                track.watch(frame.image_rgb)
                if track.memory is None or result.relearnt:
                    self._remember(track, frame, track.body)
        for place in set(range(len(then.ids))) - set(of_track.values()):
            track = self._tracks.get(then.ids[place])
            if track is not None:
                track.missed += 1
                track.anchor = then.bodies[place]
                if track.missed >= MISSES:
                    del self._tracks[track.id]
        self.undecided = False
        began = [track for track in self._shown() if track.id not in then.ids]
        for index in sorted(set(range(len(result.found))) - set(of_track)):
            self._begin(result, index, since, began)
        self._end_doubles()

    def present(self, frame: Frame, *, time_s: float) -> tuple[Detections, IntArray]:
        """The objects of the present frame and their tracks, in the order of the tracks."""
        self._continue_hidden(frame.size_hw, time_s)
        shown = [t for t in self._shown() if self._unknown or t.classification.label is not None]
        present = _snapshot(shown, frame.size_hw)
        classifications = tuple(self._tracks[each].classification for each in present.ids)
        ids = np.array(present.ids, np.int64)
        return Detections(frame.source_id, present.masks, classifications), ids

    def forget_votes(self) -> None:
        """Discards all votes, since the library has changed."""
        for track in self._tracks.values():
            track.votes = []

    def __contains__(self, track_id: int) -> bool:
        return track_id in self._tracks

    def name(
        self,
        track_id: int,
        label: str,
        frame: Frame,
        outline: SoftMask | None,
        *,
        taught_in: tuple[Frame, SoftMask] | None = None,
    ) -> None:
        """Gives an object the label that it was taught, whatever key frames say.

        Args:
            track_id: its track, which begins here if it is not there.
            frame: the present one.
            outline: of the object in this frame, if it is not that of the track.
            taught_in: an earlier frame in which it was outlined, and that outline: its propagator
                carries it from there.
        """
        track = self._tracks.get(track_id)
        taught = Classification(label, label, 1.0)
        if outline is not None and outline.cut(frame.size_hw):
            for other in self._shown():
                if other is not track and iou(other.body, outline) > SAME_IOU:
                    del self._tracks[other.id]  # the same object, found meanwhile
            looks = Appearance.of(frame.image_rgb, outline)
            began = Track(track_id, outline, outline, looks, 1.0, [], taught, self._time_s)
            track = self._tracks[track_id] = replace(began, new=False)
        if track is not None:
            track.taught = track.classification = taught
            if track.memory is None and taught_in is not None:
                self._remember(track, *taught_in)
                track.jump(frame)
            elif track.memory is None:
                self._remember(track, frame, track.body)

    def remove_label(self, track_id: int, label: str | None) -> None:
        """A track does not have a label, or with None not the one that it was taught."""
        track = self._tracks.get(track_id)
        if track is not None and label in (None, track.classification.label):
            track.taught, track.votes = None, []
            track.classification = Classification(None, None, 0.0)

    def _shown(self) -> list[Track]:
        if self._blank:
            return []
        return [self._tracks[i] for i in sorted(self._tracks) if not self._tracks[i].hidden]

    def _begin(
        self, result: KeyFrameResult, index: int, since: Sequence[Flow], began: Sequence[Track]
    ) -> None:
        """Begins the track of a detection, unless it began since the key frame."""
        found = result.found
        votes = [*result.earlier_votes[index], found.classifications[index]]
        classification = weighted_vote(votes, self._threshold)
        if not self._unknown and not is_confirmed(classification, votes, first=result.first):
            self.undecided |= found.classifications[index].label is not None
            return
        anchor = SoftMask.of(found.masks, index)
        body, gain = carry_mask(anchor, since)
        if not body.area or self._is_part_of_another(body, classification):
            return
        if any(iou(body, each.body) > SAME_IOU for each in began):
            return
        track = Track(
            id=next(self._ids),
            body=body,
            anchor=anchor,
            appearance=Appearance.of(result.frame.image_rgb, anchor),
            quality=float(found.masks.predicted_ious[index]),
            votes=votes,
            classification=classification,
            seen_s=self._time_s,
            gain=gain,
        )
        self._tracks[track.id] = track
        self._remember(track, result.frame, anchor)

    def _end_doubles(self) -> None:
        """Ends tracks that have come to lie on a surer object of the same label."""
        for track in self._shown():
            if not track.crowded and self._is_part_of_another(track.body, track.classification):
                del self._tracks[track.id]

    def _remember(self, track: Track, frame: Frame, mask: SoftMask) -> None:
        """From here on the propagator carries a named track, if all of it is visible by itself.

        Args:
            frame: the present one, or the key frame before.
            mask: all of the object there.
        """
        alone = track.whole and not track.hidden and not track.crowded
        by = self._propagator
        if by is None or not by.budget.left or not alone or track.classification.label is None:
            return
        others = [each for each in self._tracks.values() if each is not track]
        if by.most is None or sum(each.memory is not None for each in others) < by.most:
            with by.budget.spent():
                track.memory, track.pause = by.remember(frame, mask) or track.memory, 1

    def _is_part_of_another(self, body: SoftMask, classification: Classification) -> bool:
        """Whether much of it overlaps another object of the same label with more confidence: two
        cannot both be in front."""
        return any(
            track.classification.label == classification.label is not None
            and track.classification.confidence > classification.confidence
            and track.mask is not None
            and shared_of_smaller(body, track.mask) > COMMON_SHARE
            for track in self._shown()
        )

    def _continue_hidden(self, size_hw: tuple[int, int], time_s: float) -> None:
        """Re-identifies hidden objects: new tracks that continue hidden ones get their ids."""
        seen = _snapshot(self._shown(), size_hw)
        new = {each for each in seen.ids if self._tracks[each].new}
        predicted = self._boxes.update(seen.ids, seen.masks.boxes_xyxy, new, time_s)
        for each in sorted(new):
            track = self._tracks[each]
            track.new = False
            hidden = self._tracks.get(predicted.get(each, 0))
            if hidden is None or not _alike(track, hidden):
                others = [other for other in self._tracks.values() if _alike(track, other)]
                hidden = nearest(track, others)
            if hidden is not None:
                self._merge(track, hidden)

    def _same_labels(self, found: Detections, ids: Sequence[int]) -> BoolArray:
        """``(found, tracks)`` bool: which have the same label."""
        names = [self._tracks[i].classification.label if i in self._tracks else None for i in ids]
        known: BoolArray = np.array([name is not None for name in names], np.bool_)
        same = np.equal.outer(found.label, np.array(names, dtype=object))
        return np.asarray(same.astype(np.bool_) & known)

    def _merge(self, track: Track, hidden: Track) -> None:
        """A new track takes the id and the votes of a hidden one."""
        del self._tracks[track.id]
        self._boxes.rename(track.id, hidden.id)
        track.id = hidden.id
        track.taught = track.taught or hidden.taught
        track.votes = [*hidden.votes, *track.votes][-VOTE_WINDOW:]
        track.vote(self._threshold)
        self._tracks[track.id] = track


def _alike(track: Track, hidden: Track) -> bool:
    return hidden.hidden and hidden.classification.label == track.classification.label


def _snapshot(tracks: Sequence[Track], size_hw: tuple[int, int]) -> TrackSnapshot:
    # The carried outline of a partly occluded object is worse than a detected one.
    qualities = [track.quality * track.share for track in tracks]
    kept, masks = stack_masks([track.mask for track in tracks], size_hw, qualities)
    shown = [tracks[index] for index in kept]
    return TrackSnapshot(
        masks,
        tuple(track.id for track in shown),
        tuple(track.body for track in shown),
        tuple(track.anchor for track in shown),
        tuple(track.whole and track.memory is None for track in shown),
    )
