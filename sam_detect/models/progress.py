"""Shows on stderr how a download goes: lines everywhere, a bar where that is a terminal."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.progress import Progress


def print_line(text: str) -> None:
    """Prints a line on stderr, where there is one."""
    if sys.stderr is not None:
        print(text, file=sys.stderr, flush=True)


class Shown:
    """A watcher for people.

    Args:
        say: prints a line.
        bar: shows progress, or None.
    """

    def __init__(self, say: Callable[[str], None], bar: Progress | None = None) -> None:
        self._say = say
        self._bar = bar
        self._task = None if bar is None else bar.add_task("", visible=False)

    def say(self, text: str) -> None:
        self._say(text)

    def progressed(self, done: int, total: int | None) -> None:
        self._show("downloading", done, total)

    def checked(self, done: int, total: int) -> None:
        self._show("checking", done, total)

    def _show(self, what: str, done: int, total: int | None) -> None:
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task, description=what, completed=done, total=total, visible=done != total
            )


class Silent:
    """A watcher that shows nothing."""

    def say(self, text: str) -> None:
        """Nothing."""

    def progressed(self, done: int, total: int | None) -> None:
        """Nothing."""

    def checked(self, done: int, total: int) -> None:
        """Nothing."""


@contextmanager
def shown(say: Callable[[str], None] = print_line) -> Iterator[Shown]:
    """A watcher with lines, and with a bar while stderr is a terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        yield Shown(say)
        return
    from rich.console import Console
    from rich.progress import (
        BarColumn,
        DownloadColumn,
        Progress,
        TextColumn,
        TimeRemainingColumn,
        TransferSpeedColumn,
    )

    columns = (
        TextColumn("{task.description}"), BarColumn(), DownloadColumn(), TransferSpeedColumn(),
        TimeRemainingColumn(),
    )  # fmt: skip
    to_terminal = sys.stdout is not None and sys.stdout.isatty()
    with Progress(
        *columns, console=Console(stderr=True), transient=True, redirect_stdout=to_terminal
    ) as bar:
        yield Shown(say, bar)
