"""YOLO: pictures, a text file of rows for each, and ``data.yaml`` with the names.

The rows are parsed here, not by ``supervision``, whose reader gives up the whole dataset at the
first bad row, holds all masks of all pictures as full-size arrays, and draws them by OpenCV's
rule, by which an outline's own pixels belong to it: each object would be larger than in COCO.
"""

from __future__ import annotations

import math
import os
from collections.abc import Iterator
from pathlib import Path, PurePath
from typing import Any
from unicodedata import normalize

from sam_detect.errors import ImageError, LibraryError, MaskError
from sam_detect.evaluation.dataset import (
    AnnotatedObject,
    Dataset,
    DatasetBuilder,
    Id,
    annotated_object,
    ids_by_name,
    relative,
)
from sam_detect.labels import normalised_label
from sam_detect.plain_yaml import PlainYAMLError, read_yaml
from sam_detect.polygons import coco_polygons, pycocotools_rle
from sam_detect.sources import find_images
from sam_detect.sources.annotations import match_pictures, read_text

SPLITS = ("train", "val", "test")

SETTINGS = ("data.yaml", "data.yml", "dataset.yaml")
NAMES = ("classes.txt", "obj.names", "labels/classes.txt")
"""Lists of the classes' names, a line each, as annotation tools write them."""
NO_LABELS = ("classes.txt", "labels.txt", "train.txt", "val.txt", "test.txt")
"""Other files of annotation tools in the folder of the label files."""
LARGEST = 4.0
"""Shares of the picture may lie beyond its edge; numbers of pixels are far above."""


def settings_file(given: Path) -> Path | None:
    """What says the classes of a YOLO folder, or of that file; None for other annotations."""
    if not given.is_dir():
        is_file = given.suffix.lower() in (".yaml", ".yml") or given.name in NAMES
        return given if is_file else None
    for root in (given, given.parent) if given.name == "labels" else (given,):
        if found := next(filter(Path.exists, (root / name for name in SETTINGS)), None):
            return found
        named = next(filter(Path.exists, (root / name for name in NAMES)), None)
        # Label maps and LabelMe's files have lists of names, too.
        if named is not None and not (root / "masks").is_dir() and any(
            each.name not in NO_LABELS for each in root.rglob("*.txt")
        ):  # fmt: skip
            return named
    return None


def read(file: Path, *, max_pixels: int) -> Dataset:
    """Reads the pictures of all splits, as ultralytics lays them out (``labels`` for ``images``
    in each path); the split is a field of each picture.

    A row is ``class x y w h`` or ``class`` and the ``x y`` of three or more points, in shares of
    the picture; a confidence and the number of a track may follow. An object's id is its label file
    and line. A picture without a label file holds no object. Nothing outside the folder of ``file``
    is read, wherever its paths lead.
    """
    settings = _settings(file)
    root = file.parent.parent if file.parent.name == "labels" else file.parent
    builder = DatasetBuilder(root.resolve().name, max_pixels=max_pixels)
    names = _names(settings, file, builder)
    used: set[Id] = set()
    missing = 0
    labels: dict[Path, str] = {}
    written = {normalize("NFC", str(each)): each for each in root.rglob("*.txt")}
    for path, split in _pictures(root, settings, builder).items():
        what = relative(path, root)
        label_file = _label_file(Path(path), root)
        label_file = written.get(normalize("NFC", str(label_file)), label_file)
        if labels.setdefault(label_file, what) != what:
            builder.note(what, f"its label file is that of {labels[label_file]}")
            continue
        size_hw = builder.size_of(path, what)
        if size_hw is None:
            continue
        found: list[tuple[Id, AnnotatedObject]] = []
        if label_file.exists():
            found += _objects(label_file, root, size_hw, names, builder)
        else:
            missing += 1
        used |= {number for number, _ in found}
        builder.add(what, path, size_hw, [each for _, each in found], {"split": split})
    if missing:
        builder.note(f"pictures without a label file, {missing} in all", "taken to hold no object")
    _note_strays(labels, root, builder)
    return builder.dataset(ids_by_name(builder, names, used))


