"""The queue of the annotation page, and its groups of alike objects."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
import pytest

from sam_detect.errors import NotFoundError
from sam_detect.server.survey import NEAR_DUPLICATE, Survey, Surveyed
from sam_detect.types import Masks
from sam_detect.types.masks import FloatArray

SIZE = (8, 200)


def unit(*values: float) -> FloatArray:
    vector = np.array(values, np.float32)
    return vector / np.linalg.norm(vector)


def surveyed(
    vectors: Sequence[FloatArray],
    labels: Sequence[str | None] = (),
    confidences: Sequence[float] = (),
    taught: Sequence[bool] = (),
) -> Surveyed:
    count = len(vectors)
    stacked = np.array(vectors, np.float32).reshape(count, -1)
    mean = stacked.sum(axis=0)
    boxes = [[2 * i, 0, 2 * i + 1, 1] for i in range(count)]
    return Surveyed(
        generation="g", digest="d", ids=tuple(f"o{i}" for i in range(count)),
        masks=Masks.from_crops(size_hw=SIZE, boxes_xyxy=np.array(boxes).reshape(-1, 4),
                               crops=[np.ones((1, 1), np.bool_)] * count),
        thumbnails=(b"",) * count, labels=tuple(labels) or (None,) * count,
        confidences=np.array(confidences or [0.0] * count, np.float32),
        taught=np.array(taught or [False] * count), vectors=stacked.astype(np.float16),
        mean=mean / max(float(np.linalg.norm(mean)), 1e-9),
    )  # fmt: skip


X, Y, Z = unit(1, 0, 0), unit(0, 1, 0), unit(0, 0, 1)


def order(pictures: dict[int, Surveyed], policy: str) -> list[int]:
    survey = Survey()
    for number, each in pictures.items():
        survey.put(number, each)
    # Picture 8 was not surveyed yet; picture 9 is finished.
    numbers = [*sorted(pictures), 8, 9]
    return survey.order(policy, numbers, {9})  # type: ignore[arg-type]


def test_on_disk_what_is_finished_comes_last() -> None:
    assert order({0: surveyed([X]), 1: surveyed([Y])}, "folder") == [0, 1, 8, 9]


def test_the_least_certain_comes_first_and_near_duplicates_later() -> None:
    pictures = {
        0: surveyed([X], ["nut"], [0.99]),
        1: surveyed([Y], ["nut"], [0.55]),
        2: surveyed([Y], ["nut"], [0.6]),
        3: surveyed([Z], ["nut"], [0.7]),
        4: surveyed([Z], ["nut"], [0.5], [True]),
    }
    # 2 looks like 1, and what a user named is sure.
    assert order(pictures, "uncertain") == [1, 3, 0, 2, 4, 8, 9]
    assert float(Y @ Z) < 1 - NEAR_DUPLICATE


def test_the_most_diverse_are_far_apart() -> None:
    pictures = {
        0: surveyed([X]),
        1: surveyed([unit(1, 0.1, 0)]),
        2: surveyed([Y]),
        3: surveyed([Z]),
    }
    found = order(pictures, "diverse")
    assert set(found[:3]) >= {2, 3}
    assert {0, 1} & set(found[:3]), "and one of the two that are alike"
    assert found[4:] == [8, 9]


def test_alike_unknown_objects_are_groups_and_suggestions_are_by_name() -> None:
    near = [unit(1, 0.05 * i, 0) for i in range(4)]
    survey = Survey()
    survey.put(0, surveyed([*near[:2], Y]))
    survey.put(1, surveyed([*near[2:], Z, X], [None, None, "nut", "nut"],
                           [0, 0, 0.9, 0.9], [False, False, False, True]))  # fmt: skip
    survey.put(2, surveyed([X]))
    groups = survey.groups(skip={2})
    assert [(group.label, len(group.members)) for group in groups] == [(None, 4), ("nut", 1)]
    assert set(groups[0].members) == {(0, "o0"), (0, "o1"), (1, "o0"), (1, "o1")}
    assert survey.require(0).outline("o1").boxes_xyxy.tolist() == [[2, 0, 3, 1]]
    with pytest.raises(NotFoundError):
        survey.require(0).outline("gone")
    survey.forget(0)
    assert 0 not in survey.all()
    assert [group.label for group in survey.groups(skip={2})] == [None, "nut"]
    assert (0, "o0") not in {each for group in survey.groups() for each in group.members}
    survey.require(0).outline("o1")  # a page may still show it
    with pytest.raises(NotFoundError, match="load the groups again"):
        survey.require(3)


def test_nothing_surveyed_is_no_group() -> None:
    assert Survey().groups() == []


def test_groups_of_clear_outlines_come_before_scraps_of_background() -> None:
    scraps, nuts = (
        [unit(0, 1, 0.01 * i) for i in range(5)],
        [unit(1, 0.05 * i, 0) for i in range(3)],
    )
    found = surveyed([*scraps, *nuts])
    quality = np.array([0.27] * len(scraps) + [0.6] * len(nuts), np.float32)
    survey = Survey()
    survey.put(0, replace(found, masks=replace(found.masks, predicted_ious=quality)))
    assert [len(group.members) for group in survey.groups()] == [len(nuts), len(scraps)]
