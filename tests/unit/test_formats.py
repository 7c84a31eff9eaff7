"""Files of annotations: written, opened by other libraries, read again, and what is refused."""

from __future__ import annotations

import base64
import io
import json
import zipfile
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import roifile
import shapely
import tifffile
from hypothesis import given
from PIL import Image
from scipy.ndimage import gaussian_filter, label, minimum_filter
from shapely.geometry import shape
from strategies import QUICK, masks_hw

from sam_detect.errors import OutputError
from sam_detect.io import geojson, imagej, label_map, labelme, nimbus
from sam_detect.io.annotation_files import load_annotations
from sam_detect.types import (
    AnnotatedImage,
    Annotation,
    Classification,
    Detections,
    Masks,
)
from sam_detect.types.explanation import Explanation
from sam_detect.types.masks import BoolArray

SIZE = (90, 110)
Codec = tuple[Callable[[AnnotatedImage], bytes], Callable[[bytes, list[str]], list[AnnotatedImage]]]


def of_json(decode: Callable[[Any, list[str]], list[AnnotatedImage]]) -> Any:
    return lambda data, problems: decode(json.loads(data), problems)


CODECS: dict[str, Codec] = {
    "geojson": (geojson.encode, of_json(geojson.decode)),
    "imagej": (imagej.encode, imagej.decode),
    "labelme": (labelme.encode, of_json(labelme.decode)),
    "labelmap": (label_map.encode, label_map.decode),
    "nimbus": (nimbus.encode, of_json(nimbus.decode)),
}
every_format = pytest.mark.parametrize("name", CODECS)


def blobs(seed: int = 0) -> list[BoolArray]:
    """Objects that touch nothing else: smooth ones, some with holes, and single pixels."""
    noise = np.random.default_rng(seed).normal(size=SIZE)
    smooth, count = label(gaussian_filter(noise, 3) > 0.02)
    found = [smooth == number for number in range(1, count + 1)]
    largest = max(found, key=np.count_nonzero)
    y, x = np.argwhere(minimum_filter(largest, 5))[0]
    largest[y, x] = largest[y + 1, x + 1] = False
    return found


def of_masks(masks: list[BoolArray], **more: Any) -> tuple[Annotation, ...]:
    why = Explanation(prototype_similarity=0.9)
    classes = [Classification("nut", "nut", 0.75, explanation=why)] * len(masks)
    batch = Masks.from_dense(np.array(masks))
    return Detections("a.png", batch, tuple(classes)).to_annotations(**more)


def image(outlines: tuple[Annotation, ...], **more: Any) -> AnnotatedImage:
    return AnnotatedImage("a.png", "a.png", outlines, size_hw=SIZE, **more)


def again(name: str, given: AnnotatedImage) -> AnnotatedImage:
    encode, decode = CODECS[name]
    problems: list[str] = []
    [found] = decode(encode(given), problems)
    assert problems == []
    return replace(found, size_hw=SIZE)


def dense(given: AnnotatedImage) -> list[BoolArray]:
    masks = [each.mask(SIZE) for each in given.outlines]
    return [mask for mask in masks if mask is not None]


# Round trips


@every_format
@pytest.mark.parametrize("seed", range(3))
def test_no_pixel_is_lost_in_ten_round_trips(name: str, seed: int) -> None:
    masks = blobs(seed)
    found = image(of_masks(masks))
    for _ in range(10):
        found = again(name, found)
    assert len(found.outlines) == len(masks)
    np.testing.assert_array_equal(dense(found), masks)


@QUICK
@given(masks_hw(some_pixel=True))
def test_any_mask_is_the_same_in_every_format(mask: BoolArray) -> None:
    whole = np.zeros(SIZE, np.bool_)
    whole[3 : 3 + mask.shape[0], 5 : 5 + mask.shape[1]] = mask
    for name in CODECS:
        [found] = dense(again(name, image(of_masks([whole]))))
        np.testing.assert_array_equal(found, whole, err_msg=name)


