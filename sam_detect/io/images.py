"""Paths, arrays and Pillow images to ``Frame``s; and which files a folder or a pattern means."""

from __future__ import annotations

import fnmatch
import glob
import os
import re
import warnings
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sam_detect.errors import ImageError
from sam_detect.io._readers import FORMAT_EXTENSIONS, NOT_READ, quiet_readers
from sam_detect.io.decoding import (
    DEFAULT_MAX_PIXELS,
    MAX_BYTES,
    PictureFile,
    check_pixels,
)
from sam_detect.io.pixels import (
    ColorOrder,
    Stretch,
    alpha_mask,
    array_to_rgb,
    own_stretch,
    picture_to_rgb,
)
from sam_detect.io.stacks import Plane, first_plane
from sam_detect.io.zarr_stacks import is_zarr
from sam_detect.types import Frame
from sam_detect.types.masks import BoolArray

IMAGE_EXTENSIONS = tuple(ending for endings in FORMAT_EXTENSIONS.values() for ending in endings)
LOOKED_FOR = "looked for .jpg, .png, .tif, .webp, .bmp, ..."


def load_image(
    path: str | os.PathLike[str],
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    index: int = 0,
    stretch: Stretch = own_stretch,
) -> Frame:
    """A picture file as a frame: RGB uint8, upright by its EXIF orientation.

    The format is told by the content, whatever the file's ending. Of an animation or a stack it
    is the first picture, and of channels that are no colours the first: a ``UserWarning`` and the
    frame's ``left_out`` say what was not read. Transparency shows a white page; 16-bit and float
    pictures are brought to 8 bits by :func:`sam_detect.io.pixels.to_8_bits`.

    Args:
        path: the file; becomes the frame's ``source_id`` as it is given.
        max_pixels: larger pictures are refused before they are decoded.
        index: the frame's position in its source.
        stretch: see :func:`sam_detect.io.pixels.to_8_bits`.

    Of an OME-Zarr, a folder, it is the first plane, which has a location.

    Raises:
        ImageError: the file is missing, unreadable, empty, damaged, too large or no picture.
    """
    name = os.fspath(path)
    if is_zarr(name):
        plane, left_out = first_plane(name, max_pixels=max_pixels)
        _warn_of_others(name, left_out)
        return replace(plane.read(max_pixels=max_pixels, index=index), left_out=left_out)
    return _first_frame(PictureFile(name, None, max_pixels), index, stretch)


def load_image_bytes(
    data: bytes, *, source_id: str = "-", max_pixels: int = DEFAULT_MAX_PIXELS
) -> Frame:
    """As :func:`load_image`, of a file's content: what came by stdin or was uploaded."""
    return _first_frame(PictureFile(source_id, data, max_pixels))


def _first_frame(picture: PictureFile, index: int = 0, stretch: Stretch = own_stretch) -> Frame:
    rgb, contents = picture.rgb(stretch)
    left_out = contents.left_out
    _warn_of_others(picture.name, left_out)
    return Frame(image_rgb=rgb, source_id=picture.name, index=index, left_out=left_out,
                 pixel_size_um=contents.pixel_size_um)  # fmt: skip


def _warn_of_others(name: str, left_out: str) -> None:
    """Says what of a file was not read, and how to read it."""
    if not left_out:
        return
    how = "to use another one, save it as a file of its own"
    if Path(name).suffix.lower() in (*FORMAT_EXTENSIONS["TIFF"], ".zarr"):
        how = "detect reads others with --z, --t, --xy and --channel"
    warnings.warn(f"{name}: {left_out}; {how}", stacklevel=4)


def picture_size(
    path: str | os.PathLike[str], *, max_pixels: int = DEFAULT_MAX_PIXELS
) -> tuple[int, int]:
    """Height and width of what :func:`load_image` gives, without decoding the pixels.

    Raises ``ImageError`` as :func:`load_image` does, but for damage behind the file's header.
    """
    name = os.fspath(path)
    if is_zarr(name):
        plane, _ = first_plane(name, max_pixels=max_pixels)
        height, width, _ = plane.values(max_pixels=max_pixels).shape
        return height, width
    return PictureFile(name, None, max_pixels).size_hw()


