"""Average precision and recall as the COCO benchmark defines them, by its own evaluation code."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from types import FunctionType
from typing import Any, TypedDict

import numpy as np
from pycocotools import coco, cocoeval

from sam_detect.evaluation.comparison import Item, mask_rles, object_rles
from sam_detect.evaluation.dataset import AnnotatedObject

MAX_DETECTIONS = 100
"""Per picture and class, the best scored: the benchmark's own limit. Where a picture has more
objects of a class (nuclei!), even perfect detections stay below 1."""
ALL_AREAS = [0.0, 1e10]


def _quiet(method: Any) -> Any:
    """A copy of a function of pycocotools whose ``print`` does nothing: its reports of progress
    would mix with our output. The original stays as it is."""
    own = {**method.__globals__, "print": lambda *_, **__: None}
    return FunctionType(method.__code__, own, method.__name__, method.__defaults__)


class _QuietCOCO(coco.COCO):
    createIndex = _quiet(coco.COCO.createIndex)  # noqa: N815 - its name


class _QuietEvaluation(cocoeval.COCOeval):
    evaluate = _quiet(cocoeval.COCOeval.evaluate)
    accumulate = _quiet(cocoeval.COCOeval.accumulate)


class CocoScores(TypedDict):
    """COCO's figures, 0 to 1; None without objects to find.

    ``ap`` is averaged over IoU .50:.05:.95 and classes, ``ap50`` over classes at IoU .5;
    ``ar100`` is the recall with at most 100 detections per picture and class, averaged over both;
    ``per_class_ap`` is ``ap`` of each class that has objects to find.
    """

    ap: float | None
    ap50: float | None
    ar100: float | None
    per_class_ap: dict[str, float]


def coco_scores(items: Sequence[Item], boxes: bool = False) -> CocoScores:
    """AP, AP50 and AR100 over all areas, by ``pycocotools.cocoeval.COCOeval`` (Lin et al. 2014).

    Crowds and shown examples are given to it as ``iscrowd``: a detection that finds no object and
    lies in one of its own label (by the share of the detection's area) counts neither way, so an
    example that is found again is not false. Unknown detections are left out. One picture in
    several items (of several episodes) counts as several pictures.

    Args:
        items: pictures with what was found in them.
        boxes: compare boxes instead of masks.
    """
    wanted = {o.label for item in items for o in item[0].objects if not _aside(item, o)}
    labels = sorted(wanted)
    if not labels:
        return CocoScores(ap=None, ap50=None, ar100=None, per_class_ap={})
    # COCO's ids start at 1: its code takes 0 for "no match".
    numbers = {label: number for number, label in enumerate(labels, start=1)}
    evaluation = _QuietEvaluation(
        _index(items, numbers, _objects(items, numbers)),
        _index(items, numbers, _detections(items, numbers)),
        "bbox" if boxes else "segm",
    )
    evaluation.params.areaRng, evaluation.params.areaRngLbl = [ALL_AREAS], ["all"]
    evaluation.params.maxDets = [MAX_DETECTIONS]
    evaluation.evaluate()
    evaluation.accumulate()
    precision = np.asarray(evaluation.eval["precision"])[:, :, :, 0, 0]  # (T, R, K)
    recall = np.asarray(evaluation.eval["recall"])[:, :, 0, 0]  # (T, K)
    return CocoScores(
        ap=float(precision.mean()),
        ap50=float(precision[0].mean()),
        ar100=float(recall.mean()),
        per_class_ap={label: float(precision[:, :, k].mean()) for k, label in enumerate(labels)},
    )


def _aside(item: Item, each: AnnotatedObject) -> bool:
    return each.crowd or each.id in item[2]


def _objects(items: Sequence[Item], numbers: dict[str, int]) -> Iterator[dict[str, Any]]:
    """The annotations of all objects, in COCO's form but for their ids."""
    for number, item in enumerate(items, start=1):
        picture = item[0]
        objects = [o for o in picture.objects if o.label in numbers]
        for each, rle in zip(objects, object_rles(picture, objects), strict=True):
            yield {
                "image_id": number,
                "category_id": numbers[each.label],
                "bbox": list(each.bbox_xywh),
                "segmentation": rle,
                "iscrowd": int(_aside(item, each)),
            }


def _detections(items: Sequence[Item], numbers: dict[str, int]) -> Iterator[dict[str, Any]]:
    """The detections of classes that have objects, in COCO's form but for their ids."""
    for number, (_, found, _) in enumerate(items, start=1):
        kept = [i for i, label in enumerate(found.labels) if label in numbers]
        masks = found.masks[kept]
        boxes = masks.boxes_xyxy.astype(np.float64)
        boxes[:, 2:] -= boxes[:, :2]
        for i, rle, box in zip(kept, mask_rles(masks), boxes.tolist(), strict=True):
            yield {
                "image_id": number,
                "category_id": numbers[str(found.labels[i])],
                "bbox": box,
                "segmentation": rle,
                "score": float(found.scores[i]),
                "iscrowd": 0,
            }


def _index(
    items: Sequence[Item], numbers: dict[str, int], annotations: Iterator[dict[str, Any]]
) -> coco.COCO:
    """A COCO dataset in memory. Areas are not looked at: all of them are evaluated."""
    index = _QuietCOCO()
    dataset: Any = {
        "images": [
            {"id": number, "height": picture.size_hw[0], "width": picture.size_hw[1]}
            for number, (picture, _, _) in enumerate(items, start=1)
        ],
        "categories": [{"id": number, "name": label} for label, number in numbers.items()],
        "annotations": [
            {"id": number, "area": 1.0, **annotation}
            for number, annotation in enumerate(annotations, start=1)
        ],
    }
    index.dataset = dataset
    index.createIndex()
    return index