@every_format
def test_tags_are_kept(name: str) -> None:
    given = of_masks(blobs()[:3])
    tags = ("nut", "große, runde"), ("細胞\U0001f95c",), ()
    tagged = tuple(
        Annotation(*pair) for pair in zip(tags, (e.polygons for e in given), strict=True)
    )
    found = again(name, image(tagged)).outlines
    assert [each.tags for each in found] == [each.tags for each in tagged]


@pytest.mark.parametrize("name", [name for name in CODECS if name != "labelmap"])
def test_location_properties_and_id_are_kept(name: str) -> None:
    [given] = of_masks(blobs()[:1], location=(0, 3, 2))
    assert given.properties["similarity"] == 0.9
    given = Annotation(
        given.tags, given.polygons, location=given.location, id="5f" * 12,
        properties=given.properties,
    )  # fmt: skip
    [found] = again(name, image((given,))).outlines
    assert found.location == (0, 3, 2)
    assert found.properties == given.properties
    assert found.id == given.id


@pytest.mark.parametrize("name", [name for name in CODECS if name != "labelmap"])
def test_a_point_is_a_point(name: str) -> None:
    [found] = again(name, image((Annotation(("nut",), point_xy=(12.5, 7.25)),))).outlines
    assert found.point_xy == (12.5, 7.25)
    assert found.tags == ("nut",)
    assert not found.is_outlined


@every_format
def test_a_box_becomes_its_rectangle(name: str) -> None:
    [found] = dense(again(name, image((Annotation(("nut",), bbox_xywh=(3, 4, 5, 6)),))))
    assert found.sum() == 30
    assert found[4:10, 3:8].all()


@every_format
def test_no_object_is_a_file_too(name: str) -> None:
    assert again(name, image(())).outlines == ()


@every_format
def test_output_is_the_same_each_time(name: str) -> None:
    encode, _ = CODECS[name]
    assert encode(image(of_masks(blobs()))) == encode(image(of_masks(blobs())))


# Opened by other libraries


def test_shapely_reads_geojson_with_valid_closed_shapes_and_holes() -> None:
    masks = blobs()
    data = json.loads(geojson.encode(image(of_masks(masks))))
    assert data["type"] == "FeatureCollection"
    for feature, mask in zip(data["features"], masks, strict=True):
        assert feature["type"] == "Feature"
        assert feature["properties"]["objectType"] == "annotation"
        assert feature["properties"]["classification"]["name"] == "nut"
        assert len(feature["properties"]["classification"]["color"]) == 3
        assert feature["properties"]["measurements"]["similarity"] == 0.9
        found = shape(feature["geometry"])
        assert found.is_valid
        assert abs(found.area - mask.sum()) < 0.1 * mask.sum() + 1
        rings = feature["geometry"]["coordinates"]
        parts = [rings] if feature["geometry"]["type"] == "Polygon" else rings
        assert all(ring[0] == ring[-1] for part in parts for ring in part)
        y, x = np.nonzero(mask)
        assert shapely.contains_xy(found, x + 0.5, y + 0.5).all()


def test_parts_are_a_multipolygon() -> None:
    mask = np.zeros(SIZE, np.bool_)
    mask[2:8, 2:8] = mask[20:30, 20:30] = True
    mask[23:26, 23:26] = False
    data = json.loads(geojson.encode(image(of_masks([mask]))))
    geometry = data["features"][0]["geometry"]
    assert geometry["type"] == "MultiPolygon"
    assert [len(part) for part in geometry["coordinates"]] == [2, 1]
    assert shape(geometry).area == mask.sum()


