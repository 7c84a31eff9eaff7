"""SAM 2's mask decoder, restructured to compute the same numbers with less work.

The official decoder projects, adds and copies ``prompts x N x C`` arrays, where N (4096) is the
number of image tokens and C (256) their channels, although a prompt adds only T (about 8) tokens.
Here no array of size N is projected for a prompt. With H heads of D channels, image tokens
``x_n`` (a row of C), their positions ``p_n`` and a token ``t`` of the prompt:

**Attention of tokens to the image.** The logit of head h is

    q_ht . (W_k,h (x_n + p_n) + b_k,h)
        = (W_k,h^T q_ht) . x_n  +  q_ht . (W_k,h p_n)  +  q_ht . b_k,h

The first term is one product of the raw image tokens with a folded query of C numbers. The matrix
``W_k,h p_n`` is the same for every prompt and picture, so it is made once per model. The last term
is the same for all n and cancels in the softmax. Values fold likewise: the weights P sum to 1, so

    sum_n P_n (W_v,h x_n + b_v,h) = W_v,h (sum_n P_n x_n) + b_v,h

**Attention of the image to tokens.** With ``k_ht`` and ``v_ht`` the keys and values of the tokens,

    (W_q,h (x_n + p_n) + b_q,h) . k_ht
        = (W_q,h^T k_ht) . x_n  +  (W_q,h p_n + b_q,h) . k_ht

where the bracket on the right is made once per model. The output projection is folded into the few
values: ``x_n + P_n VO`` with rows ``VO_ht = W_o,h v_ht + b_o / H`` (a head's weights sum to 1, so
that the bias is added once).

**The first layer** has the same image tokens for all prompts of an image, unless they come with
masks: there queries, keys and values of the image are projected once per image.

**The final attention** is needed only for the tokens whose outputs are used, and the predicted IoU
is known before any mask is made. Only masks that pass are upscaled. A transposed convolution of
kernel and stride 2 is a matrix product that gives each image token 2 x 2 pixels; after two of them
the image is in blocks of 4 x 4, and only the final logits are reordered into rows.

The few tokens stay in fp32 and in Meta's own modules; only arrays of size N are in ``dtype``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, cast

import torch
import torch.nn.functional as F  # noqa: N812 - the usual name
from sam2.modeling.sam.mask_decoder import MaskDecoder
from sam2.modeling.sam.transformer import Attention, TwoWayAttentionBlock, TwoWayTransformer
from sam2.modeling.sam2_base import SAM2Base
from sam2.modeling.sam2_utils import LayerNorm2d
from torch import Tensor, nn

from sam_detect.models.running import to_device
from sam_detect.models.sam2_features import FrameFeatures

UPSCALING = 2
"""Kernel and stride of both upscaling steps."""


@dataclass(frozen=True)
class PreparedFrame:
    """What all prompts of an image share.

    Attributes:
        embed: ``(C, h, w)`` fp32, the image embedding.
        image: ``(N, C)`` image tokens of a prompt without a mask.
        keys: ``(H, D, N)``, ``values``: ``(H, N, D)``, ``queries``: ``(H, D, N)`` of ``image`` in
            the first layer.
        fine: high-resolution features in blocks, ``(N, 4, C/4)`` and ``(N, 16, C/8)``; or zeros
            that broadcast. The biases of the upscaling are in them.
    """

    embed: Tensor
    image: Tensor
    keys: Tensor
    values: Tensor
    queries: Tensor
    fine: tuple[Tensor, Tensor]


@dataclass(frozen=True)
class DecodedPrompts:
    """B decoded prompts whose masks are not upscaled yet.

    Attributes:
        ious: ``(B, M)`` fp32, the predicted IoU of each requested mask.
        mask_logits: makes the ``(K, M, 4h, 4w)`` fp32 mask logits of prompts, by their ascending
            numbers.
    """

    ious: Tensor
    mask_logits: Callable[[Sequence[int]], Tensor]


class _TokensToImage:
    """Cross-attention of the tokens (B, T, C) to the image tokens (B, N, C)."""

    def __init__(self, attention: Attention, positions: Tensor, dtype: torch.dtype) -> None:
        self.attention, self.dtype = attention, dtype
        self.heads = attention.num_heads
        by_head = (self.heads, -1)  # weights (H * D, C) as (H, D, C)
        self.key = attention.k_proj.weight.unflatten(0, by_head)
        self.value = attention.v_proj.weight.unflatten(0, by_head)
        self.positions = (self.key @ positions.T).to(dtype)  # (H, D, N)

    def project(self, image: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Keys ``(H, D, N)`` and values ``(H, N, D)`` of image tokens that prompts share.

        The bias of the keys cancels in the softmax; that of the values is added later.
        """
        keys = self.key @ (image + positions).T
        return keys.to(self.dtype), (self.value @ image.T).mT.contiguous().to(self.dtype)

    def shared(self, tokens: Tensor, keys: Tensor, values: Tensor) -> Tensor:
        """The attention's output ``(B, T, C)`` for what :meth:`project` gave."""
        query = _split_scaled(self.attention.q_proj(tokens), self.heads)  # (H, B*T, D)
        weights = torch.bmm(query.to(self.dtype), keys).softmax(-1)
        return self._output(torch.bmm(weights, values).float(), tokens)

    def own(self, tokens: Tensor, image: Tensor) -> Tensor:
        """The attention's output ``(B, T, C)`` for image tokens of each prompt."""
        batch, count, _ = tokens.shape
        query = _split_scaled(self.attention.q_proj(tokens), self.heads)
        logits = _prompts_first(torch.bmm(query.to(self.dtype), self.positions), batch)
        folded = _prompts_first(torch.bmm(query, self.key), batch).to(self.dtype)
        weights = logits.baddbmm_(folded, image.mT).softmax(-1)
        seen = torch.bmm(weights, image).float()  # (B, H*T, C)
        seen = seen.view(batch, self.heads, count, -1).transpose(0, 1).flatten(1, 2)
        return self._output(torch.bmm(seen, self.value.mT), tokens)

    def _output(self, heads: Tensor, tokens: Tensor) -> Tensor:
        """From ``(H, B*T, D)`` to the projected ``(B, T, C)``."""
        joined = heads.transpose(0, 1).reshape(*tokens.shape[:2], -1)
        return cast(Tensor, self.attention.out_proj(joined + self.attention.v_proj.bias))


