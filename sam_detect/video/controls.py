"""What keys and clicks in the window of a video mean.

It needs no window: :class:`Controls` takes names of keys and points, and returns actions. In
the window of ``sam-detect video --show``:

* a click, a track's number or Tab chooses an object;
* a click on an untracked object pauses the video and outlines the object;
* ``n`` or Enter names what is chosen: the video pauses, Tab completes a label of the
  library, Enter learns it, Esc cancels;
* ``x`` teaches that it is *not* what its label says;
* ``u`` takes back what was learnt from it, or, where nothing is chosen, from the object that was
  taught last;
* Backspace, or Esc, clears the selection;
* Space pauses the video, and resumes it; ``q``, or Esc where nothing is chosen, ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sam_detect.types import Masks, TrackedFrame

ENTER, ESCAPE, BACKSPACE, TAB, SPACE = "enter", "escape", "backspace", "tab", " "
HELP = "click: choose   n: name   x: not this   u: undo   space: pause   q: quit"
HELP_POINTED = "n: name what is outlined   click: something else   Esc: clear"
OUTLINING = "outlining the object ..."
HELP_TYPING = "(Enter: learn, Tab: complete, Esc: cancel)"
REACH = 0.006
"""Largest distance of a click from its object, as a share of the picture's longer side."""


@dataclass(frozen=True)
class Learn:
    """Learn an object, or (``negative``) that it does not have this label.

    Attributes:
        track_id: its track; None for what was outlined.
    """

    track_id: int | None
    label: str
    negative: bool = False


@dataclass(frozen=True)
class TakeBack:
    """Take back what was learnt from an object.

    Attributes:
        track_id: its track; None for the object that was taught last.
    """

    track_id: int | None


@dataclass(frozen=True)
class Outline:
    """Outline the object at a point of the picture."""

    point_xy: tuple[int, int]


@dataclass(frozen=True)
class Quit:
    """End the video."""


@dataclass
class Pointed:
    """An untracked object that was clicked on.

    Attributes:
        outline: None until it is computed.
    """

    outline: Masks | None = None


Action = Learn | TakeBack | Outline | Quit


