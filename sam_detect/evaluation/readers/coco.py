"""COCO: a JSON file of polygons, run lengths or boxes, and a folder of pictures."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from sam_detect.errors import MaskError
from sam_detect.evaluation.dataset import AnnotatedObject, Dataset, Id
from sam_detect.evaluation.readers.gathering import (
    Gathering,
    annotated_object,
    ids_by_name,
    printable,
)
from sam_detect.sources import find_images
from sam_detect.sources.annotations import Outline, is_id, load_coco, match_pictures


def read(file: Path, images: Path | None, *, max_pixels: int) -> Dataset:
    """Reads a COCO file, see :func:`sam_detect.evaluation.readers.open_dataset`."""
    coco = load_coco(file)
    if images is None:
        images = file.parent / "images"
        images = images if images.is_dir() else file.parent
    name = file.resolve().parent.name if file.name == "annotations.json" else file.stem
    gathering = Gathering(name, max_pixels=max_pixels)
    gathering.problems += map(printable, coco.problems)
    used = {o.category_id for outlines in coco.outlines.values() for o in outlines}
    categories = ids_by_name(gathering, coco.categories, used)
    paths = match_pictures((str(image["file_name"]) for image in coco.images), find_images(images))
    pictures: dict[str, Id] = {}
    ids: set[Id] = set()
    for image, path in zip(coco.images, paths, strict=True):
        outlines = coco.outlines.get(image["id"], [])
        name = printable(str(image["file_name"]), 100)
        count = "1 object" if len(outlines) == 1 else f"{len(outlines)} objects"
        what = f"image {image['id']} ({name}) with {count}"
        if path is None:
            gathering.note(what, f"no such picture in {images}, or more than one of that name")
            continue
        if pictures.setdefault(path, image["id"]) != image["id"]:
            gathering.note(what, f"the same file as that of image {pictures[path]}")
            continue
        size_hw = gathering.size_of(path, what)
        if size_hw is None:
            continue
        if not _has_size(image, size_hw):
            gathering.note(what, _wrong_size(image, size_hw))
            continue
        objects = [*_usable(outlines, size_hw, ids, gathering)]
        fields = {k: v for k, v in image.items() if k not in ("id", "file_name", "width", "height")}
        gathering.add(id=image["id"], path=path, size_hw=size_hw, objects=objects, fields=fields)
    return gathering.dataset(categories)


def _has_size(image: dict[str, Any], size_hw: tuple[int, int]) -> bool:
    """Whether the file's size is the annotated one; what is not annotated fits."""
    sizes = zip(("height", "width"), size_hw, strict=True)
    return all(image.get(side) in (None, actual) for side, actual in sizes)


def _wrong_size(image: dict[str, Any], size_hw: tuple[int, int]) -> str:
    annotated = image.get("height"), image.get("width")
    turned = ", turned by its EXIF orientation" if annotated == size_hw[::-1] else ""
    return (
        f"annotated as {annotated[1]}x{annotated[0]} pixels, "
        f"the file has {size_hw[1]}x{size_hw[0]}{turned}"
    )


def _usable(
    outlines: Sequence[Outline], size_hw: tuple[int, int], ids: set[Id], gathering: Gathering
) -> Iterator[AnnotatedObject]:
    """The objects of one picture that can be used; ``ids`` are those taken, and grow."""
    for outline in outlines:
        what = f"annotation {outline.id}"
        if not is_id(outline.id):
            gathering.note(what, "its id is neither a number nor a word")
        elif outline.id in ids:
            gathering.note(what, "another one has this id")
        else:
            ids.add(outline.id)
            try:
                yield annotated_object(
                    id=outline.id,
                    label=outline.label,
                    size_hw=size_hw,
                    mask_rle=outline.rle(size_hw),
                    bbox_xywh=outline.bbox_xywh,
                    crowd=outline.crowd,
                )
            except MaskError as error:
                gathering.note(what, error)
