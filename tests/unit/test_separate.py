"""The separate objects of one kind among a picture's proposals."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st
from strategies import QUICK

from sam_detect.labelling.separate import separate_objects
from sam_detect.types import Masks
from sam_detect.types.masks import FloatArray

SIDE = 200
NUT, LEAF, CLOTH = np.eye(3, dtype=np.float32)
"""Kinds of things, as vectors: unlike each other."""
Box = tuple[int, int, int, int]


def proposals(*rows: tuple[Box, float]) -> Masks:
    """Full rectangles of a 200 x 200 picture, each ``(x0, y0, x1, y1)`` with its quality."""
    boxes = [box for box, _ in rows]
    crops = [np.ones((y1 - y0, x1 - x0), np.bool_) for x0, y0, x1, y1 in boxes]
    return Masks.from_crops(
        size_hw=(SIDE, SIDE),
        boxes_xyxy=np.array(boxes, np.int64).reshape(-1, 4),
        crops=crops,
        predicted_ious=[quality for _, quality in rows],
    )


def chosen(masks: Masks, vectors: Sequence[npt.NDArray[np.float32]]) -> list[int]:
    """The indices taken; vectors are those of all masks."""
    known = {tuple(box): v for box, v in zip(masks.boxes_xyxy.tolist(), vectors, strict=True)}

    def embed(some: Masks) -> FloatArray:
        return np.stack([known[tuple(box)] for box in some.boxes_xyxy.tolist()])

    return separate_objects(masks, embed, similarity=0.9).tolist()


NUTS = [((20, 20, 40, 40), 0.6), ((80, 20, 100, 40), 0.58), ((140, 20, 160, 40), 0.55)]


def test_those_that_are_alike_are_taken_and_others_are_not() -> None:
    masks = proposals(*NUTS, ((20, 100, 40, 120), 0.57))
    assert chosen(masks, [NUT, NUT, NUT, LEAF]) == [0, 1, 2]


def test_where_they_need_not_be_alike_all_that_stand_out_are_taken() -> None:
    masks = proposals(
        *NUTS, ((20, 100, 40, 120), 0.57), ((22, 102, 30, 110), 0.6), ((90, 90, 99, 99), 0.3)
    )
    assert separate_objects(masks).tolist() == [0, 4, 1, 2]


def test_a_part_is_not_taken_beside_its_whole_nor_several_as_one() -> None:
    part, pair = ((22, 22, 32, 32), 0.59), ((18, 18, 102, 42), 0.5)
    assert chosen(proposals(*NUTS, part, pair), [NUT] * 5) == [0, 1, 2]


def test_what_stands_out_less_is_texture() -> None:
    texture = [((x, 120, x + 20, 140), 0.3) for x in range(0, 200, 25)]
    masks = proposals(*NUTS, *texture)
    assert chosen(masks, [NUT] * 3 + [CLOTH] * len(texture)) == [0, 1, 2]
    assert chosen(masks, [NUT] * len(masks)) == [0, 1, 2], "even if it looks alike"


def test_the_background_is_not_taken_however_it_looks() -> None:
    ground, strip = ((0, 0, 200, 200), 0.9), ((0, 0, 200, 10), 0.9)
    large = ((10, 60, 190, 190), 0.9)
    masks = proposals(ground, strip, large, *NUTS)
    assert chosen(masks, [NUT] * 6) == [3, 4, 5]


def test_what_is_of_quite_another_size_is_another_kind() -> None:
    tiny, large = ((100, 100, 104, 104), 0.6), ((60, 60, 140, 140), 0.6)
    assert chosen(proposals(*NUTS, tiny), [NUT] * 4) == [0, 1, 2]
    assert chosen(proposals(*NUTS, large), [NUT] * 4) == [0, 1, 2]


def test_the_kind_of_which_there_is_most_is_taken() -> None:
    leaves = [((x, 150, x + 20, 170), 0.6) for x in (20, 80)]
    assert chosen(proposals(*leaves, *NUTS), [LEAF] * 2 + [NUT] * 3) == [2, 3, 4]
    more = [((x, 150, x + 20, 170), 0.5) for x in (20, 60, 100, 140)]
    assert chosen(proposals(*NUTS, *more), [NUT] * 3 + [LEAF] * 4) == [3, 4, 5, 6]


def test_the_picture_of_one_large_thing_gives_that_thing() -> None:
    person, logo = ((20, 10, 180, 200), 0.6), ((80, 80, 100, 100), 0.55)
    assert chosen(proposals(person, logo), [NUT, LEAF]) == [0]
    assert chosen(proposals(logo, person), [LEAF, NUT]) == [1]


def test_where_nothing_is_proposed_or_only_ground_nothing_is_taken() -> None:
    assert chosen(proposals(), []) == []
    assert chosen(proposals(((0, 0, 200, 200), 1.0)), [CLOTH]) == []


def test_vectors_are_made_once_and_only_of_what_stands_out() -> None:
    asked: list[int] = []

    def embed(some: Masks) -> FloatArray:
        asked.append(len(some))
        return np.stack([NUT] * len(some))

    texture = [((x, 120, x + 20, 140), 0.3) for x in range(0, 200, 25)]
    separate_objects(proposals(*texture, *NUTS), embed, similarity=0.9)
    assert asked == [3]


@pytest.mark.parametrize("quality", [0.0, 1.0, float("nan")])
def test_a_segmenter_that_does_not_rank_gives_its_own_order(quality: float) -> None:
    rows = [(box, quality) for box, _ in NUTS]
    assert chosen(proposals(*rows), [NUT] * 3) == [0, 1, 2]


places = st.integers(0, 150)
rows = st.lists(
    st.tuples(places, places, st.integers(1, 50), st.integers(1, 50), st.floats(0, 1, width=32)),
    max_size=12,
)


@QUICK
@given(rows, st.integers(0, 2**16))
def test_what_is_taken_lies_apart_whatever_is_proposed(
    drawn: list[tuple[int, int, int, int, float]], seed: int
) -> None:
    masks = proposals(*(((x, y, x + w, y + h), q) for x, y, w, h, q in drawn))
    vectors = np.random.default_rng(seed).normal(size=(len(masks), 4)).astype(np.float32)
    vectors /= np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-6)
    kept = separate_objects(masks, lambda some: vectors[: len(some)], similarity=0.5)
    assert len(set(kept.tolist())) == len(kept)
    for one in kept:
        for other in kept:
            if one < other:
                both = np.count_nonzero(masks.dense(one) & masks.dense(other))
                assert both <= 0.6 * min(masks.areas[one], masks.areas[other])
