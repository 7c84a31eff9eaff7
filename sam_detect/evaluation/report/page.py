"""Writes the report: ``index.html``, which needs no other file, and its tables as CSV."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from sam_detect import __version__
from sam_detect.errors import ConfigError, OutputError, UnavailableError
from sam_detect.evaluation.evaluation import AVERAGED, Evaluation
from sam_detect.evaluation.report.results import (
    FALSE_OUTCOMES,
    OBJECT_OUTCOMES,
    Names,
    Result,
    results_of,
)
from sam_detect.outputs import write_atomically
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


PAGE = "index.html"
MOST_PICTURES = 24
"""Pictures of one evaluation."""
MOST_OF_ALL = 96
"""Pictures of all evaluations of a sweep: about 8 MB."""
FEWEST_PICTURES = 8
"""Of one evaluation of a long sweep: rather fewer evaluations with pictures than fewer of each."""


def write_report(folder: Path, evaluations: Sequence[Evaluation]) -> list[Path]:
    """Writes the page and the tables into a folder; other files in it stay.

    The same evaluations make the same files, to the byte.

    Args:
        folder: made if needed.
        evaluations: one, or those of a sweep over one dataset.

    Returns:
        What was written, the page first: ``index.html``, ``comparison.csv`` (a row for each
        evaluation), ``episodes.csv``, ``classes.csv`` and ``images.csv``.

    Raises:
        ConfigError: there is no evaluation, or they are of several datasets.
        OutputError: the folder cannot be written to.
        UnavailableError: the ``evaluate`` extra is not installed.
    """
    check_report_folder(folder)
    if len({each.dataset.name for each in evaluations}) != 1:
        raise ConfigError("a report takes one or more evaluations of one dataset")
    report = Report(evaluations)
    files = {PAGE: report.html(), **report.csv_files()}
    return [_write(folder / name, text) for name, text in files.items()]


def check_report_folder(folder: Path) -> None:
    """Says before anything is measured whether a report can be written.

    Raises:
        OutputError: it is a file.
        UnavailableError: the ``evaluate`` extra is not installed.
    """
    try:
        import jinja2  # noqa: F401
    except ImportError as error:
        raise UnavailableError(
            "a report needs Jinja: pip install 'sam-detect[evaluate]'"
        ) from error
    if folder.exists() and not folder.is_dir():
        raise OutputError(f"'{folder}' is a file, --report expects a folder")


class Report:
    """What the page shows of some evaluations.

    Args:
        evaluations: of one dataset; at least one.
    """

    def __init__(self, evaluations: Sequence[Evaluation]) -> None:
        self.names = Names(evaluations[0].dataset.pictures)
        self.parts = [(each, each.to_dict(), results_of(each)) for each in evaluations]

    @property
    def evaluations(self) -> list[Evaluation]:
        return [evaluation for evaluation, _, _ in self.parts]

    def csv_files(self) -> dict[str, str]:
        """Each table by its file's name."""
        episodes: list[Row] = []
        classes: list[Row] = []
        images: list[Row] = []
        for evaluation, whole, results in self.parts:
            episodes += episode_rows(evaluation, whole)
            classes += class_rows(evaluation)
            images += image_rows(evaluation, results, self.names)
        rows = {
            "comparison.csv": comparison_rows(self.evaluations),
            "episodes.csv": episodes,
            "classes.csv": classes,
            "images.csv": images,
        }
        return {name: csv_text(of_file) for name, of_file in rows.items()}

    def html(self) -> str:
        """The page."""
        import jinja2

        from sam_detect.evaluation.report.pictures import Album
        from sam_detect.evaluation.report.sections import SHOWN_PROBLEMS, Section

        album = Album(self.names, self.evaluations[0].dataset.boxes_only)
        shares = picture_shares([whole["f1"] for _, whole, _ in self.parts])
        sections = [
            Section(f"e{index}", *part, album=album, most=most)
            for index, (part, most) in enumerate(zip(self.parts, shares, strict=True), start=1)
        ]
        environment = jinja2.Environment(
            loader=jinja2.PackageLoader("sam_detect.evaluation", "report"),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        environment.filters["number"] = number
        best = max((whole["f1"] or 0.0 for _, whole, _ in self.parts), default=0.0)
        return environment.get_template("page.html.j2").render(
            sections=sections,
            bases=[base for base in album.bases.values() if base.uri is not None],
            comparison=comparison_table(self.evaluations) if len(self.parts) > 1 else [],
            problems=list(dict.fromkeys(line for each in sections for line in each.problems)),
            shown_problems=SHOWN_PROBLEMS,
            best=best,
            version=__version__,
        )


def picture_shares(f1s: Sequence[float | None]) -> list[int]:
    """How many pictures each evaluation may show: as many for each, if need be for the best only.

    Args:
        f1s: of the evaluations.
    """
    each = max(FEWEST_PICTURES, min(MOST_PICTURES, MOST_OF_ALL // len(f1s)))
    order = sorted(range(len(f1s)), key=lambda index: -(f1s[index] or 0.0))
    with_pictures = set(order[: MOST_OF_ALL // each])
    return [each if index in with_pictures else 0 for index in range(len(f1s))]


def _write(path: Path, text: str) -> Path:
    return write_atomically(path, lambda file: file.write(text.encode("utf-8", "replace")))
