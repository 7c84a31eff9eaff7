"""COCO files: what is read, what is left out and said, and what is refused."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import coco_folder
from hypothesis import given
from hypothesis import strategies as st
from strategies import QUICK

from sam_detect.errors import ImageError, MaskError, SamDetectError
from sam_detect.evaluation.readers import open_dataset
from sam_detect.io.coco import read_coco
from sam_detect.types import AnnotatedImage
from sam_detect.types.masks import compress_rle

SIZE = (6, 8)
SQUARE = [2, 1, 6, 1, 6, 4, 2, 4]
SQUARE_RUNS = [13, 3, 3, 3, 3, 3, 3, 3, 14]
"""The same square, column by column: columns 2 to 5, rows 1 to 3 of a 6 x 8 picture."""


def square_mask() -> np.ndarray:
    mask = np.zeros(SIZE, np.bool_)
    mask[1:4, 2:6] = True
    return mask


def coco(**changes: Any) -> dict[str, Any]:
    """A file of one nut in one picture; ``annotation`` changes that annotation."""
    annotation = {
        "id": 1, "image_id": 1, "category_id": 7, "bbox": [2, 1, 4, 3], "segmentation": [SQUARE],
        "iscrowd": 0, "area": 12,
    }  # fmt: skip
    annotation |= changes.pop("annotation", {})
    return {
        "images": [{"id": 1, "file_name": "a.png", "width": 8, "height": 6}],
        "annotations": [{k: v for k, v in annotation.items() if v is not ...}],
        "categories": [{"id": 7, "name": "nut"}],
    } | changes


def read(
    tmp_path: Path, data: Any, images: list[str] | None = None, *, tag: str | None = None
) -> tuple[list[AnnotatedImage], list[str]]:
    file = tmp_path / "annotations.json"
    file.write_text(data if isinstance(data, str) else json.dumps(data), encoding="utf-8")
    return read_coco(file, ["pictures/a.png"] if images is None else images, tag=tag)


def only_mask(found: list[AnnotatedImage]) -> np.ndarray | None:
    assert len(found) == 1
    assert len(found[0].outlines) == 1
    return found[0].outlines[0].mask(SIZE)


# What is read


RLE_TEXT = compress_rle(SQUARE_RUNS, SIZE)
SEGMENTATIONS: dict[str, Any] = {
    "a polygon": [SQUARE],
    "a polygon of floats": [[float(v) for v in SQUARE]],
    "two polygons": [[2, 1, 4, 1, 4, 4, 2, 4], [4, 1, 6, 1, 6, 4, 4, 4]],
    "a compressed RLE": dict(RLE_TEXT),
    "a plain RLE": {"size": list(SIZE), "counts": SQUARE_RUNS},
}


@pytest.mark.parametrize("kind", SEGMENTATIONS)
def test_every_kind_of_outline_gives_its_mask(tmp_path: Path, kind: str) -> None:
    found, problems = read(tmp_path, coco(annotation={"segmentation": SEGMENTATIONS[kind]}))
    assert problems == []
    assert found[0].path == "pictures/a.png"
    assert found[0].file_name == "a.png"
    assert found[0].outlines[0].label == "nut"
    assert found[0].outlines[0].bbox_xywh == (2, 1, 4, 3)
    np.testing.assert_array_equal(only_mask(found), square_mask())


@pytest.mark.parametrize("segmentation", [..., None, []], ids=repr)
def test_an_object_with_a_box_alone_has_no_mask_yet(tmp_path: Path, segmentation: Any) -> None:
    found, problems = read(tmp_path, coco(annotation={"segmentation": segmentation}))
    assert problems == []
    assert only_mask(found) is None
    assert found[0].outlines[0].bbox_xywh == (2, 1, 4, 3)


def test_an_outline_needs_no_box(tmp_path: Path) -> None:
    found, _ = read(tmp_path, coco(annotation={"bbox": ...}))
    np.testing.assert_array_equal(only_mask(found), square_mask())


def test_an_object_with_neither_outline_nor_box_is_refused(tmp_path: Path) -> None:
    found, _ = read(tmp_path, coco(annotation={"bbox": ..., "segmentation": ...}))
    with pytest.raises(MaskError, match="neither a segmentation nor a bbox"):
        only_mask(found)


KEYPOINTS: dict[str, tuple[Any, tuple[float, float] | None]] = {
    "a visible one": ([3, 2, 2], (3, 2)),
    "the first visible one": ([0, 0, 0, 9, 9, 1, 3, 2, 2, 4, 3, 2], (3, 2)),
    "a hidden one, if no other is marked": ([0, 0, 0, 4, 3, 1], (4, 3)),
    "none that is marked": ([0, 0, 0], None),
    "none": ([], None),
}


@pytest.mark.parametrize("kind", KEYPOINTS)
def test_a_keypoint_is_a_point_of_the_object(tmp_path: Path, kind: str) -> None:
    keypoints, point = KEYPOINTS[kind]
    changes = {"bbox": ..., "segmentation": ..., "keypoints": keypoints}
    found, problems = read(tmp_path, coco(annotation=changes))
    assert problems == []
    assert found[0].outlines[0].point_xy == point


@pytest.mark.parametrize(("bbox", "kept"), [([3, 2, 0, 0], None), ([2, 1, 4, 3], (2, 1, 4, 3))])
def test_an_empty_box_around_keypoints_gives_way_to_them(
    tmp_path: Path, bbox: list[float], kept: tuple[float, ...] | None
) -> None:
    changes = {"bbox": bbox, "segmentation": ..., "keypoints": [3, 2, 2]}
    found, _ = read(tmp_path, coco(annotation=changes))
    assert found[0].outlines[0].bbox_xywh == kept


@pytest.mark.parametrize("keypoints", [[3, 2], "here", [3, None, 2], [1e999, 2, 2], 5], ids=repr)
def test_malformed_keypoints_are_said(tmp_path: Path, keypoints: Any) -> None:
    data = coco()
    data["annotations"].append(data["annotations"][0] | {"id": 2, "keypoints": keypoints})
    found, problems = read(tmp_path, data)
    assert len(found[0].outlines) == 1
    assert problems[0].startswith("annotation 2: its keypoints are not x, y, v, ...")


def test_crowds_are_left_out(tmp_path: Path) -> None:
    data = coco()
    crowd = data["annotations"][0] | {"id": 2, "iscrowd": 1, "segmentation": dict(RLE_TEXT)}
    data["annotations"].append(crowd)
    found, problems = read(tmp_path, data)
    assert len(found[0].outlines) == 1
    assert problems == []


def test_a_tag_takes_its_category_alone(tmp_path: Path) -> None:
    data = coco(categories=[{"id": 7, "name": "nut"}, {"id": 8, "name": "date"}])
    data["annotations"].append(data["annotations"][0] | {"id": 2, "category_id": 8})
    found, _ = read(tmp_path, data)
    assert [outline.label for outline in found[0].outlines] == ["nut", "date"]
    found, problems = read(tmp_path, data, tag="date")
    assert [outline.label for outline in found[0].outlines] == ["date"]
    assert problems == []
    with pytest.raises(ImageError, match=r"no category 'fig' \(it has: date, nut\)"):
        read(tmp_path, data, tag="fig")


def test_pictures_come_in_the_files_order_and_unannotated_ones_not_at_all(tmp_path: Path) -> None:
    data = coco(images=[{"id": i, "file_name": f"{name}.png"} for i, name in enumerate("dcab")])
    data["annotations"] = [
        data["annotations"][0] | {"id": i, "image_id": image}
        for i, image in enumerate([2, 0, 2, 3])
    ]
    found, problems = read(tmp_path, data, [f"{name}.png" for name in "abcd"])
    assert [(one.path, len(one.outlines)) for one in found] == [
        ("d.png", 1), ("a.png", 2), ("b.png", 1),
    ]  # fmt: skip
    assert problems == []


def test_two_objects_with_one_id_are_two_objects(tmp_path: Path) -> None:
    data = coco()
    data["annotations"].append(dict(data["annotations"][0]))
    found, _ = read(tmp_path, data)
    assert len(found[0].outlines) == 2


def test_names_and_labels_of_any_script_are_read(tmp_path: Path) -> None:
    data = coco(
        images=[{"id": "x", "file_name": "höhle 1.png"}], categories=[{"id": 7, "name": "坚果"}]
    )
    data["annotations"][0]["image_id"] = "x"
    found, _ = read(tmp_path, json.dumps(data, ensure_ascii=False), ["p/höhle 1.png"])
    assert found[0].outlines[0].label == "坚果"


# Which picture


@pytest.mark.parametrize(
    ("file_name", "images", "path"),
    [
        ("a.png", ["x/a.png"], "x/a.png"),
        ("train/a.png", ["x/val/a.png", "x/train/a.png"], "x/train/a.png"),
        ("val/a.png", ["x/val/a.png", "x/train/a.png"], "x/val/a.png"),
        ("elsewhere/a.png", ["x/a.png"], "x/a.png"),
        ("/data/a.png", ["/data/a.png", "/other/a.png"], "/data/a.png"),
        ("a.png", ["x/ba.png", "x/a.png"], "x/a.png"),
        ("a.png", ["a.png", "sub/a.png"], "a.png"),
    ],
)
def test_a_picture_is_found_by_the_end_of_its_path(
    tmp_path: Path, file_name: str, images: list[str], path: str
) -> None:
    found, problems = read(tmp_path, coco(images=[{"id": 1, "file_name": file_name}]), images)
    assert found[0].path == path
    assert problems == []


@pytest.mark.parametrize("file_name", ["a.png", "third/a.png"])
def test_a_name_that_two_folders_hold_is_not_guessed(tmp_path: Path, file_name: str) -> None:
    data = coco(
        images=[{"id": 1, "file_name": file_name}, {"id": 2, "file_name": "b.png"}],
    )
    data["annotations"].append(data["annotations"][0] | {"id": 2, "image_id": 2})
    images = ["first/a.png", "second/a.png", "b.png"]
    found, problems = read(tmp_path, data, images)
    assert [one.path for one in found] == ["b.png"]
    assert len(problems) == 1
    assert file_name in problems[0]


@pytest.mark.parametrize(
    ("names", "images", "words"),
    [
        (["a.png"], ["x/a.png", "y/a.png"], ("x/a.png, y/a.png", "name the folder")),
        (["A.PNG"], ["x/a.png", "y/a.png"], ("x/a.png, y/a.png", "name the folder")),
        (["12345678-a.png"], ["x/a.png", "y/a.png"], ("x/a.png, y/a.png", "name the folder")),
        (["x/a.png", "y/a.png"], ["a.png"], ("x/a.png and y/a.png both mean a.png", "folder")),
        (
            ["x/A.png", "y/A.png"],
            ["z/a.png"],
            ("both mean z/a.png", "keep the annotations of one"),
        ),
        (["x/a.png", "y/a.png"], ["x/a.png"], ("y/a.png", "not among the pictures")),
        (["./a.png", "a.png", "b.png"], ["c.png"], ("not among the pictures",)),
    ],
    ids=str,
)
def test_of_a_tie_of_names_both_and_the_remedy_are_said(
    tmp_path: Path, names: list[str], images: list[str], words: tuple[str, ...]
) -> None:
    rows = [*names, "d.png"]
    data = coco(images=[{"id": i, "file_name": name} for i, name in enumerate(rows, start=1)])
    data["annotations"] = [
        data["annotations"][0] | {"id": i, "image_id": i} for i in range(1, len(rows) + 1)
    ]
    _, problems = read(tmp_path, data, [*images, "d.png"])
    assert problems
    assert not [word for word in words if word not in problems[-1]], problems
    folder = coco_folder(tmp_path / "set", data, (*images, "d.png"))
    said = open_dataset(folder).problems[-1].replace(f"{folder}/images/", "")
    assert not [word for word in words if word not in said] or "no such picture" in said


def test_whole_ids_may_be_written_with_a_point(tmp_path: Path) -> None:
    data = coco()
    for annotation in data["annotations"]:
        annotation.update({key: float(annotation[key]) for key in ("image_id", "category_id")})
    [(one, problems), (other, _)] = read(tmp_path, data), read(tmp_path, coco())
    assert [each.tags for each in one[0].outlines] == [each.tags for each in other[0].outlines]
    assert problems == []


def test_ids_as_text_and_polygons_without_brackets_are_read(tmp_path: Path) -> None:
    """As converters of VIA's files write them."""
    data = coco(annotation={"image_id": "1", "category_id": "7", "segmentation": SQUARE})
    found, problems = read(tmp_path, data)
    assert (found[0].outlines[0].tags, problems) == (("nut",), [])
    np.testing.assert_array_equal(only_mask(found), only_mask(read(tmp_path, coco())[0]))


