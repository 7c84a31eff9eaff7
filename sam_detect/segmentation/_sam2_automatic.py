"""Masks of everything in a picture: crops, prompts, filters and non-maximum suppression, with the
parameters of ``sam2.automatic_mask_generator`` and the same meaning."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from sam2.utils.amg import generate_crop_boxes, is_box_near_crop_edge
from torch import Tensor
from torchvision.ops import nms

from sam_detect.masks import FloatArray, IntArray
from sam_detect.models.sam2_features import FrameFeatures
from sam_detect.segmentation._sam2_decoder import Undrawn
from sam_detect.segmentation._sam2_drawing import passing
from sam_detect.segmentation._sam2_masks import Cut, Limits, require_range
from sam_detect.segmentation._sam2_model import (
    ALL_MASKS,
    MASK_LIMIT,
    THREE_MASKS,
    PromptedModel,
    Prompts,
)
from sam_detect.segmentation._sam2_prompters import Covered, Prompter
from sam_detect.types import ImageRGB, Masks


@dataclass(frozen=True)
class Plan:
    """How a picture is asked.

    Attributes:
        per_side: points along a side of the grid (``blobs``: its square is the most points).
        limits: which masks pass.
        box_nms: of two masks of a crop whose boxes have more IoU than this, the better is kept.
        crop_layers: further layers of crops, of 4, 16, ... each.
        crop_nms: as ``box_nms``, between crops.
        crop_overlap: share of the picture's shorter side by which crops overlap.
        crop_points_downscale: each layer has so many times fewer points along a side.
        use_m2m: whether masks are asked for again, with themselves as prompts.
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
        require_range("points_per_side", self.per_side, 1, 256)
        require_range("crop_n_layers", self.crop_layers, 0, 4)
        require_range("crop_n_points_downscale_factor", self.crop_points_downscale, 1, 256)
        for name, share in (("box_nms_thresh", self.box_nms), ("crop_nms_thresh", self.crop_nms),
                            ("crop_overlap_ratio", self.crop_overlap)):  # fmt: skip
            require_range(name, share, 0, 1)


@dataclass
class Found:
    """Masks found so far in one crop, as parallel lists; boxes are of the crop."""

    cuts: list[Cut] = field(default_factory=list)
    ious: list[float] = field(default_factory=list)
    prompts_xy: list[FloatArray] = field(default_factory=list)

    def add(self, cut: Cut, iou: float, prompt_xy: FloatArray) -> None:
        self.cuts.append(cut)
        self.ious.append(iou)
        self.prompts_xy.append(prompt_xy)

    def boxes_xyxy(self) -> IntArray:
        return np.array([cut.box_xyxy for cut in self.cuts], np.int64).reshape(-1, 4)

    def keep(self, indices: Sequence[int]) -> Found:
        return Found(
            [self.cuts[i] for i in indices],
            [self.ious[i] for i in indices],
            [self.prompts_xy[i] for i in indices],
        )

    def masks(self, size_hw: tuple[int, int], offset_xy: tuple[int, int]) -> Masks:
        """As masks of the whole picture, in which the crop begins at an offset."""
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
        )


def masks_of_everything(
    model: PromptedModel,
    image_rgb: ImageRGB,
    plan: Plan,
    prompter: Prompter,
    features: FrameFeatures,
) -> Masks:
    """All masks of a picture, best first.

    Args:
        features: of the whole picture; crops are encoded here.
    """
    size_hw = image_rgb.shape[:2]
    boxes, layers = generate_crop_boxes(size_hw, plan.crop_layers, plan.crop_overlap)
    parts, crop_areas = [], []
    for box, layer in zip(boxes, layers, strict=True):
        x0, y0, x1, y1 = box
        image = image_rgb[y0:y1, x0:x1]
        seen = features if layer == 0 else model.encode([image])[0]
        per_side = int(plan.per_side / plan.crop_points_downscale**layer)
        found = _Crop(model, seen, image, plan).ask_all(prompter, max(per_side, 1))
        found = _off_edges(found, box, size_hw)
        parts.append(_best_of_each(found, plan.box_nms).masks(size_hw, (x0, y0)))
        crop_areas += [(x1 - x0) * (y1 - y0)] * len(parts[-1])
    masks = Masks.concatenate(parts)
    if len(boxes) > 1:  # masks of smaller crops are finer
        scores = 1 / torch.tensor(crop_areas, dtype=torch.float32)
        masks = masks[_suppressed(masks.boxes_xyxy, scores, plan.crop_nms)]
    return masks[np.argsort(-masks.predicted_ious, kind="stable")]


