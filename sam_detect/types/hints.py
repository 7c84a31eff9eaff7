"""What a segmenter may know of the examples when it proposes."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import Literal

from sam_detect.types.frames import Crop
from sam_detect.types.short import short_repr
from sam_detect.types.similarity import Similarity

Areas = tuple[int, int] | None
"""Pixels of the smallest and of the largest example; None without examples."""

HintName = Literal["areas", "crops", "crops where outlined", "similarity", "separable similarity"]
"""What a segmenter may ask for: see :attr:`~sam_detect.interfaces.Segmenter.uses`."""


class ExampleCrops(Mapping[str, Sequence[Crop]]):
    """The crops of some examples, by label. Equal to itself only, so that what is learnt of them
    can be cached for as long as they are in use."""

    def __init__(self, by_label: Mapping[str, Sequence[Crop]] = MappingProxyType({})) -> None:
        self._by_label = dict(by_label)

    def __getitem__(self, label: str) -> Sequence[Crop]:
        return self._by_label[label]

    def __iter__(self) -> Iterator[str]:
        return iter(self._by_label)

    def __len__(self) -> int:
        return len(self._by_label)

    __eq__ = object.__eq__
    __hash__ = object.__hash__


@dataclass(frozen=True, eq=False)
class Hints:
    """What a segmenter may know of a library's examples, for one picture. Without examples, and
    where the segmenter did not ask for it, each is empty.

    Attributes:
        areas: pixels of the smallest and of the largest example.
        crops: of examples by label; those of this very picture come first.
        outlined: how many examples are outlined in this very picture.
        similarity: how much the pixels of a picture are like the examples.
    """

    areas: Areas = None
    crops: ExampleCrops = field(default_factory=ExampleCrops)
    outlined: int = 0
    similarity: Similarity | None = None

    __repr__ = short_repr


NO_HINTS = Hints()
