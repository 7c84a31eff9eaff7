"""YOLO datasets: splits, polygons and boxes, and what is wrong with them."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import (
    mask_of,
    one_problem,
    only_object,
    only_picture,
    picture,
    square_mask,
    write,
    yolo_folder,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from skimage import measure
from strategies import QUICK

from sam_detect.errors import ImageError, SamDetectError, UnavailableError
from sam_detect.evaluation.dataset import Dataset
from sam_detect.evaluation.readers import open_dataset

POLYGON = "1 0.25 0.1666667 0.5 0.1666667 0.75 0.1666667 0.75 0.6666667 0.25 0.6666667"
"""``SQUARE`` in shares of 8 x 6 pixels, with a fifth point: four would be those of a box."""
BOX = "0 0.5 0.5 0.25 0.5"


# What is read


@pytest.mark.parametrize(
    ("behind", "box"), [(" 0.91", True), (" 0.91 7", True), (" 1 7", True), (" .5 1", True)]
)
def test_a_confidence_and_a_track_are_no_coordinates(
    tmp_path: Path, behind: str, box: bool
) -> None:
    [found] = only_picture(
        open_dataset(yolo_folder(tmp_path / "b", BOX + behind, names=["nut"]))
    ).objects
    assert (found.mask_rle is None, found.bbox_xywh) == (box, (3, 1.5, 2, 3))
    second = POLYGON + (" .6 3" if len(behind.split()) > 1 else " .6")
    rows = POLYGON.replace("1 ", "0 ", 1) + f"{behind}\n{second}"
    outlined = only_picture(open_dataset(yolo_folder(tmp_path / "p", rows))).objects
    for each in outlined:
        np.testing.assert_array_equal(mask_of(each), square_mask())


def test_a_triangle_stays_one(tmp_path: Path) -> None:
    for row in ("0 0.1 0.1 0.9 0.1 0.5 0.9", "0 0 0 1 0 0 1", "0 0.1 0.1 0.9 0.1 0.5 1.0",
                "0 .1 .1 .9 .1 .5 1", "0 .2 .9 .9 .5 .1 0"):  # fmt: skip
        dataset = open_dataset(yolo_folder(tmp_path, row, names=["nut"]))
        assert only_object(dataset).mask_rle is not None


@pytest.mark.parametrize(
    "row",
    ["0 0 0 .7 0 1 .5 .5 1", "0 .1 .1 .9 .1 .9 .9 .5 1", "0 .1 .9 .9 .9 .9 .2 .5 0",
     "0 .1 .1 .9 .1 .9 .9 1 1", "0 .1 .9 .5 .8 .9 .9 .9 .2 0 0", "0 .5 .5 .4 .4 .5 1"],
)  # fmt: skip
def test_a_last_coordinate_may_be_a_whole_number(tmp_path: Path, row: str) -> None:
    """Beside a polygon that ends otherwise it is no track, nor is a triangle a box."""
    others = "0 .1 .1 .5 .1 .6 .3 .2 .4"
    point = [float(each) for each in row.split()[1:]]
    written = " ".join(f"{each:.6f}" for each in point)
    found = []
    for text in (row[2:], written):
        folder = yolo_folder(tmp_path, f"{others}\n0 {text}")
        picture(folder / "images" / "train" / "a.png", (60, 80))
        found.append(only_picture(open_dataset(folder)).objects[1])
    np.testing.assert_array_equal(mask_of(found[0]), mask_of(found[1]))


def test_a_polygon_alone_keeps_its_last_corner(tmp_path: Path) -> None:
    found = only_object(open_dataset(yolo_folder(tmp_path, "0 .1 .1 .9 .1 .9 .9 .5 1")))
    assert found.bbox_xywh[3] == 5  # down to the edge


def turned(cx: float, cy: float, w: float, h: float, degrees: float) -> str:
    """A row of a turned box in a picture of 80 x 60 pixels."""
    cos, sin = np.cos(np.radians(degrees)), np.sin(np.radians(degrees))
    corners = np.array([(-w, -h), (w, -h), (w, h), (-w, h)]) / 2 @ [(cos, sin), (-sin, cos)]
    return "0 " + " ".join(f"{v:.5f}" for v in (np.add(corners, (cx, cy)) / (80, 60)).ravel())


@pytest.mark.parametrize("degrees", [30, 0, 90, 45, -10])
def test_rows_of_rectangles_are_turned_boxes(tmp_path: Path, degrees: float) -> None:
    rows = f"{turned(40, 30, 30, 12, degrees)}\n{turned(20, 30, 10, 10, 20)}"
    folder = yolo_folder(tmp_path, rows, names=["nut"])
    picture(folder / "images" / "train" / "a.png", (60, 80))
    dataset = open_dataset(folder)
    one_problem(dataset, "four corners", "turned boxes")
    assert dataset.boxes_only
    first = only_picture(dataset).objects[0]
    c, s = abs(np.cos(np.radians(degrees))), abs(np.sin(np.radians(degrees)))
    size = 30 * c + 12 * s, 30 * s + 12 * c
    assert first.bbox_xywh[2:] == pytest.approx(size, abs=0.01)
    assert first.corners_xy == pytest.approx(
        np.array(rows.split()[1:9], float) * ([80, 60] * 4), abs=0.01
    )


def test_turned_boxes_at_the_edge_and_bad_rows_change_nothing(tmp_path: Path) -> None:
    cut = "0 0 .2 .2 .1 .3 .4 0 .5"  # two corners were moved to the picture's edge
    rows = f"{turned(40, 30, 30, 12, 30)}\n0 a b c\n{cut}"
    folder = yolo_folder(tmp_path, rows, names=["nut"])
    picture(folder / "images" / "train" / "a.png", (60, 80))
    dataset = open_dataset(folder)
    assert len(dataset.problems) == 2
    first, second = only_picture(dataset).objects
    assert first.corners_xy
    assert (second.corners_xy, second.mask_rle) == ((), None)
    assert second.bbox_xywh == pytest.approx((0, 6, 24, 24))


@pytest.mark.parametrize("other", ["0 .1 .1 .5 .1 .6 .3 .2 .9", "0 .1 .1 .5 .1 .6 .3", BOX])
def test_a_rectangle_in_a_dataset_of_outlines_is_one(tmp_path: Path, other: str) -> None:
    folder = yolo_folder(tmp_path, f"{turned(40, 30, 30, 12, 30)}\n{other}", names=["nut"])
    picture(folder / "images" / "train" / "a.png", (60, 80))
    first = only_picture(open_dataset(folder)).objects[0]
    assert first.mask_rle is not None
    assert not first.corners_xy


@pytest.mark.parametrize("layout", ["label studio", "cvat", "labelimg", "labels", "windows"])
def test_names_in_lists_are_read(tmp_path: Path, layout: str) -> None:
    images, labels, names = {
        "label studio": ("images", "labels", "classes.txt"),
        "cvat": ("obj_train_data", "obj_train_data", "obj.names"),
        "labelimg": (".", ".", "classes.txt"),
        "labels": ("images", "labels", "labels/classes.txt"),
        "windows": ("images", "labels", "data.yaml"),
    }[layout]
    picture(tmp_path / images / "a.png")
    write(tmp_path / labels / "a.txt", BOX)
    write(tmp_path / names, "names: [nut]\ntrain: .\\images\n" if layout == "windows" else
          "\ufeffnut\r\ndate\r\n")  # fmt: skip
    assert only_object(open_dataset(tmp_path)).label == "nut"
    assert only_object(open_dataset(tmp_path / names)).label == "nut"


def test_a_polygon_gives_its_mask(tmp_path: Path) -> None:
    dataset = open_dataset(yolo_folder(tmp_path / "nuts", POLYGON))
    one_problem(dataset, "category 'nut'", "no object")
    assert (dataset.name, dataset.categories) == ("nuts", {"nut": 0, "date": 1})
    assert not dataset.boxes_only
    found = only_object(dataset)
    assert (found.id, found.label) == ("labels/train/a.txt:1", "date")
    assert found.bbox_xywh == (2, 1, 4, 3)
    np.testing.assert_array_equal(mask_of(found), square_mask())
    seen = only_picture(dataset)
    assert (seen.id, seen.size_hw, seen.fields) == (
        "images/train/a.png", (6, 8), {"split": "train"},
    )  # fmt: skip
    assert seen.path == tmp_path / "nuts" / "images" / "train" / "a.png"


def test_a_box_is_centre_and_size(tmp_path: Path) -> None:
    dataset = open_dataset(yolo_folder(tmp_path, f"\n{BOX}\n\n", names={0: "nut"}))
    assert dataset.problems == ()
    assert dataset.boxes_only
    found = only_object(dataset)
    assert (found.id, found.label) == ("labels/train/a.txt:2", "nut")
    assert found.mask_rle is None
    assert found.bbox_xywh == (3, 1.5, 2, 3)


@pytest.mark.parametrize("number", ["1", "1.0", "1e0"])
@pytest.mark.parametrize("names", [["nut", "date"], {"0": "nut", "1": "date"}], ids=str)
def test_classes_are_numbered_in_any_way(tmp_path: Path, names: Any, number: str) -> None:
    dataset = open_dataset(yolo_folder(tmp_path, f"{number} .5 .5 .5 .5\n{BOX}", names=names))
    assert [o.label for o in only_picture(dataset).objects] == ["date", "nut"]
    assert dataset.problems == ()


LAYOUTS = {
    "images above splits": ("images/{}", "labels/{}", {}),
    "splits above images": ("{}/images", "{}/labels", {}),
    "one level too high": ("{}/images", "{}/labels", {"train": "../train/images"}),
    "a path of another machine": ("images/{}", "labels/{}", {"path": "/home/else/data"}),
    "a path beside": ("images/{}", "labels/{}", {"path": "../datasets/nuts"}),
    "a path inside": ("d/images/{}", "d/labels/{}", {"path": "d"}),
    "images twice": ("images/images/{}", "images/labels/{}", {"path": "images"}),
    "labels beside pictures": ("{}", "{}", {"train": "train", "val": "val"}),
}


@pytest.mark.parametrize("layout", LAYOUTS)
def test_the_layouts_of_exporters_are_read(tmp_path: Path, layout: str) -> None:
    pictures, labels, changes = LAYOUTS[layout]
    base = changes.get("path", "") if changes.get("path") in ("d", "images") else ""
    settings = {
        "names": ["nut"],
        **{s: os.path.relpath(pictures.format(s), base or ".") for s in ("train", "val")},
    } | changes
    for split in ("train", "val"):
        picture(tmp_path / pictures.format(split) / f"{split}.png")
        write(tmp_path / labels.format(split) / f"{split}.txt", BOX)
    file = write(tmp_path / "data.yaml", json.dumps(settings))
    for given_path in (tmp_path, file):
        dataset = open_dataset(given_path)
        assert dataset.problems == ()
        assert [(p.path.name, p.fields["split"]) for p in dataset.pictures] == [
            ("train.png", "train"), ("val.png", "val"),
        ]  # fmt: skip
        assert [len(p.objects) for p in dataset.pictures] == [1, 1]


def test_a_dataset_in_the_working_folder_is_read_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    yolo_folder(tmp_path, BOX, train=["images/train", "list.txt"], names=["nut"])
    write(tmp_path / "list.txt", "./images/train/a.png\n\n")
    monkeypatch.chdir(tmp_path)
    dataset = open_dataset(".")
    assert dataset.problems == ()
    assert only_object(dataset).id == "labels/train/a.txt:1"


def test_without_splits_the_pictures_are_in_images(tmp_path: Path) -> None:
    dataset = open_dataset(yolo_folder(tmp_path, BOX, names=["nut"], train=...))
    assert only_picture(dataset).fields == {"split": ""}


def test_rows_are_of_the_picture_as_it_is_seen(tmp_path: Path) -> None:
    folder = yolo_folder(tmp_path, BOX, names=["nut"])
    exif = Image.Exif()
    exif[0x0112] = 6
    picture(folder / "images" / "train" / "a.png", (8, 20), exif=exif)
    dataset = open_dataset(folder)
    assert only_picture(dataset).size_hw == (20, 8)
    assert only_object(dataset).bbox_xywh == (3, 5, 2, 10)


@st.composite
def blobs(draw: st.DrawFn) -> np.ndarray:
    """``(H, W)`` bool with one ellipse, large enough for an outline through pixel centres."""
    height, width = draw(st.integers(30, 60)), draw(st.integers(30, 60))
    y, x = np.mgrid[:height, :width]
    ry, rx = draw(st.integers(10, 14)), draw(st.integers(10, 14))
    cy, cx = draw(st.integers(0, height - 1)), draw(st.integers(0, width - 1))
    return ((y - cy) / ry) ** 2 + ((x - cx) / rx) ** 2 <= 1


@QUICK
@given(mask=blobs())
def test_a_random_blob_comes_back_nearly(
    tmp_path_factory: pytest.TempPathFactory, mask: np.ndarray
) -> None:
    folder = tmp_path_factory.mktemp("yolo")
    contour = max(measure.find_contours(np.pad(mask, 1).astype(float), 0.5), key=len)
    corners = (contour - 0.5) / mask.shape  # the centre of a padded pixel i is at i - 0.5
    row = " ".join(f"{v:.6f}" for y, x in corners for v in (x, y))
    yolo_folder(folder, f"0 {row}", names=["nut"])
    picture(folder / "images" / "train" / "a.png", mask.shape)
    found = mask_of(only_object(open_dataset(folder)))
    assert (found & mask).sum() / (found | mask).sum() > 0.9


# What is left out, each in one line

BAD_ROWS = {
    "words": ("a b c d e", "not a row of numbers"),
    "a class alone": ("0", "3 or more points"),
    "two points": ("0 .1 .1 .5 .5 2.2", "3 or more points"),
    "half a point": ("0 .1 .1 .5 .5 .2 .3 1.4", "3 or more points"),
    "an unknown class": ("2 .5 .5 .5 .5", "class 2 is not among"),
    "a class between": ("0.5 .5 .5 .5 .5", "class 0.5 is not among"),
    "a negative class": ("-1 .5 .5 .5 .5", "class -1 is not among"),
    "NaN": ("0 nan .5 .5 .5", "not finite"),
    "an infinite class": ("inf .5 .5 .5 .5", "not finite"),
    "an infinite point": ("0 1e999 0 1 0 1 1", "not finite"),
    "an absurd box": ("0 1e308 .5 1e308 .5", "no shares of the picture"),
    "an absurd point": ("0 1e308 0 1 0 1 1", "no shares"),
    "pixels": ("0 100 100 200 100 200 200", "no shares of the picture"),
    "a box outside": ("0 1.5 .5 .5 .5", "outside"),
    "no area": ("0 .5 .5 0 .5", "size 0x3"),
    "a line": ("0 .1 .5 .5 .5 .9 .5", "no pixel inside"),
    "the same again": (POLYGON, "same as line 1"),
}


@pytest.mark.parametrize("what", BAD_ROWS)
def test_a_row_that_cannot_be_used_is_left_out(tmp_path: Path, what: str) -> None:
    row, word = BAD_ROWS[what]
    names = ["date", "nut"]
    second = POLYGON.replace("1 ", "0 ", 1)
    dataset = open_dataset(yolo_folder(tmp_path, f"{POLYGON}\n{row}\n{second}", names=names))
    one_problem(dataset, "annotation labels/train/a.txt:2: ", word)
    assert [o.label for o in only_picture(dataset).objects] == ["nut", "date"]


def test_a_box_partly_outside_is_cut_off(tmp_path: Path) -> None:
    dataset = open_dataset(yolo_folder(tmp_path, "0 1 .5 .5 3", names=["nut"]))
    assert only_object(dataset).bbox_xywh == (6, 0, 2, 6)


def test_a_few_boxes_among_outlines_are_not_counted(tmp_path: Path) -> None:
    rows = f"{POLYGON}\n{POLYGON.replace('1 ', '0 ', 1)}\n{BOX}"
    dataset = open_dataset(yolo_folder(tmp_path, rows))
    one_problem(dataset, "a.txt:3", "not counted")
    assert [o.crowd for o in only_picture(dataset).objects] == [False, False, True]


def with_second(folder: Path, name: str = "b.png", label: str | None = BOX) -> Path:
    yolo_folder(folder, BOX, names=["nut"])
    picture(folder / "images" / "train" / name)
    if label is not None:
        write(folder / "labels" / "train" / "b.txt", label)
    return folder


def test_a_picture_that_cannot_be_read_is_left_out(tmp_path: Path) -> None:
    folder = with_second(tmp_path)
    (folder / "images" / "train" / "b.png").write_bytes(b"no picture")
    dataset = open_dataset(folder)
    one_problem(dataset, "images/train/b.png: ", "not a picture")
    assert only_picture(dataset).id == "images/train/a.png"


def test_pictures_without_a_label_file_hold_nothing(tmp_path: Path) -> None:
    folder = with_second(tmp_path, label=None)
    picture(folder / "images" / "train" / "c.png")
    dataset = open_dataset(folder)
    one_problem(dataset, "pictures without a label file", "2 in all")
    assert [len(p.objects) for p in dataset.pictures] == [1, 0, 0]


def test_a_label_file_without_a_picture_is_said(tmp_path: Path) -> None:
    folder = with_second(tmp_path)
    (folder / "images" / "train" / "b.png").unlink()
    write(folder / "labels" / "train" / "classes.txt", "nut")
    one_problem(open_dataset(folder), "labels/train/b.txt", "without a picture")


def test_two_pictures_of_one_label_file_are_one(tmp_path: Path) -> None:
    dataset = open_dataset(with_second(tmp_path, "a.tif", label=None))
    one_problem(dataset, "images/train/a.tif", "that of images/train/a.png")
    assert only_picture(dataset).id == "images/train/a.png"


@pytest.mark.parametrize("content", [b"\xff\xfe\x00", "pipe"])
def test_a_label_file_that_cannot_be_read_is_said(tmp_path: Path, content: Any) -> None:
    folder = with_second(tmp_path)
    file = folder / "labels" / "train" / "b.txt"
    file.unlink()
    if content == "pipe":
        os.mkfifo(file)
    else:
        file.write_bytes(content)
    one_problem(open_dataset(folder), "labels/train/b.txt: ")


@pytest.mark.parametrize(
    "value",
    ["gone", "../outside/images", "/", "x\0y", "", 5, {"a": 1}, [["images/train"]]],
    ids=str,
)
def test_a_split_that_is_not_there_or_elsewhere_is_said(tmp_path: Path, value: Any) -> None:
    picture(tmp_path / "outside" / "images" / "secret.png")
    write(tmp_path / "outside" / "labels" / "secret.txt", BOX)
    folder = yolo_folder(tmp_path / "nuts", BOX, names=["nut"], val=value)
    dataset = open_dataset(folder)
    assert only_picture(dataset).path.name == "a.png"
    one_problem(dataset, "val: ")


def test_a_list_of_pictures_cannot_lead_elsewhere(tmp_path: Path) -> None:
    secret = picture(tmp_path / "secret.png")
    folder = yolo_folder(tmp_path / "nuts", BOX, names=["nut"], val="val.txt")
    write(folder / "val.txt", f"{secret}\n")
    dataset = open_dataset(folder)
    assert only_picture(dataset).path.name == "a.png"
    one_problem(dataset, "val: ", "secret.png", "no such picture")


def test_a_picture_of_two_splits_is_in_the_first(tmp_path: Path) -> None:
    dataset = open_dataset(yolo_folder(tmp_path, BOX, names=["nut"], val="images/train"))
    one_problem(dataset, "val: images/train/a.png", "in train, too")
    assert only_picture(dataset).fields == {"split": "train"}


def test_two_classes_of_one_name_are_one(tmp_path: Path) -> None:
    dataset = open_dataset(yolo_folder(tmp_path, "1 .5 .5 .5 .5", names=["nut", "nut"]))
    one_problem(dataset, "category 0", "'nut'")
    assert dataset.categories == {"nut": 1}


# What is refused

MERGE_BOMB = "names: &a {0: nut}\n" + "".join(
    f"{new}: &{new}\n  x: {{<<: [{', '.join(['*' + old] * 9)}]}}\n"
    for old, new in zip("abcdefghi", "bcdefghij", strict=True)
)

REFUSED = {
    "no YAML": ("a: [", "line 1 is no YAML"),
    "deep YAML": ("[" * 10_000, "levels deep"),
    "a tag": ("names: !!python/object/apply:os.getcwd []", "the tag"),
    "a broken number": ("names: !!int ''", "no int"),
    "long YAML": ("#" * 2_000_000, "longer than"),
    "names of two sorts": ("names: [a]\nnames: [b]", "a second time"),
    "a merge bomb": (MERGE_BOMB, "line 1 has an anchor"),
    "a merge of nothing": ("names: {<<: {0: a}}", "merge key"),
    "a list": ("[1]", "not a YOLO dataset"),
    "nothing": ("", "not a YOLO dataset"),
    "no names": ("train: images", "'names' lists"),
    "names without numbers": ("names: {nut: date}", "'names' lists"),
    "one name": ("names: nut", "'names' lists"),
    "lists for names": ("names: [[a], [b]]", "'names' lists"),
    "poses": ("names: [a]\nkpt_shape: [17, 3]", "poses"),
    "no pictures": ("names: [a]\ntrain: gone", "no picture"),
}


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_yolo_dataset_is_refused(tmp_path: Path, what: str) -> None:
    text, words = REFUSED[what]
    with pytest.raises(ImageError, match=words) as caught:
        open_dataset(write(tmp_path / "data.yaml", text).parent)
    assert "\n" not in str(caught.value)


def test_names_that_yaml_1_1_took_for_truth_values_are_names(tmp_path: Path) -> None:
    folder = yolo_folder(tmp_path, BOX)
    names = "names: [no, off]\ntrain: images/train\n"
    write(folder / "data.yaml", names)
    assert set(open_dataset(folder).categories) == {"no", "off"}


def test_a_dataset_without_an_object_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"can be used \(problems: 1; pictures without"):
        open_dataset(yolo_folder(tmp_path, None))


def test_without_pyyaml_the_extra_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "yaml", None)
    with pytest.raises(UnavailableError, match=r"sam-detect\[evaluate\]"):
        open_dataset(yolo_folder(tmp_path, BOX))


def test_rows_of_any_words_are_read_or_left_out(tmp_path: Path) -> None:
    words = st.one_of(
        st.sampled_from(["0", "1", "nan", "1e999", "-1", ".5", "0.25", "x"]),
        st.floats(-2, 2).map(str),
    )
    rows = st.lists(words, max_size=9).map(" ".join)
    outcomes: list[Dataset | SamDetectError] = []

    @QUICK
    @given(rows, st.text(max_size=9))
    def check(row: str, other: str) -> None:
        try:
            outcomes.append(open_dataset(yolo_folder(tmp_path, f"{BOX}\n{row}\n{other}")))
        except SamDetectError as error:
            outcomes.append(error)

    check()
    read = [each for each in outcomes if isinstance(each, Dataset)]
    assert len(read) > 5
    assert all(line.isprintable() for each in read for line in each.problems)


@pytest.mark.parametrize("name", ["a\nb", "\u200b", "x" * 300, [1], None, "\x9b31m"], ids=ascii)
def test_a_class_that_is_no_label_is_left_out_and_the_others_are_read(
    tmp_path: Path, name: Any
) -> None:
    rows = "0 0.5 0.5 0.5 0.5\n1 0.5 0.5 0.25 0.25\n"
    dataset = open_dataset(yolo_folder(tmp_path, rows, names=["nut", name]))
    assert list(dataset.categories) == ["nut"]
    assert len(only_picture(dataset).objects) == 1
    assert len(dataset.problems) == 2
    assert dataset.problems[0].startswith("class 1: ")
    assert all(line.isprintable() for line in dataset.problems)


def test_a_class_number_that_is_none_is_left_out(tmp_path: Path) -> None:
    folder = yolo_folder(tmp_path, "0 0.5 0.5 0.5 0.5\n")
    huge = "0x" + "f" * 5000  # more digits than Python prints
    names = f"names: {{0: nut, one: fig, 0x{'f' * 900}: fig, 1: {huge}}}\ntrain: images/train\n"
    write(folder / "data.yaml", names)
    dataset = open_dataset(folder)
    assert [problem.partition(":")[0] for problem in dataset.problems] == [
        "a class in 'names'", "a class in 'names'", "class 1",
    ]  # fmt: skip
    assert list(dataset.categories) == ["nut"]
