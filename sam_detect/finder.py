"""Finding the objects of one frame: the only module that knows the order of the rooms."""

from __future__ import annotations

import math
import warnings
from dataclasses import replace

from sam_detect import parts
from sam_detect.interfaces import Labeller, Segmenter
from sam_detect.labelling.naming import Naming, plausible
from sam_detect.labelling.separate import separate_objects
from sam_detect.labelling.sizes import areas_sought
from sam_detect.library.example import image_digest
from sam_detect.library.library import Library
from sam_detect.library.maker import VectorMaker
from sam_detect.library.making import taught_in
from sam_detect.library.stage_timer import StageTimer
from sam_detect.library.vector_cache import KeptVectors
from sam_detect.masks import FloatArray, IntArray
from sam_detect.models.sharing import WhileAlive
from sam_detect.types import Candidates, Detections, Frame, Masks, Recipe, Taught


class Finder:
    """Proposes, describes and names; each step can be taken by itself.

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

    def detect_frame(self, frame: Frame) -> Detections:
        """Finds and names the objects of a frame: named ones first, best first; then unknown."""
        timer = StageTimer()
        with timer.on("propose"):
            masks = self.seek(frame)
        candidates = self.describe(frame, masks, timings_ms=timer.spent_ms)
        with timer.on("label"):
            named = self.name(candidates, taught=self.taught(frame))
        found = self.compare_unknown(frame, named, timings_ms=timer.spent_ms)
        return replace(found, timings_ms=timer.spent_ms)

    def seek(self, frame: Frame) -> Masks:
        """The segmenter's masks of a frame, best first, when it seeks what the library knows."""
        sizes = areas_sought(self.library.examples())
        segmenter = self.segmenter.for_areas(sizes)
        if sizes is not None:
            _warn_of_what_is_too_small(frame, segmenter, sizes[0])
        return segmenter.segment(frame)

    def propose(self, frame: Frame, areas: tuple[int, int] | None = None) -> Masks:
        """The segmenter's masks of a frame, best first; those of the last frame are kept.

        Args:
            areas: as in :meth:`~sam_detect.interfaces.Segmenter.for_areas`. While learning they
                do not come from the library: what was learnt before changes no example.
        """
        return self._proposed.of(frame, lambda: self.segmenter.for_areas(areas).segment(frame))

    def separate_objects(self, frame: Frame, *, alike: bool = True) -> Masks:
        """The proposals of a frame that are its separate objects, best first; none where nothing
        stands out. See :mod:`sam_detect.labelling.separate`.

        Args:
            alike: only the largest group of those that resemble each other.
        """
        masks = self.propose(frame)
        if not alike:
            return masks[separate_objects(masks)]
        similarity = self._maker.embedder.prior_similarity
        kept = separate_objects(masks, lambda some: self.embed(frame, some), similarity=similarity)
        return masks[kept]

    def plausible(self, masks: Masks) -> IntArray:
        """Indices of the masks that are of a size which something in the library could have.

        Whatever is far larger or smaller than every example stays unknown; few of those are
        left to be described once there is one detection per object.
        """
        return plausible(masks, self.library)

    def describe(
        self,
        frame: Frame,
        masks: Masks,
        *,
        kept: KeptVectors | None = None,
        timings_ms: dict[str, float] | None = None,
    ) -> Candidates:
        """Proposals with the vectors of those that are :meth:`plausible`.

        Args:
            kept, timings_ms: as of :meth:`embed`.
        """
        described = self.plausible(masks)
        vectors = self.embed(frame, masks[described], kept=kept, timings_ms=timings_ms)
        return Candidates(frame, masks, vectors, described)

    def embed(
        self,
        frame: Frame,
        masks: Masks,
        *,
        kept: KeptVectors | None = None,
        timings_ms: dict[str, float] | None = None,
    ) -> FloatArray:
        """``(N, D)`` float32 unit vectors of masks of a frame, in this detector's recipe.

        Args:
            kept: knows vectors that need not be made again.
            timings_ms: gets the milliseconds of ``fade`` and ``embed`` added.
        """
        return self._maker.of_frame(frame, masks, kept=kept, timings_ms=timings_ms)

    def taught(self, frame: Frame) -> Taught:
        """What the library's examples say of this very picture."""
        return taught_in(frame, self.library)

    def name(
        self,
        candidates: Candidates,
        *,
        taught: Taught | None = None,
        light_of: str | None = None,
    ) -> Detections:
        """Names candidates by their vectors, and keeps one for each object.

        Args:
            taught: :meth:`taught` of the candidates' frame: these outlines are found as they were
                taught. Without it, as evaluation asks, only what is recognised is found.
            light_of: digest of a picture that was taken from the same place in the same light;
                None for the candidates' own.
        """
        picture = taught.picture if taught else image_digest(candidates.frame.image_rgb)
        kept, verdicts = self._naming.name(
            self.library, candidates, source=light_of or picture, taught=taught
        )
        return Detections(candidates.frame.source_id, kept, tuple(verdicts), self.recipe.to_dict())

    def compare_unknown(
        self,
        frame: Frame,
        named: Detections,
        *,
        kept: KeptVectors | None = None,
        timings_ms: dict[str, float] | None = None,
    ) -> Detections:
        """What :meth:`name` gave, where also those that were not described say what is nearest.

        Args:
            kept, timings_ms: as of :meth:`embed`.
        """

        def embed(masks: Masks) -> FloatArray:
            return self.embed(frame, masks, kept=kept, timings_ms=timings_ms)

        return self._naming.with_neighbours(self.library, named, embed=embed)

    @property
    def _proposer(self) -> str:
        return parts.name_of("segmenter", self.segmenter)

    def _use(self, maker: VectorMaker, library: Library) -> None:
        library.read_as(maker)
        self._maker, self.library = maker, library
        library.prior_similarity = maker.embedder.prior_similarity
        library.scene_weights = maker.embedder.scene_weights()
        self._naming = Naming(self.labeller, self._proposer)


def _warn_of_what_is_too_small(frame: Frame, segmenter: Segmenter, smallest: int) -> None:
    """Says where objects of the size of the smallest example are lost in this picture.

    Args:
        smallest: pixels of that example.
    """
    least = segmenter.smallest_area(frame.size_hw)
    if smallest >= least:
        return
    height, width = frame.size_hw
    seen = smallest * segmenter.worked_pixels(frame.size_hw) / (height * width)
    warnings.warn(
        f"{frame.source_id}: in a picture of {width}x{height} pixels, objects of fewer than about "
        f"{math.ceil(least)} pixels ({2 * math.sqrt(least / math.pi):.0f} across) are lost; the "
        f"smallest example has {smallest}, and {seen:.1f} in the picture as it is worked on: cut "
        "the picture into parts",
        stacklevel=2,
    )
