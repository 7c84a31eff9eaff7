"""How the restructured decoder lays out its arrays; ``_sam2_decoder`` explains the letters."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sam_detect.models.running import sent

CHILDREN = 2
"""Kernel and stride of both upscaling steps."""


def rows(values: Tensor, numbers: Sequence[int]) -> Tensor:
    """Rows of a tensor by their numbers, which rise; a view where none is left out between."""
    if numbers[-1] - numbers[0] + 1 == len(numbers):
        return values[numbers[0] : numbers[-1] + 1]
    return values[sent(numbers, values.device)]


def gelu_(values: Tensor) -> Tensor:
    """In place: memory that is new each time costs as much as the function itself."""
    torch.ops.aten.gelu_(values)
    return values


def by_head(projection: nn.Linear, heads: int) -> Tensor:
    """The weight ``(H * D, C)`` as ``(H, D, C)``."""
    return projection.weight.view(heads, -1, projection.in_features)


def in_rows(blocks: Tensor, size_hw: tuple[int, int]) -> Tensor:
    """``(B, M, N * 16)`` of image tokens' children's children as ``(B, M, 4h, 4w)``."""
    height, width = size_hw
    apart = blocks.view(*blocks.shape[:2], height, width, *[CHILDREN] * 4)
    ordered = apart.permute(0, 1, 2, 4, 6, 3, 5, 7)
    return ordered.reshape(*blocks.shape[:2], 4 * height, 4 * width)


def split(tokens: Tensor, heads: int) -> Tensor:
    """``(B, T, H * D)`` as ``(H, B * T, D)``."""
    return tokens.reshape(tokens.shape[0] * tokens.shape[1], heads, -1).transpose(0, 1)


def prompts_first(values: Tensor, batch: int) -> Tensor:
    """``(H, B * T, X)`` as a ``(B, H * T, X)`` of its own."""
    heads, _, size = values.shape
    return values.view(heads, batch, -1, size).transpose(0, 1).reshape(batch, -1, size)


def children(step: nn.ConvTranspose2d) -> Tensor:
    """The weight ``(C, C', 2, 2)`` as a matrix ``(C, 4 * C')``, child by child."""
    return step.weight.permute(0, 2, 3, 1).flatten(1)


def in_blocks(features: Tensor, side: int) -> Tensor:
    """``(C, h * side, w * side)`` as ``(N, side ** 2, C)``, in the order in which image tokens have
    children, and those have children."""
    steps = [CHILDREN] * (side // CHILDREN)
    height, width = features.shape[1] // side, features.shape[2] // side
    apart = features.view(-1, height, *steps, width, *steps)
    depth = len(steps)
    pairs = [axis for i in range(depth) for axis in (2 + i, 3 + depth + i)]
    return apart.permute(1, 2 + depth, *pairs, 0).reshape(height * width, side**2, -1)
