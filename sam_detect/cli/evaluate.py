"""``sam-detect evaluate``."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from sam_detect.cli import options
from sam_detect.cli.feedback import counted, note, printable, say
from sam_detect.cli.text import escape, show, table
from sam_detect.config import load_settings
from sam_detect.errors import ConfigError
from sam_detect.types.labels import normalised_label

if TYPE_CHECKING:
    from sam_detect.evaluation.evaluation import Evaluation
    from sam_detect.evaluation.harness import Announce, Tick
    from sam_detect.pipeline.flow import Pipeline

CURVE = "1,2,5,10,20"
SHOWN_PROBLEMS = 5


@click.command(
    cls=options.Sectioned,
    advanced=(
        "tag",
        "visualize",
        "group_by",
        "exhaustive",
        "curve",
        "threshold",
        "min_area",
        "max_area",
        "fit",
        *options.PLANES,
    ),
)
@click.argument("dataset", metavar="DATASET|ANNOTATIONS", type=click.Path(path_type=Path))
@click.option(
    "--images",
    type=click.Path(path_type=Path),
    help="Folder of the pictures.  [default: the folder images next to the annotations]",
)
@click.option(
    "--shots", type=int, metavar="N", default=5, show_default=True, help="Examples of each label."
)
@click.option(
    "--seeds", default="0,1,2", show_default=True, metavar="N,N,...",
    help="One draw of examples for each.",
)  # fmt: skip
@click.option(
    "--iou", type=float, metavar="0-1", default=0.5, show_default=True,
    help="Least overlap of a detection with its object.",
)  # fmt: skip
@click.option(
    "--task", type=click.Choice(["instance", "semantic"]), default="instance",
    metavar="instance|semantic", show_default=True,
    help="Count objects, or pixels.",
)  # fmt: skip
@click.option(
    "--protocol", type=click.Choice(["cross", "same", "each"]), default="cross",
    metavar="cross|same|each", show_default=True,
    help="Look in other pictures than the examples', or in the rest of theirs; each: every picture "
    "with more than --shots objects by itself, N of them shown, the rest sought.",
)  # fmt: skip
@click.option(
    "--group-by", metavar="FIELD",
    help="Draw examples and queries among pictures that agree in this field.",
)  # fmt: skip
@click.option(
    "--exhaustive", is_flag=True,
    help="The examples' pictures are annotated to the last object: the rest is background.",
)  # fmt: skip
@click.option(
    "--method", metavar="sam-detect|MODULE:CLASS", default="sam-detect", show_default=True,
    help="What to measure: this detector, or a method of your own, as package.module:Class.",
)  # fmt: skip
@click.option(
    "--curve", metavar="N,N,...", help=f"Measure F1 at these numbers of shots too, such as {CURVE}."
)
@click.option(
    "--sweep", multiple=True, metavar="KEY=A,B",
    help="Evaluate every combination, such as 'fade=gaussian,linear top_k=1,5'; may be repeated.",
)  # fmt: skip
@click.option(
    "--predictions", type=click.Path(path_type=Path),
    help="Write every detection to this file, for other tools to score.",
)  # fmt: skip
@click.option(
    "--report", type=click.Path(path_type=Path),
    help="Write a page with tables, plots and pictures, and CSV files, into this folder.",
)  # fmt: skip
@click.option(
    "--tag", metavar="NAME",
    help="Only objects of this label, and the pictures that have some.",
)  # fmt: skip
@click.option(
    "--visualize", type=click.Path(path_type=Path), metavar="DIR",
    help="Write the pictures of the first seed (of a sweep: of its best variant) with what was "
    "shown, found, missed and found falsely into this folder.",
)  # fmt: skip
@options.fit_option
@options.plane_options
@options.settings_options(*options.section("Scale", "Proposals", "Vectors", "Labels", "Machine"))
@options.general_options
def evaluate(
    dataset: Path,
    *,
    images: Path | None,
    shots: int,
    seeds: str,
    iou: float,
    task: str,
    protocol: str,
    group_by: str | None,
    exhaustive: bool,
    method: str,
    curve: str | None,
    sweep: tuple[str, ...],
    predictions: Path | None,
    report: Path | None,
    tag: str | None,
    visualize: Path | None,
    fit: str,
    xy: str | None,
    z: str | None,
    t: str | None,
    channel: str | None,
    as_json: bool,
    **settings: Any,
) -> int:
    """Measure what is found in annotated pictures after a few examples.

    DATASET is a folder with annotations.json and images/, a YOLO folder, a folder with images/
    and masks/ (label maps), or annotations in any format that learn reads, with their pictures in
    --images. Of stacks --z, --t, --xy and --channel select planes, and each is a picture.

    \b
      sam-detect evaluate nuts/ --shots 5 --seeds 0,1,2
      sam-detect evaluate nuts/ --sweep 'fade=gaussian,linear' --report out/
    """
    from sam_detect.evaluation.evaluation import check_output_file
    from sam_detect.evaluation.harness import sweep as run_sweep
    from sam_detect.evaluation.harness import variants
    from sam_detect.evaluation.readers import open_dataset
    from sam_detect.evaluation.report import check_report_folder, write_pictures
    from sam_detect.evaluation.run import Protocol
    from sam_detect.io import PlaneRanges

    grid = variants(sweep)
    if task == "semantic":
        options.refuse("--task semantic counts pixels, and matches no objects", "iou", "visualize")
    if not any(each.get("method", method) == "sam-detect" for each in grid):
        own = options.section("Vectors", "Labels")
        options.refuse(f"it is an option of sam-detect, and --method is {method}", *own)
    if predictions is not None and len(grid) > 1:
        raise ConfigError("--predictions holds one evaluation: leave out --sweep")
    points = whole_numbers("--curve", curve or (CURVE if report and len(grid) == 1 else ""))
    how: dict[str, Any] = {"iou": iou, "task": task, "draw": protocol, "group_by": group_by,
                           "exhaustive": exhaustive}  # fmt: skip
    drawn = Protocol(shots=shots, seeds=whole_numbers("--seeds", seeds), **how)
    if report is not None:
        check_report_folder(report)
    given = {name: value for name, value in settings.items() if value is not None}
    limit = load_settings(given).max_image_pixels
    ranges = PlaneRanges(xy, z, t, channel)
    data = open_dataset(dataset, images, ranges=ranges, max_pixels=limit, fit=fit)
    if tag is not None:
        data = data.only(normalised_label(tag))
    if predictions is not None:
        check_output_file("--predictions", predictions, dataset, data)
    with _progress(len(grid)) as announce:
        found = run_sweep(
            data,
            drawn,
            grid,
            make=lambda changed: _pipeline({**given, **changed}),
            max_pixels=limit,
            method=method,
            curve=points,
            announce=announce,
        )
        done = list(found)
    _give(done, predictions=predictions, report=report, as_json=as_json)
    if visualize is not None:
        best = max(done, key=lambda each: each.figures["f1"] or 0.0)
        note(f"wrote {counted(len(write_pictures(visualize, best, max_pixels=limit)), 'picture')} "
             f"into {visualize}")  # fmt: skip
    return 0


def _give(
    done: list[Evaluation], *, predictions: Path | None, report: Path | None, as_json: bool
) -> None:
    """Writes the files that were asked for, and prints JSON, one evaluation or their table."""
    from sam_detect.evaluation.evaluation import write_predictions
    from sam_detect.evaluation.machine import machine_name, stamp
    from sam_detect.evaluation.report import FIGURES, comparison_table, write_report

    measured = stamp()
    problems = list(dict.fromkeys(line for each in done for line in each.problems))
    for line in problems[:SHOWN_PROBLEMS]:
        note(f"warning: {line}")
    if len(problems) > SHOWN_PROBLEMS:
        more = len(problems) - SHOWN_PROBLEMS
        note(f"warning: and {more} more (--json and --report list all)")
    if predictions is not None:
        write_predictions(predictions, done[0].dataset, done[0].episodes)
        note(f"wrote {predictions}")
    if report is not None:
        commit = f"commit {measured['commit'][:10]}, " if measured["commit"] else ""
        made = ", ".join(f"{name} {number}" for name, number in measured["versions"].items())
        where = f"{commit}on {machine_name(measured['machine'])}; {made}"
        note(f"wrote {write_report(report, done, where=where)[0]}")
    if as_json:
        for each in done:
            say(json.dumps({**each.to_dict(), **measured}, allow_nan=False), to=sys.stdout)
    elif len(done) > 1:
        headings, *rows = comparison_table(done)
        compared = table(*headings)
        for row in rows:
            compared.add_row(*map(escape, row))
        show(compared)
    else:
        _print(done[0].to_dict(), FIGURES)


def _pipeline(settings: dict[str, Any]) -> Pipeline:
    from sam_detect.api import SAMDetect

    return SAMDetect(**{**settings, "vector_store": "memory"}).pipeline


def whole_numbers(option: str, text: str) -> tuple[int, ...]:
    """The numbers of an option like ``--seeds 0,1,2``, each of them once."""
    parts = [part.strip() for part in text.split(",") if part.strip()]
    if not all(part.isdecimal() for part in parts):
        raise ConfigError(f"{option} takes whole numbers such as 0,1,2, got '{text}'")
    found = tuple(int(part) for part in parts)
    if len({*found}) < len(found):
        raise ConfigError(f"{option} takes each number once, got '{text}'")
    return found


@contextmanager
def _progress(variants: int) -> Iterator[Announce]:
    """A bar on stderr for the pictures of each variant, where stderr is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield lambda what: lambda done, of: None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True), transient=True) as shown:
        count = 0

        def announce(what: str) -> Tick:
            nonlocal count
            count += 1
            name = printable(what) or "evaluating"
            task = shown.add_task(f"{count}/{variants} {name}" if variants > 1 else name)
            return lambda done, of: shown.update(task, completed=done, total=of)

        yield announce


