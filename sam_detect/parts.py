"""Makes the parts of a pipeline from names, settings and recipes (tier 1: knows no room)."""

from __future__ import annotations

import inspect
from typing import Any

from sam_detect.config import Settings
from sam_detect.errors import ConfigError
from sam_detect.interfaces import Embedder, Fade, Labeller, Segmenter, WeightFade
from sam_detect.registry import BUILT_IN, load_class, load_custom, names

AnyFade = Fade | WeightFade
FADE_SETTINGS = ("sigma", "min_fade", "max_distance", "decay")


def make_segmenter(settings: Settings) -> Segmenter:
    """The segmenter of the settings; ``auto`` is ``naive`` where no model is at hand."""
    name = "naive" if settings.segmenter == "auto" else settings.segmenter
    made: Segmenter = _accepting(
        load_class("segmenter", name),
        {
            "min_area": settings.min_area,
            "max_area": settings.max_area,
            "max_proposals": settings.max_proposals,
        },
    )
    return made


def make_labeller(settings: Settings) -> Labeller:
    made: Labeller = _accepting(
        load_class("labeller", settings.labeller),
        {"top_k": settings.top_k, "threshold": settings.threshold},
    )
    return made


def make_embedder(name: str, parameters: dict[str, Any] | None = None) -> Embedder:
    made: Embedder = load_class("embedder", name)(**(parameters or {}))
    return made


def make_fade(name: str, parameters: dict[str, Any] | None = None) -> AnyFade:
    """The fade of a name or of ``package.module:Class``.

    Raises:
        ConfigError: the fade has no such parameter, or the class has no ``apply``.
    """
    fade_class = load_custom("fade", name) if ":" in name else load_class("fade", name)
    known = inspect.signature(fade_class).parameters
    for parameter in parameters or {}:
        if parameter not in known:
            raise ConfigError(
                f"the fade '{name}' has no {parameter} (it has: {', '.join(known) or 'no parameters'})"
            )
    fade = fade_class(**(parameters or {}))
    require_fade(fade)
    return fade  # type: ignore[no-any-return]


def require_fade(fade: Any) -> None:
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
    fade_class = type(fade)
    path = f"{fade_class.__module__}:{fade_class.__qualname__}"
    name = next((n for n, p in BUILT_IN["fade"].items() if p == path), None)
    if name is None:
        name = next((n for n in names("fade") if n not in BUILT_IN["fade"]
                     and load_class("fade", n) is fade_class), path)  # fmt: skip
    plain = (bool, int, float, str, type(None))
    attributes = getattr(fade, "__dict__", {})
    return name, {
        key: value
        for key, value in sorted(attributes.items())
        if not key.startswith("_") and isinstance(value, plain)
    }


def _accepting(part_class: Any, options: dict[str, Any]) -> Any:
    """An instance made with those options that its constructor takes."""
    known = inspect.signature(part_class).parameters
    return part_class(**{name: value for name, value in options.items() if name in known})
