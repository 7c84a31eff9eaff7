"""The embedding room: turns faded crops into vectors."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from sam_detect.models import DTYPE, Dtype, SAM2Options
from sam_detect.options import Options, shown
from sam_detect.registry import room_attribute

if TYPE_CHECKING:
    from sam_detect.embedding.appearance import AppearanceEmbedder as AppearanceEmbedder
    from sam_detect.embedding.average import AverageEmbedder as AverageEmbedder
    from sam_detect.embedding.clip import CLIPEmbedder as CLIPEmbedder
    from sam_detect.embedding.lite import LiteEmbedder as LiteEmbedder
    from sam_detect.embedding.sam2 import SAM2Embedder as SAM2Embedder


POOLING = Field(
    None,
    description="What the embedders lite and sam2 encode: each crop (by default of sam2); the "
    "whole picture once for all objects (frame), which is faster; or (auto, by default of lite) "
    "the picture, and the crops of what that leaves undecided.",
)


def _split(value: Any) -> Any:
    """Numbers as one text: how the environment and the command line give them."""
    return value.split(",") if isinstance(value, str) else value


class CLIPOptions(Options):
    """Of ``clip``."""

    names_model = "clip_model"

    clip_model: str | None = Field(
        None,
        min_length=1,
        serialization_alias="model_name",
        description="The CLIP model, by default base: open_clip's MODEL/TAG, a Hugging Face id, or "
        "a file of weights.",
        json_schema_extra=shown("NAME|PATH"),
    )
    dtype: Dtype | None = DTYPE


class SAM2EmbedderOptions(SAM2Options):
    """Of ``sam2``."""

    pooling: Literal["crop", "frame", "auto"] | None = POOLING
    occupancies: (
        Annotated[tuple[float, ...], Field(min_length=1), BeforeValidator(_split)] | None
    ) = Field(
        None,
        description="Shares of crops of several sizes, whose vectors are joined: 0.15,0.25,0.4.",
        json_schema_extra=shown("0.05-0.80,..."),
    )


class LiteOptions(Options):
    """Of ``lite``."""

    pooling: Literal["crop", "frame", "auto"] | None = POOLING


OPTIONS = {"lite": LiteOptions, "clip": CLIPOptions, "sam2": SAM2EmbedderOptions}


def __getattr__(name: str) -> Any:
    return room_attribute("embedder", name)
