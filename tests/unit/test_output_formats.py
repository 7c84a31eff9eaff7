"""Formats that other programs read: each is read back by such a program."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image
from pycocotools.coco import COCO

from sam_detect.errors import OutputError
from sam_detect.evaluation.readers import open_dataset
from sam_detect.interfaces import Sink
from sam_detect.io.coco_sinks import COCOSink
from sam_detect.io.tables import CountsSink
from sam_detect.io.yolo_sink import YOLOSink
from sam_detect.types import Classification, Detections, Frame, Masks
from sam_detect.types.masks import rle_to_mask

SIZE_HW = (140, 190)
LABELS = ("nut", "fig", None, "nut", 'Nüsse: "#1" {}')


def shapes() -> list[npt.NDArray[np.bool_]]:
    """A disc, a ring with two holes, two parts, three parts and a hole, a bean."""
    canvases = [np.zeros(SIZE_HW, np.uint8) for _ in LABELS]
    cv2.circle(canvases[0], (30, 30), 17, 1, -1)
    cv2.circle(canvases[1], (100, 40), 33, 1, -1)
    cv2.circle(canvases[1], (88, 40), 9, 0, -1)
    cv2.circle(canvases[1], (114, 44), 7, 0, -1)
    cv2.ellipse(canvases[2], (30, 90), (18, 9), 30, 0, 360, 1, -1)
    cv2.ellipse(canvases[2], (75, 100), (9, 18), 10, 0, 360, 1, -1)
    for x, radius in ((20, 9), (60, 12), (110, 15)):
        cv2.circle(canvases[3], (x, 120), radius, 1, -1)
    cv2.circle(canvases[3], (110, 120), 6, 0, -1)
    cv2.ellipse(canvases[4], (160, 90), (20, 40), 20, 0, 360, 1, -1)
    cv2.circle(canvases[4], (140, 90), 18, 0, -1)
    return [canvas.astype(np.bool_) for canvas in canvases]


def picture(path: Path) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", SIZE_HW[::-1], (90, 90, 90)).save(path)
    return str(path)


def written(sink: Sink, sources: list[str], labels: tuple[str | None, ...] = LABELS) -> list[Path]:
    masks = Masks.from_dense(np.stack(shapes()))
    for source in sources:
        classifications = tuple(Classification(label, label or "nut", 0.75) for label in labels)
        frame = Frame(np.zeros((*SIZE_HW, 3), np.uint8), source)
        sink.write(frame, Detections(source, masks, classifications))
    return sink.close()


def iou(first: npt.NDArray[Any], second: npt.NDArray[Any]) -> float:
    return float(np.count_nonzero(first & second) / np.count_nonzero(first | second))


# COCO


@pytest.mark.parametrize("unknown", [False, True])
def test_coco_has_polygons_and_relative_names(tmp_path: Path, unknown: bool) -> None:
    sources = [picture(tmp_path / "in" / name) for name in ("a/x.jpg", "b/x.jpg", "y.png")]
    sink = COCOSink(tmp_path / "out.json", multiple=True, inputs=sources, include_unknown=unknown)
    [file] = written(sink, sources)
    read = COCO(str(file))
    assert [each["file_name"] for each in read.loadImgs(read.getImgIds())] == [
        "a/x.jpg", "b/x.jpg", "y.png",
    ]  # fmt: skip
    expected = [m for m, label in zip(shapes(), LABELS, strict=True) if unknown or label]
    annotations = read.loadAnns(read.getAnnIds(imgIds=[2]))
    assert len(annotations) == len(expected)
    for annotation, mask in zip(annotations, expected, strict=True):
        assert iou(read.annToMask(annotation).astype(bool), mask) >= 0.99
    kinds = {type(each["segmentation"]) for each in annotations}
    assert kinds == {list, dict}, "polygons, and RLE for what has holes"
    assert str(tmp_path) not in file.read_text()


def test_coco_names_one_picture_without_its_folder_and_others_as_given(tmp_path: Path) -> None:
    source = picture(tmp_path / "in" / "x.jpg")
    for inputs, name, expected in (
        ([source], source, "x.jpg"),
        ([], source, source),
        (["-"], "-", "-"),
        ([source, "-"], "-", "-"),
    ):
        stream = io.StringIO()
        written(COCOSink(stream, inputs=inputs), [name])
        assert json.loads(stream.getvalue())["images"][0]["file_name"] == expected


# Counts


def rows_of(file: Path) -> list[list[str]]:
    with file.open(encoding="utf-8-sig", newline="") as text:
        return list(csv.reader(text))


def test_counts_are_pictures_by_labels_with_sums(tmp_path: Path) -> None:
    sources = [picture(tmp_path / "in" / name) for name in ("b.jpg", "a/x.jpg")]
    sink = CountsSink(tmp_path / "c.csv", multiple=True, inputs=sources)
    masks = Masks.from_dense(np.stack(shapes()))
    for source, labels in zip(
        sources, (("nut", "fig", None, "nut", "nut"), ("date",) * 5), strict=True
    ):
        frame = Frame(np.zeros((*SIZE_HW, 3), np.uint8), source)
        classifications = tuple(Classification(label, "nut", 0.5) for label in labels)
        sink.write(frame, Detections(source, masks, classifications))
    [file] = sink.close()
    assert rows_of(file) == [
        ["image", "date", "fig", "nut", "total", "check"],
        ["b.jpg", "0", "1", "3", "4", ""],
        ["a/x.jpg", "5", "0", "0", "5", ""],
        ["total", "5", "1", "3", "9", ""],
    ]
    assert not file.read_bytes().startswith(b"\xef\xbb\xbf"), "plain ASCII needs no mark"


def test_counts_have_the_unknown_only_when_asked(tmp_path: Path) -> None:
    for unknown in (False, True):
        sink = CountsSink(tmp_path / "c.csv", include_unknown=unknown)
        header, first, total = rows_of(written(sink, ["x.jpg"])[0])
        assert ("unknown" in header) == unknown
        assert total[-2] == first[-2] == ("5" if unknown else "4")
        assert len(header) == len(first) == len(total)


def test_counts_without_anything_found_are_a_table_as_well(tmp_path: Path) -> None:
    sink = CountsSink(tmp_path / "c.csv", multiple=True)
    assert rows_of(sink.close()[0]) == [["image", "total", "check"], ["total", "0", ""]]


@pytest.mark.parametrize("start", ["=", "+", "-", "@", "\t", "\r", "\uff1d"])
def test_counts_never_hold_a_formula(start: str, tmp_path: Path) -> None:
    text = f"{start}HYPERLINK(1)"
    sink = CountsSink(tmp_path / "c.csv")
    rows = rows_of(written(sink, [f"{text}.jpg"], (text,) * 5)[0])
    for cell in (rows[0][1], rows[1][0]):
        assert cell.startswith("'" + start)
    data = (tmp_path / "c.csv").read_bytes()
    assert data.startswith(b"\xef\xbb\xbf") == (not start.isascii()), "for Excel"


# YOLO


@pytest.mark.parametrize("unknown", [False, True])
def test_yolo_is_read_back_with_the_same_outlines_and_labels(tmp_path: Path, unknown: bool) -> None:
    folder = tmp_path / "dataset"
    sources = [picture(folder / "images" / name) for name in ("a/x.jpg", "b.v2.png")]
    sink = YOLOSink(folder, multiple=True, inputs=sources, include_unknown=unknown)
    files = {path.relative_to(folder).as_posix() for path in written(sink, sources)}
    assert files == {"data.yaml", "labels/a/x.txt", "labels/b.v2.txt", "train.txt", "val.txt"}
    dataset = open_dataset(folder, None, max_pixels=10**6)
    expected = [
        (label or "unknown", mask)
        for label, mask in zip(LABELS, shapes(), strict=True)
        if unknown or label
    ]
    assert len(dataset.pictures) == 2
    for image in dataset.pictures:
        assert [each.label for each in image.objects] == [label for label, _ in expected]
        for each, (_, mask) in zip(image.objects, expected, strict=True):
            assert each.mask_rle is not None
            assert iou(rle_to_mask(each.mask_rle), mask) >= 0.99


def test_yolo_fills_by_the_even_odd_rule_of_opencv_too(tmp_path: Path) -> None:
    """As ultralytics draws the outlines. OpenCV draws their lines as well: half a pixel more."""
    sink = YOLOSink(tmp_path / "out")
    _, labels, *_ = written(sink, ["x.jpg"])
    rows = labels.read_text().splitlines()
    expected = [mask for mask, label in zip(shapes(), LABELS, strict=True) if label]
    for row, mask in zip(rows, expected, strict=True):
        shares = np.array(row.split()[1:], float).reshape(-1, 2)
        assert (shares >= 0).all()
        assert (shares <= 1).all()
        canvas = np.zeros(SIZE_HW, np.uint8)
        cv2.fillPoly(canvas, [np.int32(shares * SIZE_HW[::-1])], 1)
        assert iou(canvas > 0, mask) > 0.8


def test_yolo_names_label_files_below_the_folder_that_pictures_share(tmp_path: Path) -> None:
    sources = [picture(tmp_path / "in" / name) for name in ("a/x.jpg", "b/x.jpg")]
    sink = YOLOSink(tmp_path / "out", multiple=True, inputs=sources)
    names = [path.relative_to(tmp_path / "out").as_posix() for path in written(sink, sources)]
    assert names == ["data.yaml", "labels/a/x.txt", "labels/b/x.txt", "val.txt", "train.txt",
                     "images/a/x.jpg", "images/b/x.jpg"]  # fmt: skip
    one = YOLOSink(tmp_path / "one", inputs=["-"])
    named = [path.name for path in written(one, ["-"])]
    assert named == ["data.yaml", "-.txt", "val.txt", "train.txt", "-.png"]


def lists(folder: Path) -> tuple[list[str], list[str]]:
    """The pictures to train with, and to validate; all of them are there."""
    found = []
    for name in ("train.txt", "val.txt"):
        lines = (folder / name).read_text().splitlines()
        assert all((folder / line).is_file() for line in lines)
        assert all((folder / line.replace("/images/", "/labels/", 1)).with_suffix(".txt").exists()
                   for line in lines)  # fmt: skip
        found.append(lines)
    return found[0], found[1]


def dataset_of(folder: Path, names: list[str], **options: Any) -> Path:
    sources = [picture(folder / "in" / name) for name in names]
    sink = YOLOSink(folder / "out", multiple=True, inputs=sources, **options)
    written(sink, sources)
    return folder / "out"


def test_a_yolo_dataset_trains_as_it_is(tmp_path: Path) -> None:
    names = [f"p{number}.png" for number in range(12)]
    train, val = lists(dataset_of(tmp_path / "1", names))
    assert (len(train), len(val)) == (10, 2)
    assert [*sorted([*train, *val])] == sorted(f"./images/{name}" for name in names)
    assert train == sorted(train, key=lambda line: int(line[10:-4])), "in the folder's order"
    again = lists(dataset_of(tmp_path / "2", names[::-1]))
    assert (set(again[0]), set(again[1])) == (set(train), set(val)), "by the names only"
    assert lists(dataset_of(tmp_path / "3", names[:1])) == ([val_ := "./images/p0.png"], [val_])
    assert [len(each) for each in lists(dataset_of(tmp_path / "4", names[:2]))] == [1, 1]
    dataset = open_dataset(tmp_path / "1" / "out", None, max_pixels=10**6)
    assert (
        sorted(str(each.fields["split"]) for each in dataset.pictures)
        == ["train"] * 10 + ["val"] * 2
    )
    assert not dataset.problems


def test_a_yolo_dataset_has_pictures_that_every_trainer_reads(tmp_path: Path) -> None:
    folder = dataset_of(tmp_path, ["a/x.JPG", "y.tif", "b/z.gif", "w.webp"])
    train, val = lists(folder)
    assert {*train, *val} == {"./images/a/x.JPG", "./images/y.png", "./images/b/z.png",
                              "./images/w.webp"}  # fmt: skip
    with Image.open(folder / "images" / "y.png") as shown:
        assert shown.size == SIZE_HW[::-1]
    assert (folder / "images/a/x.JPG").read_bytes() == (tmp_path / "in/a/x.JPG").read_bytes()


def test_pictures_of_another_dataset_are_not_mixed_in(tmp_path: Path) -> None:
    picture(tmp_path / "out" / "images" / "old.png")
    with pytest.raises(OutputError, match="holds a YOLO dataset already"):
        dataset_of(tmp_path, ["x.png"])


def test_two_days_sheets_and_datasets_fit_together(tmp_path: Path) -> None:
    """Days on which not everything was found."""
    labels = {"nut", "fig", "Nüsse"}
    heads, names, categories = set(), set(), set()
    for day, found in (("1", ("nut",) * 5), ("2", ("fig",) * 5), ("3", (None,) * 5)):
        sources = [picture(tmp_path / day / "x.png")]
        table, coco = tmp_path / day / "c.csv", tmp_path / day / "c.json"
        written(CountsSink(table, inputs=sources, labels=labels), sources, found)
        written(COCOSink(coco, inputs=sources, labels=labels), sources, found)
        written(YOLOSink(tmp_path / day / "y", inputs=sources, labels=labels), sources, found)
        heads.add(table.read_text(encoding="utf-8-sig").splitlines()[0])
        categories.add(json.dumps(json.loads(coco.read_text())["categories"]))
        names.add((tmp_path / day / "y" / "data.yaml").read_text())
    assert heads == {"image,Nüsse,fig,nut,total,check"}
    assert len(categories) == len(names) == 1


def test_yolo_refuses_pictures_that_would_share_a_label_file(tmp_path: Path) -> None:
    sources = [picture(tmp_path / name) for name in ("x.jpg", "x.png")]
    with pytest.raises(OutputError, match=r"x\.jpg.*x\.png.*share the label file x\.txt"):
        YOLOSink(tmp_path / "out", multiple=True, inputs=sources)


def test_yolo_never_touches_labels_that_are_there(tmp_path: Path) -> None:
    labels = tmp_path / "labels"
    labels.mkdir()
    YOLOSink(tmp_path)
    (labels / "x.txt").write_text("0 0.5 0.5 0.1 0.1\n")
    with pytest.raises(OutputError, match="holds a YOLO dataset already"):
        YOLOSink(tmp_path)
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputError, match=r"is a file; .* folder"):
        YOLOSink(tmp_path / "file")
