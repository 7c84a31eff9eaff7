"""Small annotated pictures that the tests of the readers write themselves."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from sam_detect.evaluation.dataset import AnnotatedObject, AnnotatedPicture, Dataset
from sam_detect.types.masks import rle_to_mask

SIZE = (6, 8)
"""Height and width of every picture that is not said to have another size."""

SQUARE = [2, 1, 6, 1, 6, 4, 2, 4]
SQUARE_RUNS = [13, 3, 3, 3, 3, 3, 3, 3, 14]
"""The same square, column by column: columns 2 to 5, rows 1 to 3."""


def square_mask() -> npt.NDArray[np.bool_]:
    mask = np.zeros(SIZE, np.bool_)
    mask[1:4, 2:6] = True
    return mask


def picture(path: Path, size_hw: tuple[int, int] = SIZE, **save: Any) -> Path:
    """Writes a picture that can be read."""
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.new("RGB", size_hw[::-1], (90, 120, 60)).save(path, **save)
    return path


def label_map(path: Path, values: npt.ArrayLike, dtype: Any = np.uint8) -> Path:
    """Writes values as a PNG, or as a TIFF by the path's ending."""
    import tifffile

    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.asarray(values, dtype)
    if path.suffix == ".png":
        Image.fromarray(array).save(path)
    else:
        tifffile.imwrite(path, array)
    return path


def coco(**changes: Any) -> dict[str, Any]:
    """A file of one nut in one picture; ``annotation`` and ``image`` change those rows, and
    ``more`` adds annotations that differ from the first by what they say. ``...`` takes out."""
    annotation = {
        "id": 1, "image_id": 1, "category_id": 7, "bbox": [2, 1, 4, 3], "segmentation": [SQUARE],
        "iscrowd": 0, "area": 12,
    }  # fmt: skip
    image = {"id": 1, "file_name": "a.png", "width": 8, "height": 6}
    annotation |= changes.pop("annotation", {})
    more = [annotation | {"id": 2 + i} | row for i, row in enumerate(changes.pop("more", []))]
    rows = [annotation, *more]
    return {
        "images": [_without_dots(image | changes.pop("image", {}))],
        "annotations": [_without_dots(row) for row in rows],
        "categories": [{"id": 7, "name": "nut"}],
    } | changes


def coco_folder(folder: Path, data: Any, names: tuple[str, ...] = ("a.png",)) -> Path:
    """Writes ``annotations.json`` (data or text) and pictures in ``images/``; gives the folder."""
    for name in names:
        picture(folder / "images" / name)
    text = data if isinstance(data, str) else json.dumps(data)
    (folder / "annotations.json").write_text(text, encoding="utf-8")
    return folder


def yolo_folder(folder: Path, labels: str | None, **settings: Any) -> Path:
    """Writes one picture, its label file and ``data.yaml``; gives the folder."""
    picture(folder / "images" / "train" / "a.png")
    if labels is not None:
        write(folder / "labels" / "train" / "a.txt", labels)
    settings = {"names": ["nut", "date"], "train": "images/train"} | settings
    return write(folder / "data.yaml", json.dumps(_without_dots(settings))).parent


def write(path: Path, text: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")
    return path


def only_picture(dataset: Dataset) -> AnnotatedPicture:
    assert len(dataset.pictures) == 1
    return dataset.pictures[0]


def only_object(dataset: Dataset) -> AnnotatedObject:
    objects = only_picture(dataset).objects
    assert len(objects) == 1
    return objects[0]


def mask_of(each: AnnotatedObject) -> npt.NDArray[np.bool_]:
    assert each.mask_rle is not None
    return rle_to_mask(each.mask_rle)


def one_problem(dataset: Dataset, *words: str) -> None:
    """Asserts that there is one problem, in one line, with these words."""
    assert len(dataset.problems) == 1, dataset.problems
    assert "\n" not in dataset.problems[0]
    assert not [word for word in words if word not in dataset.problems[0]], dataset.problems


def _without_dots(row: dict[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in row.items() if value is not ...}
