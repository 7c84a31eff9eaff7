"""Detections of one picture laid beside its annotated objects: all that the metrics look at."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from sam_detect.evaluation.dataset import AnnotatedObject, AnnotatedPicture, Id, masks_of
from sam_detect.evaluation.methods import Found
from sam_detect.masks import BoolArray, MaskRLE
from sam_detect.types import Masks

Floats = npt.NDArray[np.float64]
Item = tuple[AnnotatedPicture, Found, frozenset[Id]]
"""A picture, what was found in it, and the ids of its objects that were shown as examples."""


@dataclass(frozen=True, eq=False)
class Comparison:
    """N detections against G objects of one picture.

    Attributes:
        iou: ``(N, G)`` in 0..1, of masks, or of boxes where the data has boxes only.
        labels: ``(N,)`` names found; None for unknown.
        scores: ``(N,)`` in 0..1.
        object_labels: ``(G,)`` names annotated.
        excused: ``(N,)`` bool: detections of what is neither to be found nor false to find: mostly
            in a crowd region, or of an example that was shown, and named like it or unknown.
            Counts only where they find no object.
        best_proposal_iou: ``(G,)`` IoU of each object with its best proposal.
        proposals: number of proposals.
    """

    iou: Floats
    labels: npt.NDArray[np.object_]
    scores: Floats
    object_labels: npt.NDArray[np.object_]
    excused: npt.NDArray[np.bool_]
    best_proposal_iou: Floats
    proposals: int


def compare(
    picture: AnnotatedPicture,
    found: Found,
    *,
    shown: frozenset[Id] = frozenset(),
    boxes: bool = False,
    iou_threshold: float = 0.5,
) -> Comparison:
    """Lays what was found beside the objects that are to be found.

    Args:
        shown: ids of the picture's objects that were examples: not to be found again.
        boxes: compare boxes instead of masks.
        iou_threshold: from which overlap on a detection counts as one of a shown example.
    """
    wanted = tuple(o for o in picture.objects if not o.crowd and o.id not in shown)
    examples = tuple(o for o in picture.objects if not o.crowd and o.id in shown)
    crowds = tuple(o for o in picture.objects if o.crowd)
    on_examples = overlap(found.masks, picture, examples, boxes)
    in_crowds = overlap(found.masks, picture, crowds, boxes, crowd=True)
    excused = _covers(on_examples >= iou_threshold, found, examples)
    excused |= _covers(in_crowds >= iou_threshold, found, crowds)
    proposed = overlap(found.proposals, picture, wanted, boxes)
    return Comparison(
        iou=overlap(found.masks, picture, wanted, boxes),
        labels=np.array(found.labels, dtype=object),
        scores=np.asarray(found.scores, np.float64),
        object_labels=np.array([o.label for o in wanted], dtype=object),
        excused=excused,
        best_proposal_iou=proposed.max(axis=0, initial=0.0),
        proposals=len(found.proposals),
    )


def encoded_rles(masks: Masks) -> list[dict[str, Any]]:
    """Full-size RLEs as pycocotools takes them: ``counts`` in bytes."""
    return [_encoded(masks.rle(i)) for i in range(len(masks))]


def object_rles(
    picture: AnnotatedPicture, objects: Sequence[AnnotatedObject]
) -> list[dict[str, Any]]:
    """The same of objects; a filled box where only the box is known."""
    filled = (encoded_rles(masks_of(picture, [o]))[0] for o in objects if o.mask_rle is None)
    return [next(filled) if o.mask_rle is None else _encoded(o.mask_rle) for o in objects]


def _encoded(rle: MaskRLE) -> dict[str, Any]:
    return {"size": rle["size"], "counts": rle["counts"].encode("ascii")}


def _covers(overlaps: BoolArray, found: Found, objects: tuple[AnnotatedObject, ...]) -> BoolArray:
    """``(N,)``: detections that overlap an object and do not call it by another name."""
    agrees = [[label in (None, o.label) for o in objects] for label in found.labels]
    agreeing = np.array(agrees, np.bool_).reshape(overlaps.shape)
    return np.asarray((overlaps & agreeing).any(axis=1))


def overlap(
    masks: Masks,
    picture: AnnotatedPicture,
    objects: tuple[AnnotatedObject, ...],
    boxes: bool,
    *,
    crowd: bool = False,
) -> Floats:
    """``(N, G)`` IoU; for crowds the share of the detection that lies in them."""
    if len(masks) == 0 or not objects:
        return np.zeros((len(masks), len(objects)))
    from pycocotools import mask as coco

    if boxes:
        corners = masks.boxes_xyxy.astype(np.float64)
        mine: Any = np.concatenate([corners[:, :2], corners[:, 2:] - corners[:, :2]], axis=1)
        theirs: Any = np.array([o.bbox_xywh for o in objects], np.float64)
    else:
        mine, theirs = encoded_rles(masks), object_rles(picture, objects)
    shared = coco.iou(mine, theirs, [int(crowd)] * len(objects))
    return np.asarray(shared, np.float64).reshape(len(masks), len(objects))
