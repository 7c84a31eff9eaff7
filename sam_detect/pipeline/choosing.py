"""Chooses the parts of a recipe: as asked for, else as the library has them, else the default."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from sam_detect import parts
from sam_detect.config import Settings, home_dir
from sam_detect.errors import (
    ConfigError,
    LibraryCorruptError,
    RecipeMismatchError,
    UnknownNameError,
)
from sam_detect.features.extraction import (
    DEFAULT_CROP_SIDE,
    DEFAULT_OCCUPANCY,
    FeatureExtractor,
)
from sam_detect.features.kept_vectors import KeptVectors
from sam_detect.interfaces import Embedder
from sam_detect.models import catalogue
from sam_detect.models.catalogue import clip_model
from sam_detect.models.weights import default_embedder
from sam_detect.options import options_of
from sam_detect.registry import BUILT_IN, load_asked, names
from sam_detect.types import Recipe


def choose_features(
    settings: Settings,
    stored: Recipe | None,
    given: Mapping[str, Any] = MappingProxyType({}),
) -> FeatureExtractor:
    """The extractor whose parts are as asked for; else as the stored recipe has them; else the
    defaults.

    Args:
        settings: what is asked for by name.
        stored: the library's recipe; None where it has none.
        given: room to an object that is its part: those of ``embedder`` and ``fade`` win.

    Raises:
        RecipeMismatchError: the recipe needs a part that only the user can give.
        LibraryCorruptError: the recipe is damaged.
        UnavailableError: a model cannot be loaded.
    """
    embedder, fade = given.get("embedder"), given.get("fade")
    if embedder is None:
        embedder = _embedder(settings, stored)
    asked = parts.fade_asked_for(settings)
    if fade is not None:
        parts.require_fade(fade)
    elif asked is not None:
        fade = parts.make_fade(*asked)
    elif stored is not None and (stored.fade == "identity" or not embedder.of_frames):
        fade = _stored_fade(stored)
    fade = fade or parts.make_fade(embedder.default_fade)
    widest = min(embedder.occupancy or DEFAULT_OCCUPANCY, DEFAULT_OCCUPANCY)
    usual = embedder.crop_side or DEFAULT_CROP_SIDE
    return FeatureExtractor(
        embedder=embedder,
        fade=fade,
        occupancy=settings.occupancy or (stored.occupancy if stored else widest),
        crop_side=settings.crop_side or (stored.crop_side if stored else usual),
        cache_size=settings.embedding_cache_size,
        kept=_kept_vectors(settings, embedder, fade),
    )


def _kept_vectors(settings: Settings, embedder: Embedder, fade: Any) -> KeptVectors | None:
    """Where vectors are kept for other runs; None where that is not asked for, or a part is not
    ours: its code may change."""
    limit = settings.kept_vectors_mb << 20
    ours = (
        parts.name_of("embedder", embedder) in BUILT_IN["embedder"]
        and parts.name_of("fade", fade) in BUILT_IN["fade"]
    )
    if not limit or not ours:
        return None
    return KeptVectors(home_dir() / "cache" / "vectors.sqlite", limit)


def _embedder(settings: Settings, stored: Recipe | None) -> Embedder:
    """The embedder that is asked for; else the library's; else the default."""
    asked = None if settings.embedder == "auto" else settings.embedder
    if stored is None or asked not in (None, stored.embedder):
        name = asked or default_embedder()
        given = parts.arguments("embedder", name, settings)
        asked_class = load_asked("embedder", name) if ":" in name else None
        if stored is not None and getattr(asked_class, "name", None) == stored.embedder:
            # The class that the library was made with, named again.
            options = options_of("embedder", name).model_fields
            given = {k: v for k, v in _trusted(stored).items() if k in options} | given
        return parts.make_embedder(name, given, settings.device)
    if stored.embedder not in names("embedder"):
        raise RecipeMismatchError(
            f"the library was made with the embedder '{stored.embedder}', which is not a part of "
            "sam-detect: give it again (embedder=, on the command line --embedder PKG.MOD:CLASS), "
            "or read the library with another one, such as 'appearance'"
        )
    if catalogue.FILE in stored.model:
        return _of_own_file(settings, stored, asked=asked is not None)
    if asked is None:
        # A model that the call names is for the segmenter; config.toml is for new libraries.
        only = settings.asked - {_model_option(stored.embedder)}
        options = parts.arguments("embedder", stored.embedder, settings, only=only)
        return _as_stored(stored, {**_trusted(stored), **options}, settings)
    # Another model has other weights, and says for itself what else it needs.
    kept = {} if _gives_a_model(stored, settings) else _trusted(stored)
    return _as_stored(stored, {**kept, **_options(stored, settings)}, settings)


