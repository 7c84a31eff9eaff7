"""Feature extraction: cuts the crop of each mask, fades its context and embeds it.

Vectors are cached, so that an unchanged crop is not embedded twice.
"""

from __future__ import annotations

import copy
import hashlib
import itertools
import json
import threading
import time
from collections import OrderedDict
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any, Protocol

import numpy as np

from sam_detect import parts
from sam_detect.contracts import require_described
from sam_detect.errors import ConfigError
from sam_detect.fading import context
from sam_detect.features.kept_vectors import KeptVectors
from sam_detect.interfaces import Embedder
from sam_detect.types import Crop, FadedCrop, Frame, Masks, Recipe
from sam_detect.types.chunks import chunks
from sam_detect.types.masks import FloatArray, IntArray
from sam_detect.types.scratch import release, strips

DEFAULT_OCCUPANCY = 0.2
DEFAULT_CROP_SIDE = 256
BATCH = 64
STRIP = 256
"""Pixels; about as high as the parts in which embedders see a large picture."""
STAGES = ("fade", "embed")
Make = Callable[[Sequence[int]], FloatArray]


class StageTimer:
    """Adds up the milliseconds of stages.

    Args:
        spent_ms: the milliseconds are added here, by the names of the stages; None for a new dict.
        stages: names that get an entry even if they never run.
    """

    def __init__(self, spent_ms: dict[str, float] | None = None, *stages: str) -> None:
        self.spent_ms = {} if spent_ms is None else spent_ms
        self._inner_ms = 0.0
        for stage in stages:
            self.spent_ms.setdefault(stage, 0.0)

    @contextmanager
    def on(self, stage: str) -> Iterator[None]:
        """Adds the time that the block takes to a stage, less that of stages inside it."""
        started, outer, self._inner_ms = time.perf_counter(), self._inner_ms, 0.0
        yield
        spent = (time.perf_counter() - started) * 1000
        self.spent_ms[stage] = self.spent_ms.get(stage, 0.0) + spent - self._inner_ms
        self._inner_ms = outer + spent


class KnownVectors(Protocol):
    """Looks up vectors that were computed before, by keys of its own."""

    def keys_of_crops(self, crops: Sequence[Crop], recipe: Recipe) -> Sequence[Any]:
        """One key for each crop."""

    def vectors(self, keys: Sequence[Any], make: Make) -> FloatArray:
        """``(N, D)`` vectors of N keys.

        Args:
            make: computes the ``(n, D)`` vectors of n of them, given by index.
        """


class VectorCache:
    """The vectors used last (LRU), by the content of their crops and the recipe.

    Args:
        size: how many vectors are cached in memory.
        kept: those of other runs, on disk; None for none. Without either the cache is off.
    """

    def __init__(self, size: int, kept: KeptVectors | None = None) -> None:
        self._size, self._kept_on_disk = size, kept
        self._off = not size and kept is None
        self._kept: OrderedDict[bytes, FloatArray] = OrderedDict()
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._kept)

    def keys_of_crops(self, crops: Sequence[Crop], recipe: Recipe) -> list[bytes]:
        """One key for each crop: its pixels, its mask, its scale, and the recipe."""
        if self._off:
            return [b""] * len(crops)
        head = recipe_digest(recipe)
        return [
            _digest(head, crop.image_rgb.tobytes(), np.packbits(crop.mask).tobytes(),
                    repr((crop.mask.shape, crop.scale)).encode())
            for crop in crops
        ]  # fmt: skip

    def keys_of_masks(
        self, frame: Frame, masks: Masks, recipe: Recipe, areas: tuple[int, int] | None = None
    ) -> list[bytes]:
        """One key for each mask of a picture: the picture's pixels, the mask, the recipe, and the
        areas that the embedder goes by."""
        if self._off:
            return [b""] * len(masks)
        shape = repr(frame.image_rgb.shape).encode()
        picture = hashlib.blake2b(shape, digest_size=16)
        for rows in strips(frame.image_rgb):
            picture.update(np.ascontiguousarray(frame.image_rgb[rows]).data)
        head = _digest(recipe_digest(recipe), picture.digest(), repr(areas).encode())
        places = masks.boxes_xyxy.tolist()
        return [
            _digest(head, repr(place).encode(), outline)
            for place, outline in zip(places, masks.crop_rles, strict=True)
        ]

    def vectors(self, keys: Sequence[bytes], make: Make) -> FloatArray:
        if self._off or not keys:
            return make(range(len(keys)))
        with self._lock:
            known = {key: self._kept[key] for key in keys if key in self._kept}
            for key in known:
                self._kept.move_to_end(key)
        missing = {key: index for index, key in reversed(list(enumerate(keys))) if key not in known}
        if missing and self._kept_on_disk is not None:
            before = self._kept_on_disk.read([*missing])
            known |= before
            missing = {key: index for key, index in missing.items() if key not in before}
        if missing:
            indices = sorted(missing.values())
            made = make(indices)
            # Copies: a view of one row would keep all of them.
            new = {keys[i]: np.array(row) for i, row in zip(indices, made, strict=True)}
            known |= new
            if self._kept_on_disk is not None:
                self._kept_on_disk.write(new)
            with self._lock:
                self._kept.update(new)
                while len(self._kept) > self._size:
                    self._kept.popitem(last=False)
        return np.stack([known[key] for key in keys])


