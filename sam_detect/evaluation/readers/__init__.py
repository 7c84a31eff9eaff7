"""Annotated pictures in the formats of the field: here COCO (a JSON file of polygons, run lengths
or boxes, and a folder of pictures), YOLO and label maps in files of their own."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from pathlib import Path

from sam_detect.errors import ConfigError, ImageError, MaskError
from sam_detect.evaluation.dataset import (
    AnnotatedObject,
    Dataset,
    DatasetBuilder,
    Id,
    annotated_object,
    ids_by_name,
    printable,
)
from sam_detect.evaluation.readers import label_maps, yolo
from sam_detect.polygons import pycocotools_rle
from sam_detect.sources import DEFAULT_MAX_PIXELS, PlaneRanges, find_images
from sam_detect.sources.annotations import is_id, load_coco, match_pictures
from sam_detect.types import Annotation


def open_dataset(
    path: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    ranges: PlaneRanges | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Dataset:
    """Reads annotated pictures. No picture is decoded; label maps are.

    Args:
        path: a COCO JSON file; a folder with ``annotations.json``; a YOLO folder with
            ``data.yaml`` (or that file); or a folder with ``images/`` and label maps in
            ``masks/``.
        images: the folder of a COCO file's pictures; by default ``images/`` next to the file,
            if there is one, else the file's own folder.
        ranges: planes and channels of stacks with label maps; each plane is a picture.
        max_pixels: larger pictures are left out.

    Returns:
        The dataset. What could not be used is left out, and named in its ``problems``.

    Raises:
        ImageError: it cannot be read, is in no known format, or holds no object.
        ConfigError: ``images`` is given for a format that has the paths of its pictures, or
            ``ranges`` for one without planes.
        UnavailableError: the format needs an extra that is not installed.
    """
    given = Path(path)
    annotations = given / "annotations.json" if given.is_dir() else given
    maps = (given / "images").is_dir() and (given / "masks").is_dir()
    if ranges and (annotations.exists() or not maps):
        raise ConfigError(f"{given} does not say in which plane objects lie: --xy, --z, --t "
                          "and --channel go with stacks in images/ and label maps in "
                          "masks/")  # fmt: skip
    if given.is_file() and given.suffix.lower() in (".yaml", ".yml"):
        files = [given]
    elif not given.is_dir() or annotations.exists():
        return _read_coco(annotations, None if images is None else Path(images), max_pixels)
    else:
        files = [given / name for name in ("data.yaml", "data.yml", "dataset.yaml")]
    for file in filter(Path.exists, files):
        _refuse_images(images, file)
        return yolo.read(file, max_pixels=max_pixels)
    if maps:
        _refuse_images(images, given)
        return label_maps.read(given, ranges=ranges, max_pixels=max_pixels)
    raise ImageError(
        f"the folder {given} is no dataset: it needs annotations.json (COCO), data.yaml (YOLO), "
        "or label maps in masks/ next to images/"
    )


def _refuse_images(images: str | os.PathLike[str] | None, path: Path) -> None:
    if images is not None:
        raise ConfigError(f"--images goes with a COCO file: {path} says itself where they are")


def _read_coco(file: Path, images: Path | None, max_pixels: int) -> Dataset:
    coco = load_coco(file)
    if images is None:
        images = file.parent / "images"
        images = images if images.is_dir() else file.parent
    name = file.resolve().parent.name if file.name == "annotations.json" else file.stem
    builder = DatasetBuilder(name, max_pixels=max_pixels)
    builder.problems += map(printable, coco.problems)
    used = {o.references["category_id"] for outlines in coco.outlines.values() for o in outlines}
    categories = ids_by_name(builder, coco.categories, used)
    paths = match_pictures((str(image["file_name"]) for image in coco.images), find_images(images))
    pictures: dict[str, Id] = {}
    ids: set[Id] = set()
    for image, path in zip(coco.images, paths, strict=True):
        outlines = coco.outlines.get(image["id"], [])
        name = printable(str(image["file_name"]), 100)
        count = "1 object" if len(outlines) == 1 else f"{len(outlines)} objects"
        what = f"image {image['id']} ({name}) with {count}"
        if path is None:
            builder.note(what, f"no such picture in {images}, or more than one of that name")
            continue
        if pictures.setdefault(path, image["id"]) != image["id"]:
            builder.note(what, f"the same file as that of image {pictures[path]}")
            continue
        size_hw = builder.size_of(path, what)
        if size_hw is None:
            continue
        annotated = image.get("height"), image.get("width")
        if any(a not in (None, actual) for a, actual in zip(annotated, size_hw, strict=True)):
            turned = ", turned by its EXIF orientation" if annotated == size_hw[::-1] else ""
            sizes = (f"annotated as {annotated[1]}x{annotated[0]} pixels, "
                     f"the file has {size_hw[1]}x{size_hw[0]}")  # fmt: skip
            builder.note(what, sizes + turned)
            continue
        objects = [*_usable(outlines, size_hw, ids, builder)]
        fields = {k: v for k, v in image.items() if k not in ("id", "file_name", "width", "height")}
        builder.add(image["id"], path, size_hw, objects, fields)
    return builder.dataset(categories)


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
                yield annotated_object(
                    id=outline.id,
                    label=str(outline.label),
                    size_hw=size_hw,
                    mask_rle=pycocotools_rle(outline.polygons, size_hw)
                    if outline.polygons
                    else outline.rle(size_hw),
                    bbox_xywh=outline.bbox_xywh,
                    crowd=outline.crowd,
                )
            except MaskError as error:
                builder.note(what, error)
