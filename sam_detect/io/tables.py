"""Tables: a row per object, counts per image, boxes per frame of a video (MOTChallenge)."""

from __future__ import annotations

import csv
import io
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from functools import cached_property
from pathlib import Path

from sam_detect.interfaces import VideoSink
from sam_detect.io.shapes import measured
from sam_detect.io.text_sinks import AppendedText, DatasetTextSink, TextSink
from sam_detect.types import Detection, Detections, Frame, ImageRGB, TrackedFrame
from sam_detect.types.conversions import UNKNOWN_CATEGORY

MEASURES = ("area_um2", "volume_id", "volume_voxels", "volume_um3")
COLUMNS = (
    "image", "index", "label", "confidence", "best_label", "x", "y", "w", "h", "area", "score",
    "neighbour_ids", "neighbour_similarities", "perimeter", "circularity", "aspect_ratio",
    "solidity", "mean_intensities", "xy", "z", "t", *MEASURES,
)  # fmt: skip
TRACK_COLUMNS = ("frame", "time_s", "track", *COLUMNS[2:11])
"""Of an object in a frame of a video."""
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""The last four are full-width forms of the first four: some spreadsheets take those as well."""
BYTE_ORDER_MARK = "\ufeff"
TOTAL, CHECK = "total", "check"
NONE = -1
"""Stands for the track of an object that has none, and for the class of an unknown object."""
VISIBLE = 1
"""Hidden objects are not written, and how much of one is occluded is not known."""
LABELS_EXTENSION = ".labels.txt"


class CSVSink(TextSink):
    """UTF-8, comma-separated, with a header. See :class:`TextSink` for the arguments.

    ``index`` counts the detections of an image from 0; ``label`` is empty if it is unknown; the
    box is in pixels; ids and similarities of the neighbours are separated by ``;``, and so are the
    mean intensities of the channels (red, green, blue; 0 to 255). ``xy``, ``z`` and ``t`` are the
    plane of a stack, from 0; empty for other images. The measures of
    :meth:`Detections.measures` are empty where they are not known.
    :class:`~sam_detect.io.shapes.Shape` says what the measures of the shape are.

    A text that a spreadsheet would run as a formula (one that starts with ``=``, ``+``, ``-``,
    ``@``, a tab or a line break) gets an apostrophe in front, so that labels from others are safe
    to open. The JSON formats keep such a text as it is.
    """

    def header(self) -> str:
        return _csv_line(COLUMNS)

    def text_of(self, frame: Frame, detections: Detections) -> str:
        image = safe_text(detections.source_id)
        pixels = frame.image_rgb
        place = ("", "", "") if frame.location is None else frame.location
        rows = []
        for index, detection in enumerate(detections):
            known = detections.measures(index)
            sizes = (known.get(name, "") for name in MEASURES)
            rows.append(_csv_line([*_row(image, index, detection, pixels), *place, *sizes]))
        return "".join(rows)


def _row(image: str, index: int, detection: Detection, pixels: ImageRGB) -> Iterable[str | float]:
    shape = measured(detection, pixels)
    neighbours = detection.neighbours
    return (
        image,
        index,
        safe_text(detection.label or ""),
        round(detection.confidence, 6),
        safe_text(detection.best_label or ""),
        *detection.bbox,
        detection.area,
        round(detection.score, 6),
        safe_text(";".join(neighbour.id for neighbour in neighbours)),
        ";".join(f"{neighbour.similarity:.6f}" for neighbour in neighbours),
        round(shape.perimeter, 2),
        round(shape.circularity, 4),
        round(shape.aspect_ratio, 4),
        round(shape.solidity, 4),
        ";".join(f"{mean:.2f}" for mean in shape.means),
    )


class CountsSink(DatasetTextSink):
    """A CSV table with a row for each image, and a column for each label of the library and each
    that was found.

    The last row and the column ``total`` are sums; ``check`` says why a count may be wrong. Images
    are named relative to the folder that all ``inputs`` have in common; labels are in alphabetical
    order. Formulas are escaped as in :class:`CSVSink`. If a name is not ASCII the file starts with
    a byte order mark: without it Excel shows such names garbled. See :class:`DatasetTextSink` for
    the arguments.
    """

    @cached_property
    def _counts(self) -> list[tuple[str, Counter[str | None], str]]:
        return []

    def add(self, name: str, detections: Detections) -> None:
        self._counts.append((name, Counter(detections.label.tolist()), detections.check))

    def footer(self) -> str:
        text = "".join(
            _csv_line(safe_text(cell) if isinstance(cell, str) else cell for cell in row)
            for row in self.rows()
        )
        return text if text.isascii() else BYTE_ORDER_MARK + text

    def rows(self) -> list[tuple[str | int, ...]]:
        """The table: the header, a row for each image, the sums."""
        totals: Counter[str | None] = Counter()
        for _, counts, _ in self._counts:
            totals.update(counts)
        found = sorted({*self.labels, *(str(label) for label in totals if label is not None)})
        labels: list[str | None] = [*found, None] if self.include_unknown else [*found]
        header = [UNKNOWN_CATEGORY if label is None else label for label in labels]
        table: list[tuple[str | int, ...]] = [("image", *header, TOTAL, CHECK)]
        for name, counts, check in [*self._counts, (TOTAL, totals, "")]:
            numbers = [counts[label] for label in labels]
            table.append((name, *numbers, sum(numbers), check))
        return table


class MOTSink(AppendedText, VideoSink):
    """Boxes and track ids in the MOTChallenge format, which tracking tools and metrics read.

    A line is ``frame,id,x,y,w,h,conf,class,visibility`` (Milan et al. 2016, "MOT16: a benchmark
    for multi-object tracking", table 3). Frames, tracks, and the image's first pixel are number 1.
    The names of the classes go into a second file.

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
        self.append("".join(self._line(number, track, each) for track, each in pairs))

    def close(self) -> list[Path]:
        return super().close() + ([] if self._names is None else self._names.close())

    def _line(self, frame: int, track: int, detection: Detection) -> str:
        label = detection.label
        if label is not None and label not in self._classes:
            self._classes[label] = len(self._classes) + 1
            if self._names is not None:
                self._names.append(" ".join(label.split()) + "\n")
        x, y, w, h = detection.bbox
        class_id = NONE if label is None else self._classes[label]
        return (
            f"{frame},{track or NONE},{x + 1},{y + 1},{w},{h},"
            f"{detection.confidence:.6f},{class_id},{VISIBLE}\n"
        )


class TracksSink(AppendedText, VideoSink):
    """A CSV table with a row for each object of each frame, which grows while the video runs.

    ``frame`` counts from 0, ``time_s`` is in seconds and empty where it is not known, ``track`` is
    0 for an object without one; the other columns are as in :class:`CSVSink`.
    """

    def __init__(
        self,
        output: str | os.PathLike[str] | None = None,
        *,
        inputs: Sequence[str | os.PathLike[str]] = (),
    ) -> None:
        super().__init__(output, inputs=inputs)
        self.append(_csv_line(TRACK_COLUMNS))

    def write(self, tracked: TrackedFrame) -> None:
        frame, rows = tracked.frame, list[str]()
        time_s = "" if frame.time_s is None else round(frame.time_s, 6)
        for track, each in zip(tracked.track_ids.tolist(), tracked.detections, strict=True):
            label, best = safe_text(each.label or ""), safe_text(each.best_label or "")
            said = (label, round(each.confidence, 6), best)
            size = (*each.bbox, each.area, round(each.score, 6))
            rows.append(_csv_line((frame.index, time_s, track, *said, *size)))
        self.append("".join(rows))


def safe_text(text: str) -> str:
    """A text that no spreadsheet runs as a formula."""
    return "'" + text if text.startswith(FORMULA_STARTS) else text


def _csv_line(cells: Iterable[str | float]) -> str:
    """A row of a CSV file, with its line end."""
    buffer = io.StringIO()
    # only the characters of the line terminator are quoted in a cell: both must be there
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue().removesuffix("\r\n") + "\n"
