"""JSON Lines of a video: a line for each frame, exactly ``TrackedFrame.to_dict()``."""

from __future__ import annotations

from sam_detect.outputs._growing import GrowingSink
from sam_detect.outputs._text_sink import to_json
from sam_detect.types import TrackedFrame


class VideoLinesSink(GrowingSink):
    """Writes a line of JSON for each frame."""

    def write(self, tracked: TrackedFrame) -> None:
        self.lines.write(to_json(tracked.to_dict()) + "\n")
