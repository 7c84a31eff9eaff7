"""Command-line options made from :class:`~sam_detect.config.Settings`, so that no default or
limit is written twice."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar, get_args

import click

from sam_detect.config import Settings
from sam_detect.registry import MODELS_COMING, names

Command = TypeVar("Command", bound=Callable[..., Any])

ROOM_OF = {
    "segmenter": "segmenter",
    "embedder": "embedder",
    "labeller": "labeller",
    "store": "store",
}
WITH_AUTO = {"segmenter", "embedder"}

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
PROPOSALS = ("segmenter", "min_area", "max_area", "max_proposals")
LABELLING = ("labeller", "top_k", "threshold")
PLACE = ("library", "store", "qdrant_url", "lock_timeout_s")
GENERAL = ("device", "max_image_pixels")


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
    help_text = f"{info.description}{shown}"
    return click.option(
        "--" + field.replace("_", "-"),
        field,
        type=_type_of(field, info.annotation),
        metavar=_metavar(field, info.annotation),
        default=None,
        help=help_text,
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


def _metavar(field: str, annotation: Any) -> str | None:
    room = ROOM_OF.get(field)
    if room:
        auto = ["auto"] if field in WITH_AUTO else []
        return "|".join(auto + names(room))
    if field == "fade":
        return "|".join([*names("fade"), "PKG.MOD:CLASS"])
    if field == "threshold":
        return "auto|0-1"
    return None


def coming(room: str) -> list[str]:
    """Names that a later version serves; they get a clear error instead of a usage error."""
    return list(MODELS_COMING.get(room, {}))