class Controls:
    """The state of a window: what is chosen, what is typed, whether the video is paused.

    Args:
        labels: names that are known, for completing.

    Attributes:
        chosen: the chosen track, or None.
        pointed: the chosen untracked object, or None.
        paused: whether Space has paused the video.
        typed: the text typed so far, or None while no label is being typed.
        message: shown in the caption, or "".
    """

    def __init__(self, labels: Sequence[str] = ()) -> None:
        self.chosen: int | None = None
        self.pointed: Pointed | None = None
        self.paused = False
        self.typed: str | None = None
        self.message = ""
        self._labels = sorted(set(labels))
        self._number = ""
        self._completing: str | None = None

    @property
    def held(self) -> bool:
        """Whether the video is paused, for any reason."""
        return self.paused or self.typed is not None or self.pointed is not None

    @property
    def caption(self) -> str:
        """The line at the bottom of the window."""
        what = f"#{self.chosen}" if self.pointed is None else "this"
        if self.typed is not None:
            return f"{what} is: {self.typed}_   {HELP_TYPING}"
        if self.message:
            return self.message
        if self.pointed is not None:
            return OUTLINING if self.pointed.outline is None else HELP_POINTED
        chosen = "" if self.chosen is None else f"#{self.chosen}   "
        return f"{'paused   ' if self.paused else ''}{chosen}{HELP}"

    def click(self, point_xy: tuple[int, int], tracked: TrackedFrame) -> Outline | None:
        """Chooses the smallest object there; where there is none, asks for an outline."""
        if self.typed is not None:
            return None
        self.message = self._number = ""
        self._clear_selection()
        self.chosen = object_at(tracked, point_xy)
        if self.chosen is not None:
            return None
        self.pointed = Pointed()
        return Outline(point_xy)

    def nothing_there(self, why: str) -> None:
        """The object that was clicked on could not be outlined."""
        self.pointed = self.typed = None
        self.message = why

    def key(self, key: str, tracked: TrackedFrame) -> Action | None:
        """Takes a key: a character, or one of the names above.

        Args:
            key: the character, or the key's name.
            tracked: the frame that is shown.
        """
        if self.typed is not None:
            return self._type(key)
        self.message = ""
        if key.isdecimal():
            self._choose_by_number(key, tracked)
            return None
        self._number = ""
        has_chosen = self.chosen is not None or self.pointed is not None
        if key == "q" or (key == ESCAPE and not has_chosen):
            return Quit()
        if key in ("n", ENTER) and self._is_shown(tracked):
            self.typed = ""
        elif key == "x" and self._is_shown(tracked):
            return self._not_this(tracked)
        elif key == "u":
            return TakeBack(self.chosen)
        elif key == SPACE:
            self.paused, self.pointed = not self.held, None
        elif key in (BACKSPACE, ESCAPE):
            self._clear_selection()
        elif key == TAB:
            there = sorted(set(tracked.track_ids.tolist()) - {0})
            later = [each for each in there if self.chosen is None or each > self.chosen]
            self._clear_selection()
            self.chosen = (later or there or [None])[0]
        return None

    def _clear_selection(self) -> None:
        self.chosen = self.pointed = None

    def _type(self, key: str) -> Action | None:
        typed = self.typed or ""
        if key != TAB:
            self._completing = None
        if key == ESCAPE:
            self.typed = None
        elif key == BACKSPACE:
            self.typed = typed[:-1]
        elif key == TAB:
            self.typed = self._complete(typed)
        elif key == ENTER:
            return self._learn(typed.strip())
        elif len(key) == 1 and key.isprintable():
            self.typed = typed + key
        return None

    def _learn(self, label: str) -> Action | None:
        self.typed = None
        if not label:
            return None
        self._labels = sorted({*self._labels, label})
        self.pointed = None
        return Learn(self.chosen, label)

    def _complete(self, typed: str) -> str:
        """The next known label that begins with the typed text."""
        if self._completing is None:
            self._completing = typed
        begun = self._completing.casefold()
        fitting = [label for label in self._labels if label.casefold().startswith(begun)]
        if not fitting:
            return typed
        return (
            fitting[(fitting.index(typed) + 1) % len(fitting)] if typed in fitting else fitting[0]
        )

    def _choose_by_number(self, digit: str, tracked: TrackedFrame) -> None:
        there = set(tracked.track_ids.tolist())
        longer = self._number + digit
        self._number = longer if any(str(each).startswith(longer) for each in there) else digit
        number = int(self._number)
        self._clear_selection()
        self.chosen = number if number in there else None
        if self.chosen is None:
            self.message = f"#{self._number}"

    def _is_shown(self, tracked: TrackedFrame) -> bool:
        if self.pointed is not None:
            return True
        if self.chosen is None:
            self.message = "choose an object first: click on it, or type its number"
        elif self.chosen not in tracked.track_ids:
            self.message = f"#{self.chosen} is not in the picture"
        return not self.message

    def _not_this(self, tracked: TrackedFrame) -> Action | None:
        if self.chosen is None:
            self.message = "what is outlined has no name that could be wrong"
            return None
        index = tracked.track_ids.tolist().index(self.chosen)
        label = tracked.detections.classifications[index].label
        if label is None:
            self.message = f"#{self.chosen} has no name that could be wrong"
            return None
        return Learn(self.chosen, label, negative=True)


def object_at(tracked: TrackedFrame, point_xy: tuple[int, int]) -> int | None:
    """The track of the smallest object at a point, or close to it."""
    x, y = point_xy
    found, reach = tracked.detections, round(REACH * max(tracked.detections.size_hw))
    x0, y0, x1, y1 = found.boxes_xyxy.T
    about = (x0 - reach <= x) & (x < x1 + reach) & (y0 - reach <= y) & (y < y1 + reach)

    def covers(index: int, reach: int) -> bool:
        left, top = x - int(x0[index]), y - int(y0[index])
        near = found.masks.crop(index)[
            max(0, top - reach) : max(0, top + reach + 1),
            max(0, left - reach) : max(0, left + reach + 1),
        ]
        return bool(near.any())

    there = np.flatnonzero(about & (tracked.track_ids > 0)).tolist()
    near = [i for i in there if covers(i, reach)]
    if not near:
        return None
    best = min(near, key=lambda i: (not covers(i, 0), int(found.area[i])))
    return int(tracked.track_ids[best])
