"""Makes the parts of a pipeline from names, settings and recipes (tier 1: knows no room)."""

from __future__ import annotations

import inspect
import warnings
from collections.abc import Callable, Mapping
from typing import Any, TypeVar, cast

from sam_detect.config import Settings
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
from sam_detect.registry import BUILT_IN, load_asked, load_class, names

AnyFade = Fade | WeightFade
Part = TypeVar("Part")
FADE_SETTINGS = ("sigma", "min_fade", "max_distance", "decay")
INTERFACES: dict[str, tuple[type, str]] = {
    "segmenter": (Segmenter, "segment(frame)"),
    "embedder": (Embedder, "embed(crops)"),
    "labeller": (Labeller, "label(vectors, memory)"),
    "store": (VectorStore, "search(vectors, limit)"),
}
"""What an object given as a part must be, and the method to name to whoever gave another."""
MODEL_OF = {"sam_model": ("segmenter", "sam2"), "clip_model": ("embedder", "clip")}
"""A model that is asked for asks for the part that runs it."""
OPTION_OF = {
    "points_per_side": ("segmenter", "sam2"),
    "prompts": ("segmenter", "sam2"),
    "pooling": ("embedder", "sam2"),
}
"""Options that only one part takes."""
EMBEDDER_SETTINGS = {
    "clip": {"clip_model": "model_name"},
    "sam2": {"sam_model": "model_size", "pooling": "pooling"},
}
"""Settings that are parameters of an embedder, by its name."""
ON_DEVICES = {"clip", "sam2"}
"""Parts that run where the setting ``device`` says."""
MODEL_PARAMETERS = ("model_name", "model_size")


def asked_for(given: Mapping[str, Any], models: Mapping[str, str | None]) -> dict[str, Any]:
    """The settings in what a caller gave for each room: a name, an object, or None.

    Args:
        given: room to what was given for it.
        models: ``sam_model`` and ``clip_model``; each names the part that runs it, too.

    Raises:
        ConfigError: an object that is no such part, or a model for a part that runs none.
    """
    asked = {room: value for room, value in given.items() if isinstance(value, str)}
    for room, value in given.items():
        if room in INTERFACES and value is not None and not isinstance(value, str):
            interface, method = INTERFACES[room]
            if not isinstance(value, interface):
                raise ConfigError(
                    f"a {room} is a name or a {interface.__name__} with {method}, got {value!r}"
                )
    for setting, model in models.items():
        room, name = MODEL_OF[setting]
        asked.update({} if model is None else {setting: model})
        if model is None or (setting == "sam_model" and given.get("embedder") == "sam2"):
            continue
        if given.get(room) not in (None, "auto", name):
            raise ConfigError(
                f"{setting} '{model}' is for the {room} '{name}', but another {room} was given: "
                f"leave one of them out"
            )
        asked[room] = name
    return asked


def given_or_made(given: Part | str | None, make: Callable[..., Part], *arguments: Any) -> Part:
    """The part itself where one was given, else the one that the settings describe."""
    return make(*arguments) if given is None or isinstance(given, str) else given


def object_given(given: Part | str | None) -> Part | None:
    """What was given, unless that is only a name."""
    return None if isinstance(given, str) else given


def warn_of_no_effect(settings: Settings, segmenter: Segmenter, embedder: str) -> None:
    """Says what was asked for that no part uses: a device, or an option of another part."""
    used = {"segmenter": name_of("segmenter", segmenter), "embedder": embedder}
    if settings.device in ("cuda", "mps") and not {*used.values()} & ON_DEVICES:
        on_cpu = f"{used['segmenter']} and {embedder} run on the CPU"
        warnings.warn(f"device '{settings.device}' changes nothing: {on_cpu}", stacklevel=3)
    for option, (room, name) in OPTION_OF.items():
        asked = getattr(settings, option)
        idle = used[room] in BUILT_IN[room] and used[room] != name
        if idle and asked != Settings.model_fields[option].default:
            instead = f"it is for the {room} '{name}', and this is '{used[room]}'"
            warnings.warn(f"{option} '{asked}' changes nothing: {instead}", stacklevel=3)


def make_segmenter(settings: Settings, default: str = "naive") -> Segmenter:
    """The segmenter of the settings.

    Args:
        default: what ``auto`` is here.
    """
    name = default if settings.segmenter == "auto" else settings.segmenter
    options = ("min_area", "max_area", "max_proposals", "device", "points_per_side", "prompts")
    given = {} if settings.sam_model is None else {"model_size": settings.sam_model}
    return cast(Segmenter, _accepting(load_asked("segmenter", name), settings, options, **given))


