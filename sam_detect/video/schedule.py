"""Which frames are key frames."""

from __future__ import annotations

import copy

from sam_detect.video.motion import Flow

STILL, STILL_PX = 4, 1.0
"""How many times rarer key frames are in a still scene, and the motion, in pixels, below which it
is still."""
NEW_SHARE = 0.2
"""Share of new picture content, added up since the last key frame, that makes a new key frame."""


class Schedule:
    """What happened since the last key frame.

    Args:
        every: frames from one key frame to the next, at most, where something moves.

    Attributes:
        moved: coarse flow from the last key frame to this frame; None right after a key frame, and
            after a cut.
        undecided: whether the last key frame labelled an object that another one has to confirm.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._frames, self._new_share = 0, 1.0
        self.moved: Flow | None = None
        self.undecided = False

    def note(self, flow: Flow | None) -> None:
        """Counts a frame, with the flow from the frame before; None after a cut."""
        self._frames += 1
        if flow is None:
            self._new_share, self.moved = 1.0, None
            return
        coarse = flow.coarse()
        self.moved = coarse if self.moved is None else coarse.after(self.moved)
        self._new_share += flow.new_share

    @property
    def due(self) -> bool:
        """Whether the present frame is a key frame."""
        wait = self._every * (STILL if self._still else 1)
        return self._frames >= wait or self._new_share >= NEW_SHARE

    def hurry(self) -> None:
        """The next frame is a key frame."""
        self._new_share = 1.0

    def restart(self) -> None:
        """The present frame is the last key frame."""
        self._frames, self._new_share, self.moved = 0, 0.0, None

    def lookahead(self) -> Schedule:
        """A copy, for frames that are read ahead."""
        return copy.copy(self)

    @property
    def _still(self) -> bool:
        """Whether nothing has moved or changed since the last key frame."""
        if self.moved is None or self._new_share > 0 or self.undecided:
            return False
        return self.moved.typical_px < STILL_PX
