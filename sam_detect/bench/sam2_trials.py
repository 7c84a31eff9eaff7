"""What the suite ``sam2`` runs: ours and Meta's own code on one checkpoint of random weights, and
on a GPU the stages of one frame with five objects, with the times that are to be reached."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any
from uuid import UUID

import cv2
import numpy as np
import torch
from torch import Tensor

from sam_detect.api import SAMDetect
from sam_detect.bench.measurements import Measurements, Series, Trial
from sam_detect.bench.memory import PeakDeviceMemory
from sam_detect.bench.sam2_compared import (
    PASSING,
    Compared,
    measure_embedding,
    new_frames,
    picture,
    same_share,
    thresholds,
)
from sam_detect.bench.sam2_workload import Workload
from sam_detect.bench.stages import drawn
from sam_detect.embedding.sam2 import SAM2Embedder
from sam_detect.models.running import precision, resolve_device
from sam_detect.models.sam2 import seeded_sam2
from sam_detect.segmentation._sam2_decoder import FastDecoder
from sam_detect.segmentation._sam2_model import (
    THREE_MASKS,
    UPSCALED_AT_ONCE,
    OfficialDecoder,
    PromptedModel,
    Prompts,
)
from sam_detect.segmentation.sam2 import CHUNKS, SAM2Segmenter
from sam_detect.types import Frame, Point
from sam_detect.vector_store import MemoryVectorStore

PROMPTS_ON_GPU = 16
"""So many times as many prompts of the decoder alone."""
OFFICIAL_BATCHES = (1, 2, 4, 8, 64)

Decoders = FastDecoder | OfficialDecoder
Options = dict[str, Any]


def measure(
    measurements: Measurements, workload: Workload, folder: Path, device: str = "cpu"
) -> None:
    """Measures every pair and figure of the suite; on a GPU, the stages of a frame, too."""
    where = resolve_device(device)
    path = folder / "seeded.pt"
    torch.save({"model": seeded_sam2(workload.config).state_dict()}, path)
    measurements.workload = (
        f"{Path(workload.config).stem}, random weights, {workload.per_side}x{workload.per_side} "
        f"points, {workload.picture_side} pixels, {_place(where, workload)}"
    )
    if where.type == "cuda":
        measurements.memory = PeakDeviceMemory
    with _threads(workload.threads):
        compared = Compared(path, workload.config, where)
        _decoders(measurements, compared, workload)
        _masks(measurements, compared, workload)
        _memory(measurements, compared, workload)
        embedded = workload.embedded if where.type == "cpu" else None
        measure_embedding(measurements, compared.loaded, sample=embedded)
        if where.type == "cpu":
            measurements.skipped.append(
                "the stages of a frame of 5 objects: they are for a GPU, and this ran on a CPU"
            )
        else:
            measure_frame(measurements, compared, workload)


def _place(device: torch.device, workload: Workload) -> str:
    return f"{workload.threads} threads" if device.type == "cpu" else f"on {device.type}"


def _masks(measurements: Measurements, compared: Compared, workload: Workload) -> None:
    """Automatic masks, in fp32 and bf16, against the official generator at its default batch."""
    frame = picture(workload.picture_side)
    options = thresholds(compared, frame, workload.per_side, passing=PASSING)
    measurements.skipped.append(
        "box NMS is off on both sides (threshold 1): random masks overlap, and few would be left"
    )
    results: dict[str, Any] = {}
    trials = [
        _kept(results, "fp32", compared.segmenter(options).segment, frame),
        _kept(results, "bf16", compared.segmenter(options, dtype="bf16").segment, frame),
        _kept(results, "official", compared.official(options).generate, frame.image_rgb),
    ]
    _warm_up(compared, frame, options)
    measurements.announce("masks_vs_official")
    ours, bf16, official = measurements.accumulate(trials)
    measurements.add_pair("masks_vs_official", ours, official)
    measurements.add_pair("masks_bf16_vs_official", bf16, official)
    true = [each["segmentation"] for each in results["official"] if each["area"]]
    found, coarse = results["fp32"], results["bf16"]
    asked = len({tuple(point) for point in found.prompts_xy.tolist()}) / workload.per_side**2
    measurements.figures |= {
        "prompts_passing_share": round(asked, 4),
        "masks_official": len(true),
        "masks_fp32": len(found),
        "masks_bf16": len(coarse),
        "masks_same_share": round(same_share(found, true), 4),
        "masks_bf16_same_share": round(same_share(coarse, true), 4),
    }


def _decoders(measurements: Measurements, compared: Compared, workload: Workload) -> None:
    """The decoder alone, nothing filtered, against the official one at its best batch size."""
    frame = picture(workload.picture_side)
    kind = compared.device.type
    count = workload.prompts * (1 if kind == "cpu" else PROMPTS_ON_GPU)
    model = PromptedModel(compared.model, dtype=torch.float32, chunk=CHUNKS[kind], fast=True)
    points = np.random.default_rng(0).uniform(0, workload.picture_side, (count, 2))
    with torch.inference_mode():
        features = model.encode([frame.image_rgb])[0]
        sparse, _ = model.embed(Prompts.at(points.astype(np.float32)), frame.size_hw)
    ours, official = FastDecoder(compared.model), OfficialDecoder(compared.model)
    sizes = [size for size in OFFICIAL_BATCHES if size <= count]
    trials = [_decoding(official, features, sparse, size) for size in sizes]
    measurements.announce("decoder_vs_official")
    for trial in trials:
        trial.once()
    tried = measurements.accumulate(trials)
    best = int(np.argmin([series.median_ms for series in tried]))
    mine, theirs = measurements.interleave(
        [_decoding(ours, features, sparse, model.chunk), trials[best]], 3
    )
    measurements.add_pair("decoder_vs_official", mine, theirs)
    measurements.figures |= {
        "decoder_ms_per_prompt": round(mine.median_ms / count, 3),
        "official_decoder_ms_per_prompt": round(theirs.median_ms / count, 3),
        "official_decoder_best_batch": sizes[best],
    }


def _memory(measurements: Measurements, compared: Compared, workload: Workload) -> None:
    """Peak memory of a large picture with many masks, above what the loaded model takes."""
    frame = picture(workload.large_side)
    per_side = workload.large_per_side
    share = workload.large_masks / (3 * per_side**2)
    options = {**thresholds(compared, frame, per_side, passing=share, each=True),
               "stability_score_thresh": 0.0}  # fmt: skip
    results: dict[str, Any] = {}
    trials = [
        _kept(results, "ours", compared.segmenter(options).segment, frame),
        _kept(results, "official", compared.official(options).generate, frame.image_rgb),
    ]
    measurements.announce("memory_vs_official")
    ours, official = measurements.accumulate(trials, 1)
    measurements.add_pair("memory_vs_official", ours, official, of="memory")
    measurements.figures["large_picture_masks"] = len(results["ours"])


def _warm_up(compared: Compared, frame: Frame, options: Options) -> None:
    few = {**options, "points_per_side": 2, "stability_score_thresh": 0.0, "pred_iou_thresh": 0.0}
    compared.segmenter(few).segment(frame)
    compared.segmenter(few, dtype="bf16").segment(frame)
    compared.official(few).generate(frame.image_rgb)


def _kept(results: dict[str, Any], name: str, run: Callable[[Any], Any], argument: Any) -> Trial:
    """A trial that keeps what it made last."""
    return Trial(name, lambda _: run(argument), finish=lambda made: results.__setitem__(name, made))


def _decoding(decoder: Decoders, features: Any, sparse: Tensor, batch: int) -> Trial:
    """All masks of all prompts, as many at once as ``batch``."""
    drawn = UPSCALED_AT_ONCE[sparse.device.type]

    @torch.inference_mode()
    def decode(_: Any) -> None:
        frame = decoder.prepare(features)
        for start in range(0, len(sparse), batch):
            prompts = sparse[start : start + batch]
            decoded = decoder.decode(frame, prompts, masks=None, tokens=THREE_MASKS)  # type: ignore[arg-type]
            numbers = range(len(prompts))
            for first in range(0, len(prompts), drawn):
                decoded.mask_logits(numbers[first : first + drawn])

    return Trial(f"{type(decoder).__name__} by {batch}", decode)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)


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
    resized = cv2.resize(drawn(), workload.frame_hw[::-1], interpolation=cv2.INTER_AREA)
    new = new_frames(Frame(np.asarray(resized, np.uint8), "drawn"))
    options = {**thresholds(compared, new(), workload.per_side, passing=PASSING)}
    segmenter = compared.segmenter(options, dtype="auto", max_proposals=OBJECTS)
    embedder = SAM2Embedder(compared.loaded, dtype="auto")
    frame = new()
    detector = _detector(segmenter, embedder, frame)
    points = detector.pipeline.all_proposals(frame).prompts_xy.tolist()
    measurements.announce("a frame of 5 objects, stage by stage")
    stages = _stages(detector, new, max(FEWEST, measurements.repeat))
    for name, durations in stages.items():
        measurements.stages[name] = Series(name, tuple(durations)).to_dict()
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
        measurements.stages[series.name] = series.to_dict()
    measurements.add_pair("frame_segment_vs_official", ours, official)
    _compare(measurements, len(detector.detect(new())))


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
    masks = detector.pipeline.all_proposals(frame)
    detector.learn_frame(frame, masks, [f"kind {i % 2}" for i in range(len(masks))])
    return detector


def _stages(detector: SAMDetect, new: Callable[[], Frame], frames: int) -> dict[str, list[float]]:
    """The milliseconds of each stage, for each of some frames after one to warm up.

    Every stage ends with numbers on the host, so that none ends before the GPU has done its work.
    """
    names = {"propose": "frame_segment", "fade": "frame_fade", "embed": "frame_embed",
             "label": "frame_label"}  # fmt: skip
    detector.detect(new())
    spent = [dict(detector.detect(new()).timings_ms) for _ in range(frames)]
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
