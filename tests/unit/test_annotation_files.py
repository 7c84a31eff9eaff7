"""Annotation files: told by their content, paired with pictures, and within limits."""

from __future__ import annotations

import base64
import io
import json
import struct
import unicodedata
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import roifile
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from strategies import QUICK

from sam_detect.errors import ImageError, MaskError
from sam_detect.io import geojson, imagej, label_map, labelme, nimbus
from sam_detect.io.annotation_files import load_annotations, read_annotations
from sam_detect.io.coco import match_pictures
from sam_detect.io.coco_sinks import COCOSink
from sam_detect.io.text_sinks import JSONSink
from sam_detect.types import (
    AnnotatedImage,
    Annotation,
    Classification,
    Detections,
    Frame,
    Masks,
)

SIZE = (20, 30)
RING = np.array([(2, 1), (6, 1), (6, 4), (2, 4)], float)
NUT, DATE = Annotation(("nut",), ((RING,),)), Annotation(("date", "ripe"), ((RING + 10,),))
WRITERS = {
    "a.geojson": geojson.encode,
    "a.zip": imagej.encode,
    "labelme.json": labelme.encode,
    "a.tif": label_map.encode,
    "a.png.json": nimbus.encode,
}
PICTURES = ["pictures/a.jpg"]


def image(*outlines: Annotation, name: str = "a.jpg") -> AnnotatedImage:
    return AnnotatedImage("", name, outlines, size_hw=SIZE)


def write(tmp_path: Path, name: str, content: Any) -> Path:
    file = tmp_path / name
    if not isinstance(content, (bytes, str)):
        content = json.dumps(content)
    file.write_bytes(content if isinstance(content, bytes) else content.encode())
    return file


def feature(coordinates: Any, kind: str = "Polygon", **properties: Any) -> dict[str, Any]:
    geometry = {"type": kind, "coordinates": coordinates}
    return {"type": "Feature", "geometry": geometry, "properties": properties}


def masks_of(found: list[AnnotatedImage]) -> list[np.ndarray]:
    masks = [each.mask(SIZE) for one in found for each in one.outlines]
    return [mask for mask in masks if mask is not None]


# Every format, by its content


@pytest.mark.parametrize("name", WRITERS)
def test_every_format_is_told_by_its_content(tmp_path: Path, name: str) -> None:
    file = write(tmp_path, name, WRITERS[name](image(NUT, DATE)))
    found, problems = read_annotations(file, PICTURES)
    assert problems == []
    assert [one.path for one in found] == PICTURES
    assert [each.tags for each in found[0].outlines] == [NUT.tags, DATE.tags]
    assert [int(mask.sum()) for mask in masks_of(found)] == [12, 12]


@pytest.mark.parametrize("kind", [COCOSink, JSONSink])
def test_what_detect_writes_is_read(tmp_path: Path, kind: Any) -> None:
    sink = kind(tmp_path / "found.json")
    mask = np.zeros(SIZE, np.bool_)
    mask[3:9, 4:20] = True
    classes = (Classification("nut", "nut", 0.5),)
    frame = Frame(np.zeros((*SIZE, 3), np.uint8), PICTURES[0])
    sink.write(frame, Detections(PICTURES[0], Masks.from_dense(mask), classes))
    sink.close()
    found, problems = read_annotations(tmp_path / "found.json", PICTURES)
    assert problems == []
    assert found[0].outlines[0].label == "nut"
    np.testing.assert_array_equal(masks_of(found), [mask])


def test_json_lines_of_several_pictures(tmp_path: Path) -> None:
    row = {"image": "b/x.jpg", "width": 30, "height": 20, "detections": []}
    file = write(tmp_path, "x.jsonl", json.dumps(row) + "\n" + json.dumps(row | {"image": "y.jpg"}))
    found, _ = load_annotations(file)
    assert [one.file_name for one in found] == ["b/x.jpg", "y.jpg"]


