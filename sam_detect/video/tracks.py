"""Which object of a frame is which object of the frames before.

Between looks of the detector a track's mask is carried by the optical flow, so its identity needs
no guess. Guesses are needed in two places:

* What the detector finds at a look is laid onto the tracks of that frame by mask IoU (Hungarian
  method).
* An object that was hidden comes back as a new detection. ByteTrack says which hidden track the
  new box continues; where it cannot, the name and the place do.

A track is called what the looks at it say together, see :func:`sam_detect.video.belief.belief`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from sam_detect.masks import BoolArray, IntArray
from sam_detect.types import Detections, Frame, ImageRGB, Masks, Verdict
from sam_detect.video.appearance import Appearance
from sam_detect.video.belief import LOOKS, belief
from sam_detect.video.boxes import HIDDEN_S, Boxes
from sam_detect.video.matching import assign, shared_of_smaller
from sam_detect.video.memory import Past
from sam_detect.video.motion import Flow, SoftMask
from sam_detect.video.track import Track, carried

MISSES = 2
"""Looks that must not find a track before it ends."""
SURE = 0.8
"""A new object that is believed in less is shown when another look confirms it."""
REACH = 3.0
"""Of its size: how far from where it should be, or was, a hidden object may come back."""
ONE_SIZE = 0.5
"""Objects of which one is smaller than this share of the other do not hide one another."""
COMMON_SHARE = 0.3
"""Of the smaller of two: so much is not seen of both."""
TOUCHING_SHARE, COVERED_SHARE = 0.1, 0.6
"""Of an object, in common with one that touches it; with one that covers it."""


@dataclass(frozen=True)
class Snapshot:
    """Where the tracks were in one frame.

    Attributes:
        masks: what was to be seen of the tracks.
        ids: theirs, in the same order.
        bodies: all of each, also what was hidden.
        anchors: the same in the frame of the look before.
        whole: whether about all of it was to be seen.
    """

    masks: Masks
    ids: tuple[int, ...]
    bodies: tuple[SoftMask, ...] = ()
    anchors: tuple[SoftMask, ...] = ()
    whole: tuple[bool, ...] = ()


@dataclass(frozen=True)
class Sight:
    """What a look at a frame found.

    Attributes:
        frame: that frame.
        found: all of it.
        pasts: what earlier looks said of each, oldest first; of a track's object it knows more.
        first: whether nobody has looked at this scene before.
        relearnt: whether something was learnt since the last look, so that what earlier looks
            said no longer counts.
    """

    frame: Frame
    found: Detections
    pasts: tuple[Past, ...]
    first: bool = False
    relearnt: bool = False


class Tracks:
    """The tracks of one video.

    Args:
        threshold: least belief for a name.
        unknown: whether objects without a name are followed, too.

    Attributes:
        undecided: whether the last look named something that another look has to confirm.
    """

    def __init__(self, *, threshold: float = 0.5, unknown: bool = False) -> None:
        self._threshold, self._unknown = threshold, unknown
        self._tracks: dict[int, Track] = {}
        self._next_id = 1
        self._time_s = 0.0
        self._boxes = Boxes()
        self.undecided = False

    def advance(self, flow: Flow | None, frame: Frame, time_s: float) -> None:
        """Brings every track to the next frame; without a flow (another scene) they end."""
        elapsed_s, self._time_s = time_s - self._time_s, time_s
        if flow is None:
            self.forget()
            return
        for track in self._tracks.values():
            track.advance(flow, frame.image_rgb, elapsed_s)
        self._keep_apart(frame.image_rgb)
        for track in list(self._tracks.values()):
            if not track.hidden:
                track.seen_s, track.left_xyxy = time_s, track.body.box_xyxy
            elif time_s - track.seen_s > HIDDEN_S:
                del self._tracks[track.id]

    def forget(self) -> None:
        """Ends every track, hidden ones too; the next ones have new ids."""
        self._tracks.clear()
        self._boxes = Boxes()

    def snapshot(self, size_hw: tuple[int, int]) -> Snapshot:
        """Where the tracks are now, and how good their masks are."""
        return _snapshot(self._shown(), size_hw)

    def join(self, sight: Sight, then: Snapshot, since: Sequence[Flow], frame: Frame) -> None:
        """Takes in what a look found.

        Args:
            sight: all of it.
            then: where the tracks were in the frame of the look.
            since: the flows of the frames that came after it, up to the present one.
            frame: the present one.
        """
        of_track = assign(
            sight.found.masks, then.masks, alike=self._same_names(sight.found, then.ids)
        )
        for index, place in of_track.items():
            if then.ids[place] in self._tracks:
                self._renew(self._tracks[then.ids[place]], sight, index, since)
                self._tracks[then.ids[place]].watch(frame.image_rgb)
        for place in set(range(len(then.ids))) - set(of_track.values()):
            self._miss(then, place)
        self.undecided = False
        for index in sorted(set(range(len(sight.found))) - set(of_track)):
            self._begin(sight, index, since)

    def present(self, frame: Frame, *, time_s: float) -> tuple[Detections, IntArray]:
        """The objects of the present frame and their tracks, in the order of the tracks."""
        self._continue_hidden(frame.size_hw, time_s)
        named = [t for t in self._shown() if self._unknown or t.verdict.label is not None]
        seen = _snapshot(named, frame.size_hw)
        verdicts = tuple(self._tracks[each].verdict for each in seen.ids)
        ids = np.array(seen.ids, np.int64)
        return Detections(frame.source_id, seen.masks, verdicts), ids

    def forget_looks(self) -> None:
        """What was said so far no longer counts, since the library knows something else now."""
        for track in self._tracks.values():
            track.looks = []

    def _shown(self) -> list[Track]:
        return [self._tracks[i] for i in sorted(self._tracks) if not self._tracks[i].hidden]

    def _renew(self, track: Track, sight: Sight, index: int, since: Sequence[Flow]) -> None:
        track.renew(
            SoftMask.of(sight.found.masks, index),
            sight.found.verdicts[index],
            quality=float(sight.found.masks.predicted_ious[index]),
            image_rgb=sight.frame.image_rgb,
            since=since,
            threshold=self._threshold,
            relearnt=sight.relearnt,
        )

    def _miss(self, then: Snapshot, place: int) -> None:
        track = self._tracks.get(then.ids[place])
        if track is not None:
            track.missed += 1
            track.anchor = then.bodies[place]
            if track.missed >= MISSES:
                del self._tracks[track.id]

    def _begin(self, sight: Sight, index: int, since: Sequence[Flow]) -> None:
        found, looks = sight.found, [*sight.pasts[index], sight.found.verdicts[index]]
        verdict = belief(looks, self._threshold)
        if not self._unknown and not _believed(verdict, looks, first=sight.first):
            self.undecided |= found.verdicts[index].label is not None
            return
        anchor = SoftMask.of(found.masks, index)
        body, gain = carried(anchor, since)
        if not body.area or self._is_part_of_another(body, verdict):
            return
        self._tracks[self._next_id] = Track(
            id=self._next_id,
            body=body,
            anchor=anchor,
            appearance=Appearance.of(sight.frame.image_rgb, anchor),
            quality=float(found.masks.predicted_ious[index]),
            looks=looks,
            verdict=verdict,
            seen_s=self._time_s,
            gain=gain,
        )
        self._next_id += 1

    def _is_part_of_another(self, body: SoftMask, verdict: Verdict) -> bool:
        """Whether much of it is seen as another object of its kind, of which more is believed: two
        cannot both be in front."""
        return any(
            track.verdict.label == verdict.label is not None
            and track.verdict.confidence > verdict.confidence
            and track.mask is not None
            and shared_of_smaller(body, track.mask) > COMMON_SHARE
            for track in self._shown()
        )

    def _continue_hidden(self, size_hw: tuple[int, int], time_s: float) -> None:
        """New tracks that are hidden ones come back take up their ids."""
        seen = _snapshot(self._shown(), size_hw)
        new = {each for each in seen.ids if self._tracks[each].new}
        predicted = self._boxes.follow(seen.ids, seen.masks.boxes_xyxy, new, time_s)
        for each in sorted(new):
            track = self._tracks[each]
            track.new = False
            hidden = self._tracks.get(predicted.get(each, 0))
            if hidden is None or not _alike(track, hidden):
                hidden = _nearest(track, self._hidden())
            if hidden is not None:
                self._take_up(track, hidden)

    def _same_names(self, found: Detections, ids: Sequence[int]) -> BoolArray:
        """``(found, tracks)``: which have the same name."""
        names = [self._tracks[i].verdict.label if i in self._tracks else None for i in ids]
        known: BoolArray = np.array([name is not None for name in names], np.bool_)
        same = np.equal.outer(found.label, np.array(names, dtype=object))
        return np.asarray(same.astype(np.bool_) & known)

    def _keep_apart(self, image_rgb: ImageRGB) -> None:
        """Where two that look alike come together the flow cannot tell them apart: they go on as
        before, and while one covers the other, the one that would have had to turn is behind."""
        tracks = [self._tracks[i] for i in sorted(self._tracks)]
        met: set[int] = set()
        boxes = np.array([track.body.box_xyxy for track in tracks], np.int64).reshape(-1, 4)
        for place, one in enumerate(tracks):
            for later in _meeting(boxes, place):
                other = tracks[later]
                common = _came_together(one, other, image_rgb)
                if not common:
                    continue
                back = max(one, other, key=lambda t: (t.behind, t.hidden, _turned(t)))
                for each in (one, other):
                    each.keep_going(behind=each is back and common > COVERED_SHARE)
                boxes[place], boxes[later] = one.body.box_xyxy, other.body.box_xyxy
                met |= {one.id, other.id}
        for track in tracks:
            track.crowded = track.id in met
            track.behind &= track.crowded

    def _hidden(self) -> list[Track]:
        return [track for track in self._tracks.values() if track.hidden]

    def _take_up(self, track: Track, hidden: Track) -> None:
        del self._tracks[track.id]
        self._boxes.rename(track.id, hidden.id)
        track.id = hidden.id
        track.looks = [*hidden.looks, *track.looks][-LOOKS:]
        if track.looks:
            track.verdict = belief(track.looks, self._threshold)
        self._tracks[track.id] = track


def _believed(verdict: Verdict, looks: Sequence[Verdict], *, first: bool) -> bool:
    """Whether something new is shown: at once where nothing is known yet, or it is sure."""
    if verdict.label is None:
        return False
    agreeing = sum(look.label == verdict.label for look in looks)
    return first or agreeing > 1 or verdict.confidence >= SURE


def _meeting(boxes_xyxy: IntArray, place: int) -> Iterator[int]:
    """The places of the boxes behind one that have pixels in common with it, as they are by the
    time they are asked for; so hundreds of objects need not each be held against each."""
    after = place
    while True:
        box, rest = boxes_xyxy[place], boxes_xyxy[after + 1 :]
        lowest, highest = np.maximum(rest[:, :2], box[:2]), np.minimum(rest[:, 2:], box[2:])
        found = np.flatnonzero((lowest < highest).all(axis=1))
        if not len(found):
            return
        after += 1 + int(found[0])
        yield after


def _came_together(one: Track, other: Track, image_rgb: ImageRGB) -> float:
    """Share of the smaller of two of a kind that they have in common, if they look alike and did
    not touch at the last look."""
    sizes = sorted((one.body.area, other.body.area))
    if one.verdict.label != other.verdict.label or sizes[0] < ONE_SIZE * sizes[1]:
        return 0.0
    common = shared_of_smaller(one.body, other.body)
    if common < TOUCHING_SHARE or (one.hidden and other.hidden):
        return 0.0
    apart = shared_of_smaller(one.anchor, other.anchor) < TOUCHING_SHARE
    met_before = one.crowded and other.crowded
    return common if apart and (met_before or one.resembles(other, image_rgb)) else 0.0


def _turned(track: Track) -> float:
    """Pixels by which a track is not where it would be if it had gone on as before."""
    before = track.expected or track.body
    return _distance(track.body.box_xyxy, before.box_xyxy)


def _alike(track: Track, hidden: Track) -> bool:
    return hidden.hidden and hidden.verdict.label == track.verdict.label


def _nearest(track: Track, hidden: Sequence[Track]) -> Track | None:
    """The hidden track of the same name that should be nearest, or was when it was last seen."""
    size = max(track.body.area, 1) ** 0.5
    box = track.body.box_xyxy
    near = {
        each.id: min(_distance(box, each.body.box_xyxy), _distance(box, each.left_xyxy))
        for each in hidden
        if _alike(track, each)
    }
    reached = [each for each in hidden if near.get(each.id, np.inf) < REACH * size]
    return min(reached, key=lambda each: near[each.id], default=None)


def _distance(one_xyxy: Sequence[int], other_xyxy: Sequence[int]) -> float:
    """Between the middles of two boxes."""
    apart = np.array(one_xyxy) - np.array(other_xyxy)
    return float(np.hypot(*(apart[:2] + apart[2:]) / 2))


def _snapshot(tracks: Sequence[Track], size_hw: tuple[int, int]) -> Snapshot:
    cuts = [(track, None if track.mask is None else track.mask.cut(size_hw)) for track in tracks]
    kept = [(track, cut) for track, cut in cuts if cut is not None]
    masks = Masks.from_crops(
        size_hw=size_hw,
        boxes_xyxy=np.array([cut[0] for _, cut in kept], np.int64).reshape(-1, 4),
        crops=[cut[1] for _, cut in kept],
        # What is half hidden is outlined worse than a look at it would.
        predicted_ious=np.array([track.quality * track.share for track, _ in kept], np.float32),
    )
    return Snapshot(
        masks,
        tuple(track.id for track, _ in kept),
        tuple(track.body for track, _ in kept),
        tuple(track.anchor for track, _ in kept),
        tuple(track.whole for track, _ in kept),
    )
