"""What may be an object of a picture: masks, and what is known of how they look."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from sam_detect.errors import MaskError
from sam_detect.masks import FloatArray, IntArray
from sam_detect.types.batches import Masks
from sam_detect.types.pictures import Frame
from sam_detect.types.results import Neighbour


@dataclass(frozen=True, eq=False)
class Candidates:
    """Masks of one frame, with the vectors of those that may be something known.

    Attributes:
        frame: the picture.
        masks: N proposals, best first.
        vectors: ``(n, D)`` float32 unit vectors of some of them.
        described: ``(n,)`` which; the others are of a size that nothing known has.

    Raises:
        MaskError: there is not one vector for each that is described.
    """

    frame: Frame
    masks: Masks
    vectors: FloatArray
    described: IntArray

    def __post_init__(self) -> None:
        if len(self.vectors) != len(self.described):
            raise MaskError(
                f"{len(self.described)} described masks need as many vectors, "
                f"got {len(self.vectors)}"
            )

    def then(self, others: Candidates) -> Candidates:
        """These, and after them others of the same frame."""
        return Candidates(
            self.frame,
            Masks.concatenate([self.masks, others.masks]),
            np.concatenate([self.vectors, others.vectors]),
            np.concatenate([self.described, others.described + len(self.masks)]),
        )


@dataclass(frozen=True, eq=False)
class Taught:
    """What a library's examples say of one picture: the outlines that were taught in it.

    Attributes:
        picture: digest of the picture's pixels.
        masks: N outlines, newest first.
        examples: N examples that have them; a negative says what its outline is *not*.
    """

    picture: str
    masks: Masks
    examples: tuple[Neighbour, ...]

    def __len__(self) -> int:
        return len(self.examples)

    def of(self, *, negative: bool) -> Taught:
        """Only the negatives, or only the others."""
        chosen = [i for i, each in enumerate(self.examples) if each.negative is negative]
        return Taught(self.picture, self.masks[chosen], tuple(self.examples[i] for i in chosen))
