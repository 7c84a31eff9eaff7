"""Picture files to pixels: everything that can be wrong with a file becomes one ``ImageError``."""

from __future__ import annotations

import io
import math
import os
import stat
import struct
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any, BinaryIO, TypeVar

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from sam_detect.errors import ImageError
from sam_detect.io._readers import (
    FORMAT_EXTENSIONS,
    NOT_READ,
    at_once,
    open_picture,
    quiet_readers,
)
from sam_detect.io.label_map import KEY as LABEL_MAP_NOTE
from sam_detect.io.pixels import (
    NUMBER_MODES,
    Stretch,
    alpha_mask,
    array_to_rgb,
    large_array_to_rgb,
    large_picture_to_rgb,
    mask_values,
    own_stretch,
    picture_to_rgb,
    without_nan,
)
from sam_detect.io.tiff import (
    MOST_PIXEL_BYTES,
    ORIENTATION,
    QUARTER_TURNS,
    Contents,
    apply_orientation,
    contents_of_tiff,
    lacks_codec,
    large_tiff,
    read_segments,
    read_tiff,
    tiff_size_hw,
)
from sam_detect.types import ImageRGB
from sam_detect.types.masks import MAX_RLE_PIXELS, BoolArray
from sam_detect.types.scratch import LARGE, is_scratch

PHOTOMETRIC = 262
"""TIFF's tag for what the values mean; 0: 0 is white."""
DEFAULT_MAX_PIXELS = 450_000_000
"""What is decoded at once may have so many pixels: a whole picture, or a part of a TIFF."""
MAX_BYTES = 2_000_000_000
"""Larger files are refused before they are opened."""
TRANSPOSE_BY_ORIENTATION = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
UNLIKE_8_BIT = (*NUMBER_MODES, "LAB")
"""Pillow's modes of which a part is not converted as in the whole picture."""
PNG_MAGIC = b"\x89PNG\r\n\x1a\n"
TIFF_BITS_PER_SAMPLE = 258
TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")

Result = TypeVar("Result")


