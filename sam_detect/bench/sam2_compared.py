"""Ours and the official SAM 2 on one model of random weights, and what both are asked."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from pycocotools import mask as coco_masks
from sam2.automatic_mask_generator import SAM2AutomaticMaskGenerator
from sam2.modeling.sam2_base import SAM2Base

from sam_detect.bench import workload as pictures
from sam_detect.models.sam2 import load_sam2
from sam_detect.segmentation.sam2 import SAM2Segmenter
from sam_detect.types import Frame, Masks

PASSING = 0.2
"""Share of the prompts that are to have a mask."""
PROBED_PER_SIDE = 8
"""Points along a side of the grid that thresholds are taken from."""
STABILITY_OFFSET = 0.1
"""Random logits are smaller than trained ones."""
SAME_IOU = 0.99

Options = dict[str, Any]


class Compared:
    """Ours and the official generator on one checkpoint.

    Args:
        path: the checkpoint.
        config: of the checkpoint.
        device: where both run.
    """

    def __init__(self, path: Path, config: str, device: torch.device) -> None:
        self.path, self.config, self.device = path, config, device
        self.loaded = load_sam2(path, config=config, device=device)
        self.model = self.loaded.model

    def segmenter(self, options: Options, *, dtype: str = "fp32", **more: Any) -> SAM2Segmenter:
        return SAM2Segmenter(self.loaded, dtype=dtype, **options, **more)

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


def thresholds(
    compared: Compared, frame: Frame, per_side: int, *, passing: float, each: bool = False
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
