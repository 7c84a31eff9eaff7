"""The command ``./scripts/bench``."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from sam_detect.cli import options
from sam_detect.cli.feedback import note, say
from sam_detect.cli.text import escape, show, table
from sam_detect.errors import ConfigError
from sam_detect.evaluation.machine import machine_name
from scripts.dev.bench.suites import SUITES, Options, run_suite


class _Program(click.Context):
    """Of the command as it is typed, of which the group is no part."""

    @property
    def command_path(self) -> str:
        return "./scripts/bench"


@click.command()
@click.argument("suite", metavar="|".join(SUITES))
@click.option("--repeat", type=int, metavar="N", help="Timed runs of each stage.  [default: 5]")
@click.option(
    "--image",
    "images",
    multiple=True,
    type=click.Path(path_type=Path),
    help="Measure the suite 'stages' on this picture instead of its own; may be repeated.",
)
@click.option(
    "--sizes",
    metavar="N,N,...",
    help="Measure the suite 'store' (default 1000,10000,100000) or 'library' (default 200,2000) at "
    "these numbers of vectors, 'size' (default 1,4,16,100) at these megapixels, 'folder' "
    "(default 24) at these numbers of pictures, or 'formats' (default 2000) of objects.",
)
@options.settings_options("device")
@options.general_options
def bench(
    suite: str,
    *,
    device: str | None,
    repeat: int | None,
    images: tuple[Path, ...],
    sizes: str | None,
    as_json: bool,
) -> int:
    """Measure time, memory and ratios, stage by stage.

    'stages' measures each step of detection without model weights; 'store' where the examples
    are kept; 'library' naming, by the number of examples; 'folder' a folder of pictures, by one
    process and by several; 'size' pictures of 1 to 100 megapixels; 'fewshot' a dense picture, of
    which ten objects are shown; 'formats' files of annotations; 'server' the annotation page
    and the HTTP service; 'sam2' our masks against Meta's own code, on --device; 'video' a live
    stream (N minutes of it with --repeat N) and a file. A pair runs ours and a reference in
    turn; its ratio is above 1 where ours is better.
    """
    asked = Options(images=images, sizes=_numbers(sizes), device=device)
    record = run_suite(suite, asked, repeat=repeat, announce=lambda step: note(f"{suite}: {step}"))
    if as_json:
        say(json.dumps(record, allow_nan=False), to=sys.stdout)
    else:
        _print(record)
    return 0


bench.context_class = _Program


def _numbers(text: str | None) -> tuple[int, ...]:
    if text is None:
        return ()
    parts = text.split(",")
    if not all(part.strip().isdecimal() for part in parts):
        raise ConfigError(f"--sizes takes whole numbers such as 1000,10000, got '{text}'")
    return tuple(int(part) for part in parts)


def _print(record: dict[str, Any]) -> None:
    stages = table("stage", "median ms>", "spread ms>", "peak MB>")
    for name, stage in record["stages"].items():
        numbers = (stage["median_ms"], stage["spread_ms"], stage["peak_memory_mb"])
        stages.add_row(escape(name), *map(_number, numbers))
    if record["stages"]:
        show(stages)
    pairs = table("ours against the reference", "ours>", "reference>", "ratio>", "spread>")
    for name, pair in record["pairs"].items():
        sides = (f"{_number(pair[side])} {pair['unit']}" for side in ("a_median", "b_median"))
        pairs.add_row(escape(name), *sides, _number(pair["ratio"]), _number(pair["spread"]))
    if record["pairs"]:
        show(pairs)
    _say_lines([f"{name}: {value}" for name, value in record["figures"].items()])
    _say_lines([f"left out: {line}" for line in record["skipped"]])
    commit = f"{record['commit'][:7]}{'+' if record['dirty'] else ''}" if record["commit"] else "-"
    _say_lines([f"median and interquartile range of {record['repeat']} runs",
                f"{record['workload']}; commit {commit}; "
                f"{machine_name(record['machine'])}"])  # fmt: skip


def _say_lines(lines: Sequence[str]) -> None:
    for line in lines:
        say(line, to=sys.stdout)


def _number(value: float | None) -> str:
    """Three digits that say something."""
    if value is None:
        return "-"
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"
