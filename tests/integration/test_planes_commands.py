"""``fewshot``, ``learn`` and ``evaluate`` of planes and channels of stacks."""

from __future__ import annotations

import csv
import io
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import roifile
import tifffile
from cli_harness import Command, in_this_process
from shapely.geometry import shape

from sam_detect import SAMDetect
from sam_detect.io import PlaneRanges, geojson
from sam_detect.types import AnnotatedImage, Annotation, Location

PARTS = ("--segmenter", "naive", "--embedder", "appearance", "--workers", "1")
CENTRES = [(24, 24), (72, 26), (26, 74), (74, 72)]
FORMATS = {"geojson": "o.geojson", "imagej": "o.zip", "labelme": "o.json", "labelmap": "o.tif",
           "nimbus": "n.json"}  # fmt: skip


@pytest.fixture
def sam(
    capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> Command:
    monkeypatch.chdir(tmp_path)
    return in_this_process(capfd)


def discs(z: int) -> list[npt.NDArray[np.bool_]]:
    """Four discs, larger in the middle planes."""
    y, x = np.mgrid[:100, :100]
    return [(x - cx) ** 2 + (y - cy) ** 2 <= (9 + (z in (1, 2))) ** 2 for cx, cy in CENTRES]


@pytest.fixture
def stack(tmp_path: Path) -> Path:
    """Four planes of two channels: noise, and discs."""
    values = np.random.default_rng(0).normal(300, 12, (4, 2, 100, 100))
    for z in range(4):
        for disc in discs(z):
            values[z, 1][disc] += 2000
    path = tmp_path / "cells.ome.tif"
    tifffile.imwrite(path, values.astype(np.uint16), metadata={"axes": "ZCYX"}, compression="zlib")
    return path


def outline(z: int, centre: tuple[int, int], location: Location | None) -> Annotation:
    turn = np.linspace(0, 2 * np.pi, 40, endpoint=False)
    radius = 9.5 + (z in (1, 2))
    ring = np.stack([centre[0] + 0.5 + radius * np.cos(turn),
                     centre[1] + 0.5 + radius * np.sin(turn)], axis=1)  # fmt: skip
    return Annotation(("cell",), polygons=((ring,),), location=location)


@pytest.fixture
def three(tmp_path: Path) -> Path:
    """Two outlines in the first plane and one in the third."""
    shown = [(0, CENTRES[0]), (0, CENTRES[1]), (2, CENTRES[2])]
    outlines = tuple(outline(z, centre, (0, z, 0)) for z, centre in shown)
    path = tmp_path / "three.geojson"
    path.write_bytes(geojson.encode(AnnotatedImage("", "", outlines)))
    return path


def opened(path: Path, name: str) -> list[tuple[int, float]]:
    """Z from 0 and the area of each object, by the readers of the field."""
    if name == "geojson":
        features = json.loads(path.read_text())["features"]
        return [(f["geometry"]["plane"]["z"], shape(f["geometry"]).area) for f in features]
    if name == "imagej":
        rois = roifile.roiread(path)
        return [(r.z_position - 1, _area(r.coordinates())) for r in rois]
    if name == "labelmap":
        values = tifffile.imread(path)
        return [(z, float((plane == number).sum())) for z, plane in enumerate(values)
                for number in np.unique(plane) if number]  # fmt: skip
    data = json.loads(path.read_text())
    if name == "labelme":
        return [(0, _area(each["points"])) for each in data["shapes"]]
    rows = data["annotations"]
    return [(each["location"]["Z"], _area([(p["x"], p["y"]) for p in each["coordinates"]]))
            for each in rows]  # fmt: skip


def _area(points: Any) -> float:
    return float(shape({"type": "Polygon", "coordinates": [[*map(tuple, points)]]}).area)


@pytest.mark.parametrize("name", FORMATS)
def test_polygons_of_every_format_are_read_by_others(
    sam: Command, stack: Path, three: Path, name: str
) -> None:
    options = ("--z", "2-4", "--channel", "2", "--format", name, "--output", FORMATS[name])
    result = sam("fewshot", stack, "--annotations", three, "--tag", "cell", *PARTS, *options)
    assert "learnt 3 examples of 'cell'" in result.worked().err
    found = opened(Path(FORMATS[name]), name)
    # Four of the second plane and of the fourth, three of the third: one of it was shown.
    assert len(found) == 11
    if name == "labelmap":  # planes are those that were selected
        assert sorted(z for z, _ in found) == [0] * 4 + [1] * 3 + [2] * 4
    elif name != "labelme":  # which has no planes
        assert sorted(z for z, _ in found) == [1] * 4 + [2] * 3 + [3] * 4
    areas = sorted(area for _, area in found)
    assert all(200 < area < 420 for area in areas), areas  # discs of 253 and 317 pixels


def test_tables_and_overlays(sam: Command, stack: Path, three: Path) -> None:
    asked = ("fewshot", stack, "--annotations", three, "--tag", "cell", *PARTS, "--z", "1-4",
             "--channel", "2")  # fmt: skip
    sam(*asked, "--output", "o.csv", "--include-shown").worked()
    rows = [*csv.DictReader(io.StringIO(Path("o.csv").read_text()))]
    assert [row["z"] for row in rows if row["label"] == "cell"] == [*"0000111122223333"]
    sam(*asked, "--output", "drawn").worked()
    assert len([*Path("drawn").iterdir()]) == 4
    sam(*asked, "--format", "coco", "--output", "o.json").failed("cannot tell the planes", code=2)


def test_outlines_without_a_plane_lie_in_the_selected_one(
    sam: Command, stack: Path, tmp_path: Path
) -> None:
    path = tmp_path / "three.geojson"
    outlines = tuple(outline(1, centre, None) for centre in CENTRES[:2])
    path.write_bytes(geojson.encode(AnnotatedImage("", "", outlines)))
    asked = ("fewshot", stack, "--annotations", path, "--tag", "cell", *PARTS, "--channel", "2")
    (found,) = sam(*asked, "--z", "2", "--json").worked().json
    assert (found["location"], len(found["detections"])) == ([0, 1, 0], 2)
    sam(*asked, "--z", "2-3").failed("2 annotations do not say which plane they lie in", code=1)


def test_outlines_in_planes_that_are_not_there_are_named(
    sam: Command, stack: Path, tmp_path: Path
) -> None:
    path = tmp_path / "three.geojson"
    far = replace(outline(1, CENTRES[0], None), location=(0, 8, 0))
    path.write_bytes(geojson.encode(AnnotatedImage("", "", (far,))))
    asked = ("fewshot", stack, "--annotations", path, "--tag", "cell", *PARTS, "--channel", "2")
    sam(*asked, "--z", "2").failed("z 9", "no such plane, the file has 1 XY, 4 Z", code=1)


def test_from_python(stack: Path, three: Path) -> None:
    detector = SAMDetect(segmenter="naive", embedder="appearance", vector_store="memory")
    ranges = PlaneRanges(z="2-3", channel="2")
    found = detector.fewshot([str(stack)], three, "cell", ranges=ranges)
    assert [len(each) for each in found] == [4, 3]


def test_learn_takes_each_annotation_with_its_plane(sam: Command, stack: Path, three: Path) -> None:
    asked = ("learn", stack, "--annotations", three, "--embedder", "appearance", "--channel", "2")
    sam(*asked, "--library", "all", "--preview", "drawn").worked()
    assert sorted(each.name for each in Path("drawn").iterdir()) == [
        "cells.ome_xy1_z1_t1.png", "cells.ome_xy1_z3_t1.png",
    ]  # fmt: skip
    result = sam(*asked, "--library", "third", "--z", "3-4", "--json").worked()
    assert "warning: " in result.err
    assert "2 annotations lie in planes that are not selected" in result.err
    assert result.json[-1]["total"] == 1
    # The library finds them in planes that were never shown.
    found = sam("detect", stack, "--library", "all", *PARTS, "--z", "2,4", "--channel", "2",
                "--json").worked().json  # fmt: skip
    assert [[each["label"] for each in one["detections"]].count("cell") for one in found] == [4, 4]


def test_learn_boxes_of_one_plane(sam: Command, stack: Path) -> None:
    boxes = ("--label", "cell", "--box", "14,14,21,21", "--channel", "2")
    asked = ("learn", stack, *boxes, "--embedder", "appearance", "--segmenter", "naive")
    (added,) = sam(*asked, "--z", "2", "--json").worked().json
    assert added["added"] == 1
    sam(*asked, "--z", "2-3").failed("2 pictures were given", code=2)
    sam(*asked, "--z", "9").failed("asks for plane 9, the file has 4", code=1)


def labelled(root: Path, stack: Path) -> Path:
    (root / "images").mkdir(parents=True)
    (root / "masks").mkdir()
    stack.rename(root / "images" / stack.name)
    values = np.zeros((4, 100, 100), np.uint16)
    for z in range(4):
        for number, disc in enumerate(discs(z), start=1):
            values[z][disc] = number
    tifffile.imwrite(root / "masks" / stack.name, values, metadata={"axes": "ZYX"})
    return root


def test_evaluate_takes_planes_as_pictures(sam: Command, stack: Path, tmp_path: Path) -> None:
    root = labelled(tmp_path / "set", stack)
    asked = ("evaluate", root, "--shots", "2", "--seeds", "0", "--segmenter", "naive",
             "--embedder", "appearance", "--channel", "2")  # fmt: skip
    options = ("--protocol", "each", "--visualize", "drawn", "--json")
    (figures,) = sam(*asked, "--z", "1-3", *options).worked().json
    assert [len(each["query_image_ids"]) for each in figures["episodes"]] == [1, 1, 1]
    assert figures["episodes"][0]["query_image_ids"] == [f"images/{stack.name} (xy 1, z 1, t 1)"]
    assert (figures["recall"], figures["precision"]) == (1.0, 1.0)
    assert len([*Path("drawn").rglob("*.png")]) == 3
    sam(*asked, "--z", "5").failed("asks for plane 5, the file has 4", code=1)
    (root / "annotations.json").write_text("{}")  # comes before the label maps
    sam(*asked, "--z", "1").failed("in no format of annotations that is known", code=1)


def test_detect_says_micrometres(sam: Command, tmp_path: Path) -> None:
    values = np.full((64, 64), 20, np.uint8)
    values[20:40, 20:40] = 200
    written = {"axes": "YX", "PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(tmp_path / "s.ome.tif", values, metadata=written)
    parts = ("--segmenter", "naive", "--embedder", "average", "--store", "memory")
    result = sam("detect", tmp_path / "s.ome.tif", "--label", "square", *parts, "--json")
    (one,) = result.worked().json
    assert one["pixel_size_um"] == {"x": 0.5, "y": 0.5}
    (square,) = [each for each in one["detections"] if each["label"]]
    assert square["area_um2"] == square["area"] / 4


def test_objects_linked_through_z_have_one_id(sam: Command, tmp_path: Path, stack: Path) -> None:
    values, size = tifffile.imread(stack), {"PhysicalSizeX": 0.5, "PhysicalSizeY": 0.5}
    tifffile.imwrite(stack, values, metadata={"axes": "ZCYX", "PhysicalSizeZ": 2.0, **size})
    path = tmp_path / "two.geojson"
    shown = tuple(outline(1, centre, (0, 1, 0)) for centre in CENTRES[:2])
    path.write_bytes(geojson.encode(AnnotatedImage("", "", shown)))
    asked = ("fewshot", stack, "--annotations", path, "--tag", "cell", *PARTS, "--z", "1-4",
             "--channel", "2", "--include-shown")  # fmt: skip
    result = sam(*asked, "--link-z", "0.2", "--output", "o.tif", "--format", "labelmap").worked()
    assert "linked the objects through Z: 4 volumes" in result.err
    found = tifffile.imread("o.tif")
    assert found.shape == (4, 100, 100)
    for cx, cy in CENTRES:  # one number through all planes
        assert len({*found[:, cy, cx].tolist()} - {0}) == 1
    assert set(np.unique(found)) == {0, 1, 2, 3, 4}
    sam(*asked, "--link-z", "0.2", "--output", "o.geojson").worked()
    features = json.loads(Path("o.geojson").read_text())["features"]
    measured = [each["properties"]["measurements"] for each in features]
    for number in range(1, 5):
        own = [each for each in measured if each["volume_id"] == number]
        assert len(own) == 4
        voxels = int((found == number).sum())
        assert {each["volume_voxels"] for each in own} == {voxels}
        assert {each["volume_um3"] for each in own} == {voxels * 0.5}
    rows = sam(*asked, "--link-z", "0.2", "--json").worked().json
    assert [sorted(each["volume_id"] for each in one["detections"]) for one in rows] == [
        [1, 2, 3, 4]
    ] * 4
    sam(*asked[:-5], "--link-z", "0.2").failed("select several with --z", code=2)


def test_ome_zarr_by_several_processes(sam: Command, tmp_path: Path, stack: Path) -> None:
    zarr = pytest.importorskip("zarr", minversion="3")
    root, values = tmp_path / "cells.ome.zarr", tifffile.imread(stack)
    array = zarr.create_array(root / "0", shape=values.shape, chunks=(1, 1, 64, 64),
                              dtype=values.dtype, zarr_format=2)  # fmt: skip
    array[...] = values
    axes = [{"name": each} for each in "zcyx"]
    (root / ".zattrs").write_text(
        json.dumps({"multiscales": [{"axes": axes, "datasets": [{"path": "0"}]}]})
    )
    (root / ".zgroup").write_text('{"zarr_format": 2}')
    path = tmp_path / "cells.ome.geojson"
    shown = tuple(outline(0, centre, (0, 0, 0)) for centre in CENTRES[:2])
    path.write_bytes(geojson.encode(AnnotatedImage("", "", shown)))
    asked = ("fewshot", root, "--annotations", path, "--tag", "cell", *PARTS[:-1], "2",
             "--channel", "2", "--z", "2-4")  # fmt: skip
    found = sam(*asked, "--json").worked().json
    assert [len(each["detections"]) for each in found] == [4, 4, 4]
