"""The window of a video, driven by a display that is only pretended; and the real one's refusal."""

from __future__ import annotations

import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from sam_detect.errors import ImageError, UnavailableError
from sam_detect.types import ImageRGB, TrackedFrame
from sam_detect.video import display as displays
from sam_detect.video.display import ESCAPE
from sam_detect.video.window import Viewer
from tests.tracked_frames import tracked

Event = str | Callable[[], None]
SCALE = 480 // 64
"""How many times a drawn frame is enlarged, about."""
QUIET = 20_000


class Pretended:
    """A display that gives prepared keys once a frame is shown, a list a call, and keeps what is
    shown; a function among the keys is called."""

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

    def events(self, wait_s: float) -> list[str] | None:
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


def viewer(display: Pretended, *frames: TrackedFrame, **options: bool) -> Viewer:
    return Viewer(iter(frames or [tracked()]), display, **options)  # type: ignore[arg-type]


def test_a_picture_is_shown_with_its_objects_and_a_caption() -> None:
    display = Pretended()
    assert len(list(viewer(display))) == 1
    before, shown = display.shown
    assert shown.shape[1] == 480, "enlarged, so that the caption can be read"
    assert (shown[5 * SCALE + 78, 5 * SCALE] != before[5 * SCALE + 78, 5 * SCALE]).any()
    for each in (before, shown):
        assert len(np.unique(each[-20:])) > 5, "a caption is written there"


def test_the_picture_fits_when_the_window_changes() -> None:
    display = Pretended([])
    display.coming = [[lambda: display.resize((500, 300))], []]
    list(viewer(display, *[tracked(i) for i in range(5)], paced=True))
    assert display.shown[-1].shape == (500, 300, 3)


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
    assert list(Viewer(silent(), display)) == []  # type: ignore[arg-type]
    never.set()


def test_keys_are_heard_while_the_next_frame_is_worked_on() -> None:
    heard = threading.Event()

    def slow() -> Iterator[TrackedFrame]:
        yield tracked(0)
        assert heard.wait(10), "the window was deaf"
        yield tracked(1)

    display = Pretended([], [heard.set])
    assert len(list(Viewer(slow(), display))) == 2  # type: ignore[arg-type]


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
    made = Viewer(Failing(), Pretended())  # type: ignore[arg-type]
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


@pytest.mark.parametrize(
    ("code", "key"),
    [(-1, None), (ord("n"), "n"), (0x100000 + ord("n"), "n"), (13, None), (10, None),
     (27, "escape"), (8, None), (9, None), (0xFF51, None), (0x250000, None),
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