@dataclass
class _Crop:
    """One crop that is asked about, or the whole picture."""

    model: PromptedModel
    features: FrameFeatures
    image_rgb: ImageRGB
    plan: Plan
    found: Found = field(default_factory=Found)

    @property
    def size_hw(self) -> tuple[int, int]:
        return self.image_rgb.shape[0], self.image_rgb.shape[1]

    def ask_all(self, prompter: Prompter, per_side: int) -> Found:
        """What all rounds of the prompter find."""
        covered = Covered(self.size_hw)
        extent = np.array(self.size_hw[::-1])
        for points in prompter.rounds(self.image_rgb, per_side, covered):
            known = len(self.found.cuts)
            self._ask(Prompts.at((points * extent).astype(np.float32)))
            for cut in self.found.cuts[known:] if prompter.needs_cover else ():
                covered.add(cut.crop(), cut.box_xyxy)
        return self.found

    def _ask(self, prompts: Prompts) -> None:
        limits = self.plan.limits

        def take(part: slice, undrawn: Undrawn) -> None:
            ious = undrawn.ious.cpu()
            numbers, masks = (each.tolist() for each in passing(ious, limits).nonzero().T)
            cuts = self.model.drawing.cuts(undrawn, numbers, masks, self.size_hw, limits)
            for cut, number, mask in zip(cuts, numbers, masks, strict=True):
                self._add(cut, float(ious[number, mask]), prompts.points_xy[part][number, 0])

        def refine(part: slice, undrawn: Undrawn) -> None:
            everything = range(len(undrawn.ious))
            parts = self.model.drawing.at_once.parts(
                len(everything), lambda some: undrawn.draw_many(everything[some])
            )
            self._ask_again(prompts[part], torch.cat(list(parts)))

        self._decode(prompts, THREE_MASKS, refine if self.plan.use_m2m else take)

    def _ask_again(self, prompts: Prompts, logits: Tensor) -> None:
        """One mask for each of the ``(B, M, h, w)`` that prompts were answered with
        (``use_m2m``)."""
        limits = self.plan.limits
        again = Prompts(
            np.repeat(prompts.points_xy, logits.shape[1], axis=0),
            np.repeat(prompts.labels, logits.shape[1], axis=0),
            logits.flatten(0, 1)[:, None].clamp(-MASK_LIMIT, MASK_LIMIT),
        )

        def take(part: slice, undrawn: Undrawn) -> None:
            # The answer is one of the masks: where none passes, it need not be drawn.
            numbers = passing(undrawn.ious.cpu(), limits).any(1).nonzero()[:, 0].tolist()
            found = self.model.drawing.each(
                numbers,
                lambda some: self.model.one_mask_each(undrawn, some, ALL_MASKS),
                self.size_hw,
                limits,
            )
            for number, (cut, iou) in zip(numbers, found, strict=True):
                self._add(cut, iou, again.points_xy[part][number, 0])

        self._decode(again, ALL_MASKS, take)

    def _decode(
        self, prompts: Prompts, tokens: slice, take: Callable[[slice, Undrawn], None]
    ) -> None:
        self.model.ask(self.features, prompts, self.size_hw, tokens=tokens, take=take)

    def _add(self, cut: Cut | None, iou: float, prompt_xy: FloatArray) -> None:
        if cut is not None:
            self.found.add(cut, iou, prompt_xy)


def _off_edges(found: Found, crop_box: list[int], size_hw: tuple[int, int]) -> Found:
    """Without masks that a crop's edge cuts; the picture's own edges may."""
    boxes = torch.from_numpy(_inclusive(found.boxes_xyxy()))
    near = is_box_near_crop_edge(boxes, crop_box, [0, 0, size_hw[1], size_hw[0]])
    return found.keep((~near).nonzero()[:, 0].tolist()) if bool(near.any()) else found


def _best_of_each(found: Found, limit: float) -> Found:
    scores = torch.tensor(found.ious, dtype=torch.float32)
    return found.keep(_suppressed(found.boxes_xyxy(), scores, limit))


def _suppressed(boxes_xyxy: IntArray, scores: Tensor, limit: float) -> list[int]:
    """Indices that non-maximum suppression keeps, best first."""
    boxes = torch.from_numpy(_inclusive(boxes_xyxy)).float()
    kept: list[int] = nms(boxes, scores, limit).tolist()
    return kept


def _inclusive(boxes_xyxy: IntArray) -> IntArray:
    """Boxes up to the last pixel instead of past it, as the official generator measures them."""
    return np.asarray(boxes_xyxy - np.array([0, 0, 1, 1]))