def is_turned(path: str) -> bool:
    """Whether a picture's EXIF orientation exchanges its sides."""
    return not is_zarr(path) and PictureFile(path).is_turned()


def cut_out_object(image: Any, *, max_pixels: int = DEFAULT_MAX_PIXELS) -> BoolArray | None:
    """The ``(H, W)`` mask of the object that the transparency of a picture (a Pillow image, a path)
    cuts out, or None; arrays have no transparency.

    Lies on the picture of :func:`to_frame` pixel by pixel. The rule is
    :func:`sam_detect.io.pixels.alpha_mask`'s.
    """
    if isinstance(image, Image.Image):
        return alpha_mask(image)
    data = _content(image)
    if data is not None:
        return PictureFile("bytes", data, max_pixels).alpha_mask()
    if isinstance(image, (str, os.PathLike)) and not is_zarr(image):
        return PictureFile(os.fspath(image), None, max_pixels).alpha_mask()
    return None


def to_frame(
    image: Any,
    *,
    color_order: ColorOrder = "bgr",
    source_id: str | None = None,
    max_pixels: int = DEFAULT_MAX_PIXELS,
) -> Frame:
    """Any picture as a frame.

    Args:
        image: a path (see :func:`load_image`), a file's content as bytes or as a file object
            that is open for reading bytes, a Pillow image of any mode, a ``Frame`` (given
            back as it is), a plane of a stack, or a numpy array as
            :func:`~sam_detect.io.pixels.array_to_rgb` takes it. The frame shares no memory
            with an array.
        color_order: order of an *array's* colours: ``bgr``, as OpenCV gives them, or ``rgb``.
        source_id: the frame's name; by default the path, the Pillow image's file, or ``array``.
        max_pixels: larger files and Pillow images are refused before they are decoded.

    A Pillow image is taken as it lies in memory, so that masks and boxes fit what its owner sees:
    its EXIF orientation is not applied (``PIL.ImageOps.exif_transpose`` does), as it is for a path.

    Raises:
        ImageError: it is no picture, or one that cannot be used.
    """
    if color_order not in ("bgr", "rgb"):
        raise ImageError(f"color_order must be 'bgr' or 'rgb', got {color_order!r}")
    if isinstance(image, Frame):
        return image
    if isinstance(image, Plane):
        return image.read(max_pixels=max_pixels)
    if isinstance(image, (str, os.PathLike)):
        frame = load_image(image, max_pixels=max_pixels)
        return frame if source_id is None else replace(frame, source_id=source_id)
    if isinstance(image, Image.Image):
        return _frame_of_picture(image, source_id, max_pixels)
    data = _content(image)
    if data is not None:
        name = getattr(image, "name", None)
        name = source_id or (name if isinstance(name, str) else "bytes")
        return load_image_bytes(data, source_id=name, max_pixels=max_pixels)
    if isinstance(image, np.ndarray):
        name = source_id or "array"
        return Frame(array_to_rgb(np.asarray(image), color_order=color_order, name=name), name)
    raise ImageError(
        "a picture is a path, bytes, an open file, a PIL image or a numpy array, got "
        f"{type(image).__name__}"
        + ("; use numpy.asarray on it" if hasattr(image, "__array__") else "")
    )


def _content(image: Any) -> bytes | None:
    """The bytes of bytes and of an open file, from its beginning; None of what is neither.

    Raises:
        ImageError: a file that was opened as text.
    """
    if isinstance(image, (bytes, bytearray, memoryview)):
        return bytes(image)
    if not callable(getattr(image, "read", None)) or isinstance(image, Plane):
        return None
    if callable(getattr(image, "seekable", None)) and image.seekable():
        image.seek(0)
    data = image.read(MAX_BYTES + 1)
    if not isinstance(data, bytes):
        raise ImageError("a picture's file must be opened for bytes: open(path, 'rb')")
    return data


