"""Learning while a video runs: what is learnt in its middle names what comes after."""

from __future__ import annotations

import subprocess
import sys
import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from sam_detect.api import SAMDetect
from sam_detect.errors import ConfigError, LibraryError
from sam_detect.labelling import KNNLabeller
from sam_detect.library.history import Added
from sam_detect.types import Classification, Detections, Frame, Masks, TrackedFrame
from tests.drawn_scene import (
    SIDE,
    Drawn,
    Stepwise,
    disc_xy,
    fresh,
    name_at,
    square_mask,
    track_at,
    with_square,
)


def test_an_unknown_object_that_is_learnt_is_named_in_the_next_frame() -> None:
    names = []
    with fresh().stream(Drawn(), unknown=True) as stream:
        for tracked in stream:
            names.append(name_at(tracked, disc_xy(tracked.frame.index)))
            if tracked.frame.index == 14:
                learnt = stream.learn(track_at(tracked, disc_xy(14)), "disc")
    assert learnt.result().added == 1
    assert names == [None] * 15 + ["disc"] * 15


@pytest.mark.parametrize("later", [0, 9])
def test_a_name_that_was_wrong_is_taken_back(later: int) -> None:
    detector, names = with_square(), []
    with detector.stream(Drawn(), unknown=True) as stream:
        for tracked in stream:
            index = tracked.frame.index
            names.append(name_at(tracked, disc_xy(index)))
            if index == 5:
                stream.learn(track_at(tracked, disc_xy(5)), "square").result()
            if index == 5 + later:
                track = track_at(tracked, disc_xy(index))
                taken_back = stream.learn(track, "square", negative=True)
    assert names[6 + later :] == [None] * (24 - later)
    assert names[6 : 6 + later] == ["square"] * later
    assert taken_back.result().total == 2 + (later > 0)
    positives = [each.bbox for each in detector.library.read() if not each.negative]
    assert len(positives) == 1, "what was said of the square holds"


def test_the_threshold_of_the_labeller_decides_in_a_video_too() -> None:
    with with_square().stream(Drawn(), unknown=True) as stream:
        tracked = next(stream)
    lowest = tracked.detections.known.confidence.min()
    strict = fresh(labeller=KNNLabeller(threshold=(lowest + 1) / 2))
    strict.add_examples_from_file(next(Drawn().frames()), square_mask(), "square")
    with strict.stream(Drawn(), unknown=True) as stream:
        found = next(stream).detections
    assert lowest in found.confidence
    assert lowest not in found.known.confidence


NEXT_SESSION = """
from tests.drawn_scene import Drawn, disc_xy, fresh, name_at, square_xy
with fresh().stream(Drawn()) as stream:
    first = next(stream)
    print(first.key, name_at(first, disc_xy(0)), name_at(first, square_xy(0)))
"""


def test_what_was_learnt_is_known_in_the_next_session_from_its_first_frame() -> None:
    with with_square().stream(Drawn(), unknown=True) as stream:
        first = next(stream)
        stream.learn(track_at(first, disc_xy(0)), "disc").result()
    done = subprocess.run(
        [sys.executable, "-c", NEXT_SESSION], capture_output=True, text=True, timeout=60,
        check=False, cwd=Path(__file__).resolve().parents[2],
    )  # fmt: skip
    assert done.stdout.split() == ["True", "disc", "square"], done.stderr


class Obedient(SAMDetect):
    """Finds the disc, and calls it surely by the name that it was taught last."""

    called = "square"
    confidence = 0.98

    def __init__(self) -> None:
        super().__init__(segmenter="naive", embedder="average")
        self.may_detect = threading.Event()
        self.may_detect.set()
        self.detecting = threading.Event()

        self.pipeline.detect = self.found_in  # type: ignore[method-assign]
        self.pipeline.learn = self.renamed  # type: ignore[method-assign]

    def found_in(self, frame: Frame, **how: object) -> Detections:
        called = self.called
        self.detecting.set()
        self.may_detect.wait(10)
        mask = np.zeros(frame.size_hw, np.uint8)
        cv2.circle(mask, disc_xy(frame.index), SIDE, 1, -1)
        classification = Classification(called, called, self.confidence)
        return Detections(frame.source_id, Masks.from_dense(mask), (classification,))

    def renamed(self, frame: Frame, masks: Masks, labels: Sequence[str], **how: object) -> Added:
        self.called = labels[0]
        return Added(added=1, relabelled=0, total=1)