def make_labeller(settings: Settings, embedder: Embedder | None = None) -> Labeller:
    """The labeller of the settings.

    Args:
        embedder: whose vectors it is to name; labellers that compare with texts need its texts.

    Raises:
        UnavailableError: the embedder makes no vectors of texts.
    """
    labeller_class = load_asked("labeller", settings.labeller)
    if "encoder" not in inspect.signature(labeller_class).parameters:
        return cast(Labeller, _accepting(labeller_class, settings, ("top_k", "threshold")))
    if not isinstance(embedder, TextEncoder):
        has = "" if embedder is None else f", which {embedder.name} does not"
        raise UnavailableError(
            f"the labeller '{settings.labeller}' compares with texts and needs an embedder that "
            f"knows them{has}: ask for the embedder 'clip'"
        )
    texts = {"labels": settings.text_labels, "templates": settings.text_templates,
             "text_weight": settings.text_weight}  # fmt: skip
    made = labeller_class(
        encoder=embedder,
        top_k=settings.top_k,
        threshold=settings.threshold,
        **{name: value for name, value in texts.items() if value is not None},
    )
    return cast(Labeller, made)


def make_store(settings: Settings, collection: str) -> VectorStore:
    """The store of the settings: embedded Qdrant unless a server or memory is asked for."""
    values = {
        "url": settings.qdrant_url,
        # A key in the environment says nothing of an embedded library.
        "api_key": settings.qdrant_api_key if settings.qdrant_url else None,
        "collection_name": collection,
        "lock_timeout_s": settings.lock_timeout_s,
        "batch_size": settings.qdrant_batch_size,
    }
    store_class = load_asked("store", settings.store or "qdrant")
    known = inspect.signature(store_class).parameters
    made = store_class(**{name: value for name, value in values.items() if name in known})
    return cast(VectorStore, made)


def embedder_options(name: str, settings: Settings) -> dict[str, Any]:
    """The parameters of an embedder that settings ask for."""
    of_embedder = EMBEDDER_SETTINGS.get(name, {})
    given = {parameter: getattr(settings, field) for field, parameter in of_embedder.items()}
    return {parameter: value for parameter, value in given.items() if value is not None}


def names_a_model(options: Mapping[str, Any]) -> bool:
    return any(parameter in options for parameter in MODEL_PARAMETERS)


def make_embedder(
    name: str, parameters: Mapping[str, Any] | None = None, device: str = "auto"
) -> Embedder:
    """An embedder with the parameters of a recipe, on a device where it takes one."""
    embedder_class = load_asked("embedder", name)
    known = inspect.signature(embedder_class).parameters
    where = {"device": device} if "device" in known else {}
    made: Embedder = embedder_class(**{**(parameters or {}), **where})
    return made


def make_fade(name: str, parameters: dict[str, Any] | None = None) -> AnyFade:
    """The fade of a name or of ``package.module:Class``.

    Raises:
        ConfigError: the fade has no such parameter, or the class has no ``apply``.
    """
    fade_class = load_asked("fade", name)
    try:
        known = inspect.signature(fade_class).parameters
    except (TypeError, ValueError) as error:
        raise ConfigError(f"the fade '{name}' is no class that can be made") from error
    for parameter in parameters or {}:
        if parameter not in known:
            has = ", ".join(known) or "no parameters"
            raise ConfigError(f"the fade '{name}' has no {parameter} (it has: {has})")
    try:
        fade = fade_class(**(parameters or {}))
    except TypeError as error:  # the user's own class may need what no option gives
        raise ConfigError(f"the fade '{name}' cannot be made: {error}") from error
    require_fade(fade)
    return fade  # type: ignore[no-any-return]


def require_fade(fade: Any) -> None:
    if isinstance(fade, type):
        raise ConfigError(f"a fade is an object, not a class: give {fade.__name__}()")
    if not callable(getattr(fade, "apply", None)):
        raise ConfigError(
            f"a fade is an object with apply(image, mask, distance_map); {fade!r} has none"
        )


def fade_asked_for(settings: Settings) -> tuple[str, dict[str, Any]] | None:
    """Name and parameters of the fade that the settings name, or None where they name none."""
    given = {name: getattr(settings, name) for name in FADE_SETTINGS}
    given = {name: value for name, value in given.items() if value is not None}
    if settings.fade is None and not given:
        return None
    return settings.fade or "gaussian", given


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


def _accepting(part_class: Any, settings: Settings, options: tuple[str, ...], **others: Any) -> Any:
    """An instance made with those settings, and those others, that its constructor takes."""
    known = inspect.signature(part_class).parameters
    values = {**{name: getattr(settings, name) for name in options}, **others}
    return part_class(**{name: value for name, value in values.items() if name in known})
