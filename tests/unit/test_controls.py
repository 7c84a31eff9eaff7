"""Keys and clicks in the window of a video: events in, actions out, no window."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from sam_detect.types import Masks, TrackedFrame
from sam_detect.video.controls import (
    BACKSPACE,
    ENTER,
    ESCAPE,
    SPACE,
    TAB,
    Controls,
    Learn,
    Outline,
    Quit,
    TakeBack,
    object_at,
)
from tests.tracked_frames import tracked

NAMED = {
    "<enter>": ENTER, "<esc>": ESCAPE, "<back>": BACKSPACE, "<tab>": TAB, "<space>": SPACE,
}  # fmt: skip


def scene() -> TrackedFrame:
    """Track 1 a nut, 12 unknown, 13 a leaf that lies on the nut."""
    objects = {1: ("nut", (4, 4)), 12: (None, (40, 20)), 13: ("leaf", (10, 10))}
    return tracked(0, objects)


def press(controls: Controls, *keys: str) -> list[object]:
    """What came of the keys: each a name in <>, or text that is typed letter by letter."""
    pressed: Sequence[str] = [
        each for key in keys for each in ([NAMED[key]] if key in NAMED else key)
    ]
    actions = [controls.key(each, scene()) for each in pressed]
    return [each for each in actions if each is not None]


@pytest.mark.parametrize(
    ("point_xy", "chosen"),
    [((5, 5), 1), ((41, 21), 12), ((20, 20), 13), ((60, 40), None), ((0, 0), None)],
)
def test_a_click_chooses_what_is_there(point_xy: tuple[int, int], chosen: int | None) -> None:
    controls = Controls()
    controls.chosen = 99
    controls.click(point_xy, scene())
    assert controls.chosen == chosen


@pytest.mark.parametrize(
    ("keys", "chosen"),
    [
        ("1", 1), ("12", 12), ("13", 13), ("121", 1), ("7", None), ("1x12", 12),
        (["<tab>"], 1), (["<tab>"] * 2, 12), (["<tab>"] * 4, 1), (["12", "<back>"], None),
    ],
)  # fmt: skip
def test_a_number_or_tab_chooses(keys: Sequence[str], chosen: int | None) -> None:
    controls = Controls()
    press(controls, *keys)
    assert controls.chosen == chosen


def test_naming_what_is_chosen() -> None:
    controls = Controls()
    assert press(controls, "12n") == []
    assert controls.held
    assert press(controls, "fig q1", "<space>", "x", "<back>", "<enter>") == [Learn(12, "fig q1")]
    assert not controls.held
    assert press(controls, "q") == [Quit()]


@pytest.mark.parametrize("keys", [["<esc>"], ["fig", "<esc>"], ["<enter>"], ["  ", "<enter>"]])
def test_naming_that_is_given_up_learns_nothing(keys: list[str]) -> None:
    controls = Controls()
    assert press(controls, "1n", *keys) == []
    assert controls.typed is None
    assert press(controls, "q") == [Quit()]


def test_tab_completes_names_that_are_known() -> None:
    controls = Controls(["nut", "fig", "Fir", "leaf"])
    press(controls, "1n", "f", "<tab>")
    assert controls.typed == "Fir"
    press(controls, "<tab>")
    assert controls.typed == "fig"
    press(controls, "<tab>")
    assert controls.typed == "Fir"
    press(controls, "<back>", "<back>", "<back>", "zz", "<tab>")
    assert controls.typed == "zz"
    press(controls, "<esc>", "n", "pear", "<enter>", "12n", "p", "<tab>")
    assert controls.typed == "pear", "what was named in this window is known"


def test_not_this() -> None:
    controls = Controls()
    assert press(controls, "13x") == [Learn(13, "leaf", negative=True)]
    assert press(controls, "12x") == []
    assert "no name" in controls.caption


def test_taking_back() -> None:
    controls = Controls()
    assert press(controls, "u") == [TakeBack(None)], "what was taught last"
    assert press(controls, "12u") == [TakeBack(12)]
    controls.chosen = 99
    assert press(controls, "u") == [TakeBack(99)], "also what has left the picture"
    assert press(controls, "1n", "u", "<enter>") == [Learn(1, "u")]


@pytest.mark.parametrize("key", ["n", "x", "<enter>"])
def test_something_must_be_chosen_that_is_in_the_picture(key: str) -> None:
    controls = Controls()
    assert press(controls, key) == []
    assert "choose" in controls.caption
    controls.chosen = 99
    assert press(controls, key) == []
    assert "#99 is not in the picture" in controls.caption
    assert not controls.held


def test_space_stops_the_picture_and_lets_it_go_on() -> None:
    controls = Controls()
    press(controls, "<space>")
    assert controls.held
    assert "paused" in controls.caption
    press(controls, "<space>")
    assert not controls.held


def test_the_caption_says_what_is_typed() -> None:
    controls = Controls()
    press(controls, "12n", "fi")
    assert controls.caption.startswith("#12 is: fi_")


def test_a_click_while_a_name_is_typed_changes_nothing() -> None:
    controls = Controls()
    press(controls, "12n")
    controls.click((5, 5), scene())
    assert press(controls, "fig", "<enter>") == [Learn(12, "fig")]


def test_a_click_on_what_is_not_followed_asks_for_its_outline_and_holds_the_picture() -> None:
    controls = Controls()
    controls.chosen = 1
    assert controls.click((60, 40), scene()) == Outline((60, 40))
    assert controls.held
    assert controls.chosen is None
    assert "outlining" in controls.caption
    assert controls.pointed is not None
    controls.pointed.outline = Masks.from_dense(np.ones((48, 64), bool))
    assert "name what is outlined" in controls.caption
    assert press(controls, "n", "fig") == []
    assert controls.caption.startswith("this is: fig_")
    assert press(controls, "<enter>") == [Learn(None, "fig")]
    assert not controls.held


@pytest.mark.parametrize("key", ["<esc>", "<back>", "<space>", "<tab>", "1"])
def test_an_outlined_object_is_cleared(key: str) -> None:
    controls = Controls()
    controls.click((60, 40), scene())
    assert press(controls, key) == []
    assert not controls.held


def test_a_click_on_an_object_clears_the_outlined_one() -> None:
    controls = Controls()
    controls.click((60, 40), scene())
    assert controls.click((5, 5), scene()) is None
    assert not controls.held
    assert controls.chosen == 1


def test_what_cannot_be_outlined_ends_its_naming() -> None:
    controls = Controls()
    controls.click((60, 40), scene())
    press(controls, "n", "fi")
    controls.nothing_there("nothing is there")
    assert not controls.held
    assert controls.caption == "nothing is there"


def test_what_was_pointed_at_has_no_name_that_could_be_wrong() -> None:
    controls = Controls()
    controls.click((60, 40), scene())
    assert press(controls, "x") == []
    assert "no name" in controls.caption


def test_escape_first_lets_go_and_then_ends() -> None:
    controls = Controls()
    assert press(controls, "1", "<esc>") == []
    assert controls.chosen is None
    assert press(controls, "<esc>") == [Quit()]


def test_a_click_close_to_an_object_selects_it_in_a_large_picture() -> None:
    frame = tracked(0, {1: ("nut", (400, 400))}, size_hw=(800, 1000))
    assert object_at(frame, (395, 405)) == 1
    assert object_at(frame, (417, 417)) == 1
    assert object_at(frame, (390, 405)) is None
    between = tracked(0, {1: ("nut", (400, 400)), 2: ("nut", (414, 400))}, size_hw=(800, 1000))
    assert object_at(between, (411, 405)) == 1
    assert object_at(between, (415, 405)) == 2


def test_an_object_on_no_track_cannot_be_chosen() -> None:
    controls = Controls()
    frame = tracked(0, {0: ("nut", (4, 4))})
    controls.click((5, 5), frame)
    assert controls.chosen is None
    controls.key(TAB, frame)
    assert controls.chosen is None
