"""Segmenter ``sam2``: Meta's Segment Anything 2, by its own ``sam2`` package.

1. The image is encoded once (``_sam2_model``).
2. A prompter chooses points (``_sam2_prompters``).
3. The decoder returns three masks and their predicted IoUs for each; it is restructured to do the
   same in less time (``_sam2_decoder``).
4. Masks that pass are upscaled and compressed (``_sam2_masks``), and non-maximum suppression keeps
   the best of near-duplicates (``_sam2_automatic``).

In a video it can follow an object with what it remembers of the frames before (``_sam2_video``).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt
import torch

from sam_detect.errors import ConfigError, ImageError, MaskError
from sam_detect.interfaces import Segmenter
from sam_detect.models.running import resolve_dtype
from sam_detect.models.sam2 import LoadedSAM2, shared_sam2
from sam_detect.models.sam2_features import FRAMES_KEPT, frame_encoder
from sam_detect.options import require_number
from sam_detect.segmentation._sam2_automatic import CropMasks, GeneratorConfig, masks_of_everything
from sam_detect.segmentation._sam2_decoder import DecodedPrompts
from sam_detect.segmentation._sam2_forest_prompter import ForestPrompter
from sam_detect.segmentation._sam2_masks import Limits
from sam_detect.segmentation._sam2_model import ALL_MASKS, THREE_MASKS, PromptedModel, Prompts
from sam_detect.segmentation._sam2_prompters import (
    AdaptivePrompter,
    BlobPrompter,
    GridPrompter,
    Prompter,
    SimilarityPrompter,
    points_for,
)
from sam_detect.segmentation._sam2_video import VideoMemory
from sam_detect.segmentation.clicks import Clicks
from sam_detect.segmentation.prompted import clip_box, require_point
from sam_detect.types import NO_HINTS, Frame, HintName, Hints, Masks
from sam_detect.types.masks import BoolArray, FloatArray

PROMPTERS = ("grid", "adaptive", "blobs", "similarity", "forest")
PRESETS = {
    "microscopy": {"points_per_side": 128, "min_area": 30},
}
"""Values of parameters that are not given."""
SMALLEST_AREA = 50
"""Area of an object in pixels of the model's input, below which most objects are missed."""
DEFAULTS = {"points_per_side": 32, "min_area": 0}
CHUNKS = {"cpu": 4, "cuda": 64, "mps": 16}
"""Prompts of a decode batch: enough to fill a GPU, few enough for a CPU's cache."""
FRAMES_AT_ONCE = {"cpu": 1, "cuda": 8, "mps": 1}


