"""A COCO dataset file of the detections, as annotation tools and trainers read it."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, TextIO

from sam_detect.outputs._text_sink import TextSink, to_json
from sam_detect.types import Detection, Detections, Frame

UNKNOWN_CATEGORY = "unknown"


class COCOSink(TextSink):
    """One COCO file for all pictures, complete when the sink is closed.

    ``images`` (``file_name`` is the path as given), ``annotations`` (RLE ``segmentation``,
    ``bbox`` ``[x, y, w, h]``, ``area``, ``iscrowd`` 0, ``category_id``) and ``categories`` (the
    labels found, in alphabetical order, numbered from 1). Ids count from 1. As COCO's tools expect,
    ``score`` is what the detections are ranked by, the label's *confidence*; the proposal's own
    quality, which the JSON form calls ``score``, is ``proposal_score``.

    Objects without a label have no category and are left out, unless ``include_unknown`` gives
    them the category ``unknown``.

    Args:
        output, multiple, inputs: as for :class:`TextSink`.
        include_unknown: whether objects without a label are written.
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
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._labels: list[str] = []  # parallel to the annotations

    def text_of(self, frame: Frame, detections: Detections) -> str:
        height, width = detections.size_hw
        image_id = len(self._images) + 1
        self._images.append(
            {"id": image_id, "file_name": detections.source_id, "width": width, "height": height}
        )
        for detection in detections:
            label = detection.label
            if label is None and not self._include_unknown:
                continue
            self._labels.append(UNKNOWN_CATEGORY if label is None else label)
            self._annotations.append(_annotation(detection, image_id, len(self._annotations) + 1))
        return ""

    def footer(self) -> str:
        names = sorted(set(self._labels))
        ids = {name: number for number, name in enumerate(names, start=1)}
        for annotation, label in zip(self._annotations, self._labels, strict=True):
            annotation["category_id"] = ids[label]
        dataset = {
            "info": {"description": "detections of sam-detect", "version": "1.0"},
            "licenses": [],
            "images": self._images,
            "annotations": self._annotations,
            "categories": [
                {"id": ids[name], "name": name, "supercategory": "object"} for name in names
            ],
        }
        return to_json(dataset) + "\n"


def _annotation(detection: Detection, image_id: int, annotation_id: int) -> dict[str, Any]:
    return {
        "id": annotation_id,
        "image_id": image_id,
        "category_id": 0,  # known when all labels are
        "segmentation": detection.mask_rle,
        "bbox": detection.bbox,
        "area": detection.area,
        "iscrowd": 0,
        "score": round(detection.confidence, 6),
        "proposal_score": round(detection.score, 6),
    }