class _ImageToTokens:
    """Cross-attention of image tokens (B, N, C) to tokens (B, T, C), with sum and layer norm."""

    def __init__(
        self, attention: Attention, norm: nn.LayerNorm, positions: Tensor, dtype: torch.dtype
    ) -> None:
        self.attention, self.dtype = attention, dtype
        self.heads = attention.num_heads
        self.query = attention.q_proj.weight.unflatten(0, (self.heads, -1))  # (H, D, C)
        self.positions = self._with_bias(self.query @ positions.T)
        self.output = attention.out_proj.weight.T.reshape(self.heads, -1, norm.normalized_shape[0])
        self.share = attention.out_proj.bias / self.heads
        self.shape, self.eps = norm.normalized_shape, norm.eps
        self.weight, self.bias = norm.weight.to(dtype), norm.bias.to(dtype)

    def project(self, image: Tensor, positions: Tensor) -> Tensor:
        """Queries ``(H, D, N)`` of image tokens that prompts share."""
        return self._with_bias(self.query @ (image + positions).T)

    def shared(self, places: Tensor, tokens: Tensor, queries: Tensor, image: Tensor) -> Tensor:
        """The next image tokens ``(B, N, C)``, from the ``(N, C)`` that prompts share.

        Args:
            places: ``(B, T, C)``, the tokens with their positions.
            tokens: ``(B, T, C)``, the tokens.
            queries: what :meth:`project` gave.
            image: ``(N, C)``.
        """
        keys = _split_scaled(self.attention.k_proj(places), self.heads)
        logits = _prompts_first(torch.bmm(keys.to(self.dtype), queries), len(tokens))
        before = image.expand(len(tokens), -1, -1)
        return self._added(before.baddbmm, logits, tokens)

    def own(self, places: Tensor, tokens: Tensor, image: Tensor) -> Tensor:
        """The next image tokens ``(B, N, C)``; overwrites those of ``image``."""
        batch = len(tokens)
        keys = _split_scaled(self.attention.k_proj(places), self.heads)
        logits = _prompts_first(torch.bmm(keys.to(self.dtype), self.positions), batch)
        folded = _prompts_first(torch.bmm(keys, self.query), batch).to(self.dtype)
        return self._added(image.baddbmm_, logits.baddbmm_(folded, image.mT), tokens)

    def _added(
        self, add: Callable[[Tensor, Tensor], Tensor], logits: Tensor, tokens: Tensor
    ) -> Tensor:
        batch, count, _ = tokens.shape
        weights = logits.view(batch, self.heads, count, -1).softmax(2).flatten(1, 2)
        values = _split(self.attention.v_proj(tokens), self.heads)
        values = _prompts_first(torch.bmm(values, self.output) + self.share, batch)
        summed = add(weights.mT, values.to(self.dtype))
        return F.layer_norm(summed, self.shape, self.weight, self.bias, self.eps)

    def _with_bias(self, projected: Tensor) -> Tensor:
        bias: Tensor = self.attention.q_proj.bias.reshape(self.heads, -1, 1)
        return (projected + bias).to(self.dtype)


