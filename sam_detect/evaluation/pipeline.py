"""The pipeline as a method to evaluate: what does not change from episode to episode is cached."""

from __future__ import annotations

import json
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from sam_detect.evaluation.methods import Predictions, SupportImage
from sam_detect.features.extraction import STAGES, FeatureExtractor, KnownVectors
from sam_detect.interfaces import Segmenter
from sam_detect.labelling.similarity import unit_mean
from sam_detect.library.library import Library
from sam_detect.pipeline import tiling
from sam_detect.pipeline.flow import Pipeline
from sam_detect.registry import load_class
from sam_detect.segmentation import prompted
from sam_detect.types import ExampleArrays, Frame, Hints, Masks
from sam_detect.types.masks import FloatArray, IntArray


class FrameVectors(NamedTuple):
    """The vectors of one frame's masks in one recipe, ``(D,)`` by box and run lengths, and the
    seconds spent on them, by stage."""

    by_mask: dict[tuple[Any, ...], FloatArray]
    seconds: dict[str, float]


@dataclass(frozen=True)
class EvaluationCache:
    """What was computed of the pictures of a dataset, shared by the variants of a sweep.

    Attributes:
        proposals: with the seconds they took, by segmenter, the pixels of a frame, and how it was
            proposed.
        vectors: by recipe and the pixels of a frame.
    """

    proposals: dict[tuple[Any, ...], tuple[Masks, float]] = field(default_factory=dict)
    vectors: dict[tuple[str, str], FrameVectors] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class CachedFeatures(FeatureExtractor):
    """Embeds each mask of a frame once."""

    vectors: dict[tuple[str, str], FrameVectors] = field(default_factory=dict)

    def embed_masks(
        self,
        frame: Frame,
        masks: Masks,
        *,
        known: KnownVectors | None = None,
        timings_ms: dict[str, float] | None = None,
    ) -> FloatArray:
        """As :class:`FeatureExtractor` does; timings are those of so many vectors when made."""
        recipe = json.dumps(self.recipe.to_dict(), sort_keys=True)
        none = FrameVectors({}, dict.fromkeys(STAGES, 0.0))
        kept = self.vectors.setdefault((recipe, frame.digest), none)
        keys = [
            (*box, rle) for box, rle in zip(masks.boxes_xyxy.tolist(), masks.crop_rles, strict=True)
        ]
        missing = [index for index, key in enumerate(keys) if key not in kept.by_mask]
        spent: dict[str, float] = {}
        new = super().embed_masks(frame, masks[missing], known=known, timings_ms=spent)
        for index, vector in zip(missing, new, strict=True):
            kept.by_mask[keys[index]] = vector
        for stage, milliseconds in spent.items():
            kept.seconds[stage] += milliseconds / 1000
        if timings_ms is not None:
            share = len(keys) / max(1, len(kept.by_mask))
            for stage, seconds in kept.seconds.items():
                timings_ms[stage] = timings_ms.get(stage, 0.0) + seconds * 1000 * share
        if not keys:
            return np.zeros((0, self.embedder.dimension), np.float32)
        return np.stack([kept.by_mask[key] for key in keys])


