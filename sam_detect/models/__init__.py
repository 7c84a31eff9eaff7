"""Models: which there are, where their weights lie, how they come here and are loaded, where they
run. No torch in this file."""

from typing import Literal

from pydantic import Field

from sam_detect.options import Options, shown

DTYPE = Field(
    None,
    description="Numbers of SAM 2 and CLIP: fp32 is exact (the default of embedders); bf16 and "
    "fp16 are faster on GPUs, with other vectors; auto (of segmenters): bf16 on CUDA.",
)
Dtype = Literal["auto", "fp32", "bf16", "fp16"]


class SAM2Options(Options):
    """What every part has that runs SAM 2."""

    names_model = "sam_model"

    sam_model: str | None = Field(
        None,
        min_length=1,
        serialization_alias="model_size",
        description="The SAM 2 model, by default base: a size, Meta's name, or a checkpoint.",
        json_schema_extra=shown("tiny|small|base|large|NAME|PATH"),
    )
    dtype: Dtype | None = DTYPE
