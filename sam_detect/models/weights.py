"""Where the weights of a named model are on this machine."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from sam_detect.errors import UnavailableError
from sam_detect.models.catalogue import CLIPWeights, clip_model


@dataclass(frozen=True)
class SAM2Weights:
    """A SAM 2 checkpoint on this machine.

    Attributes:
        name: Meta's name of the model.
        config: its config in the ``sam2`` package.
        path: the checkpoint.
    """

    name: str
    config: str
    path: Path


def require_sam2(name: str) -> SAM2Weights:
    """The weights of a named model; raises ``UnavailableError`` where they are not here."""
    raise UnavailableError(
        f"the SAM 2 model '{name}' is not on this machine: "
        f"sam-detect download-models --sam-model {name}, or name a checkpoint file; "
        f"'naive' needs no model"
    )


def require_clip(name: str) -> CLIPWeights:
    """The weights of a named model; raises ``UnavailableError`` where they are not here."""
    clip_model(name)
    raise UnavailableError(
        f"the CLIP model '{name}' is not on this machine: "
        f"sam-detect download-models --clip-model {name}; the embedder 'appearance' needs no model"
    )
