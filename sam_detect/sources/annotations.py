"""Objects from COCO files of others."""

from __future__ import annotations

import json
import math
import stat
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from sam_detect.errors import ImageError, LibraryError, MaskError
from sam_detect.labels import normalised_label, shown_label
from sam_detect.polygons import coco_polygons
from sam_detect.types import AnnotatedImage, Annotation

MAX_ANNOTATION_BYTES = 1 << 30
MAX_DIGITS = 400
"""Longer whole numbers are beyond every float, and may be beyond what Python converts."""
MAX_SHOWN = 60
VISIBLE = 2
"""COCO's ``v`` of a keypoint that is marked and visible; 1 is marked but hidden, 0 not marked."""

Id = int | str


@dataclass(frozen=True)
class CocoFile:
    """What a COCO file says, of which every object has a picture and a category that are in it.

    Attributes:
        categories: id to name as a label, in the file's order.
        images: the rows of ``images``, each with ``id`` and ``file_name``, in the file's order.
        outlines: the objects by the id of their picture, in the file's order.
        problems: a line for each row left out.
    """

    categories: dict[Id, str]
    images: tuple[dict[str, Any], ...]
    outlines: dict[Id, list[Annotation]]
    problems: tuple[str, ...]


def read_coco(
    file: str | Path, images: Sequence[str], *, tag: str | None = None, data: Any = None
) -> tuple[list[AnnotatedImage], list[str]]:
    """Pairs a COCO file's annotations with pictures; leaves out crowds.

    Args:
        file: the COCO JSON file.
        images: paths of the pictures at hand; matched by the end of their path, then by name.
        tag: only annotations of this category.
        data: what the file says, where it is known already.

    Returns:
        The annotated pictures in the file's order, and a line for each thing left out.

    Raises:
        ImageError: the file cannot be read, is not COCO, or no picture of it is at hand.
    """
    coco = load_coco(file, tag=tag, data=data)
    paths = match_pictures((str(image["file_name"]) for image in coco.images), images)
    found, missing = [], []
    for image, path in zip(coco.images, paths, strict=True):
        outlines = tuple(o for o in coco.outlines.get(image["id"], ()) if not o.crowd)
        if path is not None and outlines:
            found.append(AnnotatedImage(path, str(image["file_name"]), outlines))
        elif outlines:
            missing.append(why_unmatched(str(image["file_name"]), images))
    if not found:
        raise nothing_usable(file, missing, coco.problems)
    return found, [*coco.problems, *missing]


def load_coco(file: str | Path, *, tag: str | None = None, data: Any = None) -> CocoFile:
    """Reads a COCO file. Run lengths are checked by :meth:`Annotation.crop`.

    A row that cannot be used is left out with a line that says why; the others are read.

    Args:
        file: the COCO JSON file.
        tag: only annotations of this category.
        data: what the file says, where it is known already.

    Raises:
        ImageError: the file cannot be read, is not COCO, or has no category ``tag``.
    """
    data = _coco_tables(Path(file), data)
    problems: list[str] = []
    categories = _categories(data["categories"], file, problems)
    wanted = None if tag is None else shown_label(tag)
    if wanted is not None and wanted not in categories.values():
        known = ", ".join(sorted(set(categories.values())))
        raise ImageError(f"{file} has no category '{tag}' (it has: {known})")
    images = tuple(_usable_rows(data["images"], ("id", "file_name"), "image", file, problems))
    image_ids = {image["id"] for image in images}
    outlines: dict[Id, list[Annotation]] = defaultdict(list)
    for number, annotation in enumerate(data["annotations"], start=1):
        try:
            found = _outline(annotation, categories, image_ids, file)
        except MaskError as error:
            problems.append(f"{_row_name(annotation, 'annotation', number)}: {error}")
            continue
        if wanted in (None, found.label):
            outlines[annotation["image_id"]].append(found)
    return CocoFile(categories, images, dict(outlines), tuple(problems))


def match_pictures(wanted: Iterable[str], images: Iterable[str]) -> list[str | None]:
    """For each annotated name the picture that it means, among those at hand, or None.

    That is the picture whose path ends like the name, else the only one of that file name. No
    file is opened or looked for by an annotated name itself, so that it cannot lead elsewhere.
    """
    by_name: dict[str, list[str]] = defaultdict(list)
    for given in images:
        by_name[Path(given).name].append(given)
    names = [Path(name) for name in wanted]
    return [_match(name, by_name.get(name.name, [])) for name in names]


