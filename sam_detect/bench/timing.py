"""Repeated timing: medians, spreads, and ratios of what runs in turn.

A machine that others use is now fast, now slow. What is compared therefore runs in turn
(A, B, A, B, ...) in one process, so that both meet the same machine and their ratio holds.
"""

from __future__ import annotations

import contextlib
import gc
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any

import numpy as np

from sam_detect.bench.memory import GrowingMemory, PeakMemory

Clock = Callable[[], float]
"""Seconds from any start."""


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
        peak_memory_mb: memory above the start, resident or of a GPU; None where nobody can tell.
    """

    name: str
    durations_ms: tuple[float, ...]
    peak_memory_mb: float | None = None

    @property
    def median_ms(self) -> float:
        return float(np.median(self.durations_ms))

    @property
    def spread_ms(self) -> float:
        """The interquartile range: half of the runs lie in it, and outliers do not move it."""
        return interquartile_range(self.durations_ms)

    def times(self, factor: int) -> Series:
        """The series of ``factor`` such pieces of work."""
        scaled = tuple(factor * each for each in self.durations_ms)
        return Series(self.name, scaled, self.peak_memory_mb)

    def per(self, count: int) -> Series:
        """The series of one of ``count`` equal pieces of the work."""
        parts = tuple(each / count for each in self.durations_ms)
        return Series(self.name, parts, self.peak_memory_mb)

    def to_dict(self) -> dict[str, Any]:
        memory = self.peak_memory_mb
        return {
            "median_ms": round(self.median_ms, 4),
            "spread_ms": round(self.spread_ms, 4),
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


def interquartile_range(values: Sequence[float]) -> float:
    """The distance from the first quartile to the third, interpolated linearly."""
    low, high = np.percentile(values, [25, 75])
    return float(high - low)


def interleave(
    trials: Sequence[Trial],
    repeat: int,
    *,
    clock: Clock = time.perf_counter,
    memory: Callable[[], PeakMemory] = PeakMemory,
) -> list[Series]:
    """Measures each trial ``repeat`` times, all in turn.

    Before that each runs once to warm up, and once for its memory.

    Args:
        clock: gives seconds.
        memory: gives what measures it.
    """
    for trial in trials:
        trial.once()
    peaks = []
    for trial in trials:
        taken = memory()
        trial.once(taken)
        peaks.append(taken.peak_mb)
    watches = [Stopwatch(clock) for _ in trials]
    for _ in range(repeat):
        for trial, watch in zip(trials, watches, strict=True):
            trial.once(watch)
    return [
        Series(trial.name, tuple(watch.durations_ms), peak)
        for trial, watch, peak in zip(trials, watches, peaks, strict=True)
    ]


def accumulate(
    trials: Sequence[Trial],
    rounds: int,
    *,
    clock: Clock = time.perf_counter,
    memory: Callable[[], PeakMemory] = PeakMemory,
) -> list[Series]:
    """Measures work that adds up, such as filling a store: no warm-up, every run counts.

    The peak memory of a trial is above what the process had before its first run, less what the
    others took in between.
    """
    watches = [Stopwatch(clock) for _ in trials]
    memories = [GrowingMemory() for _ in trials]
    for _ in range(rounds):
        for trial, watch, growing in zip(trials, watches, memories, strict=True):
            taken = memory()
            trial.once(taken, watch)
            growing.add(taken)
    return [
        Series(trial.name, tuple(watch.durations_ms), growing.peak_mb)
        for trial, watch, growing in zip(trials, watches, memories, strict=True)
    ]


def synchronise_device() -> None:
    """Waits for a GPU that this process uses; without torch in use there is none to wait for."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        torch.cuda.synchronize()
