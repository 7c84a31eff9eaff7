"""COCO datasets that are not as they should be: what is left out and said, what is refused."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import (
    coco,
    coco_folder,
    mask_of,
    one_problem,
    only_object,
    only_picture,
    picture,
    square_mask,
    write,
)
from hypothesis import given
from hypothesis import strategies as st
from strategies import QUICK

from sam_detect.errors import ConfigError, ImageError, SamDetectError
from sam_detect.evaluation.dataset import Dataset
from sam_detect.evaluation.readers import open_dataset

# Objects that are left out, each in one line

BAD_OBJECTS: dict[str, tuple[dict[str, Any], str]] = {
    "a polygon outside": ({"segmentation": [[20, 20, 30, 20, 30, 30]]}, "no pixel inside"),
    "a polygon without area": ({"segmentation": [[2, 2, 4, 2, 3, 2]]}, "no pixel inside"),
    "a mask without pixels": ({"segmentation": {"size": [6, 8], "counts": [48]}}, "no pixel"),
    "a mask of another size": ({"segmentation": {"size": [8, 6], "counts": [0, 48]}}, "[8, 6]"),
    "a mask of a huge size": ({"segmentation": {"size": [9**9, 9**9], "counts": [9]}}, "size"),
    "a broken mask": ({"segmentation": {"size": [6, 8], "counts": "zzz"}}, "RLE"),
    "two points": ({"segmentation": [[1, 1, 2, 2]]}, "3 points"),
    "words": ({"segmentation": [["a"] * 6]}, "numbers"),
    "a number": ({"segmentation": 5}, "list of polygons"),
    "NaN in a polygon": ({"segmentation": [[1, 1, float("nan"), 4, 5, 5]]}, "usable number"),
    "absurd coordinates": ({"segmentation": [[1e300, 1, 5, 4, 5, 5]]}, "usable number"),
    "neither outline nor box": ({"segmentation": None, "bbox": None}, "neither"),
    "NaN in a box": ({"bbox": [1, 1, float("nan"), 3]}, "x, y, w, h"),
    "three numbers": ({"bbox": [1, 1, 3]}, "x, y, w, h"),
    "a word for a box": ({"bbox": "here"}, "x, y, w, h"),
    "an unknown category": ({"category_id": 99}, "category is not in"),
    "an unknown picture": ({"image_id": 99}, "image is not in"),
    "a list for a picture": ({"image_id": [1]}, "image_id must be a whole number"),
    "an id that is taken": ({"id": 1}, "another one has this id"),
    "no id": ({"id": None}, "neither a number nor a word"),
}


@pytest.mark.parametrize("what", BAD_OBJECTS)
def test_an_object_that_cannot_be_used_is_left_out(tmp_path: Path, what: str) -> None:
    changes, word = BAD_OBJECTS[what]
    dataset = open_dataset(coco_folder(tmp_path, coco(more=[{"id": 55} | changes])))
    one_problem(dataset, f"annotation {changes.get('id', 55)}: ", word)
    np.testing.assert_array_equal(mask_of(only_object(dataset)), square_mask())


BAD_BOXES: dict[str, tuple[list[float], str]] = {
    "no width": ([2, 1, 0, 3], "size 0x3"),
    "a negative height": ([2, 1, 4, -3], "size 4x-3"),
    "beside the picture": ([8, 1, 4, 3], "outside"),
    "above the picture": ([2, -3, 4, 3], "outside"),
    "far away": ([1e300, 1e300, 1e300, 1e300], "outside"),
}


@pytest.mark.parametrize("what", BAD_BOXES)
def test_a_box_that_cannot_be_used_is_left_out(tmp_path: Path, what: str) -> None:
    box, word = BAD_BOXES[what]
    data = coco(annotation={"segmentation": ...}, more=[{"bbox": box}])
    dataset = open_dataset(coco_folder(tmp_path, data))
    one_problem(dataset, "annotation 2: ", word)
    assert only_object(dataset).id == 1


def test_what_is_partly_outside_is_cut_off(tmp_path: Path) -> None:
    outline = coco(annotation={"segmentation": [[-9, -9, 3, -9, 3, 2, -9, 2]], "bbox": ...})
    found = only_object(open_dataset(coco_folder(tmp_path / "outline", outline)))
    assert found.bbox_xywh == (0, 0, 3, 2)
    assert np.argwhere(mask_of(found)).tolist() == [[y, x] for y in range(2) for x in range(3)]
    box = coco(annotation={"segmentation": ..., "bbox": [-1.5, 4, 1e308, 1e308]})
    found = only_object(open_dataset(coco_folder(tmp_path / "box", box)))
    assert found.bbox_xywh == (0, 4, 8, 2)


def test_a_few_objects_without_an_outline_are_not_counted(tmp_path: Path) -> None:
    data = coco(more=[{"segmentation": ..., "bbox": [0, 0, 2, 2]}])
    dataset = open_dataset(coco_folder(tmp_path, data))
    one_problem(dataset, "annotation 2: ", "not counted")
    assert not dataset.boxes_only
    assert [o.crowd for o in only_picture(dataset).objects] == [False, True]


def test_where_most_objects_have_no_outline_boxes_are_compared(tmp_path: Path) -> None:
    data = coco(more=[{"segmentation": ...}, {"segmentation": ...}])
    dataset = open_dataset(coco_folder(tmp_path, data))
    one_problem(dataset, "only 1 of 3", "boxes are compared")
    assert dataset.boxes_only
    assert [o.crowd for o in only_picture(dataset).objects] == [False] * 3


# Pictures that are left out, each in one line


def with_second(file_name: Any, **row: Any) -> dict[str, Any]:
    """A file with another picture, of one object."""
    data = coco(more=[{"image_id": 2}])
    data["images"].append({"id": 2, "file_name": file_name} | row)
    return data


def opened_without_second(folder: Path, *words: str) -> None:
    dataset = open_dataset(folder)
    one_problem(dataset, "image 2 (", "with 1 object: ", *words)
    assert only_object(dataset).id == 1


@pytest.mark.parametrize(
    "name", ["gone.png", "", ".", "..", "x\0y.png", "a" * 5000, "a\nb.png", 5, "\x1b[31m.png"]
)
def test_a_missing_picture_is_left_out(tmp_path: Path, name: Any) -> None:
    opened_without_second(coco_folder(tmp_path, with_second(name)), "no such picture")


@pytest.mark.parametrize("content", [b"", b"no picture", b"\x89PNG\r\n\x1a\n\0\0"])
def test_a_picture_that_cannot_be_read_is_left_out(tmp_path: Path, content: bytes) -> None:
    folder = coco_folder(tmp_path, with_second("b.png"))
    (folder / "images" / "b.png").write_bytes(content)
    opened_without_second(folder, "b.png'")


def test_a_pipe_for_a_picture_is_left_out(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path, with_second("b.png"))
    os.mkfifo(folder / "images" / "b.png")
    opened_without_second(folder, "pipe")


def test_a_picture_that_is_too_large_is_left_out(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path, with_second("b.png"))
    picture(folder / "images" / "b.png", (10, 10))
    dataset = open_dataset(folder, max_pixels=99)
    one_problem(dataset, "image 2 (b.png)", "limit of 99")


@pytest.mark.parametrize(
    "size",
    [
        {"width": 6, "height": 8}, {"width": 9}, {"height": 10**30}, {"width": "9"},
        {"width": 6.0, "height": 8.0},
    ],
    ids=str,
)  # fmt: skip
def test_a_picture_of_another_size_is_left_out(tmp_path: Path, size: dict[str, Any]) -> None:
    folder = coco_folder(tmp_path, with_second("b.png", **size), ("a.png", "b.png"))
    opened_without_second(folder, "were made on", "the picture has 8x6")


@pytest.mark.parametrize("width", [0, -8, float("nan"), "8", [], None], ids=str)
def test_a_size_that_is_none_is_not_said(tmp_path: Path, width: Any) -> None:
    folder = coco_folder(tmp_path, with_second("b.png", width=width), ("a.png", "b.png"))
    assert len(open_dataset(folder).pictures) == 2


def test_two_pictures_of_one_file_are_one(tmp_path: Path) -> None:
    opened_without_second(coco_folder(tmp_path, with_second("a.png")), "same file", "image 1")


@pytest.mark.parametrize("absolute", [True, False])
def test_a_name_cannot_lead_out_of_the_folder(tmp_path: Path, absolute: bool) -> None:
    secret = picture(tmp_path / "secret.png")
    name = str(secret) if absolute else "../../secret.png"
    folder = coco_folder(tmp_path / "data", with_second(name))
    assert (folder / "images" / name).exists()
    opened_without_second(folder, "no such picture")


# Categories


def test_a_category_without_an_object_is_kept_and_said(tmp_path: Path) -> None:
    data = coco(categories=[{"id": 1, "name": "fig"}, {"id": 7, "name": "nut"}])
    dataset = open_dataset(coco_folder(tmp_path, data))
    one_problem(dataset, "category 'fig'", "no object")
    assert dataset.categories == {"fig": 1, "nut": 7}


def test_two_categories_of_one_name_are_one(tmp_path: Path) -> None:
    data = coco(categories=[{"id": 1, "name": "nut"}, {"id": 7, "name": "nut"}])
    dataset = open_dataset(coco_folder(tmp_path, data))
    one_problem(dataset, "category 1", "'nut'", "7")
    assert dataset.categories == {"nut": 7}


# Many problems, and files that are none


def test_every_problem_is_kept_in_a_line_of_its_own(tmp_path: Path) -> None:
    names = [f"gone\n{i}" + "x" * 1000 * i for i in range(50)]
    images = [{"id": i + 2, "file_name": name} for i, name in enumerate(names)]
    data = coco(more=[{"segmentation": 5}] * 50)
    data["images"] += images
    dataset = open_dataset(coco_folder(tmp_path, data))
    assert len(dataset.problems) == 100
    assert all(line.isprintable() and len(line) <= 400 for line in dataset.problems)


EMPTY: dict[str, Any] = {
    "nothing": {"images": [], "annotations": [], "categories": []},
    "no annotation": coco(annotations=[]),
    "no picture": coco(images=[]),
    "no category": coco(categories=[]),
    "only a crowd": coco(annotation={"iscrowd": 1}),
    "only a bad one": coco(annotation={"segmentation": 5}),
    "only a picture that is gone": coco(image={"file_name": "gone.png"}),
}


@pytest.mark.parametrize("what", EMPTY)
def test_a_dataset_without_an_object_is_refused(tmp_path: Path, what: str) -> None:
    with pytest.raises(ImageError, match="nuts has no object") as caught:
        open_dataset(coco_folder(tmp_path / "nuts", EMPTY[what]))
    assert "\n" not in str(caught.value)


def test_the_refusal_says_the_first_problem(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match=r"problems: 1; image 1 \(gone.png\) with 1 object: no"):
        open_dataset(coco_folder(tmp_path, EMPTY["only a picture that is gone"]))


REFUSED: dict[str, tuple[Any, str]] = {
    "no JSON": ("{", "not a JSON file"),
    "no text": ("\ud800", "not a JSON file"),
    "deep JSON": ("[" * 100_000, "not a JSON file"),
    "another JSON": ({"version": 5}, "no format of annotations"),
    "two pictures of one id": (
        coco(images=[{"id": 1, "file_name": name} for name in ("a.png", "b.png")]), "same id"
    ),
    "two categories of one id": (
        coco(categories=[{"id": 7, "name": name} for name in ("nut", "fig")]), "same id"
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", REFUSED)
def test_what_is_no_coco_file_is_refused(tmp_path: Path, what: str) -> None:
    data, words = REFUSED[what]
    folder = coco_folder(tmp_path, coco())
    text = data if isinstance(data, str) else json.dumps(data)
    (folder / "annotations.json").write_bytes(text.encode("utf-8", "surrogatepass"))
    with pytest.raises(ImageError, match=rf"annotations\.json .*{words}") as caught:
        open_dataset(folder)
    assert "\n" not in str(caught.value)


def test_a_huge_file_is_refused_before_it_is_read(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path, coco())
    with (folder / "annotations.json").open("wb") as file:
        file.truncate((1 << 30) + 1)
    with pytest.raises(ImageError, match="larger than 1024 MiB"):
        open_dataset(folder)


def test_a_pipe_is_refused_before_it_is_read(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path, coco())
    (folder / "annotations.json").unlink()
    os.mkfifo(folder / "annotations.json")
    with pytest.raises(ImageError, match="not a file"):
        open_dataset(folder)


def test_places_that_are_no_dataset_are_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="gone"):
        open_dataset(tmp_path / "gone")
    with pytest.raises(ImageError, match=r"needs annotations\.json"):
        open_dataset(tmp_path)
    coco_folder(tmp_path, coco())
    (tmp_path / "empty").mkdir()
    with pytest.raises(ImageError, match="empty' has no picture"):
        open_dataset(tmp_path, images=tmp_path / "empty")
    with pytest.raises(ImageError, match="nowhere"):
        open_dataset(tmp_path, images=tmp_path / "nowhere")
    with pytest.raises(ConfigError, match="--images goes with a file of annotations"):
        open_dataset(write(tmp_path / "data.yaml", "names: [a]"), images=tmp_path)


json_values = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(-5, 9), st.floats(), st.text(max_size=3)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=6),
        st.dictionaries(st.sampled_from(["size", "counts", "x"]), inner, max_size=3),
    ),
    max_leaves=8,
)


def test_a_file_of_any_values_is_read_or_refused_with_our_own_error(tmp_path: Path) -> None:
    fields = ("id", "image_id", "category_id", "bbox", "segmentation", "iscrowd")
    rows = st.fixed_dictionaries({}, optional=dict.fromkeys(fields, json_values))
    names = st.one_of(st.text(max_size=3), st.integers(), json_values)
    outcomes: list[Dataset | SamDetectError] = []

    @QUICK
    @given(rows, names, json_values, names)
    def check(changes: dict[str, Any], name: Any, width: Any, category: Any) -> None:
        data = coco(more=[changes])
        data["images"].append({"id": 2, "file_name": name, "width": width})
        data["categories"].append({"id": category, "name": "x"})
        try:
            outcomes.append(open_dataset(coco_folder(tmp_path, data)))
        except SamDetectError as error:
            outcomes.append(error)

    check()
    read = [each for each in outcomes if isinstance(each, Dataset)]
    assert len(read) > 5
    assert all(line.isprintable() for each in read for line in each.problems)
    assert not [each for each in outcomes if "\n" in str(each)]
