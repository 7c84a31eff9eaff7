"""Pillow and tifffile: which formats are read, without limits and messages of their own; and what
may be decoded at a time."""

from __future__ import annotations

import logging
import struct
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from types import SimpleNamespace
from typing import Any, BinaryIO, cast

from PIL import Image, ImageFile, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile
from PIL.WebPImagePlugin import WebPImageFile

FORMAT_EXTENSIONS: dict[str, tuple[str, ...]] = {
    "JPEG": (".jpg", ".jpeg", ".jpe", ".jfif", ".mpo"),
    "PNG": (".png", ".apng"),
    "TIFF": (".tif", ".tiff", ".btf", ".tf8", ".lsm", ".stk", ".svs", ".qptiff", ".ndpi"),
    "WEBP": (".webp",),
    "BMP": (".bmp", ".dib"),
    "GIF": (".gif",),
    "JPEG2000": (".jp2", ".j2k", ".jpx", ".jpf", ".j2c", ".jpc"),
    "HEIF": (".heic", ".heif", ".hif", ".heics", ".heifs"),
    "AVIF": (".avif", ".avifs"),
    "PPM": (".ppm", ".pgm", ".pbm", ".pnm", ".pfm"),
    "TGA": (".tga",),
}
"""Pillow's names of the formats that are read (by content), and the endings looked for in folders.

Only these: Pillow can open more, but some of those run other programs (EPS) or are no pictures.
"""
_NOT_READ = (
    ".3fr .arw .bay .bif .cap .cr2 .cr3 .crw .czi .dcm .dcr .dicom .dm3 .dm4 .dng .dpx .eps .erf "
    ".exr .fff .fits .flex .gpr .hdr .ico .iiq .ims .jls .jxl .jxr .k25 .kdc .lif .lof .mef .mha "
    ".mos .mrc .mrw .mrxs .nd2 .nef .nii .nrrd .nrw .oib .oif .oir .orf .pcx .pef .psb .psd .ptx "
    ".qoi .raf .ras .raw .rw2 .rwl .rwz .scn .sgi .sr2 .srf .srw .svg .vsi .wdp .x3f .xbm .xcf "
    ".zvi"
)
NOT_READ = frozenset(_NOT_READ.split())
"""Endings of pictures that cannot be read: of cameras (raw), microscopes, other programs. Some are
TIFFs, of which the first page is a thumbnail."""
HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"mif2", b"msf1")
MOST_AT_ONCE_BYTES = 1_800_000_000
"""Of the pictures that are decoded at one time, by whatever number of threads."""


class _Tiff(TiffImageFile):
    def load_prepare(self) -> None:
        """As Pillow's, which here asks once more for its limit."""
        if self._im is None:
            self.im = Image.new(self.mode, self._tile_size, None).im
        ImageFile.ImageFile.load_prepare(self)


class _WebP(WebPImageFile):
    def _open(self) -> None:
        """As Pillow's, which asks for its limit where the first 30 bytes say a size."""
        file: Any = self.fp
        self.fp = cast(Any, SimpleNamespace(read=lambda n=-1: file.read(16 if n == 30 else n)))
        super()._open()
        self.fp = file


UNLIMITED: dict[str, Callable[..., Image.Image]] = {"TIFF": _Tiff, "WEBP": _WebP}


def open_picture(file: BinaryIO) -> Image.Image:
    """As ``PIL.Image.open`` of the formats that are read, but for its size limit, which belongs to
    the whole process: check the size before the picture is loaded.

    Raises:
        UnidentifiedImageError: it is none of these formats. Damage raises nearly anything.
    """
    head = file.read(64)
    if head[4:8] == b"ftyp" and head[8:12] in HEIF_BRANDS and b"avi" not in head[8:]:
        from pillow_heif import HeifImageFile  # not registered with Pillow: that is the process's

        factory: Callable[..., Image.Image] = HeifImageFile
        try:
            return factory(file, "")
        except SyntaxError as error:
            raise OSError(str(error)) from error
    Image.preinit()
    for name in FORMAT_EXTENSIONS:
        if name not in Image.OPEN:
            Image.init()
        if name not in Image.OPEN:  # this Pillow is built without it
            continue
        factory, accept = Image.OPEN[name]
        accepted = accept is None or accept(head[:16])
        if not accepted or isinstance(accepted, str):  # a text says why it is not
            continue
        file.seek(0)
        try:
            return UNLIMITED.get(name, factory)(file, "")
        except (SyntaxError, IndexError, KeyError, TypeError, struct.error) as error:
            if name == "AVIF":
                raise OSError(str(error)) from error
            continue  # another format begins alike, or a TIFF has a compression of its own
    raise UnidentifiedImageError("no picture of a format that is read")


@contextmanager
def at_once(needed_bytes: int) -> Iterator[None]:
    """Waits until so many bytes may be decoded: with those that other threads decode no more than
    :data:`MOST_AT_ONCE_BYTES`, or nothing else. First come, first served."""
    with _room.turn, _room.free:
        _room.free.wait_for(
            lambda: not _room.used or _room.used + needed_bytes <= MOST_AT_ONCE_BYTES
        )
        _room.used += needed_bytes
    try:
        yield
    finally:
        with _room.free:
            _room.used -= needed_bytes
            _room.free.notify_all()


class _Room:
    def __init__(self) -> None:
        self.turn, self.free, self.used = threading.Lock(), threading.Condition(), 0


@contextmanager
def quiet_readers() -> Iterator[None]:
    """Without warnings of Pillow and tifffile: stderr is the user's.

    Filters and levels are global to the process, so threads share one change: the first one in
    makes it, and the last one out undoes it.
    """
    with _quiet.lock:
        _quiet.users += 1
        if _quiet.users == 1:
            _quiet.undo.enter_context(warnings.catch_warnings())
            warnings.filterwarnings("ignore", module=r"PIL\.")
            for name in ("PIL", "tifffile"):  # a logger without handlers prints on stderr
                log = logging.getLogger(name)
                _quiet.undo.callback(log.setLevel, log.level)
                log.setLevel(logging.CRITICAL + 1)
    try:
        yield
    finally:
        with _quiet.lock:
            _quiet.users -= 1
            if _quiet.users == 0:
                _quiet.undo.close()


class _Quiet:
    def __init__(self) -> None:
        self.lock, self.users, self.undo = threading.Lock(), 0, ExitStack()


_quiet, _room = _Quiet(), _Room()
