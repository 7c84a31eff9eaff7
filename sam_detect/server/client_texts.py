"""What clients are told: texts without paths of this machine, and what readers warn of, since a
client does not see stderr."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from typing import Any

from sam_detect.config import HOME_VARIABLE, home_dir
from sam_detect.errors import ImageError

_heard: ContextVar[list[str] | None] = ContextVar("heard", default=None)


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


@contextmanager
def hearing() -> Iterator[None]:
    """Has :func:`heard` get warnings, for as long as a service runs. ``warnings.catch_warnings`` is
    for one thread: what it changes is shared by all, so it is changed once."""
    with warnings.catch_warnings():
        show = warnings.showwarning

        def tell(message: Warning | str, category: type[Warning], *rest: Any) -> None:
            found = _heard.get()
            if found is None or category is not UserWarning:  # others tell developers
                show(message, category, *rest)
            else:
                found.append(str(message))

        warnings.simplefilter("always", UserWarning)
        warnings.showwarning = tell  # type: ignore[assignment]
        yield


@contextmanager
def heard(path: str = "", name: str = "") -> Iterator[list[str]]:
    """What is warned of in this thread while the block runs; after it each line once, without paths
    of this machine: the file at ``path`` is called by its name."""
    found: list[str] = []
    token = _heard.set(found)
    try:
        yield found
    finally:
        _heard.reset(token)
        named = (each.replace(path, name) if path else each for each in found)
        text = (" ".join(without_home(each).split()) for each in named)
        found[:] = dict.fromkeys(each.encode("utf-8", "replace").decode() for each in text)
