"""Command-line options made from :class:`~sam_detect.config.Settings`, so that no default or
limit is written twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click

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
    "points_per_side": "N",
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
STREAMS = ("frame_rate", "stream_timeout_s", "stream_retries")
GENERAL = ("device", "max_image_pixels", "color_order")


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


def _option(field: str) -> Callable[[Command], Command]:
    info = Settings.model_fields[field]
    shown = "" if info.default is None else f"  [default: {info.default}]"
    return click.option(
        "--" + field.replace("_", "-"),
        field,
        type=_type_of(field, info.annotation),
        metavar=_metavar(field),
        default=None,
        help=f"{info.description}{shown}",
        hidden=field in WITHOUT_EFFECT,
    )


def _type_of(field: str, annotation: Any) -> Any:
    """Choices come from the registry; ranges are checked by the settings, which say more."""
    choices = [a for a in get_args(annotation) if isinstance(a, str)]
    if choices and field != "threshold":
        return click.Choice(choices)
    for kind in (int, float):
        if annotation is kind or kind in get_args(annotation):
            return kind
    return str


def _metavar(field: str) -> str | None:
    if field in ROOMS:
        auto = ["auto"] if field in WITH_AUTO else []
        return "|".join(auto + names(field))
    if field == "fade":
        return "|".join([*names("fade"), "PKG.MOD:CLASS"])
    return METAVARS.get(field)
