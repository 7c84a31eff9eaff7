"""Small models with fixed seeds: all of the real classes, few dimensions."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file

CLIP_CONFIG: dict[str, Any] = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 32, "layers": 2, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 2},
}
PREPROCESSING = {"mean": [0.4, 0.5, 0.6], "std": [0.2, 0.25, 0.3], "interpolation": "bilinear"}


def small_clip(seed: int = 0) -> CLIP:
    torch.manual_seed(seed)
    model: CLIP = CLIP(**json.loads(json.dumps(CLIP_CONFIG)))
    return model.eval()


def clip_folder(folder: Path, seed: int = 0) -> Path:
    """A folder as open_clip saves a model, with :func:`small_clip` in it."""
    folder.mkdir(parents=True, exist_ok=True)
    config = {"model_cfg": CLIP_CONFIG, "preprocess_cfg": PREPROCESSING}
    (folder / "open_clip_config.json").write_text(json.dumps(config))
    state = {name: value.contiguous() for name, value in small_clip(seed).state_dict().items()}
    save_file(state, folder / "open_clip_model.safetensors")
    return folder


def official_clip(folder: Path) -> tuple[Any, Any, Any]:
    """Model, preprocessing and tokenizer of a folder as open_clip itself loads them."""
    name = f"local-dir:{folder}"
    model, preprocess = open_clip.create_model_from_pretrained(name)
    return model.eval(), preprocess, open_clip.get_tokenizer(name)
