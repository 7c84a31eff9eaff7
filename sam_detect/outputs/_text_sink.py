"""What the text formats share: a file that appears whole, or a stream."""

from __future__ import annotations

import json
import os
import sys
from abc import abstractmethod
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from sam_detect.errors import OutputError
from sam_detect.interfaces import Sink
from sam_detect.outputs._atomic import AtomicFile, InputGuard, writing_to
from sam_detect.types import Detections, Frame


class TextSink(Sink):
    """Collects text from :meth:`text_of`, picture by picture.

    Args:
        output: the file to write, a text stream, or None for stdout. A file appears when the sink
            is closed; a stream gets each picture's text at once.
        multiple: whether more than one picture may come.
        inputs: the pictures being read, which are never overwritten.

    Raises:
        OutputError: here, in ``write`` and in ``close``, for what cannot be written.
    """

    def __init__(
        self,
        output: str | os.PathLike[str] | TextIO | None = None,
        *,
        multiple: bool = False,
        inputs: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        self.multiple = multiple
        self._guard = InputGuard(inputs)
        self._pictures = 0
        self._closed = False
        self._file: AtomicFile | None = None
        self._stream: TextIO | None = None
        if isinstance(output, (str, os.PathLike)):
            self._guard.check(Path(output))
            self._file = AtomicFile(Path(output))
        else:
            self._stream = sys.stdout if output is None else output

    @abstractmethod
    def text_of(self, frame: Frame, detections: Detections) -> str:
        """The text of one picture, line ends included; may be empty."""

    def header(self) -> str:
        """What stands before the first picture."""
        return ""

    def footer(self) -> str:
        """What stands after the last picture."""
        return ""

    def write(self, frame: Frame, detections: Detections) -> None:
        if self._closed:
            raise OutputError("this output is closed already; make a new one")
        if self._pictures and not self.multiple:
            raise OutputError("this output was made for one picture; say multiple=True for more")
        if self._file is not None:
            self._guard.add(frame.source_id)
            self._guard.check(self._file.path)
        text = self.text_of(frame, detections)
        self._put((self.header() if self._pictures == 0 else "") + text)
        self._pictures += 1

    def close(self) -> list[Path]:
        if self._closed:
            return []
        if not self._pictures and not self.multiple:  # its one picture could not be read
            self.discard()
            return []
        self._closed = True
        self._put((self.header() if self._pictures == 0 else "") + self.footer())
        return [] if self._file is None else [self._file.commit()]

    def discard(self) -> None:
        """Gives up an output that is not closed yet: no file appears, or the old one stays."""
        self._closed = True
        if self._file is not None:
            self._file.discard()

    def _put(self, text: str) -> None:
        if self._file is not None:
            # a file name that is not UTF-8 must not lose the rest
            self._file.write(text.encode("utf-8", "backslashreplace"))
        elif self._stream is not None and text:
            with writing_to("the output stream"):
                self._stream.write(text)
                self._stream.flush()


def to_json(data: Any) -> str:
    """One line of strict JSON in ASCII, which any terminal and any tool takes."""
    try:
        return json.dumps(data, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise OutputError(f"the detections cannot be written as JSON: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, np.generic):
        return value.item()
    if isinstance(value, np.ndarray):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")
