"""Boxes and track ids in the MOTChallenge format, which tracking tools and metrics read.

A line is ``frame,id,x,y,w,h,conf,class,visibility`` (Milan et al. 2016, "MOT16: a benchmark for
multi-object tracking", table 3). Frames, tracks, and the image's first pixel are number 1.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from sam_detect.outputs.text import AppendedText, AppendingSink
from sam_detect.types import Detection, TrackedFrame

NONE = -1
"""Stands for the track of an object that has none, and for the class of an unknown object."""
VISIBLE = 1
"""Hidden objects are not written, and how much of one is occluded is not known."""
LABELS_EXTENSION = ".labels.txt"


class MOTSink(AppendingSink):
    """Writes each frame's lines, and the names of the classes into a second file.

    That file, ``x.labels.txt`` for ``x.txt``, has a label a line; the first line is class 1. If
    the output is a stream or a device (stdout, a pipe) the names are not written.
    """

    def __init__(
        self,
        output: str | os.PathLike[str] | None = None,
        *,
        inputs: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        super().__init__(output, inputs=inputs)
        self._names: AppendedText | None = None
        path = None if output is None else Path(output)
        if path is not None and (path.is_file() or not path.exists()):
            self._names = AppendedText(path.with_name(path.stem + LABELS_EXTENSION), inputs=inputs)
        self._classes: dict[str, int] = {}

    def write(self, tracked: TrackedFrame) -> None:
        pairs = zip(tracked.track_ids.tolist(), tracked.detections, strict=True)
        number = tracked.frame.index + 1
        self.lines.write("".join(self._line(number, track, each) for track, each in pairs))

    def close(self) -> list[Path]:
        return super().close() + ([] if self._names is None else self._names.close())

    def _line(self, frame: int, track: int, detection: Detection) -> str:
        label = detection.label
        if label is not None and label not in self._classes:
            self._classes[label] = len(self._classes) + 1
            if self._names is not None:
                self._names.write(" ".join(label.split()) + "\n")
        x, y, w, h = detection.bbox
        class_id = NONE if label is None else self._classes[label]
        return (
            f"{frame},{track or NONE},{x + 1},{y + 1},{w},{h},"
            f"{detection.confidence:.6f},{class_id},{VISIBLE}\n"
        )
