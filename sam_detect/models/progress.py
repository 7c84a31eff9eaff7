"""Shows on stderr how a download goes."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.progress import Progress as RichProgress


def print_line(text: str) -> None:
    """Prints a line on stderr, if there is one."""
    if sys.stderr is not None:
        print(text, file=sys.stderr, flush=True)


class Progress:
    """Shows how a download goes: lines, and a bar if stderr is a terminal.

    Args:
        say: prints a line; None for no output at all.
    """

    def __init__(self, say: Callable[[str], None] | None) -> None:
        self._say = say
        self._bar = _terminal_bar() if say is not None else None
        self._task = None if self._bar is None else self._bar.add_task("", visible=False)

    def __enter__(self) -> Progress:
        if self._bar is not None:
            self._bar.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar is not None:
            self._bar.stop()

    def say(self, text: str) -> None:
        """Prints one line."""
        if self._say is not None:
            self._say(text)

    def update(self, what: str, done: int, total: int | None) -> None:
        """So many bytes are ``downloading`` or ``checking``, of so many (None: unknown)."""
        if self._bar is not None and self._task is not None:
            self._bar.update(
                self._task, description=what, completed=done, total=total, visible=done != total
            )


def bar_class(progress: Progress) -> type[Any]:
    """What ``huggingface_hub`` takes for a progress bar, instead of its own on every stderr."""

    class Bar(contextlib.nullcontext[Any]):
        def __init__(self, total: int | None = None, initial: int = 0, **_: object) -> None:
            super().__init__(self)
            self.total, self.done = total, initial

        def update(self, count: int) -> None:
            self.done += count
            progress.update("downloading", self.done, self.total)

    return Bar


def _terminal_bar() -> RichProgress | None:
    """A bar on stderr, None if that is no terminal."""
    if sys.stderr is None or not sys.stderr.isatty():
        return None
    from rich import progress
    from rich.console import Console

    columns = (
        progress.TextColumn("{task.description}"), progress.BarColumn(),
        progress.DownloadColumn(), progress.TransferSpeedColumn(), progress.TimeRemainingColumn(),
    )  # fmt: skip
    both = sys.stdout is not None and sys.stdout.isatty()
    console = Console(stderr=True)
    return progress.Progress(*columns, console=console, transient=True, redirect_stdout=both)
