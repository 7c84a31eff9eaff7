"""The threads of a stream: reading ahead, keyframe detection, writing; and how all of it stops."""

from __future__ import annotations

import gc
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from live_server import Camera, live, numbered_parts
from video_files import SIZE_HW, number_of, picture, pictures, write_video

from sam_detect import SAMDetect
from sam_detect.errors import ConfigError, ExtensionError, ImageError, OutputError
from sam_detect.interfaces import Segmenter, Source, VideoSink
from sam_detect.types import NO_HINTS, Detections, Frame, Hints, Masks, TrackedFrame
from sam_detect.types.masks import BoolArray
from sam_detect.vector_store import MemoryVectorStore
from sam_detect.video import threads as threads_module
from sam_detect.video.propagators import by_features
from sam_detect.video.threads import QUEUED, Reader, Recorder, queue_length

SOON_S = 2.0
pytestmark = pytest.mark.alone


class Given(Source):
    """Gives numbered frames, and errors, as they are told; waits where it is told to."""

    def __init__(self, *items: int | Exception | threading.Event, live: bool = False) -> None:
        self.name, self.live = "given", live
        self.items = items
        self.asked = 0
        self.closed = False
        self.stopped = threading.Event()

    def frames(self) -> Iterator[Frame]:
        try:
            for item in self.items:
                self.asked += 1
                if isinstance(item, threading.Event):
                    item.wait(10)
                elif isinstance(item, Exception):
                    raise item
                else:
                    yield frame(item)
        finally:
            self.closed = True

    def stop(self) -> None:
        self.stopped.set()
        for item in self.items:
            if isinstance(item, threading.Event):
                item.set()


def frame(number: int) -> Frame:
    return Frame(picture(number), "given", number, time_s=number / 25)


def tracked(number: int) -> TrackedFrame:
    found = Detections("given", Masks.empty(SIZE_HW), ())
    return TrackedFrame(frame(number), found, np.zeros(0, np.int64))


def soon(true: Callable[[], bool]) -> bool:
    """Whether something is true within a short time."""
    until = time.monotonic() + SOON_S
    while not true() and time.monotonic() < until:
        time.sleep(0.005)
    return true()


def threads() -> set[str]:
    return {each.name for each in threading.enumerate() if each.name.startswith("sam-detect")}


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    yield
    assert soon(lambda: not threads()), threads()


# ---- reading


def test_of_a_file_none_is_lost_to_a_slow_reader() -> None:
    source = Given(*range(3 * QUEUED))
    reader = Reader(source, live=False, prepare=lambda each: each.index)
    assert soon(lambda: reader.waiting == QUEUED)
    time.sleep(0.05)
    assert source.asked <= QUEUED + 1
    assert [arrival.prepared for arrival in reader] == list(range(3 * QUEUED))
    assert reader.dropped == 0


def test_of_huge_frames_fewer_wait() -> None:
    huge = Frame(np.zeros((2160, 3840, 3), np.uint8), "huge", 0)
    assert (queue_length(huge), queue_length(frame(0))) == (8, QUEUED)
    vast = Frame(np.broadcast_to(np.uint8(0), (30_000, 30_000, 3)), "vast", 0)
    assert queue_length(vast) == 2


def test_no_more_huge_frames_wait_than_have_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threads_module, "HELD_BYTES", 5 * picture(0).nbytes)
    source = Given(*range(20))
    reader = Reader(source, live=False, prepare=lambda each: each.index)
    assert soon(lambda: reader.waiting == 5)
    go_on = threading.Event()
    recorder = Recorder([Kept(wait=go_on)], live=True)
    for number in range(12):
        recorder.write(tracked(number))
    assert recorder.waiting <= 5
    assert recorder.dropped >= 6
    go_on.set()
    recorder.close()
    assert [arrival.prepared for arrival in reader] == list(range(20))


def test_frames_without_number_or_time_get_them() -> None:
    class Plain(Source):
        name, live = "plain", False

        def frames(self) -> Iterator[Frame]:
            yield from (Frame(picture(0), "plain", index) for index in (0, 0, 5, 0))

    found = [arrival.frame for arrival in Reader(Plain(), live=False, prepare=id)]
    assert [frame.index for frame in found] == [0, 1, 5, 6]
    assert [frame.time_s for frame in found] == pytest.approx([0, 0.04, 0.2, 0.24])


def test_shared_frames_are_read_only() -> None:
    arrival = next(Reader(Given(0), live=False, prepare=id))
    with pytest.raises(cv2.error):
        cv2.rectangle(arrival.frame.image_rgb, (0, 0), (5, 5), (255, 0, 0))
    cv2.rectangle(arrival.frame.image_rgb.copy(), (0, 0), (5, 5), (255, 0, 0))


