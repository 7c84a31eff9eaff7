"""Annotated pictures in the formats of the field: here files of annotations and the folder of their
pictures, YOLO and label maps in files of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sam_detect.errors import ConfigError, ImageError, MaskError, one_line
from sam_detect.evaluation.dataset import (
    AnnotatedObject,
    Dataset,
    DatasetBuilder,
    Id,
    annotated_object,
    ids_by_name,
    printable,
    relative,
)
from sam_detect.evaluation.readers import label_maps, yolo
from sam_detect.io import DEFAULT_MAX_PIXELS, PlaneRanges, find_images, planes_of
from sam_detect.io.annotated_planes import annotated_planes, fitted
from sam_detect.io.annotation_files import content_of, is_coco, read_annotations
from sam_detect.io.coco import is_id, load_coco, match_pictures, why_unmatched
from sam_detect.types import AnnotatedImage, Annotation
from sam_detect.types.annotations import checked_size
from sam_detect.types.polygons import pycocotools_rle

UNTAGGED = "object"
"""The label of annotations without one."""


def open_dataset(
    path: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    ranges: PlaneRanges | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    fit: str = "check",
) -> Dataset:
    """Reads annotated pictures. No picture is decoded but planes of stacks; label maps are.

    Args:
        path: a file of annotations in any format that ``learn`` reads; ``nimbus:ID``; a folder
            with ``annotations.json`` (COCO); a YOLO folder with ``data.yaml``, ``classes.txt`` or
            ``obj.names`` (or that file); a folder with ``images/`` and label maps in ``masks/``;
            or one with files of annotations, as of LabelMe.
        images: the folder of a file's pictures; by default ``images/`` next to the file, if there
            is one, else the file's own folder.
        ranges: planes and channels of stacks; each plane is a picture. Objects that say no plane
            lie in the selected one.
        max_pixels: larger pictures are left out.
        fit: as of :func:`~sam_detect.io.annotation_files.read_annotations`.

    Returns:
        The dataset. What could not be used is left out, and named in its ``problems``.

    Raises:
        ImageError: it cannot be read, is in no known format, or holds no object.
        ConfigError: ``images`` is given for a format that has the paths of its pictures.
        UnavailableError: the format needs an extra that is not installed.
    """
    given = Path(path)
    annotations = given / "annotations.json"
    folder = given if given.is_dir() else given.parent
    maps = given.is_dir() and all((given / name).is_dir() for name in ("images", "masks"))
    if annotations.exists():
        given = annotations
    elif (file := yolo.settings_file(given)) is not None:
        _refuse_images(images, file)
        found = yolo.read(file, max_pixels=max_pixels)
        return _selected(found, ranges, max_pixels) if ranges else found
    elif maps:
        _refuse_images(images, given)
        return label_maps.read(given, ranges=ranges, max_pixels=max_pixels)
    elif given.is_dir() and not any(map(_holds_outlines, given.iterdir())):
        raise ImageError(
            f"the folder {given} is no dataset: it needs annotations.json (COCO), data.yaml, "
            "classes.txt or obj.names (YOLO), label maps in masks/ next to images/, or files of "
            "annotations"
        )
    if images is None:
        images = folder / "images" if (folder / "images").is_dir() else folder
    return _read(given, Path(images), ranges or PlaneRanges(), max_pixels, fit)


def _holds_outlines(file: Path) -> bool:
    return file.suffix.lower() in (".json", ".geojson", ".jsonl", ".gz", ".zip", ".roi")


def _refuse_images(images: str | os.PathLike[str] | None, path: Path) -> None:
    if images is not None:
        raise ConfigError(f"--images goes with a file of annotations: {path} says itself where "
                          "they are")  # fmt: skip


def _selected(dataset: Dataset, ranges: PlaneRanges, max_pixels: int) -> Dataset:
    """The pictures of a dataset as the one plane of each that is selected."""
    pictures, problems = [], [*dataset.problems]
    for picture in dataset.pictures:
        try:
            [plane] = planes_of(picture.path, ranges, max_pixels=max_pixels)
            pictures.append(replace(picture, plane=plane))
        except ImageError as error:
            problems.append(f"left out: {one_line(error)}")
        except ValueError:
            problems.append(f"left out: {picture.id}: its objects do not say which plane they lie "
                            "in, and several are selected")  # fmt: skip
    if not pictures:
        raise ImageError(f"no picture of {dataset.name} has the selected plane: {problems[-1]}")
    return replace(dataset, pictures=tuple(pictures), problems=tuple(problems))


def _read(file: Path, folder: Path, ranges: PlaneRanges, max_pixels: int, fit: str) -> Dataset:
    """Annotations of any format with the pictures of a folder."""
    name = file.resolve().parent.name if file.name == "annotations.json" else file.stem
    builder = DatasetBuilder(name, max_pixels=max_pixels)
    data = None if file.is_dir() else content_of(file)[1]
    reader = _coco_images if is_coco(data) else _other_images
    images, categories = reader(file, data, folder, builder)
    placed = any(o.location not in (None, (0, 0, 0)) for each in images for o in each.outlines)
    if ranges or placed:
        lines: list[str] = []
        images = annotated_planes(
            images, ranges, lines, elsewhere=not ranges, max_pixels=max_pixels
        )
        builder.problems += map(printable, lines)
    ids: set[Id] = set()
    for image in images:
        row, plane = image.references, image.plane
        what = _shown(row["id"], image)
        try:
            if plane is None:
                size_hw = builder.size_of(image.path, what)
            else:
                size_hw = plane.values(max_pixels=max_pixels).shape[:2]
            if size_hw is None:
                continue
            fitting, lines = fitted(replace(image, fit=fit), size_hw, in_stack=plane is not None)
        except (ImageError, MaskError) as error:
            builder.note(what, error)
            continue
        builder.problems += [printable(f"{what}: {line}") for line in lines]
        objects = [*_usable(fitting.outlines, size_hw, ids, builder)]
        fields = {k: v for k, v in row.items() if k not in ("id", "file_name", "width", "height")}
        number = row["id"] if plane is None else plane.name
        builder.add(number, image.path, size_hw, objects, fields, plane=plane)
    return builder.dataset(categories)


def _coco_images(
    file: Path, data: Any, folder: Path, builder: DatasetBuilder
) -> tuple[list[AnnotatedImage], dict[str, Id]]:
    """The pictures of a COCO file, also those without an object; their rows are references."""
    coco = load_coco(file, data=data)
    builder.problems += map(printable, coco.problems)
    used = {o.references["category_id"] for outlines in coco.outlines.values() for o in outlines}
    categories = ids_by_name(builder, coco.categories, used)
    names, pictures = [str(row["file_name"]) for row in coco.images], find_images(folder)
    found, seen = [], dict[str, Id]()
    for row, path in zip(coco.images, match_pictures(names, pictures, file), strict=True):
        outlines = tuple(coco.outlines.get(row["id"], ()))
        size_hw = checked_size(row.get("height"), row.get("width"))
        image = AnnotatedImage(path or "", str(row["file_name"]), outlines, size_hw, row)
        what = _shown(row["id"], image)
        if path is None:
            why = why_unmatched(image.file_name, pictures, names)
            absent = why.endswith("not among the pictures")
            builder.note(what, f"no such picture in {folder}" if absent else why)
        elif seen.setdefault(path, row["id"]) != row["id"]:
            builder.note(what, f"the same file as that of image {seen[path]}")
        else:
            found.append(image)
    return found, categories


def _shown(number: Id, image: AnnotatedImage) -> str:
    count = "1 object" if len(image.outlines) == 1 else f"{len(image.outlines)} objects"
    return f"image {number} ({printable(image.file_name, 100)}) with {count}"


def _other_images(
    file: Path, _: Any, folder: Path, builder: DatasetBuilder
) -> tuple[list[AnnotatedImage], dict[str, Id]]:
    """The annotated pictures of a file, or of a folder of such, in another format."""
    annotated, problems = read_annotations(file, find_images(folder), label=UNTAGGED)
    builder.problems += map(printable, problems)
    merged: dict[str, AnnotatedImage] = {}
    for image in annotated:
        first = merged.setdefault(image.path, replace(image, outlines=()))
        merged[image.path] = replace(first, outlines=first.outlines + image.outlines)
    found = []
    for path, image in merged.items():
        name = relative(path, folder)
        numbered = enumerate(image.outlines, start=1)
        outlines = tuple(replace(each, id=f"{name}:{number}") for number, each in numbered)
        found.append(replace(image, file_name=name, outlines=outlines, references={"id": name}))
    labels = sorted({str(o.label) for image in found for o in image.outlines})
    return found, {label: number for number, label in enumerate(labels, start=1)}


def _usable(
    outlines: Sequence[Annotation], size_hw: tuple[int, int], ids: set[Id], builder: DatasetBuilder
) -> Iterator[AnnotatedObject]:
    """The objects of one picture that can be used; ``ids`` are those taken, and grow."""
    for outline in outlines:
        what = f"annotation {outline.id}"
        if not is_id(outline.id):
            builder.note(what, "its id is neither a number nor a word")
        elif outline.id in ids:
            builder.note(what, "another one has this id")
        else:
            ids.add(outline.id)
            try:
                plain = all(len(polygon) == 1 for polygon in outline.polygons)
                yield annotated_object(
                    id=outline.id,
                    label=str(outline.label),
                    size_hw=size_hw,
                    mask_rle=pycocotools_rle(outline.polygons, size_hw)
                    if outline.polygons and plain
                    else outline.rle(size_hw),
                    bbox_xywh=outline.bbox_xywh,
                    crowd=outline.crowd,
                    corners_xy=outline.corners_xy,
                )
            except MaskError as error:
                builder.note(what, error)
