"""One SAM 2 model: encode images, embed and decode prompts, cut out the masks that pass."""

from __future__ import annotations

import os
import shutil
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import cv2
import numpy as np
import torch
from sam2.modeling.sam2_base import SAM2Base
from torch import Tensor

from sam_detect.config import home_dir
from sam_detect.errors import one_line
from sam_detect.models.running import (
    BatchSize,
    enough_memory,
    float32_products,
    precision,
    to_device,
)
from sam_detect.models.sam2_features import FrameFeatures, encode
from sam_detect.models.sharing import WhileAlive
from sam_detect.segmentation._sam2_decoder import DecodedPrompts, FastDecoder, rows
from sam_detect.segmentation._sam2_masks import Cut, Limits, cut_out
from sam_detect.types import ImageRGB
from sam_detect.types.masks import BoolArray, FloatArray

UPSCALED_AT_ONCE = {"cpu": 1, "cuda": 16, "mps": 4}
"""Prompts: a prompt's masks take some 25 MB while they are upscaled."""


def passing(ious: Tensor, limits: Limits) -> Tensor:
    """Bool, in the shape of the predicted IoUs: which pass."""
    return ious > (limits.pred_iou if limits.pred_iou > 0 else -torch.inf)


COMPILERS = ("c++", "g++", "clang++", "cl")


def can_compile() -> bool:
    """Whether there is a C++ compiler; warns if there is none.

    If there is, torch caches compiled code under ``SAM_DETECT_HOME``, for the next process, unless
    the user chose another folder.
    """
    if not any(map(shutil.which, COMPILERS)):
        _warn("there is no C++ compiler (such as g++) on this machine")
        return False
    os.environ.setdefault("TORCHINDUCTOR_CACHE_DIR", str(home_dir() / "cache" / "torchinductor"))
    return True


def compile_or_warn(function: Callable[..., Any]) -> Callable[..., Any]:
    """The function with ``torch.compile``, which compiles for each shape of inputs.

    If that fails (a broken compiler, a GPU without Triton) it warns once and runs the function
    itself.
    """
    # imported here: it takes as long as the rest of torch
    from torch._dynamo.exc import TorchDynamoException

    current = torch.compile(function)

    def call(*inputs: Any) -> Any:
        nonlocal current
        if current is not function:
            try:
                return current(*inputs)
            except TorchDynamoException as error:
                _warn(one_line(error)[:160])
                current = function
        return function(*inputs)

    return call


def _warn(reason: str) -> None:
    warnings.warn(f"compile=True changes nothing: {reason}", stacklevel=2)


MASK_PROMPT_LOGIT = 10.0
"""Logit of a pixel inside a mask that is given as a prompt."""
ALL_MASKS = slice(0, None)
THREE_MASKS = slice(1, None)
"""Mask tokens of ``multimask_output``: the first token is for prompts that are not ambiguous."""
MASK_LIMIT = 32.0
"""Logits that are used as a prompt are clamped to this, as the official predictor does."""


class OfficialDecoder:
    """Meta's decoder: the reference, and for architectures that the fast one does not support."""

    def __init__(self, model: SAM2Base, dtype: torch.dtype = torch.float32) -> None:
        self.model, self.dtype = model, dtype

    def prepare(self, features: FrameFeatures) -> FrameFeatures:
        return features

    def decode(
        self, frame: FrameFeatures, prompts: Tensor, *, masks: Tensor | None, tokens: slice
    ) -> DecodedPrompts:
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
        return DecodedPrompts(ious[:, tokens].float(), lambda some: rows(kept, some))


