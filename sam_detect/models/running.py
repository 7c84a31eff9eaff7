"""Runs a model on many inputs: in batches that fit into memory, in one precision."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import TypeVar

import numpy as np
import torch

from sam_detect.errors import UnavailableError
from sam_detect.masks import FloatArray

Item = TypeVar("Item")


def in_batches(
    run: Callable[[Sequence[Item]], torch.Tensor], items: Sequence[Item], size: int
) -> torch.Tensor:
    """What ``run`` gives for all items, one row for each, at most ``size`` of them at a time.

    Where the device's memory does not suffice, the batches are halved until it does.

    Raises:
        UnavailableError: not even one item fits.
    """
    rows: list[torch.Tensor] = []
    start = 0
    while start < len(items):
        try:
            rows.append(run(items[start : start + size]).cpu())
        except torch.OutOfMemoryError as error:
            if size == 1:
                raise UnavailableError(
                    "the device's memory does not suffice for this model: choose a smaller one, "
                    "or device 'cpu'"
                ) from error
            size = max(1, min(size, len(items) - start) // 2)
            torch.cuda.empty_cache()
            continue
        start += size
    return torch.cat(rows)


def precision(device: torch.device, dtype: torch.dtype) -> AbstractContextManager[object]:
    """Runs what it surrounds in a lower precision where that is faster and safe (autocast)."""
    if dtype == torch.float32:
        return nullcontext()
    return torch.autocast(device.type, dtype)


def unit_rows(vectors: torch.Tensor, model: str) -> FloatArray:
    """``(N, D)`` float32 with rows of length 1.

    Raises:
        UnavailableError: the model gave NaN or infinite values.
    """
    rows = np.asarray(vectors.detach().float().cpu().numpy(), np.float64)
    lengths = np.linalg.norm(rows, axis=1, keepdims=True)
    if not np.isfinite(lengths).all() or (lengths == 0).any():
        raise UnavailableError(
            f"the model '{model}' gives no usable vectors (NaN, infinite or zero): its weights are "
            "damaged, or need the dtype 'fp32'"
        )
    return np.asarray(rows / lengths, np.float32)
