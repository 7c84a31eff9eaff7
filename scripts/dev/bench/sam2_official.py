"""Meta's own SAM 2 as the reference of ours: what both are asked, and embeddings of both."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from scipy.stats import spearmanr
from torch.nn.functional import interpolate

from sam_detect.embedding.sam2 import SAM2Embedder
from sam_detect.fading.context import cut, faded
from sam_detect.fading.fades import IdentityFade
from sam_detect.models.running import resolve_device
from sam_detect.models.sam2 import LoadedSAM2, load_sam2
from sam_detect.models.sam2_features import frame_encoder
from sam_detect.segmentation.naive import NaiveSegmenter
from sam_detect.segmentation.sam2 import SAM2Segmenter
from sam_detect.types import FadedCrop, Frame, Masks
from sam_detect.types.masks import FloatArray
from sam_detect.verification import GeneratorOptions, official_generator
from scripts.dev.bench.measurements import Measurements, Trial
from scripts.dev.bench.stages import drawn

PASSING = 0.2
"""Share of the prompts that are to have a mask."""
PROBED_PER_SIDE = 8
"""Points along a side of the grid that thresholds are taken from."""
STABILITY_OFFSET = 0.1
"""Random logits are smaller than trained ones."""


def picture(side: int) -> Frame:
    """Drawn discs and squares, ``side`` pixels high and wide."""
    resized = cv2.resize(drawn(), (side, side), interpolation=cv2.INTER_AREA)
    return Frame(np.asarray(resized, np.uint8), "drawn")


def thresholds(
    loaded: LoadedSAM2, frame: Frame, per_side: int, *, passing: float, each: bool = False
) -> GeneratorOptions:
    """Thresholds with which about a share of the prompts have a mask (or, with ``each``, about a
    share of all masks pass the predicted IoU), from what a coarse grid of them finds."""
    loose: GeneratorOptions = {
        "pred_iou_thresh": 0.0,
        "stability_score_thresh": 0.0,
        "stability_score_offset": STABILITY_OFFSET,
        "box_nms_thresh": 1.0,
    }
    segmenter = SAM2Segmenter(loaded, dtype="fp32", points_per_side=PROBED_PER_SIDE, **loose)
    found = segmenter.propose(frame)
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


CANDIDATES = 100
COMPARED = 12
"""At least so many objects are compared for the rank correlation."""
OCCUPANCY, CROP_SIDE = 0.2, 256


def drawn_objects() -> tuple[Frame, Masks, list[FadedCrop]]:
    """The drawn picture, 100 of its objects, and their crops."""
    frame = Frame(drawn(), "drawn")
    found = NaiveSegmenter().propose(frame)
    # The same number on every machine, spread over all ranks.
    masks = found[np.linspace(0, len(found) - 1, CANDIDATES).astype(np.int64)]
    crops = []
    for index, box in enumerate(masks.boxes_xyxy.tolist()):
        whole = cut(
            frame.image_rgb, masks.crop(index), box, occupancy=OCCUPANCY, crop_side=CROP_SIDE
        )
        crops.append(faded(whole, IdentityFade()))
    return frame, masks, crops


def measure_embedding(
    measurements: Measurements,
    model: str | Path | LoadedSAM2,
    *,
    device: str = "auto",
    sample: int | None = None,
) -> None:
    """Adds the pairs ``embed_batched_vs_single`` and ``embed_frame_vs_single``, both for 100
    objects of a picture, and how far frame and crop agree.

    Args:
        measurements: gets the pairs, and the figure ``embed_frame_rank_correlation``: Spearman's
            of the similarities of all pairs of objects, pooled from the frame against their crops;
            and ``embed_frame_encoded_already_ms``: what is left of describing a frame's objects
            where the segmenter runs the same model in the same precision.
        model: as :class:`~sam_detect.embedding.sam2.SAM2Embedder` takes it.
        device: where to run, unless the model is loaded already.
        sample: so many objects are encoded one by one and the time is multiplied; a divisor of
            100. By default all on a GPU, and 4 on a CPU, where each takes seconds.
    """
    if not isinstance(model, LoadedSAM2):
        model = load_sam2(model, device=resolve_device(device))
    count = sample or (4 if model.device.type == "cpu" else CANDIDATES)
    frame, masks, crops = drawn_objects()
    by_crop = SAM2Embedder(model)
    by_frame = SAM2Embedder(model, pooling="frame")
    encode = frame_encoder(model, torch.float32)
    new = new_frames(frame)

    def encoded() -> Frame:
        made = new()
        encode(made)
        return made

    def embed_whole(frame: Frame) -> FloatArray:
        return by_frame.embed_frame(frame, masks)

    measurements.announce("embed_batched_vs_single, embed_frame_vs_single")
    batched, whole, handed, single = measurements.interleave(
        [
            Trial("batched crops", lambda _: by_crop.embed(crops[:count])),
            Trial("one frame", embed_whole, prepare=new),
            Trial("one frame that the segmenter has encoded", embed_whole, prepare=encoded),
            Trial("one official pass each", lambda _: embed_officially(model, crops[:count])),
        ]
    )
    factor = CANDIDATES // count
    measurements.add_pair("embed_batched_vs_single", batched.scaled(factor), single.scaled(factor))
    measurements.add_pair("embed_frame_vs_single", whole, single.scaled(factor))
    measurements.figures["embed_frame_encoded_already_ms"] = round(handed.median_ms, 3)
    compared = max(count, COMPARED)
    measurements.figures["embed_frame_rank_correlation"] = rank_correlation(
        by_frame.embed_frame(frame, masks[:compared]), by_crop.embed(crops[:compared])
    )


def embed_officially(loaded: LoadedSAM2, crops: Sequence[FadedCrop]) -> FloatArray:
    """``(N, C)`` float32 of length 1: one pass of the official predictor for each crop, its map
    averaged over the mask."""
    predictor: Any = official_generator(loaded.model, {}).predictor
    return np.stack([_embed_one(predictor, crop) for crop in crops])


def _embed_one(predictor: Any, crop: FadedCrop) -> FloatArray:
    predictor.set_image(crop.image_rgb)
    features = predictor._features["image_embed"]
    solid = torch.from_numpy(crop.crop.mask.astype(np.float32)).to(features.device)
    mask = interpolate(solid[None, None], features.shape[2:], mode="bilinear")
    mean = (features * mask).sum(dim=(2, 3)) / mask.sum()
    return np.asarray((mean / mean.norm()).cpu().numpy()[0], np.float32)


def rank_correlation(first: FloatArray, second: FloatArray) -> float:
    """Spearman's correlation (-1 to 1) of the similarities of all pairs in two descriptions of
    the same N > 2 objects, each ``(N, D)`` of length 1."""
    pairs = np.triu_indices(len(first), 1)
    similarities = [(vectors @ vectors.T)[pairs] for vectors in (first, second)]
    return round(float(spearmanr(*similarities).statistic), 4)


def new_frames(frame: Frame) -> Callable[[], Frame]:
    """Gives the same picture with one other pixel each time, so that nothing of it is known."""
    numbers = itertools.count(1)

    def new() -> Frame:
        number = next(numbers)
        image = frame.image_rgb.copy()
        image[0, 0] = number % 256, number // 256 % 256, 0
        return Frame(image, frame.source_id)

    return new
