"""Every error a user can meet, as one small tree.

A message is one line that names the thing, says what was expected and gives the remedy.
The command line prints it after ``error:`` and ends with the class's ``exit_code``:
2 for a wrong request (usage), 1 for a failure while doing the right one.
"""

from __future__ import annotations

import re

__all__ = [
    "ConfigError",
    "DownloadError",
    "ExampleNotFoundError",
    "ExtensionError",
    "ImageError",
    "LibraryBusyError",
    "LibraryCorruptError",
    "LibraryError",
    "LibraryNotFoundError",
    "MaskError",
    "NotFoundError",
    "OutlineWarning",
    "OutputError",
    "RecipeMismatchError",
    "SamDetectError",
    "StoreError",
    "UnavailableError",
    "UnknownNameError",
    "one_line",
    "without_secrets",
]

_USER_INFO = re.compile(r"://\S*@")


class SamDetectError(Exception):
    """Base of all errors that sam-detect raises on purpose."""

    exit_code = 1


class ConfigError(SamDetectError):
    """A parameter, option or setting has a value that cannot be used."""

    exit_code = 2


class UnknownNameError(ConfigError):
    """A name (of a segmenter, fade, embedder, ...) that nothing is registered under."""


class UnavailableError(ConfigError):
    """A known part that cannot be used here: an extra or its weights are missing."""


class RecipeMismatchError(ConfigError):
    """A library was made with another recipe than the one asked for."""


class DownloadError(SamDetectError):
    """A file of weights that could not be fetched, or is not what its source says."""


class ImageError(SamDetectError):
    """A picture that cannot be read, or an array that is not a picture."""


class MaskError(SamDetectError):
    """A mask, box or outline that is malformed or lies outside its picture."""


class OutlineWarning(UserWarning):
    """A box that may not mean what it says, or that nothing in the picture fits."""


class ExtensionError(SamDetectError):
    """A user's own part (a fade, an embedder, ...) broke its contract."""


class OutputError(SamDetectError):
    """A result that could not be written."""


class NotFoundError(SamDetectError):
    """What a request to a server names is not there."""


class StoreError(SamDetectError):
    """A vector store that cannot be reached, read or written."""


class LibraryError(SamDetectError):
    """A library that cannot be used as asked."""


class LibraryNotFoundError(LibraryError):
    """No library has this name."""

    exit_code = 2


class ExampleNotFoundError(LibraryError):
    """No example of a library has this id."""


class LibraryBusyError(LibraryError):
    """Another process held the library for longer than we were willing to wait."""


class LibraryCorruptError(LibraryError):
    """A library whose files are damaged. Nothing was changed."""


def without_secrets(text: str) -> str:
    """The text with what stands before an ``@`` in its addresses hidden: names and passwords.

    A net for messages that quote what was given; who makes a message leaves secrets out itself.
    """
    return _USER_INFO.sub("://***@", text)


def one_line(error: BaseException) -> str:
    """The error's message on a single line, never empty."""
    text = " ".join(str(error).split())
    return text or type(error).__name__