def _of_own_file(settings: Settings, stored: Recipe, *, asked: bool) -> Embedder:
    """The embedder of a library whose model is a file of the user's own, which is given again.

    Args:
        asked: the embedder was named, so that it may also be another model.
    """
    file, options = stored.model[catalogue.FILE], _options(stored, settings)
    option = _model_option(stored.embedder)
    again = (
        f"give it again: --embedder {stored.embedder} --{option.replace('_', '-')} PATH (in Python "
        f"embedder='{stored.embedder}', {option}=PATH)"
    )
    if "model_name" in stored.model:  # open_clip's architecture with the user's weights
        again = (
            f"give it again: embedder=CLIPEmbedder('{stored.model['model_name']}', weights=PATH)"
        )
    if not _gives_a_model(stored, settings):
        raise RecipeMismatchError(
            f"the library was made with a model of your own, '{file}' (digest "
            f"{stored.model['digest']}), and a library never says where to load one from: {again}"
        )
    others = {name: value for name, value in stored.model.items()
              if name not in (catalogue.FILE, "model_name", *catalogue.DIGESTS)}  # fmt: skip
    made = _as_stored(stored, {**others, **options}, settings)
    if catalogue.same_weights(made.parameters(), stored.model):
        return made
    if asked:
        return _as_stored(stored, options, settings)
    if made.parameters().get("digest") == stored.model["digest"]:
        raise RecipeMismatchError(
            f"the library was made with another configuration of the model '{file}', and only "
            "those of sam2 and open_clip are read: reindex it (sam-detect library reindex)"
        )
    raise RecipeMismatchError(
        f"the library was made with the model '{file}' (digest {stored.model['digest']}), and the "
        f"one given has the digest {made.parameters().get('digest')}: {again}"
    )


def _options(stored: Recipe, settings: Settings) -> dict[str, Any]:
    """The arguments of the stored embedder that settings give."""
    return parts.arguments("embedder", stored.embedder, settings)


def _model_option(embedder: str) -> str:
    return getattr(options_of("embedder", embedder), "names_model", None) or "model"


def _gives_a_model(stored: Recipe, settings: Settings) -> bool:
    return _model_option(stored.embedder) in settings.options


def _trusted(stored: Recipe) -> dict[str, Any]:
    """The stored parameters of the embedder, none of which may say what to load."""
    if stored.embedder == "clip" and "model_name" in stored.model:
        clip_model(stored.model["model_name"])  # a name of the catalogue, and never a folder
    if stored.embedder == "lite":
        return {"pooling": "crop", **stored.model}  # the only one that has no name in a recipe
    if stored.embedder in catalogue.PARAMETERS:
        return stored.model
    name = catalogue.names_a_place(stored.model)
    if name is not None:
        raise RecipeMismatchError(
            f"the library was made with the embedder {stored.embedder}, whose {name} may be a path "
            "or code, which is never taken from a library: give the embedder itself (embedder=)"
        )
    return stored.model


def _as_stored(stored: Recipe, parameters: dict[str, Any], settings: Settings) -> Embedder:
    try:
        return parts.make_embedder(stored.embedder, parameters, settings.device)
    except (parts.ArgumentsError, TypeError, ValueError) as error:
        raise LibraryCorruptError(
            f"the recipe of the library is damaged: embedder {stored.embedder} with {parameters}"
        ) from error


def _stored_fade(recipe: Recipe) -> parts.AnyFade:
    """The fade of a stored recipe. A class is never imported because a file names it."""
    if ":" in recipe.fade:
        raise RecipeMismatchError(
            f"the library was made with the custom fade {recipe.fade}; if you know and trust that "
            f"code, give it again (fade_strategy=, on the command line --fade {recipe.fade}), or "
            "read the library with another one, such as 'gaussian'"
        )
    place = catalogue.names_a_place(recipe.fade_params)
    if place is not None:
        raise RecipeMismatchError(
            f"the library was made with the fade {recipe.fade}, whose {place} may be a path or "
            "code, which is never taken from a library: give the fade itself (fade_strategy=)"
        )
    try:
        return parts.make_fade(recipe.fade, recipe.fade_params)
    except UnknownNameError as error:  # a plug-in that is not installed here
        raise RecipeMismatchError(
            f"the library was made with the fade '{recipe.fade}', which is not installed here: "
            "give it again (fade_strategy=, on the command line --fade PKG.MOD:CLASS), or read the "
            "library with another one, such as 'gaussian'"
        ) from error
    except (ConfigError, TypeError, ValueError) as error:
        raise LibraryCorruptError(
            f"the recipe of the library is damaged: fade {recipe.fade} with {recipe.fade_params}"
        ) from error
