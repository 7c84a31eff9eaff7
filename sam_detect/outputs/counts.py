"""How many objects of each label there are in each picture, for spreadsheets."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Sequence
from typing import TextIO

from sam_detect.outputs._pictures import RelativeNames
from sam_detect.outputs._text_sink import TextSink
from sam_detect.outputs.csv_table import csv_line, safe_text
from sam_detect.types import Detections, Frame
from sam_detect.types.conversions import UNKNOWN_CATEGORY

BYTE_ORDER_MARK = "\ufeff"
TOTAL = "total"


class CountsSink(TextSink):
    """A CSV table with a row for each picture and a column for each label that was found.

    The last column and the last row are sums. Pictures are named below the folder that all
    ``inputs`` have in common; labels are in alphabetical order. Texts that a spreadsheet would
    run as a formula get an apostrophe in front, as in the format ``csv``. Where a name is
    not ASCII the file begins with a byte order mark: without it Excel shows such names garbled.

    Args:
        output, multiple, inputs: as for :class:`TextSink`.
        include_unknown: whether objects without a label are counted, in a column ``unknown``.
    """

    def __init__(
        self,
        output: str | os.PathLike[str] | TextIO | None = None,
        *,
        multiple: bool = False,
        inputs: Sequence[str | os.PathLike[str]] = (),
        include_unknown: bool = False,
    ) -> None:
        super().__init__(output, multiple=multiple, inputs=inputs)
        self._include_unknown = include_unknown
        self._names = RelativeNames(inputs)
        self._counts: list[tuple[str, Counter[str | None]]] = []

    def text_of(self, frame: Frame, detections: Detections) -> str:
        chosen = detections if self._include_unknown else detections.known
        name = self._names.of(detections.source_id) or detections.source_id
        self._counts.append((name, Counter(chosen.label.tolist())))
        return ""

    def footer(self) -> str:
        text = "".join(
            csv_line(tuple(safe_text(cell) if isinstance(cell, str) else cell for cell in row))
            for row in self.rows()
        )
        return text if text.isascii() else BYTE_ORDER_MARK + text

    def rows(self) -> list[tuple[str | int, ...]]:
        """The table: the header, a row for each picture, the sums."""
        totals: Counter[str | None] = Counter()
        for _, counts in self._counts:
            totals.update(counts)
        found = sorted({str(label) for label in totals if label is not None})
        labels: list[str | None] = [*found, None] if self._include_unknown else [*found]
        header = [UNKNOWN_CATEGORY if label is None else label for label in labels]
        table: list[tuple[str | int, ...]] = [("image", *header, TOTAL)]
        for name, counts in [*self._counts, (TOTAL, totals)]:
            numbers = [counts[label] for label in labels]
            table.append((name, *numbers, sum(numbers)))
        return table
