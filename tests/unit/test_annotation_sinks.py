"""Files of annotations as ``detect`` writes them: planes of a stack, unknown objects, smoothing."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import tifffile
from PIL import Image

from sam_detect.errors import OutputError
from sam_detect.io.annotation_files import load_annotations
from sam_detect.io.annotation_sinks import GeoJSONSink, ImageJSink, LabelMapSink, LabelMeSink
from sam_detect.types import Classification, Detections, Frame, Masks

SIZE = (60, 80)


def disc() -> np.ndarray:
    y, x = np.mgrid[:60, :80]
    return np.asarray((x - 40) ** 2 + (y - 30) ** 2 <= 400)


def scene(
    source: str = "a.tif", location: tuple[int, int, int] | None = None, label: str | None = "nut"
) -> tuple[Frame, Detections]:
    frame = Frame(np.zeros((*SIZE, 3), np.uint8), source, location=location)
    classes = (Classification(label, "nut", 0.75),)
    return frame, Detections(source, Masks.from_dense(disc()), classes)


def test_the_planes_of_a_stack_share_a_file_and_another_source_gets_its_own(tmp_path: Path) -> None:
    sink = LabelMapSink(tmp_path / "maps", multiple=True)
    for source, planes in (("a.tif", 3), ("b.tif", 2)):
        for z in range(planes):
            sink.write(*scene(source, (0, z, 0)))
    assert sink.close() == [tmp_path / "maps" / "a.tif", tmp_path / "maps" / "b.tif"]
    values = [tifffile.imread(tmp_path / "maps" / f"{name}.tif") for name in "ab"]
    assert [each.shape for each in values] == [(3, *SIZE), (2, *SIZE)]
    assert np.unique(values[0]).tolist() == [0, 1, 2, 3], "an object of a plane is one of its own"


def test_a_stack_is_one_picture_and_a_plane_that_comes_again_is_another(tmp_path: Path) -> None:
    sink = ImageJSink(tmp_path / "a.zip")
    for z in (0, 4):
        sink.write(*scene(location=(0, z, 0)))
    with pytest.raises(OutputError, match="one picture"):
        sink.write(*scene(location=(0, 4, 0)))
    sink.close()
    [found], _ = load_annotations(tmp_path / "a.zip")
    assert [each.location for each in found.outlines] == [(0, 0, 0), (0, 4, 0)]


def test_planes_of_several_sizes_are_refused(tmp_path: Path) -> None:
    sink = LabelMapSink(tmp_path / "a.tif")
    sink.write(*scene(location=(0, 0, 0)))
    frame = Frame(np.zeros((10, 10, 3), np.uint8), "a.tif", location=(0, 1, 0))
    with pytest.raises(OutputError, match="differ in size"):
        sink.write(frame, Detections("a.tif", Masks.empty((10, 10)), ()))


def test_unknown_objects_are_written_when_asked_for_and_have_no_tag(tmp_path: Path) -> None:
    for include, count in ((False, 0), (True, 1)):
        sink = GeoJSONSink(tmp_path / "a.geojson", include_unknown=include)
        sink.write(*scene(label=None))
        sink.close()
        [found], _ = load_annotations(tmp_path / "a.geojson")
        assert [each.tags for each in found.outlines] == [()] * count


def test_smoothing_leaves_fewer_corners(tmp_path: Path) -> None:
    corners, masks = [], []
    for smoothing in (0, 1.5):
        sink = GeoJSONSink(tmp_path / "a.geojson", smoothing=smoothing)
        sink.write(*scene())
        sink.close()
        [found], _ = load_annotations(tmp_path / "a.geojson")
        corners.append(len(found.outlines[0].polygons[0][0]))
        masks.append(found.outlines[0].mask(SIZE))
    np.testing.assert_array_equal(masks[0], disc())
    assert corners[1] < corners[0] / 2
    assert masks[1] is not None
    assert (masks[1] & disc()).sum() / (masks[1] | disc()).sum() > 0.93


def test_labelme_names_the_picture_below_the_folder_of_all(tmp_path: Path) -> None:
    inputs = [tmp_path / "in" / name for name in ("x/a.png", "b.png")]
    for path in inputs:
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.zeros((*SIZE, 3), np.uint8)).save(path)
    sink = LabelMeSink(tmp_path / "out", multiple=True, inputs=inputs)
    for path in inputs:
        sink.write(*scene(str(path)))
    names = [json.loads(path.read_text())["imagePath"] for path in sink.close()]
    assert names == ["x/a.png", "b.png"]
