"""Command-line options made from :class:`~sam_detect.config.Settings`, so that no default or
limit is written twice."""

from __future__ import annotations

from collections.abc import Callable
from types import NoneType, UnionType
from typing import Any, Literal, TypeVar, Union, get_args, get_origin

import click

from sam_detect.cli.feedback import verbose
from sam_detect.config import Settings
from sam_detect.registry import names

Command = TypeVar("Command", bound=Callable[..., Any])

ROOMS = {"segmenter", "embedder", "labeller", "store"}
WITH_AUTO = {"segmenter", "embedder"}
METAVARS = {
    "threshold": "auto|0-1",
    "text_labels": "NAME,...",
    "text_templates": "TEXT|...",
    "text_weight": "0-1",
    "clip_model": "NAME|FOLDER",
    "library": "NAME",
    "sam_model": "tiny|small|base|large|NAME|PATH",
    "points_per_side": "auto|N",
    "max_proposals": "N",
    "top_k": "N",
    "qdrant_batch_size": "N",
    "decay": "RATE",
    "qdrant_url": "URL",
    "lock_timeout_s": "SECONDS",
    "frame_rate": "N",
    "stream_timeout_s": "SECONDS",
    "stream_retries": "N",
    "sigma": "PIXELS",
    "max_distance": "PIXELS",
    "min_area": "PIXELS",
    "max_area": "PIXELS",
    "crop_side": "PIXELS",
    "max_image_pixels": "PIXELS",
    "min_fade": "0-1",
    "occupancy": "0.05-0.80",
}
WITHOUT_EFFECT = {"color_order"}
"""Taken, but not shown in ``--help``: picture files carry their own order of colours."""

RECIPE = (
    "embedder",
    "fade",
    "sigma",
    "min_fade",
    "max_distance",
    "decay",
    "occupancy",
    "crop_side",
)
PROPOSALS = (
    "segmenter",
    "prompts",
    "points_per_side",
    "min_area",
    "max_area",
    "max_proposals",
)
MODELS = ("sam_model", "clip_model", "pooling")
LABELLING = (
    "labeller",
    "top_k",
    "threshold",
    "text_labels",
    "text_templates",
    "text_weight",
)
PLACE = ("library", "store", "qdrant_url", "lock_timeout_s")
STREAMS = ("frame_rate", "stream_timeout_s", "stream_retries", "playlist_hosts")
GENERAL = ("device", "max_image_pixels", "color_order")
SECTIONS = {
    "Proposals": PROPOSALS,
    "Vectors": RECIPE,
    "Models": (*MODELS, "device"),
    "Names": LABELLING,
    "Library": (*PLACE, "qdrant_batch_size"),
    "Source": STREAMS,
}
"""Titles in ``--help-all`` of the options that settings have; a command's own come before them."""
COMMON = {
    "segmenter", "embedder", "threshold", "library", "min_area", "max_area", "device",
}  # fmt: skip
"""Settings whose options ``--help`` shows, too."""
ADVANCED = {"debug", "verbose"}
EVERYTHING = "sam_detect.help_all"
"""Where a click context notes that all options are asked for."""


class Sectioned(click.Command):
    """A command with so many options that ``--help`` shows what most people need, and
    ``--help-all`` shows all of them, in sections.

    Args:
        advanced: names of options that only ``--help-all`` shows, besides the settings that are
            not in :data:`COMMON` and those of :data:`ADVANCED`.
    """

    def __init__(self, *args: Any, advanced: tuple[str, ...] = (), **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._advanced = {*advanced, *ADVANCED}
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
        own = parameter.name in COMMON or parameter.name not in Settings.model_fields
        return own and parameter.name not in self._advanced


def _show_all(ctx: click.Context, parameter: click.Parameter, value: bool) -> None:
    if value:
        ctx.meta[EVERYTHING] = True
        click.echo(ctx.get_help(), color=ctx.color)
        ctx.exit()


def _section_of(parameter: click.Parameter) -> str:
    sections = (title for title, fields in SECTIONS.items() if parameter.name in fields)
    return next(sections, "Options")


def settings_options(*fields: str) -> Callable[[Command], Command]:
    """Adds an option per setting; its value is None unless it was given."""

    def decorate(command: Command) -> Command:
        for field in reversed(fields):
            command = _option(field)(command)
        return command

    return decorate


def general_options(command: Command) -> Command:
    """``--json`` and ``--debug``, which every command has."""
    command = click.option(
        "--debug", is_flag=True, expose_value=False, help="Show the traceback of an error."
    )(command)
    return click.option("--json", "as_json", is_flag=True, help="Print JSON to stdout.")(command)


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


def _option(field: str) -> Callable[[Command], Command]:
    info = Settings.model_fields[field]
    kind = _type_of(info.annotation)
    shown = "" if info.default is None else f"  [default: {info.default}]"
    return click.option(
        "--" + field.replace("_", "-"),
        field,
        type=kind,
        metavar=_metavar(field, kind),
        default=None,
        help=f"{info.description}{shown}",
        hidden=field in WITHOUT_EFFECT,
    )


def _type_of(annotation: Any) -> Any:
    """Choices come from the registry; ranges are checked by the settings, which say more."""
    union = get_origin(annotation) in (Union, UnionType)
    kinds = get_args(annotation) if union else (annotation,)
    kind, *others = (each for each in kinds if each is not NoneType)
    if get_origin(kind) is Literal and not others:
        return click.Choice(get_args(kind))
    return kind if kind in (int, float) else str


def _metavar(field: str, kind: Any) -> str | None:
    if isinstance(kind, click.Choice):
        return "|".join(kind.choices)
    if field in ROOMS:
        auto = ["auto"] if field in WITH_AUTO else []
        return "|".join(auto + names(field))
    if field == "fade":
        return "|".join([*names("fade"), "PKG.MOD:CLASS"])
    return METAVARS.get(field)
