"""A COCO dataset file of the detections, as annotation tools and trainers read it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TextIO

from sam_detect.outputs._pictures import RelativeNames
from sam_detect.outputs._text_sink import TextSink, to_json
from sam_detect.types import Detections, Frame
from sam_detect.types.conversions import UNKNOWN_CATEGORY, COCODataset

__all__ = ["UNKNOWN_CATEGORY", "COCOSink"]


class COCOSink(TextSink):
    """One COCO file for all pictures, complete when the sink is closed.

    :class:`~sam_detect.types.conversions.COCODataset` says what is in it: polygons, and RLE for
    objects with holes. ``file_name`` is the picture's path below the folder that all ``inputs``
    have in common, with ``/``; without inputs it is the path as given.

    Args:
        output, multiple, inputs: as for :class:`TextSink`.
        include_unknown: whether objects without a label are written, as category ``unknown``.
    """

    def __init__(
        self,
        output: str | os.PathLike[str] | TextIO | None = None,
        *,
        multiple: bool = False,
        inputs: Sequence[str | os.PathLike[str]] = (),
        include_unknown: bool = False,
    ) -> None:
        super().__init__(output, multiple=multiple, inputs=inputs)
        self._include_unknown = include_unknown
        self._names = RelativeNames(inputs)
        self._dataset = COCODataset()

    def text_of(self, frame: Frame, detections: Detections) -> str:
        name = detections.source_id
        chosen = detections if self._include_unknown else detections.known
        self._dataset.add(chosen, self._names.of(name) or name)
        return ""

    def footer(self) -> str:
        return to_json(self._dataset.to_dict()) + "\n"
