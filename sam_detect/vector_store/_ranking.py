"""Ties in the answers of an engine that breaks them as it likes."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from sam_detect.masks import FloatArray
from sam_detect.types import Hit

SPARE = 8
"""Hits asked for beyond the limit, so that most ties at its edge are seen at once."""


def nearest_with_ties(
    search: Callable[[FloatArray, int], list[list[Hit]]],
    queries: FloatArray,
    limit: int,
    count: int,
) -> list[list[Hit]]:
    """The ``limit`` nearest of each query: by similarity, then by id.

    An engine returns any of the points that tie for the last places, so more are asked for until
    the last one returned is clearly worse.

    Args:
        search: ``(Q, D)`` queries and a number of hits to the best hits of each, best first.
        queries: ``(Q, D)`` float32.
        limit: hits wanted.
        count: points there are.
    """
    rows: list[list[Hit]] = [[] for _ in queries]
    open_rows = np.arange(len(queries))
    asked = min(limit + SPARE, count)
    while len(open_rows):
        for index, row in zip(open_rows, search(queries[open_rows], asked), strict=True):
            rows[index] = sorted(row, key=lambda hit: (-hit.similarity, hit.id))
        open_rows = np.array([i for i in open_rows if _tied(rows[i], limit, asked)], np.int64)
        if asked >= count:
            break
        asked = min(4 * asked, count)
    return [row[:limit] for row in rows]


def _tied(row: list[Hit], limit: int, asked: int) -> bool:
    """Whether points that were not returned may tie with the last one wanted."""
    return len(row) >= asked > limit and row[limit - 1].similarity == row[-1].similarity
