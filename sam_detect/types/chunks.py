"""Rows that are worked on at a time, where all at once would take too much memory."""

from __future__ import annotations

from collections.abc import Iterator

ROWS = 4096


def chunks(count: int) -> Iterator[slice]:
    """Slices of at most :data:`ROWS` rows, in order: all ``count`` of them."""
    for start in range(0, count, ROWS):
        yield slice(start, min(start + ROWS, count))