@pytest.mark.parametrize(
    ("changes", "crowd"),
    [({"iscrowd": "0"}, False), ({"iscrowd": 1}, True), ({"segmentation": [[]]}, False)],
)
def test_a_crowd_is_one_and_an_outline_without_points_is_none(
    tmp_path: Path, changes: dict[str, Any], crowd: bool
) -> None:
    data = coco(annotation=changes)
    if crowd:
        with pytest.raises(ImageError, match="crowds"):
            read(tmp_path, data)
    else:
        [image] = read(tmp_path, data)[0]
        assert image.outlines[0].is_outlined == ("segmentation" not in changes)


def test_the_same_name_in_two_folders_is_two_pictures(tmp_path: Path) -> None:
    data = coco(images=[{"id": 1, "file_name": "val/a.png"}, {"id": 2, "file_name": "train/a.png"}])
    data["annotations"].append(data["annotations"][0] | {"id": 2, "image_id": 2})
    found, _ = read(tmp_path, data, ["train/a.png", "val/a.png"])
    assert [(one.path, one.file_name) for one in found] == [
        ("val/a.png", "val/a.png"), ("train/a.png", "train/a.png"),
    ]  # fmt: skip


class CountedPasses(list[str]):
    """A list that counts how often it is walked through."""

    passes = 0

    def __iter__(self) -> Iterator[str]:
        self.passes += 1
        return super().__iter__()


