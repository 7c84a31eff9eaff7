"""One SAM 2 model asked about pictures: encode, embed prompts, decode; fast or as Meta does."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from sam_detect.masks import BoolArray, FloatArray
from sam_detect.models.running import (
    BatchSize,
    enough_memory,
    float32_products,
    precision,
    sent,
)
from sam_detect.models.sam2_features import FrameFeatures, encode
from sam_detect.models.sharing import WhileAlive
from sam_detect.segmentation._sam2_compile import can_compile
from sam_detect.segmentation._sam2_decoder import FastDecoder, Undrawn
from sam_detect.segmentation._sam2_drawing import Drawing
from sam_detect.segmentation._sam2_layout import rows
from sam_detect.types import ImageRGB

SURE_LOGIT = 10.0
"""What a pixel that is surely in a given mask has as a prompt."""
ALL_MASKS = slice(0, None)
THREE_MASKS = slice(1, None)
"""Mask tokens of ``multimask_output``: the first token is for prompts that are not ambiguous."""
MASK_LIMIT = 32.0
"""Logits that are given back as a prompt are clamped to this, as the official predictor does."""


class OfficialDecoder:
    """Meta's decoder: the reference, and for forms that the fast one does not know."""

    def __init__(self, model: SAM2Base, dtype: torch.dtype = torch.float32) -> None:
        self.model, self.dtype = model, dtype

    def prepare(self, features: FrameFeatures) -> FrameFeatures:
        return features

    def decode(
        self, frame: FrameFeatures, prompts: Tensor, *, masks: Tensor | None, tokens: slice
    ) -> Undrawn:
        encoder = self.model.sam_prompt_encoder
        size = frame.image_embed.shape[-2:]
        dense = encoder.no_mask_embed.weight.reshape(1, -1, 1, 1).expand(len(prompts), -1, *size)
        with precision(prompts.device, self.dtype):
            logits, ious, *_ = self.model.sam_mask_decoder.predict_masks(
                image_embeddings=frame.image_embed,
                image_pe=encoder.get_dense_pe(),
                sparse_prompt_embeddings=prompts,
                dense_prompt_embeddings=dense if masks is None else masks,
                repeat_image=True,
                high_res_features=list(frame.high_res),
            )
        kept = logits[:, tokens].float()
        return Undrawn(ious[:, tokens].float(), lambda some: rows(kept, some))


@dataclass(frozen=True)
class Prompts:
    """B prompts of one picture, each of P points.

    Attributes:
        points_xy: ``(B, P, 2)`` float32, pixels of the picture.
        labels: ``(B, P)`` int32: 1 object, 0 ground, 2 and 3 the corners of a box.
        logits: ``(B, 1, h, w)`` earlier mask logits to go by, else None.
    """

    points_xy: FloatArray
    labels: np.ndarray
    logits: Tensor | None = None

    def __len__(self) -> int:
        return len(self.points_xy)

    def __getitem__(self, part: slice) -> Prompts:
        logits = None if self.logits is None else self.logits[part]
        return Prompts(self.points_xy[part], self.labels[part], logits)

    @classmethod
    def at(cls, points_xy: FloatArray) -> Prompts:
        """One prompt for each of ``(B, 2)`` points on an object."""
        return cls(points_xy[:, None], np.ones((len(points_xy), 1), np.int32))

    @classmethod
    def boxes(cls, boxes_xyxy: FloatArray) -> Prompts:
        corners = np.asarray(boxes_xyxy, np.float32).reshape(-1, 2, 2)
        return cls(corners, np.tile(np.array([[2, 3]], np.int32), (len(corners), 1)))