def why_unmatched(name: str, images: Iterable[str]) -> str:
    """A line that says why an annotated name means none of the pictures at hand."""
    same = [given for given in images if Path(given).name == Path(name).name]
    if len(same) < 2:
        return f"{name}: annotated, but not among the pictures"
    listed = f"{same[0]}, {same[1]}" + (", ..." if len(same) > 2 else "")
    return (
        f"{name}: annotated, but several pictures have this name ({listed}): "
        "name the folder as well, or give one of them"
    )


def nothing_usable(file: str | Path, missing: Sequence[str], problems: Sequence[str]) -> ImageError:
    """The error of a file without an annotation of the pictures at hand.

    Args:
        file: of annotations.
        missing: a line for each annotated name that means no picture.
        problems: a line for each annotation left out.
    """
    if missing:
        return ImageError(
            f"none of the annotated pictures of {file} is among those given: {missing[0]}"
        )
    first = f" (problems: {len(problems)}; {problems[0]})" if problems else ""
    return ImageError(f"{file} has no annotation that can be used{first}")


def read_text(path: Path, kind: str) -> str:
    """A text file of annotations; ``kind`` says in errors what it should be. Raises ``ImageError``
    where it cannot be read, is too large, or is no UTF-8 text."""
    try:
        return read_bytes(path).decode("utf-8-sig")
    except ValueError as error:
        raise ImageError(f"{path} is not {kind}: {error}") from error


def read_bytes(path: Path) -> bytes:
    """A file of annotations. Raises ``ImageError`` where it cannot be read, or is too large."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe or device may never end
            raise ImageError(f"the annotations {path} cannot be read: this is not a file")
        if found.st_size > MAX_ANNOTATION_BYTES:
            raise ImageError(f"{path} is larger than {MAX_ANNOTATION_BYTES >> 20} MiB: split it")
        return path.read_bytes()
    except OSError as error:
        raise ImageError(f"the annotations {path} cannot be read: {error.strerror}") from error


def read_json(data: bytes, path: Path) -> Any:
    """The JSON of a file's content; a list of them for JSON Lines. Raises ``ImageError``."""
    try:
        text = data.decode("utf-8-sig")
        try:
            return json.loads(text)
        except json.JSONDecodeError as error:
            lines = [line for line in text.splitlines() if line.strip()]
            if error.msg != "Extra data" or not lines[0].rstrip().endswith("}"):
                raise
            return [json.loads(line) for line in lines]
        except ValueError:  # a number of thousands of digits: no usable one, which its row says
            return json.loads(
                text, parse_int=lambda digits: int(digits) if len(digits) < MAX_DIGITS else math.inf
            )
    except (ValueError, RecursionError) as error:
        raise ImageError(f"{path} is not a JSON file: {error}") from error


def is_id(value: Any) -> bool:
    """Whether a file's value can be an id or a name: a whole number or a text."""
    return isinstance(value, (int, str)) and not isinstance(value, bool)


def _coco_tables(path: Path, data: Any) -> dict[str, Any]:
    """The file's object; its ``images``, ``annotations`` and ``categories`` are lists."""
    data = read_json(read_bytes(path), path) if data is None else data
    for key in ("images", "annotations", "categories"):
        if not isinstance(data, dict) or not isinstance(data.get(key), list):
            raise ImageError(f"{path} is not a COCO file: it needs a list '{key}' of objects")
    return dict(data)


def _usable_rows(
    rows: list[Any], needed: tuple[str, str], what: str, file: str | Path, problems: list[str]
) -> Iterator[dict[str, Any]]:
    """The rows that have what they need; a line for each other one. Raises ``ImageError`` where
    two rows have the same id, so that it is ambiguous."""
    ids: set[Id] = set()
    for number, row in enumerate(rows, start=1):
        lacking = [key for key in needed if not isinstance(row, dict) or not is_id(row.get(key))]
        if lacking:
            expected = f"its {lacking[0]} must be a whole number or a text"
            got = f", got {_short(row.get(lacking[0]))}" if isinstance(row, dict) else ""
            problems.append(f"{_row_name(row, what, number)}: {expected}{got}")
            continue
        if row["id"] in ids:
            rows_of = {"category": "categories"}.get(what, "images")
            raise ImageError(
                f"{file} is not a COCO file: two {rows_of} have the same id {_short(row['id'])}"
            )
        ids.add(row["id"])
        yield row


