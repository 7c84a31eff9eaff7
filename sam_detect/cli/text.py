"""Tables for people."""

from __future__ import annotations

import io
import shutil
import sys
from collections import Counter
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from sam_detect.cli.feedback import printable, say

if TYPE_CHECKING:
    from sam_detect.types import Detections, Neighbour

SHORT_ID = 8
"""So many characters of an id name an example: `library show` takes the beginning of an id."""
WIDE = 120
"""Narrower terminals get short ids."""
UNLIMITED = 10_000
REASONS = 3
MOST_ROWS = 20
"""Objects of a picture that get rows; the surest ones come first."""
UNKNOWN = "unknown"
"""What a table calls an object without a label."""
PADDING = 12
"""Columns between and around the columns of a table."""


def table(*columns: str, **settings: Any) -> Any:
    """A table of columns; those that end in ``>`` are numbers. On a narrow terminal ids, dates
    and paths are cut to what still names them, so that a row stays a row."""
    from rich import box
    from rich.table import Table

    class Fitted(Table):
        def add_row(self, *cells: Any, **options: Any) -> None:
            texts = (printable(cell) if isinstance(cell, str) else cell for cell in cells)
            named = zip(names, texts, strict=True)
            super().add_row(*(_fitted(name, cell) for name, cell in named), **options)

    names = [column.rstrip(">") for column in columns]
    made = Fitted(box=box.SIMPLE_HEAD, pad_edge=False, **settings)
    for name, column in zip(names, columns, strict=True):
        side: Any = "right" if column.endswith(">") else "left"
        made.add_column(name, justify=side, overflow="fold")
    return made


