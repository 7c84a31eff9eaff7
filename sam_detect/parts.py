"""Makes the parts of a pipeline from names, settings and recipes (tier 1: knows no room)."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Collection, Mapping
from typing import Any, cast

from pydantic import ValidationError

from sam_detect.config import Settings, explained, load_settings
from sam_detect.errors import ConfigError, UnavailableError
from sam_detect.interfaces import (
    Embedder,
    Fade,
    Labeller,
    Segmenter,
    TextEncoder,
    VectorStore,
    WeightFade,
)
from sam_detect.options import Options, fields, hint, options_of, parts_with
from sam_detect.registry import BUILT_IN, load_asked, load_class, names

AnyFade = Fade | WeightFade
INTERFACES: dict[str, tuple[type, str]] = {
    "segmenter": (Segmenter, "propose(frame, hints)"),
    "embedder": (Embedder, "embed(crops)"),
    "labeller": (Labeller, "label(vectors, memory)"),
    "store": (VectorStore, "search(vectors, limit)"),
}
"""What an object given as a part must be, and the method to name to a user who gave another."""
DEFAULT_FADE = "gaussian"
"""The fade that options of a fade are for where no fade is named."""


class ArgumentsError(ConfigError):
    """A part does not take the arguments that it is given."""


# -- what is asked for ----------------------------------------------------------------------------


def settings_and_objects(
    given: Mapping[str, Any], options: Mapping[str, Any]
) -> tuple[Settings, dict[str, Any]]:
    """The settings of a call, and the objects that it gives as parts, by room.

    Args:
        given: room to what was given for it: a name, an object, or None.
        options: what else was given, by name.

    Raises:
        ConfigError: an object that is no such part, or an option that no part has.
    """
    settings = load_settings({**options, **asked_for(given, options)})
    objects = {room: each for room, each in given.items()
               if each is not None and not isinstance(each, str)}  # fmt: skip
    require_used(settings, {**settings.chosen, **dict.fromkeys(objects)})
    return settings, objects


def asked_for(given: Mapping[str, Any], options: Mapping[str, Any]) -> dict[str, Any]:
    """The rooms' settings in what a caller gave: a name, an object, or None for each.

    A model that is given chooses the first part that runs it, unless another part that runs it is
    named.

    Args:
        given: room to what was given for it.
        options: what else was given, by name.

    Raises:
        ConfigError: an object that is no such part.
    """
    asked = {room: value for room, value in given.items() if isinstance(value, str)}
    for room, value in given.items():
        if room in INTERFACES and value is not None and not isinstance(value, str):
            _require_interface(room, value)
    for option in (name for name, value in options.items() if value is not None):
        running = [
            (room, name)
            for room in ("segmenter", "embedder")
            for name in BUILT_IN[room]
            if _model_option(room, name) == option
        ]
        if running and not any(asked.get(room) == name for room, name in running):
            room, name = running[0]
            if given.get(room) in (None, "auto"):
                asked[room] = name
    return asked


def require_used(settings: Settings, used: Mapping[str, str | None]) -> None:
    """Every option of the call must be one that a part of the run has, and must be able to act.

    Args:
        used: room to the name of its part; None for an object, whose options are its own. A room
            that is missing is not decided yet.

    Raises:
        ConfigError: an option that no part has; the message names the parts that have it. Or one
            that changes nothing with the others.
    """
    known = fields((room, name) for room, name in used.items() if name is not None)
    for option in sorted(settings.asked):
        having = parts_with(option, [(r, n) for r, n in used.items() if n is not None])
        if not having:  # of a part of another package, whose room is not decided yet
            continue
        if any(room not in used or used[room] == name for room, name in having):
            needs, without = (hint(known[option], word) for word in ("needs", "without"))
            if needs and settings.option(needs) is None:
                raise ConfigError(f"{option} changes nothing without {needs}: leave it out")
            if without and settings.option(without) is not None:
                raise ConfigError(f"{option} changes nothing with {without}: leave one of them out")
            continue
        rooms = dict.fromkeys(room for room, _ in having)
        owners = " and ".join(
            f"the {room} {' or '.join(repr(name) for r, name in having if r == room)}"
            for room in rooms
        )
        names_here = {
            r: "an object (set it there)" if n is None else repr(n) for r, n in used.items()
        }
        here = " and ".join(f"the {room} is {names_here[room]}" for room in rooms)
        raise ConfigError(
            f"{option} is an option of {owners}, and here {here}: leave it out, or choose that part"
        )


def require_shapes(settings: Settings, embedder: Embedder) -> None:
    """Raises ``ConfigError`` where the call weighs shapes by themselves, and vectors have no part
    for them."""
    asked = "shape_prior" in settings.asked and settings.option("shape_prior")
    if asked and "shape" not in embedder.parts:
        raise ConfigError(
            f"shape_prior changes nothing with the embedder '{embedder.name}', whose vectors have "
            "no part for shapes: leave it out, or choose the embedder 'lite'"
        )


def warn_of_unused_device(settings: Settings, segmenter: str, embedder: str) -> None:
    """Says where a device was asked for that no part of the run uses."""
    used = (("segmenter", segmenter), ("embedder", embedder))
    runs = any(name not in BUILT_IN[room] or _model_option(room, name) for room, name in used)
    if settings.device in ("cuda", "mps") and not runs:
        on_cpu = f"{segmenter} and {embedder} run on the CPU"
        warnings.warn(f"device '{settings.device}' changes nothing: {on_cpu}", stacklevel=4)


def fade_asked_for(settings: Settings) -> tuple[str, dict[str, Any]] | None:
    """Name and parameters of the fade that the settings name, or None where they name none."""
    name = settings.fade or DEFAULT_FADE
    given = arguments("fade", name, settings)
    return (name, given) if settings.fade or given else None


def arguments(
    room: str, name: str, settings: Settings, *, only: Collection[str] | None = None
) -> dict[str, Any]:
    """The constructor's arguments for the options of a part that were given; of a built-in part
    also for those that have a default.

    Args:
        only: names of the options to take; None is all.

    Raises:
        ConfigError: an option has a value that this part does not take.
    """
    declared = options_of(room, name)
    known = declared.model_fields
    wanted = known if only is None else known.keys() & only
    given = {option: value for option, value in settings.options.items() if option in wanted}
    own = name not in BUILT_IN[room]  # its constructor has defaults of its own
    try:
        return declared(**given).model_dump(by_alias=True, exclude_none=True, exclude_unset=own)
    except ValidationError as error:
        raise ConfigError(explained(error, known, {})) from None


def _model_option(room: str, name: str) -> str | None:
    """The option that names the model of a built-in part; None where it runs none."""
    declared = options_of(room, name) if name in BUILT_IN[room] else Options
    return getattr(declared, "names_model", None)


# -- parts ----------------------------------------------------------------------------------------


def make_segmenter(settings: Settings, default: str = "naive") -> Segmenter:
    """The segmenter of the settings.

    Args:
        default: what ``auto`` is here.
    """
    name = default if settings.segmenter == "auto" else settings.segmenter
    given = arguments("segmenter", name, settings)
    return cast(Segmenter, _made("segmenter", name, given, device=settings.device))


def make_labeller(settings: Settings, embedder: Embedder | None = None) -> Labeller:
    """The labeller of the settings.

    Args:
        embedder: whose vectors it is to name; labellers that compare with texts need its texts.

    Raises:
        UnavailableError: the embedder makes no vectors of texts.
    """
    name = settings.labeller
    if "encoder" in _parameters("labeller", name) and not isinstance(embedder, TextEncoder):
        has = "" if embedder is None else f", which {embedder.name} does not"
        raise UnavailableError(
            f"the labeller '{name}' compares with texts and needs an embedder that knows them"
            f"{has}: ask for the embedder 'clip'"
        )
    given = arguments("labeller", name, settings)
    return cast(Labeller, _made("labeller", name, given, encoder=embedder))


def make_store(settings: Settings, collection: str) -> VectorStore:
    """The store of the settings: embedded Qdrant unless a server or memory is asked for."""
    name = settings.store or "qdrant"
    given = arguments("store", name, settings)
    return cast(VectorStore, _made("store", name, given, collection_name=collection))


def make_embedder(
    name: str, parameters: Mapping[str, Any] | None = None, device: str = "auto"
) -> Embedder:
    """An embedder with the parameters of a recipe, on a device where it takes one."""
    return cast(Embedder, _made("embedder", name, parameters or {}, device=device))


def make_fade(name: str, parameters: Mapping[str, Any] | None = None) -> AnyFade:
    """The fade of a name or of ``package.module:Class``.

    Raises:
        ConfigError: the fade has no such parameter, or the class has no ``apply``.
    """
    return cast(AnyFade, _made("fade", name, parameters or {}))


def _made(room: str, name: str, given: Mapping[str, Any], **supplied: Any) -> Any:
    """An instance of a part.

    Args:
        given: arguments, which it must have.
        supplied: arguments, which it gets where it has them.

    Raises:
        ArgumentsError: it has no such parameter, or is a user's own class that needs others.
        ConfigError: it is a user's own class that is no such part.
    """
    known = _parameters(room, name)
    takes_any = any(each.kind is each.VAR_KEYWORD for each in known.values())
    for parameter in given:
        if parameter not in known and not takes_any:
            has = ", ".join(known) or "no parameters"
            raise ArgumentsError(f"the {room} '{name}' has no {parameter} (it has: {has})")
    wanted = {each: value for each, value in supplied.items() if each in known}
    try:
        made = load_asked(room, name)(**given, **wanted)
    except TypeError as error:  # a user's own class may need what no option gives
        if name in BUILT_IN[room]:
            raise
        raise ArgumentsError(f"the {room} '{name}' cannot be made: {error}") from error
    if room == "fade":
        require_fade(made)
    else:
        _require_interface(room, made)
    return made


def _parameters(room: str, name: str) -> Mapping[str, inspect.Parameter]:
    try:
        return inspect.signature(load_asked(room, name)).parameters
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the {room} '{name}' is no class that can be made") from error


def _require_interface(room: str, part: object) -> None:
    interface, method = INTERFACES[room]
    if not isinstance(part, interface):
        raise ConfigError(
            f"a {room} is a name or a {interface.__name__} with {method}, got {part!r}"
        )


def require_fade(fade: Any) -> None:
    """Raises ``ConfigError`` for what is no fade."""
    if isinstance(fade, type):
        raise ConfigError(f"a fade is an object, not a class: give {fade.__name__}()")
    if not callable(getattr(fade, "apply", None)):
        raise ConfigError(
            f"a fade is an object with apply(image, mask, distance_map); {fade!r} has none"
        )


# -- what recipes say of parts --------------------------------------------------------------------


def describe_fade(fade: AnyFade) -> tuple[str, dict[str, Any]]:
    """``(name, parameters)`` of a fade for a recipe; parameters are its public plain attributes."""
    plain = (bool, int, float, str, type(None))
    attributes = getattr(fade, "__dict__", {})
    return name_of("fade", fade), {
        key: value
        for key, value in sorted(attributes.items())
        if not key.startswith("_") and isinstance(value, plain)
    }


def name_of(room: str, part: object) -> str:
    """The registered name of a part, else its ``module:Class``."""
    path = f"{type(part).__module__}:{type(part).__qualname__}"
    built_in = BUILT_IN[room]
    found = next((name for name, known in built_in.items() if known == path), None)
    if found is not None:
        return found
    others = (name for name in names(room) if name not in built_in)
    return next((name for name in others if load_class(room, name) is type(part)), path)
