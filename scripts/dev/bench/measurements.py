"""Repeated measurements: medians, spreads, peaks of memory, and ratios of what runs in turn.

A machine that others use is now fast, now slow. What is compared therefore runs in turn
(A, B, A, B, ...) in one process, so that both meet the same machine and their ratio holds.
"""

from __future__ import annotations

import contextlib
import ctypes
import gc
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np

Clock = Callable[[], float]
"""Seconds from any start."""
Announce = Callable[[str], None]
CLEAR_REFS = Path("/proc/self/clear_refs")
STATUS = Path("/proc/self/status")


class PeakMemory:
    """Peak resident memory above the start of a ``with`` block. Not to be nested.

    Linux keeps the most memory a process has ever had resident (``VmHWM``), and sets that mark back
    to what it has now when the process writes ``5`` to ``/proc/self/clear_refs`` (proc(5)). So the
    kernel itself takes the peak: of Python, numpy, OpenCV and the engine alike, without sampling.
    Elsewhere there is no such mark, and the peak is not known.

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
        with contextlib.suppress(OSError):
            CLEAR_REFS.write_text("5", encoding="ascii")
            self._start = resident_mb()
        return self

    def __exit__(self, *_: object) -> None:
        peak = resident_mb("VmHWM")
        give_back_free_memory()
        now = resident_mb()
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


def growing_peak_mb(pieces: Sequence[PeakMemory]) -> float | None:
    """Peak memory of work that was done piece by piece and keeps what it made: megabytes above what
    was resident before the first piece, less what others took in between; None where the system
    cannot tell."""
    kept, peak = 0.0, 0.0
    for piece in pieces:
        if piece.peak_mb is None or piece.kept_mb is None:
            return None
        peak = max(peak, kept + piece.peak_mb)
        kept += piece.kept_mb
    return peak


def give_back_free_memory() -> None:
    """Returns what is free to the system, with glibc."""
    with contextlib.suppress(AttributeError, OSError, TypeError):  # another C library
        ctypes.CDLL(None).malloc_trim(0)


def resident_mb(field: str = "VmRSS") -> float | None:
    """What the process has resident now, or (``VmHWM``) had at most; None where it is not known."""
    try:
        lines = STATUS.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return None
    for line in lines:
        name, _, value = line.partition(":")
        if name == field:
            return int(value.split()[0]) / 1024
    return None


@dataclass(frozen=True)
class Trial:
    """A piece of work to measure.

    Attributes:
        name: for people.
        run: the work; takes what ``prepare`` made (None without one).
        prepare: makes what one run needs; not timed.
        finish: takes what the run returned; not timed.
    """

    name: str
    run: Callable[[Any], Any]
    prepare: Callable[[], Any] | None = None
    finish: Callable[[Any], Any] | None = None

    def once(self, *watches: AbstractContextManager[Any]) -> None:
        """Prepares, runs inside the watches, and finishes."""
        prepared = None if self.prepare is None else self.prepare()
        with contextlib.ExitStack() as stack:
            for watch in watches:
                stack.enter_context(watch)
            made = self.run(prepared)
        if self.finish is not None:
            self.finish(made)


@dataclass(frozen=True)
class Series:
    """Repeated measurements of one piece of work.

    Attributes:
        name: of the trial.
        durations_ms: of each run, in order.
        peak_memory_mb: memory above the start, resident or of a GPU; None where it is not known.
    """

    name: str
    durations_ms: tuple[float, ...]
    peak_memory_mb: float | None = None

    @property
    def median_ms(self) -> float:
        return float(np.median(self.durations_ms))

    def scaled(self, factor: float) -> Series:
        """The series of ``factor`` such pieces of work."""
        durations = tuple(factor * each for each in self.durations_ms)
        return Series(self.name, durations, self.peak_memory_mb)

    def to_dict(self) -> dict[str, Any]:
        memory = self.peak_memory_mb
        return {
            "median_ms": round(self.median_ms, 4),
            "spread_ms": round(interquartile_range(self.durations_ms), 4),
            "peak_memory_mb": None if memory is None else round(memory, 2),
        }


class Stopwatch:
    """Notes how long ``with`` blocks take, with garbage collected first and the device idle at
    both ends."""

    def __init__(self, clock: Clock = time.perf_counter) -> None:
        self._clock = clock
        self._started = 0.0
        self.durations_ms: list[float] = []

    def __enter__(self) -> Stopwatch:
        gc.collect()
        synchronise_device()
        self._started = self._clock()
        return self

    def __exit__(self, *_: object) -> None:
        synchronise_device()
        self.durations_ms.append((self._clock() - self._started) * 1000)


def synchronise_device() -> None:
    """Waits for a GPU that this process uses; without torch in use there is none to wait for."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()


