"""YOLO: pictures, a text file of rows for each, and ``data.yaml`` with the names.

The rows are parsed here, not by ``supervision``, whose reader gives up the whole dataset at the
first bad row, holds all masks of all pictures as full-size arrays, and draws them by OpenCV's
rule, by which an outline's own pixels belong to it: each object would be larger than in COCO.
"""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterable, Iterator
from contextlib import suppress
from pathlib import Path, PurePath
from typing import Any, NamedTuple
from unicodedata import normalize

import numpy as np

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
from sam_detect.io import find_images
from sam_detect.io.coco import match_pictures, read_text
from sam_detect.plain_yaml import PlainYAMLError, read_yaml
from sam_detect.types.labels import normalised_label
from sam_detect.types.polygons import (
    box_around,
    coco_polygons,
    is_rectangle,
    pycocotools_rle,
    require_mostly_inside,
)

SPLITS = ("train", "val", "test")

SETTINGS = ("data.yaml", "data.yml", "dataset.yaml")
NAMES = ("classes.txt", "obj.names", "labels/classes.txt")
"""Lists of the classes' names, a line each, as annotation tools write them."""
NO_LABELS = ("classes.txt", "labels.txt", "train.txt", "val.txt", "test.txt")
"""Other files of annotation tools in the folder of the label files."""
TRACKED = re.compile(r"\s*\S+(?:\s+\S+\s+\S+){2,}\s+(?:[01]|1\.0*|0?\.\d+)(?:[eE]-\d+)?\s+\d+\s*")
"""A row in which a confidence and the number of a track may follow the coordinates."""
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
    the picture; a confidence and the number of a track may follow. Where all rows are four corners
    of rectangles, these are turned boxes (OBB). An object's id is its label file and line. A
    picture without a label file holds no object. Nothing outside the folder of ``file`` is read,
    wherever its paths lead.
    """
    settings = _settings(file)
    root = file.parent.parent if file.parent.name == "labels" else file.parent
    builder = DatasetBuilder(root.resolve().name, max_pixels=max_pixels)
    names = _names(settings, file, builder)
    used: set[Id] = set()
    missing = 0
    labels: dict[Path, str] = {}
    files: list[tuple[str, str, str, Path, tuple[int, int]]] = []
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
        files.append((path, split, what, label_file, size_hw))
    form = _form((label_file, size_hw) for *_, label_file, size_hw in files)
    if form.corners:
        builder.note("rows of four corners", "they are rectangles, and taken as turned boxes")
    for path, split, what, label_file, size_hw in files:
        found: list[tuple[Id, AnnotatedObject]] = []
        if label_file.exists():
            found += _objects(label_file, root, size_hw, names, form, builder)
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
    if place is None or (place.is_dir() and not any(place.iterdir())):
        empty = "no such folder in" if place is None else "nothing is in this folder of"
        builder.note(what, f"{empty} {root}: passed over")
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


class _Form(NamedTuple):
    """What the rows of a dataset together say of each.

    Some are ``polygons``; ``tracks`` follow, of which a number above 1 is no coordinate; all are
    the ``corners`` of rectangles, but for those that are cut off at the picture's edge.
    """

    polygons: bool = False
    tracks: bool = False
    corners: bool = False


def _form(files: Iterable[tuple[Path, tuple[int, int]]]) -> _Form:
    polygons = tracks = corners = others = False
    for file, size_hw in files:
        rows: list[str] = []
        with suppress(ImageError):  # it is named when it is read for its objects
            rows = [row for row in read_text(file, "").splitlines() if row.strip()]
        polygons |= any(len(row.split()) > 7 for row in rows)
        tracked = bool(rows) and not tracks and all(map(TRACKED.fullmatch, rows))
        tracks |= tracked and any(float(row.split()[-1]) > 1 for row in rows)
        for row in () if others else rows:
            with suppress(ValueError):  # said of the row
                ring = np.array(row.split()[1:], np.float64)
                cut = ring.size == 8 and not (abs(ring - 0.5) < 0.5).all()
                near = ring.size == 8 and bool((abs(ring) <= LARGEST).all())
                square = near and is_rectangle(ring.reshape(4, 2) * size_hw[::-1])
                corners, others = corners or square, others or not (square or cut)
    return _Form(polygons, tracks, corners and not others)


def _objects(  # noqa: PLR0917 - all that a row means
    file: Path,
    root: Path,
    size_hw: tuple[int, int],
    names: dict[Id, str],
    form: _Form,
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
            yield _object(row, f"{shown}:{line}", size_hw, names, form)
        except MaskError as error:
            builder.note(f"annotation {shown}:{line}", error)


def _object(
    row: str, name: str, size_hw: tuple[int, int], names: dict[Id, str], form: _Form
) -> tuple[Id, AnnotatedObject]:
    number, values = _numbers(row, form)
    if number not in names:
        raise MaskError(f"its class {number:g} is not among the names of the classes")
    height, width = size_hw
    scaled = [value * (height if i % 2 else width) for i, value in enumerate(values)]
    box, rle, corners = None, None, tuple[float, ...]()
    if form.corners:
        ring = np.reshape(scaled, (-1, 2))
        box, corners = box_around(ring), tuple(scaled) if is_rectangle(ring) else ()
    elif len(scaled) == 4:
        x, y, w, h = scaled
        box = (x - w / 2, y - h / 2, w, h)
    else:
        polygons = coco_polygons([scaled])
        rle = pycocotools_rle(polygons, size_hw)
        require_mostly_inside(polygons, size_hw)
    label = names[int(number)]
    found = annotated_object(
        id=name, label=label, size_hw=size_hw, mask_rle=rle, bbox_xywh=box, corners_xy=corners
    )
    return int(number), found


def _numbers(row: str, form: _Form) -> tuple[float, list[float]]:
    """Class number and coordinates of a row, without the confidence and the number of a track that
    programs write behind what they found."""
    try:
        number, *values = (float(value) for value in row.split())
    except ValueError as error:
        raise MaskError("it is not a row of numbers") from error
    if not all(map(math.isfinite, (number, *values))):
        raise MaskError("it has a number that is not finite")
    # A triangle is no box of the picture, but for what is lost by rounding.
    places = zip(values[:2], values[2:4], strict=False)
    inside = all(abs(middle - 0.5) + side / 2 < 0.501 for middle, side in places)
    boxed = len(values) == 6 and not form.polygons and inside
    if TRACKED.fullmatch(row) and (form.tracks or boxed):
        del values[-2:]
    elif len(values) > 4 and len(values) % 2 and 0 <= values[-1] <= 1:
        del values[-1]
    if len(values) != 4 and (len(values) < 6 or len(values) % 2):
        raise MaskError("a row is 'class x y w h', or 'class' and the x y of 3 or more points")
    if max(map(abs, values)) > LARGEST:
        raise MaskError("its numbers are no shares of the picture, from 0 to 1, "
                        f"got {max(values, key=abs):g}")  # fmt: skip
    return number, values
