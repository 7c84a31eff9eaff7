"""Automatic mask generation: crops, prompts, filters, non-maximum suppression; the parameters are
those of ``sam2.automatic_mask_generator`` and have the same meaning."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from sam2.utils.amg import generate_crop_boxes, is_box_near_crop_edge
from torch import Tensor
from torchvision.ops import nms

from sam_detect.models.sam2_features import FrameFeatures
from sam_detect.options import require_number
from sam_detect.segmentation._sam2_decoder import DecodedPrompts
from sam_detect.segmentation._sam2_masks import Cut, Limits
from sam_detect.segmentation._sam2_model import (
    ALL_MASKS,
    MASK_LIMIT,
    THREE_MASKS,
    PromptedModel,
    Prompts,
    passing,
)
from sam_detect.segmentation._sam2_prompters import Covered, Prompter
from sam_detect.types import ImageRGB, Masks
from sam_detect.types.masks import FloatArray, IntArray


@dataclass(frozen=True)
class GeneratorConfig:
    """Parameters of automatic mask generation.

    Attributes:
        per_side: points along a side of the grid (``blobs``: at most its square).
        limits: which masks pass.
        box_nms: of two masks of a crop whose boxes have more IoU than this, the better is kept.
        crop_layers: further layers of crops, of 4, 16, ... each.
        crop_nms: as ``box_nms``, between crops.
        crop_overlap: overlap of crops, as a share of the image's shorter side.
        crop_points_downscale: factor by which each layer has fewer points along a side.
        use_m2m: whether masks are refined with themselves as prompts.
    """

    per_side: int
    limits: Limits
    box_nms: float
    crop_layers: int
    crop_nms: float
    crop_overlap: float
    crop_points_downscale: int
    use_m2m: bool

    def __post_init__(self) -> None:
        require_number("points_per_side", self.per_side, 1, 256)
        require_number("crop_n_layers", self.crop_layers, 0, 4)
        require_number("crop_n_points_downscale_factor", self.crop_points_downscale, 1, 256)
        for name, share in (("box_nms_thresh", self.box_nms), ("crop_nms_thresh", self.crop_nms),
                            ("crop_overlap_ratio", self.crop_overlap)):  # fmt: skip
            require_number(name, share, 0, 1)


@dataclass
class CropMasks:
    """Masks found so far in one crop, as parallel lists; boxes are in the crop's pixels."""

    cuts: list[Cut] = field(default_factory=list)
    ious: list[float] = field(default_factory=list)
    prompts_xy: list[FloatArray] = field(default_factory=list)

    def add(self, cut: Cut | None, iou: float, prompt_xy: FloatArray) -> None:
        """Appends a mask; None, which did not pass, is ignored."""
        if cut is not None:
            self.cuts.append(cut)
            self.ious.append(iou)
            self.prompts_xy.append(prompt_xy)

    def boxes_xyxy(self) -> IntArray:
        return np.array([cut.box_xyxy for cut in self.cuts], np.int64).reshape(-1, 4)

    def keep(self, indices: Sequence[int]) -> CropMasks:
        return CropMasks(
            [self.cuts[i] for i in indices],
            [self.ious[i] for i in indices],
            [self.prompts_xy[i] for i in indices],
        )

    def masks(self, size_hw: tuple[int, int], offset_xy: tuple[int, int]) -> Masks:
        """As masks of the whole image, in which the crop starts at an offset."""
        shift = np.array([*offset_xy, *offset_xy], np.int64)
        prompts = np.array(self.prompts_xy, np.float32).reshape(-1, 2)
        return Masks(
            size_hw=size_hw,
            boxes_xyxy=self.boxes_xyxy() + shift,
            crop_rles=tuple(cut.rle for cut in self.cuts),
            areas=np.array([cut.area for cut in self.cuts], np.int64),
            predicted_ious=np.clip(np.array(self.ious, np.float32), 0, 1),
            stabilities=np.array([cut.stability for cut in self.cuts], np.float32),
            prompts_xy=prompts + np.array(offset_xy, np.float32),
            excluded=np.zeros(len(self.cuts), np.bool_),
        )