def interquartile_range(values: Sequence[float]) -> float:
    """The distance from the first quartile to the third, interpolated linearly: half of the values
    lie in it, and outliers do not move it."""
    low, high = np.percentile(values, [25, 75])
    return float(high - low)


class Measurements:
    """Measures for a suite and keeps the results.

    Args:
        repeat: timed runs of each stage and of each side of a pair.
        announce: called with the name of what comes next.
        clock: gives seconds.
        memory: gives what measures memory; a suite that runs on a GPU sets it.

    Attributes:
        workload: what was measured on; only measurements on the same can be compared.
        recipe: how vectors were made, where any were.
        stages: what each costs, by name.
        pairs: ours and a reference, by name.
        figures: single numbers, by name.
        skipped: one line for each thing that was left out, and why.
    """

    def __init__(
        self,
        *,
        repeat: int,
        announce: Announce = lambda _: None,
        clock: Clock = time.perf_counter,
        memory: Callable[[], PeakMemory] = PeakMemory,
    ) -> None:
        self.memory = memory
        self.repeat = repeat
        self.announce = announce
        self.clock = clock
        self.workload = "default"
        self.recipe: dict[str, Any] = {}
        self.stages: dict[str, dict[str, Any]] = {}
        self.pairs: dict[str, dict[str, Any]] = {}
        self.figures: dict[str, float] = {}
        self.skipped: list[str] = []

    def interleave(self, trials: Sequence[Trial], least: int = 1) -> list[Series]:
        """Measures each trial ``least`` times or as often as was asked for, all in turn.

        Before that each runs once to warm up, and once for its memory.
        """
        for trial in trials:
            trial.once()
        peaks = []
        for trial in trials:
            taken = self.memory()
            trial.once(taken)
            peaks.append(taken.peak_mb)
        watches = [Stopwatch(self.clock) for _ in trials]
        for _ in range(max(least, self.repeat)):
            for trial, watch in zip(trials, watches, strict=True):
                trial.once(watch)
        return [
            Series(trial.name, tuple(watch.durations_ms), peak)
            for trial, watch, peak in zip(trials, watches, peaks, strict=True)
        ]

    def accumulate(self, trials: Sequence[Trial], rounds: int | None = None) -> list[Series]:
        """Measures work that adds up, such as filling a store: no warm-up, every run counts.

        The peak memory of a trial is above what the process had before its first run, less what
        the others took in between.

        Args:
            rounds: runs of each; by default as many as were asked for.
        """
        watches = [Stopwatch(self.clock) for _ in trials]
        pieces: list[list[PeakMemory]] = [[] for _ in trials]
        for _ in range(rounds or self.repeat):
            for trial, watch, taken in zip(trials, watches, pieces, strict=True):
                taken.append(self.memory())
                trial.once(taken[-1], watch)
        return [
            Series(trial.name, tuple(watch.durations_ms), growing_peak_mb(taken))
            for trial, watch, taken in zip(trials, watches, pieces, strict=True)
        ]

    def stage(self, trial: Trial) -> None:
        """Measures a stage by itself."""
        self.announce(trial.name)
        self.stages[trial.name] = self.interleave([trial])[0].to_dict()

    def pair(self, name: str, ours: Trial, reference: Trial) -> None:
        """Measures two that do the same job in turn, and how much less time ours takes."""
        self.announce(name)
        self.add_pair(name, *self.interleave([ours, reference]))

    def add_pair(
        self, name: str, a: Series, b: Series, *, of: Literal["time", "memory"] = "time"
    ) -> None:
        """Keeps a ratio of two series measured in turn; nothing where the memory is not known.

        ``ratio`` is above 1 where ours (``a``) takes less than the reference (``b``). Its
        ``spread`` is the interquartile range of the ratios of the single rounds, in each of which
        both met the same machine; None of a single round.
        """
        mine, theirs = a.durations_ms, b.durations_ms
        if of == "memory":
            if not a.peak_memory_mb or not b.peak_memory_mb:
                return
            mine, theirs = (a.peak_memory_mb,), (b.peak_memory_mb,)
        ours, reference = float(np.median(mine)), float(np.median(theirs))
        rounds = [y / x for x, y in zip(mine, theirs, strict=True) if x > 0]
        self.pairs[name] = {
            "a": a.name,
            "b": b.name,
            "a_median": round(ours, 4),
            "b_median": round(reference, 4),
            "ratio": round(reference / ours, 4) if ours > 0 else None,
            "spread": round(interquartile_range(rounds), 4) if len(rounds) > 1 else None,
            "unit": "ms" if of == "time" else "MB",
        }

    def to_dict(self) -> dict[str, Any]:
        """All attributes that say what was measured, as plain data."""
        names = ("workload", "recipe", "stages", "pairs", "figures", "skipped")
        return {name: getattr(self, name) for name in names}
