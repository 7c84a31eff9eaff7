"""Text formats: files that appear complete, streams, files that grow; JSON and JSON Lines."""

from __future__ import annotations

import contextlib
import json
import os
import sys
from abc import abstractmethod
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any, TextIO

import numpy as np

from sam_detect.errors import OutputError
from sam_detect.interfaces import Sink, VideoSink
from sam_detect.io.files import (
    CLOSED,
    ONLY_ONE,
    AtomicFile,
    InputGuard,
    RelativeNames,
    writing_to,
)
from sam_detect.types import Detections, Frame, TrackedFrame


class TextSink(Sink):
    """Collects text from :meth:`text_of`, image by image.

    Args:
        output: the file to write, a text stream, or None for stdout. A file appears when the sink
            is closed; a stream gets each image's text at once.
        multiple: whether more than one image may come.
        inputs: the images being read, which are never overwritten.

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
        self._images = 0
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
        """The text of one image, line ends included; may be empty."""

    def header(self) -> str:
        """What stands before the first image."""
        return ""

    def footer(self) -> str:
        """What stands after the last image."""
        return ""

    def write(self, frame: Frame, detections: Detections) -> None:
        if self._closed:
            raise OutputError(CLOSED)
        if self._images and not self.multiple:
            raise OutputError(ONLY_ONE)
        if self._file is not None:
            self._guard.add(frame.source_id)
            self._guard.check(self._file.path)
        text = self.text_of(frame, detections)
        self._put((self.header() if self._images == 0 else "") + text)
        self._images += 1

    def close(self) -> list[Path]:
        if self._closed:
            return []
        if not self._images and not self.multiple:  # its one image could not be read
            self.discard()
            return []
        self._closed = True
        self._put((self.header() if self._images == 0 else "") + self.footer())
        return [] if self._file is None else [self._file.commit()]

    def discard(self) -> None:
        """Drops an output that is not closed yet: no file appears, or the old one stays."""
        self._closed = True
        if self._file is not None:
            self._file.discard()

    def _put(self, text: str) -> None:
        if self._file is not None:
            # a file name that is not UTF-8 must not lose the rest
            self._file.write(text.encode("utf-8", "backslashreplace"))
        elif self._stream is not None and text:
            _print(self._stream, text)


class DatasetTextSink(TextSink):
    """A text with one entry per image, written as a whole at the end, with relative names.

    Args:
        output, multiple, inputs: as for :class:`TextSink`.
        include_unknown: whether objects without a label are written, as ``unknown``.
        labels: of the library, which the text has, too, where none of them was found: so that
            the files of several runs fit together.
    """

    def __init__(
        self,
        output: str | os.PathLike[str] | TextIO | None = None,
        *,
        multiple: bool = False,
        inputs: Sequence[str | os.PathLike[str]] = (),
        include_unknown: bool = False,
        labels: Collection[str] = (),
    ) -> None:
        super().__init__(output, multiple=multiple, inputs=inputs)
        self.include_unknown, self.labels = include_unknown, labels
        self._names = RelativeNames(inputs)

    @abstractmethod
    def add(self, name: str, detections: Detections) -> None:
        """Takes the objects of one image that are to be written."""

    def text_of(self, frame: Frame, detections: Detections) -> str:
        name = self._names.of(detections.source_id) or detections.source_id
        self.add(name, detections if self.include_unknown else detections.known)
        return ""


class AppendedText:
    """Lines that are on the disk as soon as they are written; complete up to the last line.

    Args:
        output: the file, or None for stdout.
        inputs: the files being read, which are never overwritten.

    Raises:
        OutputError: here and in ``write``, for what cannot be written.
    """

    def __init__(
        self,
        output: str | os.PathLike[str] | None,
        *,
        inputs: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        self.path = None if output is None else Path(output)
        self._written = 0
        self._closed = False
        if self.path is not None:
            InputGuard(inputs).check(self.path)
            with writing_to(self.path):
                self.path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self.path.open("wb", buffering=0)

    def append(self, text: str) -> None:
        """Appends complete lines; if the disk has no room for all of them, none is kept."""
        if self._closed:
            raise OutputError(CLOSED)
        if self.path is None:
            _print(sys.stdout, text)
            return
        rest = memoryview(text.encode("utf-8", "backslashreplace"))
        size = len(rest)
        with writing_to(self.path):
            try:
                while rest:
                    rest = rest[self._file.write(rest) or 0 :]
            except OSError:
                with contextlib.suppress(OSError):  # a pipe cannot be truncated
                    self._file.truncate(self._written)
                raise
        self._written += size

    def close(self) -> list[Path]:
        """The file that was written; may be called twice."""
        if self._closed or self.path is None:
            return []
        self._closed = True
        with writing_to(self.path):
            self._file.close()
        return [self.path]


def _print(stream: TextIO, text: str) -> None:
    with writing_to("the output stream"):
        stream.write(text)
        stream.flush()


class JSONLinesSink(TextSink):
    """A line for each image: exactly ``Detections.to_dict()``. See :class:`TextSink`.

    Args:
        explain: whether each detection has its explanation.
    """

    def __init__(
        self,
        output: str | os.PathLike[str] | TextIO | None = None,
        *,
        multiple: bool = False,
        inputs: Sequence[str | os.PathLike[str]] = (),
        explain: bool = False,
    ) -> None:
        super().__init__(output, multiple=multiple, inputs=inputs)
        self._explain = explain

    def text_of(self, frame: Frame, detections: Detections) -> str:
        return to_json(detections.to_dict(explain=self._explain)) + "\n"


class JSONSink(JSONLinesSink):
    """One object for one image, a line for each of several. See :class:`TextSink`.

    A single object is on one line as well, so that a reader of JSON Lines reads both.
    """


class VideoLinesSink(AppendedText, VideoSink):
    """A line of JSON for each frame of a video: exactly ``TrackedFrame.to_dict()``."""

    def write(self, tracked: TrackedFrame) -> None:
        self.append(to_json(tracked.to_dict()) + "\n")


def to_json(data: Any) -> str:
    """One line of strict JSON in ASCII, which any terminal and any tool reads."""
    try:
        return json.dumps(data, allow_nan=False, default=_plain)
    except (TypeError, ValueError) as error:
        raise OutputError(f"the detections cannot be written as JSON: {error}") from error


def _plain(value: Any) -> Any:
    if isinstance(value, (np.generic, np.ndarray)):
        return value.tolist()
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    raise TypeError(f"{type(value).__name__} is no JSON value")
