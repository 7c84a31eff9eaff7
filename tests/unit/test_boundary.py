"""The F measure of edges, against one that compares all pixels of two edges with each other."""

from __future__ import annotations

import math

import numpy as np
import pytest

from sam_detect.errors import MaskError
from scripts.dev.boundary import boundary_f

SIZE = (60, 80)
"""A tolerance of .02 of the diagonal, 100, is 2 pixels."""


def _box(x0: int, y0: int, x1: int, y1: int) -> np.ndarray:
    mask = np.zeros(SIZE, np.bool_)
    mask[y0:y1, x0:x1] = True
    return mask


def _slow(mask: np.ndarray, truth: np.ndarray, radius: int) -> float:
    """From the definition: every edge pixel against every other one."""
    edges = []
    for each in (mask, truth):
        height, width = each.shape
        edges.append(
            [
                (y, x)
                for y in range(height)
                for x in range(width)
                if any(
                    each[y, x] != each[min(y + dy, height - 1), min(x + dx, width - 1)]
                    for dy, dx in ((0, 1), (1, 0), (1, 1))
                )
            ]
        )

    def near(some: list[tuple[int, int]], others: list[tuple[int, int]]) -> float:
        return sum(any(math.dist(a, b) <= radius for b in others) for a in some) / len(some)

    precision, recall = near(*edges), near(*edges[::-1])
    return 2 * precision * recall / (precision + recall) if precision + recall else 0.0


def test_equal_masks_and_edges_within_the_tolerance_agree() -> None:
    assert boundary_f(_box(20, 20, 40, 40), _box(20, 20, 40, 40)) == 1
    assert boundary_f(_box(20, 20, 40, 40), _box(22, 20, 42, 40), tolerance=0.02) == 1
    assert boundary_f(_box(20, 20, 40, 40), _box(23, 20, 43, 40), tolerance=0.02) < 1


def test_half_of_the_edge_is_half_of_the_figure() -> None:
    both = _box(2, 2, 12, 12) | _box(60, 40, 70, 50)
    assert boundary_f(_box(2, 2, 12, 12), both) == pytest.approx(2 / 3)  # P 1, R .5
    assert boundary_f(both, _box(2, 2, 12, 12)) == pytest.approx(2 / 3)


def test_what_is_empty_agrees_with_nothing_but_itself() -> None:
    empty, box = np.zeros(SIZE, np.bool_), _box(20, 20, 40, 40)
    assert boundary_f(empty, empty) == 1
    assert boundary_f(empty, box) == boundary_f(box, empty) == 0


@pytest.mark.parametrize("seed", range(4))
def test_it_is_what_the_definition_says(seed: int) -> None:
    drawn = np.random.default_rng(seed)
    masks = []
    for _ in range(2):
        x0, y0 = drawn.integers(0, 40), drawn.integers(0, 30)
        mask = _box(x0, y0, x0 + drawn.integers(8, 40), y0 + drawn.integers(8, 30))
        masks.append(mask & (drawn.random(SIZE) > 0.02))
    expected = _slow(masks[0], masks[1], radius=2)
    assert 0 < expected < 1
    assert boundary_f(masks[0], masks[1], tolerance=0.02) == pytest.approx(expected)


def test_masks_of_unequal_sizes_are_refused() -> None:
    with pytest.raises(MaskError, match="size of its truth"):
        boundary_f(np.zeros((4, 4), np.bool_), np.zeros((4, 5), np.bool_))