@dataclass(frozen=True)
class Prompts:
    """B prompts of one image, each of P points.

    Attributes:
        points_xy: ``(B, P, 2)`` float32, pixels of the image.
        labels: ``(B, P)`` int32: 1 object, 0 background, 2 and 3 the corners of a box.
        logits: ``(B, 1, h, w)`` mask logits of an earlier answer, else None.
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
    """Decodes prompts and cuts out their masks, in batches that fit the device.

    Args:
        model: in evaluation mode.
        dtype: of the encoder and of the decoder's image tokens.
        chunk: prompts decoded at once; fewer after memory did not suffice.
        fast: whether the restructured decoder may be used.
        compiled: whether it is compiled on first use, which takes about a minute; the compiled code
            is cached under ``SAM_DETECT_HOME`` for the next process.
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
        self.at_once = BatchSize(UPSCALED_AT_ONCE[self.device.type])
        supported = fast and FastDecoder.supports(model)
        with float32_products(self.device, dtype):
            self.decoder = FastDecoder(model, dtype) if supported else OfficialDecoder(model, dtype)
        self._prepared: WhileAlive[FrameFeatures, Any] = WhileAlive(1)
        if compiled and isinstance(self.decoder, FastDecoder) and can_compile():
            self.decoder.compile(compile_or_warn)

    @property
    def chunk(self) -> int:
        """Prompts decoded at once."""
        return self.chunks.size

    def encode(self, images: Sequence[ImageRGB]) -> list[FrameFeatures]:
        """The features of images of any size, encoded together as far as memory suffices."""
        return encode(self.model, images, self.dtype)

    def embed(self, prompts: Prompts, size_hw: tuple[int, int]) -> tuple[Tensor, Tensor | None]:
        """The sparse ``(B, P', C)`` and, for prompts with logits, dense ``(B, C, h, w)`` parts."""
        extent = np.array(size_hw[::-1], np.float32)
        points = prompts.points_xy.astype(np.float32) / extent * self.model.image_size
        sparse, dense = self.model.sam_prompt_encoder(
            points=(to_device(points, self.device), to_device(prompts.labels, self.device)),
            boxes=None,
            masks=prompts.logits,
        )
        return sparse, None if prompts.logits is None else dense

    def as_logits(self, masks: Iterable[BoolArray]) -> Tensor:
        """Full-size ``(H, W)`` masks as ``(B, 1, h, w)`` logits of prompts."""
        height, width = self.model.sam_prompt_encoder.mask_input_size
        small = [
            cv2.resize(mask.astype(np.float32), (width, height), interpolation=cv2.INTER_AREA)
            for mask in masks
        ]
        shares = to_device(np.stack(small), self.device)
        return (2 * shares[:, None] - 1) * MASK_PROMPT_LOGIT

    def decode(
        self,
        features: FrameFeatures,
        prompts: Prompts,
        size_hw: tuple[int, int],
        *,
        tokens: slice,
        take: Callable[[slice, DecodedPrompts], None],
    ) -> None:
        """Decodes prompts batch by batch and passes each to ``take``, with its slice of them.

        If memory does not suffice, also inside ``take``, a batch is decoded again in smaller ones:
        ``take`` must change nothing before all of its work is done.

        Args:
            features: of the image.
            prompts: of the image.
            size_hw: of the image.
            tokens: which mask tokens: :data:`ALL_MASKS` or :data:`THREE_MASKS`.
            take: called with each decode batch.
        """

        def one(part: slice) -> None:
            sparse, dense = self.embed(prompts[part], size_hw)
            take(part, self.decoder.decode(frame, sparse, masks=dense, tokens=tokens))

        with enough_memory(), float32_products(self.device, self.dtype):
            frame = self._prepare(features)
            for _ in self.chunks.parts(len(prompts), one):
                pass

    def _prepare(self, features: FrameFeatures) -> Any:
        """What all prompts of an image share; cached for the prompts that follow."""
        if isinstance(self.decoder, OfficialDecoder):
            return features  # a cache of themselves would never be freed
        return self._prepared.of(features, lambda: self.decoder.prepare(features))

    def extract(
        self,
        decoded: DecodedPrompts,
        prompts: Sequence[int],
        masks: Sequence[int],
        size_hw: tuple[int, int],
        limits: Limits,
    ) -> list[Cut | None]:
        """K masks of a decode batch.

        Args:
            decoded: the batch.
            prompts: K numbers of prompts in the batch, ascending (some may be equal).
            masks: K numbers among the masks of their prompts.
            size_hw: of the image.
            limits: which masks pass; None for those that do not.
        """
        asked = sorted(set(prompts))
        wanted = list(zip(prompts, masks, strict=True))

        def some(part: slice) -> list[Cut | None]:
            numbers = asked[part]
            logits = decoded.mask_logits(numbers)
            chosen = [numbers.index(prompt) * logits.shape[1] + mask
                      for prompt, mask in wanted if prompt in numbers]  # fmt: skip
            at = to_device(chosen, logits.device)
            return cut_out(logits.flatten(0, 1)[at], size_hw, limits)

        return [cut for cuts in self.at_once.parts(len(asked), some) for cut in cuts]

    def extract_one_each(
        self,
        prompts: Sequence[int],
        answer: Callable[[Sequence[int]], tuple[Tensor, Tensor]],
        size_hw: tuple[int, int],
        limits: Limits,
    ) -> list[tuple[Cut | None, float]]:
        """One mask for each prompt of a decode batch, and its predicted IoU.

        Args:
            prompts: K ascending numbers in the batch.
            answer: returns the ``(K, h, w)`` logits and ``(K,)`` IoUs of some of them.
            size_hw: of the image.
            limits: which masks pass; None for those that do not.
        """

        def some(part: slice) -> list[tuple[Cut | None, float]]:
            logits, found = answer(prompts[part])
            ious = found.cpu()
            chosen = passing(ious, limits).nonzero()[:, 0]
            cuts = cut_out(logits[to_device(chosen, logits.device)], size_hw, limits)
            of = dict(zip(chosen.tolist(), cuts, strict=True))
            return [(of.get(number), iou) for number, iou in enumerate(ious.tolist())]

        return [each for part in self.at_once.parts(len(prompts), some) for each in part]

    def one_mask_each(
        self, decoded: DecodedPrompts, prompts: Sequence[int], tokens: slice
    ) -> tuple[Tensor, Tensor]:
        """The ``(K, h, w)`` logits and ``(K,)`` IoUs of the one mask that each prompt means.

        Of all masks, as with ``multimask_output=False``: the first, or the best of the others if
        the first is not stable. Of three masks: the best.
        """
        logits, ious = decoded.mask_logits(prompts), rows(decoded.ious, prompts)
        if tokens == THREE_MASKS:
            best, each = ious.argmax(1), torch.arange(len(ious), device=ious.device)
            return logits[each, best], ious[each, best]
        decoder = self.model.sam_mask_decoder
        if decoder.dynamic_multimask_via_stability:
            logits, ious = decoder._dynamic_multimask_via_stability(logits, ious)
        return logits[:, 0], ious[:, 0]
