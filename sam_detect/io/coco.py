"""Objects from COCO files of others."""

from __future__ import annotations

import json
import math
import os
import re
import stat
import warnings
import zlib
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any
from unicodedata import normalize
from urllib.parse import unquote

import numpy as np

from sam_detect.errors import ImageError, LibraryError, MaskError
from sam_detect.io.annotation_values import short
from sam_detect.types import AnnotatedImage, Annotation
from sam_detect.types.annotations import checked_size
from sam_detect.types.labels import normalised_label, shown_label
from sam_detect.types.polygons import Ring, checked_ring, coco_polygons

MAX_ANNOTATION_BYTES = 1 << 30
GZIP_MAGIC, MAX_UNPACKED_BYTES = b"\x1f\x8b", 1 << 28
MAX_DIGITS = 400
"""Longer whole numbers are beyond every float, and may be beyond what Python converts."""
UPLOAD = "(^|/)[0-9a-f]{8}-(?=[^/]*$)"
"""What Label Studio puts before the name of an upload."""
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
    """Pairs a COCO file's annotations with pictures; leaves out crowds, and says so.

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
    names = [str(image["file_name"]) for image in coco.images]
    paths = match_pictures(names, images, file)
    found, missing, crowds = [], [], 0
    for image, path in zip(coco.images, paths, strict=True):
        every = coco.outlines.get(image["id"], ())
        outlines = tuple(o for o in every if not o.crowd)
        if path is not None:
            crowds += len(every) - len(outlines)
        if path is not None and outlines:
            size_hw = checked_size(image.get("height"), image.get("width"))
            found.append(AnnotatedImage(path, str(image["file_name"]), outlines, size_hw))
        elif outlines:
            missing.append(why_unmatched(str(image["file_name"]), images, names))
    left_out = (f"{crowds} annotations are crowds ('iscrowd': 1), regions of many objects, and "
                "left out: set it to 0 where each is one object")  # fmt: skip
    if not found:
        raise nothing_usable(file, missing, [*coco.problems, *([left_out] if crowds else [])])
    if crowds:
        warnings.warn(f"{file}: {left_out}", stacklevel=2)
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
    by_text = {key: {str(each): each for each in ids} for key, ids in
               (("category_id", categories), ("image_id", image_ids))}  # fmt: skip
    outlines: dict[Id, list[Annotation]] = defaultdict(list)
    for number, annotation in enumerate(data["annotations"], start=1):
        try:
            for key, ids in by_text.items() if isinstance(annotation, dict) else ():
                if isinstance(annotation.get(key), str):  # "1" for 1, as some converters write
                    annotation[key] = ids.get(annotation[key], annotation[key])
            found = _outline(annotation, categories, image_ids, file)
        except MaskError as error:
            problems.append(f"{_row_name(annotation, 'annotation', number)}: {error}")
            continue
        if wanted in (None, found.label):
            outlines[annotation["image_id"]].append(found)
    return CocoFile(categories, images, dict(outlines), tuple(problems))


def match_pictures(
    wanted: Iterable[str], images: Iterable[str], file: str | Path = ""
) -> list[str | None]:
    """For each annotated name the picture that it means, among those at hand, or None.

    That is the picture whose path ends most like the name, which may be one of Windows, a web
    address, or differ in case; of several alike the one next to ``file``, which names them, or the
    only one. Of several names of one picture the one that its path ends most like means it; where
    that leaves several, none does. No file is opened or looked for by an annotated name itself, so
    that it cannot lead elsewhere.
    """
    by_name: dict[tuple[str, bool], list[str]] = defaultdict(list)
    for given in dict.fromkeys(images):
        name = normalize("NFC", Path(given).name)
        by_name[name, False].append(given)
        by_name[name.casefold(), True].append(given)
    folder, names = os.path.abspath(Path(file).parent), list(wanted)
    matches = {name: _match(name, by_name, folder) for name in dict.fromkeys(names)}
    named: dict[str, dict[tuple[int, int], list[str]]] = defaultdict(lambda: defaultdict(list))
    for name, match in matches.items():
        if match is not None:
            named[match[0]][match[1:]].append(name)
    meaning = set[str]()
    for ranked in named.values():
        best = ranked[max(ranked)]
        if len({os.path.normpath(_plain(name)) for name in best}) == 1:  # ./a.jpg is a.jpg
            meaning.update(best)
    return [match[0] if (match := matches[name]) and name in meaning else None for name in names]


def why_unmatched(name: str, images: Iterable[str], names: Iterable[str]) -> str:
    """A line that says why one of the annotated names means none of the pictures at hand."""
    last = _last(name)
    same = [given for given in images if _last(given) == last]
    if len(same) < 2:
        alike = {os.path.normpath(_plain(each)): each for each in names if _last(each) == last}
        if len(alike) > 1 and same and not any(match_pictures(alike.values(), same)):
            first, second, *_ = alike.values()
            return (
                f"{name}: annotated, but {first} and {second} both mean {same[0]}: give the "
                f"picture in its folder, as {first}, or keep the annotations of one of them"
            )
        return f"{name}: annotated, but not among the pictures"
    listed = f"{same[0]}, {same[1]}" + (", ..." if len(same) > 2 else "")
    return (
        f"{name}: annotated, but several pictures have this name ({listed}): "
        "name the folder as well, or give one of them"
    )


def _last(name: str) -> str:
    """The last part of a name, without case and without the digits of uploads."""
    return re.sub(UPLOAD, r"\1", _plain(name).casefold()).rpartition("/")[2]


def _plain(name: str) -> str:
    """A name as tools on Windows or the web write it, as a path with slashes."""
    _, local, query = name.partition("/?d=")  # Label Studio's local files
    shown = query if local else name.partition("?")[0] if "://" in name else name
    return normalize("NFC", unquote(shown).replace("\\", "/"))


def _match(
    name: str, by_name: dict[tuple[str, bool], list[str]], folder: str
) -> tuple[str, int, int] | None:
    """The picture of a name as it is, without its web or Windows form, without case, or without
    the digits that Label Studio puts before the names of uploads; and how well it matches."""
    plain = _plain(name)
    upload = re.sub(UPLOAD, r"\1", plain.casefold())
    forms = (normalize("NFC", name), False), (plain, False), (plain.casefold(), True)
    for form, (shown, folded) in enumerate((*forms, (upload, True))):
        parts = Path(shown).parts
        if parts and (named := by_name.get((parts[-1], folded))):
            path = _nearest(parts, named, folder, folded=folded)
            return None if path is None else (path, -form, _alike(parts, path, folded=folded))
    return None


def _alike(parts: Sequence[str], path: str, *, folded: bool) -> int:
    """How many parts of a path's end are those of a name."""
    shown = Path(normalize("NFC", path.casefold() if folded else path)).parts
    pairs = zip(reversed(parts), reversed(shown), strict=False)
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], pairs))