@dataclass(frozen=True)
class PictureFile:
    """A picture in a file or in memory. What is read is the first one, upright by its EXIF
    orientation; the methods raise ``ImageError``.

    Attributes:
        name: the file's path, or what an error calls the picture.
        data: the bytes, or None where ``name`` is a file.
        max_pixels: larger pictures are refused before they are decoded.
    """

    name: str
    data: bytes | None = None
    max_pixels: int = DEFAULT_MAX_PIXELS

    def open(self) -> BinaryIO:
        return open(self.name, "rb") if self.data is None else io.BytesIO(self.data)

    def rgb(self, stretch: Stretch = own_stretch) -> tuple[ImageRGB, Contents]:
        """``(H, W, 3)`` uint8 RGB, and what else the file holds.

        Of channels that are no colours the first is read.

        Args:
            stretch: see :func:`~sam_detect.io.pixels.to_8_bits`.
        """

        def from_array(array: npt.NDArray[Any]) -> ImageRGB:
            array, limits = without_nan(array, self.name, stretch)
            return array_to_rgb(array, color_order="rgb", name=self.name, stretch=limits)

        def from_tiff(contents: Contents) -> tuple[ImageRGB, Contents]:
            array = self._tiff_array()
            if is_scratch(array):
                return large_array_to_rgb(array, self.name, stretch=stretch), contents
            return from_array(array[..., :1] if contents.channels > 1 else array), contents

        def convert(image: Image.Image) -> tuple[ImageRGB, Contents]:
            contents = self._contents(image)
            if contents.channels > 1 or self._is_large_tiff(image.size):
                return from_tiff(contents)
            if image.mode == "F":  # the one mode that has NaN
                return from_array(np.asarray(_upright(image))), contents
            if image.mode == "I;16" and getattr(image, "tag_v2", {}).get(PHOTOMETRIC) == 0:
                dark = np.asarray(_upright(image))  # 0 is white; Pillow turns 8 bits only
                return from_array((1 << int(dark.max()).bit_length()) - 1 - dark), contents
            if not _is_deep_colour(image):
                large = image.width * image.height > LARGE and image.mode not in UNLIKE_8_BIT
                if large and _orientation(image) == 1:
                    return large_picture_to_rgb(image, self.name), contents
                rgb = picture_to_rgb(_upright(image), self.name, stretch=stretch)
                return rgb, contents
            orientation = _orientation(image)
            image.load()  # Pillow notices a truncated file, the readers below may not
            if image.format == "TIFF":
                return from_tiff(contents)
            return from_array(apply_orientation(self._opencv_array(), orientation)), contents

        return self._read(convert, lambda: from_tiff(self._contents(None)))

    def alpha_mask(self) -> BoolArray | None:
        """The mask of :func:`~sam_detect.io.pixels.alpha_mask`, upright like the picture."""
        return self._read(
            lambda image: None if self._is_large_tiff(image.size) else alpha_mask(_upright(image)),
            lambda: None,
        )

    def size_hw(self) -> tuple[int, int]:
        """Height and width of :meth:`rgb`, from the file's header alone."""

        def of_tiff() -> tuple[int, int]:
            with self.open() as file:
                return tiff_size_hw(file)

        return self._read(self._size_hw_upright, of_tiff, pixel_bytes=0)

    def is_turned(self) -> bool:
        """Whether its EXIF orientation exchanges its sides."""
        return self._read(lambda image: _orientation(image) in QUARTER_TURNS, lambda: False)

    def values(self, *, as_stored: bool = False) -> tuple[npt.NDArray[Any], str]:
        """``(H, W)`` or ``(H, W, C)`` values of a mask picture as the file has them, and what
        sam-detect noted in a label map (of TIFF files not read here). Of a palette see
        :func:`~sam_detect.io.pixels.mask_values`."""

        def convert(image: Image.Image) -> tuple[npt.NDArray[Any], str]:
            if self._is_large_tiff(image.size):
                return self._tiff_array(), ""
            note = image.info.get(LABEL_MAP_NOTE)
            return mask_values(_upright(image), as_stored=as_stored), note if isinstance(
                note, str
            ) else ""

        return self._read(convert, lambda: (self._tiff_array(), ""))

    def left_out_of_tiff(self) -> str:
        """What of a TIFF is not read; empty for other files."""
        try:
            return self._contents(None).left_out if self._is_tiff() else ""
        except OSError:  # reading it reports that
            return ""

    def _read(
        self,
        convert: Callable[[Image.Image], Result],
        of_unusual_tiff: Callable[[], Result],
        pixel_bytes: int = 4,
    ) -> Result:
        """``convert`` of the opened picture, or the other of a TIFF that Pillow does not know
        (64-bit floats, planar 16-bit colour, ...). It takes so many bytes for each pixel."""
        if self.data is None:
            check_file(self.name)
        else:
            _check_size(self.name, len(self.data))
        try:
            with quiet_readers(), self.open() as file:
                is_tiff, ending = self._is_tiff(), os.path.splitext(self.name)[1].lower()
                try:
                    opened = None if is_tiff and ending in NOT_READ else open_picture(file)
                except UnidentifiedImageError:
                    opened = None
                if opened is None and (not is_tiff or ending in NOT_READ):
                    raise ImageError(
                        f"'{self.name}' is not a picture that can be read; "
                        f"expected one of {', '.join(FORMAT_EXTENSIONS)}"
                    )
                with opened or nullcontext() as image:
                    size_wh = self._tiff_size_wh() if image is None else image.size
                    self._check_pixels(size_wh)
                    small = pixel_bytes == 0 or self._is_large_tiff(size_wh)
                    with at_once(0 if small else math.prod(size_wh) * pixel_bytes):
                        return of_unusual_tiff() if image is None else convert(image)
        except ImageError:
            raise
        except PermissionError as error:
            raise unreadable(self.name, error) from error
        except MemoryError as error:
            raise ImageError(
                f"the picture '{self.name}' does not fit into memory; reduce it"
            ) from error
        except Exception as error:
            # a damaged file can make a decoder raise nearly anything: OSError, SyntaxError,
            # ValueError, struct.error, KeyError, ZeroDivisionError, ...
            detail = " ".join(str(error).split())[:200]
            if not any(map(str.isalpha, detail)):  # a KeyError says no more than the key
                detail = type(error).__name__
            raise lacks_codec(self.name, error) or ImageError(
                f"the picture '{self.name}' is damaged or cut off ({detail}); copy or export it "
                "again"
            ) from error

    def _tiff_size_wh(self) -> tuple[int, int]:
        with self.open() as file:
            return tiff_size_hw(file)[::-1]

    def _check_pixels(self, size_wh: tuple[int, int], pixel_bytes: int = 4) -> None:
        # Of a TIFF that is read tile by tile only the masks' run lengths limit the size.
        large = size_wh[0] * size_wh[1] > self.max_pixels and self._is_large_tiff(size_wh)
        limit = MAX_RLE_PIXELS if large else self.max_pixels
        check_pixels(size_wh, limit, self.name, 0 if large else pixel_bytes)

    def _is_large_tiff(self, size_wh: tuple[int, int]) -> bool:
        if size_wh[0] * size_wh[1] <= LARGE or not self._is_tiff():
            return False
        with self.open() as file:
            return large_tiff(file, self.max_pixels)

    def _is_tiff(self) -> bool:
        with self.open() as file:
            return file.read(4) in TIFF_MAGICS

    def _contents(self, image: Image.Image | None) -> Contents:
        """What the file holds; None for a TIFF that Pillow has not opened."""
        if image is None or image.format == "TIFF":
            with self.open() as file:
                return contents_of_tiff(file)
        frames = getattr(image, "n_frames", 1) if getattr(image, "is_animated", False) else 1
        if image.format == "MPO":  # behind a phone's JPEG: its depth, or its light
            frames = 1
        read = f"only frame {image.tell() + 1} of {frames} was read"
        return Contents(read if frames > 1 else "")

    def _tiff_array(self) -> npt.NDArray[Any]:
        with self.open() as file:
            if large_tiff(file, self.max_pixels):
                return read_segments(file, self.name)
            array = read_tiff(file, self._check_pixels)
        # OpenCV knows common compressions, but turns pictures by rules of its own.
        return self._opencv_array() if array is None else array

    def _opencv_array(self) -> npt.NDArray[Any]:
        """``(H, W)`` or ``(H, W, C)`` numbers of a file, RGB, not turned."""
        import cv2  # on use: only 16-bit colour needs it

        with self.open() as file:
            data = np.frombuffer(file.read(), np.uint8)
        level = cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)
        try:
            decoded = cv2.imdecode(data, cv2.IMREAD_UNCHANGED)
        finally:
            cv2.utils.logging.setLogLevel(level)
        if decoded is None:
            raise ImageError(f"the picture '{self.name}' cannot be decoded; save it again as PNG")
        array: npt.NDArray[Any] = decoded
        if array.ndim == 3 and array.shape[2] >= 3:
            array = array[:, :, [2, 1, 0, *range(3, array.shape[2])]]
        return array

    def _size_hw_upright(self, image: Image.Image) -> tuple[int, int]:
        """``(height, width)`` that the opened picture has once it is decoded and turned."""
        width, height = image.size
        if image.format == "TIFF":
            return height, width  # the one format of which Pillow gives the turned size at once
        headers_only = image.format == "PNG" and not self._may_end_with_exif()
        orientation = _orientation(image, headers_only=headers_only)
        return (width, height) if orientation in QUARTER_TURNS else (height, width)

    def _may_end_with_exif(self) -> bool:
        """Whether a PNG has text or EXIF data behind its pixels, where Pillow has not read yet."""
        with self.open() as file:
            file.seek(len(PNG_MAGIC))
            behind = False
            while len(head := file.read(8)) == 8:
                length, kind = struct.unpack(">I4s", head)
                behind |= kind == b"IDAT"
                if behind and kind in (b"eXIf", b"zTXt", b"tEXt", b"iTXt"):
                    return True
                file.seek(length + 4, os.SEEK_CUR)
        return False