class SAM2Segmenter(Segmenter):
    """SAM 2's automatic masks, and its masks of boxes, points and masks. Deterministic.

    The parameters from ``points_per_side`` to ``use_m2m`` are those of Meta's
    ``SAM2AutomaticMaskGenerator``, with its defaults.

    Args:
        model_size: ``tiny``, ``small``, ``base`` or ``large`` (SAM 2.1), Meta's name of a model
            (``sam2_hiera_large``), the path of a checkpoint, or a loaded model,
            on its device.
        device: ``auto``, ``cpu``, ``cuda``, ``cuda:1`` or ``mps``.
        checkpoint: a checkpoint's path, instead of ``model_size``.
        points_per_side: points along a side of the grid, 1 to 256; None: 32. ``auto``: as the
            smallest example needs, see :func:`~._sam2_prompters.points_for`, from 16 to 256.
        points_per_batch: prompts of a decode batch; None: chosen for the device.
        pred_iou_thresh, stability_score_thresh: least quality, 0 to 1.
        stability_score_offset: shift of the threshold that measures stability.
        mask_threshold: logits above it are true.
        box_nms_thresh: of masks whose boxes have more IoU than this the best is kept.
        crop_n_layers: further layers of crops, in which small objects are larger.
        crop_nms_thresh: as ``box_nms_thresh``, between crops.
        crop_overlap_ratio: overlap of crops, as a share of the shorter side.
        crop_n_points_downscale_factor: by which each layer has fewer points along a side.
        min_mask_region_area: smaller holes and specks of the low-resolution mask are removed.
        use_m2m: refine masks with themselves as prompts; twice the work or more.
        min_area, max_area: limits of a mask in pixels; 0 or None: none.
        max_proposals: at most this many masks, the best; 0 or None: all.
        dtype: ``auto`` (on CUDA bf16, with TF32 for what stays in float32; else fp32),
            ``fp32`` (the reference: exact products, without TF32), ``bf16``, ``fp16``.
        prompts: ``grid``, ``adaptive`` (coarse to fine, skipping covered points), ``blobs``,
            ``similarity`` (where a picture is like the examples),
            ``forest`` (at the objects of a pixel classifier, trained on the examples).
        fast: False uses Meta's own decoder instead of the restructured one.
        compile: ``torch.compile`` for the decoder; takes a minute on the first image, once for all
            processes; without a C++ compiler it warns and has no effect.
        preset: ``microscopy``: 128 points per side and a least area of 30 where not given.

    Raises:
        ConfigError: a parameter out of range, or a checkpoint that cannot be used.
        UnavailableError: the model's weights or the device are not on this machine.
    """

    def __init__(
        self,
        model_size: str | Path | LoadedSAM2 = "base",
        device: str = "auto",
        *,
        checkpoint: str | Path | None = None,
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
        if preset is not None and preset not in PRESETS:
            raise ConfigError(f"preset must be one of {', '.join(PRESETS)}, got {preset!r}")
        chosen = {**DEFAULTS, **(PRESETS[preset] if preset else {})}
        self._follows_sizes = points_per_side == "auto"
        if points_per_side is None or points_per_side == "auto":
            per_side = chosen["points_per_side"]
        elif isinstance(points_per_side, str):
            raise ConfigError(
                f"points_per_side must be 'auto' or from 1 to 256, got {points_per_side!r}"
            )
        else:
            per_side = points_per_side
        areas = (min_area or chosen["min_area"], max_area or 0)
        self.config = GeneratorConfig(
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
        require_number("max_proposals", max_proposals or 1, 1)
        require_number("points_per_batch", 1 if points_per_batch is None else points_per_batch, 1)
        self.max_proposals = max_proposals or None
        loaded = shared_sam2(checkpoint or model_size, device=device)
        self.device, self.model_name = loaded.device, loaded.name
        self._side = int(loaded.model.image_size)
        self.dtype = resolve_dtype(dtype, self.device)
        self.encoder = frame_encoder(loaded, self.dtype)
        chunk = points_per_batch or CHUNKS[self.device.type]
        self.model = PromptedModel(
            loaded.model, dtype=self.dtype, chunk=chunk, fast=fast, compiled=compile
        )

    @property
    def uses(self) -> tuple[HintName, ...]:  # type: ignore[override]
        sizes: tuple[HintName, ...] = ("areas",) if self._follows_sizes else ()
        return (*sizes, *self.prompter.uses)

    def smallest_area(self, size_hw: tuple[int, int], hints: Hints = NO_HINTS) -> float:
        """Area of discs of which one in four contains a point of the grid, or that are too small
        for the model's resolution."""
        pixels = size_hw[0] * size_hw[1]
        least = SMALLEST_AREA * pixels / self.worked_pixels(size_hw)
        if self.config.crop_layers or self.prompter.knowing(hints).finds_small:
            return least  # they have other points, too
        return max(least, pixels / (2 * self._config_for(size_hw, hints).per_side) ** 2)

    def worked_pixels(self, size_hw: tuple[int, int]) -> int:
        return self._side**2

    @torch.inference_mode()
    def propose(self, frame: Frame, hints: Hints = NO_HINTS) -> Masks:
        """All masks, best first; none for an image of one colour. With as many points as objects
        of the examples' sizes need (``points_per_side="auto"``), and where the prompts say.

        Raises:
            ImageError: not a frame of uint8.
        """
        _require_frame(frame)
        if (frame.image_rgb == frame.image_rgb[0, 0]).all():
            return Masks.empty(frame.size_hw)
        features = self.encoder(frame)
        generator, prompter = self._config_for(frame.size_hw, hints), self.prompter.knowing(hints)
        masks = masks_of_everything(self.model, frame.image_rgb, generator, prompter, features)
        return masks[: self.max_proposals]

    @torch.inference_mode()
    def propose_batch(self, frames: Sequence[Frame]) -> list[Masks]:
        """:meth:`propose` of several frames, which are encoded together on a GPU."""
        for frame in frames:
            _require_frame(frame)
        found = []
        for start in range(0, len(frames), self.frames_at_once):
            group = frames[start : start + self.frames_at_once]
            self.encode_together(group)
            found += [self.propose(frame) for frame in group]
        return found

    @property
    def frames_at_once(self) -> int:
        """Frames that are encoded together in less time than one by one; 1 on a CPU."""
        return min(FRAMES_AT_ONCE[self.device.type], FRAMES_KEPT)

    def encode_together(self, frames: Sequence[Frame]) -> None:
        """Encodes frames at once, so that :meth:`propose` finds them encoded."""
        self.encoder.encode_together(frames)

    @torch.inference_mode()
    def segment_boxes(self, frame: Frame, boxes_xywh: Sequence[Sequence[float]]) -> Masks:
        """One mask for each box ``x, y, width, height`` in pixels, in their order.

        Raises:
            MaskError: a box is malformed, empty or outside the image, or contains nothing.
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
            MaskError: a point is malformed or outside the image, or on nothing.
        """
        _require_frame(frame)
        for point in points_xy:
            require_point(point, frame.size_hw)
        prompts = Prompts.at(np.array(points_xy, np.float32).reshape(-1, 2))
        return self._one_each(frame, prompts, THREE_MASKS)

    @torch.inference_mode()
    def segment_clicks(
        self,
        frame: Frame,
        clicks_xy: npt.ArrayLike,
        positive: npt.ArrayLike,
        box_xywh: Sequence[float] | None = None,
    ) -> Masks:
        """The mask of one object from clicks on it and off it; a single click may mean the best
        of three masks, as in :meth:`segment_points`.

        Args:
            clicks_xy: ``(N, 2)`` x, y in pixels; N may be 0 with a box.
            positive: ``(N,)`` bool, whether each click is on the object.
            box_xywh: ``x, y, width, height`` in pixels, or None.

        Raises:
            MaskError: a click or the box is malformed or outside the image, there is neither a
                positive click nor a box, or nothing is found.
        """
        _require_frame(frame)
        clicks = Clicks.checked(clicks_xy, positive, box_xywh, frame.size_hw)
        order = np.argsort(~clicks.positive, kind="stable")  # errors name the first point
        points, labels = clicks.points_xy[order], clicks.positive[order].astype(np.int32)
        prompt_xy = points[0] if clicks.positive.any() else (np.nan, np.nan)
        if clicks.box_xyxy is not None:
            points = np.concatenate([np.reshape(clicks.box_xyxy, (2, 2)), points])
            labels = np.concatenate([np.array([2, 3], np.int32), labels])
        prompts = Prompts(points[None].astype(np.float32), labels[None])
        single = len(labels) == 1
        mask = self._one_each(frame, prompts, THREE_MASKS if single else ALL_MASKS)
        return replace(mask, prompts_xy=np.array([prompt_xy], np.float32))

    @torch.inference_mode()
    def segment_masks(self, frame: Frame, masks: Masks) -> Masks:
        """Refined masks, one for each of a frame's, prompted with itself and its box; in order.

        Raises:
            MaskError: the masks are of an image of another size, or nothing is found.
        """
        _require_frame(frame)
        masks.require_fit(frame)
        if not len(masks):
            return masks
        boxes = Prompts.boxes(masks.boxes_xyxy.astype(np.float32))
        shown = self.model.as_logits(masks.dense(index) for index in range(len(masks)))
        drawn = self._one_each(frame, replace(boxes, logits=shown), ALL_MASKS)
        return replace(drawn, prompts_xy=masks.prompts_xy)

    def follow(self, frame: Frame, mask: BoolArray) -> Callable[[Frame], FloatArray]:
        """Follows an object with SAM 2's video memory.

        Args:
            frame: where it is outlined.
            mask: ``(H, W)``, its outline.

        Returns:
            A function to be called with each following frame: ``(H, W)`` float32 in 0..1, more than
            0.5 on the object.
        """
        _require_frame(frame)
        model = self.model.model
        memory = VideoMemory(model, self.encoder(frame), mask, self.dtype)
        return lambda later: memory.follow(self.encoder(later))

    def _config_for(self, size_hw: tuple[int, int], hints: Hints) -> GeneratorConfig:
        if hints.areas is None or not self._follows_sizes:
            return self.config
        least = max(hints.areas[0], self.config.limits.area[0])
        return replace(self.config, per_side=points_for(least, size_hw, self.config.per_side))

    def _one_each(self, frame: Frame, prompts: Prompts, tokens: slice) -> Masks:
        found = CropMasks()
        limits = replace(self.config.limits, pred_iou=0, stability=0, area=(0, 0))

        def take(part: slice, decoded: DecodedPrompts) -> None:
            each = self.model.extract_one_each(
                range(len(decoded.ious)),
                lambda some: self.model.one_mask_each(decoded, some, tokens),
                frame.size_hw,
                limits,
            )
            points = prompts.points_xy[part, 0]
            for (cut, iou), point in zip(each, points, strict=True):
                if cut is None:
                    raise MaskError(f"SAM 2 finds nothing at {point[0]:g},{point[1]:g}")
                found.add(cut, iou, point)

        self.model.decode(self.encoder(frame), prompts, frame.size_hw, tokens=tokens, take=take)
        return found.masks(frame.size_hw, (0, 0))


def make_prompter(name: str, areas: tuple[int, int] = (0, 0)) -> Prompter:
    """The prompter of this name.

    Args:
        areas: least and most pixels of the objects; 0 for no limit.

    Raises:
        ConfigError: an unknown name.
    """
    made: dict[str, Callable[[], Prompter]] = {
        "grid": GridPrompter,
        "adaptive": AdaptivePrompter,
        "blobs": lambda: BlobPrompter(areas),
        "similarity": lambda: SimilarityPrompter(least=areas[0]),
        "forest": lambda: ForestPrompter(areas=areas),
    }
    if name not in made:
        raise ConfigError(f"prompts must be one of {', '.join(PROMPTERS)}, got {name!r}")
    return made[name]()


def _require_frame(frame: object) -> None:
    """Raises ``ImageError`` for other arrays: floats would be taken for a nearly black image."""
    if isinstance(frame, Frame):
        return
    kind = getattr(frame, "dtype", type(frame).__name__)
    raise ImageError(
        f"SAM 2 takes a Frame of uint8 pixels from 0 to 255, got {kind}: scale floats to 0..255, "
        f"convert with astype(np.uint8), and wrap the RGB array in a Frame"
    )
