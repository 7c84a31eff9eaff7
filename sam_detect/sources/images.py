"""What a user gives (a path, an array, a Pillow image) to ``Frame``s."""

from __future__ import annotations

import os
import warnings
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from sam_detect.errors import ImageError
from sam_detect.interfaces import Source
from sam_detect.masks import BoolArray
from sam_detect.sources import decoding
from sam_detect.sources._pillow import quiet_readers
from sam_detect.sources.paths import find_images
from sam_detect.sources.pixels import ColorOrder, alpha_mask, array_to_rgb, picture_to_rgb
from sam_detect.sources.scaling import Stretch, own_stretch
from sam_detect.types import Frame

DEFAULT_MAX_PIXELS = 200_000_000
DEFAULT_MAX_BYTES = 2_000_000_000


def load_image(
    path: str | os.PathLike[str],
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    max_bytes: int = DEFAULT_MAX_BYTES,
    index: int = 0,
    stretch: Stretch = own_stretch,
) -> Frame:
    """A picture file as a frame: RGB uint8, upright by its EXIF orientation.

    The format is told by the content, whatever the file's ending. Of an animation or a stack it
    is the first picture, and of channels that are no colours the first: a ``UserWarning`` and the
    frame's ``left_out`` say what was not read. Transparency shows a white page; 16-bit and float
    pictures are brought to 8 bits by :func:`sam_detect.sources.scaling.to_8_bits`.

    Args:
        path: the file; becomes the frame's ``source_id`` as it is given.
        max_pixels: larger pictures are refused before they are decoded.
        max_bytes: larger files are refused before they are opened.
        index: the frame's position in its source.
        stretch: see :func:`sam_detect.sources.scaling.to_8_bits`.

    Raises:
        ImageError: the file is missing, unreadable, empty, damaged, too large or no picture.
    """
    name = os.fspath(path)
    origin = decoding.Origin(name)
    rgb, left_out = decoding.read_rgb(
        origin, max_pixels=max_pixels, max_bytes=max_bytes, stretch=stretch
    )
    _warn_of_what_is_left_out(name, left_out)
    return Frame(image_rgb=rgb, source_id=name, index=index, left_out=left_out)


def _warn_of_what_is_left_out(name: str, left_out: str) -> None:
    if left_out:
        warnings.warn(
            f"{name}: {left_out}; to use another one, save it as a file of its own",
            stacklevel=3,
        )


