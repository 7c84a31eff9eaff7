"""Blobs of a NimbusImage server are polygons, and stay blobs; annotations are named by ids."""

from __future__ import annotations

import json
from typing import Any

import pytest

from sam_detect.io import nimbus

SQUARE = [{"x": x, "y": y} for x, y in ((1.5, 1.5), (9.5, 1.5), (9.5, 8.5), (1.5, 8.5))]


def row(shape: str, number: int = 1, **changes: Any) -> dict[str, Any]:
    return {
        "_id": f"{number:024x}", "shape": shape, "tags": ["cell"], "coordinates": SQUARE,
        "location": {"XY": 0, "Z": 0, "Time": 0}, "channel": 0, "datasetId": "d", **changes,
    }  # fmt: skip


@pytest.mark.parametrize(("shape", "back"), [("blob", "blob"), ("polygon", "polygon"),
                                             ("rectangle", "polygon")])  # fmt: skip
def test_a_blob_is_read_as_a_polygon_and_written_back_as_a_blob(shape: str, back: str) -> None:
    problems: list[str] = []
    [image] = nimbus.decode({"annotations": [row(shape)]}, problems)
    assert (len(image.outlines[0].polygons), problems) == (1, [])
    [made] = json.loads(nimbus.encode(image))["annotations"]
    assert made["shape"] == back
    assert len(made["coordinates"]) >= 4


def test_a_blob_without_corners_is_named_by_its_own_id() -> None:
    problems: list[str] = []
    rows = [row("blob"), row("blob", 7, coordinates=[]), row("line", 8), {"shape": "blob"}, 5]
    nimbus.decode({"annotations": rows}, problems)
    assert [each.partition(":")[0] for each in problems] == [
        f"annotation {7:024x}", f"annotation {8:024x}", "annotation 4", "annotation 5"
    ]  # fmt: skip
