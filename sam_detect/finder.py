"""Finding the objects of one frame: the only module that knows the order of the rooms."""

from __future__ import annotations

from dataclasses import replace
from functools import partial

import numpy as np

from sam_detect import parts
from sam_detect.interfaces import Labeller, Segmenter
from sam_detect.labelling.naming import Naming, plausible
from sam_detect.labelling.sizes import areas_sought
from sam_detect.library.example import image_digest
from sam_detect.library.library import Library
from sam_detect.library.maker import VectorMaker
from sam_detect.library.stage_timer import StageTimer
from sam_detect.masks import FloatArray, IntArray
from sam_detect.models.sharing import WhileAlive
from sam_detect.types import Detections, Frame, Masks, Recipe


class Finder:
    """Proposes, describes and names.

    Args:
        segmenter: proposes masks.
        maker: the recipe of the vectors.
        labeller: names vectors.
        library: the examples.
    """

    def __init__(
        self, segmenter: Segmenter, maker: VectorMaker, labeller: Labeller, library: Library
    ) -> None:
        self.segmenter, self.labeller = segmenter, labeller
        self._proposed: WhileAlive[Frame, Masks] = WhileAlive(1)
        self._use(maker, library)

    @property
    def recipe(self) -> Recipe:
        """How this detector makes vectors."""
        return self._maker.recipe

    def detect_frame(
        self, frame: Frame, *, also: Masks | None = None, light_of: str | None = None
    ) -> Detections:
        """Finds and names the objects of a frame: named ones first, best first; then unknown ones.

        Args:
            also: masks to be named beside the segmenter's own.
            light_of: digest of a picture that was taken from the same place in the same light.
        """
        timer = StageTimer()
        with timer.on("propose"):
            sizes = areas_sought(self.library.examples())
            masks = self.segmenter.for_areas(sizes).segment(frame)
        if also is not None and len(also):
            masks = Masks.concatenate([also, masks])
        plausible = self.plausible(masks)
        vectors = self.embed(frame, masks[plausible], timings_ms=timer.spent_ms)
        with timer.on("label"):
            named = self.name(frame, masks, vectors, plausible, light_of=light_of)
        describe = partial(self.embed, frame, timings_ms=timer.spent_ms)
        found = self._naming.with_neighbours(self.library, named, describe=describe)
        return replace(found, timings_ms=timer.spent_ms)

    def propose(self, frame: Frame, areas: tuple[int, int] | None = None) -> Masks:
        """The segmenter's masks of a frame, best first; those of the last frame are kept.

        Args:
            areas: as in :meth:`~sam_detect.interfaces.Segmenter.for_areas`. While learning they
                do not come from the library: what was learnt before changes no example.
        """
        return self._proposed.of(frame, lambda: self.segmenter.for_areas(areas).segment(frame))

    def plausible(self, masks: Masks) -> IntArray:
        """Indices of the masks that are of a size which something in the library could have.

        Whatever is far larger or smaller than every example stays unknown; few of those are
        left to be described once there is one detection per object.
        """
        return plausible(masks, self.library)

    def embed(
        self, frame: Frame, masks: Masks, *, timings_ms: dict[str, float] | None = None
    ) -> FloatArray:
        """``(N, D)`` float32 unit vectors of masks of a frame, in this detector's recipe.

        Args:
            timings_ms: gets the milliseconds of ``fade`` and ``embed`` added.
        """
        return self._maker.of_frame(frame, masks, timings_ms=timings_ms)

    def name(
        self,
        frame: Frame,
        masks: Masks,
        vectors: FloatArray,
        described: IntArray | None = None,
        *,
        light_of: str | None = None,
    ) -> Detections:
        """Names proposals by their vectors, and keeps one for each object.

        Args:
            described: indices of the masks that the vectors are of, the others being unknown;
                None for all of them.
            light_of: see :meth:`detect_frame`.
        """
        indices = np.arange(len(masks)) if described is None else described
        source = light_of or image_digest(frame.image_rgb)
        kept, verdicts = self._naming.name(
            self.library, masks, vectors, described=indices, source=source
        )
        return Detections(frame.source_id, kept, tuple(verdicts), self.recipe.to_dict())

    @property
    def _proposer(self) -> str:
        return parts.name_of("segmenter", self.segmenter)

    def _use(self, maker: VectorMaker, library: Library) -> None:
        self._maker, self.library = maker, library
        library.prior_similarity = maker.embedder.prior_similarity
        library.scene_weights = maker.embedder.scene_weights()
        self._naming = Naming(self.labeller, self._proposer)
