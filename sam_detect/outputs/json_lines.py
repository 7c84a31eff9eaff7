"""JSON: one object for each picture, exactly ``Detections.to_dict()``."""

from __future__ import annotations

from sam_detect.outputs._text_sink import TextSink, to_json
from sam_detect.types import Detections, Frame


class JSONLinesSink(TextSink):
    """A line for each picture, one or many. See :class:`TextSink` for the arguments."""

    def text_of(self, frame: Frame, detections: Detections) -> str:
        return to_json(detections.to_dict()) + "\n"


class JSONSink(JSONLinesSink):
    """One object for one picture, a line for each of several. See :class:`TextSink`.

    A single object stands on one line as well, so that what reads several reads one.
    """