def test_the_pictures_are_not_walked_through_for_each_annotated_one(tmp_path: Path) -> None:
    names = [f"{i}.png" for i in range(50)]
    data = coco(images=[{"id": i, "file_name": name} for i, name in enumerate(names)])
    data["annotations"] = [data["annotations"][0] | {"id": i, "image_id": i} for i in range(50)]
    images = CountedPasses(names)
    found, _ = read(tmp_path, data, images)
    assert [one.path for one in found] == names
    assert images.passes <= 3


# What is left out, and said


HUGE = 10**400
NO_INTEGER = "@digits@"
"""Stands for a whole number of 5000 digits, more than Python converts."""
ROWS: dict[str, tuple[str, dict[str, Any], str]] = {
    "a category id with a fraction": (
        "annotations", {"category_id": 7.5}, "annotation 55: its category_id must be a whole "
        "number or a text, got 7.5"),
    "a category id that is true": ("annotations", {"category_id": True}, "whole number"),
    "a picture's id that is NaN": (
        "annotations", {"image_id": float("nan")}, "its image_id must be a whole number or a text, "
        "got NaN"),
    "a box of NaN": ("annotations", {"bbox": [1, 1, float("nan"), 2]}, "its bbox is not x, y, w"),
    "a box beyond floats": ("annotations", {"bbox": [HUGE, 1, 2, 2]}, "its bbox is not x, y, w"),
    "a box of 5000 digits": ("annotations", {"bbox": [NO_INTEGER, 1, 2, 2]}, "its bbox is not x"),
    "a category of two lines": (
        "categories", {"name": "a\nb"}, "category 55: a label is one line of text"),
    "a category without ink": ("categories", {"name": "\u200b"}, "category 55: a label needs"),
    "a category without a name": ("categories", {}, "category 55: its name must be"),
    "a category that is long": ("categories", {"name": "x" * 300}, "at most 200 characters"),
    "a picture without a name": ("images", {}, "image 55: its file_name must be"),
    "a picture whose id is a list": ("images", {"id": [1], "file_name": "b.png"}, "image number 2"),
}  # fmt: skip


