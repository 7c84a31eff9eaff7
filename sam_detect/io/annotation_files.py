"""Annotation files of any format, told by their content, and the pictures that they mean."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from sam_detect.errors import ImageError, MaskError
from sam_detect.io import foreign, geojson, imagej, label_map, labelme, nimbus, results
from sam_detect.io.annotation_values import polygons_of
from sam_detect.io.coco import (
    match_pictures,
    nothing_usable,
    read_bytes,
    read_coco,
    read_json,
    why_unmatched,
)
from sam_detect.io.decoding import PictureFile
from sam_detect.io.images import IMAGE_EXTENSIONS
from sam_detect.io.mask_pictures import MAX_PIXELS, require_pieces
from sam_detect.io.nimbus_server import dataset_of, download
from sam_detect.types import AnnotatedImage, Annotation
from sam_detect.types.labels import shown_label
from sam_detect.types.polygons import checked_ring, from_pixel_centres

MASK_ENDINGS = (".tif", ".tiff", ".png")
ENDINGS = (".json", ".geojson", ".jsonl", ".gz", ".zip", ".roi", *MASK_ENDINGS)
MAGICS = (imagej.ROI_MAGIC, imagej.ZIP_MAGIC, label_map.PNG_MAGIC, *label_map.TIFF_MAGIC)
MOST_SHOWN = 8
FORMATS = "COCO, GeoJSON, ImageJ, LabelMe, a label map, NimbusImage, sam-detect's JSON"


def read_annotations(
    file: str | Path,
    images: Sequence[str],
    *,
    tag: str | None = None,
    label: str | None = None,
    pixel_centres: bool = False,
    fit: str = "check",
    untagged: str | None = None,
    pieces: str | None = None,
) -> tuple[list[AnnotatedImage], list[str]]:
    """Pairs the annotations of a file, or of all files of a folder, with pictures.

    A file that names its pictures (COCO, LabelMe, sam-detect's JSON) means those of that name.
    Another one means the picture of its own name, else the only one that is given.

    Args:
        file: COCO, GeoJSON (QuPath), ImageJ's regions, LabelMe, a label map, NimbusImage,
            sam-detect's own JSON, or a JSON list of polygons; ``nimbus:ID`` is a dataset on a
            NimbusImage server.
        images: paths of the pictures at hand.
        tag: only annotations with this tag, which is then their label.
        label: of annotations without a tag.
        pixel_centres: the file's coordinates are those of the centres of pixels, and the pixels on
            its outlines belong to the objects, as with OpenCV's contours.
        fit: ``check`` refuses annotations that do not fit their picture, once that is read;
            ``scale`` scales those of another size, ``as-is`` takes all as they are.
        untagged: label of all annotations of a file in which none has a tag.
        pieces: ``each``: each piece of an outline is an object; ``one``, None: an annotation is one
            object. A mask picture of one value does not say: None decides by its shape
            (:func:`~sam_detect.io.mask_pictures.separate`).

    Returns:
        The annotated pictures in the files' order, and a line for each thing left out.

    Raises:
        ImageError: a file cannot be read or is in no known format, no annotation has the tag, or no
            picture of it is at hand.
    """
    path = Path(file)
    found: list[AnnotatedImage] = []
    problems: list[str] = []
    require_pieces(pieces)
    files = [path] if dataset_of(path) is not None else _files(path, images)
    for each in files:
        if _is_mask(each) and each.name in {Path(image.file_name).name for image in found}:
            continue  # the picture of an annotation
        try:
            found += _of_file(each, images, tag, problems, pieces, alone=len(files) == 1)
        except ImageError as error:
            if each == path:
                raise
            problems.append(str(error))
    found = [replace(image, fit=fit) for image in found]
    if untagged is not None and not any(o.tags for image in found for o in image.outlines):
        label = untagged
        warnings.warn(f"{path}: no annotation has a tag, so all are taken as '{label}'",
                      stacklevel=2)  # fmt: skip
    return choose(
        found, problems, path, tag=tag, label=label, pixel_centres=pixel_centres, pieces=pieces
    ), problems


def choose(
    found: list[AnnotatedImage],
    problems: list[str],
    file: Path,
    *,
    tag: str | None,
    label: str | None,
    pixel_centres: bool = False,
    pieces: str | None = None,
) -> list[AnnotatedImage]:
    """Of what a file says the annotations that are wanted, with a label each; as
    :func:`read_annotations`. What is left out is added to ``problems``."""
    if tag is not None:
        found = _tagged(found, shown_label(tag), file)
    named = () if label is None else (label,)
    used: list[AnnotatedImage] = []
    for image in found:
        outlines, untagged = [], 0
        for annotation in image.outlines:
            one = annotation if annotation.tags else replace(annotation, tags=named)
            untagged += not one.tags
            one = _moved(one) if pixel_centres else one
            outlines += (_pieces(one) if pieces == "each" else [one]) if one.tags else []
        if untagged:
            problems.append(
                f"{image.path}: {untagged} annotations have no tag: name them with --label "
                "(ImageJ's own names, such as 0123-0456, are none)"
            )
        if outlines:
            used.append(replace(image, outlines=tuple(outlines)))
    if not used:
        first = f" (problems: {len(problems)}; {problems[0]})" if problems else ""
        raise ImageError(f"{file} has no annotation that can be used{first}")
    return used


def load_annotations(
    file: str | Path, pieces: str | None = None, content: tuple[bytes, Any] | None = None
) -> tuple[list[AnnotatedImage], list[str]]:
    """The pictures of one file in any format but COCO, and a line for each thing left out;
    ``pieces`` as of :func:`read_annotations`.

    Args:
        content: that :func:`content_of` gives, where it was read before.

    Raises:
        ImageError: the file cannot be read, or is in no known format.
    """
    path = Path(file)
    data, parsed = content or content_of(path)
    problems: list[str] = []
    dataset = dataset_of(path)
    try:
        if dataset is not None:
            found = download(dataset, problems)
        elif data.startswith((imagej.ROI_MAGIC, imagej.ZIP_MAGIC)):
            found = imagej.decode(data, problems)
        elif data.startswith(label_map.TIFF_MAGIC):
            found = label_map.decode(data, problems, pieces, str(path))
        elif data.startswith(label_map.PNG_MAGIC) or path.suffix.lower() in IMAGE_EXTENSIONS:
            picture = PictureFile(str(path), data)
            height, width = picture.size_hw()
            if height * width > MAX_PIXELS:
                raise ImageError(f"it has {width}x{height} pixels, more than the limit of "
                                 f"{MAX_PIXELS:,} for label maps: divide it")  # fmt: skip
            values, note = picture.values()
            found = label_map.of_planes(values[None, None], note, problems, pieces, str(path))
        else:
            found = _decoder(parsed, path)(parsed, problems)
    except ImageError as error:
        shown = str(error)
        raise ImageError(shown if str(path) in shown else f"{path}: {shown}") from error
    return found, [f"{path.name}: {line}" for line in problems]


def content_of(path: Path) -> tuple[bytes, Any]:
    """A file's bytes, and its JSON; None where it is of another format or a dataset on a server."""
    if dataset_of(path) is not None:
        return b"", None
    data = read_bytes(path)
    if data.startswith(MAGICS) or path.suffix.lower() in IMAGE_EXTENSIONS:
        return data, None
    try:
        return data, read_json(data, path)
    except ImageError:
        if (name := foreign.of_text(data)) is not None:
            raise _unknown(path, name) from None
        raise


def is_coco(parsed: Any) -> bool:
    """Whether JSON is COCO, or says so without being it."""
    keys = {"images", "categories"} & parsed.keys() if isinstance(parsed, dict) else set()
    return bool(keys) and foreign.of_json(parsed) is None


def _decoder(data: Any, path: Path) -> Callable[[Any, list[str]], list[AnnotatedImage]]:
    if geojson.is_geojson(data):
        return geojson.decode
    if results.is_results(data):
        return results.decode
    if isinstance(data, list) and data and isinstance(data[0], list):
        return _plain_polygons
    if isinstance(data, dict) and isinstance(data.get("shapes"), list):
        return labelme.decode
    if nimbus.is_nimbus(data):
        return nimbus.decode
    raise _unknown(path, foreign.of_json(data))


def _unknown(path: Path, name: str | None) -> ImageError:
    text = f"is in no format of annotations that is known ({FORMATS})"
    text = text if name is None else f"is a file of {name}, and {text}: export it as COCO"
    return ImageError(f"{path} {text}")


def _plain_polygons(data: list[Any], problems: list[str]) -> list[AnnotatedImage]:
    """A list of polygons, each a list of points or of numbers ``x0, y0, x1, y1, ...``."""
    outlines = []
    for number, points in enumerate(data, start=1):
        try:
            outlines.append(Annotation(polygons=((checked_ring(points),),)))
        except MaskError as error:
            problems.append(f"polygon {number}: {error}")
    return [AnnotatedImage("", "", tuple(outlines))]


def _files(path: Path, images: Sequence[str]) -> list[Path]:
    """The file, or those of a folder that may hold annotations; pictures last. The pictures that
    are annotated, and those of the name of a file of outlines, as LabelMe has them, are no masks.
    """
    if not path.is_dir():
        return [path]
    every = sorted(each for each in path.rglob("*") if not _is_of_system(each.relative_to(path)))
    found = [each for each in every if each.suffix.lower() in ENDINGS]
    outlines = [each for each in found if not _is_mask(each)]
    names, given = {each.stem for each in outlines}, {os.path.realpath(each) for each in images}
    masks = (each for each in found if _is_mask(each) and each.parent == path)
    found = outlines + [
        each for each in masks if each.stem not in names and os.path.realpath(each) not in given
    ]
    if not found:
        for each in every:
            if each.suffix.lower() in foreign.ENDINGS and (
                name := foreign.of_text(read_bytes(each))
            ):
                raise _unknown(each, name)
        raise ImageError(f"the folder {path} holds no file of annotations ({', '.join(ENDINGS)})")
    return found


def _is_of_system(path: Path) -> bool:
    """Whether it is hidden, or one of those that macOS puts into folders and archives."""
    return any(part.startswith((".", "__MACOSX")) for part in path.parts)


def _is_mask(file: Path) -> bool:
    return file.suffix.lower() in MASK_ENDINGS


def _of_file(
    file: Path, images: Sequence[str], tag: str | None, problems: list[str], pieces: str | None,
    *, alone: bool,
) -> list[AnnotatedImage]:  # fmt: skip
    """What one file, or dataset on a server, says of the pictures at hand."""
    content = content_of(file)
    if is_coco(content[1]):
        found, lines = read_coco(file, images, tag=tag, data=content[1])
        problems += lines
        return found
    found, lines = load_annotations(file, pieces, content)
    problems += lines
    paths = pictures_of(file, found, images, alone=alone)
    matched, missing = [], []
    for image, path in zip(found, paths, strict=True):
        if path is not None:
            matched.append(replace(image, path=path))
        elif image.outlines:
            names = [each.file_name for each in found]
            missing.append(why_unmatched(image.file_name or file.name, images, names))
    if not matched:
        raise nothing_usable(file, missing, lines)
    problems += missing
    return matched


def pictures_of(
    file: Path, found: Iterable[AnnotatedImage], images: Sequence[str], *, alone: bool = True
) -> list[str | None]:
    """The picture of each entry of a file. A file that names none, of its own name either, is of
    the only picture, if it is ``alone``; one of several files is of another picture."""
    entries = list(found)
    paths = match_pictures((image.file_name for image in entries), images, file)
    if any(image.file_name for image in entries):
        return paths
    stem = file.name.removesuffix(".gz").rpartition(".")[0]
    named = [given for given in images if Path(given).stem == stem]
    in_folder = [given for given in named if Path(given).resolve().parent == file.resolve().parent]
    chosen = next((each for each in (named, in_folder, images) if len(each) == 1), None)
    if not (alone or named):
        return [None] * len(entries)
    if chosen is None:
        several = f"{len(images)} were given"
        if named:
            several = f"{len(named)} have its name ({', '.join(named[:2])})"
        raise ImageError(
            f"{file} does not say which picture it is of, and {several}: give it alone, or give "
            "the file the name of its picture"
        )
    return [chosen[0]] * len(entries)


def _tagged(found: list[AnnotatedImage], tag: str, file: Path) -> list[AnnotatedImage]:
    """The annotations that have a tag, with it as their label."""
    every = {each for image in found for one in image.outlines for each in one.tags}
    if tag not in every:
        names = sorted(every)
        has = ", ".join(names[:MOST_SHOWN]) + (", ..." if len(names) > MOST_SHOWN else "")
        has = has or "none; --label instead of --tag names such annotations"
        raise ImageError(f"{file} has no annotation with the tag '{tag}' (it has: {has})")
    return [
        replace(image, outlines=tuple(
            replace(one, tags=(tag, *(each for each in one.tags if each != tag)))
            for one in image.outlines if tag in one.tags
        ))
        for image in found
    ]  # fmt: skip


def _pieces(annotation: Annotation) -> list[Annotation]:
    """Its polygons as annotations of their own; as it is where only a box or a point is known."""
    if not annotation.is_outlined:
        return [annotation]
    try:
        polygons = polygons_of(annotation)
    except MaskError:  # said by what draws it
        return [annotation]
    return [replace(annotation, polygons=(each,), mask_rle=None) for each in polygons]


def _moved(annotation: Annotation) -> Annotation:
    """From coordinates of pixels' centres to those of their edges."""
    polygons = tuple(from_pixel_centres(polygon) for polygon in annotation.polygons)
    point = annotation.point_xy
    return replace(
        annotation,
        polygons=polygons,
        point_xy=None if point is None else (point[0] + 0.5, point[1] + 0.5),
    )
