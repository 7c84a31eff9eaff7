"""Detections in the forms of other libraries: COCO, supervision and pandas."""

from __future__ import annotations

import importlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from sam_detect.errors import ConfigError, UnavailableError
from sam_detect.types.annotations import Annotation, Location
from sam_detect.types.frames import Masks, Volume
from sam_detect.types.masks import FloatArray, IntArray, MaskRLE, decode_crop
from sam_detect.types.polygons import Ring, pycocotools_rle

UNKNOWN_CATEGORY = "unknown"
LEAST_POLYGON_IOU = 0.99
"""Polygons with a lower IoU with the mask are not written: COCO's polygons have no holes."""


class DetectionArrays(Protocol):
    """The attributes of :class:`~sam_detect.types.Detections` that conversions read."""

    @property
    def source_id(self) -> str: ...
    @property
    def volumes(self) -> tuple[Volume | None, ...]: ...
    @property
    def masks(self) -> Masks: ...
    @property
    def size_hw(self) -> tuple[int, int]: ...
    @property
    def boxes_xyxy(self) -> IntArray: ...
    @property
    def label(self) -> npt.NDArray[np.object_]: ...
    @property
    def best_label(self) -> npt.NDArray[np.object_]: ...
    @property
    def confidence(self) -> npt.NDArray[np.float64]: ...
    @property
    def score(self) -> FloatArray: ...
    @property
    def area(self) -> IntArray: ...
    def measures(self, index: int) -> dict[str, float]: ...
    def __len__(self) -> int: ...
    def __iter__(self) -> Iterator[Any]: ...


class COCODataset:
    """Collects the detections of images as a COCO dataset.

    ``images``, ``annotations`` and ``categories`` (the labels found, in alphabetical order,
    numbered from 1). Ids count from 1. ``segmentation`` is a list of polygons, one for each part
    of the object; if these have an IoU below :data:`LEAST_POLYGON_IOU` with the mask, because it
    has holes, it is the mask's RLE. ``bbox`` is ``[x, y, w, h]``, ``area`` the mask's pixels,
    ``iscrowd`` 0. As COCO's tools expect, ``score`` ranks the detections: it is the label's
    *confidence*; the proposal's own quality is ``proposal_score``, and ``similarity`` is the plain
    cosine to the mean of the label's examples, where it was compared with some. Objects without a
    label get the category ``unknown``.
    """

    def __init__(self, labels: Iterable[str] = ()) -> None:
        self._known = {*labels}
        self._images: list[dict[str, Any]] = []
        self._annotations: list[dict[str, Any]] = []
        self._labels: list[str] = []  # parallel to the annotations

    def add(self, detections: DetectionArrays, file_name: str) -> None:
        """Adds one image under this name."""
        height, width = detections.size_hw
        image_id = len(self._images) + 1
        self._images.append(
            {"id": image_id, "file_name": file_name, "width": width, "height": height}
        )
        for index, detection in enumerate(detections):
            self._labels.append(
                UNKNOWN_CATEGORY if detection.label is None else str(detection.label)
            )
            self._annotations.append(
                {
                    "id": len(self._annotations) + 1,
                    "image_id": image_id,
                    "category_id": 0,  # set in to_dict
                    "segmentation": coco_segmentation(detections.masks, index),
                    "bbox": detection.bbox,
                    "area": detection.area,
                    "iscrowd": 0,
                    "score": round(float(detection.confidence), 6),
                    "proposal_score": round(detection.score, 6),
                    **similarity_of(detection),
                    **detections.measures(index),
                }
            )

    def to_dict(self) -> dict[str, Any]:
        """The dataset, as plain data."""
        names = sorted({*self._known, *self._labels})
        ids = {name: number for number, name in enumerate(names, start=1)}
        return {
            "info": {"description": "detections of sam-detect", "version": "1.0"},
            "licenses": [],
            "images": self._images,
            "annotations": [
                {**annotation, "category_id": ids[label]}
                for annotation, label in zip(self._annotations, self._labels, strict=True)
            ],
            "categories": [
                {"id": ids[name], "name": name, "supercategory": "object"} for name in names
            ],
        }


