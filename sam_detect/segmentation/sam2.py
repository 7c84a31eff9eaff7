"""Segmenter ``sam2``: Meta's Segment Anything 2, by its own ``sam2`` package.

1. The picture is encoded once (``_sam2_model``).
2. A prompter says where to ask (``_sam2_prompters``).
3. The decoder answers each prompt with three masks and a predicted IoU for each; it is restructured
   to do the same in less time (``_sam2_decoder``).
4. Masks that pass are scaled up and compressed (``_sam2_drawing``), and of those that nearly equal
   one another the best is kept (``_sam2_automatic``).
"""

from __future__ import annotations

from collections.abc import Sequence
from copy import copy
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch

from sam_detect.errors import ConfigError, ImageError, MaskError
from sam_detect.interfaces import Segmenter
from sam_detect.models.devices import resolve_dtype
from sam_detect.models.sam2 import LoadedSAM2, shared_sam2
from sam_detect.models.sam2_features import FRAMES_KEPT, frame_encoder
from sam_detect.segmentation._sam2_automatic import Found, Plan, masks_of_everything
from sam_detect.segmentation._sam2_decoder import Undrawn
from sam_detect.segmentation._sam2_masks import Limits
from sam_detect.segmentation._sam2_model import ALL_MASKS, THREE_MASKS, PromptedModel, Prompts
from sam_detect.segmentation._sam2_prompters import BlobPrompter, make_prompter, points_for
from sam_detect.segmentation.prompted import clip_box, require_point
from sam_detect.types import Frame, Masks

PRESETS = {
    "microscopy": {"points_per_side": 128, "min_area": 30},
}
"""Parameters by name, for those that are not given."""
SMALLEST_SEEN = 50
"""Pixels of an object, in the picture as the model sees it, below which most are lost."""
DEFAULTS = {"points_per_side": 32, "min_area": 0}
CHUNKS = {"cpu": 4, "cuda": 64, "mps": 16}
"""Prompts decoded at once: as many as fill a GPU, as few as stay in a CPU's cache."""
FRAMES_AT_ONCE = {"cpu": 1, "cuda": 8, "mps": 1}


