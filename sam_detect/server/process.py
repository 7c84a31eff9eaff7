"""How a process is set up that answers requests for weeks."""

from __future__ import annotations

import ctypes
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress

M_ARENA_MAX = -8
"""Of ``mallopt(3)``: how many heaps the threads of a process share."""


@contextmanager
def long_running() -> Iterator[None]:
    """Keeps the threads of this process from taking cores and memory that they do not need.

    - BLAS' threads spin while they wait for work, and take the cores from those who answer.
    - glibc gives each thread a heap of its own (up to eight for a core), and keeps what a thread
      has freed for that thread. The threads of a server come and go, so its memory would grow for
      hours, with little of it in use. One heap was as quick as many in a load test of 50 clients.
      This holds for the threads that begin later, and is not undone.
    """
    from threadpoolctl import threadpool_limits

    share_one_heap()
    with threadpool_limits(1, user_api="blas"):
        yield


def share_one_heap() -> bool:
    """Has threads that begin later share one heap; false where the C library is not glibc."""
    if sys.platform != "linux":
        return False
    with suppress(OSError, AttributeError):
        return bool(ctypes.CDLL(None).mallopt(M_ARENA_MAX, 1))
    return False