def _print(found: dict[str, Any], texts: Mapping[str, tuple[str, str]]) -> None:
    """The figures of one evaluation, with their headings and meanings."""
    head = table("figure", "value>", "what it says")
    for name, (heading, text) in texts.items():
        if found.get(name) is not None:
            value = f"{found[name]:.3f}"
            if name == "f1" and found["f1_spread"] is not None:
                value += f" ± {found['f1_spread']:.3f}"
            head.add_row(heading, value, text)
    show(head)
    if len(found["per_class"]) > 1:
        classes = table("label", "objects>", "precision>", "recall>", "f1>")
        for label, row in found["per_class"].items():
            objects = row["tp"] + row["fn"]
            figures = (row["precision"], row["recall"], row["f1"])
            classes.add_row(escape(label), f"{objects:.0f}", *map(_short, figures))
        show(classes)
    if found["learning_curve"]:
        points = (f"{p['shots']}: {_short(p['f1'])}" for p in found["learning_curve"])
        say(f"F1 by shots: {', '.join(points)}", to=sys.stdout)
    seconds = ", ".join(f"{stage} {value:.2f}" for stage, value in found["seconds"].items())
    memory = found["peak_memory_mb"]
    peak = "" if memory is None else f"; peak memory {memory:.0f} MB"
    say(f"{found['seconds_per_image']:.2f} s an image ({seconds}){peak}", to=sys.stdout)


def _short(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"
