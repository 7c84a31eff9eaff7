"""The stages of one frame with five objects on a GPU, beside the times that are to be beaten."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any
from uuid import UUID

import cv2
import numpy as np
import torch

from sam_detect.bench import workload as pictures
from sam_detect.bench.measurements import Measurements
from sam_detect.bench.sam2 import Workload
from sam_detect.bench.sam2_compared import PASSING, Compared, thresholds
from sam_detect.bench.timing import Series, Trial
from sam_detect.detector import SAMDetect
from sam_detect.embedding.sam2 import SAM2Embedder
from sam_detect.models.running import precision
from sam_detect.segmentation.sam2 import SAM2Segmenter
from sam_detect.types import Frame, Point
from sam_detect.vector_store import MemoryVectorStore

OBJECTS = 5
LIBRARY = 1000
"""Vectors among which neighbours are searched."""
TO_BEAT = {
    "frame_segment_ms": (45, 50),
    "frame_embed_ms_per_object": (10, 10),
    "frame_total_ms": (150, 100),
}
"""Milliseconds that were stated of the pipeline before this one, on an RTX 4090; and the aim."""
FEWEST = 5
"""Frames that are looked at: single ones on a GPU differ by more than what is compared."""


def measure_frame(measurements: Measurements, compared: Compared, workload: Workload) -> None:
    """Adds the stages ``frame_...``, what they are to be compared with, and the pair
    ``frame_segment_vs_official``: both in the precision that the device does best.
    ``frame_segment`` finds everything; ``frame_segment_5_points`` asks at the places of five known
    objects, as in a video.

    Every run sees a frame that was not seen before: nothing of it is known.
    """
    new = _frames(workload.frame_hw)
    options = {**thresholds(compared, new(), workload.per_side, passing=PASSING)}
    segmenter = compared.segmenter(options, dtype="auto", max_proposals=OBJECTS)
    embedder = SAM2Embedder(compared.loaded, dtype="auto")
    frame = new()
    detector = _detector(segmenter, embedder, frame)
    points = detector.propose(frame).prompts_xy.tolist()
    measurements.announce("a frame of 5 objects, stage by stage")
    stages = _stages(detector, new, max(FEWEST, measurements.repeat))
    for name, durations in stages.items():
        measurements.add_stage(name, Series(name, tuple(durations)))
    prompted, search, ours, official = measurements.interleave(
        [
            Trial(
                "frame_segment_5_points",
                lambda frame: segmenter.segment_points(frame, points),
                prepare=new,
            ),
            Trial("frame_search_5_of_1000", _search(embedder.dimension)),
            Trial("ours", segmenter.segment, prepare=new),
            Trial("official", _official(compared, segmenter.dtype, options), prepare=new),
        ],
        FEWEST,
    )
    for series in (prompted, search):
        measurements.add_stage(series.name, series)
    measurements.add_pair("frame_segment_vs_official", ours, official)
    _compare(measurements, len(detector.detect_frame(new())))


def _compare(measurements: Measurements, objects: int) -> None:
    found = {name: stage["median_ms"] for name, stage in measurements.stages.items()}
    reached = {
        "frame_segment_ms": found["frame_segment"],
        "frame_embed_ms_per_object": found["frame_embed"] / max(1, objects),
        "frame_total_ms": found["frame_total"],
    }
    measurements.figures["frame_objects"] = objects
    for name, (stated, aim) in TO_BEAT.items():
        measurements.figures[name] = round(reached[name], 3)
        measurements.figures[f"{name}_stated_before"] = stated
        measurements.figures[f"{name}_aim"] = aim


def _detector(segmenter: SAM2Segmenter, embedder: SAM2Embedder, frame: Frame) -> SAMDetect:
    """Has learnt the objects of a frame that resembles those to come."""
    detector = SAMDetect(
        segmenter, embedder, "gaussian", vector_store=MemoryVectorStore(), color_order="rgb"
    )
    masks = detector.propose(frame)
    detector.learn_frame(frame, masks, [f"kind {i % 2}" for i in range(len(masks))])
    return detector


def _stages(detector: SAMDetect, new: Callable[[], Frame], frames: int) -> dict[str, list[float]]:
    """The milliseconds of each stage, for each of some frames after one to warm up.

    Every stage ends with numbers on the host, so that none ends before the GPU has done its work.
    """
    names = {"propose": "frame_segment", "fade": "frame_fade", "embed": "frame_embed",
             "label": "frame_label"}  # fmt: skip
    detector.detect_frame(new())
    spent = [dict(detector.detect_frame(new()).timings_ms) for _ in range(frames)]
    stages = {name: [each.get(stage, 0.0) for each in spent] for stage, name in names.items()}
    return {**stages, "frame_total": [sum(each.values()) for each in spent]}


def _search(dimension: int) -> Callable[[Any], Any]:
    generator = np.random.default_rng(0)
    vectors = generator.normal(size=(LIBRARY + OBJECTS, dimension)).astype(np.float32)
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    store = MemoryVectorStore()
    store.upsert(
        [Point(str(UUID(int=i)), vector, {}) for i, vector in enumerate(vectors[OBJECTS:])]
    )
    return lambda _: store.search(vectors[:OBJECTS], OBJECTS)


def _official(
    compared: Compared, dtype: torch.dtype, options: dict[str, Any]
) -> Callable[[Frame], Any]:
    generator = compared.official(options)

    def generate(frame: Frame) -> Any:
        with torch.inference_mode(), precision(compared.device, dtype):
            return generator.generate(frame.image_rgb)

    return generate


def _frames(size_hw: tuple[int, int]) -> Callable[[], Frame]:
    """Gives the same picture with other pixels in a corner each time."""
    drawn = cv2.resize(pictures.drawn(), size_hw[::-1], interpolation=cv2.INTER_AREA)
    made = 0

    def new() -> Frame:
        nonlocal made
        made += 1
        image = np.asarray(drawn, np.uint8).copy()
        image[0, 0] = made % 256, made // 256 % 256, 0
        return Frame(image, "drawn")

    return new
