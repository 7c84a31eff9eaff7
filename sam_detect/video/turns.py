"""How often Python's threads take turns."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Iterator

TURN_S = 0.0002


@contextlib.contextmanager
def quick_turns() -> Iterator[None]:
    """Lets Python's threads take turns more often than every 5 ms.

    A frame needs the interpreter some thirty times, between calls of OpenCV; behind a look, each
    of these would wait for a whole turn.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, TURN_S))
    try:
        yield
    finally:
        sys.setswitchinterval(before)
