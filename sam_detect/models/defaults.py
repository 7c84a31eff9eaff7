"""What a pipeline is made of where nobody says: models, if they are on this machine already."""

from __future__ import annotations

from importlib.util import find_spec

from sam_detect.models.catalogue import DEFAULT
from sam_detect.models.weights import available_clip, available_sam2
from sam_detect.types import Recipe

MADE_WITHOUT_MODELS = ("appearance", "average")
"""Embedders of libraries that were made without weights."""


def default_segmenter(library: Recipe | None) -> str:
    """``sam2`` where its package and the weights of its default model are here, else ``naive``.

    Args:
        library: recipe of the library that is used, None for a new one. One that was made
            without models goes on without: what its examples know of the qualities of proposals
            holds for the segmenter that they were seen by.
    """
    if library is not None and library.embedder in MADE_WITHOUT_MODELS:
        return "naive"
    here = find_spec("sam2") is not None and available_sam2(DEFAULT)
    return "sam2" if here else "naive"


def default_embedder() -> str:
    """``clip`` where its package and the weights of its default model are here, else
    ``appearance``."""
    here = find_spec("open_clip") is not None and available_clip(DEFAULT)
    return "clip" if here else "appearance"
