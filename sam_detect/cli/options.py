"""Command-line options made from the settings and from what each part declares, so that no
default, limit or help text is written twice."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from types import NoneType, UnionType
from typing import Annotated, Any, Literal, TypeVar, Union, get_args, get_origin

import click
from click.core import ParameterSource
from pydantic.fields import FieldInfo

from sam_detect.cli.feedback import verbose
from sam_detect.config import chosen_parts, known_settings
from sam_detect.errors import ConfigError, SamDetectError
from sam_detect.options import ROOMS, fields, hint, options_of, parts_with
from sam_detect.registry import BUILT_IN, names

Command = TypeVar("Command", bound=Callable[..., Any])

WITH_AUTO = {"segmenter", "embedder"}
NEVER = {"qdrant_api_key"}
"""What a command line would show to all users of the machine."""
SECTIONS = {
    "Scale": ("scale",),
    "Proposals": ("segmenter", "tile"),
    "Vectors": ("embedder", "fade", "occupancy", "crop_side", "kept_vectors_mb"),
    "Labels": ("labeller", "outlines"),
    "Library": ("library", "store"),
    "Source": ("frame_rate", "stream_timeout_s", "stream_retries", "playlist_hosts"),
    "Machine": ("device", "max_image_pixels", "color_order"),
}
"""Titles in ``--help-all`` with their settings, the options of a room's parts after the room."""
EVERYTHING = "sam_detect.help_all"
"""Where a click context notes that all options are asked for."""
OWN = "sam_detect.own_options"
"""Where a click context keeps the options of parts of other packages that a command names."""


def section(*titles: str) -> tuple[str, ...]:
    """The settings of sections, with the options of the built-in parts."""
    return tuple(name for title in titles for each in SECTIONS[title] for name in _with_parts(each))


def _with_parts(setting: str) -> Iterator[str]:
    yield setting
    for part in BUILT_IN[setting] if setting in ROOMS else ():
        for name in options_of(setting, part).model_fields:
            if name not in NEVER:
                yield name