def test_roifile_reads_imagej_with_names_positions_and_holes() -> None:
    masks = blobs()
    data = imagej.encode(image(of_masks(masks, location=(0, 4, 1))))
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        rois = [roifile.ImagejRoi.frombytes(archive.read(name)) for name in archive.namelist()]
    assert len({roi.name for roi in rois}) == len(masks)
    assert rois[0].name == "nut-1"
    assert {(roi.c_position, roi.z_position, roi.t_position) for roi in rois} == {(0, 5, 2)}
    for roi, mask in zip(rois, masks, strict=True):
        rings = roi.coordinates(multi=True)
        area = shapely.Polygon(rings[0], rings[1:]).area
        assert abs(area - mask.sum()) < 0.1 * mask.sum() + 1
        y, x = np.nonzero(mask)
        assert (roi.left, roi.top) <= (x.min(), y.min())
        assert roi.right >= x.max() + 1
        assert roi.bottom >= y.max() + 1
        assert roi.composite or roi.subpixelresolution
    assert any(roi.composite for roi in rois)


def test_tifffile_reads_a_label_map_of_a_stack() -> None:
    masks = blobs()[:4]
    planes = tuple((0, z, t) for t in range(2) for z in range(3))
    outlines = of_masks(masks[:2], location=(0, 2, 0)) + of_masks(masks[2:], location=(0, 1, 1))
    data = label_map.encode(image(outlines, references={"planes": planes}))
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        assert file.is_imagej
        assert file.series[0].axes == "TZYX"
        values = file.asarray()
    assert values.dtype == np.uint16
    assert values.shape == (2, 3, *SIZE)
    assert [np.count_nonzero(np.unique(plane)) for plane in values.reshape(6, -1)] == [
        0, 0, 2, 0, 2, 0,
    ]  # fmt: skip
    np.testing.assert_array_equal(values[0, 2] == 2, masks[1])
    [found] = label_map.decode(data, [])
    assert [each.location for each in found.outlines] == [(0, 2, 0)] * 2 + [(0, 1, 1)] * 2
    assert {each.tags for each in found.outlines} == {("nut",)}


@pytest.mark.parametrize(
    "planes",
    [
        ((0, 4, 0),),
        ((0, 2, 0), (0, 5, 0)),
        ((1, 0, 0), (1, 0, 3)),
        ((0, 0, 0), (0, 1, 0), (2, 7, 1)),
    ],
)
def test_a_label_map_says_which_planes_it_has(planes: Any) -> None:
    [first] = of_masks(blobs()[:1])
    outlines = tuple(Annotation(("nut",), first.polygons, location=at) for at in planes[-2:])
    data = label_map.encode(image(outlines, references={"planes": planes}))
    problems: list[str] = []
    [found] = label_map.decode(data, problems)
    assert problems == []
    assert [each.location for each in found.outlines] == list(planes[-2:])
    assert found.references["planes"] == planes, "also those without an object"
    assert label_map.encode(found) == data


@pytest.mark.parametrize(
    "said", [5, [], [[0, 1, 0]], [[0, 1, 0]] * 2, [[0, 1], [0, 2, 0, 1]], [[0, -1, 0], [0, 2, 0]],
             [[0, "a", 0], [0, 2, 0]]], ids=repr,
)  # fmt: skip
def test_planes_that_a_label_map_cannot_have_are_said(said: Any) -> None:
    values = np.zeros((2, *SIZE), np.uint16)
    values[1, 2:6, 3:9] = 1
    file = io.BytesIO()
    note = json.dumps({"sam-detect": [], "planes": said})
    tifffile.imwrite(file, values, imagej=True, metadata={"axes": "ZYX", "Info": note})
    problems: list[str] = []
    [found] = label_map.decode(file.getvalue(), problems)
    assert len(problems) == 1
    assert [each.location for each in found.outlines] == [(0, 1, 0)]


def test_one_id_in_several_planes_is_one_number() -> None:
    planes = ((0, 0, 0), (0, 1, 0))
    [first] = of_masks(blobs()[:1])
    outlines = tuple(
        Annotation(("nut",), first.polygons, location=plane, id="7") for plane in planes
    )
    data = label_map.encode(image(outlines, references={"planes": planes}))
    values = tifffile.imread(io.BytesIO(data))
    assert np.unique(values).tolist() == [0, 1]
    assert values[0].any()
    assert values[1].any()


