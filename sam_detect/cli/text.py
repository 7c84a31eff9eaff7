"""Tables for people."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from sam_detect.types import Detections


def table(*columns: str, **settings: Any) -> Any:
    from rich import box
    from rich.table import Table

    made = Table(box=box.SIMPLE_HEAD, pad_edge=False, **settings)
    for column in columns:
        name = column.rstrip(">")
        made.add_column(name, justify="right" if column.endswith(">") else "left", overflow="fold")
    return made


def escape(text: str) -> str:
    """Text that rich prints as it is."""
    from rich.markup import escape as escape_markup

    return escape_markup(text)


def show(renderable: Any) -> None:
    from rich.console import Console

    Console(highlight=False, soft_wrap=False).print(renderable)


def print_detections(detections: Detections, *, library: str) -> None:
    """One picture's detections: the named ones row by row, the unknown ones as a number."""
    known = detections.known
    unknown = len(detections) - len(known)
    counts = Counter(str(label) for label in known.label)
    found = (
        ", ".join(f"{count} {escape(name)}" for name, count in counts.most_common())
        or "nothing known"
    )
    rows = table("label", "confidence>", "x>", "y>", "w>", "h>", "because of")
    for detection in known:
        reason = ", ".join(
            f"{'not ' if n.negative else ''}{n.label} {n.id[:8]} ({n.similarity:.2f})"
            for n in detection.neighbours[:3]
        )
        rows.add_row(
            escape(str(detection.label)),
            f"{detection.confidence:.2f}",
            *(str(value) for value in detection.bbox),
            escape(reason),
        )
    show(f"[bold]{escape(detections.source_id)}[/bold]: {found}; {unknown} unknown")
    if len(known):
        show(rows)
    elif unknown and not any(v.neighbours for v in detections.verdicts):
        show(
            f"Library '{escape(library)}' is empty. Teach it: "
            f"sam-detect learn {escape(detections.source_id)} --label NAME --box x,y,w,h"
        )
