"""What a labeller sees of a library; a snapshot of it is one."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol, TypeVar

from sam_detect.types.examples import ExampleArrays, Neighbour
from sam_detect.types.masks import FloatArray

Fit = TypeVar("Fit")


class LabelMemory(Protocol):
    """What a labeller may ask of a library."""

    @property
    def generation(self) -> str:
        """Changes whenever the examples do."""

    @property
    def prior_similarity(self) -> float:
        """Similarity to expect of two objects of one label while there are too few to tell."""

    def nearest(self, vectors: FloatArray, limit: int) -> list[list[Neighbour]]:
        """The nearest examples (negatives too) of each of ``(Q, D)`` vectors, nearest first."""

    def vectors(self, ids: Sequence[str]) -> FloatArray:
        """``(N, D)`` vectors of examples that :meth:`nearest` named, in the order of the ids."""

    def examples(self) -> ExampleArrays:
        """All examples (of a very large library, an even sample of each label), as arrays."""

    def kept(self, name: str, form: type[Fit], make: Callable[[], Fit]) -> Fit:
        """What ``make`` gives of :meth:`examples`, a ``form`` of ``library/kept.py``; made once for
        all processes where it can be kept. ``name`` says what else it depends on."""
