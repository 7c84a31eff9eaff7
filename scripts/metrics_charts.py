"""Small charts as inline SVG, drawn for a card some 320 pixels wide, where their text is readable.

Colours are classes (``c0`` to ``c5``), so that the page's style decides them, light or dark.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from markupsafe import Markup, escape

WIDTH, HEIGHT = 330, 190
LEFT, RIGHT, TOP, BOTTOM = 46, 12, 10, 26
COLORS = 6


@dataclass(frozen=True)
class Point:
    """One measured value.

    Attributes:
        x: position; its meaning is the chart's.
        y: value.
        spread: half the height of its whisker.
        tip: what a pointer on it shows.
    """

    x: float
    y: float
    tip: str
    spread: float = 0.0


@dataclass(frozen=True)
class Line:
    """Points of one thing, in the order of x.

    Attributes:
        name: for people.
        color: 0 to ``COLORS`` - 1.
        points: at least one.
    """

    name: str
    color: int
    points: Sequence[Point]


@dataclass(frozen=True)
class Axis:
    """How values become positions.

    Attributes:
        low, high: the ends.
        log: whether equal ratios have equal lengths; the ends are above 0 then.
        ticks: values with their texts.
    """

    low: float
    high: float
    log: bool = False
    ticks: Sequence[tuple[float, str]] = field(default_factory=tuple)

    def share(self, value: float) -> float:
        """0 at the low end, 1 at the high one."""
        if self.log:
            low, high, value = (math.log(v) for v in (self.low, self.high, max(value, self.low)))
        else:
            low, high = self.low, self.high
        return 0.5 if high <= low else (value - low) / (high - low)


def chart(lines: Sequence[Line], x: Axis, y: Axis, *, title: str) -> Markup:
    """Lines with a dot for each point; its whisker is the spread."""
    parts = [
        f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="{escape(title)}">',
        *(_tick_y(y, value, text) for value, text in y.ticks),
        *(_tick_x(x, value, text, index, len(x.ticks))
          for index, (value, text) in enumerate(x.ticks)),
        *(_line(line, x, y) for line in lines),
        "</svg>",
    ]  # fmt: skip
    return Markup("".join(parts))


def spark(values: Sequence[float], tip: str) -> Markup:
    """A tiny line of one thing over time, for a cell of a table.

    Its height is at least a third of the highest value, so that noise does not look like a fall.
    """
    if len(values) < 2:
        return Markup("")
    high = max(values)
    low = min(*values, high * 2 / 3)
    step = 76 / (len(values) - 1)
    spots = [
        (2 + index * step, 18 - 14 * ((v - low) / (high - low) if high > low else 0.5))
        for index, v in enumerate(values)
    ]
    path = " ".join(f"{px:.1f},{py:.1f}" for px, py in spots)
    end_x, end_y = spots[-1]
    return Markup(
        f'<svg class="spark" viewBox="0 0 80 20" data-tip="{escape(tip)}">'
        f'<polyline class="line c0" points="{path}"/>'
        f'<circle class="dot c0" cx="{end_x:.1f}" cy="{end_y:.1f}" r="2.2"/></svg>'
    )


def linear_axis(top: float, unit: str = "") -> Axis:
    """From 0 to a round number above ``top``, with three to six ticks."""
    if top <= 0:
        return Axis(0, 1, ticks=((0, "0"), (1, f"1{unit}")))
    rough = top / 4
    power = 10 ** math.floor(math.log10(rough))
    step = next(m * power for m in (1, 2, 2.5, 5, 10) if m * power >= rough)
    count = math.ceil(top / step)
    ticks = [(i * step, f"{i * step:.10g}{unit}") for i in range(count + 1)]
    return Axis(0, count * step, ticks=ticks)


def log_axis(values: Sequence[float], text: object = None) -> Axis:
    """Whole powers of ten around positive values."""
    low = math.floor(math.log10(min(values)) + 1e-9)
    high = max(low + 1, math.ceil(math.log10(max(values)) - 1e-9))
    name = text if callable(text) else lambda v: f"{v:g}"
    ticks = [(10.0**e, str(name(10.0**e))) for e in range(low, high + 1)]
    return Axis(10.0**low, 10.0**high, log=True, ticks=ticks)


def _at(x: Axis, y: Axis, px: float, py: float) -> tuple[float, float]:
    inner_w, inner_h = WIDTH - LEFT - RIGHT, HEIGHT - TOP - BOTTOM
    return LEFT + inner_w * x.share(px), TOP + inner_h * (1 - y.share(py))


def _tick_y(y: Axis, value: float, text: str) -> str:
    at = TOP + (HEIGHT - TOP - BOTTOM) * (1 - y.share(value))
    return (
        f'<line class="grid" x1="{LEFT}" x2="{WIDTH - RIGHT}" y1="{at:.1f}" y2="{at:.1f}"/>'
        f'<text class="tick" x="{LEFT - 6}" y="{at + 3.5:.1f}" text-anchor="end">'
        f"{escape(text)}</text>"
    )


def _tick_x(x: Axis, value: float, text: str, index: int, count: int) -> str:
    at = LEFT + (WIDTH - LEFT - RIGHT) * x.share(value)
    ends = {0: "start", count - 1: "end"}
    anchor = "middle" if count == 1 else ends.get(index, "middle")
    return (
        f'<text class="tick" x="{at:.1f}" y="{HEIGHT - 8}" text-anchor="{anchor}">'
        f"{escape(text)}</text>"
    )


def _line(line: Line, x: Axis, y: Axis) -> str:
    spots = [(*_at(x, y, p.x, p.y), p) for p in line.points]
    path = " ".join(f"{px:.1f},{py:.1f}" for px, py, _ in spots)
    parts = [f'<polyline class="line c{line.color}" points="{path}"/>'] if len(spots) > 1 else []
    for px, py, point in spots:
        if point.spread > 0:
            _, high = _at(x, y, point.x, min(point.y + point.spread, y.high))
            _, low = _at(x, y, point.x, max(point.y - point.spread, y.low))
            parts.append(
                f'<line class="whisker c{line.color}" x1="{px:.1f}" x2="{px:.1f}" '
                f'y1="{high:.1f}" y2="{low:.1f}"/>'
            )
        parts.append(
            f'<circle class="dot c{line.color}" cx="{px:.1f}" cy="{py:.1f}" r="3.4"/>'
            f'<circle class="hit" cx="{px:.1f}" cy="{py:.1f}" r="11" tabindex="0" '
            f'data-tip="{escape(point.tip)}"/>'
        )
    return "".join(parts)
