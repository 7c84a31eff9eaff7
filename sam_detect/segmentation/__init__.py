"""The segmentation room: proposes a mask for whatever looks like an object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any, Literal

from pydantic import Field

from sam_detect.models import SAM2Options
from sam_detect.options import Options, shown
from sam_detect.registry import room_attribute

if TYPE_CHECKING:
    from sam_detect.segmentation.forest import ForestSegmenter as ForestSegmenter
    from sam_detect.segmentation.naive import NaiveSegmenter as NaiveSegmenter
    from sam_detect.segmentation.sam2 import SAM2Segmenter as SAM2Segmenter


class ProposalOptions(Options):
    """Of every segmenter that comes with sam-detect."""

    min_area: int = Field(
        0,
        ge=0,
        description="Smallest mask (0: as the segmenter chooses).",
        json_schema_extra=shown("PIXELS", common=True),
    )
    max_area: int = Field(
        0,
        ge=0,
        description="Largest mask (0: no limit).",
        json_schema_extra=shown("PIXELS", common=True),
    )
    max_proposals: int = Field(
        1000,
        ge=1,
        description="Most masks proposed for one image.",
        json_schema_extra=shown("N"),
    )


class NaiveSegmenterOptions(ProposalOptions):
    """Of ``naive`` and ``forest``."""

    similar_regions: Literal["auto", "off"] = Field(
        "auto",
        description="Whether regions like the library's examples, pixel by pixel, are proposed, "
        "and no others are named; auto: of labels with 5 examples or more that can be told from "
        "their surroundings.",
    )


class PlainSegmenterOptions(NaiveSegmenterOptions):
    """Of ``naive``."""

    forest: Literal["auto", "off"] = Field(
        "auto",
        description="Whether the examples train a pixel classifier, which finds further objects; "
        "auto: for a picture in which some of them are outlined.",
    )


def _share(what: str, usual: float) -> Any:
    """An option that is a share, with SAM 2's own default."""
    return Field(
        None, ge=0, le=1, description=f"{what}; by default {usual}.", json_schema_extra=shown("0-1")
    )


class SAM2SegmenterOptions(ProposalOptions, SAM2Options):
    """Of ``sam2``."""

    prompts: Literal["grid", "adaptive", "blobs", "similarity", "forest"] = Field(
        "grid",
        description="Where SAM 2 is asked: at all points of a grid; at those where no mask is yet "
        "(adaptive); at bright and dark blobs; where the picture is like the library's examples "
        "(similarity); or at the objects that a pixel classifier finds, trained on the examples "
        "(forest).",
    )
    points_per_side: Literal["auto"] | Annotated[int, Field(ge=1, le=256)] | None = Field(
        None,
        description="Points along a side of SAM 2's grid, 1-256, by default 32; auto: as many as "
        "the library's smallest example needs.",
        json_schema_extra=shown("auto|N", expected="'auto' or a whole number from 1 to 256"),
    )
    pred_iou_thresh: float | None = _share("Least quality that SAM 2 predicts of a mask", 0.8)
    stability_score_thresh: float | None = _share("Least stability of SAM 2's masks", 0.95)
    box_nms_thresh: float | None = _share("Most overlap (IoU) of the boxes of SAM 2's masks", 0.7)
    crop_n_layers: int | None = Field(
        None,
        ge=0,
        le=4,
        description="Further layers of crops, in which SAM 2 finds smaller objects; by default 0.",
        json_schema_extra=shown("N"),
    )
    compile: bool | None = Field(
        None, description="Compile SAM 2's decoder (torch.compile): a minute once, then faster."
    )


OPTIONS = {
    "naive": PlainSegmenterOptions,
    "forest": NaiveSegmenterOptions,
    "sam2": SAM2SegmenterOptions,
}


def __getattr__(name: str) -> Any:
    return room_attribute("segmenter", name)
