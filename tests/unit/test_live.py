"""What others see of a video, and teach, without HTTP; what is sent, and what may be said."""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator

import cv2
import numpy as np
import pytest

from sam_detect.errors import ConfigError, ImageError, LibraryError, MaskError, NotFoundError
from sam_detect.server import live_frames
from sam_detect.server.live import LiveSession, ShownFrame, object_at
from sam_detect.server.live_app import MOST_CHARACTERS, Look, Name, read_message
from sam_detect.server.live_frames import LiveEncoder, Pace, header, to_jpeg
from sam_detect.types import Masks, TrackedFrame
from tests.drawn_scene import Drawn, disc_xy, fresh, name_at
from tests.tracked_frames import tracked

WAIT_S = 20


def scene(index: int = 0) -> TrackedFrame:
    """Track 1 a nut, 12 unknown, 13 a leaf that lies on the nut."""
    return tracked(index, {1: ("nut", (4, 4)), 12: (None, (40, 20)), 13: ("leaf", (10, 10))})


class Silent:
    """Takes the place of a stream that learns nothing."""

    name, live = "drawn", False
    closed = False

    def close(self) -> None:
        self.closed = True


def session(**options: bool) -> LiveSession:
    return LiveSession(Silent(), ["nut"], **options)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("point_xy", "track"),
    [((5, 5), 1), ((41, 21), 12), ((20, 20), 13), ((60, 40), None), ((0, 0), None)],
)
def test_the_object_at_a_point(point_xy: tuple[int, int], track: int | None) -> None:
    place = object_at(scene(), point_xy)
    assert (None if place is None else scene().track_ids[place]) == track


def test_an_object_is_named_by_a_click_followed_and_taken_back() -> None:
    detector, names = fresh(), []
    with detector.stream(Drawn(), live=False) as stream:
        live = LiveSession(stream)
        for each in live.show(stream):
            names.append({int(i): c.label for i, c in zip(
                each.track_ids, each.detections.classifications, strict=True)})  # fmt: skip
            if each.frame.index == 5:
                seen = live.look(each, point_xy=disc_xy(5))
                taught = live.name_object(live.seen(seen.key), " disc ").result(WAIT_S)
                assert (taught.track_id, taught.total, live.labels) == (1, 1, ["disc"])
            if each.frame.index == 12:
                (batch,) = live.take_back(None).result(WAIT_S)
                assert dict(batch.labels) == {"disc": 1}
    assert names[:6] == [{}] * 6
    assert names[6:13] == [{1: "disc"}] * 7
    assert names[-10:] == [{}] * 10
    assert len(detector.library) == 0


def test_an_object_in_a_box_and_one_on_a_track() -> None:
    detector = fresh()
    with detector.stream(Drawn(), unknown=True, live=False) as stream:
        live = LiveSession(stream)
        first = next(live.show(stream))
        x, y = disc_xy(0)
        seen = live.look(first, box_xywh=(x - 20, y - 20, 40, 40))
        assert seen.masks.result(WAIT_S).dense(0)[y, x]
        with pytest.raises(MaskError, match="not in the picture"):
            live.look(first, box_xywh=(100, 100, 100, 10))
        with pytest.raises(MaskError, match="not in the picture"):
            live.look(first, point_xy=(160, 0))
        with pytest.raises(NotFoundError, match="#99"):
            live.look_at_track(99)
        place = object_at(first, disc_xy(0))
        assert place is not None
        on = live.look_at_track(int(first.track_ids[place]))
        with pytest.raises(LibraryError):
            live.name_object(on, "  ")
        live.name_object(on, "disc").result(WAIT_S)
        # The frame that stands still says so, before another one comes.
        assert live.shown is not None
        said = {each["id"]: each["label"] for each in header(live.shown)["tracks"]}
        assert said[on.track_id] == "disc"
        assert name_at(next(live.show(stream)), disc_xy(1)) == "disc"
        live.name_object(live.look_at_track(on.track_id), "disc", negative=True).result(WAIT_S)
        assert [each["label"] for each in header(live.shown)["tracks"]].count("disc") == 0


def test_what_is_named_in_the_last_frame_is_outlined_there() -> None:
    with fresh().stream(Drawn(), live=False) as stream:
        live = LiveSession(stream)
        *_, last = live.show(stream)
        live.end()
        assert live.shown is not None
        number = live.shown.number
        index = last.frame.index
        live.name_object(live.look(last, point_xy=disc_xy(index)), "disc").result(WAIT_S)
        (track,) = header(live.shown)["tracks"]
        assert (track["label"], live.shown.number > number) == ("disc", True)
        assert np.allclose(track["bbox_xywh"][2:], 33, atol=3)
        live.take_back().result(WAIT_S)
        assert header(live.shown)["tracks"] == []


def test_a_frame_that_cannot_be_read_is_raised_and_the_next_one_comes() -> None:
    class Failing(Iterator[TrackedFrame]):
        coming = [0, 1, 2]  # noqa: RUF012

        def __next__(self) -> TrackedFrame:
            if not self.coming:
                raise StopIteration
            number = self.coming.pop(0)
            if number == 1:
                raise ImageError("frame 1 is damaged")
            return tracked(number)

    shown = session().show(Failing())
    assert next(shown).frame.index == 0
    with pytest.raises(ImageError):
        next(shown)
    assert [each.frame.index for each in shown] == [2]


