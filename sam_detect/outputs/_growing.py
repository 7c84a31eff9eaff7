"""Text files that grow line by line, and are whole up to their last line whenever they are read."""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Sequence
from pathlib import Path

from sam_detect.errors import OutputError
from sam_detect.interfaces import VideoSink
from sam_detect.outputs._atomic import InputGuard, writing_to


class GrowingText:
    """Lines that are on their way to the disk as soon as they are written.

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

    def write(self, text: str) -> None:
        """Takes whole lines; what does not fit on the disk as a whole is not there at all."""
        if self._closed:
            raise OutputError("this output is closed already; make a new one")
        if self.path is None:
            with writing_to("the output stream"):
                sys.stdout.write(text)
                sys.stdout.flush()
            return
        with writing_to(self.path):
            try:
                self._put(text.encode("utf-8", "backslashreplace"))
            except OSError:
                with contextlib.suppress(OSError):  # a pipe cannot be cut
                    self._file.truncate(self._written)
                raise

    def close(self) -> list[Path]:
        """The file that was written; may be called twice."""
        if self._closed or self.path is None:
            return []
        self._closed = True
        with writing_to(self.path):
            self._file.close()
        return [self.path]

    def _put(self, data: bytes) -> None:
        rest = memoryview(data)
        while rest:
            rest = rest[self._file.write(rest) or 0 :]
        self._written += len(data)


class GrowingSink(VideoSink):
    """Writes each frame's lines at once, so that a stopped run keeps what it has done.

    Args:
        output: the file, or None for stdout.
        inputs: the files being read, which are never overwritten.

    Raises:
        OutputError: here and in ``write``, for what cannot be written.
    """

    def __init__(
        self,
        output: str | os.PathLike[str] | None = None,
        *,
        inputs: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        self.lines = GrowingText(output, inputs=inputs)

    def close(self) -> list[Path]:
        return self.lines.close()
