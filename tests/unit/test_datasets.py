"""COCO datasets: what is read of every kind of annotation, and of the real ones."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from dataset_files import (
    SIZE,
    SQUARE,
    SQUARE_RUNS,
    coco,
    coco_folder,
    mask_of,
    only_object,
    only_picture,
    picture,
    square_mask,
    write,
)
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from strategies import QUICK, masks_hw

from sam_detect.errors import ImageError
from sam_detect.evaluation.readers import open_dataset
from sam_detect.types import Masks
from sam_detect.types.masks import compress_rle, tight_box_xyxy

# What is read

SEGMENTATIONS: dict[str, Any] = {
    "a polygon": [SQUARE],
    "two polygons": [[2, 1, 4, 1, 4, 4, 2, 4], [4, 1, 6, 1, 6, 4, 4, 4]],
    "a compressed RLE": dict(compress_rle(SQUARE_RUNS, SIZE)),
    "a plain RLE": {"size": list(SIZE), "counts": SQUARE_RUNS},
    "a plain RLE with empty runs": {"size": list(SIZE), "counts": [0, 0, *SQUARE_RUNS]},
}


@pytest.mark.parametrize("kind", SEGMENTATIONS)
def test_every_kind_of_outline_gives_its_mask(tmp_path: Path, kind: str) -> None:
    data = coco(annotation={"segmentation": SEGMENTATIONS[kind], "bbox": ...})
    dataset = open_dataset(coco_folder(tmp_path / "nuts", data))
    assert (dataset.name, dataset.categories, dataset.problems) == ("nuts", {"nut": 7}, ())
    assert not dataset.boxes_only
    found = only_object(dataset)
    assert (found.id, found.label, found.crowd) == (1, "nut", False)
    assert found.bbox_xywh == (2, 1, 4, 3)
    np.testing.assert_array_equal(mask_of(found), square_mask())


@pytest.mark.parametrize("segmentation", [..., None, [], {}], ids=repr)
def test_an_object_without_an_outline_is_a_box(tmp_path: Path, segmentation: Any) -> None:
    data = coco(annotation={"segmentation": segmentation, "bbox": [2.5, 1, 4, 3]})
    dataset = open_dataset(coco_folder(tmp_path, data))
    assert dataset.boxes_only
    assert only_object(dataset).mask_rle is None
    assert only_object(dataset).bbox_xywh == (2.5, 1, 4, 3)
    assert dataset.problems == ()


def test_a_picture_has_what_the_file_says_of_it(tmp_path: Path) -> None:
    data = coco(image={"modality": "stained", "patient": 3})
    found = only_picture(open_dataset(coco_folder(tmp_path, data)))
    assert found.fields == {"modality": "stained", "patient": 3}
    assert (found.id, found.size_hw) == (1, SIZE)
    assert found.path == tmp_path / "images" / "a.png"


def test_crowds_are_kept_as_crowds(tmp_path: Path) -> None:
    crowds = [
        {"iscrowd": 1, "segmentation": {"size": list(SIZE), "counts": [0, 48]}},
        {"iscrowd": 1, "segmentation": ...},
    ]
    dataset = open_dataset(coco_folder(tmp_path, coco(more=crowds)))
    one, crowd, boxed = only_picture(dataset).objects
    assert (one.crowd, crowd.crowd, boxed.crowd) == (False, True, True)
    assert mask_of(crowd).all()
    assert boxed.mask_rle is None
    assert not dataset.boxes_only
    assert dataset.problems == ()


def test_pictures_come_in_the_files_order_and_those_without_objects_too(tmp_path: Path) -> None:
    names = ("b.png", "sub/c.png", "a.png")
    images = [{"id": name, "file_name": name} for name in names]
    data = coco(images=images, annotation={"image_id": "a.png"})
    dataset = open_dataset(coco_folder(tmp_path, data, names))
    assert [p.id for p in dataset.pictures] == [*names]
    assert [len(p.objects) for p in dataset.pictures] == [0, 0, 1]


@pytest.mark.parametrize("given", [True, False])
def test_pictures_are_beside_the_file_or_where_they_are_said_to_be(
    tmp_path: Path, given: bool
) -> None:
    folder = tmp_path / "elsewhere" if given else tmp_path
    picture(folder / "a.png")
    file = write(tmp_path / "nuts.json", json.dumps(coco()))
    dataset = open_dataset(str(file), images=str(folder) if given else None)
    assert only_picture(dataset).path == folder / "a.png"
    assert dataset.name == "nuts"


def test_a_turned_picture_has_its_size_as_it_is_seen(tmp_path: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    folder = coco_folder(tmp_path, coco())
    picture(folder / "images" / "a.png", SIZE[::-1], exif=exif)
    assert only_picture(open_dataset(folder)).size_hw == SIZE
    picture(folder / "images" / "a.png", SIZE, exif=exif)  # the size before it is turned
    assert only_picture(open_dataset(folder)).size_hw == SIZE[::-1]
    beyond = coco(annotation={"segmentation": [[5, 1, 8, 1, 8, 4, 5, 4]]})
    write(folder / "annotations.json", json.dumps(beyond))
    with pytest.raises(ImageError, match=r"reach 8,4, .* is 6x8 once its EXIF .* as it is stored"):
        open_dataset(folder)
    picture(folder / "images" / "a.png", SIZE[::-1])
    with pytest.raises(ImageError, match=r"made on 8x6 pixels, and the picture has 6x8"):
        open_dataset(folder)


def test_a_file_with_a_byte_order_mark_is_read(tmp_path: Path) -> None:
    folder = coco_folder(tmp_path, "\ufeff" + json.dumps(coco()))
    assert only_object(open_dataset(folder)).id == 1


@QUICK
@given(mask=masks_hw(some_pixel=True), plain=st.booleans())
def test_a_random_mask_comes_back(
    tmp_path_factory: pytest.TempPathFactory, mask: np.ndarray, plain: bool
) -> None:
    folder = tmp_path_factory.mktemp("coco")
    height, width = mask.shape
    if plain:
        changes = np.flatnonzero(np.diff(np.concatenate([[0], mask.T.ravel()])))
        ends = [0, *changes, mask.size]
        rle: Any = {"size": [height, width], "counts": np.diff(ends).tolist()}
    else:
        rle = Masks.from_dense(mask).rle(0)
    data = coco(
        annotation={"segmentation": rle, "bbox": ...}, image={"width": width, "height": height}
    )
    coco_folder(folder, data, ())
    picture(folder / "images" / "a.png", mask.shape)
    found = only_object(open_dataset(folder))
    np.testing.assert_array_equal(mask_of(found), mask)
    x0, y0, x1, y1 = tight_box_xyxy(mask) or (0, 0, 0, 0)
    assert found.bbox_xywh == (x0, y0, x1 - x0, y1 - y0)


@QUICK
@given(
    polygon=st.lists(st.tuples(st.floats(-4, 12), st.floats(-4, 10)), min_size=3, max_size=6),
)
def test_a_random_polygon_is_drawn_as_pycocotools_does(
    tmp_path_factory: pytest.TempPathFactory, polygon: list[tuple[float, float]]
) -> None:
    from pycocotools import mask as tool

    flat = [float(v) for point in polygon for v in point]
    drawn = tool.decode(tool.frPyObjects([flat], *SIZE))[..., 0].astype(bool)
    folder = tmp_path_factory.mktemp("coco")
    coco_folder(folder, coco(more=[{"segmentation": [flat], "bbox": ...}]))
    dataset = open_dataset(folder)
    _, *found = only_picture(dataset).objects
    assert len(found) == drawn.any()
    assert len(dataset.problems) == (not drawn.any())
    for each in found:
        np.testing.assert_array_equal(mask_of(each), drawn)
        x0, y0, x1, y1 = tight_box_xyxy(drawn) or (0, 0, 0, 0)
        assert each.bbox_xywh == (x0, y0, x1 - x0, y1 - y0)


# Real data


@pytest.mark.alone
@pytest.mark.parametrize(
    "name",
    [
        "bccd_blood", "davis_blackswan", "davis_car-shadow", "dsb2018_nuclei", "em_neurites",
        "food_plates", "glas_glands", "microcontrollers", "nuts_dates",
    ],
)  # fmt: skip
def test_a_real_dataset_is_read_whole_and_soon(test_data_dir: Path, name: str) -> None:
    from pycocotools.coco import COCO

    started = time.perf_counter()
    dataset = open_dataset(test_data_dir / name)
    assert time.perf_counter() - started < 2
    assert dataset.problems == ()
    reference = COCO(str(test_data_dir / name / "annotations.json"))
    objects = [o for p in dataset.pictures for o in p.objects]
    assert len(dataset.pictures) == len(reference.imgs)
    assert {o.id for o in objects} == reference.anns.keys()
    assert len(objects) == len(reference.anns)
    assert dataset.boxes_only == (name in ("bccd_blood", "microcontrollers"))
    source = (test_data_dir / name / "SOURCE.md").read_text()
    for images, instances in re.findall(r"(\d+) images, (\d+) instances", source):
        assert (len(dataset.pictures), len(objects)) == (int(images), int(instances))
    for each in objects:
        annotation = reference.anns[each.id]
        assert dataset.categories[each.label] == annotation["category_id"]
        if each.mask_rle is None:
            assert [*each.bbox_xywh] == annotation["bbox"]
        else:
            assert each.mask_rle["counts"] == reference.annToRLE(annotation)["counts"].decode()
    for each in [o for o in objects if o.mask_rle is not None][::10]:
        np.testing.assert_array_equal(
            mask_of(each), reference.annToMask(reference.anns[each.id]).astype(bool)
        )


def test_a_group_of_real_pictures_is_told_by_its_field(test_data_dir: Path) -> None:
    dataset = open_dataset(test_data_dir / "dsb2018_nuclei")
    assert len({p.fields["modality"] for p in dataset.pictures}) > 1
