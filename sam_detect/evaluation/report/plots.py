"""Plots as inline SVG, whose colours the page's style decides."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 38, 22, 22, 40


@dataclass(frozen=True)
class CurvePoint:
    """F1 at some number of shots, where it lies in the plot.

    Attributes:
        shots: examples of each label.
        f1: the mean over the seeds.
        deviation: over the seeds; None below two.
        x, y: of the mean.
        low, high: y of the ends of the band.
    """

    shots: int
    f1: float
    deviation: float | None
    x: float
    y: float
    low: float
    high: float


@dataclass(frozen=True)
class Curve:
    """A learning curve over a logarithmic axis of shots and an F1 of 0 to 1.

    Attributes:
        points: from the fewest shots to the most; at least one.
    """

    points: tuple[CurvePoint, ...]
    size_wh: tuple[int, int] = (WIDTH, HEIGHT)

    @property
    def line(self) -> str:
        return " ".join(f"{p.x:.1f},{p.y:.1f}" for p in self.points)

    @property
    def band(self) -> str:
        """The outline of mean and deviation."""
        there = [f"{p.x:.1f},{p.high:.1f}" for p in self.points]
        back = [f"{p.x:.1f},{p.low:.1f}" for p in reversed(self.points)]
        return " ".join([*there, *back])

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """y and text of each line across."""
        return [(_y(value / 4), f"{value / 4:g}") for value in range(5)]

    @property
    def ends(self) -> tuple[int, int]:
        """x of the lines' ends."""
        return LEFT, WIDTH - RIGHT


def learning_curve(points: Sequence[dict[str, Any]]) -> Curve | None:
    """The plot of ``Evaluation.learning_curve``; None where no point has an F1."""
    known = sorted((p for p in points if p["f1"] is not None), key=lambda p: int(p["shots"]))
    if not known:
        return None
    first, last = math.log(known[0]["shots"]), math.log(known[-1]["shots"])
    placed = []
    for point in known:
        share = (math.log(point["shots"]) - first) / (last - first) if last > first else 0.5
        f1, deviation = point["f1"], point["f1_spread"]
        placed.append(
            CurvePoint(
                shots=point["shots"],
                f1=f1,
                deviation=deviation,
                x=LEFT + 14 + share * (WIDTH - LEFT - RIGHT - 28),
                y=_y(f1),
                low=_y(max(0.0, f1 - (deviation or 0.0))),
                high=_y(min(1.0, f1 + (deviation or 0.0))),
            )
        )
    return Curve(tuple(placed))


def _y(share: float) -> float:
    return TOP + (1 - share) * (HEIGHT - TOP - BOTTOM)
