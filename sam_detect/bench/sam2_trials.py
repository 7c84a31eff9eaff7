"""What the suite ``sam2`` runs: ours and the official code on one checkpoint of random weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from pycocotools import mask as coco_masks
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from sam_detect.bench import coverage
from sam_detect.bench import workload as pictures
from sam_detect.bench.measurements import Measurements
from sam_detect.bench.sam2 import Workload
from sam_detect.bench.sam2_embedding import measure_embedding
from sam_detect.bench.timing import Trial, accumulate, interleave
from sam_detect.models.sam2 import LoadedSAM2, load_sam2, seeded_sam2
from sam_detect.segmentation._sam2_decoder import FastDecoder
from sam_detect.segmentation._sam2_model import (
    THREE_MASKS,
    OfficialDecoder,
    PromptedModel,
    Prompts,
)
from sam_detect.segmentation.sam2 import SAM2Segmenter
from sam_detect.types import Frame, Masks

PASSING = 0.2
"""Share of the prompts that are to have a mask."""
PROBED_PER_SIDE = 8
"""Points along a side of the grid that thresholds are taken from."""
STABILITY_OFFSET = 0.1
"""Random logits are smaller than trained ones."""
OFFICIAL_BATCHES = (1, 2, 4, 8, 64)
SAME_IOU = 0.99

Decoders = FastDecoder | OfficialDecoder
Options = dict[str, Any]


class _Compared:
    """Ours and the official generator on one checkpoint.

    Args:
        path: the checkpoint; its config lies beside it or is ``config``.
    """

    def __init__(self, path: Path, config: str) -> None:
        self.path, self.config = path, config
        self.device = torch.device("cpu")
        self.model = load_sam2(path, config=config, device=self.device).model

    def segmenter(self, options: Options, **more: Any) -> SAM2Segmenter:
        return SAM2Segmenter(self.path, "cpu", config=self.config, **options, **more)

    def official(self, options: Options) -> SAM2AutomaticMaskGenerator:
        return official_generator(self.model, options)


def official_generator(model: SAM2Base, options: Options) -> SAM2AutomaticMaskGenerator:
    """Meta's own generator on a model of any size, giving COCO run lengths."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # its transforms are scripted
        made = SAM2AutomaticMaskGenerator(model, output_mode="coco_rle", **options)
    side = model.image_size
    made.predictor._bb_feat_sizes = [(side // each, side // each) for each in (4, 8, 16)]
    return made


def measure(measurements: Measurements, workload: Workload, folder: Path) -> None:
    """Measures every pair and figure of the suite."""
    path = folder / "seeded.pt"
    torch.save({"model": seeded_sam2(workload.config).state_dict()}, path)
    measurements.workload = (
        f"{Path(workload.config).stem}, random weights, {workload.per_side}x{workload.per_side} "
        f"points, {workload.picture_side} pixels, {workload.threads} threads"
    )
    with _threads(workload.threads):
        compared = _Compared(path, workload.config)
        _decoders(measurements, compared, workload)
        _masks(measurements, compared, workload)
        _memory(measurements, compared, workload)
        embedded = LoadedSAM2(model=compared.model, name="seeded", device=compared.device)
        measure_embedding(measurements, embedded, sample=workload.embedded)
    measurements.figures |= coverage.figures("drawn", coverage.drawn_scenes())


def _masks(measurements: Measurements, compared: _Compared, workload: Workload) -> None:
    """Automatic masks, in fp32 and bf16, beside the official generator at its default batch."""
    frame = picture(workload.picture_side)
    options = _options(compared, frame, workload.per_side, passing=PASSING)
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
    ours, bf16, official = accumulate(trials, measurements.repeat, clock=measurements.clock)
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


def _decoders(measurements: Measurements, compared: _Compared, workload: Workload) -> None:
    """The decoder alone, nothing filtered, beside the official one at its best batch size."""
    frame = picture(workload.picture_side)
    model = PromptedModel(compared.model, dtype=torch.float32, chunk=4, fast=True)
    points = np.random.default_rng(0).uniform(0, workload.picture_side, (workload.prompts, 2))
    with torch.inference_mode():
        features = model.encode([frame.image_rgb])[0]
        sparse, _ = model.embed(Prompts.at(points.astype(np.float32)), frame.size_hw)
    ours, official = FastDecoder(compared.model), OfficialDecoder(compared.model)
    sizes = [size for size in OFFICIAL_BATCHES if size <= workload.prompts]
    trials = [_decoding(official, features, sparse, size) for size in sizes]
    measurements.announce("decoder_vs_official")
    for trial in trials:
        trial.once()
    tried = accumulate(trials, measurements.repeat, clock=measurements.clock)
    best = int(np.argmin([series.median_ms for series in tried]))
    mine, theirs = interleave(
        [_decoding(ours, features, sparse, model.chunk), trials[best]],
        max(3, measurements.repeat),
        clock=measurements.clock,
    )
    measurements.add_pair("decoder_vs_official", mine, theirs)
    measurements.figures |= {
        "decoder_ms_per_prompt": round(mine.median_ms / workload.prompts, 3),
        "official_decoder_ms_per_prompt": round(theirs.median_ms / workload.prompts, 3),
        "official_decoder_best_batch": sizes[best],
    }


def _memory(measurements: Measurements, compared: _Compared, workload: Workload) -> None:
    """Peak memory of a large picture with many masks, above what the loaded model takes."""
    frame = picture(workload.large_side)
    per_side = workload.large_per_side
    share = workload.large_masks / (3 * per_side**2)
    options = {**_options(compared, frame, per_side, passing=share, each=True),
               "stability_score_thresh": 0.0}  # fmt: skip
    results: dict[str, Any] = {}
    trials = [
        _kept(results, "ours", compared.segmenter(options).segment, frame),
        _kept(results, "official", compared.official(options).generate, frame.image_rgb),
    ]
    measurements.announce("memory_vs_official")
    ours, official = accumulate(trials, 1, clock=measurements.clock)
    measurements.add_pair("memory_vs_official", ours, official, of="memory")
    measurements.figures["large_picture_masks"] = len(results["ours"])


def picture(side: int) -> Frame:
    """Drawn discs and squares, ``side`` pixels high and wide."""
    drawn = cv2.resize(pictures.drawn(), (side, side), interpolation=cv2.INTER_AREA)
    return Frame(np.asarray(drawn, np.uint8), "drawn")


def same_share(
    ours: Masks, true: Sequence[Mapping[str, Any]], *, least_iou: float = SAME_IOU
) -> float:
    """Share of the true masks (COCO RLEs) that ours has at an IoU of .99, or another, or more."""
    if not len(ours) or not true:
        return float(len(ours) == len(true))
    mine: list[Any] = [ours.rle(index) for index in range(len(ours))]
    theirs: list[Any] = list(true)
    overlaps = np.asarray(coco_masks.iou(mine, theirs, [0] * len(theirs)))
    return float((overlaps.max(axis=0) >= least_iou).mean())


def _options(
    compared: _Compared, frame: Frame, per_side: int, *, passing: float, each: bool = False
) -> Options:
    """Thresholds with which about a share of the prompts have a mask (or, with ``each``, about a
    share of all masks pass the predicted IoU), from what a coarse grid of them finds."""
    loose: Options = {
        "pred_iou_thresh": 0.0,
        "stability_score_thresh": 0.0,
        "stability_score_offset": STABILITY_OFFSET,
        "box_nms_thresh": 1.0,
    }
    found = compared.segmenter(loose, points_per_side=PROBED_PER_SIDE).segment(frame)
    ious, stabilities = found.predicted_ious, found.stabilities
    chosen = {**loose, "points_per_side": per_side}
    if each:
        return {**chosen, "pred_iou_thresh": float(np.quantile(ious, 1 - passing))}
    prompts = np.unique(found.prompts_xy, axis=0, return_inverse=True)[1].ravel()
    # Half of the prompts are to pass by their predicted IoU, and of these so many by stability.
    best = np.array([ious[prompts == number].max() for number in range(prompts.max() + 1)])
    least_iou = float(np.quantile(best, 0.5))
    steady = np.where(ious > least_iou, stabilities, 0)
    most = np.array([steady[prompts == number].max() for number in range(prompts.max() + 1)])
    least_stability = float(np.quantile(most, 1 - passing))
    return {**chosen, "pred_iou_thresh": least_iou, "stability_score_thresh": least_stability}


def _warm_up(compared: _Compared, frame: Frame, options: Options) -> None:
    few = {**options, "points_per_side": 2, "stability_score_thresh": 0.0, "pred_iou_thresh": 0.0}
    compared.segmenter(few).segment(frame)
    compared.segmenter(few, dtype="bf16").segment(frame)
    compared.official(few).generate(frame.image_rgb)


def _kept(results: dict[str, Any], name: str, run: Callable[[Any], Any], argument: Any) -> Trial:
    """A trial that keeps what it made last."""
    return Trial(name, lambda _: run(argument), finish=lambda made: results.__setitem__(name, made))


def _decoding(decoder: Decoders, features: Any, sparse: Tensor, batch: int) -> Trial:
    """All masks of all prompts, as many at once as ``batch``."""

    @torch.inference_mode()
    def decode(_: Any) -> None:
        frame = decoder.prepare(features)
        for start in range(0, len(sparse), batch):
            prompts = sparse[start : start + batch]
            undrawn = decoder.decode(frame, prompts, masks=None, tokens=THREE_MASKS)  # type: ignore[arg-type]
            for number in range(len(prompts)):
                undrawn.draw(number)

    return Trial(f"{type(decoder).__name__} by {batch}", decode)


@contextmanager
def _threads(count: int) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(count)
    try:
        yield
    finally:
        torch.set_num_threads(before)
