"""A figure over seeds: its mean, and how far apart the seeds are."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from dataclasses import dataclass


@dataclass(frozen=True)
class Spread:
    """One figure, measured several times.

    Attributes:
        mean: over the seeds for which the figure applies; None where there is none.
        std: sample standard deviation (divided by one less than the count); None below two.
        count: seeds for which the figure applies.
    """

    mean: float | None
    std: float | None
    count: int


def spread(values: Iterable[float | None]) -> Spread:
    """Mean and sample standard deviation of what applies; None is left out."""
    known = [float(value) for value in values if value is not None]
    mean = statistics.fmean(known) if known else None
    std = statistics.stdev(known) if len(known) > 1 else None
    return Spread(mean, std, len(known))
