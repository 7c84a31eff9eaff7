"""The labelling room: names a vector by the examples near it, or says that it does not know."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import BeforeValidator, Field

from sam_detect.options import Options, shown
from sam_detect.registry import room_attribute

if TYPE_CHECKING:
    from sam_detect.labelling.examples import KNNLabeller as KNNLabeller
    from sam_detect.labelling.examples import PrototypeLabeller as PrototypeLabeller
    from sam_detect.labelling.text import TextLabeller as TextLabeller


def _split_at(separator: str) -> BeforeValidator:
    """Takes a list as one text, too: how the environment and the command line give it."""

    def split(value: Any) -> Any:
        if not isinstance(value, str):
            return value
        return [part.strip() for part in value.split(separator) if part.strip()]

    return BeforeValidator(split)


ADAPTIVE = r"otsu|top:(100|[0-9]{1,2}(\.[0-9]+)?)%"
"""How thresholds are written that follow the candidates of a picture."""
Text = Annotated[str, Field(min_length=1)]
Names = Annotated[tuple[Text, ...], Field(min_length=1), _split_at(",")]
Sentences = Annotated[tuple[Text, ...], Field(min_length=1), _split_at("|")]


class VoteOptions(Options):
    """Of every labeller that compares with examples."""

    top_k: int = Field(
        5,
        ge=1,
        le=1000,
        description="Number of nearest examples that vote.",
        json_schema_extra=shown("N"),
    )
    threshold: (
        Literal["auto"]
        | Annotated[float, Field(ge=0, le=1)]
        | Annotated[str, Field(pattern=f"^({ADAPTIVE})$")]
    ) = Field(
        "auto",
        description="Least confidence for a label; auto is 0.5, since confidences are calibrated "
        "on the library's own examples. By the candidates of each picture: otsu splits their "
        "confidences in two groups, and top:20% names the surest fifth.",
        json_schema_extra=shown(
            "auto|0-1|otsu|top:N%",
            common=True,
            expected="'auto', 'otsu', 'top:N%' or a number from 0 to 1",
            without="similarity_threshold",
        ),
    )


class ExampleOptions(VoteOptions):
    """Of ``knn`` and ``prototype``."""

    similarity_threshold: float | None = Field(
        None,
        ge=-1,
        le=1,
        description="Least plain cosine to the mean of a label's examples, which then decides "
        "instead of the confidence (threshold).",
        json_schema_extra=shown("NUMBER"),
    )
    negatives: Literal["local", "margin"] = Field(
        "local",
        description="What negatives do: local exceptions, or a margin between them and the "
        "examples everywhere.",
    )
    shape_prior: float = Field(
        0,
        ge=0,
        le=100,
        description="How much confidence an unusual shape costs, in log-odds for each spread of "
        "the examples' shapes (0: shapes count only as a part of the vectors).",
        json_schema_extra=shown("NUMBER"),
    )


class TextOptions(VoteOptions):
    """Of ``text``."""

    text_labels: Names | None = Field(
        None,
        serialization_alias="labels",
        description="Names that the labeller text compares with.",
        json_schema_extra=shown("NAME,..."),
    )
    text_templates: Sentences | None = Field(
        None,
        serialization_alias="templates",
        description="Sentences in which the labeller text puts a name for {}: 'a photo of a {}.'",
        json_schema_extra=shown("TEXT|..."),
    )
    text_none: Sentences | None = Field(
        None,
        serialization_alias="none",
        description="Texts of what has none of the names, by default of backgrounds; what is "
        "nearer to these stays unknown.",
        json_schema_extra=shown("TEXT|..."),
    )
    text_weight: float | None = Field(
        None,
        ge=0,
        le=1,
        description="Weight of texts against examples (1: texts only).",
        json_schema_extra=shown("0-1"),
    )


OPTIONS = {"knn": ExampleOptions, "prototype": ExampleOptions, "text": TextOptions}


def __getattr__(name: str) -> Any:
    return room_attribute("labeller", name)
