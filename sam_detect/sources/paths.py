"""Which files a user means by a path, a folder or a pattern."""

from __future__ import annotations

import glob
import os
import re
from collections.abc import Iterable
from pathlib import Path

from sam_detect.errors import ImageError

FORMAT_EXTENSIONS: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "TIFF": (".tif", ".tiff"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "JPEG2000": (".jp2", ".j2k", ".jpx"),
    "AVIF": (".avif",),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "TGA": (".tga",),
}
"""Pillow's names of the formats that are read (by content), and the endings looked for in folders.

Only these: Pillow can open more, but some of those run other programs (EPS) or are no pictures.
"""

IMAGE_EXTENSIONS = tuple(ending for endings in FORMAT_EXTENSIONS.values() for ending in endings)


def find_images(argument: str | os.PathLike[str]) -> list[str]:
    """The picture files that ``argument`` names, each as the user would write it.

    * A file is itself, whatever its ending: what it holds is decided when it is read.
    * A folder is all picture files in it **and in the folders below it**, by ending
      (:data:`IMAGE_EXTENSIONS`). Hidden files and folders and linked folders are left out.
    * Anything else is a pattern (``*``, ``?``, ``[a-z]``, ``**`` for any depth) of which the
      picture files are taken, again by ending and without hidden ones.

    Folders and patterns come in natural order (``2.jpg`` before ``10.jpg``), folder by folder.

    Raises:
        ImageError: nothing was found, or a folder may not be read.
    """
    text = os.fspath(argument)
    if not text or "\0" in text:
        raise ImageError(f"{text!r} names no picture; give a file, a folder or a pattern")
    if os.path.isdir(text):
        found = _in_folder(text)
        if not found:
            raise ImageError(f"the folder '{text}' has no picture files ({_endings()})")
        return found
    if os.path.lexists(text):
        return [text]
    if not glob.has_magic(text):
        raise ImageError(f"'{text}' does not exist; give a picture file, a folder or a pattern")
    matches = [path for path in glob.glob(text, recursive=True) if os.path.isfile(path)]
    found = _sorted_naturally(path for path in matches if is_image_path(path))
    if not found:
        what = f"{len(matches)} files, none a picture" if matches else "nothing"
        raise ImageError(f"the pattern '{text}' matches {what} ({_endings()})")
    return found


def is_image_path(path: str | os.PathLike[str]) -> bool:
    """Whether the path ends like a picture file, in upper or lower case."""
    return Path(path).suffix.lower() in IMAGE_EXTENSIONS


def natural_key(path: str) -> tuple[tuple[tuple[int, int, str], ...], ...]:
    """Sorts numbers in names by value, and the files of a folder together."""
    return tuple(
        tuple(
            # ascii digits only: int() refuses or reinterprets others, such as '²'
            (0, int(piece), "") if re.fullmatch("[0-9]+", piece) else (1, 0, piece.casefold())
            for piece in re.split("([0-9]{1,18})", part)
            if piece
        )
        for part in Path(path).parts
    )


def _in_folder(folder: str) -> list[str]:
    def refuse(error: OSError) -> None:
        raise ImageError(
            f"the folder '{error.filename}' cannot be read: {error.strerror}; check its permissions"
        ) from error

    found = []
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        found += [
            os.path.join(parent, name)
            for name in files
            if not name.startswith(".") and is_image_path(name)
        ]
    return _sorted_naturally(found)


def _sorted_naturally(paths: Iterable[str]) -> list[str]:
    return sorted(paths, key=lambda path: (natural_key(path), path))


def _endings() -> str:
    return "looked for .jpg, .png, .tif, .webp, .bmp, ..."