def load_image_bytes(
    data: bytes,
    *,
    source_id: str = "-",
    max_pixels: int = DEFAULT_MAX_PIXELS,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> Frame:
    """As :func:`load_image`, of a file's content: what came by stdin or was uploaded."""
    origin = decoding.Origin(source_id, data)
    rgb, left_out = decoding.read_rgb(origin, max_pixels=max_pixels, max_bytes=max_bytes)
    _warn_of_what_is_left_out(source_id, left_out)
    return Frame(image_rgb=rgb, source_id=source_id, left_out=left_out)


def picture_size(
    path: str | os.PathLike[str],
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> tuple[int, int]:
    """Height and width of what :func:`load_image` gives, without decoding the pixels.

    Raises ``ImageError`` as :func:`load_image` does, but for damage behind the file's header.
    """
    origin = decoding.Origin(os.fspath(path))
    return decoding.read_size_hw(origin, max_pixels=max_pixels, max_bytes=max_bytes)


def load_mask_from_alpha(
    path: str | os.PathLike[str],
    *,
    max_pixels: int = DEFAULT_MAX_PIXELS,
    max_bytes: int = DEFAULT_MAX_BYTES,
) -> BoolArray | None:
    """The ``(H, W)`` object mask that a file's transparency cuts out, or None where it has none.

    Lies on the picture of :func:`load_image` pixel by pixel. The rule is
    :func:`sam_detect.sources.alpha_mask`'s. Raises ``ImageError`` as :func:`load_image` does.
    """
    return decoding.read_alpha_mask(
        decoding.Origin(os.fspath(path)), max_pixels=max_pixels, max_bytes=max_bytes
    )


def cut_out_object(image: Any, *, max_pixels: int) -> BoolArray | None:
    """The object that the transparency of any picture (a Pillow image, a path) cuts out, or None;
    arrays have no transparency."""
    if isinstance(image, Image.Image):
        return alpha_mask(image)
    if isinstance(image, (str, os.PathLike)):
        return load_mask_from_alpha(image, max_pixels=max_pixels)
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
        image: a path (see :func:`load_image`), a Pillow image of any mode, a ``Frame`` (given
            back as it is), or a numpy array as
            :func:`sam_detect.sources.pixels.array_to_rgb` takes it. The frame shares no memory
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
    if isinstance(image, (str, os.PathLike)):
        frame = load_image(image, max_pixels=max_pixels)
        return frame if source_id is None else replace(frame, source_id=source_id)
    if isinstance(image, Image.Image):
        return _frame_of_picture(image, source_id, max_pixels)
    if isinstance(image, np.ndarray):
        name = source_id or "array"
        return Frame(array_to_rgb(np.asarray(image), color_order=color_order, name=name), name)
    raise ImageError(
        f"a picture is a path, a PIL image or a numpy array, got {type(image).__name__}"
        + ("; use numpy.asarray on it" if hasattr(image, "__array__") else "")
    )


def _frame_of_picture(image: Image.Image, source_id: str | None, max_pixels: int) -> Frame:
    name = source_id or str(getattr(image, "filename", "") or "array")
    try:
        with quiet_readers():
            decoding.check_pixels(image.size, max_pixels, name)
            return Frame(picture_to_rgb(image, name), name)
    except (ImageError, MemoryError):
        raise
    except Exception as error:  # a lazily opened image meets its damage only now
        detail = " ".join(str(error).split())[:200] or type(error).__name__
        raise ImageError(f"the picture '{name}' is damaged or closed ({detail})") from error


class ImageSource(Source):
    """One picture file."""

    def __init__(
        self, path: str | os.PathLike[str], *, max_pixels: int = DEFAULT_MAX_PIXELS
    ) -> None:
        self.path = os.fspath(path)
        self.max_pixels = max_pixels

    def __len__(self) -> int:
        return 1

    def frames(self) -> Iterator[Frame]:
        yield load_image(self.path, max_pixels=self.max_pixels)


class FolderSource(Source):
    """The pictures of a file, folder or pattern (see :func:`find_images`), or of a list of those.

    Args:
        argument: what to read.
        max_pixels: larger pictures are refused before they are decoded.
        stretch: makes what brings deep pictures to 8 bits, for each reading of them all.

    Attributes:
        paths: the files, in order; found when the source is made, which raises ``ImageError``
            where there are none.
    """

    def __init__(
        self,
        argument: str | os.PathLike[str] | Sequence[str | os.PathLike[str]],
        *,
        max_pixels: int = DEFAULT_MAX_PIXELS,
        stretch: Callable[[], Stretch] = lambda: own_stretch,
    ) -> None:
        arguments = [argument] if isinstance(argument, (str, os.PathLike)) else argument
        self.paths = [path for one in arguments for path in find_images(one)]
        self.max_pixels = max_pixels
        self._stretch = stretch

    def __len__(self) -> int:
        return len(self.paths)

    def frames(self) -> Iterator[Frame]:
        """The pictures, in order.

        A picture that cannot be read raises ``ImageError`` from ``next()``; asking again gives
        the one after it, so that a caller may report it and go on.
        """
        return _FrameIterator(self.paths, self.max_pixels, self._stretch())


class _FrameIterator(Iterator[Frame]):
    """Not a generator: those end with their first error."""

    def __init__(self, paths: Sequence[str | Path], max_pixels: int, stretch: Stretch) -> None:
        self._paths = enumerate(paths)
        self._max_pixels, self._stretch = max_pixels, stretch

    def __next__(self) -> Frame:
        index, path = next(self._paths)
        limit, stretch = self._max_pixels, self._stretch
        return load_image(path, max_pixels=limit, index=index, stretch=stretch)
