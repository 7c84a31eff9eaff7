"""The weights-free default with everything between its rooms made once, so that each room can be
run by itself."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from sam_detect import parts
from sam_detect.config import Settings
from sam_detect.detector import SAMDetect
from sam_detect.fading import context
from sam_detect.interfaces import Embedder, VectorStore
from sam_detect.library.library import Library
from sam_detect.library.maker import BATCH, VectorMaker
from sam_detect.masks import FloatArray
from sam_detect.types import Candidates, Crop, Detections, FadedCrop, Frame, Masks, Neighbour

EXAMPLES = 25
"""Proposals of each picture that are learnt."""


@dataclass(frozen=True, eq=False)
class Picture:
    """A picture with what each room makes of it.

    Attributes:
        candidates: N proposals, all of them described.
        crops: N crops, not yet faded, at the embedder's side.
        faded: the same, faded.
        detections: what the detector finds.
    """

    candidates: Candidates
    crops: list[Crop]
    faded: list[FadedCrop]
    detections: Detections

    @property
    def frame(self) -> Frame:
        return self.candidates.frame

    @property
    def masks(self) -> Masks:
        return self.candidates.masks

    @property
    def vectors(self) -> FloatArray:
        return self.candidates.vectors


class AnsweredLibrary(Library):
    """Answers a question that it was asked before from memory, so that labelling can be timed
    without the search.

    Attributes:
        limit: how many neighbours were asked for last.
    """

    def __init__(self, store: VectorStore, name: str, *, prior_similarity: float) -> None:
        super().__init__(store, name, prior_similarity=prior_similarity)
        self.limit = 0
        self._answers: dict[tuple[int, int], list[list[Neighbour]]] = {}

    def nearest(self, vectors: FloatArray, limit: int) -> list[list[Neighbour]]:
        self.limit = limit
        asked = id(vectors), limit
        if asked not in self._answers:
            self._answers[asked] = super().nearest(vectors, limit)
        return self._answers[asked]


class Prepared:
    """The default pipeline over pictures.

    Args:
        frames: the pictures.
        store: where the library lives.

    Attributes:
        maker: the default recipe.
        detector: the default detector, which has learnt some proposals of each picture under that
            picture's name.
        naming: the same detector with answers in place of searches.
        limit: how many neighbours its labeller asks for.
        pictures: what each room makes of each picture.
    """

    def __init__(self, frames: Sequence[Frame], store: VectorStore) -> None:
        # Not the user's settings: figures of different machines and commits are of the defaults.
        settings = Settings.model_validate({})
        self.maker = VectorMaker.choose(settings, None)
        labeller = parts.make_labeller(settings)
        self.detector, self.naming = (
            SAMDetect(
                segmenter=parts.make_segmenter(settings),
                embedder=self.maker.embedder,
                fade_strategy=self.maker.fade,
                vector_store=store,
                labeller=labeller,
            )
            for _ in range(2)
        )
        proposed = [self.detector.segmenter.segment(frame) for frame in frames]
        for frame, masks in zip(frames, proposed, strict=True):
            self._learn(frame, masks)
        library = self.detector.library
        answered = AnsweredLibrary(store, library.name, prior_similarity=library.prior_similarity)
        self.naming.library = answered
        self.pictures = [self._picture(*each) for each in zip(frames, proposed, strict=True)]
        self.limit = answered.limit

    def crops(self, frame: Frame, masks: Masks) -> list[Crop]:
        """The crops of masks, reduced to the embedder's side."""
        side = self.maker.embedder.input_side
        return [context.reduced(crop, side) for crop in self.maker.crops(frame, masks)]

    def faded(self, frame: Frame, masks: Masks) -> list[FadedCrop]:
        """The crops of masks, faded: all that the embedder needs."""
        return fade_all(self.crops(frame, masks), self.maker.fade)

    def _learn(self, frame: Frame, masks: Masks) -> None:
        chosen = np.unique(np.linspace(0, len(masks) - 1, EXAMPLES).astype(np.int64))
        if len(masks):
            name = Path(frame.source_id).stem or "picture"
            self.detector.learn_frame(frame, masks[chosen], [name] * len(chosen))

    def _picture(self, frame: Frame, masks: Masks) -> Picture:
        crops = self.crops(frame, masks)
        vectors = self.detector.embed(frame, masks)
        candidates = Candidates(frame, masks, vectors, np.arange(len(masks)))
        faded = fade_all(crops, self.maker.fade)
        return Picture(candidates, crops, faded, self.naming.name(candidates))


def fade_all(crops: Sequence[Crop], fade: parts.AnyFade) -> list[FadedCrop]:
    return [context.faded(crop, fade) for crop in crops]


def embed_all(embedder: Embedder, crops: Sequence[FadedCrop]) -> list[FloatArray]:
    """Vectors in the batches that a detector makes them in."""
    starts = range(0, len(crops), BATCH)
    return [embedder.embed(crops[start : start + BATCH]) for start in starts]
