"""Weights that are on this machine."""

from __future__ import annotations

from sam_detect.errors import UnavailableError
from sam_detect.models.catalogue import CLIPWeights, SAM2Weights


def require_sam2(name: str) -> SAM2Weights:
    raise UnavailableError(
        f"the weights of the SAM 2 model '{name}' are not on this machine: give the path of a "
        "checkpoint, or fetch them with sam-detect download-models --sam-model base"
    )


def require_clip(name: str) -> CLIPWeights:
    raise UnavailableError(
        f"the weights of the CLIP model '{name}' are not on this machine: give a folder that holds "
        "them, or fetch them with sam-detect download-models --clip-model base"
    )
