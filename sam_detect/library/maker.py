"""A recipe made concrete: the parts that turn a mask into the vector a library can compare."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import numpy as np

from sam_detect import parts
from sam_detect.config import Settings
from sam_detect.contracts import require_described
from sam_detect.errors import (
    ConfigError,
    LibraryCorruptError,
    RecipeMismatchError,
    UnavailableError,
    UnknownNameError,
)
from sam_detect.fading import context
from sam_detect.interfaces import Embedder
from sam_detect.library.stage_timer import StageTimer
from sam_detect.library.vector_cache import KeptVectors, VectorCache
from sam_detect.masks import FloatArray
from sam_detect.models import recipes
from sam_detect.models.catalogue import clip_model
from sam_detect.models.weights import default_embedder
from sam_detect.options import options_of
from sam_detect.registry import names
from sam_detect.types import Crop, Frame, Masks, Recipe

DEFAULT_OCCUPANCY = 0.2
DEFAULT_CROP_SIDE = 256
BATCH = 64
STAGES = ("fade", "embed")


@dataclass(frozen=True)
class VectorMaker:
    """Cuts, fades and embeds, in one recipe.

    Attributes:
        embedder: turns faded crops into vectors.
        fade: fades their context.
        occupancy: share of a crop's area that its object takes.
        crop_side: longest side of a kept crop, pixels.
        cache_size: how many vectors to keep, so that what comes again is not made again.

    Raises:
        ConfigError: the embedder has no use for the fade, or needs more context than is cut.
    """

    embedder: Embedder
    fade: parts.AnyFade
    occupancy: float = DEFAULT_OCCUPANCY
    crop_side: int = DEFAULT_CROP_SIDE
    cache_size: int = 0
    _cache: VectorCache = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_described(self.embedder)
        _require_fitting(self.embedder, self.fade, self.occupancy)
        object.__setattr__(self, "_cache", VectorCache(self.cache_size))

    @classmethod
    def choose(
        cls,
        settings: Settings,
        stored: Recipe | None,
        *,
        embedder: Embedder | None = None,
        fade: parts.AnyFade | None = None,
    ) -> VectorMaker:
        """Each part as asked for; else as the stored recipe has it; else the default."""
        if embedder is None:
            embedder = _embedder(settings, stored)
        asked = parts.fade_asked_for(settings)
        if fade is not None:
            parts.require_fade(fade)
        elif asked is not None:
            fade = parts.make_fade(*asked)
        elif stored is not None and (stored.fade == "identity" or not embedder.of_frames):
            fade = _stored_fade(stored)
        widest = min(embedder.occupancy or DEFAULT_OCCUPANCY, DEFAULT_OCCUPANCY)
        usual = embedder.crop_side or DEFAULT_CROP_SIDE
        return cls(
            embedder=embedder,
            fade=fade or parts.make_fade(embedder.default_fade),
            occupancy=settings.occupancy or (stored.occupancy if stored else widest),
            crop_side=settings.crop_side or (stored.crop_side if stored else usual),
            cache_size=settings.embedding_cache_size,
        )

    @property
    def recipe(self) -> Recipe:
        fade_name, fade_params = parts.describe_fade(self.fade)
        return Recipe(
            embedder=self.embedder.name,
            embedder_version=self.embedder.version,
            model=self.embedder.parameters(),
            fade=fade_name,
            fade_params=fade_params,
            occupancy=self.occupancy,
            crop_side=self.crop_side,
            crop_version=context.CROP_VERSION,
            dimension=self.embedder.dimension,
        )

    def crops(self, frame: Frame, masks: Masks) -> Iterator[Crop]:
        """The unfaded crop of each mask, as a library keeps it."""
        for index in range(len(masks)):
            yield context.cut(
                frame.image_rgb,
                masks.crop(index),
                masks.boxes_xyxy[index].tolist(),
                occupancy=self.occupancy,
                crop_side=self.crop_side,
            )

    def of_frame(
        self,
        frame: Frame,
        masks: Masks,
        *,
        kept: KeptVectors | None = None,
        timings_ms: dict[str, float] | None = None,
    ) -> FloatArray:
        """``(N, D)`` float32 unit vectors of masks of a picture, made as the embedder makes them:
        from their crops, or from the picture as a whole.

        Args:
            kept, timings_ms: as of :meth:`vectors`.

        Raises:
            ExtensionError: the fade or the embedder broke its contract.
        """
        if not self.embedder.of_frames:
            return self.vectors(self.crops(frame, masks), kept=kept, timings_ms=timings_ms)
        with StageTimer(timings_ms, *STAGES).on("embed"):
            keys = self._cache.keys_of_masks(frame, masks, self.recipe)
            return self._cache.vectors(keys, lambda missing: self._pooled(frame, masks[missing]))

    def vectors(
        self,
        crops: Iterable[Crop],
        *,
        kept: KeptVectors | None = None,
        timings_ms: dict[str, float] | None = None,
    ) -> FloatArray:
        """``(N, D)`` float32 unit vectors, made in batches so that few crops are held at once.

        Args:
            kept: knows vectors that need not be made again, and is asked where that is dear; by
                default the maker's own.
            timings_ms: gets the milliseconds of ``fade`` (with the cutting of a lazy ``crops``)
                and ``embed`` added.

        Raises:
            ExtensionError: the fade or the embedder broke its contract.
        """
        timer, recipe = StageTimer(timings_ms, *STAGES), self.recipe
        known = self._cache if kept is None or self.embedder.cheap else kept
        batches = [np.zeros((0, self.embedder.dimension), np.float32)]
        iterator = iter(crops)
        while True:
            with timer.on("fade"):
                batch = list(itertools.islice(iterator, BATCH))
                keys = known.keys_of_crops(batch, recipe)
            if not batch:
                break
            made = partial(self._embedded, batch, timer)
            batches.append(known.vectors(keys, made))
        return np.concatenate(batches)

    def _embedded(
        self, crops: Sequence[Crop], timer: StageTimer, chosen: Sequence[int]
    ) -> FloatArray:
        """The vectors of some of the crops."""
        with timer.on("fade"):
            side = self.embedder.input_side
            batch = [context.faded(context.reduced(crops[i], side), self.fade) for i in chosen]
        with timer.on("embed"):
            return self.embedder.embed(batch)

    def _pooled(self, frame: Frame, masks: Masks) -> FloatArray:
        return self.embedder.embed_frame(frame, masks)


def _embedder(settings: Settings, stored: Recipe | None) -> Embedder:
    """The embedder that is asked for; else the library's; else the default."""
    asked = None if settings.embedder == "auto" else settings.embedder
    if stored is None or asked not in (None, stored.embedder):
        name = asked or default_embedder()
        return parts.make_embedder(
            name, parts.arguments("embedder", name, settings), settings.device
        )
    if stored.embedder not in names("embedder"):
        raise RecipeMismatchError(
            f"the library was made with the embedder '{stored.embedder}', which is not a part of "
            "sam-detect: give it again (embedder=, on the command line --embedder PKG.MOD:CLASS), "
            "or read the library with another one, such as 'appearance'"
        )
    if recipes.FILE in stored.model:
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
    file, options = stored.model[recipes.FILE], _options(stored, settings)
    option = _model_option(stored.embedder)
    again = (
        f"give it again: --embedder {stored.embedder} --{option.replace('_', '-')} PATH (in Python "
        f"embedder='{stored.embedder}', {option}=PATH)"
    )
    if "model_name" in stored.model:  # open_clip's architecture with weights of one's own
        again = (
            f"give it again: embedder=CLIPEmbedder('{stored.model['model_name']}', weights=PATH)"
        )
    if not _gives_a_model(stored, settings):
        raise RecipeMismatchError(
            f"the library was made with a model of your own, '{file}' (digest "
            f"{stored.model['digest']}), and a library never says where to load one from: {again}"
        )
    others = {name: value for name, value in stored.model.items()
              if name not in (recipes.FILE, "model_name", *recipes.DIGESTS)}  # fmt: skip
    made = _as_stored(stored, {**others, **options}, settings)
    if recipes.same_weights(made.parameters(), stored.model):
        return made
    if asked:
        return _as_stored(stored, options, settings)
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
    if stored.embedder in recipes.PARAMETERS:
        return stored.model
    name = recipes.names_a_place(stored.model)
    if name is not None:
        raise RecipeMismatchError(
            f"the library was made with the embedder {stored.embedder}, whose {name} may be a path "
            "or code, which is never taken from a library: give the embedder itself (embedder=)"
        )
    return stored.model