@pytest.mark.parametrize("name", WRITERS)
def test_a_tag_takes_its_annotations_and_is_their_label(tmp_path: Path, name: str) -> None:
    file = write(tmp_path, name, WRITERS[name](image(NUT, DATE)))
    found, _ = read_annotations(file, PICTURES, tag="ripe")
    assert [each.tags for each in found[0].outlines] == [("ripe", "date")]
    with pytest.raises(ImageError, match=r"no annotation with the tag 'fig' \(it has: date, nut"):
        read_annotations(file, PICTURES, tag="fig")


def test_what_has_no_tag_is_named_or_left_out(tmp_path: Path) -> None:
    file = write(tmp_path, "a.json", [RING.tolist(), (RING + 10).tolist()])
    found, problems = read_annotations(file, PICTURES, label="nut")
    assert problems == []
    assert [each.label for each in found[0].outlines] == ["nut", "nut"]
    with pytest.raises(ImageError, match="2 annotations have no tag: name them with --label"):
        read_annotations(file, PICTURES)


# Which picture


def test_a_file_without_names_means_the_picture_of_its_own_name(tmp_path: Path) -> None:
    file = write(tmp_path, "b.geojson", geojson.encode(image(NUT)))
    found, _ = read_annotations(file, ["a.jpg", "b.jpg", "c.jpg"])
    assert [one.path for one in found] == ["b.jpg"]
    with pytest.raises(ImageError, match="does not say which picture it is of, and 2 were given"):
        read_annotations(file, ["a.jpg", "c.jpg"])


def test_a_folder_of_files(tmp_path: Path) -> None:
    for name in "ab":
        write(tmp_path, f"{name}.geojson", geojson.encode(image(NUT)))
    write(tmp_path, "c.geojson", "{")
    write(tmp_path, "notes.txt", "no annotations")
    found, problems = read_annotations(tmp_path, ["p/a.jpg", "p/b.jpg"])
    assert [one.path for one in found] == ["p/a.jpg", "p/b.jpg"]
    assert len(problems) == 1
    assert "c.geojson is not a JSON file" in problems[0]


def test_annotations_of_a_picture_that_is_not_there(tmp_path: Path) -> None:
    file = write(tmp_path, "x.json", labelme.encode(image(NUT, name="other.jpg")))
    with pytest.raises(ImageError, match="none of the annotated pictures"):
        read_annotations(file, PICTURES)


# Conventions


def test_outlines_through_the_centres_of_pixels(tmp_path: Path) -> None:
    mask = np.zeros(SIZE, np.uint8)
    mask[3:9, 4:20] = 1
    mask[9:14, 10:15] = 1
    [contour], _ = cv2.findContours(mask, cv2.RETR_EXTERNAL, cv2.CHAIN_APPROX_NONE)
    file = write(tmp_path, "a.json", [contour[:, 0].tolist()])
    found, _ = read_annotations(file, PICTURES, label="nut", pixel_centres=True)
    np.testing.assert_array_equal(masks_of(found), [mask.astype(bool)])
    edges, _ = read_annotations(file, PICTURES, label="nut")
    assert masks_of(edges)[0].sum() < mask.sum()


def test_outlines_between_the_centres_of_pixels(tmp_path: Path) -> None:
    from skimage.measure import find_contours

    mask = np.zeros(SIZE, np.bool_)
    mask[3:9, 4:20] = mask[9:14, 10:15] = True
    [contour] = find_contours(mask.astype(float), 0.5)
    file = write(tmp_path, "a.json", [contour[:, ::-1].tolist()])
    found, _ = read_annotations(file, PICTURES, label="nut", pixel_centres=True)
    np.testing.assert_array_equal(masks_of(found), [mask])


# What cannot be used


