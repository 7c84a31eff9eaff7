"""Clients are not told where things lie on this machine: texts without such paths."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager

from sam_detect.config import HOME_VARIABLE, home_dir
from sam_detect.errors import ImageError


def without_home(text: str) -> str:
    """A text with the name of the variable in the place of the folder of all state."""
    return text.replace(str(home_dir()), HOME_VARIABLE)


def without_folders(path: str) -> str:
    """The name of a file, without the folders that it is in."""
    return os.path.basename(path.replace("\\", "/")) or path


def reason_of(error: OSError) -> str:
    """Why the system refused something, without the paths that it names."""
    return error.strerror or type(error).__name__


@contextmanager
def called(path: str, name: str) -> Iterator[None]:
    """Has the ``ImageError`` of a file call it by its name instead of by its path."""
    try:
        yield
    except ImageError as error:
        raise ImageError(str(error).replace(path, name)) from None
