"""The suites by name, and how one is run."""

from __future__ import annotations

import difflib
import gc
import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, NamedTuple

from sam_detect.errors import ConfigError, UnknownNameError
from sam_detect.evaluation.machine import stamp
from sam_detect.registry import needing_extra
from scripts.dev.bench.measurements import Announce, Measurements


@dataclass(frozen=True)
class Options:
    """Options of a suite; each suite declares which it takes.

    Attributes:
        images: pictures to measure on instead of the suite's own.
        sizes: numbers of vectors, or of megapixels, instead of the suite's own.
        device: where models run; None: the first of cuda, mps and cpu that is there.
    """

    images: tuple[Path, ...] = ()
    sizes: tuple[int, ...] = ()
    device: str | None = None


class Suite(NamedTuple):
    """One area that is measured.

    Attributes:
        module: has ``run(measurements, options)``.
        takes: the fields of :class:`Options` that mean something to it.
        repeat: timed runs where the user asks for no number.
    """

    module: str
    takes: tuple[str, ...] = ()
    repeat: int = 5


SUITES = {
    "stages": Suite("scripts.dev.bench.stages", takes=("images",)),
    "store": Suite("scripts.dev.bench.store", takes=("sizes",)),
    "library": Suite("scripts.dev.bench.library", takes=("sizes",)),
    "folder": Suite("scripts.dev.bench.folder", takes=("sizes",), repeat=3),
    "size": Suite("scripts.dev.bench.size", takes=("sizes",), repeat=1),
    "fewshot": Suite("scripts.dev.bench.fewshot", repeat=1),
    "formats": Suite("scripts.dev.bench.formats", takes=("sizes",), repeat=3),
    "server": Suite("scripts.dev.bench.server", repeat=1),
    "sam2": Suite("scripts.dev.bench.sam2", takes=("device",), repeat=1),
    "video": Suite("scripts.dev.bench.video", repeat=1),
}


def run_suite(
    name: str, options: Options, *, repeat: int | None = None, announce: Announce = lambda _: None
) -> dict[str, Any]:
    """Runs a suite and gives its record, as plain data.

    Raises:
        UnknownNameError: no suite has this name; the message lists what has.
        ConfigError: a repeat below 1, or an option that the suite does not take.
        UnavailableError: the suite needs an extra that is not installed.
    """
    if name not in SUITES:
        close = difflib.get_close_matches(name, SUITES, n=1)
        guess = f"; did you mean '{close[0]}'?" if close else ""
        raise UnknownNameError(
            f"no bench suite is named '{name}'{guess} (available: {', '.join(SUITES)})"
        )
    suite = SUITES[name]
    for field in (each.name for each in fields(options) if getattr(options, each.name)):
        if field not in suite.takes:
            others = ", ".join(other for other, each in SUITES.items() if field in each.takes)
            raise ConfigError(f"the suite '{name}' takes no {field} (only {others} does)")
    if repeat is not None and repeat < 1:
        raise ConfigError(f"repeat must be at least 1, got {repeat}")
    with needing_extra(f"the suite '{name}'"):
        module = importlib.import_module(suite.module)
    head = {**stamp(), "suite": name, "repeat": repeat or suite.repeat}
    measurements = Measurements(repeat=head["repeat"], announce=announce)
    with _frozen():
        module.run(measurements, options)
    return {**head, **measurements.to_dict()}


@contextmanager
def _frozen() -> Iterator[None]:
    """Spares the collections of garbage, of which one precedes each measurement, all objects that
    were there before."""
    if gc.get_freeze_count():  # by the caller
        yield
        return
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
