"""The detector as a method to evaluate, doing for each picture once what does not change."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sam_detect.detector import SAMDetect
from sam_detect.evaluation.methods import Found, Shown
from sam_detect.interfaces import Segmenter
from sam_detect.masks import FloatArray
from sam_detect.parts import name_of
from sam_detect.types import Frame, Masks

Proposals = tuple[Masks, dict[str, float]]
Vectors = tuple[FloatArray, dict[str, float]]


@dataclass(frozen=True)
class Memory:
    """What was made of each picture and the seconds it took: by segmenter, and by recipe too."""

    proposals: dict[tuple[str, str], Proposals] = field(default_factory=dict)
    vectors: dict[tuple[str, str, str], Vectors] = field(default_factory=dict)


@dataclass(frozen=True)
class Remembering(Segmenter):
    """Gives the proposals that are known already."""

    propose: Callable[[Frame], Masks]

    def segment(self, frame: Frame) -> Masks:
        return self.propose(frame)


class Pipeline:
    """Segmenter, fade, embedder and labeller of a detector, with an empty library per episode.

    Proposals and vectors of a picture are made once and kept for all episodes, since neither
    depends on the examples; their time is counted in every episode all the same.

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

    def learn(self, support: Sequence[Shown]) -> None:
        self._detector = self._template.with_empty_library(Remembering(self.propose))
        for shown in support:
            self._detector.learn_frame(shown.frame, shown.masks, shown.labels)

    def find(self, frame: Frame) -> Found:
        masks, proposing = self._proposals(frame)
        vectors, embedding = self._vectors(frame)
        started = time.perf_counter()
        detections = self._detector.name(frame, masks, vectors)
        seconds = {**proposing, **embedding, "label": time.perf_counter() - started}
        return Found(
            masks=detections.masks,
            labels=tuple(detections.label.tolist()),
            scores=np.asarray(detections.confidence, np.float32),
            proposals=masks,
            seconds=seconds,
        )

    def describe(self) -> dict[str, Any]:
        return self._template.recipe.to_dict()

    def propose(self, frame: Frame) -> Masks:
        """The proposals of a picture."""
        return self._proposals(frame)[0]

    def vectors(self, frame: Frame) -> FloatArray:
        """``(N, D)``: the vectors of :meth:`propose`."""
        return self._vectors(frame)[0]

    def embed(self, frame: Frame, masks: Masks) -> FloatArray:
        """``(N, D)`` vectors of any masks of a picture."""
        return self._template.embed(frame, masks)

    def _proposals(self, frame: Frame) -> Proposals:
        key = (self._segmenter, frame.source_id)
        if key not in self._memory.proposals:
            started = time.perf_counter()
            masks = self._template.segmenter.segment(frame)
            self._memory.proposals[key] = masks, {"propose": time.perf_counter() - started}
        return self._memory.proposals[key]

    def _vectors(self, frame: Frame) -> Vectors:
        key = (self._segmenter, self._recipe, frame.source_id)
        if key not in self._memory.vectors:
            spent: dict[str, float] = {}
            vectors = self._template.embed(frame, self.propose(frame), timings_ms=spent)
            seconds = {stage: value / 1000 for stage, value in spent.items()}
            self._memory.vectors[key] = vectors, seconds
        return self._memory.vectors[key]
