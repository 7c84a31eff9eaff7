"""Peak memory of a piece of work, as the operating system counts it.

Linux keeps the most memory a process has ever had resident (``VmHWM``) and lets the process set
that mark back to what it has now, by writing ``5`` to ``/proc/self/clear_refs`` (proc(5)). So the
kernel itself takes the peak: of Python, numpy, OpenCV and the engine alike, with nothing sampled
and nothing missed. Elsewhere there is no such mark, and the peak is not known.
"""

from __future__ import annotations

import ctypes
import gc
from pathlib import Path

CLEAR_REFS = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")
RESET_PEAK = "5"


class PeakMemory:
    """Peak resident memory above the start of a ``with`` block. Not to be nested.

    Pages of mapped files count, as in the system's own figures. Memory that the
    process holds free already would hide what the block takes, so it is given back first.

    Attributes:
        peak_mb: megabytes (2^20 bytes) above the start; None where the system cannot tell.
        kept_mb: how much more is resident at the end than at the start; may be negative.
    """

    def __init__(self) -> None:
        self._start: float | None = None
        self.peak_mb: float | None = None
        self.kept_mb: float | None = None

    def __enter__(self) -> PeakMemory:
        gc.collect()
        give_back_free_memory()
        self._start = _resident_mb("VmRSS") if _reset_peak() else None
        return self

    def __exit__(self, *_: object) -> None:
        peak = _resident_mb("VmHWM")
        give_back_free_memory()
        now = _resident_mb("VmRSS")
        if self._start is not None and peak is not None and now is not None:
            self.peak_mb = max(0.0, peak - self._start)
            self.kept_mb = now - self._start


class PeakDeviceMemory(PeakMemory):
    """The same of a GPU's memory: what torch's tensors take there, as torch counts it."""

    def __enter__(self) -> PeakDeviceMemory:
        import torch

        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.reset_peak_memory_stats()
        self._start = torch.cuda.memory_allocated() / 2**20
        return self

    def __exit__(self, *_: object) -> None:
        import torch

        torch.cuda.synchronize()
        peak, now = torch.cuda.max_memory_allocated(), torch.cuda.memory_allocated()
        if self._start is not None:
            self.peak_mb = peak / 2**20 - self._start
            self.kept_mb = now / 2**20 - self._start


class GrowingMemory:
    """Peak memory of work that is done piece by piece and keeps what it made.

    Attributes:
        peak_mb: megabytes above what was resident before the first piece, less what others took
            in between; None where the system cannot tell.
    """

    def __init__(self) -> None:
        self._kept_mb = 0.0
        self.peak_mb: float | None = 0.0

    def add(self, piece: PeakMemory) -> None:
        """Takes a piece that is done."""
        if self.peak_mb is None or piece.peak_mb is None or piece.kept_mb is None:
            self.peak_mb = None
            return
        self.peak_mb = max(self.peak_mb, self._kept_mb + piece.peak_mb)
        self._kept_mb += piece.kept_mb


def give_back_free_memory() -> None:
    """Returns what is free to the system, with glibc."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # another C library
        return


def resident_mb() -> float | None:
    """What the process has resident now; None where the system cannot tell."""
    return _resident_mb("VmRSS")


def _reset_peak() -> bool:
    try:
        CLEAR_REFS.write_text(RESET_PEAK, encoding="ascii")
    except OSError:
        return False
    return True


def _resident_mb(field: str) -> float | None:
    try:
        lines = STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) / 1024
    return None