def _frame_of_picture(image: Image.Image, source_id: str | None, max_pixels: int) -> Frame:
    name = source_id or str(getattr(image, "filename", "") or "array")
    try:
        with quiet_readers():
            check_pixels(image.size, max_pixels, name)
            return Frame(picture_to_rgb(image, name), name)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # a lazily opened image meets its damage only now
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        raise ImageError(f"the picture '{name}' is damaged or closed ({detail})") from error


def find_images(argument: str | os.PathLike[str]) -> list[str]:
    """The picture files that ``argument`` names, each as the user would write it.

    * A file is itself, whatever its ending: what it holds is decided when it is read.
    * An OME-Zarr, a folder, is itself, and so are those below other folders.
    * A folder is all picture files in it **and in the folders below it**, by ending
      (:data:`IMAGE_EXTENSIONS`). Hidden files and folders and linked folders are left out.
    * Anything else is a pattern (``*``, ``?``, ``[a-z]``, ``**`` for any depth) of which the
      picture files are taken, again by ending and without hidden ones.

    Of a folder or pattern a ``UserWarning`` says how many files end like pictures that cannot be
    read (camera raw files, slides in formats of one maker).

    Folders and patterns come in natural order (``2.jpg`` before ``10.jpg``), folder by folder.

    Raises:
        ImageError: nothing was found, or a folder may not be read.
    """
    text = os.fspath(argument)
    if not text or "\0" in text:
        raise ImageError(f"{text!r} names no picture; give a file, a folder or a pattern")
    if is_zarr(text):
        return [text]
    if os.path.isdir(text):
        return _readable(_in_folder(text), text, f"the folder '{text}' has no picture files")
    if os.path.lexists(text):
        return [text]
    if not glob.has_magic(text):
        raise ImageError(f"'{text}' does not exist; give a picture file, a folder or a pattern")
    matches = [path for path in dict.fromkeys(_matching(text)) if os.path.isfile(path)]
    what = f"{len(matches)} files, none a picture" if matches else "nothing"
    return _readable(matches, text, f"the pattern '{text}' matches {what}")


def _readable(paths: list[str], text: str, nothing: str) -> list[str]:
    """Those of files that end like pictures, sorted; says how many others are pictures.

    Raises:
        ImageError: there are none.
    """
    found = [path for path in paths if is_image_path(path) or is_zarr(path)]
    endings = (Path(path).suffix.lower() for path in paths)
    others = Counter(ending for ending in endings if ending in NOT_READ)
    said = ", ".join(f"{count} {ending}" for ending, count in others.most_common())
    if not found:
        also = f"; {said} cannot be read, export them as TIFF or JPEG" if others else ""
        raise ImageError(f"{nothing} ({LOOKED_FOR}){also}")
    if others:
        warnings.warn(
            f"{text}: {others.total()} of {others.total() + len(found)} pictures are passed over, "
            f"since they cannot be read ({said}); export them as TIFF or JPEG",
            stacklevel=3,
        )
    return _sorted_naturally(found)


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
    """Its files and OME-Zarrs, without hidden ones."""

    def refuse(error: OSError) -> None:
        raise ImageError(
            f"the folder '{error.filename}' cannot be read: {error.strerror}; check its permissions"
        ) from error

    found, linked, root = [], list[str](), os.path.realpath(folder)
    for parent, folders, files in os.walk(folder, onerror=refuse):
        folders[:] = [name for name in folders if not name.startswith(".")]
        linked += [path for name in folders if os.path.islink(path := os.path.join(parent, name))
                   and not Path(os.path.realpath(path)).is_relative_to(root)
                   and not is_zarr(path)]  # fmt: skip
        stacks = [name for name in folders if is_zarr(os.path.join(parent, name))]
        found += [os.path.join(parent, name) for name in stacks]
        folders[:] = [name for name in folders if name not in stacks]
        found += [os.path.join(parent, name) for name in files if not name.startswith(".")]
    if linked:  # a link may lead round in a circle
        warnings.warn(
            f"{folder}: linked folders are not searched ({', '.join(linked[:3])}"
            f"{', ...' if len(linked) > 3 else ''}): give them as well",
            stacklevel=4,
        )
    return found


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
