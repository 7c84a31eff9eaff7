"""The detector as a method to evaluate, doing for each picture once what does not change."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from sam_detect.detector import SAMDetect
from sam_detect.evaluation.methods import Found, Shown
from sam_detect.masks import FloatArray
from sam_detect.types import Frame, Masks


@dataclass
class Remembered:
    """What was made of one picture, and the seconds that it took.

    Attributes:
        masks: the proposals.
        vectors: their vectors.
        seconds: per stage.
    """

    masks: Masks
    vectors: FloatArray
    seconds: dict[str, float] = field(default_factory=dict)


class Pipeline:
    """Segmenter, fade, embedder and labeller of a detector, with an empty library per episode.

    Proposals and vectors of a picture are made once and kept for all episodes, since neither
    depends on the examples; their time is counted in every episode all the same.
    """

    name = "sam-detect"

    def __init__(self, detector: SAMDetect) -> None:
        self._template = detector
        self._detector = detector.with_empty_library()
        self._pictures: dict[str, Remembered] = {}

    def learn(self, support: Sequence[Shown]) -> None:
        self._detector = self._template.with_empty_library()
        for shown in support:
            self._detector.learn_frame(shown.frame, shown.masks, shown.labels)

    def find(self, frame: Frame) -> Found:
        known = self._remembered(frame)
        started = time.perf_counter()
        detections = self._detector.name(frame, known.masks, known.vectors)
        seconds = {**known.seconds, "label": time.perf_counter() - started}
        return Found(
            masks=detections.masks,
            labels=tuple(detections.label.tolist()),
            scores=np.asarray(detections.confidence, np.float32),
            proposals=known.masks,
            seconds=seconds,
        )

    def describe(self) -> dict[str, Any]:
        return self._template.recipe.to_dict()

    def propose(self, frame: Frame) -> Masks:
        """The proposals of a picture."""
        return self._remembered(frame).masks

    def _remembered(self, frame: Frame) -> Remembered:
        if frame.source_id not in self._pictures:
            started = time.perf_counter()
            masks = self._template.segmenter.segment(frame)
            spent = time.perf_counter() - started
            milliseconds: dict[str, float] = {}
            vectors = self._template.embed(frame, masks, timings_ms=milliseconds)
            seconds = {name: value / 1000 for name, value in milliseconds.items()}
            self._pictures[frame.source_id] = Remembered(
                masks, vectors, {"propose": spent, **seconds}
            )
        return self._pictures[frame.source_id]
