"""Data association, re-identification, late key frames, cuts, votes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import pytest

from sam_detect.interfaces import Source
from sam_detect.types import Classification, Detections, Frame, Masks, TrackedFrame
from sam_detect.video.appearance import SoftMask
from sam_detect.video.association import HIDDEN_S, BoxTracker, UntrackedVotes, weighted_vote
from sam_detect.video.motion import Flow, Motion
from sam_detect.video.track import Track
from sam_detect.video.tracks import KeyFrameResult, Tracks
from scripts.dev.video_quality import Outlined, VideoQuality, video_quality
from tests.video_scenes import Place, Scene, Thing, along, detector_that_knows, followed

CHERRY = Classification("cherry", "cherry", 0.95)


def _of(tracked: TrackedFrame, label: str) -> dict[int, np.ndarray]:
    """Track ids and masks of the objects of a label."""
    return {
        int(i): tracked.detections.masks.dense(place)
        for place, i in enumerate(tracked.track_ids)
        if tracked.detections.classifications[place].label == label
    }


def _only_id(tracked: TrackedFrame, label: str = "cherry") -> int:
    (found,) = _of(tracked, label)
    return found


def _quality(scene: Scene) -> VideoQuality:
    """How well the things of a scene are followed, once they are learnt in its first frame."""
    tracked = [Outlined.of_tracked(each) for each in followed(scene)]
    return video_quality(tracked, [scene.outlined(i) for i in range(scene.count)])


# -- hidden and back -----------------------------------------------------------------------------


def _behind_a_bar(second: str = "cherry") -> Scene:
    """A cherry goes behind a bar for half a second; something comes out on the other side."""
    way = along(20, 60, 2.5, 0)
    return Scene(
        [Thing("cherry", way, frames=(0, 32)), Thing(second, way, frames=(32, 99))],
        count=60, bar=(80, 118),
    )  # fmt: skip


def test_an_object_keeps_its_id_behind_a_bar_and_no_mask_stays_on_the_bar() -> None:
    scene = _behind_a_bar()
    tracked = followed(scene)
    assert _only_id(tracked[10]) == _only_id(tracked[-1])
    for frame in tracked:
        for mask in _of(frame, "cherry").values():
            assert np.count_nonzero(mask[:, 82:116]) <= 0.35 * 380, frame.frame.index
    assert not _of(tracked[33], "cherry"), "it is behind the bar"


def test_another_object_that_comes_out_has_an_id_of_its_own() -> None:
    scene = _behind_a_bar(second="leaf")
    detector = detector_that_knows(scene)
    leaf = Scene([Thing("leaf", along(60, 60, 0, 0))], 1)
    outlined = leaf.outlined(0)
    detector.learn_frame(leaf.frame(0), outlined.masks, outlined.labels)
    with detector.stream(scene) as stream:
        tracked = list(stream)
    assert _of(tracked[-1], "leaf")
    assert _only_id(tracked[10]) not in _of(tracked[-1], "leaf")


@pytest.mark.parametrize(("second", "same"), [("cherry", True), ("plum", False)])
def test_only_an_object_of_the_same_name_takes_up_a_hidden_one(second: str, same: bool) -> None:
    way = along(60, 60, 0, 0)
    scene = Scene([Thing("cherry", way, frames=(0, 3)), Thing(second, way, frames=(6, 9))], 9)
    tracks, frames = Tracks(), [*scene.frames()]
    tracks.join(_result(scene, 0), tracks.snapshot(scene.size_hw), (), frames[0])
    first = tracks.present(frames[0], time_s=0)[1].tolist()
    for index, flow in enumerate(_flows(frames), start=1):
        tracks.advance(flow, frames[index], index / 25)
        if 3 <= index < 6:
            assert not len(tracks.present(frames[index], time_s=index / 25)[0])
    then = tracks.snapshot(scene.size_hw)
    if not len(then.masks):  # a similar one is found again without a key frame
        result = _result(scene, 8, Classification(second, second, 0.95))
        tracks.join(result, then, (), frames[8])
    last = tracks.present(frames[8], time_s=8 / 25)[1].tolist()
    assert len(last) == 1
    assert (last == first) is same


@pytest.mark.parametrize("share", [0.6, 1.0])
def test_the_visible_part_of_an_occluded_object_does_not_become_the_whole(share: float) -> None:
    frame = Scene([Thing("cherry", along(60, 60, 0, 0), radius=14)], 1).frame(0)
    whole = SoftMask(np.ones((28, 28), np.float32), (46, 46))
    part = SoftMask(np.ones((28, 14), np.float32), (46, 46))
    track = Track(1, whole, whole, None, 1.0, [CHERRY], CHERRY, 0.0, share=share)
    plum = Classification("plum", "plum", 0.95)
    for classification in (CHERRY, plum):
        track.renew(
            part, classification, then=whole, quality=0.5, image_rgb=frame.image_rgb, since=(),
            threshold=0.5, relearnt=False,
        )  # fmt: skip
    if share < 1:
        assert track.body is whole
        assert track.votes == [CHERRY, CHERRY], "a part may have another label"
    else:
        assert track.body is part
        assert track.votes == [CHERRY, CHERRY, plum]


def test_an_object_that_leaves_the_picture_briefly_keeps_its_id() -> None:
    def place(index: int) -> tuple[float, float]:
        return abs(40 - 2.5 * index) * (1 if index < 16 else 0.9) - 14, 70

    scene = Scene([Thing("cherry", place)], count=60)
    assert len(scene.outlined(16).ids) == 0, "it is out of the picture"
    tracked = followed(scene)
    assert _only_id(tracked[2]) == _only_id(tracked[-1])


def test_an_object_that_stays_away_is_forgotten() -> None:
    away = round(25 * (HIDDEN_S + 1))
    scene = Scene(
        [Thing("cherry", along(60, 60, 0, 0), frames=(0, 10)),
         Thing("cherry", along(60, 60, 0, 0), frames=(10 + away, 999))],
        count=25 + away, size_hw=(96, 112),
    )  # fmt: skip
    tracked = followed(scene)
    assert _only_id(tracked[-1]) != _only_id(tracked[0])


def test_two_objects_of_one_kind_that_cross_keep_their_ids() -> None:
    scene = Scene(
        [Thing("cherry", along(30, 50, 2, 0.5)), Thing("cherry", along(170, 72, -2, 0))], count=60
    )
    found = _quality(scene)
    # While one is in front of the other, its track is the only one there.
    assert all(each.continuity > 0.9 for each in found.objects), found
    assert found.false_tracks == 0


# -- what the stream does not see, and sees late ---------------------------------------------------


def test_tracks_go_on_where_frames_were_dropped() -> None:
    scene = Scene([Thing("cherry", along(30, 50, 1.2, 0.3)), Thing("leaf", along(150, 80, -1, 0))],
                  count=60)  # fmt: skip
    seldom = scene.every(4)
    found = _quality(seldom)
    assert found.continuity == 1
    assert found.j > 0.85


def _flows(frames: Sequence[Frame]) -> list[Flow]:
    motion = Motion()
    found = [motion.next(frame) for frame in frames]
    return [flow for flow in found if flow is not None]


def _result(scene: Scene, index: int, classification: Classification = CHERRY) -> KeyFrameResult:
    outlined = scene.outlined(index)
    found = Detections("scene", outlined.masks, (classification,) * len(outlined.ids))
    return KeyFrameResult(scene.frame(index), found, ((),) * len(outlined.ids), first=True)


def _joined(scene: Scene, *, late: int) -> np.ndarray:
    """The mask of the only object in the last frame; frame 3 is detected this many frames late."""
    tracks, frames = Tracks(), [*scene.frames()]
    flows: list[Flow | None] = [None, *_flows(frames)]
    for index, frame in enumerate(frames):
        tracks.advance(flows[index], frame, index / 25)
        if index == 3:
            then = tracks.snapshot(frame.size_hw)
        if index == 3 + late:
            since = [flow for flow in flows[4 : index + 1] if flow is not None]
            tracks.join(_result(scene, 3), then, since, frame)
    found, _ = tracks.present(frames[-1], time_s=1.0)
    mask: np.ndarray = found.masks.dense(0)
    return mask


def test_a_late_keyframe_detection_gives_the_same_mask() -> None:
    scene = Scene(
        [Thing("cherry", along(40, 50, 2, 1), radius=14)], count=16, camera=along(0, 0, 1, 0)
    )
    at_once, late = _joined(scene, late=0), _joined(scene, late=9)
    assert (at_once & late).sum() / (at_once | late).sum() > 0.97
    truth = scene.outlined(15).masks.dense(0)
    assert (late & truth).sum() / (late | truth).sum() > 0.85


def test_a_late_keyframe_detection_finds_its_track() -> None:
    scene = Scene([Thing("cherry", along(40, 50, 3, 1))], count=14)
    tracks, frames = Tracks(), [*scene.frames()]
    tracks.advance(None, frames[0], 0)
    tracks.join(_result(scene, 0), tracks.snapshot(scene.size_hw), (), frames[0])
    first = tracks.present(frames[0], time_s=0)[1]
    flows = _flows(frames)
    for index, flow in enumerate(flows, start=1):
        tracks.advance(flow, frames[index], index / 25)
        if index == 2:
            then = tracks.snapshot(scene.size_hw)
    tracks.join(_result(scene, 2), then, flows[2:], frames[-1])
    found, ids = tracks.present(frames[-1], time_s=0.6)
    assert ids.tolist() == first.tolist()
    assert len(found) == 1


# -- cuts, sizes, light ----------------------------------------------------------------------------


class _Joined(Source):
    """Several scenes, one after the other."""

    def __init__(self, *scenes: Scene) -> None:
        self._scenes = scenes

    def frames(self) -> Iterator[Frame]:
        frames = (frame for scene in self._scenes for frame in scene.frames())
        for index, frame in enumerate(frames):
            yield replace(frame, index=index, time_s=index / 25)


def _two(second: Scene) -> list[TrackedFrame]:
    first = Scene([Thing("cherry", along(50, 60, 1, 0))], count=12)
    with detector_that_knows(first).stream(_Joined(first, second)) as stream:
        return list(stream)


def test_new_ids_begin_after_a_cut() -> None:
    tracked = _two(
        Scene([Thing("cherry", along(62, 60, 0, 0))], count=12, wall_rgb=(40, 90, 30), seed=8)
    )
    before = set(tracked[11].track_ids.tolist())
    after = {int(i) for frame in tracked[12:] for i in frame.track_ids}
    assert before
    assert after
    assert not before & after
    assert tracked[12].key


def test_a_stream_goes_on_where_the_size_changes() -> None:
    tracked = _two(Scene([Thing("cherry", along(50, 60, 1, 0))], count=12, size_hw=(120, 160)))
    assert len(tracked) == 24
    assert tracked[12].detections.size_hw == (120, 160)
    assert _only_id(tracked[-1]) != _only_id(tracked[0])


@pytest.mark.parametrize(
    "light",
    [lambda i: 1.0 if i % 2 else 0.8, lambda i: 1.0 - 0.4 * min(1, i / 20)],
    ids=["flicker", "dusk"],
)
def test_tracks_outlive_changes_of_the_light(light: Place) -> None:
    scene = Scene([Thing("cherry", along(30, 60, 1.5, 0.2)), Thing("leaf", along(150, 90, -1, 0))],
                  count=25, light=light)  # fmt: skip
    found = _quality(scene)
    assert found.switches == 0
    assert found.j > 0.85


def test_an_object_stays_visible_in_the_dusk_without_a_key_frame() -> None:
    scene = Scene([Thing("cherry", along(60, 60, 0.3, 0))], 30, light=lambda i: 1 - i / 45)
    tracked = followed(scene, every=99)
    assert [len(frame.detections) for frame in tracked] == [1] * 30


# -- names ---------------------------------------------------------------------------------------


def test_votes_that_agree_raise_the_confidence() -> None:
    one = Classification("nut", "nut", 0.7)
    confidences = [weighted_vote([one] * count).confidence for count in (1, 2, 4, 9)]
    assert confidences[0] == pytest.approx(0.7)
    assert confidences == sorted(confidences)
    odds = math.log(0.7 / 0.3)
    assert confidences[2] == pytest.approx(1 / (1 + math.exp(-2 * odds)))


def test_one_wrong_vote_changes_no_label() -> None:
    votes = [Classification("nut", "nut", 0.8)] * 3 + [Classification("date", "date", 0.9)]
    assert weighted_vote(votes).label == "nut"
    assert weighted_vote([*votes, *votes[-1:] * 4]).label == "date"


def test_an_unknown_vote_counts_against_a_label() -> None:
    doubt, name = Classification(None, "nut", 0.2), Classification("nut", "nut", 0.6)
    assert weighted_vote([name]).label == "nut"
    assert weighted_vote([doubt, name]).label is None
    assert weighted_vote([doubt, name]).best_label == "nut"


def _found(scene: Scene, index: int, *classifications: Classification) -> Detections:
    return Detections("scene", scene.outlined(index).masks, classifications)


def _moved(scene: Scene) -> Flow:
    total: Flow | None = None
    for flow in _flows([*scene.frames()]):
        total = flow.coarse() if total is None else flow.coarse().after(total)
    assert total is not None
    return total


def test_what_was_said_of_a_region_is_remembered_where_it_went() -> None:
    scene = Scene([Thing("cherry", along(40, 50, 3, 1)), Thing("plum", along(150, 90, -2, 0))], 11)
    no, maybe = Classification(None, "cherry", 0.1), Classification("plum", "plum", 0.6)
    untracked = UntrackedVotes()
    assert untracked.update(scene.frame(0), _found(scene, 0, no, maybe), None) == ((), ())
    swapped = _found(scene, 10, maybe, no)[[1, 0]]
    assert untracked.update(scene.frame(10), swapped, _moved(scene)) == ((maybe,), (no,))


def test_nothing_is_remembered_of_another_scene() -> None:
    scene = Scene([Thing("cherry", along(40, 50, 0, 0))], 2)
    untracked = UntrackedVotes()
    untracked.update(scene.frame(0), _found(scene, 0, CHERRY), None)
    assert untracked.update(scene.frame(1), _found(scene, 1, CHERRY), None) == ((),)


def test_nothing_that_was_said_of_a_place_is_said_of_what_comes_into_it() -> None:
    way = along(60, 60, 0, 0)
    scene = Scene([Thing("cherry", way, frames=(0, 5)), Thing("plum", way, frames=(5, 9))], 9)
    untracked = UntrackedVotes()
    untracked.update(scene.frame(0), _found(scene, 0, Classification(None, "plum", 0.1)), None)
    plum = _found(scene, 8, Classification("plum", "plum", 0.9))
    assert untracked.update(scene.frame(8), plum, _moved(scene)) == ((),)


def _begun(
    classification: Classification, *, past: tuple[Classification, ...] = (), first: bool = False
) -> int:
    """How many tracks begin with an object of this classification."""
    scene = Scene([Thing("cherry", along(40, 50, 0, 0))], 1)
    tracks, frame = Tracks(), scene.frame(0)
    result = replace(_result(scene, 0, classification), earlier_votes=(past,), first=first)
    tracks.join(result, tracks.snapshot(scene.size_hw), (), frame)
    return len(tracks.present(frame, time_s=0)[0])


def test_a_new_object_needs_a_second_vote_unless_it_is_certain() -> None:
    unsure, no = Classification("cherry", "cherry", 0.6), Classification(None, "cherry", 0.1)
    assert _begun(CHERRY) == 1
    assert _begun(unsure) == 0
    assert _begun(unsure, first=True) == 1
    assert _begun(unsure, past=(unsure,)) == 1
    assert _begun(CHERRY, past=(no, no)) == 0


@pytest.mark.parametrize("relearnt", [False, True])
def test_what_was_said_before_something_was_learnt_no_longer_counts(relearnt: bool) -> None:
    scene = Scene([Thing("cherry", along(40, 50, 0, 0))], 1)
    tracks, frame = Tracks(), scene.frame(0)
    for _ in range(5):
        tracks.join(_result(scene, 0), tracks.snapshot(scene.size_hw), (), frame)
    result = replace(_result(scene, 0, Classification(None, "cherry", 0.1)), relearnt=relearnt)
    tracks.join(result, tracks.snapshot(scene.size_hw), (), frame)
    named = len(tracks.present(frame, time_s=0)[0])
    assert named == (0 if relearnt else 1)


def test_parts_of_an_object_are_no_tracks() -> None:
    scene = Scene([Thing("cherry", along(60, 60, 0, 0), radius=20)], 1)
    whole = scene.outlined(0).masks
    dense = whole.dense(0)
    part = dense.copy()
    part[:, :71] = False
    assert 0.1 * dense.sum() < part.sum() < 0.3 * dense.sum()
    tracks, frame = Tracks(), scene.frame(0)
    tracks.join(_result(scene, 0), tracks.snapshot(scene.size_hw), (), frame)
    first = tracks.present(frame, time_s=0)[1].tolist()
    found = Detections("scene", Masks.from_dense(part), (CHERRY,))
    tracks.join(KeyFrameResult(frame, found, ((),)), tracks.snapshot(scene.size_hw), (), frame)
    assert tracks.present(frame, time_s=0.1)[1].tolist() == first


@pytest.mark.parametrize(
    ("label", "confidence", "rows", "left"),
    [
        ("cherry", 0.9, 20, [1]),
        ("cherry", 0.99, 20, [2]),
        ("plum", 0.9, 20, [1, 2]),
        ("cherry", 0.9, 5, [1, 2]),
    ],
    ids=["less sure", "surer", "another kind", "little in common"],
)
def test_of_two_that_overlap_and_have_one_label_the_surer_is_the_object(
    label: str, confidence: float, rows: int, left: list[int]
) -> None:
    """A region of water takes in half of the swan on it."""
    scene = Scene([Thing("cherry", along(60, 60, 0, 0), 20)], 1)
    tracks, frame = Tracks(), scene.frame(0)
    water = np.zeros(scene.size_hw, np.bool_)
    water[80 - rows : 100, 30:90] = True
    masks = Masks.concatenate([scene.outlined(0).masks, Masks.from_dense(water)])
    classifications = (
        Classification("cherry", "cherry", 0.95),
        Classification(label, label, confidence),
    )
    result = KeyFrameResult(
        frame, Detections("scene", masks, classifications), ((), ()), first=True
    )
    tracks.join(result, tracks.snapshot(scene.size_hw), (), frame)
    assert tracks.present(frame, time_s=0)[1].tolist() == left


@pytest.mark.parametrize(
    ("label", "event", "left"),
    [
        ("cherry", "", [1]),
        ("plum", "", [1, 2]),
        ("cherry", "taught", [2]),
        ("cherry", "crossing", [1, 2]),
    ],
)
def test_a_track_that_comes_to_lie_on_a_surer_one_of_its_label_ends(
    label: str, event: str, left: list[int]
) -> None:
    scene = Scene([Thing("cherry", along(60, 60, 0, 0), 20)], 1)
    tracks, frame = Tracks(), scene.frame(0)
    sure, less = Classification("cherry", "cherry", 0.99), Classification(label, label, 0.9)
    for x in (90, 65):
        other = np.zeros(scene.size_hw, np.bool_)
        other[40:80, x : x + 50] = True
        masks = Masks.concatenate([scene.outlined(0).masks, Masks.from_dense(other)])
        found = Detections("scene", masks, (sure, less))
        then = tracks.snapshot(scene.size_hw)
        tracks.join(KeyFrameResult(frame, found, ((), ())), then, (), frame)
        if x == 90:
            assert tracks.present(frame, time_s=0)[1].tolist() == [1, 2]
            if event == "taught":
                tracks.name(2, label, frame, None)
            if event == "crossing":
                crossing = tracks._tracks[2]
                crossing.crowded, crossing.body = True, crossing.body.moved((-25, 0))
    assert tracks.present(frame, time_s=0)[1].tolist() == left


def test_boxes_of_objects_that_came_and_went_are_forgotten() -> None:
    boxes, held = BoxTracker(), []
    for frame in range(300):
        number = frame // 3 + 1
        corner = 40 * (number % 10)
        there = np.array([[corner, corner, corner + 20, corner + 20]])
        new = {number} if frame % 3 == 0 else set()
        boxes.update([number], there, new, number * 1.0 + frame % 3 * 0.04)
        held.append(len(boxes._owners))
    assert 0 < max(held) < 10