class FastDecoder:
    """The mask decoder of a model, for prompts of one image at a time.

    Args:
        model: one that :meth:`supports`. Its weights are used as they are.
        dtype: of the image tokens.
    """

    def __init__(self, model: SAM2Base, dtype: torch.dtype = torch.float32) -> None:
        self.decoder: MaskDecoder = model.sam_mask_decoder
        self.dtype = dtype
        self.no_mask = model.sam_prompt_encoder.no_mask_embed.weight[0]
        transformer = self.decoder.transformer
        self.positions = model.sam_prompt_encoder.get_dense_pe()[0].flatten(1).T.contiguous()
        at = (self.positions, dtype)
        self.layers: Sequence[TwoWayAttentionBlock] = list(transformer.layers)
        self.token_to_image = [
            _TokensToImage(layer.cross_attn_token_to_image, *at) for layer in self.layers
        ]
        self.image_to_token = [
            _ImageToTokens(layer.cross_attn_image_to_token, layer.norm4, *at)
            for layer in self.layers
        ]
        self.final_token_to_image = _TokensToImage(transformer.final_attn_token_to_image, *at)
        first, norm, _, second, _ = self.decoder.output_upscaling
        # the weight (C, C', 2, 2) of each transposed convolution as a matrix (C, 4 * C')
        self.steps = [
            step.weight.permute(0, 2, 3, 1).flatten(1).to(dtype) for step in (first, second)
        ]
        self.biases = [step.bias.to(dtype) for step in (first, second)]
        self.norm = (norm.weight.shape, norm.weight.to(dtype), norm.bias.to(dtype), norm.eps)

    @staticmethod
    def supports(model: SAM2Base) -> bool:
        """Whether the decoder has the architecture of the released models."""
        decoder = model.sam_mask_decoder
        if type(decoder) is not MaskDecoder or type(decoder.transformer) is not TwoWayTransformer:
            return False
        layers = list(decoder.transformer.layers)
        crossing = [attention for layer in layers for attention in
                    (layer.cross_attn_token_to_image, layer.cross_attn_image_to_token)]  # fmt: skip
        crossing.append(decoder.transformer.final_attn_token_to_image)
        steps = list(decoder.output_upscaling)
        return (
            all(type(layer) is TwoWayAttentionBlock for layer in layers)
            and [layer.skip_first_layer_pe for layer in layers] == [True, False][: len(layers)]
            and all(type(attention) is Attention for attention in crossing)
            and [type(step) for step in steps]
            == [nn.ConvTranspose2d, LayerNorm2d, nn.GELU, nn.ConvTranspose2d, nn.GELU]
            and all(steps[i].kernel_size == steps[i].stride == (UPSCALING,) * 2 for i in (0, 3))
        )

    def prepare(self, features: FrameFeatures) -> PreparedFrame:
        embed = features.image_embed[0].float()
        image = embed.flatten(1).T + self.no_mask
        keys, values = self.token_to_image[0].project(image, self.positions)
        coarse, fine = (bias.view(1, 1, -1) for bias in self.biases)
        if self.decoder.use_high_res_features:
            finest, finer = (level[0].to(self.dtype) for level in features.high_res)
            coarse = coarse + _in_blocks(finer, UPSCALING)
            fine = fine + _in_blocks(finest, UPSCALING**2)
        return PreparedFrame(
            embed=embed,
            image=image.to(self.dtype),
            keys=keys,
            values=values,
            queries=self.image_to_token[0].project(image, self.positions),
            fine=(coarse, fine),
        )

    def decode(
        self, frame: PreparedFrame, prompts: Tensor, *, masks: Tensor | None, tokens: slice
    ) -> DecodedPrompts:
        """Decodes prompts up to the masks.

        Args:
            frame: the image.
            prompts: ``(B, P, C)``, from the prompt encoder.
            masks: ``(B, C, h, w)``, its dense part if prompts come with a mask, else None.
            tokens: which mask tokens; ``slice(1, None)`` are the three of ``multimask_output``.
        """
        ious, hyper, image = self._answers(frame, prompts, masks, tokens)
        return DecodedPrompts(
            ious, lambda some: self._draw(frame, rows(hyper, some), rows(image, some))
        )

    def compile(self, compiled: Callable[[Callable[..., Any]], Any]) -> None:
        """Compiles both halves: on the first call of each shape, for a minute or so; results may
        differ by rounding.

        Args:
            compiled: returns a function compiled, such as ``torch.compile``.
        """
        self._answers = compiled(self._answers)  # type: ignore[method-assign]
        self._draw = compiled(self._draw)  # type: ignore[method-assign]

    def _answers(
        self, frame: PreparedFrame, prompts: Tensor, masks: Tensor | None, tokens: slice
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Predicted IoUs ``(B, M)``, the hypernetworks' outputs ``(B, M, C/8)`` that make masks of
        upscaled image tokens, and each prompt's image tokens ``(B, N, C)``."""
        decoder = self.decoder
        scores = [decoder.obj_score_token.weight] if decoder.pred_obj_scores else []
        own = torch.cat([*scores, decoder.iou_token.weight, decoder.mask_tokens.weight])
        places = torch.cat([own.expand(len(prompts), -1, -1), prompts], dim=1)
        found, image = self._first_layer(frame, places, masks)
        for number in range(1, len(self.layers)):
            attend = partial(self.token_to_image[number].own, image=image)
            found = self._tokens(number, found, places, attend)
            image = self.image_to_token[number].own(found + places, found, image)
        found, places = self._read(found, tokens), self._read(places, tokens)
        found = found + self.final_token_to_image.own(found + places, image)
        found = self.decoder.transformer.norm_final_attn(found)
        heads = self.decoder.output_hypernetworks_mlps[tokens]
        hyper = torch.stack([head(found[:, 1 + i]) for i, head in enumerate(heads)], dim=1)
        ious = self.decoder.iou_prediction_head(found[:, 0])[:, tokens]
        return ious, hyper.to(self.dtype), image

    def _draw(self, frame: PreparedFrame, hyper: Tensor, image: Tensor) -> Tensor:
        """``(K, M, 4h, 4w)`` logits of K prompts, from ``(K, M, C/8)`` and ``(K, N, C)``."""
        coarse, fine = frame.fine
        count, tokens, _ = image.shape
        finer = (image @ self.steps[0]).view(count, tokens, UPSCALING**2, -1).add_(coarse)
        # GELU in place: newly allocated memory would cost as much time as the function itself
        finer = torch.ops.aten.gelu_(F.layer_norm(finer, *self.norm))
        finest: Tensor = (finer @ self.steps[1]).view(count, tokens, UPSCALING**4, -1).add_(fine)
        finest = torch.ops.aten.gelu_(finest).flatten(1, 2)
        # one prompt: the batched product takes six times as long in bf16 on a CPU
        blocks: Tensor = (hyper[0] @ finest[0].T)[None] if count == 1 else hyper @ finest.mT
        height, width = frame.embed.shape[1:]
        apart = blocks.float().view(count, -1, height, width, *[UPSCALING] * 4)
        ordered = apart.permute(0, 1, 2, 4, 6, 3, 5, 7)
        return ordered.reshape(count, -1, 4 * height, 4 * width)

    def _read(self, values: Tensor, tokens: slice) -> Tensor:
        """The output tokens: that of the IoUs, and those of the masks.

        By slices: a list of numbers would be copied to a GPU first.
        """
        start = int(self.decoder.pred_obj_scores)
        masks = range(start + 1, start + 1 + self.decoder.num_mask_tokens)[tokens]
        parts = values[:, start : start + 1], values[:, masks.start : masks.stop]
        return torch.cat(parts, dim=1)

    def _first_layer(
        self, frame: PreparedFrame, places: Tensor, masks: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """The tokens and image tokens after the first layer."""
        to_image, to_token = self.token_to_image[0], self.image_to_token[0]
        if masks is not None:
            image = (frame.embed + masks).flatten(2).mT.contiguous().to(self.dtype)
            found = self._tokens(0, places, places, lambda queries: to_image.own(queries, image))
            return found, to_token.own(found + places, found, image)
        found = self._tokens(
            0, places, places, lambda queries: to_image.shared(queries, frame.keys, frame.values)
        )
        return found, to_token.shared(found + places, found, frame.queries, frame.image)

    def _tokens(
        self, number: int, found: Tensor, places: Tensor, attend: Callable[[Tensor], Tensor]
    ) -> Tensor:
        """The tokens' part of a layer: self-attention, attention to the image, and MLP."""
        layer = self.layers[number]
        if layer.skip_first_layer_pe:
            found = layer.self_attn(q=found, k=found, v=found)
        else:
            asked = found + places
            found = found + layer.self_attn(q=asked, k=asked, v=found)
        found = layer.norm1(found)
        found = layer.norm2(found + attend(found + places))
        return cast(Tensor, layer.norm3(found + layer.mlp(found)))


def rows(values: Tensor, numbers: Sequence[int]) -> Tensor:
    """Rows of a tensor by their ascending numbers; a view if the numbers are consecutive."""
    if numbers[-1] - numbers[0] + 1 == len(numbers):
        return values[numbers[0] : numbers[-1] + 1]
    return values[to_device(numbers, values.device)]


def _split(tokens: Tensor, heads: int) -> Tensor:
    """``(B, T, H * D)`` as ``(H, B * T, D)``."""
    return tokens.reshape(tokens.shape[0] * tokens.shape[1], heads, -1).transpose(0, 1)


def _split_scaled(tokens: Tensor, heads: int) -> Tensor:
    """:func:`_split`, scaled by ``1 / sqrt(D)``."""
    parts = _split(tokens, heads)
    return parts * math.sqrt(1 / parts.shape[-1])


def _prompts_first(values: Tensor, batch: int) -> Tensor:
    """``(H, B * T, X)`` as a contiguous ``(B, H * T, X)``."""
    heads, _, size = values.shape
    return values.view(heads, batch, -1, size).transpose(0, 1).reshape(batch, -1, size)


def _in_blocks(features: Tensor, side: int) -> Tensor:
    """``(C, h * side, w * side)`` as ``(N, side ** 2, C)``: for each image token its pixels, in the
    order in which the upscaling steps make them."""
    steps = [UPSCALING] * (side // UPSCALING)
    height, width = features.shape[1] // side, features.shape[2] // side
    apart = features.view(-1, height, *steps, width, *steps)
    depth = len(steps)
    pairs = [axis for i in range(depth) for axis in (2 + i, 3 + depth + i)]
    return apart.permute(1, 2 + depth, *pairs, 0).reshape(height * width, side**2, -1)
