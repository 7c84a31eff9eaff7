"""Datasets of label maps: what is an object, and what is no label map."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import SIZE, label_map, mask_of, one_problem, only_object, only_picture, picture
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from strategies import QUICK

from sam_detect.errors import ImageError
from sam_detect.evaluation.readers import open_dataset

VALUES = np.array(
    [
        [0, 0, 0, 0, 0, 0, 0, 0],
        [0, 3, 3, 0, 0, 7, 7, 7],
        [0, 3, 3, 3, 0, 7, 0, 7],
        [0, 0, 0, 3, 0, 7, 7, 7],
        [0, 0, 0, 0, 0, 0, 0, 0],
        [3, 0, 0, 0, 0, 0, 0, 0],
    ]
)


def folder_of(folder: Path, **masks: Any) -> Path:
    """A dataset with a picture and a mask for each name."""
    for name, values in masks.items():
        picture(folder / "images" / f"{name}.png")
        label_map(folder / "masks" / f"{name}.png", values)
    return folder


# What is read


@pytest.mark.parametrize(
    ("ending", "dtype"),
    [
        ("png", np.uint8), ("png", np.uint16), ("tif", np.uint8), ("tif", np.uint16),
        ("tif", np.uint32), ("tiff", np.int32), ("tif", np.uint64), ("tif", np.float32),
    ],
)  # fmt: skip
def test_each_value_is_an_object(tmp_path: Path, ending: str, dtype: Any) -> None:
    picture(tmp_path / "nuclei" / "images" / "a.jpg")
    label_map(tmp_path / "nuclei" / "masks" / f"a.{ending}", VALUES, dtype)
    dataset = open_dataset(tmp_path / "nuclei")
    assert (dataset.name, dataset.categories, dataset.problems) == ("nuclei", {"nuclei": 1}, ())
    seen = only_picture(dataset)
    assert (seen.id, seen.size_hw, seen.fields) == ("images/a.jpg", SIZE, {})
    assert [(o.id, o.label) for o in seen.objects] == [
        (f"masks/a.{ending}:3", "nuclei"), (f"masks/a.{ending}:7", "nuclei"),
    ]  # fmt: skip
    for each, value in zip(seen.objects, (3, 7), strict=True):
        np.testing.assert_array_equal(mask_of(each), value == VALUES)
    assert seen.objects[1].bbox_xywh == (5, 1, 3, 3)


@pytest.mark.alone
def test_the_highest_numbers_take_no_longer(tmp_path: Path) -> None:
    picture(tmp_path / "images" / "a.png")
    label_map(tmp_path / "masks" / "a.tif", VALUES.astype(np.int64) * (2**60), np.uint64)
    started = time.perf_counter()
    dataset = open_dataset(tmp_path)
    assert time.perf_counter() - started < 2
    assert [len(p.objects) for p in dataset.pictures] == [2]


@pytest.mark.parametrize("dtype", [np.uint8, np.int32])
def test_a_map_without_background_is_all_objects(tmp_path: Path, dtype: Any) -> None:
    picture(tmp_path / "images" / "a.png")
    halves = np.where(np.arange(SIZE[1]) < 4, 7, 3) * np.ones(SIZE, int)
    label_map(tmp_path / "masks" / "a.tif", halves, dtype)
    objects = only_picture(open_dataset(tmp_path)).objects
    assert [str(o.id) for o in objects] == ["masks/a.tif:3", "masks/a.tif:7"]
    assert [int(mask_of(o).sum()) for o in objects] == [24, 24]


def test_a_map_of_bits_is_one_object(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, a=VALUES)
    Image.fromarray(VALUES == 7).save(folder / "masks" / "a.png")
    np.testing.assert_array_equal(mask_of(only_object(open_dataset(folder))), VALUES == 7)


def test_a_palette_s_numbers_are_the_values(tmp_path: Path) -> None:
    folder = folder_of(tmp_path, a=VALUES)
    image = Image.fromarray(VALUES.astype(np.uint8))
    image.putpalette([5, 5, 5] * 256)
    image.save(folder / "masks" / "a.png")
    assert len(only_picture(open_dataset(folder)).objects) == 2


def test_pictures_and_masks_meet_by_folder_and_name(tmp_path: Path) -> None:
    folder = folder_of(
        tmp_path, **{"2": VALUES, "10": VALUES * 0, "sub/a.b": np.roll(VALUES, 1, 0) // 4}
    )
    dataset = open_dataset(folder)
    assert dataset.problems == ()
    assert [(p.id, len(p.objects)) for p in dataset.pictures] == [
        ("images/2.png", 2), ("images/10.png", 0), ("images/sub/a.b.png", 1),
    ]  # fmt: skip


def test_a_turned_picture_fits_a_mask_as_it_is_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    folder = folder_of(tmp_path, a=VALUES)
    picture(folder / "images" / "a.png", SIZE[::-1], exif=exif)
    assert only_picture(open_dataset(folder)).size_hw == SIZE


@QUICK
@given(
    numbers=st.lists(st.sampled_from([1, 2, 3, 300, 65535]), min_size=1, max_size=5, unique=True),
    places=st.permutations(range(12)),
)
def test_a_random_map_comes_back(
    tmp_path_factory: pytest.TempPathFactory, numbers: list[int], places: list[int]
) -> None:
    values = np.zeros((24, 32), np.uint16)
    for number, place in zip(numbers, places, strict=False):
        y, x = 8 * (place // 4), 8 * (place % 4)
        values[y : y + 8, x : x + 8] = number
        values[y, x] = 0
    folder = tmp_path_factory.mktemp("maps")
    picture(folder / "images" / "a.png", values.shape)
    label_map(folder / "masks" / "a.png", values, np.uint16)
    objects = only_picture(open_dataset(folder)).objects
    back = np.zeros_like(values)
    for each in objects:
        back[mask_of(each)] = int(str(each.id).rpartition(":")[2])
    np.testing.assert_array_equal(back, values)
    assert len(objects) == len(numbers)


# What is left out, each in one line


def opened_without_second(folder: Path, *words: str) -> None:
    dataset = open_dataset(folder)
    one_problem(dataset, *words)
    assert only_picture(dataset).id == "images/a.png"
    assert len(only_picture(dataset).objects) == 2


def test_a_picture_without_a_mask_is_left_out(tmp_path: Path) -> None:
    picture(folder_of(tmp_path, a=VALUES) / "images" / "b.png")
    opened_without_second(tmp_path, "images/b.png", "no mask")


def test_a_mask_without_a_picture_is_said(tmp_path: Path) -> None:
    label_map(folder_of(tmp_path, a=VALUES) / "masks" / "b.png", VALUES)
    opened_without_second(tmp_path, "masks/b.png", "without a picture")


def test_two_pictures_or_masks_of_one_name_are_one(tmp_path: Path) -> None:
    picture(folder_of(tmp_path / "pictures", a=VALUES) / "images" / "a.tif")
    opened_without_second(tmp_path / "pictures", "images/a.tif", "images/a.png has its name")
    label_map(folder_of(tmp_path / "maps", a=VALUES) / "masks" / "a.tif", VALUES)
    opened_without_second(tmp_path / "maps", "masks/a.tif", "masks/a.png has its name")


@pytest.mark.parametrize("what", ["images", "masks"])
def test_files_that_cannot_be_read_are_left_out(tmp_path: Path, what: str) -> None:
    folder = folder_of(tmp_path, a=VALUES, b=VALUES)
    file = folder / what / "b.png"
    file.write_bytes(b"no picture")
    opened_without_second(folder, f"{what}/b.png: ", "not a picture")


def test_a_mask_that_is_cut_off_is_left_out(tmp_path: Path) -> None:
    file = folder_of(tmp_path, a=VALUES, b=VALUES) / "masks" / "b.png"
    file.write_bytes(file.read_bytes()[:-30])
    opened_without_second(tmp_path, "masks/b.png: ", "damaged")


NOISE = np.random.default_rng(0).integers(1, 255, (*SIZE, 3))


BAD_MAPS: dict[str, tuple[np.ndarray, Any, str]] = {
    "of another size": (VALUES.T, np.uint8, "6x8, the picture 8x6"),
    "of many colours": (NOISE, np.uint8, "48 colours"),
    "a photograph": (NOISE[..., 0], np.uint8, "greys, most of them in thin or scattered bits"),
    "inverted": (255 - np.where(VALUES, 255, 0), np.uint8, "seems to be the background"),
    "with fractions": (VALUES / 2, np.float32, "fractions"),
    "with NaN": (np.where(VALUES == 7, np.nan, VALUES), np.float32, "NaN"),
    "with negative numbers": (VALUES - 1, np.int32, "below 0"),
}


@pytest.mark.parametrize("what", BAD_MAPS)
def test_what_is_no_label_map_is_left_out(tmp_path: Path, what: str) -> None:
    values, dtype, word = BAD_MAPS[what]
    folder = folder_of(tmp_path, a=VALUES)
    picture(folder / "images" / "b.png")
    label_map(folder / "masks" / "b.tif", values, dtype)
    opened_without_second(folder, "masks/b.tif: ", word)


@pytest.mark.alone
def test_a_photograph_for_a_label_map_is_left_out_soon(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 60_000, (1000, 1000))
    folder = folder_of(tmp_path, a=VALUES)
    picture(folder / "images" / "b.png", noise.shape)
    label_map(folder / "masks" / "b.png", noise, np.uint16)
    started = time.perf_counter()
    opened_without_second(folder, "masks/b.png: ", "as of a photograph")
    assert time.perf_counter() - started < 10


def test_masks_of_one_value_in_many_parts_are_pointed_out(tmp_path: Path) -> None:
    white = (VALUES > 0) * 255
    dataset = open_dataset(folder_of(tmp_path, a=white, b=white, c=VALUES == 7, d=VALUES * 0))
    one_problem(dataset, "2 masks", "count as one")
    assert [len(p.objects) for p in dataset.pictures] == [1, 1, 1, 0]
    numbered = open_dataset(folder_of(tmp_path / "more", a=white, b=VALUES))
    assert numbered.problems == ()
    alone = open_dataset(folder_of(tmp_path / "alone", a=VALUES == 7))
    assert alone.problems == ()
    assert only_object(alone).bbox_xywh == (5, 1, 3, 3)


def test_maps_without_an_object_and_folders_without_maps_are_refused(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="empty has no object"):
        open_dataset(folder_of(tmp_path / "empty", a=VALUES * 0))
    picture(tmp_path / "none" / "images" / "a.png")
    (tmp_path / "none" / "masks").mkdir()
    with pytest.raises(ImageError, match="masks' has no picture files"):
        open_dataset(tmp_path / "none")


def test_the_label_map_of_a_real_stack_is_read(test_data_dir: Path) -> None:
    dataset = open_dataset(test_data_dir / "multidim")
    assert {p.id for p in dataset.pictures} <= {"images/zstack_nuclei.ome.tif"}
