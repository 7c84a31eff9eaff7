"""The detector as a method to evaluate, doing for each picture once what does not change."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np

from sam_detect.detector import SAMDetect
from sam_detect.evaluation.methods import Found, Shown
from sam_detect.interfaces import Segmenter
from sam_detect.labelling.sizes import areas_sought
from sam_detect.masks import BoolArray, FloatArray, IntArray
from sam_detect.parts import name_of
from sam_detect.segmentation import prompted
from sam_detect.types import Candidates, Frame, Masks, Taught

Proposals = tuple[Masks, dict[str, float]]
Areas = tuple[int, int] | None


@dataclass
class Described:
    """The vectors of a picture's proposals, as far as they were asked for.

    Attributes:
        vectors: ``(N, D)``.
        known: ``(N,)`` bool, which of them were made.
        seconds: that took, per stage.
    """

    vectors: FloatArray
    known: BoolArray
    seconds: dict[str, float]


@dataclass(frozen=True)
class Memory:
    """What was made of each picture and the seconds it took: by segmenter (with the areas sought,
    where it goes by them), and by recipe too."""

    proposals: dict[tuple[str, Areas, str], Proposals] = field(default_factory=dict)
    vectors: dict[tuple[str, str, Areas, str], Described] = field(default_factory=dict)


@dataclass(frozen=True)
class Remembering(Segmenter):
    """Gives the proposals that are known already."""

    propose: Callable[[Frame, Areas], Masks]
    areas: Areas = None

    def for_areas(self, areas: Areas) -> Remembering:
        return replace(self, areas=areas)

    def segment(self, frame: Frame) -> Masks:
        return self.propose(frame, self.areas)


class Pipeline:
    """Segmenter, fade, embedder and labeller of a detector, with an empty library per episode.

    Proposals and vectors of a picture are made once and kept for all episodes, since neither
    depends on the examples (but for the sizes of these, where the segmenter goes by them); their
    time is counted in every episode all the same.

    Args:
        detector: whose parts to use; its library is left alone.
        memory: shared by the pipelines of a sweep.
    """

    name = "sam-detect"

    def __init__(self, detector: SAMDetect, memory: Memory | None = None) -> None:
        self._template = detector
        self._detector = detector.with_empty_library()
        self._memory = memory or Memory()
        self._segmenter = json.dumps(
            [name_of("segmenter", detector.segmenter), vars(detector.segmenter)], default=repr
        )
        self._recipe = json.dumps(detector.recipe.to_dict(), sort_keys=True)

    @property
    def max_pixels(self) -> int:
        """The detector refuses larger pictures."""
        return self._template.settings.max_image_pixels

    @property
    def detector(self) -> SAMDetect:
        """What :meth:`learn` taught: :meth:`find` follows what it learns besides."""
        return self._detector

    def learn(self, support: Sequence[Shown]) -> None:
        self._detector = self._template.with_empty_library(Remembering(self.propose))
        for shown in support:
            self._detector.learn_frame(shown.frame, shown.masks, shown.labels, others=shown.others)

    def find(self, frame: Frame, *, taught: Taught | None = None) -> Found:
        """Finds and names the objects of a query picture.

        Args:
            taught: as of :meth:`~sam_detect.finder.Finder.name`.
        """
        sought = areas_sought(self._detector.library.examples())
        masks, proposing = self._proposals(frame, sought)
        started = time.perf_counter()
        plausible = self._detector.plausible(masks)
        labelling = time.perf_counter() - started
        vectors, embedding = self._described(frame, plausible, sought)
        started = time.perf_counter()
        detections = self._detector.name(
            Candidates(frame, masks, vectors, plausible), taught=taught
        )
        labelling += time.perf_counter() - started
        seconds = {**proposing, **embedding, "label": labelling}
        return Found(
            masks=detections.masks,
            labels=tuple(detections.label.tolist()),
            scores=np.asarray(detections.confidence, np.float32),
            proposals=masks,
            seconds=seconds,
        )

    def describe(self) -> dict[str, Any]:
        return self._template.recipe.to_dict()

    def propose(self, frame: Frame, areas: Areas = None) -> Masks:
        """The proposals of a picture, where objects of these areas are sought."""
        return self._proposals(frame, areas)[0]

    def outline(self, frame: Frame, boxes_xywh: Sequence[Sequence[float]]) -> Masks:
        """What a user's boxes in a picture would be taken for."""
        segmenter = self._template.segmenter
        return prompted.outline(frame, segmenter, propose=self.propose, boxes_xywh=boxes_xywh).masks

    def vectors(self, frame: Frame, indices: IntArray) -> FloatArray:
        """``(n, D)``: the vectors of some of :meth:`propose`."""
        return self._described(frame, indices)[0]

    def embed(self, frame: Frame, masks: Masks) -> FloatArray:
        """``(N, D)`` vectors of any masks of a picture."""
        return self._template.embed(frame, masks)

    def _sized(self, areas: Areas) -> tuple[Segmenter, Areas]:
        """The segmenter for areas, and these if they matter to it."""
        segmenter = self._template.segmenter
        sized = segmenter.for_areas(areas)
        return sized, None if sized is segmenter else areas

    def _proposals(self, frame: Frame, areas: Areas) -> Proposals:
        segmenter, areas = self._sized(areas)
        key = (self._segmenter, areas, frame.source_id)
        if key not in self._memory.proposals:
            started = time.perf_counter()
            masks = segmenter.segment(frame)
            self._memory.proposals[key] = masks, {"propose": time.perf_counter() - started}
        return self._memory.proposals[key]

    def _described(
        self, frame: Frame, indices: IntArray, areas: Areas = None
    ) -> tuple[FloatArray, dict[str, float]]:
        """Vectors of some proposals, and the seconds that so many take."""
        masks = self.propose(frame, areas)
        key = (self._segmenter, self._recipe, self._sized(areas)[1], frame.source_id)
        if key not in self._memory.vectors:
            none = np.zeros((len(masks), self._template.recipe.dimension), np.float32)
            self._memory.vectors[key] = Described(none, np.zeros(len(masks), np.bool_), {})
        kept = self._memory.vectors[key]
        missing = indices[~kept.known[indices]]
        spent: dict[str, float] = {}
        kept.vectors[missing] = self._template.embed(frame, masks[missing], timings_ms=spent)
        kept.known[missing] = True
        for stage, value in spent.items():
            kept.seconds[stage] = kept.seconds.get(stage, 0.0) + value / 1000
        share = len(indices) / max(1, int(kept.known.sum()))
        seconds = {stage: value * share for stage, value in kept.seconds.items()}
        return kept.vectors[indices], seconds
