"""SAM 2's video memory (Ravi et al. 2024): an object that is followed from frame to frame.

The steps are those of Meta's ``SAM2VideoPredictor`` on the modules of the ``sam2`` package. It
wants a whole video in a folder, and keeps what it made of every frame. Here frames come one by
one, objects come and go, and only what a later frame can still look at is kept: the outlined frame,
the memories of the last frames, and their object pointers. Holes in masks are left as they are.
"""

from __future__ import annotations

from typing import Any

import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor
from torch.nn.functional import interpolate

from sam_detect.models.running import precision, to_device
from sam_detect.models.sam2_features import FrameFeatures
from sam_detect.types.masks import BoolArray, FloatArray

ENDLESS = 1 << 30
"""Frames of a video whose length is not known."""


class VideoMemory:
    """One object, and what SAM 2 remembers of it.

    Args:
        model: in evaluation mode; objects share it.
        features: of the frame in which the object is outlined.
        mask: ``(H, W)`` its outline.
        dtype: of the model's work.
    """

    def __init__(
        self, model: SAM2Base, features: FrameFeatures, mask: BoolArray, dtype: torch.dtype
    ) -> None:
        self._model, self._dtype, self._size_hw = model, dtype, mask.shape
        self._frame = 0
        self._outputs: dict[str, dict[int, Any]] = {
            "cond_frame_outputs": {}, "non_cond_frame_outputs": {}
        }  # fmt: skip
        self._begin(features, mask)

    @torch.inference_mode()
    def follow(self, features: FrameFeatures) -> FloatArray:
        """``(H, W)`` float32 in 0..1, how likely each pixel of the next frame is the object; more
        than 0.5 on it, nowhere where SAM 2 says that it is not there.

        Args:
            features: of the next frame.
        """
        self._frame += 1
        found = self._step(features)
        self._outputs["non_cond_frame_outputs"][self._frame] = _remembered(found)
        self._forget()
        logits = interpolate(found["pred_masks"].float(), self._size_hw, mode="bilinear")[0, 0]
        return logits.sigmoid().cpu().numpy()

    @torch.inference_mode()
    def _begin(self, features: FrameFeatures, mask: BoolArray) -> None:
        """The outlined frame, whose mask is taken as it is."""
        side = (self._model.image_size,) * 2
        given = to_device(mask, self._model.device)[None, None].float()
        if mask.shape != side:
            given = interpolate(given, side, mode="bilinear", antialias=True)
        found = self._step(features, (given >= 0.5).float())
        shown = interpolate(found["pred_masks"].float(), side, mode="bilinear")
        levels, _, sizes = self._levels(features)
        with precision(self._model.device, self._dtype):
            found["maskmem_features"], found["maskmem_pos_enc"] = self._model._encode_new_memory(
                current_vision_feats=levels,
                feat_sizes=sizes,
                # As the sigmoid of these is 0 or 1, this mask counts with a hard edge.
                pred_masks_high_res=torch.where(shown > 0, torch.inf, -torch.inf),
                object_score_logits=found["object_score_logits"],
                is_mask_from_pts=True,
            )
        self._outputs["cond_frame_outputs"][0] = _remembered(found)

    def _step(self, features: FrameFeatures, mask: Tensor | None = None) -> dict[str, Any]:
        """What SAM 2 makes of a frame: of a mask that is given, or of what it remembers."""
        levels, positions, sizes = self._levels(features)
        with precision(self._model.device, self._dtype):
            found: dict[str, Any] = self._model.track_step(
                frame_idx=self._frame,
                is_init_cond_frame=mask is not None,
                current_vision_feats=levels,
                current_vision_pos_embeds=positions,
                feat_sizes=sizes,
                point_inputs=None,
                mask_inputs=mask,
                output_dict=self._outputs,
                num_frames=ENDLESS,
                run_mem_encoder=mask is None,
            )
        return found

    def _levels(
        self, features: FrameFeatures
    ) -> tuple[list[Tensor], list[Tensor], list[tuple[int, int]]]:
        """The features of all levels, finest first, and position codes, ``(h * w, 1, C)`` each, and
        their sizes ``(h, w)``."""
        maps = [*features.high_res, features.image_embed]
        levels = [each.flatten(2).permute(2, 0, 1) for each in maps]
        if self._model.directly_add_no_mem_embed:  # of a picture without memory
            levels[-1] = levels[-1] - self._model.no_mem_embed
        code = self._model.image_encoder.neck.position_encoding
        positions = [code(each).flatten(2).permute(2, 0, 1) for each in maps]
        return levels, positions, [(each.shape[-2], each.shape[-1]) for each in maps]

    def _forget(self) -> None:
        """Drops what no later frame looks at."""
        model, outputs = self._model, self._outputs["non_cond_frame_outputs"]
        memories = model.num_maskmem * model.memory_temporal_stride_for_eval
        outputs.pop(self._frame - max(memories, model.max_obj_ptrs_in_encoder), None)
        old = outputs.get(self._frame - memories)
        if old is not None:
            outputs[self._frame - memories] = {"obj_ptr": old["obj_ptr"]}


def _remembered(found: dict[str, Any]) -> dict[str, Any]:
    """What later frames look at; memories in half the precision, as Meta's predictor keeps them."""
    return {
        "maskmem_features": found["maskmem_features"].to(torch.bfloat16),
        "maskmem_pos_enc": found["maskmem_pos_enc"],
        "obj_ptr": found["obj_ptr"],
    }
