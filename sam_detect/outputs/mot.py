"""Boxes and track numbers as MOTChallenge has them, which tracking tools and metrics read.

A line is ``frame,id,x,y,w,h,conf,class,visibility`` (Milan et al. 2016, "MOT16: a benchmark for
multi-object tracking", table 3). Frames, tracks, and the picture's first pixel are number 1.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sam_detect.outputs._growing import GrowingSink, GrowingText
from sam_detect.types import Detection, TrackedFrame

NONE = -1
"""Stands for the track of an object that is on none, and for the class of an unknown object."""
SEEN = 1
"""The visibility: hidden objects are not written, and how far one is covered is not known."""
LABELS_ENDING = ".labels.txt"


class MOTSink(GrowingSink):
    """Writes each frame's lines, and the names of the classes beside them.

    The labels' file, ``x.labels.txt`` for ``x.txt``, has a label a line; the first line is class 1.
    Beside a stream or a device (stdout, a pipe) there is no place for labels.
    """

    def __init__(
        self,
        output: str | os.PathLike[str] | None = None,
        *,
        inputs: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        super().__init__(output, inputs=inputs)
        self._names: GrowingText | None = None
        path = None if output is None else Path(output)
        if path is not None and (path.is_file() or not path.exists()):
            self._names = GrowingText(path.with_name(path.stem + LABELS_ENDING), inputs=inputs)
        self._classes: dict[str, int] = {}

    def write(self, tracked: TrackedFrame) -> None:
        pairs = zip(tracked.track_ids.tolist(), tracked.detections, strict=True)
        number = tracked.frame.index + 1
        self.lines.write("".join(self._line(number, track, each) for track, each in pairs))

    def close(self) -> list[Path]:
        names = [] if self._names is None else self._names.close()
        return super().close() + names

    def _line(self, frame: int, track: int, detection: Detection) -> str:
        x, y, w, h = detection.bbox
        known = NONE if detection.label is None else self._class(detection.label)
        return (
            f"{frame},{track or NONE},{x + 1},{y + 1},{w},{h},"
            f"{detection.confidence:.6f},{known},{SEEN}\n"
        )

    def _class(self, label: str) -> int:
        if label not in self._classes:
            self._classes[label] = len(self._classes) + 1
            if self._names is not None:
                self._names.write(" ".join(label.split()) + "\n")
        return self._classes[label]
