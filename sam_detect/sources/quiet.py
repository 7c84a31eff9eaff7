"""The readers of pictures without limits and warnings of their own, while they read for us."""

from __future__ import annotations

import logging
import threading
import warnings
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager

from PIL import Image


@contextmanager
def quiet_readers() -> Iterator[None]:
    """Pillow's own size limit and the readers' warnings off.

    Sizes are checked before decoding, and stderr is the user's. All of it is global to the process,
    so threads share one change: the first one in makes it and the last one out undoes it.
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
                self._undo.callback(setattr, Image, "MAX_IMAGE_PIXELS", Image.MAX_IMAGE_PIXELS)
                self._undo.enter_context(warnings.catch_warnings())
                Image.MAX_IMAGE_PIXELS = None
                warnings.filterwarnings("ignore", module=r"PIL\.")
                for name in ("PIL", "tifffile"):  # what nobody listens to is printed
                    log = logging.getLogger(name)
                    self._undo.callback(log.setLevel, log.level)
                    log.setLevel(logging.CRITICAL + 1)

    def leave(self) -> None:
        with self._lock:
            self._users -= 1
            if self._users == 0:
                self._undo.close()


_quiet = _Quiet()
