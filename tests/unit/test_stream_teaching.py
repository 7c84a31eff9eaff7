"""What is taught while a video runs is tied to its track, and can be taken back."""

from __future__ import annotations

import threading
import time
from dataclasses import replace

import numpy as np
import pytest

from sam_detect.api import SAMDetect
from sam_detect.errors import ConfigError, LibraryError
from sam_detect.library.history import Added
from sam_detect.types import Frame, Masks, TrackedFrame
from sam_detect.video import propagators, teaching
from sam_detect.video import stream as stream_module
from sam_detect.video.appearance import SoftMask
from sam_detect.video.propagators import ObjectMemory
from sam_detect.video.stream import Stream
from tests.drawn_scene import (
    FRAMES,
    SIDE,
    Drawn,
    Stepwise,
    disc_xy,
    fresh,
    name_at,
    picture,
    square_xy,
    track_at,
    with_square,
)


def disc_mask(index: int) -> np.ndarray:
    x, y = disc_xy(index)
    rows, columns = np.mgrid[:120, :160]
    return np.asarray((rows - y) ** 2 + (columns - x) ** 2 <= SIDE**2)


def share_on_disc(tracked: TrackedFrame, track_id: int) -> float:
    """IoU of a track's mask with the disc."""
    place = tracked.track_ids.tolist().index(track_id)
    mask, disc = tracked.detections.masks.dense(place), disc_mask(tracked.frame.index)
    return float((mask & disc).sum() / (mask | disc).sum())


def names(tracked: TrackedFrame) -> dict[int, str | None]:
    labels = [each.label for each in tracked.detections.classifications]
    return dict(zip(tracked.track_ids.tolist(), labels, strict=True))


def next_named(source: Stepwise, stream: Stream, track_id: int, label: str | None) -> TrackedFrame:
    """The next frame in which a track has a label (None: is not shown)."""
    while True:
        source.more.release()
        tracked = next(stream)
        if names(tracked).get(track_id) == label:
            return tracked
        time.sleep(0.02)


@pytest.mark.parametrize("propagate", ["flow", "auto"])
@pytest.mark.parametrize("later", [0, 6])
def test_an_object_that_is_taught_by_a_click_is_followed_at_once(
    later: int, propagate: str
) -> None:
    """Also if the video went on between the click and the name."""
    with fresh().stream(Drawn(), propagate=propagate) as stream:
        for tracked in stream:
            index = tracked.frame.index
            if index == 5:
                clicked = tracked.frame
                outline = stream.outline(clicked, disc_xy(5))
                outline.result()
            if index == 5 + later:
                taught = stream.learn_outlined(clicked, outline, "disc").result()
            if index <= 5 + later:
                assert not len(tracked.detections)
                continue
            assert names(tracked) == {taught.track_id: "disc"}, index
            assert share_on_disc(tracked, taught.track_id) > 0.8, index
    assert taught.added == taught.track_id == 1


def test_an_object_is_carried_from_the_frame_in_which_it_was_clicked_on() -> None:
    made = []
    with fresh().stream(Drawn(), propagate="features") as stream:
        by = stream._tracks._propagator
        assert by is not None

        def remember(frame: Frame, mask: SoftMask) -> ObjectMemory | None:
            made.append((frame.index, mask.area))
            return by.remember(frame, mask)

        stream._tracks._propagator = replace(by, remember=remember)
        frames = [next(stream).frame for _ in range(9)]
        masks = Masks.from_dense(disc_mask(3))
        stream.learn_outlined(frames[3], masks, "disc").result()
        next(stream)
    assert made[0] == (3, int(masks.areas[0]))


def test_a_live_source_shows_what_was_taught_before_it_is_learnt() -> None:
    detector, source = fresh(), Stepwise()
    learn, may_learn = detector.pipeline.learn, threading.Event()

    def slowly(*given: object, **how: object) -> Added:
        assert may_learn.wait(10)
        return learn(*given, **how)  # type: ignore[arg-type]

    detector.pipeline.learn = slowly  # type: ignore[method-assign, assignment]
    with detector.stream(source, unknown=True, every=100) as stream:
        source.more.release()
        frame = next(stream).frame
        for _ in range(12):
            source.more.release()
            tracked = next(stream)
        until = time.monotonic() + 10
        while not any(share_on_disc(tracked, i) > 0.5 for i in names(tracked)):
            assert time.monotonic() < until, "the first key frame does not find it"
            time.sleep(0.1)
            source.more.release()
            tracked = next(stream)
        masks = Masks.from_dense(disc_mask(frame.index))
        learning = stream.learn_outlined(frame, masks, "disc")
        source.more.release()
        tracked = next(stream)
        named = [track for track, label in names(tracked).items() if label == "disc"]
        assert [i for i in names(tracked) if share_on_disc(tracked, i) > 0.3] == named
        assert share_on_disc(tracked, *named) > 0.8, "carried by the flows since"
        may_learn.set()
        assert [learning.result().track_id] == named


