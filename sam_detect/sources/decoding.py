"""Picture files to pixels: everything that can be wrong with a file becomes one ``ImageError``."""

from __future__ import annotations

import io
import os
import stat
import struct
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from sam_detect.errors import ImageError
from sam_detect.masks import BoolArray
from sam_detect.sources._pillow import open_picture, quiet_readers
from sam_detect.sources.paths import FORMAT_EXTENSIONS
from sam_detect.sources.pixels import NUMBER_MODES, alpha_mask, array_to_rgb, picture_to_rgb
from sam_detect.sources.scaling import Stretch, own_stretch
from sam_detect.sources.stacks import Contents, contents_of_tiff, frames_left_out
from sam_detect.types import ImageRGB

EXIF_ORIENTATION = 0x0112
TRANSPOSE_BY_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
QUARTER_TURNS = (5, 6, 7, 8)
"""Orientations that exchange width and height."""

PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
TIFF_BITS_PER_SAMPLE = 258
TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

Result = TypeVar("Result")


@dataclass(frozen=True)
class Origin:
    """Where a picture's bytes are: a file, or memory.

    Attributes:
        name: the file's path, or what an error calls the picture.
        data: the bytes, or None where ``name`` is a file.
    """

    name: str
    data: bytes | None = None

    def open(self) -> BinaryIO:
        return open(self.name, "rb") if self.data is None else io.BytesIO(self.data)

    def check(self, max_bytes: int) -> None:
        """Raises ``ImageError`` for what is not even a non-empty file of a sane size."""
        if self.data is None:
            check_file(self.name, max_bytes)
        else:
            _check_size(self.name, len(self.data), max_bytes)


def read_rgb(
    origin: Origin, *, max_pixels: int, max_bytes: int, stretch: Stretch = own_stretch
) -> tuple[ImageRGB, str]:
    """``(H, W, 3)`` uint8 RGB of the first picture, turned by its EXIF orientation, and what of
    the file is left out (see :mod:`~sam_detect.sources.stacks`).

    Of channels that are no colours the first is read.

    Args:
        stretch: see :func:`~sam_detect.sources.scaling.to_8_bits`.
    """
    origin.check(max_bytes)
    name = origin.name

    def from_array(array: npt.NDArray[Any]) -> ImageRGB:
        return array_to_rgb(array, color_order="rgb", name=name, stretch=stretch)

    def from_tiff(contents: Contents) -> tuple[ImageRGB, str]:
        array = _tiff_array(origin, max_pixels)
        return from_array(array[..., :1] if contents.channels > 1 else array), contents.left_out

    def convert(image: Image.Image) -> tuple[ImageRGB, str]:
        if image.format == "TIFF":
            with origin.open() as file:
                contents = contents_of_tiff(file)
            if contents.channels > 1:
                return from_tiff(contents)
            return pixels_of(image), contents.left_out
        return pixels_of(image), frames_left_out(image)

    def pixels_of(image: Image.Image) -> ImageRGB:
        if not is_deep_colour(image):
            return picture_to_rgb(_upright(image), name, stretch=stretch)
        orientation = _orientation(image)
        image.load()  # Pillow notices a truncated file, the readers below may not
        if image.format == "TIFF":
            return from_array(_tiff_array(origin, max_pixels))
        return from_array(_turned(_opencv_array(origin), orientation))

    try:
        return _with_open_picture(origin, max_pixels, convert)
    except UnidentifiedImageError as error:

        def read() -> tuple[ImageRGB, str]:
            with origin.open() as file:
                return from_tiff(contents_of_tiff(file))

        return _with_unusual_tiff(origin, error, read)


def read_alpha_mask(origin: Origin, *, max_pixels: int, max_bytes: int) -> BoolArray | None:
    """The mask of :func:`~sam_detect.sources.pixels.alpha_mask`, upright like the picture."""
    origin.check(max_bytes)
    try:
        return _with_open_picture(origin, max_pixels, lambda image: alpha_mask(_upright(image)))
    except UnidentifiedImageError:
        return None  # no format but the odd TIFF of read_rgb; those carry no mask


def read_size_hw(origin: Origin, *, max_pixels: int, max_bytes: int) -> tuple[int, int]:
    """Height and width of what :func:`read_rgb` gives, from the file's header alone."""
    origin.check(max_bytes)
    try:
        return _with_open_picture(origin, max_pixels, lambda image: _size_hw_upright(image, origin))
    except UnidentifiedImageError as error:
        return _with_unusual_tiff(origin, error, lambda: _tiff_size_hw(origin, max_pixels))


