"""Which CLIP weights there are, under all their names."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sam_detect.errors import UnknownNameError

OPENAI = {
    "base": "ViT-B-32",
    "clip-vit-b": "ViT-B-32",
    "openai/clip-vit-base-patch32": "ViT-B-32",
    "openai/clip-vit-base-patch16": "ViT-B-16",
    "openai/clip-vit-large-patch14": "ViT-L-14",
    "openai/clip-vit-large-patch14-336": "ViT-L-14-336",
}
"""Names that users know of models with OpenAI's weights."""


@dataclass(frozen=True)
class CLIPModel:
    """One set of weights for one of open_clip's architectures."""

    model: str
    pretrained: str


@dataclass(frozen=True)
class CLIPWeights:
    """CLIP weights on this machine: open_clip's names of model and weights, and their file."""

    model: str
    pretrained: str
    path: Path


def clip_model(name: str) -> CLIPModel:
    """The CLIP weights of a name; raises ``UnknownNameError``."""
    from open_clip import get_pretrained_cfg, list_pretrained

    wanted = f"{OPENAI[name]}/openai" if name in OPENAI else name.replace(":", "/")
    for model, tag in list_pretrained():
        hub = get_pretrained_cfg(model, tag).get("hf_hub", "").rstrip("/")
        if wanted in (f"{model}/{tag}", hub) or (wanted == model and tag == "openai"):
            return CLIPModel(model, tag)
    raise UnknownNameError(
        f"no CLIP model is named '{name}' (available: {', '.join(OPENAI)}, every MODEL/TAG of "
        "open_clip)"
    )