def _categories(rows: list[Any], file: str | Path, problems: list[str]) -> dict[Id, str]:
    """Id to normalised name, of the categories whose name can be a label."""
    named: dict[Id, str] = {}
    for row in _usable_rows(rows, ("id", "name"), "category", file, problems):
        try:
            named[row["id"]] = normalised_label(str(row["name"]))
        except LibraryError as error:
            problems.append(f"category {_short(row['id'])}: {error}")
    return named


def _outline(
    annotation: Any, categories: dict[Id, str], images: set[Id], file: str | Path
) -> Annotation:
    """Raises ``MaskError`` that says why the annotation cannot be used."""
    if not isinstance(annotation, dict):
        raise MaskError(f"it must be an object, got {_short(annotation)}")
    for key, known in (("category_id", categories), ("image_id", images)):
        value = annotation.get(key)
        if not is_id(value):
            raise MaskError(f"its {key} must be a whole number or a text, got {_short(value)}")
        if value not in known:
            what = key.removesuffix("_id")
            raise MaskError(f"its {what} is not in {file} (or was left out): {_short(value)}")
    bbox = annotation.get("bbox")
    box = None
    if bbox is not None:
        try:
            x, y, w, h = (float(v) for v in bbox)
            if not all(math.isfinite(v) for v in (x, y, w, h)):
                raise ValueError("not finite")
        except (TypeError, ValueError, OverflowError) as error:
            raise MaskError(f"its bbox is not x, y, w, h: {_short(bbox)}") from error
        box = x, y, w, h
    point = _visible_point(annotation.get("keypoints"))
    if point is not None and box is not None and min(box[2:]) <= 0:
        box = None  # around keypoints in a line, or around one
    segmentation = annotation.get("segmentation") or None
    is_rle = isinstance(segmentation, dict)
    return Annotation(
        tags=(categories[annotation["category_id"]],),
        polygons=() if is_rle or segmentation is None else tuple(coco_polygons(segmentation)),
        mask_rle=segmentation if is_rle else None,
        bbox_xywh=box,
        point_xy=point,
        id=annotation.get("id"),
        references={key: annotation.get(key) for key in ("category_id", "track_id")},
        crowd=bool(annotation.get("iscrowd")),
    )


def _visible_point(keypoints: Any) -> tuple[float, float] | None:
    """The first visible one of COCO's keypoints ``x, y, v, ...``, else the first that is marked
    though hidden; None where there is none. Raises ``MaskError`` where they are malformed."""
    if keypoints is None:
        return None
    try:
        rows = np.array(keypoints, np.float64).reshape(-1, 3)
        if not np.isfinite(rows).all():
            raise ValueError("not finite")
    except (TypeError, ValueError, OverflowError) as error:
        raise MaskError(f"its keypoints are not x, y, v, ...: {_short(keypoints)}") from error
    marked = rows[rows[:, 2] > 0]
    if not len(marked):
        return None
    x, y, _ = marked[np.argmax(marked[:, 2] >= VISIBLE)].tolist()
    return x, y


def _row_name(row: Any, what: str, number: int) -> str:
    """How a line names a row: by its id, or by its place in the file."""
    known = isinstance(row, dict) and is_id(row.get("id"))
    return f"{what} {_short(row['id'])}" if known else f"{what} number {number}"


def _short(value: Any) -> str:
    """A file's value for one line: as JSON shows it, cut off."""
    try:
        text = value if isinstance(value, str) else json.dumps(value)
    except (ValueError, RecursionError):  # an integer of thousands of digits
        text = f"a {type(value).__name__}"
    return text if len(text) <= MAX_SHOWN else f"{text[:MAX_SHOWN]}..."


def _match(wanted: Path, named: Sequence[str]) -> str | None:
    """Of the pictures of one name the one whose path ends like the annotated name (the shortest,
    where a folder below holds another); else the only one. Nothing where that leaves several."""
    ending = [path for path in named if Path(path).parts[-len(wanted.parts) :] == wanted.parts]
    shortest = min((len(Path(path).parts) for path in ending), default=0)
    nearest = [path for path in ending if len(Path(path).parts) == shortest] or named
    return nearest[0] if len(nearest) == 1 else None