def read_values(origin: Origin, *, max_pixels: int, max_bytes: int) -> npt.NDArray[Any]:
    """``(H, W)`` or ``(H, W, C)`` values of the first picture as the file has them, upright.

    Of a palette they are its indices: a label map's numbers, not their colours.
    """
    origin.check(max_bytes)
    try:
        return _with_open_picture(origin, max_pixels, lambda image: np.asarray(_upright(image)))
    except UnidentifiedImageError as error:
        return _with_unusual_tiff(origin, error, lambda: _tiff_array(origin, max_pixels))


def left_out_of_tiff(origin: Origin) -> str:
    """What of a TIFF is not read, see :mod:`~sam_detect.sources.stacks`; empty for other files."""
    try:
        with origin.open() as file:
            if file.read(4) not in TIFF_MAGICS:
                return ""
            file.seek(0)
            return contents_of_tiff(file).left_out
    except OSError:  # reading it reports that
        return ""


def check_pixels(size_wh: tuple[int, int], max_pixels: int, name: str) -> None:
    """Raises ``ImageError`` for a picture that is too large, before it takes any memory."""
    width, height = size_wh
    if width * height > max_pixels:
        raise ImageError(
            f"the picture '{name}' has {width}x{height} pixels, more than the limit of "
            f"{max_pixels:,}; reduce it, or raise max_image_pixels if you trust the file"
        )


def check_file(path: str, max_bytes: int) -> None:
    """Raises ``ImageError`` for what is no readable, non-empty regular file of a sane size."""
    try:
        found = os.stat(path)
    except FileNotFoundError:
        broken = " (it is a link to a file that is gone)" if os.path.islink(path) else ""
        raise ImageError(f"the picture '{path}' does not exist{broken}; check the path") from None
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if stat.S_ISDIR(found.st_mode):
        raise ImageError(f"'{path}' is a folder, expected a picture file; name a file in it")
    if not stat.S_ISREG(found.st_mode):  # reading a pipe or device may never end
        raise ImageError(f"'{path}' is a pipe or device, expected a picture file")
    _check_size(path, found.st_size, max_bytes)


def _check_size(name: str, size: int, max_bytes: int) -> None:
    if size == 0:
        raise ImageError(f"the picture '{name}' is empty (0 bytes); copy or export it again")
    if size > max_bytes:
        raise ImageError(
            f"the picture '{name}' has {size:,} bytes, more than the limit of {max_bytes:,}; "
            "reduce it or save it compressed"
        )


def _with_open_picture(
    origin: Origin, max_pixels: int, convert: Callable[[Image.Image], Result]
) -> Result:
    """``convert`` of the opened picture; ``UnidentifiedImageError`` only where it is none."""
    name = origin.name
    try:
        with (
            quiet_readers(),
            origin.open() as file,
            open_picture(file) as image,
        ):
            check_pixels(image.size, max_pixels, name)
            return convert(image)
    except (ImageError, UnidentifiedImageError):
        raise
    except PermissionError as error:
        raise _unreadable(name, error) from error
    except Exception as error:
        # a damaged file can make a decoder raise nearly anything: OSError, SyntaxError,
        # ValueError, struct.error, KeyError, ZeroDivisionError, ...
        raise _damaged(name, error) from error


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # after this a TIFF is upright already, and its orientation forgotten
    method = TRANSPOSE_BY_ORIENTATION.get(_orientation(image))
    return image if method is None else image.transpose(method)


def _orientation(image: Image.Image, *, headers_only: bool = False) -> int:
    """1 to 8. For what may stand behind a PNG's pixels Pillow decodes them, if not told not to."""
    try:
        exif = Image.Image.getexif(image) if headers_only else image.getexif()
        return int(exif.get(EXIF_ORIENTATION, 1))
    except Exception:  # broken EXIF data says nothing about the pixels
        return 1


def is_deep_colour(image: Image.Image) -> bool:
    """Whether Pillow would silently keep only the upper half of 16-bit colours.

    Known of PNG and TIFF, the formats that microscopes write; 16-bit *grey* is whole in all.
    """
    if image.mode in NUMBER_MODES:
        return False
    if image.format == "TIFF":
        bits = getattr(image, "tag_v2", {}).get(TIFF_BITS_PER_SAMPLE, (1,))
        return any(bit > 8 for bit in (bits if isinstance(bits, tuple) else (bits,)))
    is_png_of_16_bits = any(";16" in str(tile.args) for tile in getattr(image, "tile", ()))
    return image.format == "PNG" and is_png_of_16_bits


def _size_hw_upright(image: Image.Image, origin: Origin) -> tuple[int, int]:
    """``(height, width)`` that the opened picture has once it is decoded and turned."""
    width, height = image.size
    if image.format == "TIFF":
        return height, width  # the one format of which Pillow gives the turned size at once
    headers_only = image.format == "PNG" and not _may_end_with_exif(origin)
    orientation = _orientation(image, headers_only=headers_only)
    return (width, height) if orientation in QUARTER_TURNS else (height, width)


