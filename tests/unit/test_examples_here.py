"""What the examples of a picture say of its other objects."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from sam_detect.api import SAMDetect
from sam_detect.io import to_frame
from sam_detect.labelling.naming import with_labels_of_this_picture
from sam_detect.types import Classification, ExampleArrays, HardNegativeArrays
from sam_detect.vector_store import MemoryVectorStore
from tests.library_helpers import detector, disc_masks, discs


def arrays() -> ExampleArrays:
    """Six examples of two pictures, one of them negative, with hard negatives."""
    return ExampleArrays(
        ids=tuple("abcdef"),
        labels=("nut", "nut", "nut", "nut", "date", "nut"),
        sources=("p", "q", "p", "p", "q", "p"),
        boxes_xywh=np.arange(24).reshape(6, 4),
        negatives=np.array([False, False, False, False, False, True]),
        vectors=np.eye(6, dtype=np.float32),
        areas=np.arange(6),
        hard_negatives=HardNegativeArrays(
            np.array([0, 1, 1, 3]), np.array([True, False, True, True]),
            np.arange(24, dtype=np.float32).reshape(4, 6), np.zeros(4, np.bool_),
        ),
    )  # fmt: skip


def test_some_examples_keep_their_hard_negatives() -> None:
    every = arrays()
    some = every.where(np.array([False, True, False, True, False, True]))
    assert some.ids == ("b", "d", "f")
    assert some.areas.tolist() == [1, 3, 5]
    assert some.negatives.tolist() == [False, False, True]
    assert some.hard_negatives.owners.tolist() == [0, 0, 1]
    assert (some.hard_negatives.vectors == every.hard_negatives.vectors[1:]).all()
    assert some.qualities.tolist() == []
    assert some.proposers == ()


def test_examples_of_the_picture_come_first_and_are_half_of_them_at_least() -> None:
    every = arrays()
    assert every.positive_ids(10) == ["a", "b", "c", "d", "e"]
    assert every.positive_ids(2, picture="p") == ["a", "c", "e"]
    assert every.positive_ids(10, picture="p") == ["a", "c", "d", "b", "e"]
    # With fewer than three here, all others take part.
    assert every.positive_ids(10, picture="q") == ["b", "a", "c", "d", "e"]
    many = ExampleArrays(
        ids=tuple(f"{i:02}" for i in range(12)), labels=("nut",) * 12,
        sources=("p",) * 3 + ("q",) * 9, boxes_xywh=np.zeros((12, 4), np.int64),
        negatives=np.zeros(12, np.bool_), vectors=np.zeros((12, 2), np.float32),
    )  # fmt: skip
    assert many.positive_ids(10, picture="p") == ["00", "01", "02", "03", "04", "05"]


def test_what_all_do_not_know_is_named_by_those_of_the_picture() -> None:
    unknown = Classification(None, "nut", 0.2)
    known = Classification("date", "date", 0.8)
    here = Classification("nut", "nut", 0.7)
    other = Classification("fig", "fig", 0.9)
    assert with_labels_of_this_picture([unknown, known], [here, here]) == [here, known]
    # A label that all do not find nearest is none.
    assert with_labels_of_this_picture([unknown], [other]) == [unknown]
    assert with_labels_of_this_picture([unknown], [Classification(None, "nut", 0.1)]) == [unknown]


@pytest.fixture
def two_pictures() -> SAMDetect:
    made = detector(MemoryVectorStore())
    for seed in (0, 1):
        for mask in disc_masks()[: 3 + seed]:
            made.add_example(discs("nut", seed), "nut", mask)
    return made


def test_a_picture_with_enough_examples_has_a_snapshot_of_its_own(
    two_pictures: SAMDetect, tmp_path: Path
) -> None:
    snapshot = two_pictures.snapshot()
    digest = to_frame(discs("nut", 0)).digest
    assert digest in snapshot.examples().sources
    here = snapshot.of_picture(digest)
    assert here is not None
    assert set(here.examples().sources) == {digest}
    assert len(here.examples().ids) == 3
    assert here.generation != snapshot.generation
    assert {n.id for row in here.nearest(here.examples().vectors, 5) for n in row} == set(
        here.examples().ids
    )
    assert snapshot.of_picture("another") is None


def test_it_needs_other_pictures_and_enough_examples_that_are_not_negative() -> None:
    made = detector(MemoryVectorStore())
    first, second = discs("nut", 0), discs("nut", 1)
    for mask in disc_masks()[:3]:
        made.add_example(first, "nut", mask)
    here = to_frame(first).digest
    assert made.snapshot().of_picture(here) is None, "it would be the same as the whole"
    for number, mask in enumerate(disc_masks()[:3]):
        made.add_example(second, "nut", mask, negative=number == 0)
    assert made.snapshot().of_picture(here) is not None
    assert made.snapshot().of_picture(to_frame(second).digest) is None