class SettingsCommand(click.Command):
    """A command that also takes the options of parts of other packages, once it names these."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        ctx.meta[OWN] = self._own_options(args)
        return super().parse_args(ctx, args)

    def get_params(self, ctx: click.Context) -> list[click.Parameter]:
        return [*super().get_params(ctx), *ctx.meta.get(OWN, [])]

    def _own_options(self, args: Sequence[str]) -> list[click.Option]:
        """The options of the parts of other packages that these arguments, the environment or
        ``config.toml`` name for the rooms of this command."""
        rooms = [each.name for each in self.params if each.name in ROOMS]
        given = {room: value for room in rooms if room for value in _values(f"--{room}", args)}
        try:
            found = fields(each for each in chosen_parts(given) if each[0] in rooms)
        except SamDetectError:
            if given and not {"--help", "-h", "--help-all"}.intersection(args):
                raise
            return []  # help is there for a part that cannot be loaded, too
        known = {*known_settings(), *(each.name for each in self.params)}
        return [_option(name, info) for name, info in found.items() if name not in known]


def _values(option: str, args: Sequence[str]) -> Iterator[str]:
    """The values of an option in a command line, the last one last."""
    for index, each in enumerate(args):
        if each == option and index + 1 < len(args):
            yield args[index + 1]
        elif each.startswith(f"{option}="):
            yield each.partition("=")[2]


class Sectioned(SettingsCommand):
    """A command with so many options that ``--help`` shows what most people need, and
    ``--help-all`` shows all of them, in sections.

    Args:
        advanced: names of options that only ``--help-all`` shows, besides the settings that are
            not declared as common.
    """

    def __init__(self, *args: Any, advanced: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._advanced = {*advanced, "debug", "verbose"}
        self.params.append(
            click.Option(
                ["--help-all"],
                is_flag=True,
                is_eager=True,
                expose_value=False,
                callback=_show_all,
                help="Show all options, in sections.",
            )
        )

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        everything = ctx.meta.get(EVERYTHING, False)
        rows: dict[str, list[tuple[str, str]]] = {"Options": []}
        rows |= {title: [] for title in SECTIONS}
        for parameter in self.get_params(ctx):
            row = parameter.get_help_record(ctx) if isinstance(parameter, click.Option) else None
            if row is not None and (everything or self._is_common(parameter)):
                rows[_section_of(parameter) if everything else "Options"].append(row)
        for title, found in rows.items():
            if found:
                with formatter.section(title):
                    formatter.write_dl(found)

    def _is_common(self, parameter: click.Parameter) -> bool:
        info = known_settings().get(parameter.name or "")
        return (info is None or hint(info, "common")) and parameter.name not in self._advanced


def _show_all(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[EVERYTHING] = True
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


def _section_of(parameter: click.Parameter) -> str:
    return next((title for title in SECTIONS if parameter.name in section(title)), "Options")


def settings_options(*settings: str) -> Callable[[Command], Command]:
    """Adds an option for each setting or option of a part; its value is None unless given."""

    def decorate(command: Command) -> Command:
        known = known_settings()
        options = [_option(name, known[name]) for name in dict.fromkeys(settings)]
        for option in reversed(options):
            _add(command, option)
        return command

    return decorate


def _add(command: Any, option: click.Option) -> None:
    """As ``click.option`` does, with an option that is made already."""
    if isinstance(command, click.Command):
        command.params.append(option)
    else:
        command.__dict__.setdefault("__click_params__", []).append(option)


def general_options(command: Command) -> Command:
    """``--json`` and ``--debug``, which every command has."""
    command = click.option(
        "--debug", is_flag=True, expose_value=False, help="Show the traceback of an error."
    )(command)
    return click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout.")(command)


PLANES = ("xy", "z", "t", "channel")


def plane_options(command: Command) -> Command:
    """``--xy``, ``--z``, ``--t`` and ``--channel``: what is read of stacks."""
    axes = {
        "xy": "Positions of stacks to read",
        "z": "Z planes of stacks to read",
        "t": "Time points of stacks to read",
    }
    command = click.option(
        "--channel", metavar="NUMBER|NAME[:COLOUR][:LOW-HIGH],...",
        help="Channels of stacks, from 1; several are blended. A colour and a contrast may follow: "
        "'DAPI:blue:100-4000, 2:green:1%-99.5%'.  [default: the first]",
    )(command)  # fmt: skip
    for name in reversed(axes):
        command = click.option(
            f"--{name}", metavar="RANGES",
            help=f"{axes[name]}, counted from 1, such as '1-3, 5-8'.  [default: the first]",
        )(command)  # fmt: skip
    return command


def fit_option(command: Command) -> Command:
    """``--fit``, of the commands that read annotations."""
    return click.option(
        "--fit", type=click.Choice(["check", "scale", "as-is"]), default="check",
        show_default=True, metavar="check|scale|as-is",
        help="Of annotations that do not fit their picture: check refuses them, scale scales those "
        "of another size (or in micrometres), as-is takes them as they are.",
    )(command)  # fmt: skip


def link_option(command: Command) -> Command:
    """``--link-z``, of the commands that write what they find in stacks."""
    return click.option(
        "--link-z", type=click.FloatRange(0, 1, min_open=True), metavar="IOU",
        help="Objects of one label in neighbouring Z planes are one volume with one id, if they "
        "overlap so much, such as 0.2.",
    )(command)  # fmt: skip


def refuse(because: str, *names: str) -> None:
    """Raises ``ConfigError`` where the command line gives one of these options of the command that
    runs: it cannot act, because of what else was asked for."""
    context = click.get_current_context()
    for name in names:
        if context.get_parameter_source(name) is ParameterSource.COMMANDLINE:
            option = next(each.opts[0] for each in context.command.params if each.name == name)
            raise ConfigError(f"{option} would change nothing: {because}")


def verbose_option(command: Command) -> Command:
    """``--verbose``, for the commands that say which parts they use."""

    def remember(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
        verbose.set(value)

    return click.option(
        "--verbose",
        is_flag=True,
        expose_value=False,
        callback=remember,
        help="Say which segmenter, embedder, fade and library are used, also where they are those "
        "of the last run.",
    )(command)


def _option(name: str, info: FieldInfo) -> click.Option:
    kind = _type_of(info.annotation)
    help_text = info.description or ""
    having = _having(name)
    if having:
        help_text += f"  [{having}]"
    if info.default is not None:
        help_text += f"  [default: {info.default}]"
    return click.Option(
        ["--" + name.replace("_", "-"), name],
        type=kind,
        metavar=_metavar(name, info, kind),
        default=None,
        help=help_text,
        hidden=bool(hint(info, "hidden")),
    )


def _having(option: str) -> str:
    """The parts that have an option, where not all of their room do."""
    having = parts_with(option)
    rooms = dict.fromkeys(room for room, _ in having)
    said = []
    for room in rooms:
        some = [name for each, name in having if each == room]
        if len(some) < len(BUILT_IN[room]):
            said.append(f"{room} {', '.join(some)}")
    return "; ".join(said)


def _type_of(annotation: Any) -> Any:
    """Choices come from the type; ranges are checked by the settings, which say more."""
    union = get_origin(annotation) in (Union, UnionType)
    kinds = get_args(annotation) if union else (annotation,)
    kind, *others = (each for each in kinds if each is not NoneType)
    if get_origin(kind) is Annotated:
        kind = get_args(kind)[0]
    if get_origin(kind) is Literal and not others:
        return click.Choice(get_args(kind))
    return kind if kind in (int, float, bool) and not others else str


def _metavar(name: str, info: FieldInfo, kind: Any) -> str | None:
    if isinstance(kind, click.Choice):
        return "|".join(kind.choices)
    if name in ROOMS:
        auto = ["auto"] if name in WITH_AUTO else []
        return "|".join([*auto, *names(name), "PKG.MOD:CLASS"])
    usual = {int: "N", float: "NUMBER", bool: "true|false"}.get(kind, "TEXT")
    return hint(info, "metavar") or usual
