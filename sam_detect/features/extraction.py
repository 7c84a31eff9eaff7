"""Feature extraction: cuts the crop of each mask, fades its context and embeds it."""

from __future__ import annotations

import itertools
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial

import numpy as np

from sam_detect import parts
from sam_detect.contracts import require_described
from sam_detect.errors import ConfigError
from sam_detect.fading import context
from sam_detect.features.vector_cache import KnownVectors, VectorCache
from sam_detect.interfaces import Embedder
from sam_detect.masks import FloatArray
from sam_detect.types import Crop, Frame, Masks, Recipe

DEFAULT_OCCUPANCY = 0.2
DEFAULT_CROP_SIDE = 256
BATCH = 64
STAGES = ("fade", "embed")


class StageTimer:
    """Adds up the milliseconds of stages.

    Args:
        spent_ms: the milliseconds are added here, by the names of the stages; None for a new dict.
        stages: names that get an entry even if they never run.
    """

    def __init__(self, spent_ms: dict[str, float] | None = None, *stages: str) -> None:
        self.spent_ms = {} if spent_ms is None else spent_ms
        for stage in stages:
            self.spent_ms.setdefault(stage, 0.0)

    @contextmanager
    def on(self, stage: str) -> Iterator[None]:
        """Adds the time that the block takes to a stage."""
        started = time.perf_counter()
        yield
        spent = (time.perf_counter() - started) * 1000
        self.spent_ms[stage] = self.spent_ms.get(stage, 0.0) + spent


@dataclass(frozen=True)
class FeatureExtractor:
    """Cuts, fades and embeds, in one recipe.

    Attributes:
        embedder: turns faded crops into vectors.
        fade: fades their context.
        occupancy: share of a crop's area that its object takes.
        crop_side: longest side of a kept crop, pixels.
        cache_size: how many vectors are cached; 0 for none.

    Raises:
        ConfigError: the embedder cannot use the fade, or needs more context than is cut.
    """

    embedder: Embedder
    fade: parts.AnyFade
    occupancy: float = DEFAULT_OCCUPANCY
    crop_side: int = DEFAULT_CROP_SIDE
    cache_size: int = 0
    _cache: VectorCache = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_described(self.embedder)
        _require_compatible(self.embedder, self.fade, self.occupancy)
        object.__setattr__(self, "_cache", VectorCache(self.cache_size))

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

    def embed_masks(
        self,
        frame: Frame,
        masks: Masks,
        *,
        known: KnownVectors | None = None,
        timings_ms: dict[str, float] | None = None,
    ) -> FloatArray:
        """``(N, D)`` float32 unit vectors of N masks of a frame.

        The embedder decides how: from the crop of each mask, or from the whole frame.

        Args:
            known, timings_ms: as of :meth:`embed_crops`.

        Raises:
            ExtensionError: the fade or the embedder broke its contract.
        """
        if not self.embedder.of_frames:
            return self.embed_crops(self.crops(frame, masks), known=known, timings_ms=timings_ms)
        with StageTimer(timings_ms, *STAGES).on("embed"):
            keys = self._cache.keys_of_masks(frame, masks, self.recipe)
            return self._cache.vectors(keys, lambda missing: self._pooled(frame, masks[missing]))

    def embed_crops(
        self,
        crops: Iterable[Crop],
        *,
        known: KnownVectors | None = None,
        timings_ms: dict[str, float] | None = None,
    ) -> FloatArray:
        """``(N, D)`` float32 unit vectors of N crops, made in batches of :data:`BATCH`.

        Args:
            known: vectors that need not be computed again; used only if embedding is expensive
                (:attr:`~sam_detect.interfaces.Embedder.cheap`). None is the extractor's own cache.
            timings_ms: the milliseconds of ``fade`` (with the cutting of lazy ``crops``) and
                ``embed`` are added here.

        Raises:
            ExtensionError: the fade or the embedder broke its contract.
        """
        timer, recipe = StageTimer(timings_ms, *STAGES), self.recipe
        lookup = self._cache if known is None or self.embedder.cheap else known
        batches = [np.zeros((0, self.embedder.dimension), np.float32)]
        iterator = iter(crops)
        while True:
            with timer.on("fade"):
                batch = list(itertools.islice(iterator, BATCH))
                keys = lookup.keys_of_crops(batch, recipe)
            if not batch:
                break
            batches.append(lookup.vectors(keys, partial(self._embedded, batch, timer)))
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


def _require_compatible(embedder: Embedder, fade: parts.AnyFade, occupancy: float) -> None:
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