def _fitted(name: str, cell: Any) -> Any:
    if width() >= WIDE or not isinstance(cell, str):
        return cell
    if name == "source" and "[" not in cell and len(cell) > width() // 4:
        return "…" + cell[1 - width() // 4 :]
    return cell[: {"id": SHORT_ID, "added": len("2026-01-31")}.get(name, len(cell))]


def escape(text: str) -> str:
    """Text that rich prints as it is."""
    from rich.markup import escape as escape_markup

    return escape_markup(printable(text))


def width() -> int:
    """Columns of the terminal; without limit where stdout is none, so that no line is broken."""
    if sys.stdout is None or not sys.stdout.isatty():
        return UNLIMITED
    return shutil.get_terminal_size().columns


def show(renderable: Any) -> None:
    """Prints to stdout: with colours to a terminal, else as plain text."""
    from rich.console import Console

    colours = width() < UNLIMITED
    text = io.StringIO()
    console = Console(
        file=text, width=width(), force_terminal=colours, highlight=False, soft_wrap=False
    )
    console.print(renderable)
    lines = (line.rstrip() for line in text.getvalue().splitlines())
    say("\n".join(lines), to=sys.stdout, styled=True)


def counts_as_table() -> Any:
    """The sink of ``--format counts`` for a terminal: a table instead of CSV."""
    from sam_detect.io.tables import CountsSink

    class CountsTable(CountsSink):
        def footer(self) -> str:
            (first, *labels), *rows, totals = self.rows()
            found = table(str(first), *(f"{escape(str(label))}>" for label in labels))
            for row in rows:
                found.add_row(*(escape(str(cell)) for cell in row))
            found.add_section()
            found.add_row(*(escape(str(cell)) for cell in totals))
            show(found)
            return ""

    return CountsTable


CORRECTING = """\
A wrong find? Teach its own name: learn IMAGE --label NAME --box x,y,w,h
Only if it has none, what it is not: learn IMAGE --label WRONG --negative ..."""
"""The better habit first: by how much is measured in docs/labelling.md."""


class DetectionPrinter:
    """Prints what was found: for each picture how many of what, and for one picture its objects.

    Args:
        library: name of the library.
        several: whether there are several pictures: then their sums come last.
        objects: whether a single picture's objects get rows.
        unknown: whether those without a label get rows, too.
        filtered: whether objects without a label may have been left out before.
        explain: whether each object, unknown ones too, gets the terms that decided about it.
    """

    def __init__(
        self,
        library: str,
        *,
        several: bool,
        objects: bool,
        unknown: bool,
        filtered: bool,
        explain: bool = False,
    ) -> None:
        self._explain = explain
        self._library, self._several, self._filtered = library, several, filtered
        self._objects, self._unknown = objects, unknown
        self._total: Counter[str | None] = Counter()
        self._pictures = 0
        self._teachable = ""

    def show(self, detections: Detections) -> None:
        """Prints one picture's line, and its rows."""
        counts: Counter[str | None] = Counter(detections.label.tolist())
        self._total.update(counts)
        self._pictures += 1
        name = printable(detections.source_id)
        if detections.location is not None:
            name += " (xy {}, z {}, t {})".format(*(each + 1 for each in detections.location))
        check = f" (check: {printable(detections.check)})" if detections.check else ""
        say(f"{name}: {self._amounts(counts)}{check}", to=sys.stdout)
        shown = detections if self._unknown else detections.known
        if self._explain:
            shown = detections
            show(_explanations_of(shown[:MOST_ROWS]))
            limits = [each.explanation.threshold for each in shown if each.explanation]
            if limits:
                say(EXPLAINED.format(limit=max(limits)), to=sys.stdout)
            weights = next((e.explanation.part_weights for e in shown if e.explanation), {})
            for line in parts_lines(weights):
                say(line, to=sys.stdout)
            if len(shown) > MOST_ROWS:
                say(f"and {len(shown) - MOST_ROWS} more: --json has all of them", to=sys.stdout)
        elif self._objects and not self._several and len(shown):
            show(_table_of(shown[:MOST_ROWS]))
            if len(shown) > MOST_ROWS:
                say(
                    f"and {len(shown) - MOST_ROWS} more: --format csv lists all of them, "
                    "--output PICTURE draws them",
                    to=sys.stdout,
                )
        # Texts give names without examples; they leave no neighbours.
        if len(detections) and not any(
            v.neighbours or v.best_label for v in detections.classifications
        ):
            self._teachable = self._teachable or detections.source_id

    def end(self) -> None:
        """Prints the sums of several pictures, and how to teach or, on a terminal, correct."""
        if self._several and self._pictures > 1:
            say(f"total of {self._pictures} pictures: {self._amounts(self._total)}", to=sys.stdout)
        if self._objects and self._teachable and set(self._total) <= {None}:
            place = into(self._library)
            say(
                f"Library '{printable(self._library)}' knows nothing yet. Teach it:\n"
                f"  sam-detect learn {_shell(self._teachable)} --label NAME --box x,y,w,h{place}",
                to=sys.stdout,
            )
        elif self._objects and set(self._total) - {None} and width() < UNLIMITED:
            say(CORRECTING, to=sys.stdout)

    def _amounts(self, counts: Counter[str | None]) -> str:
        known = [(number, str(name)) for name, number in counts.items() if name is not None]
        known.sort(key=lambda each: (-each[0], each[1]))
        found = ", ".join(f"{number} {printable(name)}" for number, name in known)
        also = "" if self._filtered and not counts[None] else f"; {counts[None]} unknown"
        return f"{found or 'nothing known'}{also}"


def parts_lines(weights: Mapping[str, float]) -> list[str]:
    """How much each part of a vector counts, the largest weights first; no line for one part."""
    ordered = sorted(weights.items(), key=lambda each: -each[1])
    parts = ", ".join(f"{name} {weight:.0%}" for name, weight in ordered)
    return [f"what counts as similar: {parts}"] if parts else []


def into(library: str) -> str:
    """The option that names a library in a command to paste; nothing for the default one."""
    from sam_detect.library.places import DEFAULT_LIBRARY

    return "" if library == DEFAULT_LIBRARY else f" --library {_shell(library)}"


def _table_of(shown: Detections) -> Any:
    """A line for each detection; with as many of its reasons as fit."""
    labels = [printable(str(label or UNKNOWN)) for label in shown.label]
    boxes = [",".join(str(value) for value in each.bbox) for each in shown]
    longest = max(len(label) for label in labels)
    label_width = longest if width() == UNLIMITED else min(longest, width() // 4)
    room = width() - label_width - len("conf") - max(len(box) for box in boxes) - PADDING
    rows = table("label", "conf>", "x,y,w,h>", "because of")
    for each, label, box in zip(shown, labels, boxes, strict=True):
        reasons = [_reason(n, each.label) for n in each.neighbours[:REASONS]]
        if each.classification.taught:
            reasons = [f"taught in this picture {each.neighbours[0].id[:SHORT_ID]}"]
        while len(reasons) > 1 and len(", ".join(reasons)) > room:
            reasons.pop()
        cells = (label, f"{each.confidence:.2f}", box, ", ".join(reasons)[: max(room, 0)])
        rows.add_row(*(escape(text) for text in cells))
    rows.columns[0].max_width = max(label_width, len("label"))
    rows.columns[0].no_wrap, rows.columns[0].overflow = True, "ellipsis"
    return rows


EXPLAINED = (
    "'NAME?' is unknown, nearest to NAME: a label needs a confidence of {limit:g}; the terms are "
    "log-odds;\n'*': the nearest hard negative is background of an example's picture; --json has "
    "all votes,\nsimilarities and qualities, and what gave way"
)
TERM_HEADINGS = {
    "similarity": "similar",
    "one_image": "1 image",
    "hard_negatives": "hard neg",
    "area": "area",
    "quality": "quality",
    "image_quality": "img qual",
    "few_examples": "few",
}
"""Headings of the log-odds terms of an explanation (docs/labelling.md), in their order."""


def _explanations_of(shown: Detections) -> Any:
    """A row for each detection: the vote, then the terms that decided and their sum."""
    from sam_detect.types.explanation import Explanation

    reasons = [each.explanation or Explanation() for each in shown]
    terms = [n for n in TERM_HEADINGS if any(why.log_odds.get(n) for why in reasons)]
    headings = [f"{TERM_HEADINGS[name]}>" for name in terms] + (["sum>"] if terms else [])
    rows = table("label", "conf>", "x,y,w,h>", "vote>", *headings)
    for each, why in zip(shown, reasons, strict=True):
        vote = f"{max(why.votes.values(), default=0.0):.2f}"
        if not why.log_odds and why.calibrated is not None:
            vote += f" x {why.calibrated:.2f}"
        if why.negative_factor < 1:
            vote += f" x {why.negative_factor:.2f}"
        if why.decision not in ("label", "below threshold"):
            vote = why.decision
        odds = [f"{why.log_odds[name]:+.2f}" if name in why.log_odds else "" for name in terms]
        if why.nearest_is_background and "hard_negatives" in terms:
            odds[terms.index("hard_negatives")] += "*"
        total = [f"{sum(why.log_odds.values()):+.2f}" if why.log_odds else ""] if terms else []
        nearest = f"{each.best_label}?" if each.best_label else UNKNOWN
        box = ",".join(str(value) for value in each.bbox)
        cells = (
            printable(str(each.label or nearest)),
            f"{each.confidence:.2f}",
            box,
            vote,
            *odds,
            *total,
        )
        rows.add_row(*(escape(text) for text in cells))
    for column in rows.columns[1:3]:
        column.no_wrap = True
    return rows


def _reason(neighbour: Neighbour, label: str | None) -> str:
    """An example's short id and similarity; its label only where that is another."""
    name = "" if neighbour.label == label and not neighbour.negative else printable(neighbour.label)
    words = ["not" if neighbour.negative else "", name, neighbour.id[:SHORT_ID]]
    return " ".join([*filter(None, words), f"{neighbour.similarity:.2f}"])


def _shell(path: str) -> str:
    import shlex

    return shlex.quote(printable(path))
