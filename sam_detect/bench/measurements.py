"""What a suite measured: its stages, its pairs, and single figures."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any, Literal

from sam_detect.bench.memory import PeakMemory
from sam_detect.bench.timing import (
    Clock,
    Series,
    Trial,
    accumulate,
    interleave,
    interquartile_range,
)

Announce = Callable[[str], None]


class Measurements:
    """Measures for a suite and keeps the results.

    Args:
        repeat: timed runs of each stage and of each side of a pair.
        announce: is told what comes next.
        clock: gives seconds.
        memory: gives what measures memory; a suite that runs on a GPU sets it.

    Attributes:
        workload: what was measured on; only measurements on the same can be compared.
        recipe: how vectors were made, where any were.
        stages: what each costs, by name.
        pairs: ours beside a reference, by name.
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

    def stage(self, trial: Trial) -> Series:
        """Measures a stage by itself."""
        self.announce(trial.name)
        series = self.interleave([trial])[0]
        self.add_stage(trial.name, series)
        return series

    def interleave(self, trials: Sequence[Trial], least: int = 1) -> list[Series]:
        """Measures what is compared in turn, ``least`` times or as often as was asked for."""
        repeat = max(least, self.repeat)
        return interleave(trials, repeat, clock=self.clock, memory=self.memory)

    def accumulate(self, trials: Sequence[Trial], rounds: int | None = None) -> list[Series]:
        """Measures without a warm-up, ``rounds`` times or as often as was asked for."""
        rounds = rounds or self.repeat
        return accumulate(trials, rounds, clock=self.clock, memory=self.memory)

    def add_stage(self, name: str, series: Series) -> None:
        self.stages[name] = series.to_dict()

    def pair(self, name: str, ours: Trial, reference: Trial) -> None:
        """Measures two that do the same job in turn, and how much less time ours takes."""
        self.announce(name)
        a, b = self.interleave([ours, reference])
        self.add_pair(name, a, b)

    def add_pair(
        self,
        name: str,
        a: Series,
        b: Series,
        *,
        of: Literal["time", "memory"] = "time",
    ) -> None:
        """Keeps a ratio of two series measured in turn; nothing where the memory is not known."""
        if of == "time":
            self.pairs[name] = _ratio(a.name, b.name, a.durations_ms, b.durations_ms, unit="ms")
        elif a.peak_memory_mb and b.peak_memory_mb:
            mine, theirs = (a.peak_memory_mb,), (b.peak_memory_mb,)
            self.pairs[name] = _ratio(a.name, b.name, mine, theirs, unit="MB")

    def to_dict(self) -> dict[str, Any]:
        """All attributes that say what was measured, as plain data."""
        return {
            "workload": self.workload,
            "recipe": self.recipe,
            "stages": self.stages,
            "pairs": self.pairs,
            "figures": self.figures,
            "skipped": self.skipped,
        }


def _ratio(
    a: str, b: str, mine: Sequence[float], theirs: Sequence[float], *, unit: str
) -> dict[str, Any]:
    """``ratio`` is above 1 where ours (``a``) takes less than the reference (``b``).

    Its ``spread`` is the interquartile range of the ratios of the single rounds, in each of which
    both met the same machine; None of a single round.
    """
    ours, reference = Series(a, tuple(mine)), Series(b, tuple(theirs))
    rounds = [y / x for x, y in zip(mine, theirs, strict=True) if x > 0]
    return {
        "a": a,
        "b": b,
        "a_median": round(ours.median_ms, 4),
        "b_median": round(reference.median_ms, 4),
        "ratio": round(reference.median_ms / ours.median_ms, 4) if ours.median_ms > 0 else None,
        "spread": round(interquartile_range(rounds), 4) if len(rounds) > 1 else None,
        "unit": unit,
    }