def test_a_pause_holds_the_frames_until_it_ends() -> None:
    live = session()
    live.pause(paused=True)
    shown: list[TrackedFrame] = []
    taking = threading.Thread(target=lambda: shown.extend(live.show(iter([scene(), scene(1)]))))
    taking.start()
    taking.join(0.3)
    assert shown == []
    live.pause(paused=False)
    taking.join(WAIT_S)
    assert len(shown) == 2


def test_finishing_ends_a_pause_and_closes_the_stream() -> None:
    live, told = session(), threading.Event()
    leave = live.listen(told.set)
    live.pause(paused=True)
    threading.Timer(0.1, live.finish).start()
    assert list(live.show(iter([scene()]))) == []
    assert told.is_set()
    leave()
    live.wait()
    with pytest.raises(ConfigError, match="finished"):
        live.take_back()


def test_a_file_is_shown_at_its_own_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    waits: list[float] = []
    live = session(paced=True)
    monkeypatch.setattr("sam_detect.server.live.time", Clock(waits))
    monkeypatch.setattr(live._changed, "wait", waits.append)
    list(live.show(iter([tracked(i, time_s=t) for i, t in enumerate((0, 0.06, 0.2))])))
    assert sum(waits) == pytest.approx(0.2)


class Clock:
    """Goes on by as long as it is waited for."""

    def __init__(self, waits: list[float]) -> None:
        self._waits = waits

    def monotonic(self) -> float:
        return 100 + sum(self._waits)


def test_only_the_last_clicks_are_kept() -> None:
    live = session()
    keys = [live.look(scene(), point_xy=(5, 5)).key for _ in range(40)]
    assert live.seen(keys[-1]).track_id == 1
    with pytest.raises(NotFoundError, match="too long ago"):
        live.seen(keys[0])


def test_a_slow_client_gets_the_latest_frame_and_skips_the_others() -> None:
    pace, encoder = Pace(), LiveEncoder()
    sent = []
    for number in range(1, 21):
        if pace.takes(number):
            pace.note_sent(encoder.encode(ShownFrame(number, scene())))
            sent.append(number)
        if number == 10:
            pace.note_got(1)
        if number == 15:
            pace.note_got(99)
    assert sent == [1, 2, 11, 16, 17]
    assert not pace.takes(17)
    assert set(pace.sent) == {2, 11, 16, 17}


def test_a_frame_is_encoded_once_for_all() -> None:
    encoder, shown = LiveEncoder(), ShownFrame(1, scene())
    first = encoder.encode(shown)
    assert encoder.encode(shown) is first
    renamed = encoder.encode(ShownFrame(2, shown.tracked, {12: ("fig", None)}))
    assert renamed.jpeg is first.jpeg
    assert [each["label"] for each in json.loads(renamed.header)["tracks"]] == [
        "nut",
        "fig",
        "leaf",
    ]


def test_what_is_said_of_a_frame() -> None:
    said = json.loads(LiveEncoder().encode(ShownFrame(7, scene(3))).header)
    assert (said["number"], said["frame"], said["size_hw"]) == (7, 3, [48, 64])
    first = said["tracks"][0]
    assert (first["id"], first["label"], first["confidence"]) == (1, "nut", 0.75)
    assert first["bbox_xywh"] == [4, 4, 12, 12]
    ring = np.array(first["rings"][0])
    assert np.allclose([ring.min(0), ring.max(0)], [[4, 4], [16, 16]], atol=1)


def test_pictures_are_sent_in_a_bounded_size(monkeypatch: pytest.MonkeyPatch) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (1500, 3000, 3), np.uint8)
    sent = to_jpeg(noise)
    opened = cv2.imdecode(np.frombuffer(sent, np.uint8), cv2.IMREAD_COLOR)
    assert opened is not None
    assert opened.shape == (640, 1280, 3)
    monkeypatch.setattr(live_frames, "MOST_BYTES", len(sent) * 2 // 3)
    assert len(to_jpeg(noise)) < len(sent) * 2 // 3
    small = to_jpeg(np.zeros((1, 2, 3), np.uint8))
    assert cv2.imdecode(np.frombuffer(small, np.uint8), cv2.IMREAD_COLOR).shape == (1, 2, 3)


def test_a_hole_is_a_ring_of_its_own() -> None:
    mask = np.zeros((60, 80), bool)
    mask[10:50, 10:50] = True
    mask[20:40, 20:40] = False
    assert len(live_frames.rings(Masks.from_dense(mask), 0)) == 2


def test_messages() -> None:
    look = read_message('{"type": "look", "id": "a", "number": 3, "point_xy": [1, 2.5]}')
    assert isinstance(look, Look)
    assert look.point_xy == (1, 2.5)
    name = read_message('{"type": "name", "id": "a", "track": 3, "label": "<b>"}')
    assert isinstance(name, Name)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("{", "Invalid JSON"), ("[]", "object"), ('{"type": "dance", "id": "a"}', "dance"),
        ('{"type": "undo"}', "id"), ('{"type": "undo", "id": "a", "more": 1}', "more"),
        ('{"type": "look", "id": "a", "point_xy": [NaN, 1]}', "finite"),
        ('{"type": "look", "id": "a", "point_xy": [-1, 1]}', "greater"),
        ('{"type": "name", "id": "a", "track": "3", "label": "x"}', "track"),
        ('{"type": "name", "id": "a", "track": 3, "label": 7}', "label"),
        ('{"type": "undo", "id": "' + "a" * MOST_CHARACTERS + '"}', "characters"),
    ],
)  # fmt: skip
def test_messages_that_make_no_sense(text: str, words: str) -> None:
    with pytest.raises(ConfigError, match=words):
        read_message(text)
