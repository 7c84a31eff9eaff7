"""A table with a row for each detection, for spreadsheets and data frames."""

from __future__ import annotations

import csv
import io

from sam_detect.outputs._text_sink import TextSink
from sam_detect.types import Detection, Detections, Frame

COLUMNS = (
    "image", "index", "label", "confidence", "best_label", "x", "y", "w", "h", "area", "score",
    "neighbour_ids", "neighbour_similarities",
)  # fmt: skip
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""The last four are full-width forms of the first four: some spreadsheets take those as well."""


class CSVSink(TextSink):
    """UTF-8, comma-separated, with a header. See :class:`TextSink` for the arguments.

    ``index`` counts the detections of a picture from 0; ``label`` is empty where it is unknown;
    the box is in pixels; ids and similarities of the neighbours are separated by ``;``.

    A text that a spreadsheet would run as a formula (one that begins with ``=``, ``+``, ``-``,
    ``@``, a tab or a line break) gets an apostrophe in front, so that opening a table of strangers'
    labels is safe. The JSON formats keep such a text as it is.
    """

    def header(self) -> str:
        return csv_line(COLUMNS)

    def text_of(self, frame: Frame, detections: Detections) -> str:
        image = safe_text(detections.source_id)
        return "".join(csv_line(_row(image, *pair)) for pair in enumerate(detections))


def _row(image: str, index: int, detection: Detection) -> tuple[str | int | float, ...]:
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
    )


def safe_text(text: str) -> str:
    """A text that no spreadsheet runs as a formula."""
    return "'" + text if text.startswith(FORMULA_STARTS) else text


def csv_line(cells: tuple[str | int | float, ...]) -> str:
    """A row of a CSV file, with its line end."""
    buffer = io.StringIO()
    # only the characters of the line's end are quoted in a cell: both must be there
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue().removesuffix("\r\n") + "\n"
