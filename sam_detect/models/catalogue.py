"""Which weights there are."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class SAM2Weights:
    """A SAM 2 model on this machine: its name, the package's config, its file."""

    name: str
    config: str
    path: Path


@dataclass(frozen=True)
class CLIPWeights:
    """A CLIP model on this machine: open_clip's names of model and weights, and its file."""

    model: str
    pretrained: str
    path: Path