def test_learning_replaces_a_label_of_many_votes() -> None:
    detector = Obedient()
    names = []
    with detector.stream(Drawn(), every=1) as stream:
        for tracked in stream:
            names.append(name_at(tracked, disc_xy(tracked.frame.index)))
            if tracked.frame.index == 19:
                stream.learn(1, "disc")
    assert names == ["square"] * 20 + ["disc"] * 10


def test_an_uncertain_object_is_shown_once_another_key_frame_confirms_it() -> None:
    detector, named = Obedient(), []
    detector.confidence = 0.6
    with detector.stream(Drawn()) as stream:
        for tracked in stream:
            named.append(bool(len(tracked.detections)))
    assert named == [False] * 10 + [True] * 20


def test_what_is_found_by_what_was_just_learnt_is_shown_at_once() -> None:
    """The votes before it do not count, and none is waited for."""
    detector, named = Obedient(), []
    detector.confidence = 0.6
    with detector.stream(Drawn()) as stream:
        for tracked in stream:
            named.append(bool(len(tracked.detections)))
            if tracked.frame.index == 5:
                with_square()  # in the same library
    assert named == [False] * 10 + [True] * 20


def test_a_running_detection_does_not_outvote_what_is_learnt() -> None:
    detector, source = Obedient(), Stepwise()

    def until(wanted: Callable[[TrackedFrame], bool]) -> TrackedFrame:
        while True:
            source.more.release()
            tracked = next(stream)
            if wanted(tracked):
                return tracked
            time.sleep(0.05)  # detection runs in the background

    with detector.stream(source, every=1) as stream:
        until(lambda tracked: len(tracked.detections) > 0)
        detector.may_detect.clear()
        detector.detecting.clear()
        until(lambda tracked: detector.detecting.is_set())
        stream.learn(1, "disc")
        detector.may_detect.set()
        named = until(lambda tracked: tracked.detections.classifications[0].label == "disc")
    assert named.detections.classifications[0].confidence > 0.9, "one vote is enough"


def test_only_an_object_of_the_last_frame_can_be_learnt() -> None:
    with fresh().stream(Drawn(), unknown=True) as stream:
        with pytest.raises(ConfigError, match="track 1"):
            stream.learn(1, "disc")
        next(stream)
        with pytest.raises(ConfigError, match="track 99"):
            stream.learn(99, "disc")


def test_what_is_learnt_from_another_thread_is_of_the_frame_that_was_given() -> None:
    """Learning from another thread does not stop the stream."""
    detector, given, taught = fresh(), {}, []

    def note(frame: Frame, masks: Masks, labels: Sequence[str], **how: object) -> Added:
        taught.append((frame.index, int(labels[0]), masks.boxes_xyxy[0].tolist()))
        return Added(added=1, relabelled=0, total=1)

    detector.pipeline.learn = note  # type: ignore[assignment, method-assign]
    done, failed = threading.Event(), []

    def press() -> None:
        while not done.wait(0.001):
            shown = given.get(max(given, default=-1), {})
            for track_id in shown:
                try:
                    stream.learn(track_id, str(track_id))
                except ConfigError as error:  # the object has just left
                    failed.append(error)

    with detector.stream(Drawn(), unknown=True) as stream:
        thread = threading.Thread(target=press)
        thread.start()
        for tracked in stream:
            boxes = tracked.detections.boxes_xyxy.tolist()
            given[tracked.frame.index] = dict(zip(tracked.track_ids.tolist(), boxes, strict=True))
        done.set()
        thread.join()
    assert len(taught) > 20
    assert [box for _, _, box in taught] == [given[at][track] for at, track, _ in taught]


def test_what_cannot_be_learnt_is_said_at_once() -> None:
    with fresh().stream(Drawn(), unknown=True) as stream:
        track = int(next(stream).track_ids[0])
        with pytest.raises(LibraryError, match="visible character"):
            stream.learn(track, " ")
    with fresh().stream(Drawn(), unknown=True, track=False) as stream:
        next(stream)
        with pytest.raises(ConfigError, match="does not follow"):
            stream.learn(0, "disc")


def test_without_tracks_every_frame_is_detected_on_its_own() -> None:
    detector = with_square()
    with detector.stream(Drawn(), track=False, unknown=True) as stream:
        for tracked, _ in zip(stream, range(3), strict=False):
            assert tracked.key
            assert not tracked.track_ids.any()
            frame = tracked.frame
            alone = detector.detect(frame).to_dict()
            assert tracked.detections.to_dict()["detections"] == alone["detections"]
    with detector.stream(Drawn(), track=False) as stream:
        assert {v.label for v in next(stream).detections.classifications} == {"square"}