@pytest.mark.parametrize("what", ROWS)
def test_a_bad_row_is_left_out_with_its_reason_and_the_others_are_read(
    tmp_path: Path, what: str
) -> None:
    where, changes, reason = ROWS[what]
    data = coco()
    good = data["annotations"][0] if where == "annotations" else {}
    data[where].append(good | {"id": 55} | changes)
    text = json.dumps(data).replace(f'"{NO_INTEGER}"', "9" * 5000)
    found, problems = read(tmp_path, text)
    assert [len(one.outlines) for one in found] == [1]
    assert len(problems) == 1
    assert reason in problems[0]
    assert len(problems[0]) < 300


@pytest.mark.parametrize("value", [HUGE, -HUGE, float("nan"), 1e300])
def test_an_outline_beyond_numbers_is_no_outline(tmp_path: Path, value: Any) -> None:
    with pytest.raises(ImageError, match=r"annotation 1: .* not a usable number"):
        read(tmp_path, coco(annotation={"segmentation": [[value, *SQUARE[1:]]]}))


def test_a_tag_and_a_category_are_one_however_they_are_typed(tmp_path: Path) -> None:
    data = coco(categories=[{"id": 7, "name": "Nu\u0308sse"}])
    found, problems = read(tmp_path, data, tag="N\u00fc\u200bsse")
    assert [outline.label for outline in found[0].outlines] == ["N\u00fcsse"]
    assert problems == []


