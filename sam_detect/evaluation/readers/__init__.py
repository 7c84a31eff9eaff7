"""Annotated pictures in the formats of the field; one file per format."""

from __future__ import annotations

import os
from pathlib import Path

from sam_detect.errors import ConfigError, ImageError
from sam_detect.evaluation.dataset import Dataset
from sam_detect.sources import DEFAULT_MAX_PIXELS


def open_dataset(
    path: str | os.PathLike[str],
    images: str | os.PathLike[str] | None = None,
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Dataset:
    """Reads annotated pictures. No picture is decoded; label maps are.

    Args:
        path: a COCO JSON file; a folder with ``annotations.json``; a YOLO folder with
            ``data.yaml`` (or that file); or a folder with ``images/`` and label maps in
            ``masks/``.
        images: the folder of a COCO file's pictures; by default ``images/`` next to the file,
            if there is one, else the file's own folder.
        max_pixels: larger pictures are left out.

    Returns:
        The dataset. What could not be used is left out, and named in its ``problems``.

    Raises:
        ImageError: it cannot be read, is in no known format, or holds no object.
        ConfigError: ``images`` is given for a format that has the paths of its pictures.
        UnavailableError: the format needs an extra that is not installed.
    """
    given = Path(path)
    annotations = given / "annotations.json" if given.is_dir() else given
    if given.is_file() and given.suffix.lower() in (".yaml", ".yml"):
        return _yolo(given, images, max_pixels)
    if not given.is_dir() or annotations.exists():
        from sam_detect.evaluation.readers import coco

        folder = None if images is None else Path(images)
        return coco.read(annotations, folder, max_pixels=max_pixels)
    for name in ("data.yaml", "data.yml", "dataset.yaml"):
        if (given / name).exists():
            return _yolo(given / name, images, max_pixels)
    if (given / "images").is_dir() and (given / "masks").is_dir():
        from sam_detect.evaluation.readers import label_maps

        _refuse_images(images, given)
        return label_maps.read(given, max_pixels=max_pixels)
    raise ImageError(
        f"the folder {given} is no dataset: it needs annotations.json (COCO), data.yaml (YOLO), "
        "or label maps in masks/ next to images/"
    )


def _yolo(file: Path, images: str | os.PathLike[str] | None, max_pixels: int) -> Dataset:
    from sam_detect.evaluation.readers import yolo

    _refuse_images(images, file)
    return yolo.read(file, max_pixels=max_pixels)


def _refuse_images(images: str | os.PathLike[str] | None, path: Path) -> None:
    if images is not None:
        raise ConfigError(f"--images goes with a COCO file: {path} says itself where they are")
