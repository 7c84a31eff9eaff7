"""TIFFs by ``tifffile``: what a file holds besides the one picture that is read (pages, channels),
and the pixels of those that Pillow cannot read as they are. It is imported on use."""

from __future__ import annotations

import importlib.util
import io
import itertools
import math
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, BinaryIO
from xml.etree import ElementTree

import numpy as np
import numpy.typing as npt

from sam_detect.errors import ImageError
from sam_detect.io._readers import open_picture
from sam_detect.io.physical_sizes import size_in_tiff
from sam_detect.io.unpacking import fits
from sam_detect.types import PixelSize
from sam_detect.types.scratch import LARGE, ROWS_BYTES, release, scratch

MOST_PAGES = 2000
"""So many pages of a TIFF are looked at."""
AXES = {"C": "channel", "Z": "slice", "T": "time point", "S": "channel"}
"""Names of tifffile's axes; all others are pages."""
ALPHA = (1, 2)
"""Values of a TIFF's ExtraSamples that mean opacity."""
EXTRA_SAMPLES = 338
ORIENTATION = 0x0112
QUARTER_TURNS = (5, 6, 7, 8)
"""Orientations that exchange width and height."""
MOST_NAMES = 8
MOST_PIXEL_BYTES = 8
"""So many for each of the most pixels: fewer may have more channels."""
MOST_DECLARED = 1_000_000
"""Planes that OME-XML may declare: tifffile makes a list of them."""
LZW, JPEG, PICTURES = 5, 7, (7, 33003, 33005, 34712, 34933, 50001)
"""Compressions: JPEG, JPEG 2000, PNG and WebP make each piece a picture with a size of its own."""
PACKERS = {8: "zlib", 32946: "zlib", 34925: "lzma"}
SEGMENTED = (1, 8, 32773, 32946)
"""Compressions that tifffile decodes by itself: none, deflate (two numbers), PackBits."""
KNOWN = (*SEGMENTED, *PICTURES, *PACKERS, LZW, 50000)
"""... and with ``imagecodecs``: of others it is not known what they can do."""


@dataclass(frozen=True)
class Contents:
    """What a file holds besides the one picture that is read.

    Attributes:
        left_out: what is not read, as part of a sentence; empty where all is.
        channels: grey values of each pixel that are not colours; 1 for all usual pictures.
        pixel_size_um: of the picture, where the file says it.
    """

    left_out: str = ""
    channels: int = 1
    pixel_size_um: PixelSize | None = None


def contents_of_tiff(file: BinaryIO) -> Contents:
    """What a TIFF holds; nothing is said of what cannot be understood."""
    import tifffile

    try:
        # An OME-TIFF may name further files: nothing that a file names is opened.
        with tifffile.TiffFile(file, _multifile=False) as tiff:
            pages = sum(1 for _ in itertools.islice(iter(tiff.pages), MOST_PAGES + 1))
            if pages > MOST_PAGES:
                return Contents(f"only page 1 of more than {MOST_PAGES} was read")
            first = tiff.pages.first
            grey = first.photometric in (
                tifffile.PHOTOMETRIC.MINISBLACK, tifffile.PHOTOMETRIC.MINISWHITE,
            )  # fmt: skip
            extra = first.tags.get(EXTRA_SAMPLES)
            opaque = extra is None or not np.isin(extra.value, ALPHA).any()
            channels = int(first.samplesperpixel) if grey and opaque else 1
            return Contents(_left_out(tiff, channels), channels, size_in_tiff(tiff, 0))
    except Exception:  # odd metadata say nothing about the pixels, which Pillow reads
        return Contents()


def read_tiff(
    file: BinaryIO, check_size: Callable[[tuple[int, int], int], None]
) -> npt.NDArray[Any] | None:
    """``(H, W)`` or ``(H, W, C)`` numbers of the first page, upright.

    Args:
        check_size: refuses a width and height of pixels of so many bytes, before memory is taken
            for them.

    Returns:
        None for a page that is upright as it is, and compressed in a way (LZW, for one) that
        tifffile has another package decode.
    """
    import tifffile

    with tifffile.TiffFile(file) as tiff:
        page, size_wh, orientation = _first_page(tiff)
        check_size(size_wh, bytes_of_pixel(page))
        require_fitting(page)
        try:
            array: npt.NDArray[Any] = page.asarray()
        except ValueError:
            if orientation != 1 or page.compression != LZW:  # OpenCV makes others black
                raise
            return None
    size_hw, samples = size_wh[::-1], int(page.samplesperpixel)
    if samples > 1 and page.planarconfig == tifffile.PLANARCONFIG.SEPARATE:
        array = np.moveaxis(array.reshape(samples, *size_hw), 0, -1)
    else:
        array = array.reshape(*size_hw, samples)
    return apply_orientation(array, orientation)


