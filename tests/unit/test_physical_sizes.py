"""How large a pixel is: what files say, and areas in square micrometres."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import tifffile

from sam_detect.io import PlaneRanges, load_image, planes_of
from sam_detect.io.tables import CSVSink
from sam_detect.types import Classification, Detections, Frame, Masks, PixelSize

VALUES = np.zeros((2, 8, 9), np.uint16)
FINE = (2.0 * 1e4, 4.0 * 1e4)
"""Pixels for each centimetre: half and a quarter of a micrometre."""


def ome(**given: Any) -> dict[str, Any]:
    return {"ome": True, "metadata": {"axes": "ZYX", **given}}


def imagej(unit: str, **given: Any) -> dict[str, Any]:
    return {
        "imagej": True,
        "resolution": (4, 2),
        "metadata": {"axes": "ZYX", "unit": unit, **given},
    }


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        (ome(PhysicalSizeX=0.5, PhysicalSizeY=0.25), PixelSize(0.5, 0.25)),
        (ome(PhysicalSizeX=65, PhysicalSizeXUnit="nm", PhysicalSizeY=0.13, PhysicalSizeZ=2e-3,
             PhysicalSizeYUnit="\u00b5m", PhysicalSizeZUnit="mm"), PixelSize(0.065, 0.13, 2)),
        (ome(PhysicalSizeX=5, PhysicalSizeY=5, PhysicalSizeXUnit="pixel"), None),
        (ome(PhysicalSizeX=0, PhysicalSizeY=1), None),
        (ome(PhysicalSizeX=1), None),
        (ome(), None),
        (imagej("um", spacing=1.5), PixelSize(0.25, 0.5, 1.5)),
        (imagej("\\u00B5m"), PixelSize(0.25, 0.5)),
        (imagej("micron"), PixelSize(0.25, 0.5)),
        (imagej("pixel"), None),
        ({"resolution": FINE, "resolutionunit": "CENTIMETER"}, PixelSize(0.5, 0.25)),
        ({"resolution": (118.11, 118.11), "resolutionunit": "CENTIMETER"}, None),  # 300 an inch
        ({"resolution": (300, 300), "resolutionunit": "INCH"}, None),
        ({"resolution": (100_000, 100_000), "resolutionunit": "NONE"}, None),
    ],
)  # fmt: skip
def test_what_files_say(tmp_path: Path, written: dict[str, Any], expected: Any) -> None:
    path = tmp_path / ("s.ome.tif" if "ome" in written else "s.tif")
    tifffile.imwrite(path, VALUES, photometric="minisblack", **written)
    (plane,) = planes_of(path, PlaneRanges(z="2"))
    with pytest.warns(UserWarning, match="only"):
        first = load_image(path)
    for found in (plane.read().pixel_size_um, first.pixel_size_um):
        if expected is None:
            assert found is None
        else:
            assert found is not None
            assert (found.x, found.y) == pytest.approx((expected.x, expected.y))
            assert found.z == (None if expected.z is None else pytest.approx(expected.z))


def test_each_position_has_its_own(tmp_path: Path) -> None:
    with tifffile.TiffWriter(tmp_path / "s.ome.tif", ome=True) as tiff:
        for size in (1.0, 3.0):
            given = {"axes": "YX", "PhysicalSizeX": size, "PhysicalSizeY": size}
            tiff.write(VALUES[0], metadata=given)
    planes = planes_of(tmp_path / "s.ome.tif", PlaneRanges(xy="1-2"))
    assert [each.pixel_size_um for each in planes] == [PixelSize(1, 1), PixelSize(3, 3)]


@pytest.fixture
def found() -> tuple[Frame, Detections]:
    frame = Frame(np.zeros((8, 9, 3), np.uint8), "a.tif", pixel_size_um=PixelSize(0.5, 0.25, 2))
    masks = Masks.from_crops(
        size_hw=(8, 9), boxes_xyxy=[(1, 1, 5, 4)], crops=[np.ones((3, 4), bool)]
    )
    kept = Detections("a.tif", masks, (Classification("cell", "cell", 1.0, ()),),
                      pixel_size_um=frame.pixel_size_um)  # fmt: skip
    return frame, kept


def test_areas_in_square_micrometres(found: tuple[Frame, Detections]) -> None:
    frame, detections = found
    assert detections.to_dict()["pixel_size_um"] == {"x": 0.5, "y": 0.25, "z": 2}
    assert detections.to_dict()["detections"][0]["area_um2"] == 1.5
    assert detections[[0]].to_annotations()[0].properties["area_um2"] == 1.5
    text = io.StringIO()
    with_size = CSVSink(text)
    with_size.write(frame, detections)
    with_size.close()
    (row,) = csv.DictReader(io.StringIO(text.getvalue()))
    assert row["area_um2"] == "1.5"


def test_nothing_is_said_where_nothing_is_known() -> None:
    frame = Frame(np.zeros((8, 9, 3), np.uint8), "a.png")
    masks = Masks.from_dense(np.ones((8, 9), bool))
    detections = Detections("a.png", masks, (Classification("cell", "cell", 1.0, ()),))
    assert "area_um2" not in json.dumps(detections.to_dict())
    assert "area_um2" not in detections.to_annotations()[0].properties
    text = io.StringIO()
    sink = CSVSink(text)
    sink.write(frame, detections)
    (row,) = csv.DictReader(io.StringIO(text.getvalue()))
    assert row["area_um2"] == ""