def masks_of_everything(
    model: PromptedModel,
    image_rgb: ImageRGB,
    config: GeneratorConfig,
    prompter: Prompter,
    features: FrameFeatures,
) -> Masks:
    """All masks of an image, best first.

    Args:
        features: of the whole image; crops are encoded here.
    """
    size_hw = image_rgb.shape[:2]
    boxes, layers = generate_crop_boxes(size_hw, config.crop_layers, config.crop_overlap)
    parts, crop_areas = [], []
    for box, layer in zip(boxes, layers, strict=True):
        x0, y0, x1, y1 = box
        image = image_rgb[y0:y1, x0:x1]
        encoded = features if layer == 0 else model.encode([image])[0]
        per_side = int(config.per_side / config.crop_points_downscale**layer)
        found = _Crop(model, encoded, image, config).run(prompter, max(per_side, 1))
        found = _without_truncated(found, box, size_hw)
        ious = torch.tensor(found.ious, dtype=torch.float32)
        found = found.keep(_suppressed(found.boxes_xyxy(), ious, config.box_nms))
        parts.append(found.masks(size_hw, (x0, y0)))
        crop_areas += [(x1 - x0) * (y1 - y0)] * len(parts[-1])
    masks = Masks.concatenate(parts)
    if len(boxes) > 1:  # masks of smaller crops are finer
        scores = 1 / torch.tensor(crop_areas, dtype=torch.float32)
        masks = masks[_suppressed(masks.boxes_xyxy, scores, config.crop_nms)]
    return masks[np.argsort(-masks.predicted_ious, kind="stable")]


@dataclass
class _Crop:
    """One crop, or the whole image."""

    model: PromptedModel
    features: FrameFeatures
    image_rgb: ImageRGB
    config: GeneratorConfig
    found: CropMasks = field(default_factory=CropMasks)

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.image_rgb.shape[0], self.image_rgb.shape[1]

    def run(self, prompter: Prompter, per_side: int) -> CropMasks:
        """The masks of all rounds of the prompter."""
        covered = Covered(self.size_hw)
        extent = np.array(self.size_hw[::-1])
        for points in prompter.rounds(self.image_rgb, per_side, covered):
            known = len(self.found.cuts)
            self._decode_points(Prompts.at((points * extent).astype(np.float32)))
            for cut in self.found.cuts[known:] if prompter.needs_cover else ():
                covered.add(cut.crop(), cut.box_xyxy)
        return self.found

    def _decode_points(self, prompts: Prompts) -> None:
        limits = self.config.limits

        def take(part: slice, decoded: DecodedPrompts) -> None:
            ious = decoded.ious.cpu()
            numbers, masks = (each.tolist() for each in passing(ious, limits).nonzero().T)
            cuts = self.model.extract(decoded, numbers, masks, self.size_hw, limits)
            for cut, number, mask in zip(cuts, numbers, masks, strict=True):
                self.found.add(cut, float(ious[number, mask]), prompts.points_xy[part][number, 0])

        def refine(part: slice, decoded: DecodedPrompts) -> None:
            everything = range(len(decoded.ious))
            parts = self.model.at_once.parts(
                len(everything), lambda some: decoded.mask_logits(everything[some])
            )
            self._decode_masks(prompts[part], torch.cat(list(parts)))

        handle = refine if self.config.use_m2m else take
        self.model.decode(self.features, prompts, self.size_hw, tokens=THREE_MASKS, take=handle)

    def _decode_masks(self, prompts: Prompts, logits: Tensor) -> None:
        """One mask for each of the ``(B, M, h, w)`` logits of decoded prompts (``use_m2m``)."""
        limits = self.config.limits
        again = Prompts(
            np.repeat(prompts.points_xy, logits.shape[1], axis=0),
            np.repeat(prompts.labels, logits.shape[1], axis=0),
            logits.flatten(0, 1)[:, None].clamp(-MASK_LIMIT, MASK_LIMIT),
        )

        def take(part: slice, decoded: DecodedPrompts) -> None:
            # the result is one of the masks: if none passes it need not be upscaled
            numbers = passing(decoded.ious.cpu(), limits).any(1).nonzero()[:, 0].tolist()
            found = self.model.extract_one_each(
                numbers,
                lambda some: self.model.one_mask_each(decoded, some, ALL_MASKS),
                self.size_hw,
                limits,
            )
            for number, (cut, iou) in zip(numbers, found, strict=True):
                self.found.add(cut, iou, again.points_xy[part][number, 0])

        self.model.decode(self.features, again, self.size_hw, tokens=ALL_MASKS, take=take)


def _without_truncated(
    found: CropMasks, crop_box: list[int], size_hw: tuple[int, int]
) -> CropMasks:
    """Without masks that the edge of a crop truncates; the image's own edges may."""
    boxes = torch.from_numpy(_inclusive(found.boxes_xyxy()))
    near = is_box_near_crop_edge(boxes, crop_box, [0, 0, size_hw[1], size_hw[0]])
    return found.keep((~near).nonzero()[:, 0].tolist()) if bool(near.any()) else found


def _suppressed(boxes_xyxy: IntArray, scores: Tensor, limit: float) -> list[int]:
    """Indices that non-maximum suppression keeps, best first."""
    boxes = torch.from_numpy(_inclusive(boxes_xyxy)).float()
    kept: list[int] = nms(boxes, scores, limit).tolist()
    return kept


def _inclusive(boxes_xyxy: IntArray) -> IntArray:
    """Boxes up to the last pixel instead of past it, as the official generator measures them."""
    return np.asarray(boxes_xyxy - np.array([0, 0, 1, 1]))