def _may_end_with_exif(origin: Origin) -> bool:
    """Whether a PNG has words or EXIF data behind its pixels, where Pillow has not read yet."""
    with origin.open() as file:
        file.seek(len(PNG_MAGIC))
        behind = False
        while len(head := file.read(8)) == 8:
            length, kind = struct.unpack(">I4s", head)
            behind |= kind == b"IDAT"
            if behind and kind in (b"eXIf", b"zTXt", b"tEXt", b"iTXt"):
                return True
            file.seek(length + 4, os.SEEK_CUR)
    return False


def _opencv_array(origin: Origin) -> npt.NDArray[Any]:
    """``(H, W)`` or ``(H, W, C)`` numbers of a file, RGB, not turned."""
    import cv2  # on use: only 16-bit colour needs it

    with origin.open() as file:
        data = np.frombuffer(file.read(), np.uint8)
    level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
    try:
        decoded = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
    finally:
        cv2.utils.logging.setLogLevel(level)
    if decoded is None:
        raise ImageError(f"the picture '{origin.name}' cannot be decoded; save it again as PNG")
    array: npt.NDArray[Any] = decoded
    if array.ndim == 3 and array.shape[2] >= 3:
        array = array[:, :, [2, 1, 0, *range(3, array.shape[2])]]
    return array


def _tiff_array(origin: Origin, max_pixels: int) -> npt.NDArray[Any]:
    """``(H, W)`` or ``(H, W, C)`` numbers of a TIFF's first page, upright."""
    import tifffile  # on use: only TIFFs that Pillow cannot read as they are need it

    with origin.open() as file, tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        size_wh = int(page.imagewidth), int(page.imagelength)
        check_pixels(size_wh, max_pixels, origin.name)
        tag = page.tags.get(EXIF_ORIENTATION)
        orientation = 1 if tag is None else int(tag.value)
        try:
            array: npt.NDArray[Any] = page.asarray()
        except ValueError:
            # a compression (LZW, for one) that tifffile has another package decode; OpenCV knows
            # the common ones, but turns pictures by rules of its own
            if orientation != 1:
                raise
            return _opencv_array(origin)
    size_hw, samples = size_wh[::-1], int(page.samplesperpixel)
    if samples > 1 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
        array = np.moveaxis(array.reshape(samples, *size_hw), 0, -1)
    else:
        array = array.reshape(*size_hw, samples)
    return _turned(array, orientation)


def _tiff_size_hw(origin: Origin, max_pixels: int) -> tuple[int, int]:
    """``(height, width)`` of :func:`_tiff_array`."""
    import tifffile  # on use, as above

    with origin.open() as file, tifffile.TiffFile(file) as tiff:
        page = tiff.pages.first
        size_wh = int(page.imagewidth), int(page.imagelength)
        tag = page.tags.get(EXIF_ORIENTATION)
    check_pixels(size_wh, max_pixels, origin.name)
    return size_wh if tag is not None and tag.value in QUARTER_TURNS else size_wh[::-1]


def _turned(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """The array upright, by its EXIF orientation (1 to 8)."""
    if orientation in QUARTER_TURNS:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def _with_unusual_tiff(origin: Origin, error: Exception, read: Callable[[], Result]) -> Result:
    """``read()`` of a TIFF that Pillow does not know (64-bit floats, planar 16-bit colour, ...)."""
    with origin.open() as file:
        if file.read(4) not in TIFF_MAGICS:
            raise _not_a_picture(origin.name) from error
    try:
        with quiet_readers():
            return read()
    except ImageError:
        raise
    except Exception as cause:  # as above: a damaged file can raise anything
        raise _damaged(origin.name, cause) from cause


def _not_a_picture(path: str) -> ImageError:
    return ImageError(
        f"'{path}' is not a picture that can be read; "
        f"expected one of {', '.join(FORMAT_EXTENSIONS)}"
    )


def _damaged(path: str, error: Exception) -> ImageError:
    if isinstance(error, MemoryError):
        return ImageError(f"the picture '{path}' does not fit into memory; reduce it")
    detail = " ".join(str(error).split())[:200] or type(error).__name__
    return ImageError(
        f"the picture '{path}' is damaged or cut off ({detail}); copy or export it again"
    )


def _unreadable(path: str, error: Exception) -> ImageError:
    reason = getattr(error, "strerror", None) or str(error)
    return ImageError(f"the picture {path!r} cannot be read: {reason}; check path and permissions")