def _nearest(
    parts: Sequence[str], named: Sequence[str], folder: str, *, folded: bool
) -> str | None:
    """Of the pictures of one name the one whose path ends most like the name: at its place next to
    the file of annotations in ``folder``, or the shortest where a folder below holds another, or
    the only one in ``folder``. Nothing where that leaves several."""
    ends = [_alike(parts, path, folded=folded) for path in named]
    best = [path for path, end in zip(named, ends, strict=True) if end == max(ends)]
    whole, places = max(ends) == len(parts), {path: Path(os.path.abspath(path)) for path in best}
    depth = min(len(Path(path).parts) for path in best)
    for chosen in (
        [path for path in best if whole and places[path] == Path(folder, *parts)],
        [path for path in best if not whole or len(Path(path).parts) == depth],
        [path for path in best if places[path].is_relative_to(folder)],
    ):
        if len(chosen) == 1:
            return chosen[0]
    return None


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
    where it cannot be read, is too large, or is no text in Unicode."""
    try:
        return decoded(read_bytes(path))
    except ValueError as error:
        raise ImageError(f"{path} is not {kind}: {error}; save it as UTF-8") from error


def decoded(data: bytes) -> str:
    """Text of UTF-8, -16 or -32, with or without a byte order mark; raises ``ValueError``."""
    text = data.decode(json.detect_encoding(data))
    return text.removeprefix("\ufeff")


def read_bytes(path: Path) -> bytes:
    """A file of annotations, unpacked where it is gzip. Raises ``ImageError`` where it cannot be
    read, or is too large."""
    try:
        found = path.stat()
        if not stat.S_ISREG(found.st_mode):  # a pipe or device may never end
            raise ImageError(f"the annotations {path} cannot be read: this is not a file")
        data = path.read_bytes() if found.st_size <= MAX_ANNOTATION_BYTES else b""
        if data.startswith(GZIP_MAGIC):
            unpacking = zlib.decompressobj(wbits=31)
            data = unpacking.decompress(data, MAX_UNPACKED_BYTES + 1)
            if len(data) > MAX_UNPACKED_BYTES:
                raise ImageError(f"{path} unpacks to more than {MAX_UNPACKED_BYTES >> 20} MiB: "
                                 "split it")  # fmt: skip
            if not unpacking.eof:
                raise ImageError(f"{path} is cut off: copy or export it again")
    except OSError as error:
        raise ImageError(f"the annotations {path} cannot be read: {error.strerror}") from error
    except zlib.error as error:
        raise ImageError(f"{path} is a damaged gzip file ({error}): export it again") from error
    if found.st_size > MAX_ANNOTATION_BYTES:
        raise ImageError(f"{path} is larger than {MAX_ANNOTATION_BYTES >> 20} MiB: split it")
    return data


def read_json(data: bytes, path: Path) -> Any:
    """The JSON of a file's content; a list of them for JSON Lines. Raises ``ImageError``."""
    try:
        text = decoded(data)
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
    """Whether a file's value can be an id or a name: a whole number, also as 1.0, or a text."""
    whole = isinstance(value, int) or (isinstance(value, float) and value.is_integer())
    return isinstance(value, str) or (whole and not isinstance(value, bool))


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
            got = f", got {short(row.get(lacking[0]))}" if isinstance(row, dict) else ""
            problems.append(f"{_row_name(row, what, number)}: {expected}{got}")
            continue
        if row["id"] in ids:
            rows_of = {"category": "categories"}.get(what, "images")
            raise ImageError(
                f"{file} is not a COCO file: two {rows_of} have the same id {short(row['id'])}"
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
            problems.append(f"category {short(row['id'])}: {error}")
    return named


def _outline(
    annotation: Any, categories: dict[Id, str], images: set[Id], file: str | Path
) -> Annotation:
    """Raises ``MaskError`` that says why the annotation cannot be used."""
    if not isinstance(annotation, dict):
        raise MaskError(f"it must be an object, got {short(annotation)}")
    for key, known in (("category_id", categories), ("image_id", images)):
        value = annotation.get(key)
        if not is_id(value):
            raise MaskError(f"its {key} must be a whole number or a text, got {short(value)}")
        if value not in known:
            what = key.removesuffix("_id")
            raise MaskError(f"its {what} is not in {file} (or was left out): {short(value)}")
    bbox = annotation.get("bbox")
    box = None
    if bbox is not None:
        try:
            x, y, w, h = (float(v) for v in bbox)
            if not all(math.isfinite(v) for v in (x, y, w, h)):
                raise ValueError("not finite")
        except (TypeError, ValueError, OverflowError) as error:
            raise MaskError(f"its bbox is not x, y, w, h: {short(bbox)}") from error
        box = x, y, w, h
    point = _visible_point(annotation.get("keypoints"))
    if point is not None and box is not None and min(box[2:]) <= 0:
        box = None  # around keypoints in a line, or around one
    segmentation: Any = annotation.get("segmentation") or None
    if isinstance(segmentation, list):
        if not isinstance(segmentation[0], (list, dict)):  # one polygon, as VIA's converters write
            segmentation = [segmentation]
        segmentation = [each for each in segmentation if each != []] or None
    attributes = annotation.get("attributes")
    attributes = attributes if isinstance(attributes, dict) else {}
    is_rle = isinstance(segmentation, dict)
    found = Annotation(
        tags=(categories[annotation["category_id"]],),
        polygons=() if is_rle or segmentation is None else tuple(coco_polygons(segmentation)),
        mask_rle=segmentation if is_rle else None,
        bbox_xywh=box,
        point_xy=point,
        id=annotation.get("id"),
        references={key: annotation.get(key) for key in ("category_id", "track_id")},
        # CVAT marks every brushed mask so; its rows say "occluded", and it has no crowds.
        crowd=annotation.get("iscrowd") not in (None, 0, "0") and "occluded" not in attributes,
    )
    corners = None if segmentation or not box else _turned_box(box, attributes.get("rotation"))
    return found if corners is None else found.turned(corners)


def _turned_box(box: tuple[float, float, float, float], degrees: Any) -> Ring | None:
    """The corners of a box that CVAT's ``rotation`` turns clockwise about its centre; None of one
    that it does not turn."""
    if not isinstance(degrees, (int, float)) or not math.isfinite(degrees) or not degrees % 180:
        return None
    x, y, w, h = box
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    corners = np.array([(-w, -h), (w, -h), (w, h), (-w, h)]) / 2 @ [(cos, sin), (-sin, cos)]
    centre = np.array([x + w / 2, y + h / 2])
    return checked_ring(corners + centre)


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
        raise MaskError(f"its keypoints are not x, y, v, ...: {short(keypoints)}") from error
    marked = rows[rows[:, 2] > 0]
    if not len(marked):
        return None
    x, y, _ = marked[np.argmax(marked[:, 2] >= VISIBLE)].tolist()
    return x, y


def _row_name(row: Any, what: str, number: int) -> str:
    """How a line names a row: by its id, or by its place in the file."""
    known = isinstance(row, dict) and is_id(row.get("id"))
    return f"{what} {short(row['id'])}" if known else f"{what} number {number}"
