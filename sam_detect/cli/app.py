"""The command group: commands by name, ``detect`` where none is named, and how errors end."""

from __future__ import annotations

import importlib
import os
import sys
import traceback
from typing import Any

import click

from sam_detect import __version__
from sam_detect.errors import SamDetectError, one_line

COMMANDS = {
    "detect": ("sam_detect.cli.detect:detect", "Find and name the objects of pictures."),
    "learn": ("sam_detect.cli.learn:learn", "Learn objects from pictures, under a name."),
    "library": ("sam_detect.cli.library:library", "List, edit, carry and convert what was learnt."),
}
INTERRUPTED = 130


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


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="sam-detect")
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
    sys.exit(run(given))


def run(arguments: list[str]) -> int:
    """Runs one command line; returns the exit code: 0, 1 (failure), 2 (usage) or 130 (Ctrl-C)."""
    if arguments and arguments[0] not in (*COMMANDS, "-h", "--help", "--version"):
        arguments = ["detect", *arguments]
    debug = "--debug" in arguments
    try:
        result = cli.main(
            args=arguments or ["--help"], prog_name="sam-detect", standalone_mode=False
        )
        return result if isinstance(result, int) else 0
    except click.UsageError as error:
        where = error.ctx.command_path if error.ctx else "sam-detect"
        return _end(error.format_message(), 2, hint=f"see: {where} --help")
    except click.ClickException as error:
        return _end(error.format_message(), error.exit_code)
    except (click.Abort, KeyboardInterrupt):
        return _end("stopped", INTERRUPTED)
    except BrokenPipeError:
        # The reader of our output (`| head`) has gone: nothing is left to say.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 1
    except SamDetectError as error:
        if debug:
            traceback.print_exc()
        return _end(one_line(error), error.exit_code)
    except Exception as error:
        if debug:
            traceback.print_exc()
        text = f"{type(error).__name__}: {one_line(error)}"
        return _end(text, 1, hint="this is a bug of sam-detect: --debug shows where")


def _end(message: str, code: int, *, hint: str = "") -> int:
    text = f"error: {message}" + (f" ({hint})" if hint else "")
    click.echo(text, err=True)
    return code


def result(code: int) -> Any:
    """What a command returns to end with an exit code."""
    return code