def test_more_objects_than_16_bits_have_32(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(label_map, "MAX_16_BITS", 3)
    masks = blobs()[:5]
    data = label_map.encode(image(of_masks(masks)))
    assert tifffile.imread(io.BytesIO(data)).dtype == np.uint32
    [found] = label_map.decode(data, [])
    np.testing.assert_array_equal(dense(found), masks)
    assert found.outlines[0].tags == ("nut",)
    with pytest.raises(OutputError, match=r"name a \.tif file"):
        label_map.encode(image(of_masks(masks)), as_png=True)


def test_a_png_label_map_has_16_bits(tmp_path: Path) -> None:
    masks = blobs()[:5]
    data = label_map.encode(image(of_masks(masks)), as_png=True)
    with Image.open(io.BytesIO(data)) as picture:
        assert picture.mode.startswith("I;16")
    (tmp_path / "a.png").write_bytes(data)
    [found], _ = load_annotations(tmp_path / "a.png")
    np.testing.assert_array_equal(dense(found), masks)
    assert found.outlines[0].tags == ("nut",)


def test_nimbusimage_draws_the_same_pixels() -> None:
    """By the rule of its client: corners half a pixel to the left, filled by scikit-image."""
    from skimage.draw import polygon

    masks = blobs()
    data = json.loads(nimbus.encode(image(of_masks(masks, location=(1, 2, 3)))))
    for each, mask in zip(data["annotations"], masks, strict=True):
        assert each["location"] == {"XY": 1, "Z": 2, "Time": 3}
        corners = np.array([(corner["y"], corner["x"]) for corner in each["coordinates"]]) - 0.5
        drawn = np.zeros(SIZE, np.bool_)
        drawn[polygon(*corners.T, shape=SIZE)] = True
        np.testing.assert_array_equal(drawn, mask)
    [similarity] = [p for p in data["annotationProperties"] if p["name"] == "similarity"]
    values = data["annotationPropertyValues"]
    assert {values[each["_id"]][similarity["_id"]] for each in data["annotations"]} == {0.9}


def test_nimbusimage_keeps_connections_properties_and_ids() -> None:
    first = json.loads(nimbus.encode(image(of_masks(blobs()[:2]))))
    ids = [each["_id"] for each in first["annotations"]]
    first["annotationConnections"] = [{"parentId": ids[0], "childId": ids[1], "tags": []}]
    first["annotations"][0] |= {"channel": 2, "datasetId": "d" * 24, "color": "#ff0000"}
    [read] = nimbus.decode(first, [])
    second = json.loads(nimbus.encode(read))
    assert second == first


def test_labelme_gets_a_mask_between_the_first_and_the_last_pixel() -> None:
    mask = np.zeros(SIZE, np.bool_)
    mask[4:10, 5:20] = True
    mask[6, 7] = False
    [shown] = json.loads(labelme.encode(image(of_masks([mask]))))["shapes"]
    assert shown["shape_type"] == "mask"
    assert shown["points"] == [[5, 4], [19, 9]]
    with Image.open(io.BytesIO(base64.b64decode(shown["mask"]))) as picture:
        np.testing.assert_array_equal(np.asarray(picture) > 0, mask[4:10, 5:20])


# Files of other programs


def test_qupath_files_old_and_new_are_read() -> None:
    ring = [[2, 1], [6, 1], [6, 4], [2, 4], [2, 1]]
    old = {
        "type": "Feature", "id": "PathAnnotationObject",
        "geometry": {"type": "Polygon", "coordinates": [ring], "plane": {"c": -1, "z": 2, "t": 0}},
        "properties": {
            "classification": {"name": "Tumor", "colorRGB": -3670016}, "isLocked": False,
            "measurements": [{"name": "Area", "value": 12.0}, {"name": "odd", "value": None}],
        },
    }  # fmt: skip
    new = old | {"properties": {"objectType": "detection", "classification": {"names": ["A", "B"]}}}
    for data in ([old, new], {"type": "FeatureCollection", "features": [old, new]}):
        assert geojson.is_geojson(data)
        [found] = geojson.decode(data, [])
        assert [each.tags for each in found.outlines] == [("Tumor",), ("A", "B")]
        assert found.outlines[0].properties == {"Area": 12.0}
        assert found.outlines[0].location == (0, 2, 0)
        mask = found.outlines[0].mask((6, 8))
        assert mask is not None
        assert mask.sum() == 12


def test_imagej_shapes_and_made_up_names() -> None:
    rectangle = roifile.ImagejRoi()
    rectangle.roitype = roifile.ROI_TYPE.RECT
    rectangle.left, rectangle.top, rectangle.right, rectangle.bottom = 2, 1, 6, 4
    rectangle.name = "0003-0004"
    oval = roifile.ImagejRoi()
    oval.roitype = roifile.ROI_TYPE.OVAL
    oval.left, oval.top, oval.right, oval.bottom = 10, 10, 30, 20
    oval.name = "cell 12"
    oval.position = 3
    line = roifile.ImagejRoi()
    line.roitype = roifile.ROI_TYPE.LINE
    traced = roifile.ImagejRoi.frompoints(np.array([[2, 1], [6, 1], [6, 4], [2, 4]]), name="nut")
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w") as archive:
        for number, roi in enumerate((rectangle, oval, line, traced)):
            archive.writestr(f"{number}.roi", roi.tobytes())
    problems: list[str] = []
    [found] = imagej.decode(data.getvalue(), problems)
    assert problems == ["2.roi: a region of the type LINE outlines no object"]
    assert [each.tags for each in found.outlines] == [(), ("cell",), ("nut",)]
    areas = [mask.sum() for mask in dense(AnnotatedImage("", "", found.outlines))]
    assert areas[0] == areas[2] == 12
    assert abs(areas[1] - np.pi * 50) < 5
    assert found.outlines[1].location == (0, 2, 0)


def test_labelme_shapes_and_groups() -> None:
    def of(kind: str, points: list[list[float]], **more: Any) -> dict[str, Any]:
        return {"label": "nut", "points": points, "shape_type": kind, "flags": {}, **more}

    png = io.BytesIO()
    Image.fromarray(np.array([[1, 0], [1, 1]], np.uint8) * 255).save(png, format="PNG")
    square = [[2, 1], [6, 1], [6, 4], [2, 4]]
    moved = [[x + 20, y] for x, y in square]
    data = {
        "version": "5.0.1", "imagePath": "..\\images\\a.png", "imageData": None,
        "imageHeight": 90, "imageWidth": 110,
        "shapes": [
            of("polygon", square, group_id=1),
            of("rectangle", [[6, 4], [2, 1]]),
            of("circle", [[40, 40], [50, 40]]),
            of("mask", [[60, 50], [61, 51]], mask=base64.b64encode(png.getvalue()).decode()),
            of("polygon", moved, group_id=1),
            of("line", [[1, 1], [5, 5]]),
        ],
    }  # fmt: skip
    problems: list[str] = []
    [found] = labelme.decode(data, problems)
    assert problems == ["shape 6: a line of 2 points outlines no object"]
    assert found.file_name == "../images/a.png"
    assert found.size_hw == SIZE
    first, box, *others = found.outlines
    assert (box.bbox_xywh, box.polygons) == ((2, 1, 4, 3), ())
    areas = [int(mask.sum()) for mask in dense(replace(found, outlines=(first, *others)))]
    assert areas[0] == 24
    assert abs(areas[1] - np.pi * 100) < 5
    assert areas[2] == 3
