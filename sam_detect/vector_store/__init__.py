"""The vector-store room: vectors with payload, exact k-NN, and a small manifest beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sam_detect.registry import room_attribute

if TYPE_CHECKING:
    from sam_detect.vector_store.memory import MemoryVectorStore as MemoryVectorStore
    from sam_detect.vector_store.qdrant import QdrantVectorStore as QdrantVectorStore


def __getattr__(name: str) -> Any:
    return room_attribute("store", name)