class SAM2Segmenter(Segmenter):
    """SAM 2's masks of everything, and of what a box or a point means. Deterministic.

    The parameters from ``points_per_side`` to ``use_m2m`` are those of Meta's
    ``SAM2AutomaticMaskGenerator``, with its defaults.

    Args:
        model_size: ``tiny``, ``small``, ``base`` or ``large`` (SAM 2.1), Meta's name of a model
            (``sam2_hiera_large``), the path of a checkpoint, or a model that is loaded already,
            where it is.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        checkpoint: a checkpoint's path, instead of ``model_size``.
        config: the checkpoint's config; by default the YAML file of its name beside it.
        points_per_side: points along a side of the grid, 1 to 256; None: 32. ``auto``: as many as
            the smallest example needs, see :func:`~._sam2_prompters.points_for`, from 16 to 256.
        points_per_batch: prompts decoded at once; None: as suits the device.
        pred_iou_thresh, stability_score_thresh: least quality, 0 to 1.
        stability_score_offset: by how much the threshold is moved to measure stability.
        mask_threshold: logits above it are true.
        box_nms_thresh: masks whose boxes have more IoU than this are one.
        crop_n_layers: further layers of crops, in which small objects are larger.
        crop_nms_thresh: as ``box_nms_thresh``, between crops.
        crop_overlap_ratio: share of the shorter side by which crops overlap.
        crop_n_points_downscale_factor: by which points along a side get fewer with each layer.
        min_mask_region_area: smaller holes and specks of the unscaled mask are removed.
        use_m2m: ask again with the masks found; twice the work or more.
        min_area, max_area: limits of a mask in pixels; 0 or None: none.
        max_proposals: at most this many masks, the best ones; 0 or None: all.
        dtype: ``auto`` (on CUDA bf16, with what stays in float32 multiplied in TF32; else fp32),
            ``fp32`` (the reference: exact products, without TF32), ``bf16``, ``fp16``.
        prompts: ``grid``, ``adaptive`` (coarse to fine, without what is covered), ``blobs``.
        fast: False asks Meta's own decoder instead of the restructured one.
        compile: have ``torch.compile`` make the decoder faster still; takes a minute on the first
            picture, once for all processes; without a C++ compiler it warns and goes on without.
        preset: ``microscopy``: 128 points per side and a least area of 30 where not given.

    Raises:
        ConfigError: a parameter out of its range, or a checkpoint that cannot be used.
        UnavailableError: the model's weights or the device are not on this machine.
    """

    def __init__(
        self,
        model_size: str | Path | LoadedSAM2 = "base",
        device: str = "auto",
        *,
        checkpoint: str | Path | None = None,
        config: str | Path | None = None,
        points_per_side: int | Literal["auto"] | None = None,
        points_per_batch: int | None = None,
        pred_iou_thresh: float = 0.8,
        stability_score_thresh: float = 0.95,
        stability_score_offset: float = 1.0,
        mask_threshold: float = 0.0,
        box_nms_thresh: float = 0.7,
        crop_n_layers: int = 0,
        crop_nms_thresh: float = 0.7,
        crop_overlap_ratio: float = 512 / 1500,
        crop_n_points_downscale_factor: int = 1,
        min_mask_region_area: int = 0,
        use_m2m: bool = False,
        min_area: int | None = None,
        max_area: int | None = None,
        max_proposals: int | None = None,
        dtype: str = "auto",
        prompts: str = "grid",
        fast: bool = True,
        compile: bool = False,  # noqa: A002 - torch's own name for it
        preset: Literal["microscopy"] | None = None,
    ) -> None:
        chosen = {**DEFAULTS, **_preset(preset)}
        self._follows_sizes = points_per_side == "auto"
        self._least_area: int | None = None
        per_side = _per_side(points_per_side, usual=chosen["points_per_side"])
        areas = (min_area or chosen["min_area"], max_area or 0)
        self.plan = Plan(
            per_side=per_side,
            limits=Limits(
                pred_iou=pred_iou_thresh,
                stability=stability_score_thresh,
                offset=stability_score_offset,
                threshold=mask_threshold,
                region_area=min_mask_region_area,
                area=areas,
            ),
            box_nms=box_nms_thresh,
            crop_layers=crop_n_layers,
            crop_nms=crop_nms_thresh,
            crop_overlap=crop_overlap_ratio,
            crop_points_downscale=crop_n_points_downscale_factor,
            use_m2m=use_m2m,
        )
        self.prompter = make_prompter(prompts, areas)
        self.max_proposals = _at_least("max_proposals", max_proposals or None, 1)
        loaded = shared_sam2(checkpoint or model_size, config=config, device=device)
        self.device, self.model_name = loaded.device, loaded.name
        self._side = int(loaded.model.image_size)
        self.dtype = resolve_dtype(dtype, self.device)
        self.encoder = frame_encoder(loaded, self.dtype)
        chunk = _at_least("points_per_batch", points_per_batch, 1) or CHUNKS[self.device.type]
        self.model = PromptedModel(
            loaded.model,
            dtype=self.dtype,
            chunk=chunk,
            fast=fast,
            compiled=compile,
        )

    def for_areas(self, areas: tuple[int, int] | None) -> SAM2Segmenter:
        """As many points as objects of these areas need, with ``points_per_side="auto"``; blobs of
        these sizes, with ``prompts="blobs"``; else this segmenter itself."""
        if areas is None:
            return self
        sized = copy(self)
        sized.prompter = self.prompter.for_areas(areas)
        if self._follows_sizes:
            sized._least_area = max(areas[0], self.plan.limits.area[0])
        changed = sized.prompter is not self.prompter or self._follows_sizes
        return sized if changed else self

    def smallest_area(self, size_hw: tuple[int, int]) -> float:
        """Discs of which one in four has a point of the grid in it, or that are too small for the
        model's own resolution."""
        pixels = size_hw[0] * size_hw[1]
        least = SMALLEST_SEEN * pixels / self.worked_pixels(size_hw)
        if self.plan.crop_layers or isinstance(self.prompter, BlobPrompter):
            return least  # they ask at other places, too
        return max(least, pixels / (2 * self._plan_for(size_hw).per_side) ** 2)

    def worked_pixels(self, size_hw: tuple[int, int]) -> int:
        return self._side**2

    @torch.inference_mode()
    def segment(self, frame: Frame) -> Masks:
        """All masks, best first; none for a picture of one colour.

        Raises:
            ImageError: something else than a frame of uint8 was given.
        """
        _require_frame(frame)
        if (frame.image_rgb == frame.image_rgb[0, 0]).all():
            return Masks.empty(frame.size_hw)
        features = self.encoder(frame)
        plan = self._plan_for(frame.size_hw)
        masks = masks_of_everything(self.model, frame.image_rgb, plan, self.prompter, features)
        return masks[: self.max_proposals]

    @torch.inference_mode()
    def segment_batch(self, frames: Sequence[Frame]) -> list[Masks]:
        """:meth:`segment` of several frames, which are encoded together on a GPU."""
        for frame in frames:
            _require_frame(frame)
        found = []
        at_once = min(FRAMES_AT_ONCE[self.device.type], FRAMES_KEPT)
        for start in range(0, len(frames), at_once):
            group = frames[start : start + at_once]
            self.encoder.encode_together(group)
            found += [self.segment(frame) for frame in group]
        return found

    @torch.inference_mode()
    def segment_boxes(self, frame: Frame, boxes_xywh: Sequence[Sequence[float]]) -> Masks:
        """One mask for each box ``x, y, width, height`` in pixels, in their order.

        Raises:
            MaskError: a box is malformed, empty or outside the picture, or nothing is in it.
        """
        _require_frame(frame)
        corners = [clip_box(box, frame.size_hw) for box in boxes_xywh]
        prompts = Prompts.boxes(np.array(corners, np.float32).reshape(-1, 4))
        masks = self._one_each(frame, prompts, ALL_MASKS)
        return replace(masks, prompts_xy=np.full_like(masks.prompts_xy, np.nan))

    @torch.inference_mode()
    def segment_points(self, frame: Frame, points_xy: Sequence[Sequence[float]]) -> Masks:
        """One mask for each point on an object, in their order.

        Raises:
            MaskError: a point is malformed or outside the picture, or nothing is there.
        """
        _require_frame(frame)
        for point in points_xy:
            require_point(point, frame.size_hw)
        prompts = Prompts.at(np.array(points_xy, np.float32).reshape(-1, 2))
        return self._one_each(frame, prompts, THREE_MASKS)

    @torch.inference_mode()
    def segment_masks(self, frame: Frame, masks: Masks) -> Masks:
        """Masks drawn anew, one for each of a frame's, from itself and its box; in their order.

        Raises:
            MaskError: the masks are of a picture of another size, or nothing is found.
        """
        _require_frame(frame)
        if masks.size_hw != frame.size_hw:
            raise MaskError(f"masks of {masks.size_hw} do not fit a picture of {frame.size_hw}")
        if not len(masks):
            return masks
        boxes = Prompts.boxes(masks.boxes_xyxy.astype(np.float32))
        shown = self.model.as_logits(masks.dense(index) for index in range(len(masks)))
        drawn = self._one_each(frame, replace(boxes, logits=shown), ALL_MASKS)
        return replace(drawn, prompts_xy=masks.prompts_xy)

    def _plan_for(self, size_hw: tuple[int, int]) -> Plan:
        if self._least_area is None:
            return self.plan
        return replace(
            self.plan, per_side=points_for(self._least_area, size_hw, self.plan.per_side)
        )

    def _one_each(self, frame: Frame, prompts: Prompts, tokens: slice) -> Masks:
        found = Found()
        limits = replace(self.plan.limits, pred_iou=0, stability=0, area=(0, 0))

        def take(part: slice, undrawn: Undrawn) -> None:
            each = self.model.drawing.each(
                range(len(undrawn.ious)),
                lambda some: self.model.one_mask_each(undrawn, some, tokens),
                frame.size_hw,
                limits,
            )
            points = prompts.points_xy[part, 0]
            for (cut, iou), point in zip(each, points, strict=True):
                if cut is None:
                    raise MaskError(f"SAM 2 finds nothing at {point[0]:g},{point[1]:g}")
                found.add(cut, iou, point)

        self.model.ask(self.encoder(frame), prompts, frame.size_hw, tokens=tokens, take=take)
        return found.masks(frame.size_hw, (0, 0))


def _preset(name: str | None) -> dict[str, int]:
    if name is not None and name not in PRESETS:
        raise ConfigError(f"preset must be one of {', '.join(PRESETS)}, got {name!r}")
    return PRESETS[name] if name else {}


def _per_side(given: int | str | None, *, usual: int) -> int:
    """Points along a side, as long as no sizes are known."""
    if isinstance(given, str) and given != "auto":
        raise ConfigError(f"points_per_side must be 'auto' or from 1 to 256, got {given!r}")
    return usual if given is None or isinstance(given, str) else given


def _at_least(name: str, value: int | None, least: int) -> int | None:
    if value is not None and value < least:
        raise ConfigError(f"{name} must be at least {least}, got {value}")
    return value


def _require_frame(frame: object) -> None:
    """Refuses what is no frame; floats would be seen as an all but black picture."""
    if isinstance(frame, Frame):
        return
    kind = getattr(frame, "dtype", type(frame).__name__)
    raise ImageError(
        f"SAM 2 takes a Frame of uint8 pixels from 0 to 255, got {kind}: scale floats to 0..255, "
        f"convert with astype(np.uint8), and wrap the RGB array in a Frame"
    )
