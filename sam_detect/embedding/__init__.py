"""The embedding room: turns faded crops into vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sam_detect.registry import room_attribute

if TYPE_CHECKING:
    from sam_detect.embedding.appearance import AppearanceEmbedder as AppearanceEmbedder
    from sam_detect.embedding.average import AverageEmbedder as AverageEmbedder
    from sam_detect.embedding.clip import CLIPEmbedder as CLIPEmbedder
    from sam_detect.embedding.sam2 import SAM2Embedder as SAM2Embedder


def __getattr__(name: str) -> Any:
    return room_attribute("embedder", name)
