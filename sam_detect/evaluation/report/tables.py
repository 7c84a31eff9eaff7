"""The tables of a report: as CSV with every digit, as texts with three."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

from sam_detect.evaluation.evaluation import AVERAGED, Evaluation
from sam_detect.evaluation.report.results import (
    FALSE_OUTCOMES,
    OBJECT_OUTCOMES,
    Names,
    Result,
)
from sam_detect.outputs.tables import FORMULA_STARTS

Row = dict[str, Any]
ABSENT = "–"  # noqa: RUF001 - a dash for what does not apply
COMPARED = {
    "precision": "precision",
    "recall": "recall",
    "ap50": "AP50",
    "proposal_recall": "proposal recall",
}
"""Figures of a comparison with their headings, in addition to F1 and the time."""


def comparison_table(evaluations: Sequence[Evaluation]) -> list[list[str]]:
    """One line for each evaluation, as texts.

    Returns:
        The headings first: what the sweep varied (or the method, where it varied nothing), then
        F1 with its standard deviation over seeds, precision, recall, AP50, proposal recall and
        seconds per image. Headings of figures end in ``>``.
    """
    keys = variant_keys(evaluations) or ["method"]
    headings = [*keys, "F1>", *(f"{text}>" for text in COMPARED.values()), "s/image>"]
    return [headings, *(_compared(each, keys) for each in evaluations)]


def variant_keys(evaluations: Iterable[Evaluation]) -> list[str]:
    """Everything that a sweep varied, in its order."""
    return list(dict.fromkeys(key for each in evaluations for key in each.variant))


def _compared(evaluation: Evaluation, keys: Sequence[str]) -> list[str]:
    figures = evaluation.figures
    named = {"method": evaluation.method, **evaluation.variant}
    return [
        *(named.get(key, ABSENT) for key in keys),
        plus_minus(figures["f1"], figures["f1_spread"]),
        *(number(figures[name]) for name in COMPARED),
        number(sum(evaluation.seconds.values())),
    ]


def number(value: float | None, digits: int = 3) -> str:
    """A figure as people read it; a dash where it does not apply."""
    return ABSENT if value is None else f"{value:,.{digits}f}"


def plus_minus(value: float | None, deviation: float | None, digits: int = 3) -> str:
    """A mean and its standard deviation, where there is one."""
    if value is None or deviation is None:
        return number(value, digits)
    return f"{number(value, digits)} ± {number(deviation, digits)}"


def comparison_rows(evaluations: Iterable[Evaluation]) -> list[Row]:
    """One row per evaluation: its averaged figures, the deviation of F1, time and memory."""
    return [
        {
            **_named(each),
            **{name: each.figures[name] for name in AVERAGED},
            "f1_spread": each.figures["f1_spread"],
            "seconds_per_image": sum(each.seconds.values()),
            "peak_memory_mb": each.peak_memory_mb,
        }
        for each in evaluations
    ]


def episode_rows(evaluation: Evaluation, whole: Mapping[str, Any]) -> Iterator[Row]:
    """One row per episode; ``whole`` is the evaluation's ``to_dict()``."""
    for episode in whole["episodes"]:
        yield {
            **_named(evaluation),
            "seed": episode["seed"],
            "group": episode["group"],
            "examples": len(episode["support_annotation_ids"]),
            "images": len(episode["query_image_ids"]),
            **{name: episode.get(name) for name in AVERAGED},
        }


def class_rows(evaluation: Evaluation) -> Iterator[Row]:
    """One row per class: the means over the seeds. The IoU of pixels is called ``jaccard``, since
    ``iou`` is the protocol's."""
    for label, figures in evaluation.figures["per_class"].items():
        named = {"jaccard" if name == "iou" else name: value for name, value in figures.items()}
        yield {**_named(evaluation), "class": label, **named}


def image_rows(evaluation: Evaluation, results: Iterable[Result], names: Names) -> Iterator[Row]:
    """One row per picture of each episode: counts, figures, outcomes of what was lost, seconds."""
    for each in results:
        comparison = each.query.comparison
        proposed = int((comparison.best_proposal_iou >= evaluation.protocol.iou).sum())
        objects = len(comparison.object_labels)
        row = {
            **_named(evaluation),
            "seed": each.split.seed,
            "group": each.split.group,
            "image": names.of(each.query.picture),
            "image_id": each.query.picture.id,
            **each.counts.to_dict(),
            "seconds": each.seconds,
            "proposals": comparison.proposals,
        }
        if each.outcomes is not None:
            counted = each.outcomes.counts
            row["proposal_recall"] = proposed / objects if objects else None
            row |= {w.replace(" ", "_"): counted[w] for w in (*OBJECT_OUTCOMES, *FALSE_OUTCOMES)}
        yield row


def csv_text(rows: Sequence[Row]) -> str:
    """Rows as CSV with a heading; empty where a figure does not apply.

    A text that a spreadsheet would run as a formula gets an apostrophe in front, as in
    ``detect --format csv``.
    """
    columns = list(dict.fromkeys(name for row in rows for name in row))
    file = io.StringIO()
    writer = csv.DictWriter(file, columns, restval="")
    writer.writeheader()
    for row in rows:
        writer.writerow({name: _cell(value) for name, value in row.items()})
    return file.getvalue()


def _cell(value: Any) -> Any:
    if isinstance(value, str) and value.startswith(FORMULA_STARTS):
        return f"'{value}"
    return value


def _named(evaluation: Evaluation) -> Row:
    protocol = evaluation.protocol
    return {
        "dataset": evaluation.dataset.name,
        "method": evaluation.method,
        "task": protocol.task,
        "protocol": protocol.draw,
        "shots": protocol.shots,
        "iou": protocol.iou,
        **evaluation.variant,
    }