def check_file(name: str, kind: str = "picture") -> None:
    """Raises ``ImageError`` for what is no readable, non-empty regular file of a sane size.

    Args:
        kind: what the file should be, for errors: ``picture`` or ``video``.
    """
    try:
        found = os.stat(name)
    except FileNotFoundError:
        broken = " (it is a link to a file that is gone)" if os.path.islink(name) else ""
        raise ImageError(f"the {kind} '{name}' does not exist{broken}; check the path") from None
    except (OSError, ValueError) as error:
        raise unreadable(name, error, kind) from error
    if stat.S_ISDIR(found.st_mode):
        raise ImageError(f"'{name}' is a folder, expected a {kind} file; name a file in it")
    if not stat.S_ISREG(found.st_mode):  # reading a pipe or device may never end
        raise ImageError(f"'{name}' is a pipe or device, expected a {kind} file")
    _check_size(name, found.st_size, kind)


def _check_size(name: str, size: int, kind: str = "picture") -> None:
    if size == 0:
        raise ImageError(f"the {kind} '{name}' is empty (0 bytes); copy or export it again")
    if kind == "picture" and size > MAX_BYTES:
        raise ImageError(
            f"the picture '{name}' has {size:,} bytes, more than the limit of {MAX_BYTES:,}; "
            "reduce it or save it compressed"
        )


def unreadable(name: str, error: Exception, kind: str = "picture") -> ImageError:
    reason = getattr(error, "strerror", None) or str(error)
    return ImageError(f"the {kind} {name!r} cannot be read: {reason}; check path and permissions")


def check_pixels(
    size_wh: tuple[int, int], max_pixels: int, name: str, pixel_bytes: int = 4
) -> None:
    """Raises ``ImageError`` for a picture that is too large, before it takes any memory."""
    width, height = size_wh
    if width * height > max_pixels:
        raise ImageError(
            f"the picture '{name}' has {width}x{height} pixels, more than the limit of "
            f"{max_pixels:,}; reduce it, or raise max_image_pixels if you trust the file"
        )
    limit = MOST_PIXEL_BYTES * max(max_pixels, DEFAULT_MAX_PIXELS)
    if width * height * pixel_bytes > limit:
        raise ImageError(
            f"the picture '{name}' has {width}x{height} pixels of {pixel_bytes:,} bytes, together "
            f"more than the limit of {limit:,}; reduce it, or save fewer channels"
        )


def _upright(image: Image.Image) -> Image.Image:
    image.load()  # after this a TIFF is upright already, and its orientation forgotten
    method = TRANSPOSE_BY_ORIENTATION.get(_orientation(image))
    return image if method is None else image.transpose(method)


def _orientation(image: Image.Image, *, headers_only: bool = False) -> int:
    """1 to 8. For what may stand behind a PNG's pixels Pillow decodes them, if not told not to."""
    try:
        exif = Image.Image.getexif(image) if headers_only else image.getexif()
        return int(exif.get(ORIENTATION, 1))
    except Exception:  # broken EXIF data says nothing about the pixels
        return 1


def _is_deep_colour(image: Image.Image) -> bool:
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
