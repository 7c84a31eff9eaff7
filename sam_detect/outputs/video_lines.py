"""JSON Lines of a video: a line for each frame, exactly ``TrackedFrame.to_dict()``."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TextIO

from sam_detect.interfaces import VideoSink
from sam_detect.outputs._atomic import InputGuard, writing_to
from sam_detect.outputs._text_sink import to_json
from sam_detect.types import TrackedFrame


class VideoLinesSink(VideoSink):
    """Writes each frame's line at once, so that a stopped run keeps what it has done.

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
        self._path = None if output is None else Path(output)
        self._file: TextIO = sys.stdout
        if self._path is not None:
            InputGuard(inputs).check(self._path)
            with writing_to(self._path):
                self._path.parent.mkdir(parents=True, exist_ok=True)
                self._file = self._path.open("w", encoding="utf-8")

    def write(self, tracked: TrackedFrame) -> None:
        with writing_to(self._path or "the output stream"):
            self._file.write(to_json(tracked.to_dict()) + "\n")
            self._file.flush()

    def close(self) -> list[Path]:
        if self._path is None:
            return []
        with writing_to(self._path):
            self._file.close()
        return [self._path]
