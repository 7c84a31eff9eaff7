"""Objects that overlap in neighbouring Z planes are one volume."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest

from sam_detect.errors import ConfigError, MaskError
from sam_detect.microscopy.volumes import link_volumes
from sam_detect.types import Classification, Detections, Location, Masks, PixelSize

Bar = tuple[str | None, int, int]
"""A label, and the columns that an object of one row takes."""


def plane(location: Location | None, bars: Sequence[Bar]) -> Detections:
    dense = np.zeros((len(bars), 2, 40), bool)
    for number, (_, start, stop) in enumerate(bars):
        dense[number, 0, start:stop] = True
    masks = Masks.from_dense(dense) if bars else Masks.empty((2, 40))
    named = tuple(Classification(label, label, 1.0) for label, *_ in bars)
    return Detections("s.tif", masks, named, location=location, pixel_size_um=PixelSize(2, 3, 5))


def ids(found: Sequence[Detections]) -> list[list[int | None]]:
    return [[None if v is None else v.id for v in each.volumes] for each in found]


def test_the_most_overlapping_are_one() -> None:
    found = link_volumes(
        [
            plane((0, 0, 0), [("a", 0, 10), ("a", 20, 30)]),
            plane((0, 1, 0), [("a", 22, 32), ("a", 18, 24), ("a", 2, 10)]),
            plane((0, 2, 0), [("a", 2, 10)]),
        ],
        least_iou=0.2,
    )
    # 22-32 has the higher IoU with 20-30 than 18-24 has.
    assert ids(found) == [[1, 2], [2, 3, 1], [1]]
    first = found[0].volumes[0]
    assert first is not None
    assert (first.voxels, first.um3) == (10 + 8 + 8, 26 * 30.0)
    assert found[1].measures(1) == {
        "area_um2": 36.0, "volume_id": 3, "volume_voxels": 6, "volume_um3": 180.0,
    }  # fmt: skip


@pytest.mark.parametrize(
    ("bars", "location", "expected"),
    [
        ([("b", 0, 10)], (0, 1, 0), [[1], [2]]),  # another label
        ([(None, 0, 10)], (0, 1, 0), [[1], [None]]),  # unknown
        ([("a", 9, 19)], (0, 1, 0), [[1], [2]]),  # hardly overlaps
        ([("a", 0, 10)], (0, 2, 0), [[1], [2]]),  # a plane lies between
        ([("a", 0, 10)], (0, 1, 1), [[1], [2]]),  # another time
        ([("a", 0, 10)], (1, 1, 0), [[1], [2]]),  # another position
        ([("a", 0, 10)], (0, 1, 0), [[1], [1]]),
        ([], (0, 1, 0), [[1], []]),
    ],
)
def test_what_is_one_and_what_not(
    bars: list[Bar], location: Location, expected: list[list[int | None]]
) -> None:
    found = link_volumes([plane((0, 0, 0), [("a", 0, 10)]), plane(location, bars)], least_iou=0.2)
    assert ids(found) == expected


def test_volumes_follow_a_selection() -> None:
    (found,) = link_volumes([plane((0, 0, 0), [("a", 0, 9), ("a", 20, 29)])], least_iou=0.2)
    assert ids([found[[1]]]) == [[2]]
    assert found[[1]].to_annotations()[0].id == 2


def test_bad_values_are_named() -> None:
    with pytest.raises(ConfigError, match="above 0 and at most 1, got 0"):
        link_volumes([], least_iou=0)
    with pytest.raises(MaskError, match=r"s\.tif is no plane of a stack"):
        link_volumes([plane(None, [])], least_iou=0.5)
