"""SAM 2 embeddings beside one pass of the official predictor per object, on the same weights."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from sam2.sam2_image_predictor import SAM2ImagePredictor
from scipy.stats import spearmanr
from torch.nn.functional import interpolate

from sam_detect.bench.measurements import Measurements
from sam_detect.bench.timing import Trial
from sam_detect.bench.workload import drawn
from sam_detect.embedding.sam2 import SAM2Embedder
from sam_detect.fading.context import cut, faded
from sam_detect.fading.identity import IdentityFade
from sam_detect.masks import FloatArray
from sam_detect.models.devices import resolve_device
from sam_detect.models.sam2 import LoadedSAM2, load_sam2
from sam_detect.models.sam2_features import FrameEncoder, frame_encoder
from sam_detect.segmentation.naive import NaiveSegmenter
from sam_detect.types import FadedCrop, Frame, Masks

CANDIDATES = 100
COMPARED = 12
"""At least so many objects are compared for the rank correlation."""
OCCUPANCY, CROP_SIDE = 0.2, 256


@dataclass(frozen=True, eq=False)
class Objects:
    """What is described: the drawn picture, its objects, and their crops."""

    frame: Frame
    masks: Masks
    crops: list[FadedCrop]

    @classmethod
    def drawn(cls) -> Objects:
        frame = Frame(drawn(), "drawn")
        found = NaiveSegmenter().segment(frame)
        # The same number on every machine, spread over all ranks.
        masks = found[np.linspace(0, len(found) - 1, CANDIDATES).astype(np.int64)]
        crops = [
            faded(
                cut(
                    frame.image_rgb,
                    masks.crop(index),
                    masks.boxes_xyxy[index].tolist(),
                    occupancy=OCCUPANCY,
                    crop_side=CROP_SIDE,
                ),
                IdentityFade(),
            )
            for index in range(len(masks))
        ]
        return cls(frame, masks, crops)


def measure_embedding(
    measurements: Measurements,
    model: str | Path | LoadedSAM2,
    *,
    device: str = "auto",
    config: str | None = None,
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
        config: of a checkpoint.
        sample: so many objects are encoded one by one and the time is multiplied; a divisor of
            100. By default all on a GPU, and 4 on a CPU, where each takes seconds.
    """
    if not isinstance(model, LoadedSAM2):
        model = load_sam2(model, config=config, device=resolve_device(device))
    count = sample or (4 if model.device.type == "cpu" else CANDIDATES)
    objects = Objects.drawn()
    by_crop = SAM2Embedder(model)
    by_frame = SAM2Embedder(model, pooling="frame")
    official = OfficialPasses(model)
    some = objects.crops[:count]
    measurements.announce("embed_batched_vs_single, embed_frame_vs_single")
    new = _new_frames(objects.frame)
    batched, whole, handed, single = measurements.interleave(
        [
            Trial("batched crops", lambda _: by_crop.embed(some)),
            Trial(
                "one frame",
                lambda frame: by_frame.embed_frame(frame, objects.masks),
                prepare=new,
            ),
            Trial(
                "one frame that the segmenter has encoded",
                lambda frame: by_frame.embed_frame(frame, objects.masks),
                prepare=lambda: _encoded(new(), frame_encoder(model, torch.float32)),
            ),
            Trial("one official pass each", lambda _: official.embed(some)),
        ]
    )
    factor = CANDIDATES // count
    measurements.add_pair("embed_batched_vs_single", batched.times(factor), single.times(factor))
    measurements.add_pair("embed_frame_vs_single", whole, single.times(factor))
    measurements.figures["embed_frame_encoded_already_ms"] = round(handed.median_ms, 3)
    compared = objects.masks[: max(count, COMPARED)]
    measurements.figures["embed_frame_rank_correlation"] = rank_correlation(
        by_frame.embed_frame(objects.frame, compared),
        by_crop.embed(objects.crops[: len(compared)]),
    )


class OfficialPasses:
    """One pass of the official predictor for each crop, its map averaged over the mask."""

    def __init__(self, loaded: LoadedSAM2) -> None:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # see SAM2Features
            self._predictor: Any = SAM2ImagePredictor(loaded.model)
        # The predictor takes it that models see 1024 pixels; so small ones can be measured, too.
        side = loaded.model.image_size
        self._predictor._bb_feat_sizes = [(side // part,) * 2 for part in (4, 8, 16)]

    def embed(self, crops: list[FadedCrop]) -> FloatArray:
        """``(N, C)`` float32 of length 1."""
        return np.stack([self._one(crop) for crop in crops])

    def _one(self, crop: FadedCrop) -> FloatArray:
        self._predictor.set_image(crop.image_rgb)
        features = self._predictor._features["image_embed"]
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


def _encoded(frame: Frame, encoder: FrameEncoder) -> Frame:
    encoder(frame)
    return frame


def _new_frames(frame: Frame) -> Callable[[], Frame]:
    """Gives the same picture with one other pixel each time, so that none is known before."""
    made = 0

    def new() -> Frame:
        nonlocal made
        made += 1
        image = frame.image_rgb.copy()
        image[0, 0] = made % 256, made // 256 % 256, 0
        return Frame(image, frame.source_id)

    return new
