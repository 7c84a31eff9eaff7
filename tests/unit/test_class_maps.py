"""Label maps whose values are classes: read with a legend, refused without one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from dataset_files import label_map, mask_of, picture

from sam_detect.errors import ImageError
from sam_detect.evaluation.readers import open_dataset

SIDE = 60
LEGENDS: dict[str, tuple[str, str]] = {
    "lines": ("classes.txt", "0 background\n1 tumour\n2: lymph node\n\n18 fat\n"),
    "an object": ("classes.json", '{"0": "x", "1": "tumour", "2": "lymph node", "18": "fat"}'),
    "a list": (
        "classes.json",
        '[{"id": 1, "name": "tumour"}, {"id": 2, "name": "lymph node"}, {"id": 18, "name": "fat"}]',
    ),
    "categories": (
        "classes.json",
        '{"categories": [{"id": 1, "name": "tumour"}, {"id": 2, "name": "lymph node"}, '
        '{"id": 18, "name": "fat"}]}',
    ),
}


def classes(shift: int = 0) -> npt.NDArray[np.uint8]:
    """Two places of each of the classes 1, 2 and 18."""
    values = np.zeros((SIDE, SIDE), np.uint8)
    for row, value in enumerate((1, 2, 18)):
        for column in range(2):
            y, x = 2 + 18 * row, 3 + 25 * column + shift
            values[y : y + 12, x : x + 14] = value
    return values


def folder_of(folder: Path, *maps: npt.NDArray[np.uint8]) -> Path:
    for index, values in enumerate(maps):
        picture(folder / "images" / f"{index}.png", values.shape)
        label_map(folder / "masks" / f"{index}.png", values)
    return folder


@pytest.mark.parametrize("name", LEGENDS)
def test_with_a_legend_each_value_is_a_class(tmp_path: Path, name: str) -> None:
    file, text = LEGENDS[name]
    (folder_of(tmp_path, classes(), classes(4)) / file).write_text(text, encoding="utf-8")
    dataset = open_dataset(tmp_path)
    assert dataset.categories == {"tumour": 1, "lymph node": 2, "fat": 18}
    assert dataset.problems == ()
    for picture_, values in zip(dataset.pictures, (classes(), classes(4)), strict=True):
        assert len(picture_.objects) == 6
        back = np.zeros_like(values)
        for each in picture_.objects:
            back[mask_of(each)] = dataset.categories[each.label]
        np.testing.assert_array_equal(back, values)
    ids = [each.id for each in dataset.pictures[0].objects]
    assert ids[:2] == ["masks/0.png:1.1", "masks/0.png:1.2"]
    assert len(set(ids)) == 6


def test_values_that_the_legend_does_not_name_are_left_out_and_said(tmp_path: Path) -> None:
    (folder_of(tmp_path, classes()) / "classes.txt").write_text("1 tumour\n18 fat\n9 nothing\n")
    dataset = open_dataset(tmp_path)
    assert {each.label for each in dataset.pictures[0].objects} == {"tumour", "fat"}
    assert sorted(dataset.problems) == [
        "category 'nothing': it has no object",
        "value 2: it is in 1 masks, but not in the legend",
    ]


@pytest.mark.parametrize("count", [1, 3])
def test_without_a_legend_classes_are_refused(tmp_path: Path, count: int) -> None:
    folder = folder_of(tmp_path / "tissue", *(classes(shift) for shift in range(count)))
    with pytest.raises(ImageError, match=r"hold classes \(1, 2, 18\)") as caught:
        open_dataset(folder)
    assert "classes.txt" in str(caught.value)
    assert "'VALUE NAME'" in str(caught.value)


def test_maps_that_are_classes_everywhere_are_refused(tmp_path: Path) -> None:
    halves = np.where(np.arange(SIDE)[None, :] < 30, 1, 18).repeat(SIDE, axis=0).astype(np.uint8)
    with pytest.raises(ImageError, match="hold classes"):
        open_dataset(folder_of(tmp_path, halves, halves.T.copy()))


def objects(seed: int) -> npt.NDArray[np.uint8]:
    """Nine objects, numbered at random; one is cut in two by another."""
    values = np.zeros((SIDE, SIDE), np.uint8)
    numbers = np.random.default_rng(seed).permutation(np.arange(1, 12))[:9]
    for index, number in enumerate(numbers):
        y, x = 2 + 20 * (index // 3), 2 + 20 * (index % 3)
        values[y : y + 14, x : x + 14] = number
    values[8, 2:16] = numbers[1]
    return values


def test_maps_of_objects_are_read_as_before(tmp_path: Path) -> None:
    dataset = open_dataset(folder_of(tmp_path / "nuclei", *(objects(seed) for seed in range(4))))
    assert [len(each.objects) for each in dataset.pictures] == [9] * 4
    assert dataset.categories == {"nuclei": 1}


@pytest.mark.parametrize(
    ("file", "text"),
    [
        ("classes.txt", "tumour\nfat\n"),
        ("classes.txt", "1.5 tumour\n"),
        ("classes.txt", "1 tumour\n1 fat\n"),
        ("classes.txt", "0 background\n"),
        ("classes.txt", "1 \u200b\n"),
        ("classes.json", "["),
        ("classes.json", "[" * 100_000),
        ("classes.json", "3"),
        ("classes.json", "[1, 2]"),
        ("classes.json", '{"1": ["a"]}'),
        ("classes.json", '{"1": null}'),
        ("classes.json", '[{"id": true, "name": "a"}]'),
    ],
)
def test_a_legend_that_cannot_be_read_is_said(tmp_path: Path, file: str, text: str) -> None:
    (folder_of(tmp_path, classes()) / file).write_text(text, encoding="utf-8")
    with pytest.raises(ImageError, match=rf"the legend .*{file} cannot be read") as caught:
        open_dataset(tmp_path)
    assert "'1 tumour'" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_glands_are_read_by_their_own_legend(test_data_dir: Path, tmp_path: Path) -> None:
    source = test_data_dir / "glas_glands"
    for folder in ("images", "masks"):
        (tmp_path / folder).mkdir()
        for file in sorted((source / folder).iterdir())[:3]:
            shutil.copy(file, tmp_path / folder)
    shutil.copy(source / "classes.json", tmp_path)
    names = json.loads((source / "classes.json").read_text())
    dataset = open_dataset(tmp_path)
    assert set(dataset.categories) == {names["1"], names["2"]}
    assert all(len(each.objects) > 3 for each in dataset.pictures)
