"""Hypothesis strategies, named by their axes, and the number of examples of most
property tests. Their other settings are in ``conftest.py``.
"""

from __future__ import annotations

import string
from typing import Any

import numpy as np
import numpy.typing as npt
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

BoolArray = npt.NDArray[np.bool_]
Placed = tuple[tuple[int, int], tuple[int, int, int, int], BoolArray]
"""``(size_hw, box_xyxy, crop)`` of a cropped mask."""

QUICK = settings(max_examples=60)

sides = st.one_of(st.just(1), st.integers(1, 12))
not_numbers = st.sampled_from([float("nan"), float("inf"), float("-inf"), 0.0, -1.0])


@st.composite
def sizes_hw(draw: st.DrawFn) -> tuple[int, int]:
    return draw(sides), draw(sides)


@st.composite
def masks_hw(draw: st.DrawFn, *, some_pixel: bool = False) -> BoolArray:
    """``(H, W)`` bool: 1xN, Nx1, empty, full, full-height columns and noise."""
    height, width = draw(sizes_hw())
    mask = draw(hnp.arrays(np.bool_, (height, width)))
    kind = draw(st.sampled_from(["noise", "full", "columns", "rows"]))
    if kind == "full":
        mask = np.ones((height, width), np.bool_)
    elif kind == "columns":
        mask = np.repeat(draw(hnp.arrays(np.bool_, (1, width))), height, axis=0)
    elif kind == "rows":
        mask = np.repeat(draw(hnp.arrays(np.bool_, (height, 1))), width, axis=1)
    if some_pixel and not mask.any():
        mask[draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))] = True
    return mask


@st.composite
def crops_placed(draw: st.DrawFn) -> Placed:
    """A crop anywhere in a picture, its box not necessarily tight; the crop may be empty."""
    crop = draw(masks_hw())
    above, left = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    below, right = draw(st.integers(0, 3)), draw(st.integers(0, 3))
    height, width = crop.shape
    size = (above + height + below, left + width + right)
    return size, (left, above, left + width, above + height), crop


@st.composite
def masks_nhw(draw: st.DrawFn, *, most: int = 6) -> BoolArray:
    """``(N, H, W)`` bool, each mask with at least one pixel; N may be 0."""
    count, (height, width) = draw(st.integers(0, most)), draw(sizes_hw())
    dense = draw(hnp.arrays(np.bool_, (count, height, width)))
    for mask in dense:
        mask[draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))] = True
    return dense


@st.composite
def overlaps_nn(draw: st.DrawFn, *, most: int = 8) -> npt.NDArray[np.float64]:
    """``(N, N)`` symmetric overlaps in 0..1 with ones on the diagonal."""
    count = draw(st.integers(0, most))
    values = draw(hnp.arrays(np.float64, (count, count), elements=st.floats(0, 1)))
    symmetric = np.triu(values, 1) + np.triu(values, 1).T
    np.fill_diagonal(symmetric, 1)
    return symmetric


@st.composite
def distances_hw(draw: st.DrawFn) -> npt.NDArray[np.float32]:
    """``(H, W)`` float32 distances of 0 to 500 pixels."""
    shape = draw(sizes_hw())
    return draw(hnp.arrays(np.float32, shape, elements=st.floats(0, 500, width=32)))


rle_characters = st.text(st.sampled_from([chr(48 + code) for code in range(64)]), max_size=40)
"""Text in COCO's alphabet that no encoder wrote."""

counts_garbage: st.SearchStrategy[Any] = st.one_of(
    rle_characters,
    st.text(max_size=20),
    st.binary(max_size=20),
    st.lists(st.integers(-5, 60), max_size=12),
    st.lists(st.one_of(st.none(), st.text(max_size=3), st.floats(), st.integers()), max_size=5),
    st.none(),
    st.integers(),
    st.floats(),
    st.dictionaries(st.text(max_size=2), st.integers(), max_size=2),
)
sizes_garbage: st.SearchStrategy[Any] = st.one_of(
    st.lists(st.integers(-3, 20), max_size=4),
    st.lists(st.integers(), min_size=2, max_size=2),
    st.lists(st.one_of(st.floats(), st.none(), st.text(max_size=2)), min_size=2, max_size=2),
    st.none(),
    st.integers(),
    st.text(string.ascii_letters, max_size=3),
)
polygons_garbage: st.SearchStrategy[Any] = st.one_of(
    st.lists(st.lists(st.floats(), max_size=9), min_size=1, max_size=3),
    st.lists(st.lists(st.floats(-1e9, 1e9), min_size=6, max_size=12), min_size=1, max_size=2),
    st.lists(
        st.lists(st.one_of(st.none(), st.text(max_size=2)), min_size=6, max_size=6), min_size=1
    ),
    st.lists(st.one_of(st.none(), st.integers(), st.text(max_size=8)), min_size=1, max_size=3),
    st.text(min_size=1, max_size=5),
    st.integers(),
)
