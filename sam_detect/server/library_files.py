"""A library as files: its archive, and its examples as annotations of their pictures."""

from __future__ import annotations

import os
import secrets
import tempfile
import threading
import zipfile
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from sam_detect.errors import LibraryError, NotFoundError
from sam_detect.io import natural_key
from sam_detect.io.files import stem_of
from sam_detect.library.example import label_of
from sam_detect.library.library import Library
from sam_detect.library.transfer import Imported, OnConflict, export_library, import_library
from sam_detect.registry import load_class
from sam_detect.types import Classification, Detections, Frame, Masks, Point
from sam_detect.types.masks import rle_to_crop

MOST_UPLOADS = 2
FORMATS = {
    "coco": "annotations.json", "yolo": "yolo", "labelme": "labelme", "geojson": "geojson",
    "imagej": "imagej", "labelmap": "labelmap", "nimbus": "nimbus", "jsonl": "annotations.jsonl",
    "counts": "counts.csv",
}  # fmt: skip
"""The formats that need no pixels of the pictures, and the file or folder of each in the zip."""


class LibraryTransfer:
    """Exports of a library, and uploads of exports. Safe for several threads.

    Args:
        library: is exported, and gets what is uploaded.

    Attributes:
        folder: for all of them; goes with this object.
    """

    def __init__(self, library: Library) -> None:
        self._library, self._lock = library, threading.Lock()
        self._temporary = tempfile.TemporaryDirectory(prefix="sam-detect-library-")
        self.folder = Path(self._temporary.name)
        self._uploads: dict[str, Path] = {}

    @contextmanager
    def export(self, name: str = "library") -> Iterator[Path]:
        """A zip of the library ("library"), or of its annotations in a format of
        :data:`FORMATS`; gone afterwards.

        Raises:
            LibraryNotFoundError: there are no examples yet.
            NotFoundError: no such format.
            OutputError: it cannot be written.
        """
        self._library.require()
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            if name == "library":
                file = Path(folder) / "library.zip"
                export_library(self._library, file)
                yield file
            else:
                yield export_annotations(self._library, name, Path(folder))

    def new_upload(self) -> Path:
        """Where an upload is to be written; give it to :meth:`check_upload` or remove it."""
        return self.folder / f"{secrets.token_hex(16)}.upload"

    def check_upload(self, path: Path) -> tuple[str, Imported]:
        """What importing an uploaded export would do. Changes nothing.

        Returns:
            The id of the upload for :meth:`import_upload`, and the plan. The last
            :data:`MOST_UPLOADS` uploads are kept.

        Raises:
            LibraryError: as :func:`~sam_detect.library.transfer.import_library`; the file is
                removed then.
        """
        try:
            plan = self._import(path, "keep", dry_run=True)
        except BaseException:
            path.unlink(missing_ok=True)
            raise
        with self._lock:
            self._uploads[path.stem] = path
            for old in list(self._uploads)[:-MOST_UPLOADS]:
                self._uploads.pop(old).unlink(missing_ok=True)
        return path.stem, plan

    def import_upload(self, upload: str, conflicts: OnConflict = "keep") -> Imported:
        """Adds the examples of an upload, all or none; raises as :meth:`check_upload`, and
        ``NotFoundError`` for an upload that is not kept."""
        with self._lock:
            path = self._uploads.get(upload)
        if path is None:
            raise NotFoundError("this upload is not kept any more: choose the file again")
        done = self._import(path, conflicts, dry_run=False)
        with self._lock:
            self._uploads.pop(upload, None)
        path.unlink(missing_ok=True)
        return done

    def _import(self, path: Path, conflicts: OnConflict, *, dry_run: bool) -> Imported:
        try:
            return import_library(self._library, path, conflicts=conflicts, dry_run=dry_run)
        except LibraryError as error:
            # Users know the name that the file had, not the one that it got here.
            raise type(error)(str(error).replace(str(path), "the file")) from error


def export_annotations(library: Library, name: str, folder: Path) -> Path:
    """Writes the positive examples of a library in a format, as a zip.

    Args:
        name: one of :data:`FORMATS`.
        folder: an empty one for the files.

    Returns:
        The zip, in ``folder``.

    Raises:
        NotFoundError: there is no such format.
        OutputError: the files cannot be written.
    """
    if name not in FORMATS:
        raise NotFoundError(f"there is no format '{name}': {', '.join(FORMATS)}")
    content = folder / "content"
    content.mkdir()
    # A library from elsewhere may name any file: none is copied because a library names it.
    given = {"pictures": False} if name == "yolo" else {}
    sink = load_class("format", name)(content / FORMATS[name], multiple=True, **given)
    for frame, found in annotated_pictures(library):
        sink.write(frame, found)
    sink.close()
    target = folder / f"{name}.zip"
    with zipfile.ZipFile(target, "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(each for each in content.rglob("*") if each.is_file()):
            archive.write(path, path.relative_to(content).as_posix())
    return target


def annotated_pictures(library: Library) -> Iterator[tuple[Frame, Detections]]:
    """Each picture with the outlines of its positive examples, in natural order, named relative to
    the folder that all have in common. The frames are black: a library does not have the pixels.

    Different pictures of one name (all arrays are called ``array``) get the beginning of their
    digest added to it.
    """
    groups: dict[tuple[str, tuple[int, int]], list[Point]] = {}
    for point in library.listing():
        data = point.payload
        if not data["negative"]:
            height, width = data["segmentation"]["size"]
            key = data["picture"] or data["source"]
            groups.setdefault((key, (height, width)), []).append(point)
    stems = Counter(stem_of(points[0].payload["source"]) for points in groups.values())
    folders = {os.path.dirname(points[0].payload["source"]) for points in groups.values()}
    common = os.path.commonpath(folders) if all(map(os.path.isabs, folders)) and folders else ""
    ordered = sorted(groups.items(), key=lambda each: natural_key(each[1][0].payload["source"]))
    for (key, size_hw), points in ordered:
        source = points[0].payload["source"]
        source = os.path.relpath(source, common) if common else source
        if stems[stem_of(source)] > 1:
            path = Path(source)
            name = f"{stem_of(source)[:40]}-{key[:8]}{path.suffix}"
            source = str(path.parent / name)  # its own name may be empty
        yield _annotated(source, size_hw, points)


def _annotated(source: str, size_hw: tuple[int, int], points: list[Point]) -> tuple[Frame, Any]:
    outlines = [rle_to_crop(point.payload["segmentation"]) for point in points]
    masks = Masks.from_crops(
        size_hw=size_hw, boxes_xyxy=[box for box, _ in outlines], crops=[c for _, c in outlines]
    )
    labels = [label_of(point)[0] for point in points]
    said = tuple(Classification(label, label, 1.0, taught=True) for label in labels)
    black = np.broadcast_to(np.zeros(3, np.uint8), (*size_hw, 3))
    return Frame(black, source), Detections(source, masks, said)
