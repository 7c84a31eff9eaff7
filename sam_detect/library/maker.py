"""A recipe made concrete: the parts that turn a mask into the vector a library can compare."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import numpy as np

from sam_detect import parts
from sam_detect.config import Settings
from sam_detect.errors import (
    ConfigError,
    ExtensionError,
    LibraryCorruptError,
    RecipeMismatchError,
    UnknownNameError,
)
from sam_detect.fading import context
from sam_detect.interfaces import Embedder
from sam_detect.masks import FloatArray
from sam_detect.types import Crop, Frame, Masks, Recipe

DEFAULT_EMBEDDER = "appearance"
DEFAULT_FADE = "gaussian"
DEFAULT_OCCUPANCY = 0.2
DEFAULT_CROP_SIDE = 256
BATCH = 64


@dataclass(frozen=True)
class VectorMaker:
    """Cuts, fades and embeds, in one recipe.

    Attributes:
        embedder: turns faded crops into vectors.
        fade: fades their context.
        occupancy: share of a crop's area that its object takes.
        crop_side: longest side of a kept crop, pixels.
    """

    embedder: Embedder
    fade: parts.AnyFade
    occupancy: float = DEFAULT_OCCUPANCY
    crop_side: int = DEFAULT_CROP_SIDE

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
        if embedder is None and settings.embedder != "auto":
            embedder = parts.make_embedder(settings.embedder)
        elif embedder is None and stored is not None:
            embedder = _stored_embedder(stored)
        asked = parts.fade_asked_for(settings)
        if fade is not None:
            parts.require_fade(fade)
        elif asked is not None:
            fade = parts.make_fade(*asked)
        elif stored is not None:
            fade = _stored_fade(stored)
        return cls(
            embedder=embedder or parts.make_embedder(DEFAULT_EMBEDDER),
            fade=fade or parts.make_fade(DEFAULT_FADE),
            occupancy=settings.occupancy or (stored.occupancy if stored else DEFAULT_OCCUPANCY),
            crop_side=settings.crop_side or (stored.crop_side if stored else DEFAULT_CROP_SIDE),
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

    def vectors(
        self, crops: Iterable[Crop], *, timings_ms: dict[str, float] | None = None
    ) -> FloatArray:
        """``(N, D)`` float32 unit vectors, made in batches so that few crops are held at once.

        Args:
            timings_ms: gets the milliseconds of ``fade`` (with the cutting of a lazy ``crops``)
                and ``embed`` added.

        Raises:
            ExtensionError: the fade or the embedder broke its contract.
        """
        spent = {"fade": 0.0, "embed": 0.0}
        batches = []
        iterator = iter(crops)
        side = self.embedder.input_side
        while True:
            started = time.perf_counter()
            small = (context.reduced(crop, side) for crop in itertools.islice(iterator, BATCH))
            batch = [context.faded(crop, self.fade) for crop in small]
            cut = time.perf_counter()
            if not batch:
                break
            batches.append(self._checked(self.embedder.embed(batch), len(batch)))
            spent["fade"] += (cut - started) * 1000
            spent["embed"] += (time.perf_counter() - cut) * 1000
        for stage, value in spent.items():
            if timings_ms is not None:
                timings_ms[stage] = timings_ms.get(stage, 0.0) + value
        return np.concatenate([np.zeros((0, self.embedder.dimension), np.float32), *batches])

    def _checked(self, vectors: FloatArray, count: int) -> FloatArray:
        """The embedder's answer, if it keeps the interface's promise."""
        expected = (count, self.embedder.dimension)
        if vectors.shape != expected or not np.isfinite(vectors).all():
            raise ExtensionError(
                f"the embedder {self.embedder.name} must return finite vectors of shape "
                f"{expected}, got {vectors.shape}"
            )
        return vectors.astype(np.float32, copy=False)


def _stored_embedder(recipe: Recipe) -> Embedder:
    try:
        return parts.make_embedder(recipe.embedder, recipe.model)
    except (TypeError, ValueError) as error:
        raise LibraryCorruptError(
            f"the recipe of the library is damaged: embedder {recipe.embedder} with {recipe.model}"
        ) from error


def _stored_fade(recipe: Recipe) -> parts.AnyFade:
    """The fade of a stored recipe. A class is never imported because a file names it."""
    if ":" in recipe.fade:
        raise RecipeMismatchError(
            f"the library was made with the custom fade {recipe.fade}; give it again "
            f"(--fade {recipe.fade}, or fade_strategy=) to use the library"
        )
    try:
        return parts.make_fade(recipe.fade, recipe.fade_params)
    except UnknownNameError:  # a plugin that is not installed here
        raise
    except (ConfigError, TypeError, ValueError) as error:
        raise LibraryCorruptError(
            f"the recipe of the library is damaged: fade {recipe.fade} with {recipe.fade_params}"
        ) from error
