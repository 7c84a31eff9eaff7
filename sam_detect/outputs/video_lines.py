"""JSON Lines of a video: a line for each frame, exactly ``TrackedFrame.to_dict()``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sam_detect.interfaces import VideoSink
from sam_detect.outputs._growing import GrowingText
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
        self._text = GrowingText(output, inputs=inputs)

    def write(self, tracked: TrackedFrame) -> None:
        self._text.write(to_json(tracked.to_dict()) + "\n")

    def close(self) -> list[Path]:
        return self._text.close()