def test_the_lack_of_memory_is_no_fault_of_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def out_of_memory(*_: Any, **__: Any) -> Any:
        raise MemoryError

    monkeypatch.setattr(json, "loads", out_of_memory)
    with pytest.raises(MemoryError):
        read(tmp_path, coco())


def test_a_picture_that_is_not_there_is_said(tmp_path: Path) -> None:
    data = coco()
    data["images"].append({"id": 2, "file_name": "gone.png"})
    data["images"].append({"id": 3, "file_name": "not-annotated.png"})
    data["annotations"].append(data["annotations"][0] | {"id": 2, "image_id": 2})
    found, problems = read(tmp_path, data)
    assert [one.path for one in found] == ["pictures/a.png"]
    assert problems == ["gone.png: annotated, but not among the pictures"]


@pytest.mark.parametrize("category", [99, None, ..., "99"], ids=repr)
def test_a_category_that_is_not_there_is_said(tmp_path: Path, category: Any) -> None:
    data = coco()
    other = {k: v for k, v in (data["annotations"][0] | {"id": 5, "category_id": category}).items()
             if v is not ...}  # fmt: skip
    data["annotations"].append(other)
    found, problems = read(tmp_path, data)
    assert len(found[0].outlines) == 1
    assert len(problems) == 1
    assert "annotation 5: its category" in problems[0]


@pytest.mark.parametrize("bbox", [[1, 2, 3], [1, 2, 3, 4, 5], "box", 5, [None] * 4], ids=repr)
def test_a_box_that_is_none_is_said(tmp_path: Path, bbox: Any) -> None:
    data = coco()
    data["annotations"].append(data["annotations"][0] | {"id": 5, "bbox": bbox})
    found, problems = read(tmp_path, data)
    assert len(found[0].outlines) == 1
    assert len(problems) == 1
    assert problems[0].startswith("annotation 5: its bbox is not x, y, w, h: ")


@pytest.mark.parametrize("number", ["NaN", "Infinity", "1e999"])
def test_a_box_alone_that_is_not_finite_is_said(tmp_path: Path, number: str) -> None:
    data = coco()
    data["annotations"].append(
        data["annotations"][0] | {"id": 5, "bbox": ["here", 1, 4, 3], "segmentation": None}
    )
    text = json.dumps(data).replace('"here"', number)
    found, problems = read(tmp_path, text)
    assert len(found[0].outlines) == 1
    assert len(problems) == 1
    assert problems[0].startswith("annotation 5: its bbox is not x, y, w, h: ")


# Outlines that cannot be used


BAD_OUTLINES: dict[str, Any] = {
    "outside the picture": [[20, 20, 30, 20, 30, 30]],
    "two points": [[1, 1, 2, 2]],
    "words": [["a"] * 6],
    "no list": 5,
    "a word": "outline",
    "an empty polygon": [[]],
    "a list of nothing": [None],
    "an empty RLE": {},
    "an RLE without pixels": {"size": list(SIZE), "counts": [48]},
    "an RLE of another picture": {"size": [8, 6], "counts": [0, 48]},
    "an RLE of a huge picture": {"size": [46_000, 46_000], "counts": [0, 46_000**2]},
    "an RLE with a size of words": {"size": ["a", "b"], "counts": [48]},
    "an RLE of broken text": {"size": list(SIZE), "counts": "zzz\u2603"},
    "an RLE of nothing": {"size": list(SIZE), "counts": None},
}


@pytest.mark.parametrize("what", BAD_OUTLINES)
def test_an_outline_that_cannot_be_used_is_an_error_in_one_line(tmp_path: Path, what: str) -> None:
    data = coco(annotation={"segmentation": BAD_OUTLINES[what], "bbox": ...})
    with pytest.raises((ImageError, MaskError)) as caught:
        only_mask(read(tmp_path, data)[0])
    assert "\n" not in str(caught.value)