BAD: dict[str, tuple[Any, str]] = {
    "two points": (feature([[[1, 1], [2, 2]]]), "at least 3 points"),
    "words": (feature([[["a", "b"]] * 4]), "list of numbers"),
    "not finite": (feature([[[1, 1], [5, 1e400], [5, 5]]]), "usable number"),
    "deep": (feature([[[[[[1]]]]]]), "polygon"),
    "a line": (feature([[1, 1], [2, 2]], "LineString"), "must be a Polygon"),
    "no geometry": ({"type": "Feature", "geometry": None}, "no geometry"),
    "no feature": (5, "must be an object"),
    "a tag of two lines": (
        feature([RING.tolist()], classification={"name": "a\nb"}), "one line of text",
    ),
    "a plane of words": (
        {"type": "Feature", "properties": {}, "geometry": {
            "type": "Polygon", "coordinates": [RING.tolist()], "plane": {"z": "x"}}},
        "Z must be a whole number",
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", BAD)
def test_a_feature_that_cannot_be_used_is_left_out(tmp_path: Path, what: str) -> None:
    bad, reason = BAD[what]
    good = feature([RING.tolist()], classification={"name": "nut"})
    text = json.dumps([good, bad, good])
    found, problems = read_annotations(write(tmp_path, "a.geojson", text), PICTURES)
    assert len(found[0].outlines) == 2
    assert len(problems) == 1
    assert "a.geojson: feature 2: " in problems[0]
    assert reason in problems[0]


def test_open_and_self_crossing_polygons_are_read(tmp_path: Path) -> None:
    bow = [[0, 0], [8, 8], [8, 0], [0, 8]]
    data = [feature([each], classification={"name": "nut"}) for each in (RING.tolist(), bow)]
    found, problems = read_annotations(write(tmp_path, "a.geojson", data), PICTURES)
    assert problems == []
    assert masks_of(found)[0].sum() == 12
    assert 20 < masks_of(found)[1].sum() < 40


NONE: dict[str, tuple[Any, str]] = {
    "nothing": (b"", "not a JSON file"),
    "text": (b"hello", "not a JSON file"),
    "no format": ({"a": 1}, "no format of annotations that is known"),
    "a number": (5, "no format of annotations that is known"),
    "half of COCO": ({"images": [], "annotations": []}, "needs a list 'categories'"),
    "deep JSON": ("[" * 100_000, "not a JSON file"),
    "a broken zip": (b"PK\x03\x04 and so on", "no zip file"),
    "a broken picture": (b"\x89PNG\r\n\x1a\n and so on", "damaged or cut off|not a picture"),
    "a broken TIFF": (b"II*\x00\xff\xff\xff\xff", "no TIFF file"),
    "features of features": (
        json.loads('{"type": "FeatureCollection", "features": [' * 30 + "]}" * 30),
        "collections in more than",
    ),
    "no list of features": ({"type": "FeatureCollection", "features": 5}, "must be a list"),
}


@pytest.mark.parametrize("what", NONE)
def test_a_file_of_no_annotations_is_one_line(tmp_path: Path, what: str) -> None:
    content, reason = NONE[what]
    file = write(tmp_path, "a.json", content)
    with pytest.raises(ImageError, match=reason) as caught:
        read_annotations(file, PICTURES)
    assert str(file) in str(caught.value)
    assert "\n" not in str(caught.value)


def zipped(*entries: tuple[str, bytes]) -> bytes:
    data = io.BytesIO()
    with zipfile.ZipFile(data, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries:
            archive.writestr(name, content)
    return data.getvalue()


def roi(ring: np.ndarray = RING, name: str = "nut-1") -> bytes:
    return bytes(roifile.ImagejRoi.frompoints(ring.astype(np.float32), name=name).tobytes())


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_zip_with_duplicates_gives_the_later_ones(tmp_path: Path) -> None:
    content = zipped(("a.roi", roi(RING)), ("a.roi", roi(RING * 2)), ("b.roi", roi(RING + 5)))
    found, problems = read_annotations(write(tmp_path, "a.zip", content), PICTURES)
    assert [int(mask.sum()) for mask in masks_of(found)] == [48, 12]
    assert problems == ["a.zip: 1 regions have the name of a later one: left out"]


def test_a_zip_bomb_is_refused_before_it_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(imagej, "MAX_ZIP_BYTES", 1 << 20)
    content = zipped(("a.roi", b"\0" * (3 << 19)))
    assert len(content) < 10_000
    with pytest.raises(ImageError, match="larger than 1 MiB"):
        read_annotations(write(tmp_path, "a.zip", content), PICTURES)


def test_a_zip_that_lies_about_its_size_is_a_problem(tmp_path: Path) -> None:
    content = bytearray(zipped(("a.roi", roi() + b"\0" * 5000), ("b.roi", roi())))
    central = content.index(b"PK\x01\x02")
    struct.pack_into("<I", content, central + 24, 100)
    found, problems = read_annotations(write(tmp_path, "a.zip", bytes(content)), PICTURES)
    assert len(found[0].outlines) == 1
    assert len(problems) == 1


@QUICK
@given(st.integers(0, 300), st.binary(min_size=1, max_size=8))
def test_a_damaged_region_is_a_line_or_an_object(place: int, noise: bytes) -> None:
    content = bytearray(roi())
    content[place : place + len(noise)] = noise
    problems: list[str] = []
    try:
        [found] = imagej.decode(bytes(content), problems)
    except ImageError:
        return
    for each in found.outlines:
        try:
            each.mask(SIZE)
        except MaskError:
            continue
    assert len(found.outlines) + len(problems) >= 1


@QUICK
@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(
        st.sampled_from(["type", "features", "geometry", "coordinates", "properties", "shapes",
                         "points", "label", "annotations", "tags", "location", "shape", "Z",
                         "annotationProperties", "annotationPropertyValues", "mask", "image",
                         "detections", "segmentation", "measurements", "classification"]),
        inner, max_size=5),
    max_leaves=20,
))  # fmt: skip
def test_garbage_is_problems_or_an_error_in_every_json_format(data: Any) -> None:
    from sam_detect.io import results

    for decode in (geojson.decode, labelme.decode, nimbus.decode, results.decode):
        rows = data if isinstance(data, dict) else {"annotations": data, "shapes": data}
        try:
            decode(rows, [])
        except ImageError:
            continue


def test_a_label_map_of_colours_or_fractions_is_refused(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(1, 255, (9, 9, 3), np.uint8)
    for values, reason in ((noise, "81 colours"), (np.full((5, 6), 0.5, np.float32), "fractions")):
        tifffile.imwrite(tmp_path / "a.tif", values)
        with pytest.raises(ImageError, match=reason):
            read_annotations(tmp_path / "a.tif", PICTURES, label="nut")


def test_a_box_without_area_is_a_problem(tmp_path: Path) -> None:
    shapes = [
        {"label": "nut", "points": [[1, 1], [1, 5]], "shape_type": "rectangle"},
        {"label": "nut", "points": [[1, 1], [4, 5]], "shape_type": "rectangle"},
    ]
    file = write(tmp_path, "a.json", {"shapes": shapes, "imagePath": "a.jpg"})
    found, problems = read_annotations(file, PICTURES)
    assert [each.bbox_xywh for each in found[0].outlines] == [(1, 1, 3, 4)]
    assert problems == ["a.json: shape 1: it is a box without area"]


def test_large_numbers_in_a_label_map_are_read(tmp_path: Path) -> None:
    values = (
        np.kron(np.arange(10_000, dtype=np.uint32).reshape(100, 100), np.ones((2, 2))) * 429_000
    )
    values = values.astype(np.uint32)
    tifffile.imwrite(tmp_path / "a.tif", values)
    found, _ = read_annotations(tmp_path / "a.tif", PICTURES, label="nut")
    assert len(found[0].outlines) == 9_999
    assert found[0].outlines[0].id == 429_000


# Of other programs


FOREIGN: dict[str, tuple[Any, str]] = {
    "CVAT": (
        '<?xml version="1.0"?>\n<!-- x -->\n<annotations><version>1.1</version><image id="0"/>',
        "CVAT's XML",
    ),
    "VOC": ("<annotation verified='yes'><folder>a</folder><object/>", "Pascal VOC's XML"),
    "Aperio": ('<Annotations MicronsPerPixel="0.5"><Annotation>', "Aperio's"),
    "another XML": ('<?xml version="1.0"?><boxes/>', "XML"),
    "UTF-16 XML": ('<?xml version="1.0"?><annotation><filename>a'.encode("utf-16"), "Pascal VOC"),
    "VIA": ({"a.jpg1": {"filename": "a.jpg", "size": 1, "regions": {}}}, "VIA"),
    "VIA's project": ({"_via_settings": {}, "_via_img_metadata": {}}, "VIA"),
    "Label Studio": ([{"id": 1, "annotations": [], "data": {"image": "a.jpg"}}], "Label Studio"),
    "Label Studio's minimal": ([{"image": "a.jpg", "id": 1, "annotation_id": 2}], "Label Studio"),
    "Supervisely": ({"tags": [], "size": {"height": 4}, "objects": []}, "Supervisely"),
    "Datumaro": ({"info": {}, "categories": {}, "items": []}, "Datumaro"),
    "CreateML": ([{"image": "a.jpg", "annotations": []}], "CreateML"),
    "COCO results": ([{"image_id": 1, "category_id": 1, "bbox": []}], "COCO results"),
    "Cityscapes": ({"imgHeight": 4, "imgWidth": 4, "objects": []}, "Cityscapes"),
    "CSV": ("filename,width,height\na.jpg,4,4\n", "CSV"),
    "semicolons": ("image;label\r\na.jpg;nut\r\n", "CSV"),
    "YOLO": ("0 0.5 0.5 0.1 0.1\n1 .2 .2 .1 .1\n", "YOLO's rows"),
}


@pytest.mark.parametrize("what", FOREIGN)
def test_a_format_that_is_not_read_is_named(tmp_path: Path, what: str) -> None:
    content, name = FOREIGN[what]
    file = write(tmp_path, "a.json", content)
    with pytest.raises(ImageError, match=rf"is a file of {name}.* known \(COCO.*export it as COCO"):
        read_annotations(file, PICTURES)
    if isinstance(content, str):
        folder = tmp_path / "folder"
        folder.mkdir()
        write(folder, "a.xml" if content[0] == "<" else "a.txt", content)
        with pytest.raises(ImageError, match=name):
            read_annotations(folder, PICTURES)


def labelme_file(kind: str, points: list[list[float]], **more: Any) -> dict[str, Any]:
    shape = {"label": "nut", "points": points, "shape_type": kind, **more}
    return {"shapes": [shape], "imagePath": "a.jpg", "imageHeight": 20, "imageWidth": 30}


@pytest.mark.parametrize(
    "points",
    [[[2, 1], [6, 4]], [[6, 1], [2, 4]], [[2, 1], [6, 1], [6, 4], [2, 4]],
     [[6, 4], [2, 4], [2, 1], [6, 1]]],
    ids=str,
)  # fmt: skip
def test_a_rectangle_by_its_corners_is_a_box(tmp_path: Path, points: list[list[float]]) -> None:
    file = write(tmp_path, "a.json", labelme_file("rectangle", points))
    [image], problems = read_annotations(file, PICTURES)
    assert problems == []
    assert (image.outlines[0].bbox_xywh, image.outlines[0].polygons) == ((2, 1, 4, 3), ())
    assert image.size_hw == SIZE


@pytest.mark.parametrize("kind", ["rotation", "rectangle", "oriented_rectangle"])
def test_a_turned_rectangle_is_a_box(tmp_path: Path, kind: str) -> None:
    corners: list[list[float]] = [[10, 2], [18, 10], [14, 14], [6, 6]]
    file = write(tmp_path, "a.json", labelme_file(kind, corners, direction=0.8))
    [image], _ = read_annotations(file, PICTURES)
    [found] = image.outlines
    assert not found.is_outlined
    assert found.corners_xy == (10, 2, 18, 10, 14, 14, 6, 6)
    assert found.bbox_xywh == (6, 2, 12, 12)
    assert found.scaled(2, 3).corners_xy == (20, 6, 36, 30, 28, 42, 12, 18)


@pytest.mark.parametrize("kind", ["rotation", "rectangle", "quadrilateral"])
def test_other_corners_are_an_outline(tmp_path: Path, kind: str) -> None:
    corners: list[list[float]] = [[10, 2], [18, 10], [14, 14], [2, 6]]
    file = write(tmp_path, "a.json", labelme_file(kind, corners, direction=0.8))
    [image], _ = read_annotations(file, PICTURES)
    assert image.outlines[0].bbox_xywh is None
    assert image.outlines[0].polygons[0][0].tolist() == corners


@pytest.mark.parametrize("points", [[[2, 1]], [[2, 1], [6, 1], [6, 4]], [[1, 1]] * 4], ids=str)
def test_a_rectangle_of_other_corners_is_none(tmp_path: Path, points: list[list[float]]) -> None:
    file = write(tmp_path, "a.json", labelme_file("rectangle", points))
    with pytest.raises(ImageError, match="shape 1"):
        read_annotations(file, PICTURES)


def damaged(data: bytes, how: str) -> bytes:
    start, listed = data.index(b".roi") + 4, data.index(b"PK\x01\x02") + 10
    return {
        "cut off": data[: len(data) // 2],
        "no directory": data[:-22],
        "a stream of rubbish": data[:start] + b"\xff" * 40 + data[start + 40 :],
        "another method": data[:listed] + b"\x63\0" + data[listed + 2 :],
        "huge sizes": data.replace(data[18:26], b"\xff\xff\xff\x7f\xff\xff\xff\x7f"),
    }[how]


@pytest.mark.parametrize(
    "how", ["cut off", "no directory", "a stream of rubbish", "another method", "huge sizes"]
)
def test_a_damaged_zip_of_regions_is_one_line(tmp_path: Path, how: str) -> None:
    file = write(tmp_path, "a.zip", damaged(imagej.encode(image(NUT, DATE)), how))
    whole = {"huge sizes": "larger than 1024 MiB"} | dict.fromkeys(
        ("cut off", "no directory"), "it is no zip file that can be read"
    )
    if how in whole:
        with pytest.raises(ImageError, match=whole[how]):
            read_annotations(file, PICTURES)
        return
    found, problems = read_annotations(file, PICTURES)
    assert (len(found[0].outlines), len(problems)) == (1, 1)
    assert all("it cannot be unpacked" in line and "\n" not in line for line in problems)


def test_numbers_beyond_floats_in_notes_are_left_out(tmp_path: Path) -> None:
    roi = roifile.ImagejRoi.frompoints(RING.astype(np.float32), name="nut-1")
    roi.props = "id: 1e400\nscore: 1e400\nshare: 0.5\n"
    [image], problems = read_annotations(write(tmp_path, "a.roi", roi.tobytes()), PICTURES)
    assert (image.outlines[0].id, image.outlines[0].properties) == (None, {"share": 0.5})
    assert problems == []


NAMES = {
    "a path of Windows": r"C:\Users\me\photo a.jpg",
    "a relative one": r"..\..\media\upload\4\photo a.jpg",
    "mixed": r"images\4/photo a.jpg",
    "encoded": "images/photo%20a.jpg",
    "local files": "/data/local-files/?d=images/photo%20a.jpg",
    "local files of Windows": r"/data/local-files/?d=images%5Cphoto%20a.jpg",
    "an address": "https://host/images/photo%20a.jpg?token=5",
    "of a bucket": "s3://bucket/photo a.jpg",
    "an upload": "/data/upload/1/1a2b3c4d-photo a.jpg",
    "another case": "IMAGES/Photo A.JPG",
}


@pytest.mark.parametrize("what", NAMES)
def test_names_of_other_systems_mean_their_pictures(what: str) -> None:
    assert match_pictures([NAMES[what]], ["images/photo a.jpg"]) == ["images/photo a.jpg"]
    assert match_pictures([NAMES[what]], ["images/photo b.jpg"]) == [None]


@pytest.mark.parametrize(("wanted", "given"), [("NFC", "NFD"), ("NFD", "NFC")])
def test_both_forms_of_an_umlaut_are_one_name(wanted: Any, given: Any) -> None:
    picture = unicodedata.normalize(given, "bilder/köln.jpg")
    assert match_pictures([unicodedata.normalize(wanted, "köln.jpg")], [picture]) == [picture]


def test_a_name_as_it_is_comes_before_its_other_forms() -> None:
    given = ["a/x%20y.jpg", "a/x y.jpg", "a/X Y.JPG", "a/1a2b3c4d-x y.jpg"]
    for each in given:
        assert match_pictures([each], given) == [each]


def test_of_one_name_in_two_folders_the_end_of_the_path_and_the_files_place_decide() -> None:
    given = ["day1/x.jpg", "day2/x.jpg"]
    for day in ("day1", "day2"):
        assert match_pictures([rf"C:\lab\{day}\x.jpg"], given) == [f"{day}/x.jpg"]
        assert match_pictures(["x.jpg"], given, f"{day}/a.json") == [f"{day}/x.jpg"]
        assert match_pictures(["x.jpg"], [*given, "x.jpg"], f"{day}/a.json") == [f"{day}/x.jpg"]
    assert match_pictures(["x.jpg", "day3/x.jpg"], given, "a.json") == [None, None]


# Limits of mask pictures


def png_of(values: np.ndarray) -> str:
    data = io.BytesIO()
    Image.fromarray(values).save(data, "PNG")
    return base64.b64encode(data.getvalue()).decode()


def labelme_masks(tmp_path: Path, *pngs: str) -> Path:
    shapes = [
        {"label": "nut", "shape_type": "mask", "points": [[0, 0], [5, 5]], "mask": each}
        for each in pngs
    ]
    return write(tmp_path, "a.json", {"shapes": shapes, "imagePath": "a.jpg"})


def test_labelme_s_masks_have_one_limit_before_they_are_decoded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    small, large = np.ones((4, 5), bool), np.ones((9_000, 9_000), bool)
    found, problems = read_annotations(
        labelme_masks(tmp_path, png_of(small), png_of(large), png_of(small)), PICTURES
    )
    assert len(found[0].outlines) == 1
    assert "its mask of 9000x9000 pixels is too large" in problems[0]
    assert not recwarn.list, "Pillow does not say it in its own words"
    monkeypatch.setattr(labelme, "MAX_MASK_PIXELS", 50)
    found, problems = read_annotations(labelme_masks(tmp_path, *[png_of(small)] * 4), PICTURES)
    assert (len(found[0].outlines), len(problems)) == (2, 2)


def test_masks_that_are_noise_are_refused_at_once(tmp_path: Path) -> None:
    dots = np.zeros((500, 500), np.uint8)
    dots[::2, ::2] = 1
    good = png_of(np.ones((4, 5), bool))
    found, problems = read_annotations(labelme_masks(tmp_path, png_of(dots), good), PICTURES)
    assert len(found[0].outlines) == 1
    assert "so many pieces and holes that it is noise" in problems[0]
    Image.fromarray(dots).save(tmp_path / "a.png")
    with pytest.raises(ImageError, match="62,500 places: it is noise"):
        read_annotations(tmp_path / "a.png", PICTURES, label="nut")


def test_a_soft_mask_of_labelme_is_its_half(tmp_path: Path) -> None:
    values = np.zeros((9, 9), np.uint8)
    values[1:8, 1:8], values[2:7, 2:7] = 90, 255
    [found], _ = read_annotations(labelme_masks(tmp_path, png_of(values)), PICTURES)
    mask = found.outlines[0].mask(SIZE)
    assert mask is not None
    assert int(mask.sum()) == 25


def test_a_stack_that_unpacks_to_far_more_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pages may share their pixels, so that a small file has any number of them."""
    monkeypatch.setattr(label_map, "MIN_BYTES", 1000)
    data = io.BytesIO()
    tifffile.imwrite(data, np.ones((3, 256, 256), np.uint8), metadata={"axes": "ZYX"})
    monkeypatch.setattr(label_map, "MOST_PACKED", 0.5)
    with pytest.raises(ImageError, match="more than the limit of"):
        label_map.decode(data.getvalue(), [])
    monkeypatch.undo()
    assert len(label_map.decode(data.getvalue(), [])[0].outlines) == 3
    monkeypatch.setattr(label_map, "MAX_PIXELS", 1000)
    with pytest.raises(ImageError, match=r"more than the limit of.*1,000 pixels a plane"):
        label_map.decode(data.getvalue(), [])


def test_a_plane_s_only_number_is_an_object_where_others_have_more(tmp_path: Path) -> None:
    planes = np.zeros((2, *SIZE), np.uint16)
    planes[0, 2:6, 2:8] = planes[0, 12:16, 20:28] = 1
    planes[1, 2:6, 2:8], planes[1, 12:16, 20:28] = 1, 2
    tifffile.imwrite(tmp_path / "a.tif", planes, imagej=True, metadata={"axes": "ZYX"})
    [found], _ = load_annotations(tmp_path / "a.tif")
    assert [(each.id, each.location) for each in found.outlines] == [
        (1, (0, 0, 0)), (1, (0, 1, 0)), (2, (0, 1, 0)),
    ]  # fmt: skip


# Whose outlines they are


def names_of(found: list[AnnotatedImage]) -> list[tuple[str, int]]:
    return [(Path(one.path).name, len(one.outlines)) for one in found]


def test_of_a_folder_each_file_is_of_the_picture_of_its_name(tmp_path: Path) -> None:
    for stem in ("s0", "s1", "s2"):
        outlines = (Annotation(("cell",), ((RING,),)),)
        (tmp_path / f"{stem}.geojson").write_bytes(geojson.encode(AnnotatedImage("", "", outlines)))
    found, problems = read_annotations(tmp_path, ["pictures/s0.png"])
    assert names_of(found) == [("s0.png", 1)]
    assert [line.rpartition(": ")[2] for line in problems] == [
        "annotated, but not among the pictures"
    ] * 2
    with pytest.raises(ImageError, match="not among the pictures"):
        read_annotations(tmp_path, ["pictures/other.png"])
    alone, _ = read_annotations(tmp_path / "s1.geojson", ["pictures/other.png"])
    assert names_of(alone) == [("other.png", 1)], "a file that is given by itself"


def test_files_in_the_folders_of_a_folder_are_read_and_those_of_systems_are_not(
    tmp_path: Path,
) -> None:
    outlines = (Annotation(("cell",), ((RING,),)),)
    for place in ("a.geojson", "day2/b.geojson"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(geojson.encode(AnnotatedImage("", "", outlines)))
    for place in ("._a.geojson", "__MACOSX/a.geojson"):
        (tmp_path / place).parent.mkdir(exist_ok=True)
        (tmp_path / place).write_bytes(b"\x00\x05\x16\x07")
    found, problems = read_annotations(tmp_path, ["p/a.png", "p/b.png"])
    assert names_of(found) == [("a.png", 1), ("b.png", 1)]
    assert problems == []


@pytest.mark.parametrize(
    ("names", "given", "meant"),
    [
        (["d1/a.png", "d2/a.png"], "d1/a.png", [True, False]),
        (["a.png", "A.png"], "A.png", [False, True]),
        (["01234567-a.png", "89abcdef-a.png"], "a.png", [False, False]),
        (["x/a.png", "y/a.png"], "a.png", [False, False]),
        (["a.png", "a.png"], "a.png", [True, True]),
        (["a.png", "./a.png"], "a.png", [True, True]),
    ],
)
def test_a_picture_is_meant_by_one_name(names: list[str], given: str, meant: list[bool]) -> None:
    assert [path is not None for path in match_pictures(names, [given])] == meant


@pytest.mark.parametrize("subtype", ["TEXT", "IMAGE"])
def test_texts_and_pictures_on_a_picture_are_no_objects(tmp_path: Path, subtype: str) -> None:
    region = roifile.ImagejRoi.frompoints(RING)
    region.roitype, region.subtype = roifile.ROI_TYPE.RECT, roifile.ROI_SUBTYPE[subtype]
    region.left, region.top, region.right, region.bottom = 2, 1, 6, 4
    (tmp_path / "a.roi").write_bytes(region.tobytes())
    _, problems = load_annotations(tmp_path / "a.roi")
    assert f"type {subtype} outlines no object" in problems[0]
