"""Picture files: where they go, and writing them whole."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterable
from pathlib import Path
from typing import IO, Any

from PIL import Image

from sam_detect.errors import OutputError
from sam_detect.outputs._atomic import cannot_write, write_atomically
from sam_detect.types import ImageRGB

WRITERS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {"compress_level": 3}),  # 6, the default, takes thrice as long for 3 % less
    ".jpg": ("JPEG", {"quality": 92, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 92, "subsampling": 0}),
    ".webp": ("WEBP", {"quality": 90}),
    ".tif": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".bmp": ("BMP", {}),
}
"""Pillow's format and options by ending."""

FOLDER_ENDING = ".png"


class PicturePaths:
    """The file for each picture: the one that was named, or one in a folder for each stem.

    Raises:
        OutputError: nothing or a file of an unknown ending is named, or one file for many pictures.
    """

    def __init__(self, output: str | os.PathLike[str] | None, *, multiple: bool) -> None:
        if output is None:
            raise OutputError("pictures cannot be written to stdout; name a file with --output")
        text = os.fspath(output)
        self._output = Path(text)
        self._multiple = multiple
        self._used: set[str] = set()
        exists = os.path.isdir(text)  # pathlib's raises for a name that is too long
        self._is_folder = multiple or exists or text.endswith(("/", os.sep))
        if self._is_folder and not exists and os.path.lexists(text):
            raise OutputError(f"'{text}' is a file, expected a folder for several pictures")
        if multiple and not exists and self._output.suffix.lower() in WRITERS:
            raise OutputError(f"'{text}' names one picture, expected a folder for several")
        if not self._is_folder:
            check_ending(self._output)

    def path_for(self, source_id: str) -> Path:
        """The path for the next picture; raises ``OutputError`` for a second one where one fits."""
        if self._used and not self._multiple:
            raise OutputError("this output was made for one picture; say multiple=True for more")
        if not self._is_folder:
            self._used.add("")
            return self._output
        stem = stem_of(source_id)
        name, number = stem, 1
        while name.casefold() in self._used:  # some file systems know no upper and lower case
            number += 1
            name = f"{stem}-{number}"
        self._used.add(name.casefold())
        return self._output / (name + FOLDER_ENDING)


class RelativeNames:
    """Names of the pictures being read below the folder that they have in common, with ``/``.

    Args:
        inputs: the pictures; what is no file (``-``) has no folder.
        folder: the folder to begin at, where all pictures lie below it.
    """

    def __init__(
        self, inputs: Iterable[str | os.PathLike[str]], *, folder: Path | None = None
    ) -> None:
        files = [os.path.abspath(path) for path in inputs if os.path.isfile(path)]
        self._folder: str | None = None
        with contextlib.suppress(ValueError):  # no files, or on several drives
            self._folder = os.path.commonpath([os.path.dirname(path) for path in files])
        if folder is not None and self._folder is not None:
            named = os.path.abspath(folder)
            if Path(self._folder).is_relative_to(named):
                self._folder = named

    def of(self, source_id: str) -> str | None:
        """The name of one picture; None for what lies elsewhere or is no file."""
        if self._folder is None or not os.path.isfile(source_id):
            return None
        path = Path(os.path.abspath(source_id))
        below = path.is_relative_to(self._folder)
        return path.relative_to(self._folder).as_posix() if below else None


def check_ending(path: Path) -> None:
    """Raises ``OutputError`` where the path's ending names no picture format we write."""
    if path.suffix.lower() not in WRITERS:
        ending = f"the ending '{path.suffix}'" if path.suffix else "no ending"
        raise OutputError(f"'{path}' has {ending}, expected a picture's: {', '.join(WRITERS)}")


def write_image(path: str | os.PathLike[str], image_rgb: ImageRGB) -> Path:
    """Writes a picture in the format of the path's ending, whole or not at all.

    Args:
        path: ends in .png, .jpg, .jpeg, .webp, .tif, .tiff or .bmp; missing folders are made.
        image_rgb: ``(H, W, 3)`` uint8, RGB.

    Raises:
        OutputError: another ending, or the file cannot be written.
    """
    target = Path(path)
    check_ending(target)
    format_name, options = WRITERS[target.suffix.lower()]

    def save(file: IO[bytes]) -> None:
        try:
            Image.fromarray(image_rgb).save(file, format=format_name, **options)
        except (ValueError, RuntimeError) as error:  # more pixels a side than the format can hold
            raise cannot_write(target, error) from error

    return write_atomically(target, save)


def stem_of(source_id: str) -> str:
    """A file name from a picture's name: no folders, nothing hidden, nothing a system refuses."""
    name = Path(source_id.replace("\\", "/")).name
    stem = name.rpartition(".")[0] or name
    kept = "".join("_" if c in '<>:"|?*\\/' or ord(c) < 32 else c for c in stem)
    return kept.lstrip(".").strip()[:150] or "picture"