def recipe_digest(recipe: Recipe) -> bytes:
    """The same for equal recipes."""
    return _digest(json.dumps(recipe.to_dict(), sort_keys=True, default=str).encode())


def _digest(*contents: bytes) -> bytes:
    digest = hashlib.blake2b(digest_size=16)
    for content in contents:
        digest.update(len(content).to_bytes(8, "little"))
        digest.update(content)
    return digest.digest()


@dataclass(frozen=True)
class FeatureExtractor:
    """Cuts, fades and embeds, in one recipe.

    Attributes:
        embedder: turns faded crops into vectors.
        fade: fades their context.
        occupancy: share of a crop's area that its object takes.
        crop_side: longest side of a kept crop, pixels.
        cache_size: how many vectors are cached in memory; 0 for none.
        kept: vectors on disk, of other runs too; None for none.

    Raises:
        ConfigError: the embedder cannot use the fade, or needs more context than is cut.
    """

    embedder: Embedder
    fade: parts.AnyFade
    occupancy: float = DEFAULT_OCCUPANCY
    crop_side: int = DEFAULT_CROP_SIDE
    cache_size: int = 0
    kept: KeptVectors | None = None
    _areas: tuple[int, int] | None = field(default=None, init=False, repr=False, compare=False)
    _cache: VectorCache = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        require_described(self.embedder)
        _require_compatible(self.embedder, self.fade, self.occupancy)
        object.__setattr__(self, "_cache", VectorCache(self.cache_size, self.kept))

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

    def for_areas(self, areas: tuple[int, int] | None) -> FeatureExtractor:
        """This extractor for pictures in which objects of about these sizes are sought, see
        :meth:`~sam_detect.interfaces.Embedder.for_areas`; with the same cache."""
        sized = self.embedder.for_areas(areas)
        if sized is self.embedder:
            return self
        found = copy.copy(self)
        object.__setattr__(found, "embedder", sized)
        object.__setattr__(found, "_areas", areas)
        return found

    def crops(self, frame: Frame, masks: Masks) -> Iterator[Crop]:
        """The unfaded crop of each mask, as a library keeps it."""
        for index in range(len(masks)):
            release(frame.image_rgb)
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
        timer = StageTimer(timings_ms, *STAGES)
        vectors = np.zeros((len(masks), self.embedder.dimension), np.float32)
        some = list(chunks(len(masks)))
        order = np.arange(len(masks)) if len(some) < 2 else _row_by_row(masks)
        for rows in some:
            vectors[order[rows]] = self._embedded_in(frame, masks[order[rows]], known, timer)
        return vectors

    def _embedded_in(
        self, frame: Frame, masks: Masks, known: KnownVectors | None, timer: StageTimer
    ) -> FloatArray:
        """The vectors of masks from the whole frame."""

        def embedded(missing: Sequence[int]) -> FloatArray:
            some = masks[missing]
            return self.embedder.embed_frame(frame, some, self._faded(frame, some, timer))

        lookup = self._cache if known is None or self.embedder.cheap else known
        keys: list[Any] = []
        with timer.on("embed"):
            if lookup is self._cache:
                keys = self._cache.keys_of_masks(frame, masks, self.recipe, self._areas)
            else:
                crops = self.crops(frame, masks)
                while batch := list(itertools.islice(crops, BATCH)):
                    keys += lookup.keys_of_crops(batch, self.recipe)
            return lookup.vectors(keys, embedded)

    def _faded(self, frame: Frame, masks: Masks, timer: StageTimer) -> Iterator[FadedCrop]:
        """The faded crop of each mask."""
        crops = self.crops(frame, masks)
        for _ in range(len(masks)):
            with timer.on("fade"):
                faded = context.faded(
                    context.reduced(next(crops), self.embedder.input_side), self.fade
                )
            yield faded

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


def _row_by_row(masks: Masks) -> IntArray:
    """The order of masks from the top of a picture to its bottom, in rows of :data:`STRIP` pixels:
    so what an embedder sees of a large picture, it sees once."""
    left, top = masks.boxes_xyxy[:, 0], masks.boxes_xyxy[:, 1]
    return np.lexsort((left, top // STRIP))


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