def test_an_object_that_is_followed_stays_on_its_track_and_gets_its_new_outline() -> None:
    with fresh().stream(Drawn(), unknown=True, every=100) as stream:
        tracked = next(stream)
        track = track_at(tracked, disc_xy(0))
        there = tracked.detections.masks[tracked.track_ids == track].dense(0)
        there[: disc_xy(0)[1] - 8] = False
        taught = stream.learn_outlined(tracked.frame, Masks.from_dense(there), "disc").result()
        assert taught.track_id == track
        after = next(stream)
    assert names(after)[track] == "disc"
    assert len(after.track_ids) == len(tracked.track_ids), "no double"
    top = after.detections.boxes_xyxy[after.track_ids.tolist().index(track), 1]
    assert abs(int(top) - (disc_xy(1)[1] - 8)) <= 2


class Stubborn(SAMDetect):
    """Learns nothing, and names every object by the same sure name."""

    def __init__(self) -> None:
        super().__init__(segmenter="naive", embedder="appearance")
        self.add_examples_from_file(picture(0), disc_mask(0), "square")
        self.pipeline.learn = self.ignored  # type: ignore[method-assign]

    def ignored(self, frame: Frame, masks: Masks, labels: object, **how: object) -> Added:
        return Added(added=0, relabelled=0, total=1)


def test_votes_of_key_frames_do_not_change_what_was_taught() -> None:
    with Stubborn().stream(Drawn(), every=1) as stream:
        for tracked in stream:
            label = name_at(tracked, disc_xy(tracked.frame.index))
            assert label == ("square" if tracked.frame.index < 6 else "disc")
            if tracked.frame.index == 5:
                stream.learn(track_at(tracked, disc_xy(5)), "disc")


def test_a_detection_under_way_begins_no_second_track(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stream_module, "FIRST_S", 0.0)
    detector, source = with_square(), Stepwise()
    detect, may_detect, detecting = detector.pipeline.detect, threading.Event(), threading.Event()

    def slowly(*given: object, **how: object) -> object:
        found = detect(*given, **how)  # type: ignore[arg-type]
        detecting.set()
        assert may_detect.wait(10)
        return found

    detector.pipeline.detect = slowly  # type: ignore[method-assign, assignment]
    with detector.stream(source, unknown=True) as stream:
        source.more.release()
        frame = next(stream).frame
        assert detecting.wait(10)
        stream.learn_outlined(frame, Masks.from_dense(disc_mask(frame.index)), "disc")
        source.more.release()
        assert names(next(stream)) == {1: "square", 2: "disc"}
        may_detect.set()
        under_way = stream._pending
        while stream._pending is under_way:
            source.more.release()
            tracked = next(stream)
            time.sleep(0.02)
    on_disc = [i for i in tracked.track_ids.tolist() if share_on_disc(tracked, i) > 0.3]
    assert on_disc == [2]
    assert [label for label in names(tracked).values() if label] == ["square", "disc"]


def test_what_was_taught_on_a_track_is_taken_back() -> None:
    detector = with_square()
    before = {example.id for example in detector.library.read()}
    with detector.stream(Drawn(), unknown=True) as stream:
        for tracked in stream:
            index = tracked.frame.index
            disc, square = (track_at(tracked, at(index)) for at in (disc_xy, square_xy))
            named = names(tracked)
            if index == 3:
                stream.learn(disc, "square").result()  # wrong
                stream.learn(square, "tile").result()
            if index == 8:
                assert (named[disc], named[square]) == ("square", "tile")
                stream.learn(disc, "coin").result()  # wrong again
            if index == 9:
                assert named[disc] == "coin"
                stream.learn(disc, "coin", negative=True).result()
            if index == 10:
                assert named[disc] == "square", "as it was taught before, in the library"
                undone = stream.take_back(disc).result()
            if index > 10:
                assert (named[disc], named[square]) == (None, "tile")
    assert [dict(batch.labels) for batch in undone] == [{}, {}, {"coin": 1}, {"square": 1}]
    assert [dict(batch.negatives) for batch in undone] == [{"coin": 1}] * 2 + [{}] * 2
    (more,) = (each for each in detector.library.read() if each.id not in before)
    assert (more.label, more.negative) == ("tile", False)
    assert len(detector.library) == 2


def test_a_live_source_takes_back_what_was_taught_last() -> None:
    detector, source = fresh(), Stepwise()
    with detector.stream(source, every=5) as stream:
        source.more.release()
        frame = next(stream).frame
        masks = Masks.from_dense(disc_mask(frame.index))
        assert stream.learn_outlined(frame, masks, "disc").result().track_id == 1
        next_named(source, stream, 1, "disc")
        stream.take_back().result()
        next_named(source, stream, 1, None)
        with pytest.raises(ConfigError, match="nothing was taught on any track"):
            stream.take_back().result()
    assert len(detector.library) == 0


