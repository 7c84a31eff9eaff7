"""The segmentation room: proposes a mask for whatever looks like an object."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from sam_detect.registry import room_attribute

if TYPE_CHECKING:
    from sam_detect.segmentation.naive import NaiveSegmenter as NaiveSegmenter
    from sam_detect.segmentation.sam2 import SAM2Segmenter as SAM2Segmenter


def __getattr__(name: str) -> Any:
    return room_attribute("segmenter", name)
