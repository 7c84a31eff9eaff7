"""The suites by name, and how one is run."""

from __future__ import annotations

import difflib
import gc
import importlib
from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any, ClassVar

from sam_detect.bench.machine import stamp
from sam_detect.bench.measurements import Announce, Measurements
from sam_detect.errors import ConfigError, UnknownNameError

SUITES = {
    "stages": "sam_detect.bench.stages:StagesSuite",
    "store": "sam_detect.bench.store:StoreSuite",
    "sam2": "sam_detect.bench.sam2:SAM2Suite",
    "video": "sam_detect.bench.video:VideoSuite",
}
"""Another suite is another file and one line here."""


@dataclass(frozen=True)
class Options:
    """Options of a suite; each suite declares which it takes.

    Attributes:
        images: pictures to measure on instead of the suite's own.
        sizes: numbers of vectors instead of the suite's own.
        device: where models run; None: the first of cuda, mps and cpu that is there.
    """

    images: tuple[Path, ...] = ()
    sizes: tuple[int, ...] = ()
    device: str | None = None


class Suite(ABC):
    """Measures one area."""

    repeat: ClassVar[int] = 5
    """Timed runs where the user asks for no number."""
    takes: ClassVar[frozenset[str]] = frozenset()
    """The fields of :class:`Options` that mean something to it."""

    @abstractmethod
    def run(self, measurements: Measurements, options: Options) -> None:
        """Measures everything."""


def run_suite(
    name: str, options: Options, *, repeat: int | None = None, announce: Announce = lambda _: None
) -> dict[str, Any]:
    """Runs a suite and gives its record, as plain data.

    Raises:
        UnknownNameError: no suite has this name; the message lists what has.
        ConfigError: a repeat below 1, or an option that the suite does not take.
    """
    suite = load_suite(name)
    asked = [each.name for each in fields(options) if getattr(options, each.name)]
    for field in asked:
        if field not in suite.takes:
            others = ", ".join(n for n in SUITES if field in load_suite(n).takes)
            raise ConfigError(f"the suite '{name}' takes no {field} (only {others} does)")
    if repeat is not None and repeat < 1:
        raise ConfigError(f"repeat must be at least 1, got {repeat}")
    head = {**stamp(), "suite": name, "repeat": repeat or suite.repeat}
    measurements = Measurements(repeat=head["repeat"], announce=announce)
    with _frozen():
        suite.run(measurements, options)
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


def load_suite(name: str) -> Suite:
    """The suite of a name; raises ``UnknownNameError``."""
    if name not in SUITES:
        close: Sequence[str] = difflib.get_close_matches(name, SUITES, n=1)
        guess = f"; did you mean '{close[0]}'?" if close else ""
        raise UnknownNameError(
            f"no bench suite is named '{name}'{guess} (available: {', '.join(SUITES)})"
        )
    module, _, attribute = SUITES[name].partition(":")
    made: Suite = getattr(importlib.import_module(module), attribute)()
    return made