def similarity_of(detection: Any) -> dict[str, float]:
    """``{"similarity": ...}`` of a detection that was compared with examples; else nothing."""
    similarity = detection.similarity
    return {} if similarity is None else {"similarity": round(similarity, 6)}


def coco_segmentation(masks: Masks, index: int) -> list[list[float]] | MaskRLE:
    """One mask as COCO polygons, or as RLE if polygons cannot represent it."""
    polygons = masks.polygons(index)
    crop, corner = masks.crop(index), masks.boxes_xyxy[index, :2]
    shape = (crop.shape[0], crop.shape[1])
    read = pycocotools_rle([(np.round(ring, 2) - corner,) for ring in polygons], shape)
    drawn = decode_crop(read["counts"].encode("ascii"), shape)
    overlap = int(np.count_nonzero(crop & drawn)) / int(np.count_nonzero(crop | drawn))
    return [flat(ring) for ring in polygons] if overlap >= LEAST_POLYGON_IOU else masks.rle(index)


def flat(ring: Ring) -> list[float]:
    """A ring as COCO's flat list ``x0, y0, x1, y1, ...``."""
    numbers: list[float] = np.round(ring, 2).ravel().tolist()
    return numbers


def to_annotations(
    detections: DetectionArrays, location: Location | None, tolerance_px: float
) -> tuple[Annotation, ...]:
    """An annotation of each detection.

    Its tags are its label (none for unknown). Its properties are ``confidence``, ``score``,
    ``area`` (in pixels), those of :meth:`Detections.measures` and, where examples were compared,
    ``similarity``: the plain cosine to the mean of the label's examples (of the best
    label's, if it is unknown), -1 to 1.

    Objects of one volume have its number as their id.

    Args:
        detections: of one picture.
        location: the plane of a stack that they lie in.
        tolerance_px: of the outlines, as of :func:`~sam_detect.types.polygons.mask_polygons`.
    """
    found = []
    for index, each in enumerate(detections):
        properties = {"confidence": round(float(each.confidence), 6)}
        properties |= similarity_of(each)
        properties |= {"score": round(float(each.score), 6), "area": each.area}
        properties |= detections.measures(index)
        volume = detections.volumes[index] if detections.volumes else None
        polygons = detections.masks.polygons_with_holes(index, tolerance_px=tolerance_px)
        tags = () if each.label is None else (str(each.label),)
        found.append(
            Annotation(
                tags, tuple(polygons), location=location, properties=properties,
                id=None if volume is None else volume.id,
            )
        )  # fmt: skip
    return tuple(found)


def to_pandas(detections: DetectionArrays) -> Any:
    """See :meth:`Detections.to_pandas`."""
    x, y, width, height = detections.masks.boxes_xywh.T
    columns = {
        "image": [detections.source_id] * len(detections),
        "label": detections.label,
        "confidence": detections.confidence,
        "best_label": detections.best_label,
        "x": x,
        "y": y,
        "w": width,
        "h": height,
        "area": detections.area,
        "score": detections.score,
    }
    return _package("pandas", "to_pandas").DataFrame(columns)


def to_supervision(detections: DetectionArrays, labels: Sequence[str] | None) -> Any:
    """See :meth:`Detections.to_supervision`."""
    supervision = _package("supervision", "to_supervision")
    found = [UNKNOWN_CATEGORY if label is None else str(label) for label in detections.label]
    known = {label for label in detections.label if label is not None}
    order = list(dict.fromkeys(sorted(known) if labels is None else labels))
    if lacking := sorted(known.difference(order)):
        raise ConfigError(f"labels must hold every label that was found; {lacking[0]!r} is missing")
    numbers = {name: number for number, name in enumerate([*order, UNKNOWN_CATEGORY])}
    masks = [detections.masks.dense(index) for index in range(len(detections))]
    return supervision.Detections(
        xyxy=detections.boxes_xyxy.astype(np.float32),
        mask=np.stack(masks) if masks else np.zeros((0, *detections.size_hw), np.bool_),
        confidence=detections.confidence.astype(np.float32),
        class_id=np.array([numbers[name] for name in found], np.int64),
        data={"class_name": np.array(found, dtype=str)},
    )


def _package(name: str, method: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        raise UnavailableError(
            f"{method}() needs the package {name}: pip install 'sam-detect[analysis]'"
        ) from error
