"""What a command says on stderr: notes, progress, and failures that do not stop a run."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import click

from sam_detect.errors import ConfigError, ImageError, MaskError, one_line

if TYPE_CHECKING:
    from sam_detect.detector import SAMDetect


def note(text: str) -> None:
    """One line for people, on stderr, so that stdout stays machine-readable."""
    click.echo(text, err=True)


def announce(detector: SAMDetect) -> None:
    """The one line that says which parts were chosen and what they know."""
    recipe = detector.recipe
    note(
        f"using {type(detector.segmenter).__name__}, {recipe.embedder}, {recipe.fade} fade; "
        f"library '{detector.library.name}' with {len(detector.library)} examples "
        f"({detector.library.store.location})"
    )


@contextmanager
def progress(items: list[str], what: str) -> Iterator[Iterable[str]]:
    """Walks a list with a bar on stderr, where there is more than one item and a terminal."""
    from rich.console import Console
    from rich.progress import track

    console = Console(stderr=True)
    if len(items) < 2 or not console.is_terminal:
        yield items
    else:
        yield track(items, description=what, console=console, transient=True)


class Failures:
    """Bad inputs of a run: each is named at once and skipped, and the run ends non-zero."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    @contextmanager
    def guard(self, name: str) -> Iterator[None]:
        """Runs one item; its own badness is noted, anything else ends the run."""
        try:
            yield
        except (ImageError, MaskError) as error:
            self.add(name, one_line(error))

    def add(self, name: str, reason: str) -> None:
        text = reason if name in reason else f"{name}: {reason}"
        self.lines.append(text)
        note(f"error: {text}")

    def end(self, done: int) -> int:
        """The run's exit code; with a summary where several things were worked on."""
        if self.lines and done + len(self.lines) > 1:
            note(f"{len(self.lines)} of {max(done, len(self.lines))} failed, see above")
        return 1 if self.lines else 0


def parse_numbers(option: str, text: str, names: str) -> list[float]:
    """The numbers of an option like ``--box x,y,w,h``."""
    parts = text.split(",")
    try:
        values = [float(part) for part in parts]
    except ValueError:
        values = []
    if len(values) != len(names.split(",")):
        raise ConfigError(f"{option} takes {names} in pixels, got '{text}'")
    return values