class PromptedModel:
    """Decodes prompts in chunks that fit the device.

    Args:
        model: in evaluation mode.
        dtype: of the encoder and of the decoder's image tokens.
        chunk: prompts decoded at once; fewer once memory did not suffice.
        fast: whether the restructured decoder may be used.
        compiled: whether it is compiled on first use, for a minute or so; what was compiled is
            kept under ``SAM_DETECT_HOME`` for the next process.
    """

    def __init__(
        self,
        model: SAM2Base,
        *,
        dtype: torch.dtype,
        chunk: int,
        fast: bool = True,
        compiled: bool = False,
    ) -> None:
        self.model, self.dtype = model, dtype
        self.device: torch.device = model.device
        self.chunks = BatchSize(chunk)
        self.drawing = Drawing(self.device)
        known = fast and FastDecoder.knows(model)
        with float32_products(self.device, dtype):
            self.decoder = FastDecoder(model, dtype) if known else OfficialDecoder(model, dtype)
        self._made: WhileAlive[FrameFeatures, Any] = WhileAlive(1)
        if compiled and isinstance(self.decoder, FastDecoder) and can_compile():
            self.decoder.compile()

    @property
    def chunk(self) -> int:
        """Prompts decoded at once."""
        return self.chunks.size

    def encode(self, images: Sequence[ImageRGB]) -> list[FrameFeatures]:
        """The features of pictures of any size, encoded together as far as memory suffices."""
        return encode(self.model, images, self.dtype)

    def embed(self, prompts: Prompts, size_hw: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """The sparse ``(B, P', C)`` and, for prompts with logits, dense ``(B, C, h, w)`` parts."""
        extent = np.array(size_hw[::-1], np.float32)
        points = prompts.points_xy.astype(np.float32) / extent * self.model.image_size
        sparse, dense = self.model.sam_prompt_encoder(
            points=(sent(points, self.device), sent(prompts.labels, self.device)),
            boxes=None,
            masks=prompts.logits,
        )
        return sparse, None if prompts.logits is None else dense

    def as_logits(self, masks: Iterable[BoolArray]) -> Tensor:
        """``(B, 1, h, w)`` logits that say what full-size masks do, for prompts."""
        height, width = self.model.sam_prompt_encoder.mask_input_size
        small = [
            cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
            for mask in masks
        ]
        shares = sent(np.stack(small), self.device)
        return (2 * shares[:, None] - 1) * SURE_LOGIT

    def ask(
        self,
        features: FrameFeatures,
        prompts: Prompts,
        size_hw: tuple[int, int],
        *,
        tokens: slice,
        take: Callable[[slice, Undrawn], None],
    ) -> None:
        """Decodes prompts chunk by chunk and hands each chunk on, with its place among them.

        Where memory does not suffice, also while a chunk is taken, it is decoded again in smaller
        ones: ``take`` must change nothing before all of its work is done.
        """

        def one(part: slice) -> None:
            take(part, self._decode(frame, prompts[part], size_hw, tokens))

        with enough_memory(), float32_products(self.device, self.dtype):
            frame = self._prepared(features)
            for _ in self.chunks.parts(len(prompts), one):
                pass

    def _prepared(self, features: FrameFeatures) -> Any:
        """What the prompts of a picture share; kept for the prompts that follow."""
        if isinstance(self.decoder, OfficialDecoder):
            return features  # as they are: kept for themselves, they would never go
        return self._made.of(features, lambda: self.decoder.prepare(features))

    def _decode(
        self, frame: Any, prompts: Prompts, size_hw: tuple[int, int], tokens: slice
    ) -> Undrawn:
        sparse, dense = self.embed(prompts, size_hw)
        return self.decoder.decode(frame, sparse, masks=dense, tokens=tokens)

    def one_mask_each(
        self, undrawn: Undrawn, prompts: Sequence[int], tokens: slice
    ) -> tuple[Tensor, Tensor]:
        """The ``(K, h, w)`` logits and the ``(K,)`` IoUs of prompts that mean one mask each.

        Of an answer of all masks, as with ``multimask_output=False``: the first, or the best of
        the others where the first is not stable. Of an answer of three: the best.
        """
        logits, ious = undrawn.draw_many(prompts), rows(undrawn.ious, prompts)
        if tokens == THREE_MASKS:
            best, each = ious.argmax(1), torch.arange(len(ious), device=ious.device)
            return logits[each, best], ious[each, best]
        decoder = self.model.sam_mask_decoder
        if decoder.dynamic_multimask_via_stability:
            logits, ious = decoder._dynamic_multimask_via_stability(logits, ious)
        return logits[:, 0], ious[:, 0]