def bytes_of_pixel(page: Any) -> int:
    """Of all its channels."""
    return int(page.samplesperpixel * page.dtype.itemsize * page.imagedepth)


def lacks_codec(name: str, error: Exception) -> ImageError | None:
    """The error of a TIFF that tifffile needs another package for; None for other errors."""
    if "the 'imagecodecs'" not in str(error) and not isinstance(error, ImportError):
        return None
    way = "save it without, or with deflate"
    if not _has_codecs():
        way = f"pip install 'sam-detect[microscopy]', or {way}"
    detail = " ".join(str(error).split())[:200]
    return ImageError(f"'{name}' is compressed in a way that is not read ({detail}); {way}")


def _has_codecs() -> bool:
    return importlib.util.find_spec("imagecodecs") is not None


def require_fitting(page: Any) -> None:
    """Raises ``ValueError`` for a page of which a piece would unpack to more than its part of the
    page."""
    if page.compression not in KNOWN:
        raise ValueError(f"{page.compression!r} is none of the 'imagecodecs' that are used")
    packer = None if _has_codecs() else PACKERS.get(page.compression)  # those know their limit
    most = math.prod(page.chunks)
    for start, size in zip(page.dataoffsets, page.databytecounts, strict=True):
        if size and (packer or page.compression in PICTURES):
            page.parent.filehandle.seek(start)
            piece = page.parent.filehandle.read(size)
            if packer:
                honest = fits(packer, piece, most * page.dtype.itemsize)
            else:
                honest = math.prod(open_picture(io.BytesIO(piece)).size) <= 2 * most
            if not honest:
                raise ValueError(f"{size} bytes unpack to more than their part of the page")


def large_tiff(file: BinaryIO, most: int) -> bool:
    """Whether the first page has more than :data:`~sam_detect.types.scratch.LARGE` pixels and is
    made of tiles or strips, each much smaller and of at most ``most`` pixels, that tifffile decodes
    one by one: 8- or 16-bit grey or RGB without opacity, upright."""
    import tifffile

    try:
        with tifffile.TiffFile(file, _multifile=False) as tiff:
            page, (width, height), orientation = _first_page(tiff)
            colours = tifffile.PHOTOMETRIC.RGB, tifffile.PHOTOMETRIC.MINISBLACK
            jpeg = page.compression == JPEG and page.photometric == tifffile.PHOTOMETRIC.YCBCR
            usual = page.dtype in (np.uint8, np.uint16) and (jpeg or page.photometric in colours)
            extra = page.tags.get(EXTRA_SAMPLES)
            usual &= extra is None or not np.isin(extra.value, ALPHA).any()
            usual &= orientation == 1 and page.imagedepth == 1
            usual &= page.compression in (KNOWN if _has_codecs() else SEGMENTED)
            of_one = math.prod(page.chunks[:2])
            small = 16 * of_one <= width * height and of_one <= most
            small &= of_one * bytes_of_pixel(page) <= MOST_PIXEL_BYTES * most
            return bool(usual and small and width * height > LARGE)
    except Exception:  # what cannot be understood is read, or refused, as any other file
        return False
    finally:
        file.seek(0)


def read_segments(file: BinaryIO, name: str) -> npt.NDArray[Any]:
    """``(H, W, C)`` numbers of the first page of a :func:`large_tiff`, in a scratch file: one grey
    channel, or three colours. No more than some segments are in memory at a time.

    Raises:
        ImageError: the file ends before its last segment, or there is no room for the pixels.
    """
    import tifffile

    end = file.seek(0, 2)
    file.seek(0)
    with tifffile.TiffFile(file, _multifile=False) as tiff:
        page = tiff.pages.first
        require_fitting(page)
        last = max(map(sum, zip(page.dataoffsets, page.databytecounts, strict=True)), default=0)
        if last > end:
            raise ImageError(
                f"the picture '{name}' is damaged or cut off ({end:,} bytes of at least "
                f"{last:,}); copy or export it again"
            )
        channels = 1 if page.photometric == tifffile.PHOTOMETRIC.MINISBLACK else 3
        size = int(page.imagelength), int(page.imagewidth), channels
        pixels = scratch(size, page.dtype, name)
        planes = page.planarconfig == tifffile.PLANARCONFIG.SEPARATE
        written = 0
        for data, (plane, _, y, x, _), _ in page.segments(maxworkers=1, buffersize=ROWS_BYTES):
            if data is None or plane >= channels:  # empty, or of a channel that is not read
                continue
            values = data[0, : size[0] - y, : size[1] - x]
            place = slice(plane, plane + 1) if planes else slice(channels)
            target = pixels[y : y + values.shape[0], x : x + values.shape[1], place]
            target[...] = values[..., : target.shape[2]]
            written += target.nbytes
            if written > ROWS_BYTES:
                release(pixels)
                written = 0
    return pixels


