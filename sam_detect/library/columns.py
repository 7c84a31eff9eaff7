"""The examples of a library as columns: what naming needs of them, and how it is kept."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import numpy.typing as npt

from sam_detect.features.hard_negatives import HardNegativeVectors
from sam_detect.interfaces import Embedder
from sam_detect.library import lookup
from sam_detect.library.example import label_of
from sam_detect.types import ExampleArrays, HardNegativeArrays, Point
from sam_detect.types.masks import BoolArray, FloatArray, IntArray

Bytes = npt.NDArray[np.bytes_]
Octets = npt.NDArray[np.uint8]
OUTLINE_FIELDS = ("label", "negative", "added", "segmentation")


@dataclass(frozen=True, eq=False)
class Outlines:
    """The outlines of examples, by the pictures that they come from.

    Attributes:
        pictures: ``(1 + N,)`` bytes, the digest of each one's picture; empty where it is not known,
            and for the first, which stands for no example.
        records: ``(L,)`` uint8, JSON of the examples one after the other: the id, then
            :data:`OUTLINE_FIELDS`.
        ends: ``(1 + N,)`` int64, where each one's record ends.
    """

    pictures: Bytes
    records: Octets
    ends: IntArray

    @classmethod
    def of_points(cls, points: Iterable[Point]) -> Outlines:
        """Of points with the payload that lists show."""
        pictures, texts = [b""], [b""]
        for point in points:
            pictures.append(point.payload["picture"].encode("ascii"))
            texts.append(outline_record(point))
        ends = np.cumsum([len(text) for text in texts])
        return cls(np.array(pictures, "S"), np.frombuffer(b"".join(texts), np.uint8), ends)

    def __len__(self) -> int:
        return len(self.pictures) - 1

    def of_picture(self, digest: str) -> list[Point]:
        """The examples of a picture: points without vector, with :data:`OUTLINE_FIELDS`."""
        found = []
        for row in np.flatnonzero(self.pictures == digest.encode("ascii")).tolist():
            text = self.records[self.ends[row - 1] : self.ends[row]].tobytes()
            key, *values = json.loads(text)
            found.append(Point(key, None, dict(zip(OUTLINE_FIELDS, values, strict=True))))
        return found


def outline_record(point: Point, *before: str) -> bytes:
    """JSON of a point's id, of what shall stand behind it, and of its :data:`OUTLINE_FIELDS`."""
    fields = [point.id, *before, *(point.payload[name] for name in OUTLINE_FIELDS)]
    return json.dumps(fields, separators=(",", ":")).encode("ascii")


@dataclass(frozen=True, eq=False)
class ExampleColumns:
    """Examples as they are kept: what :class:`ExampleArrays` has, and the outlines.

    The vectors of the hard negatives are as they are stored: in half precision, of any length.
    """

    ids: tuple[str, ...]
    labels: tuple[str, ...]
    sources: tuple[str, ...]
    boxes_xywh: IntArray
    negatives: BoolArray
    vectors: FloatArray
    areas: IntArray
    qualities: FloatArray
    proposers: tuple[str, ...]
    owners: IntArray
    touching: BoolArray
    background: BoolArray
    hard_negatives: npt.NDArray[np.float16]
    outlines: Outlines

    @classmethod
    def of_points(
        cls, points: Sequence[Point], location: str, outlines: Outlines
    ) -> ExampleColumns:
        """Of points with vectors and the payload that naming reads; raises
        ``LibraryCorruptError`` where a hard negative is damaged."""
        named = [label_of(point) for point in points]
        vectors = [point.vector for point in points if point.vector is not None]
        regions = [_hard_negatives_of(point, location) for point in points]
        counts = [len(each.touching) for each in regions]
        around = [each for each in regions if len(each.touching)]
        return cls(
            ids=tuple(point.id for point in points),
            labels=tuple(label for label, _ in named),
            # Digests first: all arrays have the source "array".
            sources=tuple(str(p.payload["picture"] or p.payload["source"]) for p in points),
            boxes_xywh=np.array([p.payload["bbox"] for p in points], np.int64).reshape(-1, 4),
            negatives=np.array([negative for _, negative in named], dtype=bool),
            vectors=np.stack(vectors) if vectors else np.zeros((0, 0), np.float32),
            areas=np.array([point.payload["area"] for point in points], np.int64),
            qualities=np.array([each.quality for each in regions], np.float32),
            proposers=tuple(each.proposer for each in regions),
            owners=np.repeat(np.arange(len(regions)), counts),
            touching=np.concatenate([np.zeros(0, np.bool_), *(e.touching for e in around)]),
            background=np.concatenate([np.zeros(0, np.bool_), *(e.background for e in around)]),
            hard_negatives=(
                np.concatenate([each.vectors for each in around]).astype(np.float16)
                if around
                else np.zeros((0, 0), np.float16)
            ),
            outlines=outlines,
        )

    def arrays(self, embedder: Embedder | None) -> ExampleArrays:
        names = ("ids", "labels", "sources", "boxes_xywh", "negatives", "vectors", "areas")
        return ExampleArrays(
            **{name: getattr(self, name) for name in (*names, "qualities", "proposers")},
            hard_negatives=_HalfPrecision(
                self.owners, self.touching, self.background, self.hard_negatives
            ),
            scene_weights=None if embedder is None else embedder.scene_weights(),
            parts={} if embedder is None else embedder.parts,
        )


class _HalfPrecision(HardNegativeArrays):
    """Hard negatives whose vectors are made when they are first asked for: only fitting does."""

    _halves: npt.NDArray[np.float16]

    def __init__(
        self,
        owners: IntArray,
        touching: BoolArray,
        background: BoolArray,
        halves: npt.NDArray[np.float16],
    ) -> None:
        named = {"owners": owners, "touching": touching, "background": background}
        for name, value in {**named, "_halves": halves}.items():
            object.__setattr__(self, name, value)

    @cached_property
    def vectors(self) -> FloatArray:
        vectors = self._halves.astype(np.float32)
        lengths = np.linalg.norm(vectors, axis=1, keepdims=True)
        return np.asarray(vectors / np.maximum(lengths, 1e-12), np.float32)


def _hard_negatives_of(point: Point, location: str) -> HardNegativeVectors:
    dimension = None if point.vector is None else len(point.vector)
    try:
        return HardNegativeVectors.from_payload(point.payload["surroundings"], dimension=dimension)
    except ValueError as error:
        raise lookup.damage_error(point.id, str(error), location) from error
