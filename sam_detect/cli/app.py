"""The command group: commands by name, ``detect`` where none is named, and how errors end."""

from __future__ import annotations

import contextlib
import difflib
import errno
import importlib
import os
import sys
import threading
import warnings
from functools import partial
from typing import Any, NoReturn

import click

import sam_detect
from sam_detect.cli.feedback import debugging, note, show_traceback
from sam_detect.errors import SamDetectError, one_line

COMMANDS = {
    "detect": ("sam_detect.cli.detect:detect", "Find and name the objects of pictures."),
    "learn": ("sam_detect.cli.learn:learn", "Learn objects from pictures, under a name."),
    "fewshot": (
        "sam_detect.cli.fewshot:fewshot",
        "Outline a few objects, and find all the others.",
    ),
    "refine": (
        "sam_detect.cli.refine:refine",
        "Redraw coarse outlines along the edges of their objects.",
    ),
    "video": ("sam_detect.cli.video:video", "Find and follow the objects of a video."),
    "library": ("sam_detect.cli.library:library", "List, edit, carry and convert what was learnt."),
    "evaluate": (
        "sam_detect.cli.evaluate:evaluate",
        "Measure what is found in annotated pictures.",
    ),
    "download-models": (
        "sam_detect.cli.download_models:download_models",
        "Get SAM 2 and CLIP onto this machine.",
    ),
    "verify-models": (
        "sam_detect.cli.verify_models:verify_models",
        "Check the models: weights, parity, speed, quality.",
    ),
    "annotate": (
        "sam_detect.cli.annotate:annotate",
        "Name objects on a page in the browser.",
    ),
    "serve": ("sam_detect.cli.serve:serve", "Detect and learn over HTTP, for other programs."),
}
INTERRUPTED = 130
LEAST_MEMORY_BYTES = 768 << 20


class _InterruptedError(Exception):
    """Ctrl-C, in a form that click does not answer with a line of its own."""


class LazyGroup(click.Group):
    """Imports a command's module only when that command runs."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module, _, attribute = COMMANDS[cmd_name][0].partition(":")
        command: click.Command = getattr(importlib.import_module(module), attribute)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        with formatter.section("Commands"):
            formatter.write_dl([(name, text) for name, (_, text) in COMMANDS.items()])

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except KeyboardInterrupt as error:
            raise _InterruptedError from error


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(sam_detect.__version__, prog_name="sam-detect")
def cli() -> None:
    """Show a few examples of an object, and it finds all the others.

    `sam-detect IMAGE...` is short for `sam-detect detect IMAGE...`.

    \b
      sam-detect learn plate.jpg --label date --box 40,60,80,50
      sam-detect table.jpg --output found.png
    """


def main(arguments: list[str] | None = None) -> None:
    """Runs the command line and ends the process with its exit code."""
    given = list(sys.argv[1:] if arguments is None else arguments)
    _limit_threads()
    code = run(given) if _memory_suffices() else 1
    if any(each.name.startswith("sam-detect") for each in threading.enumerate()):
        _leave_at_once(code)
    sys.exit(code)


def _limit_threads() -> None:
    """One thread for products of matrices, unless the user says otherwise. NumPy is not loaded yet.

    Those of a picture are small, and between them the other threads of OpenBLAS wait busily: a
    quarter of the processor time, which other threads and processes lack.
    """
    if "OMP_NUM_THREADS" not in os.environ:
        os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _leave_at_once(code: int) -> NoReturn:
    """Ends the process without waiting for an abandoned thread: a camera that does not answer, a
    long detection. What was acknowledged is on the disk."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError, AttributeError):
            stream.flush()
    os._exit(code)


def run(arguments: list[str]) -> int:
    """Runs one command line; returns the exit code: 0, 1 (failure), 2 (usage) or 130 (Ctrl-C)."""
    arguments, debug = _without_debug(arguments)
    debugging.set(debug)
    with warnings.catch_warnings():
        warnings.showwarning = partial(_show_warning, set())
        try:
            ended = cli.main(
                args=_command_first(arguments), prog_name="sam-detect", standalone_mode=False
            )
            if sys.stdout is not None:
                sys.stdout.flush()
            return ended if isinstance(ended, int) else 0
        except (Exception, KeyboardInterrupt, SystemExit) as error:
            show_traceback()
            return _end(error)


