"""How much the pixels of a picture are like the examples of a library."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Protocol

from sam_detect.types.frames import ImageRGB
from sam_detect.types.masks import FloatArray
from sam_detect.types.short import short_repr


@dataclass(frozen=True, eq=False)
class SimilarityMap:
    """How much the pixels of a picture are like the examples of one label.

    Attributes:
        values: ``(h, w)`` float32 in 0..1, of whatever size; None where the label's own examples
            could not be told from what surrounds them by it.
        areas: pixels of the smallest and of the largest example, in the picture.
        least: mean inside an object of the label, at least.
        least_step: by so much that is higher than around the object, at least.
    """

    values: FloatArray | None
    areas: tuple[int, int]
    least: float = 0.0
    least_step: float = 0.0

    __repr__ = short_repr


class Similarity(Protocol):
    """What a segmenter may ask about the examples of a library."""

    def __call__(self, image_rgb: ImageRGB) -> Iterator[FloatArray]:
        """For each label ``(h, w)`` float32 in 0..1, of whatever size, of a picture ``(H, W, 3)``
        uint8; none for a label whose examples show nothing around them."""

    def separable(self, image_rgb: ImageRGB) -> list[SimilarityMap]:
        """The same, and how far it can be trusted: one for each label."""
