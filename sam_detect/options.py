"""What users can choose about a part: each part declares its options once, as a small model.

The command line, ``config.toml``, the environment variables, ``docs/cli.md`` and the limits of
recipes all come from these models. Those of built-in parts are in ``OPTIONS`` of their room's
package, where nothing heavy is imported. A class of another package may have an ``Options`` model
of its own; without one, its options are the parameters of its constructor that are plain values.
"""

from __future__ import annotations

import importlib
import inspect
import math
from collections.abc import Iterable
from types import NoneType, UnionType
from typing import (
    Annotated,
    Any,
    ClassVar,
    Literal,
    Union,
    get_args,
    get_origin,
    get_type_hints,
)

from pydantic import BaseModel, ConfigDict, Field, create_model
from pydantic.fields import FieldInfo

from sam_detect.errors import ConfigError
from sam_detect.registry import BUILT_IN, load_asked, names

ROOMS = ("segmenter", "embedder", "fade", "labeller", "store")
"""The rooms whose parts a setting of the room's name chooses."""
SUPPLIED = {"device", "encoder", "collection_name"}
"""Parameters of constructors that sam-detect itself fills in."""


def shown(
    metavar: str | None = None,
    *,
    common: bool = False,
    expected: str | None = None,
    secret: bool = False,
    hidden: bool = False,
    variable: str | None = None,
    needs: str | None = None,
    without: str | None = None,
) -> Any:
    """How a setting is shown: ``json_schema_extra`` of its field.

    Args:
        metavar: what its value is, in the help.
        common: ``--help`` shows it, too, not only ``--help-all``.
        expected: what it must be, where several types are allowed.
        secret: it may hold a password, so no message shows its value.
        hidden: the help does not show it.
        variable: the environment variable, by default ``SAM_DETECT_`` and its name.
        needs, without: the option that must be given for it to act, and the one that must not.
    """
    return {
        "metavar": metavar,
        "common": common,
        "expected": expected,
        "secret": secret,
        "hidden": hidden,
        "variable": variable,
        "needs": needs,
        "without": without,
    }


def hint(info: FieldInfo, name: str) -> Any:
    """What :func:`shown` says of a field; None where it says nothing."""
    extra = info.json_schema_extra
    return extra.get(name) if isinstance(extra, dict) else None


def require_number(
    name: str,
    value: Any,
    least: float = -math.inf,
    most: float = math.inf,
    *,
    above: bool = False,
    other: str = "",
) -> float:
    """An argument as a float.

    Args:
        above: whether it must be more than ``least``.
        other: what else the argument may be, for the message: ``"'auto' or "``.

    Raises:
        ConfigError: it is no finite number, or out of the range.
    """
    try:
        number = float(value)
    except (TypeError, ValueError):
        number = math.nan
    if not (math.isfinite(number) and least <= number <= most) or (above and number == least):
        limits = f" of at least {least:g}" if least > -math.inf else ""
        limits = f" from {least:g} to {most:g}" if most < math.inf else limits
        limits = f" above {least:g}" if above else limits
        raise ConfigError(f"{name} must be {other}a number{limits}, got {value!r}")
    return number


class Options(BaseModel):
    """The options of one part.

    A field is an option: ``points_per_side`` is ``--points-per-side`` on the command line, and
    has this name as a setting. Its ``serialization_alias`` is the constructor's parameter where
    that has another name.
    """

    model_config = ConfigDict(extra="forbid", frozen=True, allow_inf_nan=False)

    names_model: ClassVar[str | None] = None
    """The option that names the model which the part runs. Where the user chooses no part, this
    option chooses the part."""


def options_of(room: str, name: str) -> type[BaseModel]:
    """The options of a part, by its registered name or as ``package.module:Class``.

    A built-in part is not imported for this; others are.

    Raises:
        ConfigError: there is no such part.
    """
    if name in BUILT_IN[room]:
        package = BUILT_IN[room][name].partition(":")[0].rpartition(".")[0]
        declared = getattr(importlib.import_module(package), "OPTIONS", {}) if package else {}
        return declared.get(name, Options)  # type: ignore[no-any-return]
    part_class = load_asked(room, name)
    declared = getattr(part_class, "Options", None)
    if isinstance(declared, type) and issubclass(declared, BaseModel):
        return declared
    return _from_constructor(part_class)


def fields(chosen: Iterable[tuple[str, str]] = ()) -> dict[str, FieldInfo]:
    """Every option of the built-in parts, and of other parts that are chosen.

    Args:
        chosen: rooms and names of parts.
    """
    found: dict[str, FieldInfo] = {}
    for room, name in _parts(chosen):
        for field, info in options_of(room, name).model_fields.items():
            found.setdefault(field, info)
    return found


def parts_with(option: str, chosen: Iterable[tuple[str, str]] = ()) -> list[tuple[str, str]]:
    """Room and name of each built-in or chosen part that has an option."""
    return [each for each in _parts(chosen) if option in options_of(*each).model_fields]


def installed() -> list[tuple[str, str]]:
    """Room and name of each part of another package that can be loaded."""
    others = ((room, name) for room in ROOMS for name in names(room)[len(BUILT_IN[room]) :])
    return [each for each in others if can_be_loaded(*each)]


def can_be_loaded(room: str, name: str) -> bool:
    """Whether a part of another package is there."""
    try:
        options_of(room, name)
    except ConfigError:
        return False
    return True


def _parts(chosen: Iterable[tuple[str, str]]) -> dict[tuple[str, str], None]:
    built_in = [(room, name) for room in ROOMS for name in BUILT_IN[room]]
    return dict.fromkeys([*built_in, *chosen])


def annotation_of(info: FieldInfo) -> Any:
    """The type of a field with its limits, to declare it in another model."""
    if not info.metadata:
        return info.annotation
    parts = (info.annotation, *info.metadata)
    return Annotated[parts]


def _from_constructor(part_class: Any) -> type[BaseModel]:
    """The parameters of a constructor whose values are plain, as options."""
    try:
        parameters = inspect.signature(part_class).parameters
    except (TypeError, ValueError):
        return Options
    try:
        types = get_type_hints(part_class.__init__)
    except Exception:  # annotations of the user's own may be anything
        types = {}
    found: dict[str, Any] = {}
    for name, parameter in parameters.items():
        named = parameter.kind in (parameter.POSITIONAL_OR_KEYWORD, parameter.KEYWORD_ONLY)
        default = None if parameter.default is parameter.empty else parameter.default
        kind = types.get(name, Any if default is None else type(default))
        taken = name in SUPPLIED or name.startswith("_") or hasattr(BaseModel, name)
        if named and not taken and _is_plain(kind):
            help_text = f"An option of {part_class.__name__}."
            found[name] = (kind | None, Field(default, description=help_text))
    return create_model(f"{part_class.__name__}Options", __base__=Options, **found)


def _is_plain(kind: Any) -> bool:
    """Whether values of a type can be written on a command line and in a recipe."""
    if get_origin(kind) in (Union, UnionType):
        return all(_is_plain(each) for each in get_args(kind))
    if get_origin(kind) is Annotated:
        return _is_plain(get_args(kind)[0])
    return kind in (Any, bool, int, float, str, NoneType) or get_origin(kind) is Literal
