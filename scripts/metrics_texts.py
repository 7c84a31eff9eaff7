"""Numbers and names as people read them."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

SIZED = re.compile(r"(?P<name>.+)_(?P<size>\d+)")
"""Names of stages and pairs that end in a number of vectors."""


def label(name: str) -> str:
    """A stage's or pair's name as words."""
    match = SIZED.fullmatch(name)
    words = (match["name"] if match else name).replace("_vs_", " / ").replace("_", " ")
    return f"{words}, {int(match['size']):,}" if match else words


def size_of(name: str) -> int:
    match = SIZED.fullmatch(name)
    return int(match["size"]) if match else 0


def milliseconds(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{three_digits(value / 1000)} s" if value >= 1000 else f"{three_digits(value)} ms"


def megabytes(value: float | None) -> str:
    if value is None:
        return "-"
    return f"{three_digits(value / 1000)} GB" if value >= 1000 else f"{three_digits(value)} MB"


def ratio(value: float | None) -> str:
    # The sign that is read as "times", not the letter.
    return "-" if value is None else f"{three_digits(value)}\N{MULTIPLICATION SIGN}"


def three_digits(value: float) -> str:
    return f"{value:,.0f}" if abs(value) >= 100 else f"{value:.3g}"


def plus_minus(stage: Mapping[str, Any]) -> str:
    """A stage's time with half of its spread to each side, and its memory."""
    half = (stage["spread_ms"] or 0) / 2
    memory = stage.get("peak_memory_mb")
    more = "" if memory is None else f", peak {megabytes(memory)}"
    return f"{milliseconds(stage['median_ms'])} ± {milliseconds(half)}{more}"


def tile(value: str, name: str, note: str) -> dict[str, str]:
    return {"value": value, "name": name, "note": note}
