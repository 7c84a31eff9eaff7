"""The content of a library: points, examples, recipes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, replace
from typing import Any, NamedTuple

import numpy as np

from sam_detect.types.masks import BoolArray, FloatArray, IntArray

ENOUGH_HERE = 3
"""So many examples of a label in one picture say by themselves what its other objects are like."""


@dataclass(frozen=True, eq=False)
class Point:
    """One row of a vector store.

    Attributes:
        id: a UUID in its canonical text form.
        vector: ``(D,)`` float32, or None if it was not requested.
        payload: plain JSON data; only the requested fields.
    """

    id: str
    vector: FloatArray | None
    payload: dict[str, Any]


@dataclass(frozen=True)
class Hit:
    """One search result: the point's id, its cosine similarity (-1 to 1), requested payload."""

    id: str
    similarity: float
    payload: dict[str, Any]


class Neighbour(NamedTuple):
    """One stored example near a vector: the reason for a label. A tuple, since a picture takes
    tens of thousands.

    Attributes:
        id: the example's id in its library.
        label: the example's label.
        similarity: cosine similarity, -1 to 1.
        negative: whether the example says "this is *not* that label".
    """

    id: str
    label: str
    similarity: float
    negative: bool = False

    def to_dict(self) -> dict[str, Any]:
        named = {"id": self.id, "label": self.label, "similarity": round(float(self.similarity), 6)}
        return {**named, "negative": True} if self.negative else named


@dataclass(frozen=True, eq=False)
class HardNegativeArrays:
    """Hard negatives: K regions proposed around examples that are not the examples' objects.

    Attributes:
        owners: ``(K,)`` int64, index of the example that each belongs to.
        touching: ``(K,)`` bool: whether it overlaps the example. The others are near it, and may be
            objects without a label.
        vectors: ``(K, D)`` float32 of length 1.
        background: ``(K,)`` bool: whether it lies elsewhere in the picture of the example.
    """

    owners: IntArray
    touching: BoolArray
    vectors: FloatArray
    background: BoolArray

    @classmethod
    def none(cls, dimension: int = 0) -> HardNegativeArrays:
        vectors = np.zeros((0, dimension), np.float32)
        none = np.zeros(0, np.bool_)
        return cls(np.zeros(0, np.int64), none, vectors, none)


@dataclass(frozen=True, eq=False)
class ExampleArrays:
    """Parallel arrays of N examples.

    Attributes:
        ids: their ids.
        labels: their names.
        sources: the images they come from.
        boxes_xywh: ``(N, 4)`` x, y, width, height in pixels of these images.
        negatives: ``(N,)`` bool, polarity.
        vectors: ``(N, D)`` float32.
        areas: ``(N,)`` pixels in their images; empty if not known.
        qualities: ``(N,)`` float32 in 0..1, quality of the segmenter's own proposal of each (NaN:
            it made none); empty if not known.
        proposers: N names of segmenters; empty if not known.
        hard_negatives: their hard negatives.
        scene_weights: see :meth:`~sam_detect.interfaces.Embedder.scene_weights`.
        parts: see :attr:`~sam_detect.interfaces.Embedder.parts`.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    sources: tuple[str, ...]
    boxes_xywh: IntArray
    negatives: BoolArray
    vectors: FloatArray
    areas: IntArray = field(default_factory=lambda: np.zeros(0, np.int64))
    qualities: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))
    proposers: tuple[str, ...] = ()
    hard_negatives: HardNegativeArrays = field(default_factory=HardNegativeArrays.none)
    scene_weights: FloatArray | None = None
    parts: Mapping[str, int] = field(default_factory=dict)

    def where(self, kept: BoolArray) -> ExampleArrays:
        """Some of the examples, with their hard negatives.

        Args:
            kept: ``(N,)`` bool.
        """
        rows = np.flatnonzero(kept)
        around = np.flatnonzero(kept[self.hard_negatives.owners])

        def some(values: Any) -> Any:
            return values[rows] if len(values) else values

        def named(values: tuple[str, ...]) -> tuple[str, ...]:
            return tuple(values[row] for row in rows.tolist()) if values else ()

        return replace(
            self,
            ids=named(self.ids),
            labels=named(self.labels),
            sources=named(self.sources),
            boxes_xywh=some(self.boxes_xywh),
            negatives=some(self.negatives),
            vectors=some(self.vectors),
            areas=some(self.areas),
            qualities=some(self.qualities),
            proposers=named(self.proposers),
            hard_negatives=HardNegativeArrays(
                (np.cumsum(kept) - 1)[self.hard_negatives.owners[around]],
                self.hard_negatives.touching[around],
                self.hard_negatives.vectors[around],
                self.hard_negatives.background[around],
            ),
        )

    def positive_ids(self, most: int, *, picture: str | None = None) -> list[str]:
        """The ids of at most so many examples of each label, without negatives. Ids are hashes, so
        the first ones are a random, repeatable choice.

        Args:
            picture: of whose examples as many are taken as there are; at :data:`ENOUGH_HERE` of
                a label or more, no more of the others than of them.
        """
        here: dict[str, list[str]] = {}
        others: dict[str, list[str]] = {}
        for example, label, negative, source in sorted(
            zip(self.ids, self.labels, self.negatives.tolist(), self.sources, strict=True)
        ):
            if not negative:
                for each in (here, others):
                    each.setdefault(label, [])
                (here if source == picture else others)[label].append(example)
        found: list[str] = []
        for label, own in here.items():
            found += own[:most]
            left = most - min(len(own), most)
            found += others[label][: min(left, len(own)) if len(own) >= ENOUGH_HERE else left]
        return found


@dataclass(frozen=True, eq=False)
class Recipe:
    """How the vectors of a library were made. Two recipes are equal if all fields are, except the
    name of a file of weights, which its digest identifies.

    Attributes:
        embedder: registered name.
        embedder_version: version of the embedder's algorithm.
        model: the embedder's own parameters (model name, pooling, ...), plain data.
        fade: registered name or ``package.module:Class``.
        fade_params: the fade's parameters, plain data.
        occupancy: share of a crop's area that its object takes.
        crop_side: longest side of a kept crop, pixels.
        crop_version: version of the cropping algorithm.
        dimension: length of the vectors.
    """

    embedder: str
    embedder_version: int
    model: dict[str, Any]
    fade: str
    fade_params: dict[str, Any]
    occupancy: float
    crop_side: int
    crop_version: int
    dimension: int

    def to_dict(self) -> dict[str, Any]:
        return asdict(self)

    def differences(self, other: Recipe) -> dict[str, tuple[Any, Any]]:
        """``{field: (mine, theirs)}`` of every field that differs."""
        mine, theirs = self.to_dict(), other.to_dict()
        return {name: (mine[name], theirs[name]) for name in mine
                if _deciding(mine[name]) != _deciding(theirs[name])}  # fmt: skip

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Recipe) and not self.differences(other)

    __hash__ = None  # type: ignore[assignment]  # it holds dicts


def _deciding(value: Any) -> Any:
    """A field of a recipe as it is compared: without the name of a file of weights."""
    if not isinstance(value, dict) or "digest" not in value:
        return value
    return {name: each for name, each in value.items() if name != "file"}