def _end(error: BaseException) -> int:
    """Says in one line what went wrong, and gives the exit code for it."""
    if isinstance(error, SystemExit):  # click's answer to a reader who has gone
        return _left()
    if isinstance(error, (click.Abort, KeyboardInterrupt, _InterruptedError)):
        return _failed("stopped", INTERRUPTED)
    if isinstance(error, click.UsageError):
        where = error.ctx.command_path if error.ctx else "sam-detect"
        return _failed(f"{_message(error)} (see: {where} --help)", 2)
    if isinstance(error, click.ClickException):
        return _failed(_message(error), error.exit_code)
    if isinstance(error, SamDetectError):
        _left()
        return _failed(one_line(error), error.exit_code)
    if _lacks_memory(error):
        return _failed(
            "out of memory: end other programs, or try smaller pictures, or fewer at once", 1
        )
    if isinstance(error, OSError):
        code = _left()
        if error.errno in (errno.EPIPE, errno.ESHUTDOWN):
            return code
        named = f"'{error.filename}': " if error.filename else ""
        return _failed(f"{named}{error.strerror or one_line(error)}", code)
    text = f"{type(error).__name__}: {one_line(error)}"
    return _failed(f"{text} (this is a bug of sam-detect: --debug shows where)", 1)


def _memory_suffices() -> bool:
    """Whether this process may have as much memory as its libraries need to be loaded; says where
    it may not. With less, OpenBLAS asks for it again and again without end."""
    try:
        import resource
    except ImportError:  # Windows
        return True
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return True
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")  # each thread's buffer counts as used
    if limit >= LEAST_MEMORY_BYTES:
        return True
    note(
        f"error: this process may have {limit >> 20} MB of memory (ulimit -v); sam-detect needs "
        f"{LEAST_MEMORY_BYTES >> 20} MB at least: raise the limit"
    )
    return False


def _lacks_memory(error: BaseException) -> bool:
    """Whether memory ended: Python's, OpenCV's, or what a library needs to be loaded."""
    if isinstance(error, MemoryError) or getattr(error, "errno", None) == errno.ENOMEM:
        return True
    text = str(error).lower()
    words = ("failed to map segment", "cannot allocate memory", "insufficient memory",
             "can't start new thread", "can't allocate memory")  # fmt: skip
    return not isinstance(error, SamDetectError) and any(word in text for word in words)


def _failed(message: str, code: int) -> int:
    note(f"error: {message}")
    return code


def _message(error: click.ClickException) -> str:
    return one_line(Exception(error.format_message())).removesuffix(".")


def _left() -> int:
    """The exit code if the reader of stdout may be gone (`| head`, a full disk). What is still
    buffered is dropped then, so that Python does not report it at exit."""
    try:
        sys.stdout.flush()
    except (OSError, ValueError):
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 1


def _without_debug(arguments: list[str]) -> tuple[list[str], bool]:
    """The arguments without ``--debug``, which may stand anywhere, and whether it stood there."""
    end = arguments.index("--") if "--" in arguments else len(arguments)
    kept = [each for each in arguments[:end] if each != "--debug"]
    return kept + arguments[end:], len(kept) < end


def _command_first(arguments: list[str]) -> list[str]:
    """The command named in front: `detect` unless another one is."""
    if not arguments:
        return ["--help"]
    first = arguments[0]
    if first in (*COMMANDS, "-h", "--help", "--version"):
        return arguments
    if first == "--json" and len(arguments) > 1 and arguments[1] in COMMANDS:
        # A command of a group takes it only at its end.
        return [*arguments[1:], *([] if "--" in arguments else [first])]
    plain = not first.startswith("-") and not set(first) & set("./\\*?[")
    close = difflib.get_close_matches(first.lower(), COMMANDS, n=1) if plain else []
    if close and not os.path.lexists(first):
        raise click.UsageError(
            f"'{first}' is neither a command nor a file; did you mean 'sam-detect {close[0]}'?"
        )
    return ["detect", *arguments]


def _show_warning(
    shown: set[str], message: Warning | str, category: type[Warning], *_: Any, **__: Any
) -> None:
    """Says each warning once in a command, however often what it is about is read."""
    text = " ".join(str(message).split())
    if category is UserWarning and text not in shown:  # others tell developers
        shown.add(text)
        note(f"warning: {text}")
