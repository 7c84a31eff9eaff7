"""How a process is set up that answers requests for weeks."""

from __future__ import annotations

import ctypes
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager

M_ARENA_MAX = -8
"""Of ``mallopt(3)``: how many heaps the threads of a process share."""

TRIM_SECONDS = 10.0
"""Between two times that free memory is given back; each takes some milliseconds."""


@contextmanager
def long_running() -> Iterator[None]:
    """Keeps the threads of this process from taking cores and memory that they do not need.

    - Threads switch often (:func:`~sam_detect.pipeline.scheduling.short_switch_interval`).
    - BLAS' threads spin while they wait for work, and take the cores from those who answer.
    - glibc gives each thread a heap of its own (up to eight for a core), and keeps what a thread
      has freed for that thread. The threads of a server come and go, so its memory would grow for
      hours, with little of it in use. One heap was as quick as many in a load test of 50 clients.
      This holds for the threads that begin later, and is not undone.
    - What was freed below memory in use stays with the process: after 350 examples were learnt
      from, 381 MiB, of which 232 MiB were in use. It is given back every :data:`TRIM_SECONDS`.
    """
    from threadpoolctl import threadpool_limits

    from sam_detect.pipeline.scheduling import short_switch_interval

    stopped = threading.Event()
    libc = glibc()

    def give_back(libc: ctypes.CDLL) -> None:
        while not stopped.wait(TRIM_SECONDS):
            libc.malloc_trim(0)

    if libc is not None:
        libc.mallopt(M_ARENA_MAX, 1)
        threading.Thread(target=give_back, args=(libc,), name="trim", daemon=True).start()
    try:
        with short_switch_interval(), threadpool_limits(1, user_api="blas"):
            yield
    finally:
        stopped.set()


def glibc() -> ctypes.CDLL | None:
    """The C library of this process, where it is glibc (macOS, Windows and musl have others)."""
    if sys.platform != "linux":
        return None
    library = ctypes.CDLL(None)
    return library if hasattr(library, "mallopt") and hasattr(library, "malloc_trim") else None
