"""SAM 2 models of random weights."""

from __future__ import annotations

from pathlib import Path

import torch
from sam2.modeling.sam2_base import SAM2Base

from sam_detect.models.sam2 import build


def seeded_sam2(config: str | Path, seed: int = 0) -> SAM2Base:
    """A model of random weights, for measurements and tests.

    Freshly made, a model's masks hardly depend on the prompt; the decoder's weights are therefore
    made larger than they would be.
    """
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        model = build(str(config)).eval().requires_grad_(False)
        for parameter in model.sam_mask_decoder.parameters():
            parameter.add_(torch.randn_like(parameter) / max(1, parameter.shape[-1]) ** 0.5)
    return model
