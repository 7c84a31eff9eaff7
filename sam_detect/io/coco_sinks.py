"""COCO dataset files."""

from __future__ import annotations

from functools import cached_property

from sam_detect.io.text_sinks import DatasetTextSink, to_json
from sam_detect.types import Detections
from sam_detect.types.conversions import COCODataset


class COCOSink(DatasetTextSink):
    """One COCO file for all images, complete when the sink is closed.

    :class:`~sam_detect.types.conversions.COCODataset` says what is in it: polygons, and RLE for
    objects with holes. ``file_name`` is the image's path relative to the folder that all
    ``inputs`` have in common, with ``/``; without inputs it is the path as given. See
    :class:`DatasetTextSink` for the arguments.
    """

    @cached_property
    def _dataset(self) -> COCODataset:
        return COCODataset(self.labels)

    def add(self, name: str, detections: Detections) -> None:
        self._dataset.add(detections, name)

    def footer(self) -> str:
        return to_json(self._dataset.to_dict()) + "\n"
