"""Which files a user means by a path, a folder or a pattern."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
from collections.abc import Iterable, Iterator, Sequence
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
    matches = [path for path in dict.fromkeys(_matching(text)) if os.path.isfile(path)]
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


def _matching(pattern: str) -> Iterator[str]:
    """The paths that a pattern names, as ``glob`` gives them, but for linked folders: ``**`` does
    not enter them, and no path goes twice through one folder. (Two links of a folder to itself
    make more than 10**12 paths for ``glob``.)"""
    parts = re.split(r"[\\/]+" if os.name == "nt" else "/+", pattern)
    first = next(number for number, part in enumerate(parts) if glob.has_magic(part))
    start = "/".join(parts[:first])
    start = start or ("/" if first else "")
    here = os.stat(start or ".") if os.path.isdir(start or ".") else None
    if here is not None:
        yield from _expanded(start, parts[first:], ((here.st_dev, here.st_ino),))


def _expanded(
    folder: str, parts: Sequence[str], through: tuple[tuple[int, int], ...]
) -> Iterator[str]:
    """The paths below a folder that the parts name.

    Args:
        through: device and inode of the folder and of those above it.
    """
    part, rest = parts[0], parts[1:]
    try:
        entries = sorted(os.scandir(folder or "."), key=lambda entry: entry.name)
    except OSError:
        return
    if part == "**" and rest:
        yield from _expanded(folder, rest, through)
    for entry in entries:
        path = os.path.join(folder, entry.name)
        hidden = entry.name.startswith(".") and not part.startswith(".")
        fits = part == "**" or fnmatch.fnmatch(entry.name, part)
        if hidden or not fits:
            continue
        if not rest:
            yield path
        try:
            if not entry.is_dir(follow_symlinks=part != "**"):
                continue
            found = entry.stat()
        except OSError:  # a link to itself, or one that leads nowhere
            continue
        place = found.st_dev, found.st_ino
        if place not in through:
            further = parts if part == "**" else rest
            if further:
                yield from _expanded(path, further, (*through, place))


def _sorted_naturally(paths: Iterable[str]) -> list[str]:
    return sorted(paths, key=lambda path: (natural_key(path), path))


def _endings() -> str:
    return "looked for .jpg, .png, .tif, .webp, .bmp, ..."
