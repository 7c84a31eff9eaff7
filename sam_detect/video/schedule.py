"""When the detector looks again."""

from __future__ import annotations

import copy

from sam_detect.video.motion import Flow

STILL, STILL_PX = 4, 1.0
"""So many times rarer are looks at a scene in which nothing moves, that is by so many pixels."""
NEW_SHARE = 0.2
"""Of the picture: so much that no frame since the last key frame explains asks for another look."""


class Schedule:
    """What happened since the last key frame.

    Args:
        every: frames from one key frame to the next, at most, where something moves.

    Attributes:
        moved: from the last key frame to this one, roughly; None at once after it, and where the
            scene is another.
        undecided: whether the last look named something that another look has to confirm.
    """

    def __init__(self, every: int) -> None:
        self._every = every
        self._frames, self._new_share = 0, 1.0
        self.moved: Flow | None = None
        self.undecided = False

    def note(self, flow: Flow | None) -> None:
        """Counts a frame, by how it moved since the one before; None for another scene."""
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

    def looked(self) -> None:
        """The present frame is the last key frame."""
        self._frames, self._new_share, self.moved = 0, 0.0, None

    def foresight(self) -> Schedule:
        """A copy, to which frames that are read ahead can be shown."""
        return copy.copy(self)

    @property
    def _still(self) -> bool:
        """Whether nothing has moved, come or gone: another look would find the same."""
        if self.moved is None or self._new_share > 0 or self.undecided:
            return False
        return self.moved.typical_px < STILL_PX