def test_what_another_process_took_back_already_is_no_error() -> None:
    detector = fresh()
    with detector.stream(Drawn()) as stream:
        frame = next(stream).frame
        stream.learn_outlined(frame, Masks.from_dense(disc_mask(0)), "disc").result()
        detector.library.undo()
        assert stream.take_back(1).result() == []
        with pytest.raises(ConfigError, match="nothing was taught on track 1"):
            stream.take_back(1).result()


def test_an_object_that_could_not_be_learnt_is_not_named() -> None:
    detector = fresh()

    def full(*given: object, **how: object) -> Added:
        raise LibraryError("the disk is full")

    detector.pipeline.learn = full  # type: ignore[method-assign]
    with detector.stream(Drawn(), unknown=True) as stream:
        tracked = next(stream)
        learning = stream.learn(track_at(tracked, disc_xy(0)), "disc")
        assert isinstance(learning.exception(), LibraryError)
        assert set(names(next(stream)).values()) == {None}


@pytest.mark.parametrize("kept", [2, 64])
def test_an_object_of_another_picture_or_of_long_ago_is_learnt_and_on_no_track(
    monkeypatch: pytest.MonkeyPatch, kept: int
) -> None:
    monkeypatch.setattr(teaching, "KEPT_FRAMES", kept)
    with fresh().stream(Drawn(), every=100) as stream:
        first = next(stream).frame
        for _ in range(3):
            next(stream)
        frame = first if kept == 2 else Frame(picture(0), "another", first.index)
        taught = stream.learn_outlined(frame, Masks.from_dense(disc_mask(0)), "disc").result()
        assert (taught.added, taught.track_id) == (1, 0)
        found = names(next(stream))
    assert list(found.values()) == ["disc"], "the key frame finds it"


def test_after_a_cut_nothing_is_carried_into_the_new_scene() -> None:
    class Cut(Drawn):
        def frames(self):  # type: ignore[no-untyped-def]
            for frame in super().frames():
                image = frame.image_rgb if frame.index < 3 else picture(0) // 3 + 9
                image = image if frame.index < 3 else np.ascontiguousarray(image[::-1, ::-1])
                yield Frame(image, "cut", frame.index, time_s=frame.time_s)

    with fresh().stream(Cut(), every=100) as stream:
        for tracked in stream:
            masks = Masks.from_dense(disc_mask(2))
            if tracked.frame.index == 2:
                before = tracked.frame
                assert stream.learn_outlined(before, masks, "disc").result().track_id == 1
            if tracked.frame.index == 4:
                assert stream.learn_outlined(before, masks, "disc").result().track_id == 0
            if tracked.frame.index > 2:
                assert 1 not in tracked.track_ids


def test_what_was_taught_in_the_first_frame_of_a_live_video_is_there_at_once() -> None:
    source, held = Stepwise(), threading.Event()
    detector = with_square()
    with detector.stream(source) as stream:
        stream._key_frames.run(held.wait)  # the detector is busy
        for _ in range(3):
            source.more.release()
            tracked = next(stream)
            assert names(tracked) == {1: "square"}
        x, y = square_xy(tracked.frame.index)
        assert tracked.detections[0].mask[y - 12 : y + 13, x - 12 : x + 13].all()
        held.set()
        for _ in range(8):
            source.more.release()
            assert names(next(stream)) == {1: "square"}, "the detection is of the same object"


def test_a_recording_may_be_played_like_a_camera() -> None:
    began_s = time.monotonic()
    with with_square().stream(Drawn(), live=True) as stream:
        assert stream.live
        last = [tracked.frame.index for tracked in stream][-1]
    assert last == FRAMES - 1, "the newest frame counts"
    assert time.monotonic() - began_s >= (FRAMES - 1) / 25


@pytest.mark.alone
def test_the_detector_of_a_live_video_rests_as_long_as_it_worked(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """And leaves the first seconds to what was taught in the first picture."""
    monkeypatch.setattr(stream_module, "FIRST_S", 0.3)
    detector, source, work_s = with_square(), Stepwise(), 0.2
    detect, begun_s = detector.pipeline.detect, list[float]()

    def slowly(*given: object, **how: object) -> object:
        begun_s.append(time.monotonic())
        time.sleep(work_s)
        return detect(*given, **how)  # type: ignore[arg-type]

    detector.pipeline.detect = slowly  # type: ignore[method-assign, assignment]
    with detector.stream(source, every=1) as stream:
        opened_s = time.monotonic()
        for _ in range(FRAMES):
            source.more.release()
            next(stream)
            time.sleep(0.05)
    first, second = begun_s[:2]
    assert first - opened_s >= 0.3
    assert second - first >= 2 * work_s


def test_features_carry_an_object_from_its_first_key_frame(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(propagators, "LEAST_PX", 500)
    with with_square().stream(Drawn()) as stream:
        assert names(next(stream)) == {1: "square"}
        (track,) = stream._tracks._tracks.values()
    assert track.memory is not None
