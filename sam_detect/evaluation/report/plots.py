"""Curves of a report as plain data: where their points lie in a drawing of fixed size."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

WIDTH, HEIGHT = 460, 250
LEFT, RIGHT, TOP, BOTTOM = 38, 22, 22, 40
TICKS = tuple(value / 4 for value in range(5))


def learning_curve(points: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The plot of ``Evaluation.learning_curve`` over a logarithmic axis of shots and an F1 of 0 to
    1: its points, from the fewest shots to the most, with ``x`` and ``y`` of the mean, ``low`` and
    ``high`` of the band. None where no point has an F1."""
    known = sorted((p for p in points if p["f1"] is not None), key=lambda p: int(p["shots"]))
    if not known:
        return None
    first, last = math.log(known[0]["shots"]), math.log(known[-1]["shots"])
    placed = []
    for point in known:
        share = (math.log(point["shots"]) - first) / (last - first) if last > first else 0.5
        f1, deviation = point["f1"], point["f1_spread"]
        placed.append(
            {
                "shots": point["shots"],
                "f1": f1,
                "deviation": deviation,
                "x": LEFT + 14 + share * (WIDTH - LEFT - RIGHT - 28),
                "y": _y(f1),
                "low": _y(max(0.0, f1 - (deviation or 0.0))),
                "high": _y(min(1.0, f1 + (deviation or 0.0))),
            }
        )
    ends = [(p["x"], p["high"]) for p in placed] + [(p["x"], p["low"]) for p in placed[::-1]]
    return {
        "points": placed,
        "size_wh": (WIDTH, HEIGHT),
        "line": " ".join(f"{p['x']:.1f},{p['y']:.1f}" for p in placed),
        "band": " ".join(f"{x:.1f},{y:.1f}" for x, y in ends),
        "ticks": _ticks(),
        "ends": (LEFT, WIDTH - RIGHT),
    }


def sweep_plot(variants: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The plot of a sweep: F1 against the seconds of an image, on a logarithmic axis.

    Args:
        variants: ``title``, ``f1`` and ``seconds`` of each, in the order of the table.

    Returns:
        A point for each with an F1 and a time, with its number from 1 and whether it is ``best``:
        each other is slower or worse. None for fewer than two.
    """
    known = [
        {"number": number, **each}
        for number, each in enumerate(variants, start=1)
        if each["f1"] is not None and each["seconds"] > 0
    ]
    if len(known) < 2:
        return None
    times = [math.log10(each["seconds"]) for each in known]
    first, last = math.floor(min(times)), max(math.ceil(max(times)), math.floor(min(times)) + 1)

    def place(seconds: float) -> float:
        return _x((math.log10(seconds) - first) / (last - first))

    return {
        "points": [
            {
                **each,
                "x": place(each["seconds"]),
                "y": _y(each["f1"]),
                "best": not any(
                    (o["f1"], -o["seconds"]) != (each["f1"], -each["seconds"])
                    and o["f1"] >= each["f1"]
                    and o["seconds"] <= each["seconds"]
                    for o in known
                ),
            }
            for each in known
        ],
        "size_wh": (WIDTH, HEIGHT),
        "ticks": _ticks(),
        "ticks_x": [(place(10.0**k), f"{10.0**k:g}") for k in range(first, last + 1)],
        "ends": (LEFT, WIDTH - RIGHT),
    }


def reliability_curve(bins: Sequence[Mapping[str, Any]]) -> dict[str, Any] | None:
    """The plot of ``reliability``: a bar from 0 to the precision of each bin, the point of its mean
    confidence and precision, and the diagonal, on which confidence is that precision. None where
    nothing was named."""
    if not bins:
        return None
    return {
        "bars": [
            {
                **each,
                "left": _x(each["low"]),
                "width": _x(each["high"]) - _x(each["low"]),
                "top": _y(each["precision"]),
                "height": _y(0.0) - _y(each["precision"]),
                "x": _x(each["confidence"]),
            }
            for each in bins
        ],
        "size_wh": (WIDTH, HEIGHT),
        "diagonal": (_x(0.0), _y(0.0), _x(1.0), _y(1.0)),
        "ticks": _ticks(),
        "ticks_x": [(_x(value), f"{value:g}") for value in TICKS],
        "ends": (LEFT, WIDTH - RIGHT),
    }


def _ticks() -> list[tuple[float, str]]:
    return [(_y(value), f"{value:g}") for value in TICKS]


def _x(share: float) -> float:
    return LEFT + share * (WIDTH - LEFT - RIGHT)


def _y(share: float) -> float:
    return TOP + (1 - share) * (HEIGHT - TOP - BOTTOM)
