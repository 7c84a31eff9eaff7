"""Output files: complete or absent, never over an input, with names that every system accepts."""

from __future__ import annotations

import contextlib
import os
import secrets
import stat
import weakref
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import IO, Any, BinaryIO

from PIL import Image

from sam_detect.errors import OutputError
from sam_detect.types import Frame, ImageRGB, Location

IMAGE_FORMATS: dict[str, tuple[str, dict[str, Any]]] = {
    ".png": ("PNG", {"compress_level": 3}),  # 6, the default, takes three times as long for 3 %
    ".jpg": ("JPEG", {"quality": 92, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 92, "subsampling": 0}),
    ".webp": ("WEBP", {"quality": 90}),
    ".tif": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".bmp": ("BMP", {}),
}
"""Pillow's format and options by file extension."""

CLOSED = "this output is closed already; make a new one"
ONLY_ONE = "this output was made for one picture; say multiple=True for more"
FOLDER_EXTENSION = ".png"
"""Of images that are written into a folder."""
PICTURES = (FOLDER_EXTENSION, *IMAGE_FORMATS)


class AtomicFile:
    """A file that appears at ``path``, complete, when :meth:`commit` is called.

    Until then its bytes are in a hidden file in the same folder, which is removed by
    :meth:`discard`. Missing parent folders are made. A symbolic link is written through. A device
    or pipe (such as ``/dev/stdout``) is written to directly, since it must not be replaced.

    Raises:
        OutputError: the path is a folder, or cannot be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self._target = Path(os.path.realpath(path))
        self._temporary: Path | None = None
        try:
            mode = self._target.stat().st_mode if self._target.exists() else None
            if mode is not None and stat.S_ISDIR(mode):
                raise OutputError(f"'{path}' is a folder; name a file in it to write to")
            if mode is None or stat.S_ISREG(mode):
                self._target.parent.mkdir(parents=True, exist_ok=True)
                self._temporary = self._target.with_name(f".sam-detect-{secrets.token_hex(8)}.tmp")
                # not tempfile: that makes files which only their owner may read
                flags = os.O_CREAT | os.O_EXCL | os.O_WRONLY | getattr(os, "O_BINARY", 0)
                self.file: BinaryIO = os.fdopen(os.open(self._temporary, flags, 0o666), "wb")
                if mode is not None:
                    os.chmod(self._temporary, stat.S_IMODE(mode))
            else:
                self.file = open(self._target, "wb", buffering=0)  # noqa: SIM115
        except (OSError, ValueError) as error:
            raise cannot_write(path, error) from error
        self._discard = weakref.finalize(self, _discard, self.file, self._temporary)

    @property
    def folder(self) -> Path | None:
        """Folder of the hidden file; None if the bytes are written directly."""
        return None if self._temporary is None else self._temporary.parent

    def write(self, data: bytes) -> None:
        with writing_to(self.path):
            self.file.write(data)

    def commit(self) -> Path:
        """Puts the file in place and returns its path; where that fails, it is discarded."""
        try:
            with writing_to(self.path):
                self.file.flush()
                if self._temporary is not None:
                    os.fsync(self.file.fileno())
                    self.file.close()
                    os.replace(self._temporary, self._target)
                self._discard.detach()
                self.file.close()
        except BaseException:
            self.discard()
            raise
        return self.path

    def discard(self) -> None:
        """Drops what was written; nothing changes at ``path``."""
        self._discard()


def _discard(file: BinaryIO, temporary: Path | None) -> None:
    with contextlib.suppress(OSError):
        file.close()
    if temporary is not None:
        with contextlib.suppress(OSError):
            temporary.unlink()


def write_atomically(path: Path, write: Callable[[IO[bytes]], Any]) -> Path:
    """Has ``write`` fill a file that then appears at ``path``; raises ``OutputError``."""
    output = AtomicFile(path)
    try:
        with writing_to(path):
            write(output.file)
        return output.commit()
    finally:
        output.discard()


@contextlib.contextmanager
def writing_to(path: Path | str) -> Iterator[None]:
    """Turns an ``OSError`` into an ``OutputError``; a closed pipe stays a ``BrokenPipeError``."""
    try:
        yield
    except BrokenPipeError:
        raise
    except OSError as error:
        raise cannot_write(path, error) from error


def cannot_write(path: Path | str, error: Exception) -> OutputError:
    reason = getattr(error, "strerror", None) or " ".join(str(error).split())
    return OutputError(f"cannot write {str(path)!r}: {reason}; choose another place with --output")


class InputGuard:
    """Knows the files being read, so that none of them is overwritten."""

    def __init__(self, inputs: Iterable[str | os.PathLike[str]]) -> None:
        self._identities: set[tuple[int, int]] = set()
        for path in inputs:
            self.add(path)

    def add(self, path: str | os.PathLike[str]) -> None:
        if (identity := _identity(path)) is not None:
            self._identities.add(identity)

    def check(self, path: Path) -> None:
        """Raises ``OutputError`` if writing ``path`` would overwrite one."""
        if _identity(path) in self._identities:
            raise OutputError(f"'{path}' is being read; choose another name with --output")


def _identity(path: str | os.PathLike[str]) -> tuple[int, int] | None:
    """What a file is under all its names, links included; None if it does not exist."""
    try:
        found = os.stat(path)
    except (OSError, ValueError):
        return None
    return (found.st_dev, found.st_ino) if stat.S_ISREG(found.st_mode) else None


class ImagePaths:
    """The file for each image: the one that was named, or one per stem in a folder.

    Args:
        output: the file or folder.
        multiple: whether more than one image may come.
        extensions: a file's in this format; the first is that of files in a folder. By default
            those of pictures.

    Raises:
        OutputError: no file is named, its extension is unknown, or it is one file for many images.
    """

    def __init__(
        self,
        output: str | os.PathLike[str] | None,
        *,
        multiple: bool,
        extensions: tuple[str, ...] = PICTURES,
    ) -> None:
        if not isinstance(output, (str, os.PathLike)):
            what = "pictures" if extensions == PICTURES else "annotations of pictures"
            raise OutputError(f"{what} cannot be written to stdout; name a file with --output")
        text = os.fspath(output)
        self._output = Path(text)
        self._multiple = multiple
        self._extension = extensions[0]
        self._used: set[str] = set()
        exists = os.path.isdir(text)  # pathlib raises for a name that is too long
        self._is_folder = multiple or exists or text.endswith(("/", os.sep))
        if self._is_folder and not exists and os.path.lexists(text):
            raise OutputError(f"'{text}' is a file, expected a folder for several pictures")
        if multiple and not exists and self._output.suffix.lower() in extensions:
            what = "one picture" if extensions == PICTURES else "one file"
            raise OutputError(f"'{text}' names {what}, expected a folder for several")
        if not self._is_folder and extensions == PICTURES:
            check_extension(self._output)

    def path_for(self, source_id: str) -> Path:
        """The path for the next image; raises ``OutputError`` for a second one if one fits."""
        if self._used and not self._multiple:
            raise OutputError(ONLY_ONE)
        if not self._is_folder:
            self._used.add("")
            return self._output
        stem = stem_of(source_id)
        name, number = stem, 1
        while name.casefold() in self._used:  # some file systems ignore case
            number += 1
            name = f"{stem}-{number}"
        self._used.add(name.casefold())
        return self._output / (name + self._extension)

    def path_for_frame(self, frame: Frame) -> Path:
        """As :meth:`path_for`, with the plane in the name for one of a stack."""
        if frame.location is None:
            return self.path_for(frame.source_id)
        return self.path_for(f"{stem_of(frame.source_id)}{plane_suffix(frame.location)}.tif")


def plane_suffix(location: Location) -> str:
    """What a file of one plane has in its name, with numbers from 1."""
    xy, z, t = (number + 1 for number in location)
    return f"_xy{xy}_z{z}_t{t}"


class RelativeNames:
    """Names of the input images relative to the folder that they have in common, with ``/``.

    Args:
        inputs: the images; what is no file (``-``) has no folder.
        folder: the folder to start at, if all images lie below it.
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
        """The name of one image; None if it lies elsewhere or is no file."""
        if self._folder is None or not os.path.isfile(source_id):
            return None
        path = Path(os.path.abspath(source_id))
        below = path.is_relative_to(self._folder)
        return path.relative_to(self._folder).as_posix() if below else None