def _settings(file: Path) -> dict[str, Any]:
    if file.suffix.lower() not in (".yaml", ".yml"):
        lines = read_text(file, "a list of names").strip().splitlines()
        return {"names": [line.strip() for line in lines]}
    try:
        settings = read_yaml(read_text(file, "a YAML file"))
    except PlainYAMLError as error:
        raise ImageError(f"{file} cannot be read as plain YAML: {error}") from error
    if not isinstance(settings, dict):
        raise ImageError(f"{file} is not a YOLO dataset: it needs 'names', and 'train' or 'val'")
    if "kpt_shape" in settings:
        raise ImageError(f"{file} is a dataset of poses: give one of outlines or boxes")
    return settings


def _names(settings: dict[str, Any], file: Path, builder: DatasetBuilder) -> dict[Id, str]:
    """Class number to name as a label; notes what is none."""
    names = settings.get("names")
    rows = dict(enumerate(names)) if isinstance(names, list) else names
    found: dict[Id, str] = {}
    for key, name in rows.items() if isinstance(rows, dict) else ():
        try:
            number = int(key)
            if abs(number) > 10**18:
                raise OverflowError
            found[number] = normalised_label(_plain(name))
        except LibraryError as error:
            builder.note(f"class {number}", error)
        except (TypeError, ValueError, OverflowError):
            builder.note("a class in 'names'", "its number is not a whole number")
    if not found:
        raise ImageError(f"{file} is not a YOLO dataset: 'names' lists its classes by number")
    return found


def _plain(name: Any) -> str:
    """The text of a plain value: a few bytes of YAML can nest lists that take gigabytes to print.

    Raises:
        LibraryError: it is something else, or a number of thousands of digits.
    """
    if isinstance(name, (str, float)) or (isinstance(name, int) and abs(name) < 10**18):
        return str(name)
    raise LibraryError("its name is not a text")


def _pictures(root: Path, settings: dict[str, Any], builder: DatasetBuilder) -> dict[str, str]:
    """Paths of pictures to the first split that has them."""
    found: dict[str, str] = {}
    for split in SPLITS:
        given = settings.get(split)
        for value in given if isinstance(given, list) else [given]:
            if value is None:
                continue
            for path in _pictures_of(root, settings.get("path"), value, split, builder):
                if found.setdefault(path, split) != split:
                    builder.note(f"{split}: {relative(path, root)}", f"it is in {found[path]}, too")
    if not found:
        folder = root / "images"
        found = dict.fromkeys(find_images(folder if folder.is_dir() else root), "")
    if not found:
        first = f" ({builder.problems[0]})" if builder.problems else ""
        raise ImageError(f"the dataset {root} has no pictures{first}")
    return found


def _pictures_of(
    root: Path, base: Any, value: Any, split: str, builder: DatasetBuilder
) -> list[str]:
    """The pictures in a folder, or those that a text file lists."""
    what = f"{split}: {value}" if isinstance(value, str) else split
    place = _inside(root, base, value)
    if place is None:
        builder.note(what, f"no such folder in {root}")
        return []
    try:
        if place.is_dir():
            return find_images(place)
        names = [line.strip() for line in read_text(place, "a list of pictures").splitlines()]
        names = [name for name in names if name]
        paths = match_pictures(names, find_images(root))
    except ImageError as error:
        builder.note(what, error)
        return []
    for name, path in zip(names, paths, strict=True):
        if path is None:
            builder.note(f"{split}: {name}", f"no such picture in {root}")
    return [str(Path(path)) for path in paths if path is not None]


