"""What can be evaluated: the detector, or a method of the user's own."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np

from sam_detect.types import Frame, Masks
from sam_detect.types.masks import FloatArray


@dataclass(frozen=True, eq=False)
class SupportImage:
    """The examples of one support picture: all that a method may see of its annotations.

    Attributes:
        frame: the picture.
        masks: N outlines. Where a dataset has boxes only, what the detector makes of each box.
        labels: N names.
        others: outlines of all other objects of the picture, if the protocol shows them.
    """

    frame: Frame
    masks: Masks
    labels: tuple[str, ...]
    others: Masks | None = None


@dataclass(frozen=True, eq=False)
class Predictions:
    """What a method found in one picture.

    Attributes:
        masks: N detections.
        labels: N names; None for what it does not know.
        scores: ``(N,)`` float32 in 0..1, by which detections are ranked.
        proposals: every region it considered.
        seconds: time per stage (``propose``, ``fade``, ``embed``, ``label``).
        similarities: ``(M,)`` plain cosine of each candidate to the mean of the nearest label's
            examples; empty for a method that compares none.
    """

    masks: Masks
    labels: tuple[str | None, ...]
    scores: FloatArray
    proposals: Masks
    seconds: dict[str, float] = field(default_factory=dict)
    similarities: FloatArray = field(default_factory=lambda: np.zeros(0, np.float32))

    @classmethod
    def nothing(cls, size_hw: tuple[int, int]) -> Predictions:
        none = Masks.empty(size_hw)
        return cls(none, (), np.zeros(0, np.float32), none)


@runtime_checkable
class Method(Protocol):
    """Learns a few examples and finds more of them. Deterministic."""

    name: str

    def learn(self, support: Sequence[SupportImage]) -> None:
        """Forgets what it knew, and learns the examples of an episode."""

    def find(self, frame: Frame) -> Predictions:
        """Finds and names the objects of a query picture."""

    def describe(self) -> dict[str, Any]:
        """The recipe, as plain data, for the report; empty for a method without one."""
