"""The window of a video, driven by a display that is only pretended; and the real one's refusal."""

from __future__ import annotations

import subprocess
import sys
from concurrent.futures import Future

import numpy as np
import pytest

from sam_detect.errors import UnavailableError
from sam_detect.library.library import Added
from sam_detect.types import ImageRGB
from sam_detect.video import window
from sam_detect.video.controls import ENTER, ESCAPE, SPACE
from sam_detect.video.window import Click, Viewer
from tests.drawn_scene import Drawn, disc_xy, fresh, name_at
from tests.tracked_frames import tracked


class Pretended:
    """A display that gives prepared events, a list a call, and keeps what is shown."""

    def __init__(self, *events: list[str | Click] | None) -> None:
        self.coming = list(events)
        self.shown: list[ImageRGB] = []
        self.waited_s: list[float] = []

    def show(self, image_rgb: ImageRGB) -> None:
        self.shown.append(image_rgb)

    def events(self, wait_s: float) -> list[str | Click] | None:
        self.waited_s.append(wait_s)
        return self.coming.pop(0) if self.coming else []

    def close(self) -> None:
        pass


class Learner:
    """Takes the place of a stream."""

    def __init__(self) -> None:
        self.asked: list[tuple[int, str, bool]] = []
        self.promise: Future[Added] = Future()

    def learn(self, track_id: int, label: str, *, negative: bool = False) -> Future[Added]:
        self.asked.append((track_id, label, negative))
        return self.promise


def viewer(display: Pretended, **options: object) -> Viewer:
    return Viewer(Learner(), display, **options)  # type: ignore[arg-type]


def test_a_picture_is_shown_with_its_objects_and_a_caption() -> None:
    display = Pretended()
    assert viewer(display).show(tracked())
    (shown,) = display.shown
    assert shown.shape[1] == 8 * 64, "enlarged, so that the caption can be read"
    assert shown.shape[0] > 8 * 48
    assert len(np.unique(shown[8 * 48 :])) > 5, "a caption is written there"


@pytest.mark.parametrize("events", [None, ["q"], [ESCAPE]])
def test_closing_the_window_or_q_ends(events: list[str | Click] | None) -> None:
    assert not viewer(Pretended(events)).show(tracked())


def test_a_click_chooses_in_the_enlarged_picture() -> None:
    made = viewer(Pretended([Click((5 * 8 + 3, 11 * 8 + 3))]))
    made.show(tracked())
    assert made.controls.chosen == 1


def test_space_holds_the_picture_until_it_comes_again() -> None:
    display = Pretended([SPACE], [], [], [SPACE])
    assert viewer(display).show(tracked())
    assert display.coming == []
    assert len(display.shown) == 4


def test_closing_the_window_ends_a_pause() -> None:
    assert not viewer(Pretended([SPACE], None)).show(tracked())


def test_what_was_learnt_is_said_when_it_is() -> None:
    display = Pretended(["1", "n", *"fig", ENTER])
    made = viewer(display)
    learner = made._stream
    made.show(tracked())
    assert learner.asked == [(1, "fig", False)]
    assert "learning #1" in made.controls.caption
    learner.promise.set_result(Added(added=1, relabelled=0, total=7))
    made.show(tracked(1))
    assert "learnt: #1 is 'fig'; the library has 7 examples" in made.controls.caption


def test_what_could_not_be_learnt_is_said_and_nothing_ends() -> None:
    made = viewer(Pretended(["1", "x"]))
    made.show(tracked())
    made._stream.promise.set_exception(RuntimeError("the library\nis busy"))
    assert made.show(tracked(1))
    assert made.controls.caption == "not learnt: the library is busy"


def test_a_file_is_shown_at_its_own_speed() -> None:
    paced, hurried = Pretended(), Pretended()
    for display, made in ((p, viewer(p, paced=p is paced)) for p in (paced, hurried)):
        for index in range(2):
            made.show(tracked(index, time_s=index * 0.06))
        assert display.waited_s[0] <= 0.002
    assert 0.01 < paced.waited_s[1] <= 0.06
    assert hurried.waited_s[1] <= 0.002


def test_an_object_that_is_named_in_the_window_is_known_in_the_next_frames() -> None:
    names = []
    with fresh().stream(Drawn(), unknown=True) as stream:
        x, y = disc_xy(5)
        keys: list[str | Click] = [Click((x * 3, y * 3)), "n", *"disc", ENTER]
        made = Viewer(stream, Pretended(*[[]] * 5, keys))
        for each in stream:
            names.append(name_at(each, disc_xy(each.frame.index)))
            assert made.show(each)
            if each.frame.index == 12:
                break
    assert names == [None] * 6 + ["disc"] * 7
    assert made.controls.message.startswith("learnt: ")


@pytest.mark.parametrize(
    ("code", "key"),
    [(-1, None), (ord("n"), "n"), (0x100000 + ord("n"), "n"), (13, "enter"), (10, "enter"),
     (27, "escape"), (8, "backspace"), (9, "tab"), (0xFF51, None), (0x250000, None),
     (0xF6, "ö"), (0x43F, "п")],
)  # fmt: skip
def test_codes_of_keys(code: int, key: str | None) -> None:
    assert window.key_of(code) == key


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="X and Wayland are Linux's")
def test_without_a_display_one_line_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("DISPLAY", raising=False)
    monkeypatch.delenv("WAYLAND_DISPLAY", raising=False)
    with pytest.raises(UnavailableError, match="no display here"):
        window.require_display()


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="X and Wayland are Linux's")
def test_a_display_that_does_not_answer_ends_no_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DISPLAY", ":987")
    with pytest.raises(UnavailableError, match=r"cannot open a window here|without windows"):
        window.require_display()


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
    monkeypatch.setattr(window.subprocess, "run", lambda *_, **__: failed)
    with pytest.raises(UnavailableError, match=words):
        window.require_display()