def test_waiting_frames_can_be_read_ahead() -> None:
    reader = Reader(Given(0, 1, 2, ImageError("bad")), live=False, prepare=lambda each: each.index)
    assert soon(lambda: reader.waiting == 4)
    assert [arrival.prepared for arrival in reader.ahead()] == [0, 1, 2]
    assert next(reader).prepared == 0
    assert [arrival.prepared for arrival in reader.ahead()] == [1, 2]
    reader.stop()
    newest = Reader(Given(0, live=True), live=True, prepare=id)
    assert soon(lambda: newest.waiting == 1)
    assert newest.ahead() == []
    newest.stop()


def test_of_a_live_source_the_newest_counts() -> None:
    go_on = threading.Event()
    source = Given(0, 1, 2, 3, go_on, 4, live=True)
    reader = Reader(source, live=True, prepare=lambda each: each.index)
    assert soon(lambda: source.asked == 5)
    assert next(reader).frame.index == 3
    go_on.set()
    assert [arrival.frame.index for arrival in reader] == [4]
    assert reader.dropped == 3


def test_what_a_live_source_complains_of_comes_after_its_last_frame() -> None:
    reader = Reader(Given(0, 1, ImageError("gone"), live=True), live=True, prepare=id)
    assert soon(lambda: reader.waiting == 2)
    assert next(reader).frame.index == 1
    with pytest.raises(ImageError, match="gone"):
        next(reader)
    assert list(reader) == []


def test_what_a_source_raises_reaches_who_reads() -> None:
    reader = Reader(Given(0, RuntimeError("broken")), live=False, prepare=id)
    assert next(reader).frame.index == 0
    with pytest.raises(RuntimeError, match="broken"):
        next(reader)
    assert list(reader) == []


@pytest.mark.parametrize("live_one", [False, True])
def test_a_stopped_reader_ends_a_wait(live_one: bool) -> None:
    source = Given(0, threading.Event(), 1, live=live_one)
    reader = Reader(source, live=live_one, prepare=id)
    next(reader)
    threading.Timer(0.1, reader.stop).start()
    began = time.monotonic()
    assert list(reader) == []
    assert time.monotonic() - began < SOON_S
    assert reader.wait(SOON_S)
    assert source.closed


def test_a_reader_that_is_far_ahead_stops() -> None:
    source = Given(*range(3 * QUEUED))
    reader = Reader(source, live=False, prepare=id)
    assert soon(lambda: reader.waiting == QUEUED)
    reader.stop()
    assert reader.wait(SOON_S)
    assert source.closed


# ---- writing


class Kept(VideoSink):
    """Keeps the numbers of the frames; waits, and raises, where it is told to."""

    def __init__(
        self,
        *,
        wait: threading.Event | None = None,
        raise_at: int | None = None,
        raise_in_close: bool = False,
    ) -> None:
        self.numbers: list[int] = []
        self.closed = 0
        self._wait, self._raise_at, self._raise_in_close = wait, raise_at, raise_in_close

    def write(self, tracked: TrackedFrame) -> None:
        if self._wait is not None:
            self._wait.wait(10)
        if tracked.frame.index == self._raise_at:
            raise OutputError("the disk is full")
        self.numbers.append(tracked.frame.index)

    def close(self) -> list[Path]:
        self.closed += 1
        if self._raise_in_close:
            raise OutputError("the disk is full, too")
        return [Path("kept")]


def test_every_frame_is_written_in_order_before_the_end() -> None:
    sink = Kept()
    recorder = Recorder([sink], live=False)
    for number in range(50):
        recorder.write(tracked(number))
    assert recorder.close() == [Path("kept")]
    assert recorder.close() == [Path("kept")]
    assert (sink.numbers, sink.closed) == (list(range(50)), 1)
    assert recorder.dropped == 0


def test_a_slow_sink_holds_a_file_up_and_loses_frames_of_a_live_source() -> None:
    go_on = threading.Event()
    sink = Kept(wait=go_on)
    recorder = Recorder([sink], live=True)
    for number in range(QUEUED + 10):
        recorder.write(tracked(number))
        if number == 0:
            assert soon(lambda: recorder.waiting == 0)
    assert recorder.dropped == 9
    go_on.set()
    recorder.close()
    assert sink.numbers == list(range(QUEUED + 1))

    go_on.clear()
    sink = Kept(wait=go_on)
    recorder = Recorder([sink], live=False)
    threading.Timer(0.2, go_on.set).start()
    for number in range(QUEUED + 10):
        recorder.write(tracked(number))
    recorder.close()
    assert sink.numbers == list(range(QUEUED + 10))


