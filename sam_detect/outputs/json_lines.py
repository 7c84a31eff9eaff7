"""JSON and JSON Lines: exactly ``Detections.to_dict()`` and ``TrackedFrame.to_dict()``."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TextIO

from sam_detect.outputs.text import AppendingSink, TextSink, to_json
from sam_detect.types import Detections, Frame, TrackedFrame


class JSONLinesSink(TextSink):
    """A line for each image, one or many. See :class:`TextSink` for the arguments.

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


class VideoLinesSink(AppendingSink):
    """A line of JSON for each frame of a video."""

    def write(self, tracked: TrackedFrame) -> None:
        self.lines.write(to_json(tracked.to_dict()) + "\n")
