"""Vector stores: vectors with payload, exact k-NN, and a small manifest."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from pydantic import Field, model_validator

from sam_detect.options import Options, shown
from sam_detect.registry import room_attribute

if TYPE_CHECKING:
    from sam_detect.vector_store.memory import MemoryVectorStore as MemoryVectorStore
    from sam_detect.vector_store.qdrant import QdrantVectorStore as QdrantVectorStore


class QdrantOptions(Options):
    """Of ``qdrant``."""

    qdrant_url: str | None = Field(
        None,
        serialization_alias="url",
        description="URL of a Qdrant server, instead of embedded.",
        json_schema_extra=shown("URL", secret=True, variable="QDRANT_URL"),
    )
    qdrant_api_key: str | None = Field(
        None,
        repr=False,
        serialization_alias="api_key",
        description="Key for the Qdrant server.",
        json_schema_extra=shown(secret=True, variable="QDRANT_API_KEY"),
    )
    qdrant_batch_size: int = Field(
        32,
        ge=1,
        le=10_000,
        serialization_alias="batch_size",
        description="Examples written to (or read from) Qdrant at once.",
        json_schema_extra=shown("N"),
    )
    qdrant_timeout_s: int = Field(
        8,
        ge=1,
        le=3600,
        serialization_alias="timeout_s",
        description="How long to wait for each answer of a Qdrant server.",
        json_schema_extra=shown("SECONDS", needs="qdrant_url"),
    )
    lock_timeout_s: float = Field(
        20.0,
        ge=0,
        description="How long to wait for another process to release a library.",
        json_schema_extra=shown("SECONDS", without="qdrant_url"),
    )

    @model_validator(mode="before")
    @classmethod
    def _key_of_a_server(cls, given: dict[str, Any]) -> dict[str, Any]:
        """A key in the environment says nothing of an embedded library."""
        return given if given.get("qdrant_url") else {**given, "qdrant_api_key": None}


OPTIONS = {"qdrant": QdrantOptions}


def __getattr__(name: str) -> Any:
    return room_attribute("store", name)
