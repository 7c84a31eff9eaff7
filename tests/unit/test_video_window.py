"""The window of a video, driven by a display that is only pretended; and the real one's refusal."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future

import numpy as np
import pytest
from sam_detect.video.controls import ENTER, ESCAPE, SPACE

from sam_detect.errors import ImageError, MaskError, UnavailableError
from sam_detect.types import Frame, ImageRGB, Masks, TrackedFrame
from sam_detect.video import display as displays
from sam_detect.video.display import Click, window_for
from sam_detect.video.teaching import Taught
from sam_detect.video.window import Viewer
from tests.drawn_scene import Drawn, disc_xy, fresh, name_at
from tests.tracked_frames import tracked

Event = str | Click | Callable[[], None]
SCALE = 480 // 64
"""How many times a drawn frame is enlarged, about."""
QUIET = 20_000
LEARNT = Taught(added=1, relabelled=0, total=7, track_id=4)


class Pretended:
    """A display that gives prepared events once a frame is shown, a list a call, and keeps what is
    shown; a function among the events is called."""

    def __init__(self, *events: list[Event] | None) -> None:
        self.coming = list(events)
        self.shown: list[ImageRGB] = []
        self.room_hw = (0, 0)
        self.quiet = 0

    def resize(self, room_hw: tuple[int, int]) -> None:
        self.room_hw = room_hw

    def show(self, image_rgb: ImageRGB) -> None:
        assert image_rgb.shape == (*self.room_hw, 3)
        self.shown.append(image_rgb)

    def events(self, wait_s: float) -> list[str | Click] | None:
        if len(self.shown) < 2 or not self.coming:  # the first one says that there is none yet
            self.quiet += 1
            assert self.quiet < QUIET, "it waits for keys that are never pressed"
            threading.Event().wait(0.001)
            return []
        now = self.coming.pop(0)
        if now is None:
            return None
        for each in now:
            if callable(each):
                each()
        return [each for each in now if not callable(each)]

    def close(self) -> None:
        pass


class Learner:
    """Takes the place of a stream."""

    def __init__(self) -> None:
        self.asked: list[tuple[Masks | Future[Masks], str, bool]] = []
        self.points: list[tuple[int, int]] = []
        self.outlined: Future[Masks] = Future()
        self.promise: Future[Taught] = Future()

    def outline(self, frame: Frame, point_xy: tuple[int, int]) -> Future[Masks]:
        self.points.append(point_xy)
        return self.outlined

    def learn_outlined(
        self,
        frame: Frame,
        outline: Masks | Future[Masks],
        label: str,
        *,
        negative: bool,
        track_id: int,
    ) -> Future[Taught]:
        self.asked.append((outline, label, negative))
        return self.promise


def viewer(display: Pretended, *frames: TrackedFrame, **options: object) -> Viewer:
    return Viewer(Learner(), iter(frames or [tracked()]), display, **options)  # type: ignore[arg-type]


def at(point_xy: tuple[int, int], size_hw: tuple[int, int] = (48, 64)) -> Click:
    """A click on a pixel of a frame, in a window of the size it opens with."""
    width = window_for(size_hw)[1]
    x, y = ((v * width + width // 2) // size_hw[1] for v in point_xy)
    return Click((x, y))


def test_a_picture_is_shown_with_its_objects_and_a_caption() -> None:
    display = Pretended()
    assert len(list(viewer(display))) == 1
    before, shown = display.shown
    assert shown.shape[1] == 480, "enlarged, so that the caption can be read"
    assert (shown[5 * SCALE + 78, 5 * SCALE] != before[5 * SCALE + 78, 5 * SCALE]).any()
    for each in (before, shown):
        assert len(np.unique(each[-20:])) > 5, "a caption is written there"


@pytest.mark.parametrize("events", [None, ["q"], [ESCAPE]])
def test_closing_the_window_or_q_ends(events: list[Event] | None) -> None:
    frames = [tracked(i) for i in range(9)]
    assert len(list(viewer(Pretended([], [], events), *frames))) < 5


def test_q_ends_also_before_the_first_frame_is_there() -> None:
    never = threading.Event()

    def silent() -> Iterator[TrackedFrame]:
        never.wait(20)
        yield tracked()

    display = Pretended(["q"])
    display.show(np.zeros((0, 0, 3), np.uint8))  # as if one had been shown
    assert list(Viewer(Learner(), silent(), display)) == []  # type: ignore[arg-type]
    never.set()


def test_a_click_chooses_in_the_enlarged_picture() -> None:
    made = viewer(Pretended([at((5, 11)), SPACE], [SPACE]))
    list(made)
    assert made.controls.chosen == 1
    assert made._stream.points == []


def test_the_picture_fits_when_the_window_changes_and_clicks_count_there() -> None:
    display = Pretended([])
    # 300 pixels wide and 500 high: the picture lies in the middle of the height.
    display.coming = [[SPACE, lambda: display.resize((500, 300))], [], [Click((25, 168))], [SPACE]]
    made = viewer(display)
    list(made)
    assert display.shown[-1].shape == (500, 300, 3)
    assert made.controls.chosen == 1, "what is 25 of 300 pixels from the left is 5 of 64"


def test_what_is_chosen_is_set_off() -> None:
    display = Pretended([SPACE], ["1"], [SPACE])
    list(viewer(display))
    plain, chosen = display.shown[2], display.shown[3]
    assert (chosen[:-40] != plain[:-40]).any()


def test_space_holds_the_picture_until_it_comes_again() -> None:
    display = Pretended([SPACE], [], [], [], [SPACE])
    frames = [tracked(i) for i in range(3)]
    assert len(list(viewer(display, *frames))) == 3
    assert display.coming == []


def test_closing_the_window_ends_a_pause() -> None:
    assert len(list(viewer(Pretended([SPACE], [], None), *[tracked(i) for i in range(3)]))) == 1


def test_what_was_learnt_is_said_when_it_is() -> None:
    display = Pretended([SPACE, "1", "n", *"fig", ENTER], [], [])
    made = viewer(display)
    learner = made._stream
    said = []
    display.coming[1].append(lambda: said.append(made.controls.caption))  # type: ignore[union-attr]
    display.coming[2].append(lambda: learner.promise.set_result(LEARNT))  # type: ignore[union-attr]
    display.coming += [[], [SPACE, lambda: said.append(made.controls.caption)]]
    list(made)
    (outline, label, negative) = learner.asked[0]
    assert (label, negative) == ("fig", False)
    assert outline.boxes_xyxy.tolist() == [[4, 10, 16, 22]]
    assert said == ["learning: #1 is 'fig' ...", "learnt: #4 is 'fig'; the library has 7 examples"]


def test_what_could_not_be_learnt_is_said_and_nothing_ends() -> None:
    display = Pretended(["1", "x"])
    made = viewer(display, tracked(0), tracked(1))
    made._stream.promise.set_exception(RuntimeError("the library\nis busy"))
    assert len(list(made)) == 2
    assert made.controls.caption == "not learnt: the library is busy"


def test_what_was_named_is_learnt_before_it_ends() -> None:
    display = Pretended(["1", "n", *"fig", ENTER, "q"])
    made = viewer(display, *[tracked(i) for i in range(9)])
    slowly = threading.Timer(0.1, made._stream.promise.set_result, [LEARNT])
    slowly.start()
    list(made)
    assert made._stream.promise.done()


def test_something_that_is_not_followed_is_outlined_where_it_is_clicked_and_learnt() -> None:
    display = Pretended([at((40, 30))], [], [], ["n", *"fig"], [ENTER])
    made = viewer(display)
    learner = made._stream
    mask = np.zeros((48, 64), bool)
    mask[28:34, 37:44] = True
    outline = lambda: learner.outlined.set_result(Masks.from_dense(mask))  # noqa: E731
    display.coming[1].append(outline)  # type: ignore[union-attr]
    learner.promise.set_result(LEARNT)
    list(made)
    assert learner.points == [(40, 30)]
    assert learner.asked == [(learner.outlined, "fig", False)]
    ground, outlined = display.shown[2], display.shown[3]
    x, y = at((40, 30)).point_xy
    assert outlined[y, x].mean() > ground[y, x].mean() + 20, "it is lit up"


def test_a_name_may_be_typed_before_the_outline_is_there() -> None:
    display = Pretended([at((40, 30)), "n", *"fig", ENTER])
    made = viewer(display)
    made._stream.promise.set_result(LEARNT)
    list(made)
    assert made._stream.asked == [(made._stream.outlined, "fig", False)]


def test_where_nothing_can_be_outlined_it_says_so_and_goes_on() -> None:
    display = Pretended([at((40, 30)), "n", "f"])
    made = viewer(display, tracked(0), tracked(1))
    made._stream.outlined.set_exception(MaskError("no object was found at 40,30"))
    assert len(list(made)) == 2
    assert made.controls.caption == "no object was found at 40,30"


def test_a_click_outside_the_picture_does_nothing() -> None:
    display = Pretended([Click((100, 9999)), Click((100, display_foot()))])
    made = viewer(display)
    list(made)
    assert made._stream.points == []


def display_foot() -> int:
    return window_for((48, 64))[0] - 5


def test_keys_are_heard_while_the_next_frame_is_worked_on() -> None:
    heard = threading.Event()

    def slow() -> Iterator[TrackedFrame]:
        yield tracked(0)
        assert heard.wait(10), "the window was deaf"
        yield tracked(1)

    display = Pretended([], [heard.set])
    assert len(list(Viewer(Learner(), slow(), display))) == 2  # type: ignore[arg-type]


class Failing(Iterator[TrackedFrame]):
    """One frame, one that cannot be read, and another one."""

    coming = [0, 1, 2]  # noqa: RUF012

    def __next__(self) -> TrackedFrame:
        if not self.coming:
            raise StopIteration
        number = self.coming.pop(0)
        if number == 1:
            raise ImageError("frame 1 is damaged")
        return tracked(number)


def test_a_frame_that_cannot_be_read_is_raised_and_the_next_one_comes() -> None:
    made = Viewer(Learner(), Failing(), Pretended())  # type: ignore[arg-type]
    assert next(made).frame.index == 0
    with pytest.raises(ImageError):
        next(made)
    assert [each.frame.index for each in made] == [2]


@pytest.mark.alone
def test_a_file_is_shown_at_its_own_speed(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock()
    monkeypatch.setattr("sam_detect.video.window.time", clock)
    display = Pretended()
    display.events = clock.events  # type: ignore[method-assign]
    frames = [tracked(index, time_s=time) for index, time in enumerate((0, 0.06, 0.2, 0.2))]
    seen = [clock.now for _ in viewer(display, *frames, paced=True)]
    assert np.allclose(np.array(seen) - seen[0], [0, 0.06, 0.2, 0.2], atol=0.006)
    seen = [clock.now for _ in viewer(display, *frames)]
    assert seen[-1] - seen[0] < 0.05


class Clock:
    """Goes on by as long as a window waits for keys."""

    now = 100.0

    def monotonic(self) -> float:
        return self.now

    def events(self, wait_s: float) -> list[str]:
        self.now += wait_s
        threading.Event().wait(0.01)  # the next frame is taken meanwhile
        return []


def test_an_object_that_is_named_in_the_window_is_known_in_the_next_frames() -> None:
    names = []
    with fresh().stream(Drawn(), unknown=True) as stream:
        display = Pretended()
        made = Viewer(stream, stream, display)
        for each in made:
            names.append(name_at(each, disc_xy(each.frame.index)))
            if each.frame.index == 5:
                display.coming = [[at(disc_xy(5), (120, 160)), "n", *"disc", ENTER]]
            if each.frame.index == 12:
                break
    assert names[:6] == [None] * 6
    # The frame after it is taken before the name is typed.
    assert names[7:] == ["disc"] * 6
    assert made.controls.message.startswith("learnt: ")


def test_the_first_object_of_an_empty_library_is_taught_by_a_click() -> None:
    detector = fresh()
    with detector.stream(Drawn()) as stream:
        display = Pretended()
        for each in Viewer(stream, stream, display):
            if each.frame.index == 5:
                assert not len(each.detections)
                display.coming = [[at(disc_xy(5), (120, 160)), "n", *"disc", ENTER]]
    assert name_at(each, disc_xy(each.frame.index)) == "disc"
    (example,) = detector.library.read()
    x, y = disc_xy(5)
    assert np.allclose(example.bbox, [x - 16, y - 16, 33, 33], atol=2)


def test_an_object_that_was_named_by_a_click_is_followed_and_taken_back_by_a_key() -> None:
    detector, said, names = fresh(), [], []
    with detector.stream(Drawn(), live=False) as stream:
        display = Pretended()
        made = Viewer(stream, stream, display)
        for each in made:
            names.append({int(i): c.label for i, c in zip(
                each.track_ids, each.detections.classifications, strict=True)})  # fmt: skip
            said.append(made.controls.message)
            if each.frame.index == 5:
                display.coming = [[at(disc_xy(5), (120, 160)), "n", *"disc", ENTER]]
            if each.frame.index == 12:
                display.coming = [["u"]]
    assert names[:6] == [{}] * 6
    assert names[8:12] == [{1: "disc"}] * 4
    assert names[-10:] == [{}] * 10, "nothing is known any more"
    assert "learnt: #1 is 'disc'; the library has 1 example" in said
    assert said[-1] == "taken back: 'disc'"
    assert len(detector.library) == 0


@pytest.mark.parametrize(
    ("code", "key"),
    [(-1, None), (ord("n"), "n"), (0x100000 + ord("n"), "n"), (13, "enter"), (10, "enter"),
     (27, "escape"), (8, "backspace"), (9, "tab"), (0xFF51, None), (0x250000, None),
     (0xF6, "ö"), (0x43F, "п")],
)  # fmt: skip
def test_codes_of_keys(code: int, key: str | None) -> None:
    assert displays.key_of(code) == key


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="X and Wayland are Linux's")
def test_without_a_display_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UnavailableError, match="no display here"):
        displays.require_display()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="X and Wayland are Linux's")
def test_a_display_that_does_not_answer_ends_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":987")
    with pytest.raises(UnavailableError, match=r"cannot open a window here|without windows"):
        displays.require_display()


@pytest.mark.parametrize(
    ("said", "words"),
    [("x.cpp:1: The function is not implemented. Rebuild", "without windows"),
     ("qt: no xcb\nmore", r"\(qt: no xcb\)"), ("", r"\(it failed\)")],
)  # fmt: skip
def test_what_a_window_that_fails_says(
    said: str, words: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    failed = subprocess.CompletedProcess([], 1, b"", said.encode())
    monkeypatch.setenv("DISPLAY", ":0")
    monkeypatch.setattr(displays.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UnavailableError, match=words):
        displays.require_display()