class PipelineMethod:
    """A pipeline's parts, with an empty library in memory for each episode.

    Proposals and vectors do not depend on the examples (but for their sizes, if the segmenter is
    fitted to them), so they are made once; their time is counted in every episode all the same.

    Args:
        pipeline: whose parts are measured; its library is left alone.
        cache: shared by the methods of a sweep.

    Attributes:
        pipeline: with the library that :meth:`learn` made; :meth:`find` follows what it learns.
    """

    name = "sam-detect"

    def __init__(self, pipeline: Pipeline, cache: EvaluationCache | None = None) -> None:
        cache = cache or EvaluationCache()
        self._given, self._made, given = pipeline, cache.proposals, pipeline.features
        self._key = json.dumps([pipeline.segmenter_name, vars(pipeline.segmenter)], default=repr)
        self._spent: list[float] = []  # seconds of the proposals that were asked for last
        self._features = CachedFeatures(
            given.embedder,
            given.fade,
            occupancy=given.occupancy,
            crop_side=given.crop_side,
            vectors=cache.vectors,
        )
        self.pipeline = self._with_empty_library()

    def learn(self, support: Sequence[SupportImage]) -> None:
        self.pipeline = self._with_empty_library()
        for shown in support:
            self.pipeline.learn(shown.frame, shown.masks, shown.labels, others=shown.others)

    def find(self, frame: Frame, *, recall_taught: bool = False) -> Predictions:
        """Detects and labels the objects of a query picture.

        Args:
            recall_taught: as of :meth:`~sam_detect.pipeline.flow.Pipeline.detect`.
        """
        snapshot = self.pipeline.snapshot()
        spent: dict[str, float] = {}
        self._spent.clear()
        # An evaluation of hundreds of pictures does not warn about each.
        proposed = self.pipeline.propose(frame, snapshot, timings_ms=spent, warn=False)
        detections = self.pipeline.detect(
            frame,
            snapshot=snapshot,
            proposed=proposed if self.pipeline.scale is None else None,
            recall_taught=recall_taught,
            explain_unknown=False,
        )
        for stage, milliseconds in detections.timings_ms.items():
            spent[stage] = spent.get(stage, 0.0) + milliseconds
        seconds = {stage: milliseconds / 1000 for stage, milliseconds in spent.items()}
        seconds["propose"] = sum(self._spent)
        return Predictions(
            masks=detections.masks,
            labels=tuple(detections.label.tolist()),
            scores=np.asarray(detections.confidence, np.float32),
            proposals=proposed.masks,
            seconds=seconds,
            similarities=_similarities(proposed.vectors, snapshot.examples()),
        )

    def describe(self) -> dict[str, Any]:
        return self._features.recipe.to_dict()

    def propose(self, frame: Frame) -> Masks:
        """The proposals of a picture, for objects of any size."""
        return self.pipeline.all_proposals(frame)

    def outline(self, frame: Frame, boxes_xywh: Sequence[Sequence[float]]) -> Masks:
        """The masks that a user's boxes in a picture would get."""
        segmenter, propose = self._given.segmenter, self.pipeline.all_proposals
        return prompted.outline(frame, segmenter, propose=propose, boxes_xywh=boxes_xywh).masks

    def embed(self, frame: Frame, masks: Masks) -> FloatArray:
        """``(N, D)`` vectors of any masks of a picture."""
        return self._features.embed_masks(frame, masks)

    def _with_empty_library(self) -> Pipeline:
        library = Library(load_class("store", "memory")(), "evaluation")
        return self._given.with_parts(self._features, library, propose=self._proposed)

    def _proposed(
        self, frame: Frame, segmenter: Segmenter, hints: Hints, *, tile: int, near: IntArray | None
    ) -> Masks:
        """As :func:`sam_detect.pipeline.tiling.propose`, but once for each frame, unless its
        proposals follow the examples of one episode; counts the seconds it took when it did."""
        plan = tuple(tiling.levels(frame.size_hw, segmenter, hints, tile))
        areas = hints.areas if plan or "areas" in segmenter.uses else None
        windows = near.tobytes() if plan and near is not None else None
        key = self._key, frame.digest, plan, areas, windows
        follows = hints.similarity is not None or bool(hints.crops)
        made = None if follows else self._made.get(key)
        if made is None:
            started = time.perf_counter()
            masks = tiling.propose(frame, segmenter, hints, tile=tile, near=near)
            made = masks, time.perf_counter() - started
            if not follows:
                self._made[key] = made
        self._spent.append(made[1])
        return made[0]


def _similarities(vectors: FloatArray, examples: ExampleArrays) -> FloatArray:
    """Of ``(M, D)`` vectors, each to the nearest mean of a label's examples."""
    positive = ~np.asarray(examples.negatives, bool)
    labels = np.array(examples.labels, dtype=object)
    found = [unit_mean(examples.vectors[positive & (labels == n)]) for n in {*labels[positive]}]
    return (vectors @ np.stack(found).T).max(axis=1) if found else np.zeros(0, np.float32)