def _inside(root: Path, base: Any, value: Any) -> Path | None:
    """Where a path of ``data.yaml`` leads; never out of ``root``.

    The paths may be of another machine, and some exporters write ``../train`` for ``train``.
    """
    if not isinstance(value, str):
        return None
    value = value.replace("\\", "/")
    top = os.path.abspath(root)
    bases = [base] if isinstance(base, str) else []
    wanted = [*(os.path.join(each, value) for each in bases), value, value.removeprefix("../")]
    for each in wanted:
        place = os.path.abspath(os.path.join(top, each))
        if Path(place).is_relative_to(top) and os.path.exists(place):
            return root / os.path.relpath(place, top)
    return None


def _label_file(picture: Path, root: Path) -> Path:
    """``labels`` for the last ``images`` among the folders, and ``.txt`` for the ending."""
    folders = [*PurePath(os.path.relpath(picture.parent, root)).parts]
    if "images" in folders:
        folders[len(folders) - 1 - folders[::-1].index("images")] = "labels"
    return root.joinpath(*folders, f"{picture.stem}.txt")


def _note_strays(labels: dict[Path, str], root: Path, builder: DatasetBuilder) -> None:
    """Notes label files without a picture."""
    for folder in dict.fromkeys(file.parent for file in labels):
        for file in sorted(folder.glob("*.txt")):
            if file not in labels and file.name not in NO_LABELS:
                builder.note(relative(file, root), "a label file without a picture")


def _objects(
    file: Path,
    root: Path,
    size_hw: tuple[int, int],
    names: dict[Id, str],
    builder: DatasetBuilder,
) -> Iterator[tuple[Id, AnnotatedObject]]:
    """The objects of a label file with their classes; what cannot be used is noted."""
    shown = relative(file, root)
    try:
        rows = read_text(file, "a label file").splitlines()
    except ImageError as error:
        builder.note(shown, error)
        return
    lines: dict[str, int] = {}
    for line, row in enumerate(rows, start=1):
        if not row.strip():
            continue
        try:
            if lines.setdefault(row, line) != line:
                raise MaskError(f"it is the same as line {lines[row]}")
            yield _object(row, f"{shown}:{line}", size_hw, names)
        except MaskError as error:
            builder.note(f"annotation {shown}:{line}", error)


def _object(
    row: str, name: str, size_hw: tuple[int, int], names: dict[Id, str]
) -> tuple[Id, AnnotatedObject]:
    number, values = _numbers(row)
    if number not in names:
        raise MaskError(f"its class {number:g} is not among the names of the classes")
    height, width = size_hw
    scaled = [value * (height if i % 2 else width) for i, value in enumerate(values)]
    box = rle = None
    if len(scaled) == 4:
        x, y, w, h = scaled
        box = (x - w / 2, y - h / 2, w, h)
    else:
        rle = pycocotools_rle(coco_polygons([scaled]), size_hw)
    label = names[int(number)]
    found = annotated_object(id=name, label=label, size_hw=size_hw, mask_rle=rle, bbox_xywh=box)
    return int(number), found


def _numbers(row: str) -> tuple[float, list[float]]:
    """Class number and coordinates of a row, without the confidence and the number of a track that
    programs write behind what they found."""
    try:
        number, *values = (float(value) for value in row.split())
    except ValueError as error:
        raise MaskError("it is not a row of numbers") from error
    if not all(map(math.isfinite, (number, *values))):
        raise MaskError("it has a number that is not finite")
    whole = [text.isdecimal() for text in row.split()[1:]]
    tracked = len(values) > 5 and len(values) % 2 == 0 and whole[-1] and 0 <= values[-2] <= 1
    if tracked and (values[-1] > 1 or not any(whole[:-1])):
        del values[-2:]
    elif len(values) > 4 and len(values) % 2 and 0 <= values[-1] <= 1:
        del values[-1]
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise MaskError("a row is 'class x y w h', or 'class' and the x y of 3 or more points")
    if max(map(abs, values)) > LARGEST:
        raise MaskError("its numbers are no shares of the picture, from 0 to 1, "
                        f"got {max(values, key=abs):g}")  # fmt: skip
    return number, values