# Files that are none


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1, 2", "annotations", "{'images': []}", "\x00", "[" * 100_000, "1" * 9999],
    ids=["empty", "{", "[1, 2", "a word", "python", "zero byte", "deep", "a long number"],
)
def test_what_is_no_json_is_refused_by_name(tmp_path: Path, text: str) -> None:
    with pytest.raises(ImageError, match=r"annotations\.json is not a (JSON|COCO) file"):
        read(tmp_path, text)


def test_what_is_no_text_is_refused_by_name(tmp_path: Path) -> None:
    file = tmp_path / "annotations.json"
    file.write_bytes(b"\xff\xfe\x00{")
    with pytest.raises(ImageError, match=r"annotations\.json is not a JSON file"):
        read_coco(file, ["a.png"])


def test_a_file_that_is_not_there_or_a_folder_is_refused_by_name(tmp_path: Path) -> None:
    for path in (tmp_path / "nowhere.json", tmp_path):
        with pytest.raises(ImageError, match="cannot be read") as caught:
            read_coco(path, ["a.png"])
        assert str(path) in str(caught.value)


OTHER_SHAPES: dict[str, Any] = {
    "a list": [],
    "a number": 3,
    "null": None,
    "an empty object": {},
    "no annotations": {"images": [], "categories": []},
    "images are an object": coco(images={"1": {}}),
    "an image is a word": coco(images=["a.png"]),
    "an image without a name": coco(images=[{"id": 1}]),
    "an image without an id": coco(images=[{"file_name": "a.png"}]),
    "an annotation is null": coco(annotations=[None]),
    "a category without a name": coco(categories=[{"id": 7}]),
    "a category that is a word": coco(categories=["nut"]),
    "an image whose id is a list": coco(images=[{"id": [1], "file_name": "a.png"}]),
    "an image whose id is an object": coco(images=[{"id": {}, "file_name": "a.png"}]),
    "a category whose id is a list": coco(categories=[{"id": [7], "name": "nut"}]),
    "an annotation whose category is a list": coco(annotation={"category_id": [7]}),
    "an annotation whose image is a list": coco(annotation={"image_id": [1]}),
    "two pictures of one id": coco(
        images=[{"id": 1, "file_name": "a.png"}, {"id": 1, "file_name": "b.png"}]
    ),
    "two categories of one id": coco(
        categories=[{"id": 7, "name": "nut"}, {"id": 7, "name": "date"}]
    ),
}


@pytest.mark.parametrize("what", OTHER_SHAPES)
def test_json_of_another_shape_is_refused_by_name(tmp_path: Path, what: str) -> None:
    with pytest.raises(ImageError, match=r"annotations\.json") as caught:
        read(tmp_path, OTHER_SHAPES[what], ["a.png", "b.png"])
    assert "\n" not in str(caught.value)


def test_a_file_without_an_object_says_so(tmp_path: Path) -> None:
    for data in (coco(annotations=[]), coco(images=[]), coco(annotation={"image_id": 99})):
        with pytest.raises(ImageError, match="no annotation that can be used"):
            read(tmp_path, data)
    with pytest.raises(ImageError, match="none of the annotated pictures"):
        read(tmp_path, coco(), [])


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["size", "counts", "id", "name", "file_name", "x"]), inner, max_size=3
        ),
    ),
    max_leaves=8,
)


def test_a_file_of_any_values_is_read_or_refused_with_our_own_error(tmp_path: Path) -> None:
    messages: list[str] = []
    fields = ("id", "image_id", "category_id", "bbox", "segmentation", "iscrowd")

    @QUICK
    @given(
        st.fixed_dictionaries({}, optional=dict.fromkeys(fields, json_values)),
        json_values,
        json_values,
    )
    def check(changes: dict[str, Any], file_name: Any, category: Any) -> None:
        data = coco(
            annotation=changes,
            images=[{"id": 1, "file_name": file_name}, {"id": 2, "file_name": "a.png"}],
            categories=[{"id": 7, "name": category}],
        )
        data["annotations"].append({"image_id": 2, "category_id": 7, "segmentation": [SQUARE]})
        try:
            found, _ = read(tmp_path, data)
            for one in found:
                for outline in one.outlines:
                    outline.mask(SIZE)
        except SamDetectError as error:
            messages.append(str(error))

    check()
    assert messages
    assert not [message for message in messages if "\n" in message]