def test_a_sink_that_fails_ends_the_writing_once_and_all_are_closed() -> None:
    bad, good = Kept(raise_at=3), Kept()
    recorder = Recorder([bad, good], live=False)

    def write_on() -> None:
        for number in range(10 * QUEUED):
            recorder.write(tracked(number))

    with pytest.raises(OutputError, match="disk is full"):
        write_on()
    recorder.write(tracked(99))  # does not wait, is not written, does not raise again
    assert recorder.close() == [Path("kept")] * 2
    assert bad.numbers == good.numbers == [0, 1, 2]
    assert (bad.closed, good.closed) == (1, 1)


def test_a_sink_that_fails_while_frames_wait_blocks_nothing() -> None:
    go_on = threading.Event()
    recorder = Recorder([Kept(wait=go_on, raise_at=0)], live=False)
    for number in range(QUEUED):
        recorder.write(tracked(number))
    threading.Timer(0.1, go_on.set).start()
    with pytest.raises(OutputError, match="disk is full"):
        [recorder.write(tracked(number)) for number in range(QUEUED, 3 * QUEUED)]
    recorder.close()


def test_a_sink_that_cannot_be_closed_is_said_and_the_others_are_closed() -> None:
    bad, good = Kept(raise_in_close=True), Kept()
    recorder = Recorder([bad, good], live=False)
    recorder.write(tracked(0))
    with pytest.raises(OutputError, match="full, too"):
        recorder.close()
    assert good.closed == 1


def test_a_hurry_gives_up_what_waits() -> None:
    go_on = threading.Event()
    sink = Kept(wait=go_on)
    recorder = Recorder([sink], live=False)
    recorder.write(tracked(0))
    assert soon(lambda: recorder.waiting == 0)
    for number in range(1, QUEUED):
        recorder.write(tracked(number))
    threading.Timer(0.2, go_on.set).start()
    assert recorder.close(drop_pending=True) == [Path("kept")]
    assert sink.numbers == [0]
    assert recorder.dropped == QUEUED - 1


def test_a_hurry_does_not_wait_for_a_disk_that_hangs() -> None:
    never = threading.Event()
    sink = Kept(wait=never)
    recorder = Recorder([sink], live=False)
    recorder.write(tracked(0))
    assert soon(lambda: recorder.waiting == 0)
    began = time.monotonic()
    with pytest.raises(OutputError, match="not complete"):
        recorder.close(drop_pending=True)
    assert time.monotonic() - began < SOON_S
    assert sink.closed == 0  # it is still in use
    never.set()


# ---- streams


