"""Pillow and tifffile: which formats are read, without limits and messages of their own."""

from __future__ import annotations

import logging
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

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


def open_picture(file: BinaryIO) -> Image.Image:
    """As ``PIL.Image.open`` of the formats that are read, but for its size limit, which belongs to
    the whole process: check the size before the picture is loaded.

    Raises:
        UnidentifiedImageError: it is none of these formats. Damage raises nearly anything.
    """
    prefix = file.read(16)
    Image.preinit()
    for name in FORMAT_EXTENSIONS:
        if name not in Image.OPEN:
            Image.init()
        if name not in Image.OPEN:  # this Pillow is built without it
            continue
        factory, accept = Image.OPEN[name]
        accepted = accept is None or accept(prefix)
        if not accepted or isinstance(accepted, str):  # a text says why it is not
            continue
        file.seek(0)
        try:
            return factory(file, "")
        except (SyntaxError, IndexError, TypeError, struct.error):
            continue  # another format begins alike
    raise UnidentifiedImageError("no picture of a format that is read")


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


_quiet = _Quiet()