def _as_stored(stored: Recipe, parameters: dict[str, Any], settings: Settings) -> Embedder:
    try:
        return parts.make_embedder(stored.embedder, parameters, settings.device)
    except (UnavailableError, UnknownNameError, RecipeMismatchError):
        raise
    except (ConfigError, TypeError, ValueError) as error:
        raise LibraryCorruptError(
            f"the recipe of the library is damaged: embedder {stored.embedder} with {parameters}"
        ) from error


def _require_fitting(embedder: Embedder, fade: parts.AnyFade, occupancy: float) -> None:
    if embedder.of_frames and parts.name_of("fade", fade) != "identity":
        raise ConfigError(
            f"the embedder {embedder.name} sees whole pictures here (pooling 'frame'), in which "
            "nothing is faded: use the fade 'identity'"
        )
    if embedder.occupancy is not None and occupancy > embedder.occupancy:
        raise ConfigError(
            f"the embedder {embedder.name} needs crops of which the object takes at most "
            f"{embedder.occupancy:g}, but they are cut with occupancy {occupancy:g}: "
            f"ask for occupancy {embedder.occupancy:g}, in a library of its own"
        )


def _stored_fade(recipe: Recipe) -> parts.AnyFade:
    """The fade of a stored recipe. A class is never imported because a file names it."""
    if ":" in recipe.fade:
        raise RecipeMismatchError(
            f"the library was made with the custom fade {recipe.fade}; if you know and trust that "
            f"code, give it again (fade_strategy=, on the command line --fade {recipe.fade}), or "
            "read the library with another one, such as 'gaussian'"
        )
    place = recipes.names_a_place(recipe.fade_params)
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