class Centre(Segmenter):
    """Proposes the middle of the picture; waits, and raises, where it is told to."""

    def __init__(self, *, wait: threading.Event | None = None, raise_at: int = 10**9) -> None:
        self.detections = 0
        self._wait, self._raise_at = wait, raise_at

    def propose(self, frame: Frame, hints: Hints = NO_HINTS) -> Masks:
        self.detections += 1
        if self.detections > self._raise_at:
            raise RuntimeError("broken on purpose")
        if self._wait is not None and self.detections > 1:
            self._wait.wait(10)
        mask: BoolArray = np.zeros(frame.size_hw, bool)
        height, width = frame.size_hw
        mask[height // 3 : 2 * height // 3, width // 3 : 2 * width // 3] = True
        return Masks.from_dense(mask, size_hw=frame.size_hw)


def detector(segmenter: Segmenter | None = None) -> SAMDetect:
    return SAMDetect(
        segmenter=segmenter or Centre(),
        embedder="average",
        vector_store=MemoryVectorStore(),
        stream_timeout_s=30,
    )


@pytest.fixture
def film(tmp_path: Path) -> Path:
    return write_video(tmp_path / "film.mp4", 60)


def test_a_file_gives_all_its_frames_to_a_slow_consumer(film: Path) -> None:
    found = []
    with detector().stream(film) as stream:
        for each in stream:
            found.append(number_of(each.frame.image_rgb))
            if len(found) % 20 == 0:
                time.sleep(0.1)
    assert found == list(range(60))
    assert stream.statistics.dropped == 0
    assert (stream.name, stream.live) == (str(film), False)


def test_a_slow_consumer_of_a_live_stream_gets_the_newest() -> None:
    by_features(live=True)  # loaded once in a process; the camera would be through meanwhile
    with live(Camera(numbered_parts(60))) as server, detector().stream(server.url) as stream:
        first = number_of(next(stream).frame.image_rgb)
        time.sleep(0.4)
        second = number_of(next(stream).frame.image_rgb)
        rest = [number_of(each.frame.image_rgb) for each in stream]
    assert second - first > 5
    assert stream.statistics.dropped == 60 - 2 - len(rest)
    assert stream.live
    assert rest[-1] == 59


def test_a_consumer_that_leaves_the_loop_leaves_no_thread(film: Path) -> None:
    for each in detector().stream(film):
        assert each.frame.index == 0
        break
    gc.collect()
    assert soon(lambda: not threads())


def test_a_consumer_that_raises_leaves_no_thread(film: Path) -> None:
    def consume() -> None:
        with detector().stream(film) as stream:
            for each in stream:
                raise KeyError(each.frame.index)

    with pytest.raises(KeyError):
        consume()
    assert soon(lambda: not threads())


def test_a_close_from_another_thread_ends_a_wait_for_a_frame() -> None:
    camera = Camera(numbered_parts(20), silent_after=5)
    with live(camera) as server:
        stream = detector().stream(server.url)
        threading.Timer(0.5, stream.close).start()
        began = time.monotonic()
        frames = list(stream)
        assert time.monotonic() - began < SOON_S
    assert frames


def test_a_close_from_another_thread_ends_a_wait_for_a_detection(film: Path) -> None:
    go_on = threading.Event()
    stream = detector(Centre(wait=go_on)).stream(film, every=5)
    threading.Timer(0.5, stream.close).start()
    began = time.monotonic()
    frames = list(stream)
    assert time.monotonic() - began < SOON_S
    assert len(frames) == 5  # the detection in the sixth did not end
    go_on.set()


def test_a_closed_stream_can_be_closed_again_and_gives_nothing(film: Path) -> None:
    stream = detector().stream(film)
    next(stream)
    stream.close()
    began = time.monotonic()
    stream.close()
    assert time.monotonic() - began < 0.5
    assert list(stream) == []


def test_nothing_is_learnt_from_a_closed_stream(film: Path) -> None:
    stream = detector().stream(film, unknown=True)
    track = int(next(stream).track_ids[0])
    stream.close()
    with pytest.raises(ConfigError, match="stream is closed"):
        stream.learn(track, "middle").result(timeout=SOON_S)


def test_a_raising_detector_ends_the_stream(film: Path) -> None:
    stream = detector(Centre(raise_at=2)).stream(film, every=5)
    frames = []
    with pytest.raises(ExtensionError, match=r"the segmenter Centre failed .* broken on purpose"):
        frames += [next(stream) for _ in range(60)]
    assert list(stream) == []
    assert soon(lambda: not threads())


def test_a_source_that_raises_ends_the_stream() -> None:
    stream = detector().stream(Given(0, 1, RuntimeError("broken")))
    assert [next(stream).frame.index for _ in range(2)] == [0, 1]
    with pytest.raises(RuntimeError, match="broken"):
        next(stream)
    assert list(stream) == []
    stream.close()


def test_new_tracks_begin_where_the_size_changes(tmp_path: Path) -> None:
    one = write_video(tmp_path / "1.ts", 12).read_bytes()
    other = write_video(tmp_path / "2.ts", pictures(12, (180, 240), first=12)).read_bytes()
    (tmp_path / "both.ts").write_bytes(one + other)
    with detector().stream(tmp_path / "both.ts", unknown=True, every=4) as stream:
        frames = list(stream)
    assert [each.frame.size_hw for each in frames] == [SIZE_HW] * 12 + [(180, 240)] * 12
    before = {int(track) for each in frames[:12] for track in each.track_ids}
    after = {int(track) for each in frames[12:] for track in each.track_ids}
    assert before
    assert after
    assert not before & after
    assert frames[12].key


def test_reconnects_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("sam_detect.io._reconnect.FIRST_PAUSE_S", 0.02)
    camera = Camera(numbered_parts(12), break_before={6})
    with (
        live(camera) as server,
        detector().stream(server.url, live=False) as stream,
        pytest.warns(UserWarning, match="reconnected"),
    ):
        frames = list(stream)
    assert [number_of(each.frame.image_rgb) for each in frames] == list(range(12))
    assert stream.statistics.reconnects == 1


IN_NATIVE_CODE = """
import threading, time
import numpy as np
from sam_detect import SAMDetect
from sam_detect.interfaces import Segmenter, Source
from sam_detect.models.efficientnet_lite0 import shared_network
from sam_detect.types import Frame, Masks

network, inside = shared_network(), threading.Event()

class Slow(Segmenter):
    def propose(self, frame, hints=None):
        until = time.monotonic() + 2.5
        while time.monotonic() < until:
            inside.set()
            network(np.zeros((1, 3, 256, 256), np.float32))
        return Masks.empty(frame.size_hw)

class Camera(Source):
    live = True
    def frames(self):
        for index in range(1000):
            yield Frame(np.zeros((64, 64, 3), np.uint8), "camera", index=index)
            time.sleep(0.02)

with SAMDetect(segmenter=Slow(), vector_store="memory").stream(Camera()) as stream:
    next(stream)
    inside.wait(20)
print("left")
"""


def test_a_program_may_end_while_a_detection_is_in_native_code(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", IN_NATIVE_CODE],
        env={**os.environ, "SAM_DETECT_HOME": str(tmp_path)},
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout, done.stderr) == (0, "left\n", "")
