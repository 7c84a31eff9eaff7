"""Models: which there are, where their weights lie, how they come here and are loaded, where they
run. No torch in this file."""

from pydantic import Field

from sam_detect.options import Options, shown


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
