"""Opens pictures with Pillow, without its size limit and its warnings, and without changing them
for the rest of the program."""

from __future__ import annotations

import logging
import struct
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import BinaryIO

from PIL import Image, UnidentifiedImageError

from sam_detect.sources.paths import FORMAT_EXTENSIONS


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
    _quiet.enter()
    try:
        yield
    finally:
        _quiet.leave()


class _Quiet:
    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._users = 0
        self._undo = ExitStack()

    def enter(self) -> None:
        with self._lock:
            self._users += 1
            if self._users == 1:
                self._undo.enter_context(warnings.catch_warnings())
                warnings.filterwarnings("ignore", module=r"PIL\.")
                for name in ("PIL", "tifffile"):  # a logger without handlers prints on stderr
                    log = logging.getLogger(name)
                    self._undo.callback(log.setLevel, log.level)
                    log.setLevel(logging.CRITICAL + 1)

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._undo.close()


_quiet = _Quiet()
