"""Small CLIP models with fixed seeds: all of the real classes, few dimensions.

Their architecture is added to those that open_clip knows by name, for the tests alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import open_clip
import torch
from safetensors.torch import save_file

ARCHITECTURE = "small-clip"

open_clip.add_model_config(Path(__file__).parent / "fixtures" / f"{ARCHITECTURE}.json")


def small_clip(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return open_clip.create_model(ARCHITECTURE).eval()


def write_small_clip(folder: Path, seed: int = 0) -> Path:
    """Writes the weights of :func:`small_clip`; the file's name tells the architecture."""
    folder.mkdir(parents=True, exist_ok=True)
    state = {name: value.contiguous() for name, value in small_clip(seed).state_dict().items()}
    path = folder / f"{ARCHITECTURE}.safetensors"
    save_file(state, path)
    return path


def official_clip(weights: Path) -> tuple[Any, Any, Any]:
    """Model, preprocessing and tokenizer of :func:`small_clip` as open_clip itself loads them."""
    model, preprocess = open_clip.create_model_from_pretrained(
        ARCHITECTURE, pretrained=str(weights)
    )
    return model.eval(), preprocess, open_clip.get_tokenizer(ARCHITECTURE)
