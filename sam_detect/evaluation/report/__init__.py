"""The report of evaluations: one page, ``index.html``, which needs no other file, and CSV files."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sam_detect import __version__
from sam_detect.errors import ConfigError, OutputError, UnavailableError
from sam_detect.evaluation.evaluation import Evaluation
from sam_detect.evaluation.report.data import (
    FIGURES,
    class_rows,
    comparison_row,
    comparison_table,
    csv_text,
    episode_rows,
    image_rows,
    number,
    section,
)
from sam_detect.evaluation.report.pictures import Album
from sam_detect.evaluation.report.plots import sweep_plot
from sam_detect.evaluation.report.results import Names, results_of
from sam_detect.evaluation.report.visualize import write_pictures
from sam_detect.io import write_atomically

__all__ = [
    "FIGURES",
    "check_report_folder",
    "comparison_table",
    "picture_shares",
    "write_pictures",
    "write_report",
]

MOST_PICTURES = 24
"""Pictures of one evaluation."""
MOST_OF_ALL = 96
"""Pictures of all evaluations of a sweep: about 8 MB."""
FEWEST_PICTURES = 8
"""Of one evaluation of a long sweep: rather fewer evaluations with pictures than fewer of each."""
SHOWN_PROBLEMS = 5


def write_report(folder: Path, evaluations: Sequence[Evaluation], *, where: str = "") -> list[Path]:
    """Writes the page and the tables into a folder; other files in it stay.

    The same evaluations make the same files, to the byte.

    Args:
        folder: made if needed.
        evaluations: one, or those of a sweep over one dataset.
        where: the commit, machine and versions that they were made with, for people.

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
    album = Album(Names(evaluations[0].dataset.pictures), evaluations[0].dataset.boxes_only)
    parts = [(each, each.to_dict(), results_of(each)) for each in evaluations]
    shares = picture_shares([whole["f1"] for _, whole, _ in parts])
    sections = [
        {"id": f"e{index}", **section(*part, album=album, most=most)}
        for index, (part, most) in enumerate(zip(parts, shares, strict=True), start=1)
    ]
    rows = {
        "comparison.csv": map(comparison_row, evaluations),
        "episodes.csv": (row for e, whole, _ in parts for row in episode_rows(e, whole)),
        "classes.csv": (row for e in evaluations for row in class_rows(e)),
        "images.csv": (row for e, _, found in parts for row in image_rows(e, found, album.names)),
    }
    comparison = comparison_table(evaluations) if len(evaluations) > 1 else []
    files = {
        "index.html": _page(sections, album, comparison, where),
        **{name: csv_text(of_file) for name, of_file in rows.items()},
    }
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


def picture_shares(f1s: Sequence[float | None]) -> list[int]:
    """How many pictures each evaluation may show: as many for each, if need be for the best only.

    Args:
        f1s: of the evaluations.
    """
    each = max(FEWEST_PICTURES, min(MOST_PICTURES, MOST_OF_ALL // len(f1s)))
    order = sorted(range(len(f1s)), key=lambda index: -(f1s[index] or 0.0))
    with_pictures = set(order[: MOST_OF_ALL // each])
    return [each if index in with_pictures else 0 for index in range(len(f1s))]


def _page(
    sections: Sequence[dict[str, Any]],
    album: Album,
    comparison: Sequence[Sequence[str]],
    where: str,
) -> str:
    import jinja2

    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("sam_detect.evaluation", "report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters["number"] = number
    return environment.get_template("page.html.j2").render(
        sections=sections,
        bases=[base for base in album.bases.values() if base.uri is not None],
        comparison=comparison,
        plot=sweep_plot(
            [
                {
                    "title": each["title"],
                    "f1": each["whole"]["f1"],
                    "seconds": each["whole"]["seconds_per_image"] or 0.0,
                }
                for each in sections
            ]
        ),
        problems=list(dict.fromkeys(line for each in sections for line in each["problems"])),
        shown_problems=SHOWN_PROBLEMS,
        best=max(each["whole"]["f1"] or 0.0 for each in sections),
        version=f"{__version__} ({where})" if where else __version__,
    )


def _write(path: Path, text: str) -> Path:
    return write_atomically(path, lambda file: file.write(text.encode("utf-8", "replace")))