def tiff_size_hw(file: BinaryIO) -> tuple[int, int]:
    """Height and width of :func:`read_tiff`, from the header."""
    import tifffile

    with tifffile.TiffFile(file) as tiff:
        _, size_wh, orientation = _first_page(tiff)
    return size_wh if orientation in QUARTER_TURNS else size_wh[::-1]


def apply_orientation(array: npt.NDArray[Any], orientation: int) -> npt.NDArray[Any]:
    """The array upright, by its EXIF orientation (1 to 8)."""
    if orientation in QUARTER_TURNS:
        array = array.swapaxes(0, 1)
    if orientation in (3, 4, 7, 8):
        array = array[::-1]
    if orientation in (2, 3, 6, 7):
        array = array[:, ::-1]
    return array


def _first_page(tiff: Any) -> tuple[Any, tuple[int, int], int]:
    """The page, its width and height as stored, and its orientation."""
    page = tiff.pages.first
    tag = page.tags.get(ORIENTATION)
    size_wh = int(page.imagewidth), int(page.imagelength)
    return page, size_wh, 1 if tag is None else int(tag.value)


def _left_out(tiff: Any, channels: int) -> str:
    """Which page and channel of a TIFF are read, of how many."""
    require_plain_ome(tiff, "the file")
    series = tiff.series[0]
    counts: dict[str, int] = {}
    for axis, count in zip(series.axes, series.shape, strict=True):
        if axis not in "YX" and count > 1 and not (axis == "S" and channels == 1):
            name = AXES.get(axis, "page")
            counts[name] = counts.get(name, 1) * count
    read = [f"{name} 1 of {count}" for name, count in counts.items()]
    if "channel" in counts:
        names = names_of_channels(tiff)
        read[list(counts).index("channel")] += f" ({', '.join(names)})" if names else ""
    said = [f"only {', '.join(read)} was read"] if read else []
    others = [each for each in tiff.series[1:]
              if not each.keyframe.is_reduced and not each.keyframe.is_mask]  # fmt: skip
    if others:
        said.append(f"only picture 1 of {1 + len(others)} was read")
    return "; ".join(said)


def require_plain_ome(tiff: Any, name: str) -> None:
    """Raises ``ImageError`` for OME-XML with a document type, which may define entities, or that
    declares more planes than :data:`MOST_DECLARED`; call it before ``tiff.series``."""
    text = tiff.ome_metadata if tiff.is_ome else None
    if text is None:
        return
    if "<!DOCTYPE" in text or "<!ENTITY" in text:
        raise ImageError(f"{name}: its OME-XML defines entities, which are not read; export it "
                         "again")  # fmt: skip
    declared, smallest = 0.0, max(1, min(page.size for page in tiff.pages))
    with suppress(ElementTree.ParseError):  # which tifffile leaves alone, too
        for each in ElementTree.fromstring(text).iter():  # noqa: S314  it defines no entities
            # numbers as tifffile reads them: "+3", "3_0" and "&#51;" are some
            sizes = [int(each.get(f"Size{axis}", 1)) for axis in "XYCZT"]
            declared += abs(math.prod(sizes)) / smallest
            declared += abs(int(each.get("PlaneCount", each.get("NumPlanes", 0))))
            if "Start" in each.attrib:  # of an axis in an axis
                length = float(each.attrib["End"]) - float(each.attrib["Start"])
                declared += abs(length / float(each.get("Step", 1)))
    if not declared <= MOST_DECLARED:
        raise ImageError(f"{name}: its OME-XML declares more than {MOST_DECLARED:,} planes; "
                         "export it in parts")  # fmt: skip


def names_of_channels(tiff: Any) -> list[str]:
    """The names of the first channels, where an OME-TIFF has them."""
    names: list[str] = []
    if tiff.is_ome:
        import tifffile

        pixels = tifffile.xml2dict(tiff.ome_metadata)["OME"]["Image"]
        pixels = (pixels[0] if isinstance(pixels, list) else pixels)["Pixels"]
        channels = pixels.get("Channel", [])
        channels = channels if isinstance(channels, list) else [channels]
        names = [str(each["Name"]) for each in channels if "Name" in each]
    return [" ".join(name.split())[:40] for name in names[:MOST_NAMES]]