def check_extension(path: Path) -> None:
    """Raises ``OutputError`` if the path's extension names no image format that we write."""
    if path.suffix.lower() not in IMAGE_FORMATS:
        ending = f"the ending '{path.suffix}'" if path.suffix else "no ending"
        raise OutputError(
            f"'{path}' has {ending}, expected a picture's: {', '.join(IMAGE_FORMATS)}"
        )


def write_image(path: str | os.PathLike[str], image_rgb: ImageRGB) -> Path:
    """Writes an image in the format of the path's extension, atomically.

    Args:
        path: ends in .png, .jpg, .jpeg, .webp, .tif, .tiff or .bmp; missing folders are made.
        image_rgb: ``(H, W, 3)`` uint8, RGB.

    Raises:
        OutputError: another extension, or the file cannot be written.
    """
    target = Path(path)
    check_extension(target)
    format_name, options = IMAGE_FORMATS[target.suffix.lower()]

    def save(file: IO[bytes]) -> None:
        try:
            Image.fromarray(image_rgb).save(file, format=format_name, **options)
        except (ValueError, RuntimeError) as error:  # more pixels a side than the format can hold
            raise cannot_write(target, error) from error

    return write_atomically(target, save)


def stem_of(source_id: str) -> str:
    """A file stem from a source's name: no folders, not hidden, no reserved characters."""
    name = Path(source_id.replace("\\", "/")).name
    stem = name.rpartition(".")[0] or name
    kept = "".join("_" if c in '<>:"|?*\\/' or ord(c) < 32 else c for c in stem)
    # File systems count bytes.
    short = kept.lstrip(".").strip()[:150].encode("utf-8", "surrogatepass")[:200]
    return short.decode("utf-8", "ignore") or "picture"
