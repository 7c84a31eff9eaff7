"""A YOLO segmentation dataset: a text file of outlines for each image, and ``data.yaml``."""

from __future__ import annotations

import os
import secrets
import shutil
import tempfile
from collections.abc import Iterable, Sequence
from hashlib import sha256
from pathlib import Path, PurePosixPath

from PIL import Image

from sam_detect.errors import OutputError
from sam_detect.interfaces import Sink
from sam_detect.io.files import CLOSED, ONLY_ONE, RelativeNames, stem_of, writing_to
from sam_detect.types import Detections, Frame, Masks
from sam_detect.types.conversions import UNKNOWN_CATEGORY
from sam_detect.types.polygons import join_rings

LABELS, SETTINGS, IMAGES = "labels", "data.yaml", "images"
TRAIN, VAL = "train.txt", "val.txt"
HEADER = f"""\
# YOLO segmentation dataset, written by sam-detect.
# A fifth of the pictures, by a digest of their names, are there to validate.
train: {TRAIN}
val: {VAL}
"""
WITHOUT_PICTURES = "# Put the pictures into images/, as train.txt and val.txt name them.\n"
VAL_SHARE = 0.2
COPIED = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
"""Endings of pictures that all trainers read; others are written as PNG, as they were searched."""


class YOLOSink(Sink):
    """A folder with ``images/``, ``labels/``, ``data.yaml`` and a split, which trainers take as it
    is. It appears when the sink is closed.

    A label file has the image's name relative to the folder that all ``inputs`` have in common
    (to ``images/`` of the output folder if they lie there) and the extension ``.txt``. A row of it
    is an object: the class's number and the ``x y`` of its outline, relative to the image's size.
    An object with several parts or with holes is one outline, too: its parts are joined by lines
    that lead there and back. Classes are numbered from 0 in alphabetical order. Images are copied,
    unless they lie in ``images/`` already. Which of them are to train and which to validate depends
    on their names only.

    Args:
        output: the folder; it is made if needed. One that has labels already is refused, since
            numbers of classes differ from run to run.
        multiple: whether more than one image may come.
        inputs: the images being read.
        include_unknown: whether objects without a label are written, as class ``unknown``.
        labels: of the library, which are classes, too, where none of them was found.
        pictures: whether the images are copied.

    Raises:
        OutputError: here, in ``write`` and in ``close``, for what cannot be written, and for
            images that would share a label file.
    """

    def __init__(
        self,
        output: str | os.PathLike[str] | None = None,
        *,
        multiple: bool = False,
        inputs: Sequence[str | os.PathLike[str]] = (),
        include_unknown: bool = False,
        labels: Iterable[str] = (),
        pictures: bool = True,
    ) -> None:
        if not isinstance(output, (str, os.PathLike)):
            raise OutputError("a YOLO dataset cannot go to stdout; name a folder with --output")
        self._folder = Path(output)
        self._multiple = multiple
        self._include_unknown, self._labels, self._copies = include_unknown, {*labels}, pictures
        self._pictures: dict[PurePosixPath, str | None] = {}  # and what each is copied from
        self._drawn: tempfile.TemporaryDirectory[str] | None = None
        self._names = RelativeNames(inputs, folder=self._folder / IMAGES)
        self._rows: dict[PurePosixPath, list[tuple[str, str]]] = {}
        self._sources: dict[str, str] = {}
        self._closed = False
        with writing_to(self._folder):
            if os.path.lexists(self._folder) and not self._folder.is_dir():
                raise OutputError(
                    f"'{self._folder}' is a file; a YOLO dataset needs a folder as --output"
                )
            there = [LABELS] if self._are_in_place(inputs) else [LABELS, IMAGES]
            folders = [f for f in (self._folder / name for name in there) if f.is_dir()]
            if (self._folder / SETTINGS).exists() or any(any(f.iterdir()) for f in folders):
                raise OutputError(
                    f"'{self._folder}' holds a YOLO dataset already; name another folder with "
                    "--output, or remove what is in it"
                )
        for path in inputs:
            if os.path.isfile(path):
                self._label_file(os.fspath(path))

    def write(self, frame: Frame, detections: Detections) -> None:
        if self._closed:
            raise OutputError(CLOSED)
        if self._rows and not self._multiple:
            raise OutputError(ONLY_ONE)
        chosen = detections if self._include_unknown else detections.known
        file = self._label_file(detections.source_id)
        picture, original = self._picture(file, frame, detections.source_id)
        self._pictures[picture] = original
        self._rows[file] = [
            (UNKNOWN_CATEGORY if label is None else str(label), _row(chosen.masks, index))
            for index, label in enumerate(chosen.label)
        ]

    def close(self) -> list[Path]:
        if self._closed:
            return []
        self._closed = True
        if not self._rows and not self._multiple:  # its one image could not be read
            return []
        files = self._texts()
        copied = {name: source for name, source in self._pictures.items() if source is not None}
        staged = self._folder / f".sam-detect-{secrets.token_hex(8)}.tmp"
        try:
            with writing_to(self._folder):
                (staged / LABELS).mkdir(parents=True)
                for file, text in files.items():
                    _write(staged / file, text)
                for picture, source in copied.items():
                    (staged / picture).parent.mkdir(parents=True, exist_ok=True)
                    shutil.copyfile(source, staged / picture)
                for name in (LABELS, IMAGES):
                    if (staged / name).is_dir() and (self._folder / name).is_dir():  # and empty
                        (self._folder / name).rmdir()
                for name in sorted(os.listdir(staged), key=[SETTINGS].count):  # that one last
                    os.replace(staged / name, self._folder / name)
        finally:
            shutil.rmtree(staged, ignore_errors=True)
            if self._drawn is not None:
                self._drawn.cleanup()
        return [self._folder / file for file in [*files, *copied]]

    def _texts(self) -> dict[PurePosixPath, str]:
        """The content of each file of the dataset."""
        names = sorted({label for rows in self._rows.values() for label, _ in rows} | self._labels)
        numbers = {name: number for number, name in enumerate(names)}
        settings = HEADER if self._copies else HEADER + WITHOUT_PICTURES
        settings += "names:" + ("" if names else " {}") + "\n"
        settings += "".join(f"  {number}: {_quote(name)}\n" for name, number in numbers.items())
        labels = {
            PurePosixPath(LABELS, file): "".join(f"{numbers[name]} {row}\n" for name, row in rows)
            for file, rows in self._rows.items()
        }
        ranked = sorted(
            self._pictures, key=lambda p: sha256(str(p).encode("utf-8", "replace")).digest()
        )
        count = max(1, round(VAL_SHARE * len(ranked)))
        split = {VAL: {*ranked[:count]}, TRAIN: {*(ranked[count:] or ranked)}}
        lists = {
            PurePosixPath(name): "".join(f"./{p}\n" for p in self._pictures if p in chosen)
            for name, chosen in split.items()
        }
        return {PurePosixPath(SETTINGS): settings, **labels, **lists}

    def _are_in_place(self, inputs: Iterable[str | os.PathLike[str]]) -> bool:
        """Whether there are images, and all lie in the dataset's own folder of them."""
        place, paths = os.path.abspath(self._folder / IMAGES), [*map(os.path.abspath, inputs)]
        return bool(paths) and all(Path(each).is_relative_to(place) for each in paths)

    def _picture(
        self, label_file: PurePosixPath, frame: Frame, source: str
    ) -> tuple[PurePosixPath, str | None]:
        """The image of a label file, relative to the dataset, and the file that it is a copy of, if
        it is to be copied."""
        suffix = os.path.splitext(source)[1]
        plain = suffix.lower() in COPIED and os.path.isfile(source)
        here = self._are_in_place([source])
        ending = suffix if plain or here or not self._copies else ".png"
        picture = PurePosixPath(IMAGES, label_file.with_name(label_file.stem + ending))
        if here or not self._copies:
            return picture, None
        if plain:
            return picture, source
        with writing_to(self._folder):
            self._drawn = self._drawn or tempfile.TemporaryDirectory(prefix="sam-detect-")
            drawn = Path(self._drawn.name, f"{len(self._pictures)}.png")
            Image.fromarray(frame.image_rgb).save(drawn, compress_level=3)
        return picture, str(drawn)

    def _label_file(self, source_id: str) -> PurePosixPath:
        """The label file of an image, relative to ``labels``."""
        name = self._names.of(source_id)
        stem = PurePosixPath(
            stem_of(source_id) if name is None else name.rpartition(".")[0] or name
        )
        file = stem.with_name(stem.name + ".txt")
        other = self._sources.setdefault(str(file).casefold(), source_id)
        if other != source_id:
            raise OutputError(
                f"'{other}' and '{source_id}' would share the label file {file}: YOLO tells "
                "pictures apart by their names without the ending; rename one"
            )
        return file


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:
        file.write(text.encode())
        file.flush()
        os.fsync(file.fileno())


def _row(masks: Masks, index: int) -> str:
    """The outline of one object, relative to the image's size."""
    polygons = masks.polygons_with_holes(index)
    height, width = masks.size_hw
    relative = join_rings([ring for polygon in polygons for ring in polygon]) / (width, height)
    return " ".join(f"{value:.6g}" for value in relative.ravel().tolist())


def _quote(text: str) -> str:
    """A label as YAML's double-quoted text."""
    kept = (c if c.isprintable() and c not in '"\\' else f"\\U{ord(c):08X}" for c in text)
    return '"' + "".join(kept).encode("utf-8", "replace").decode() + '"'
