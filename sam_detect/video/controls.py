"""What keys and clicks in the window of a video mean.

No window is needed for it: :class:`Controls` takes names of keys and points, and says what is to be
done. In the window of ``sam-detect video --show``:

* a click, a track's number or Tab chooses an object; Backspace lets go of it;
* ``n`` or Enter names it: the picture stands still, Tab completes a name that the library knows,
  Enter learns it, Esc gives up;
* ``x`` says that it is *not* what it is called;
* Space stops the picture and lets it go on; ``q`` or Esc ends.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from sam_detect.types import TrackedFrame

ENTER, ESCAPE, BACKSPACE, TAB, SPACE = "enter", "escape", "backspace", "tab", " "
HELP = "click or number: choose   n: name   x: not this   space: pause   q: quit"


@dataclass(frozen=True)
class Learn:
    """The object of a track is to be learnt, or (``negative``) that it is not called so."""

    track_id: int
    label: str
    negative: bool = False


@dataclass(frozen=True)
class Quit:
    """The video is to end."""


Action = Learn | Quit


class Controls:
    """The state of a window: what is chosen, what is typed, whether the picture stands still.

    Args:
        labels: names that are known, for completing.

    Attributes:
        chosen: the chosen track, or None.
        paused: whether Space has stopped the picture.
        typed: the name as far as it is typed, or None where none is being typed.
        message: what there is to say, or "".
    """

    def __init__(self, labels: Sequence[str] = ()) -> None:
        self.chosen: int | None = None
        self.paused = False
        self.typed: str | None = None
        self.message = ""
        self._labels = sorted(set(labels))
        self._number = ""
        self._completing: str | None = None

    @property
    def held(self) -> bool:
        """Whether the picture stands still."""
        return self.paused or self.typed is not None

    @property
    def caption(self) -> str:
        """One line for the window's foot."""
        if self.typed is not None:
            return f"#{self.chosen} is: {self.typed}_   (Enter: learn, Tab: complete, Esc: give up)"
        if self.message:
            return self.message
        chosen = "" if self.chosen is None else f"#{self.chosen}   "
        return f"{'paused   ' if self.paused else ''}{chosen}{HELP}"

    def click(self, point_xy: tuple[int, int], tracked: TrackedFrame) -> None:
        """Chooses the smallest object there, or none where there is none."""
        if self.typed is None:
            self.message = self._number = ""
            self.chosen = object_at(tracked, point_xy)

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
        if key in ("q", ESCAPE):
            return Quit()
        if key in ("n", ENTER) and self._is_shown(tracked):
            self.typed = ""
        elif key == "x" and self._is_shown(tracked):
            return self._not_this(tracked)
        elif key == SPACE:
            self.paused = not self.paused
        elif key == BACKSPACE:
            self.chosen = None
        elif key == TAB:
            self._choose_next(tracked)
        return None

    def _type(self, key: str) -> Action | None:
        typed = self.typed or ""
        if key != TAB:
            self._completing = None
        if key == ESCAPE:
            self.typed = None
        elif key == BACKSPACE:
            self.typed = typed[:-1]
        elif key == TAB:
            self.typed = self._completed(typed)
        elif key == ENTER:
            return self._named(typed.strip())
        elif len(key) == 1 and key.isprintable():
            self.typed = typed + key
        return None

    def _named(self, label: str) -> Action | None:
        self.typed = None
        if not label or self.chosen is None:
            return None
        self._labels = sorted({*self._labels, label})
        return Learn(self.chosen, label)

    def _completed(self, typed: str) -> str:
        """The next known name that begins as what was typed."""
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
        self.chosen = number if number in there else None
        if self.chosen is None:
            self.message = f"#{self._number}"

    def _choose_next(self, tracked: TrackedFrame) -> None:
        there = sorted(set(tracked.track_ids.tolist()) - {0})
        later = [each for each in there if self.chosen is None or each > self.chosen]
        self.chosen = (later or there or [None])[0]

    def _is_shown(self, tracked: TrackedFrame) -> bool:
        if self.chosen is None:
            self.message = "choose an object first: click on it, or type its number"
        elif self.chosen not in tracked.track_ids:
            self.message = f"#{self.chosen} is not in the picture"
        return not self.message

    def _not_this(self, tracked: TrackedFrame) -> Action | None:
        index = tracked.track_ids.tolist().index(self.chosen)
        label = tracked.detections.verdicts[index].label
        if label is None or self.chosen is None:
            self.message = f"#{self.chosen} has no name that could be wrong"
            return None
        return Learn(self.chosen, label, negative=True)


def object_at(tracked: TrackedFrame, point_xy: tuple[int, int]) -> int | None:
    """The track of the smallest object that covers a point, or whose box does."""
    x, y = point_xy
    x0, y0, x1, y1 = tracked.detections.boxes_xyxy.T
    inside = np.flatnonzero((x0 <= x) & (x < x1) & (y0 <= y) & (y < y1) & (tracked.track_ids > 0))
    areas = tracked.detections.area

    def rank(index: int) -> tuple[bool, int]:
        crop = tracked.detections.masks.crop(index)
        return not crop[y - int(y0[index]), x - int(x0[index])], int(areas[index])

    if not len(inside):
        return None
    return int(tracked.track_ids[min(inside.tolist(), key=rank)])
