"""CSV tables for spreadsheets and data frames: a row per object, or counts per image."""

from __future__ import annotations

import csv
import io
from collections import Counter
from collections.abc import Iterable
from functools import cached_property

from sam_detect.outputs.text import DatasetTextSink, TextSink
from sam_detect.types import Detection, Detections, Frame
from sam_detect.types.conversions import UNKNOWN_CATEGORY

COLUMNS = (
    "image", "index", "label", "confidence", "best_label", "x", "y", "w", "h", "area", "score",
    "neighbour_ids", "neighbour_similarities",
)  # fmt: skip
FORMULA_STARTS = ("=", "+", "-", "@", "\t", "\r", "\n", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""The last four are full-width forms of the first four: some spreadsheets take those as well."""
BYTE_ORDER_MARK = "\ufeff"
TOTAL = "total"


class CSVSink(TextSink):
    """UTF-8, comma-separated, with a header. See :class:`TextSink` for the arguments.

    ``index`` counts the detections of an image from 0; ``label`` is empty if it is unknown; the
    box is in pixels; ids and similarities of the neighbours are separated by ``;``.

    A text that a spreadsheet would run as a formula (one that starts with ``=``, ``+``, ``-``,
    ``@``, a tab or a line break) gets an apostrophe in front, so that labels from others are safe
    to open. The JSON formats keep such a text as it is.
    """

    def header(self) -> str:
        return _csv_line(COLUMNS)

    def text_of(self, frame: Frame, detections: Detections) -> str:
        image = safe_text(detections.source_id)
        return "".join(_csv_line(_row(image, *pair)) for pair in enumerate(detections))


def _row(image: str, index: int, detection: Detection) -> Iterable[str | float]:
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


class CountsSink(DatasetTextSink):
    """A CSV table with a row for each image and a column for each label that was found.

    The last column and the last row are sums. Images are named relative to the folder that all
    ``inputs`` have in common; labels are in alphabetical order. Formulas are escaped as in
    :class:`CSVSink`. If a name is not ASCII the file starts with a byte order mark: without it
    Excel shows such names garbled. See :class:`DatasetTextSink` for the arguments.
    """

    @cached_property
    def _counts(self) -> list[tuple[str, Counter[str | None]]]:
        return []

    def add(self, name: str, detections: Detections) -> None:
        self._counts.append((name, Counter(detections.label.tolist())))

    def footer(self) -> str:
        text = "".join(
            _csv_line(safe_text(cell) if isinstance(cell, str) else cell for cell in row)
            for row in self.rows()
        )
        return text if text.isascii() else BYTE_ORDER_MARK + text

    def rows(self) -> list[tuple[str | int, ...]]:
        """The table: the header, a row for each image, the sums."""
        totals: Counter[str | None] = Counter()
        for _, counts in self._counts:
            totals.update(counts)
        found = sorted({str(label) for label in totals if label is not None})
        labels: list[str | None] = [*found, None] if self.include_unknown else [*found]
        header = [UNKNOWN_CATEGORY if label is None else label for label in labels]
        table: list[tuple[str | int, ...]] = [("image", *header, TOTAL)]
        for name, counts in [*self._counts, (TOTAL, totals)]:
            numbers = [counts[label] for label in labels]
            table.append((name, *numbers, sum(numbers)))
        return table


def safe_text(text: str) -> str:
    """A text that no spreadsheet runs as a formula."""
    return "'" + text if text.startswith(FORMULA_STARTS) else text


def _csv_line(cells: Iterable[str | float]) -> str:
    """A row of a CSV file, with its line end."""
    buffer = io.StringIO()
    # only the characters of the line terminator are quoted in a cell: both must be there
    csv.writer(buffer, lineterminator="\r\n").writerow(cells)
    return buffer.getvalue().removesuffix("\r\n") + "\n"
