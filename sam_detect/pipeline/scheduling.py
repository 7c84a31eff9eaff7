"""Which thread of a process runs when several could."""

from __future__ import annotations

import contextlib
import os
import sys
import threading
from collections.abc import Iterator

SWITCH_S = 0.0002
"""Switch interval of Python's threads while a user waits; the default is 5 ms."""
NICENESS = 10
"""Of a thread that gives way, as the command ``nice`` counts."""


def give_way() -> None:
    """From here on the calling thread has the processor when no other thread wants it. On Linux; on
    other systems Python cannot say that of a thread."""
    if sys.platform.startswith("linux"):
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), NICENESS)


@contextlib.contextmanager
def short_switch_interval() -> Iterator[None]:
    """Lets Python's threads switch more often.

    A frame of a video needs the interpreter some thirty times, between calls of OpenCV, and a
    request of a page some hundred times. While another thread works, each of these would wait for
    a whole switch interval.
    """
    before = sys.getswitchinterval()
    sys.setswitchinterval(min(before, SWITCH_S))
    try:
        yield
    finally:
        sys.setswitchinterval(before)
