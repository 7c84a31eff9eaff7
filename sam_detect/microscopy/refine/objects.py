"""The annotations of one picture as prompts, and the outlines that come of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import cv2
import numpy as np

from sam_detect.errors import MaskError
from sam_detect.fading.context import cut
from sam_detect.features.extraction import DEFAULT_CROP_SIDE, DEFAULT_OCCUPANCY
from sam_detect.interfaces import PromptedSegmenter, RedrawingSegmenter, Segmenter
from sam_detect.segmentation.forest import ForestSegmenter
from sam_detect.segmentation.redrawn import padded, redraw
from sam_detect.types import Annotation, Crop, Frame, Masks
from sam_detect.types.masks import BoolArray, intersection
from sam_detect.types.polygons import mask_polygons, polygons_to_crop

PROMPTS = ("box", "point", "mask", "best")
LEAST_IOU = 0.3
"""With the outline as it was: less is another object."""
MOST_LEARNT = 32
"""Outlines that a forest is trained on."""
Drawn = tuple[BoolArray, tuple[int, int]] | None


@dataclass(frozen=True)
class How:
    """How outlines are refined.

    Attributes:
        prompts: one of :data:`PROMPTS`, for a segmenter that is prompted.
        padding: pixels by which they grow; below 0 shrink.
        smoothing: how far polygons may be from the mask, in pixels.
        output_tag: the label of what is refined; None keeps it.
    """

    prompts: str = "box"
    padding: int = 0
    smoothing: float = 0.7
    output_tag: str | None = None


def refine_objects(
    frame: Frame, segmenter: Segmenter, outlines: Sequence[Annotation], how: How
) -> list[Annotation | str]:
    """For each annotation its refined form, or why it is kept as it was."""
    answers: dict[int, Annotation | str] = {}
    boxes, crops, rows = [], [], []
    for index, outline in enumerate(outlines):
        try:
            box, crop = _coarse(outline, frame.size_hw)
        except MaskError as error:
            answers[index] = str(error)
            continue
        boxes.append(box)
        crops.append(crop)
        rows.append(index)
    coarse = Masks.from_crops(size_hw=frame.size_hw, boxes_xyxy=np.reshape(boxes, (-1, 4)),
                              crops=crops)  # fmt: skip
    if isinstance(segmenter, PromptedSegmenter):
        drawn, by = _prompted(frame, segmenter, coarse, how.prompts), f"sam2 {how.prompts}"
    else:
        learnt = isinstance(segmenter, ForestSegmenter)
        drawn = redraw(frame.image_rgb, coarse, crops=_crops(frame, coarse) if learnt else ())
        by = "forest" if learnt else "naive"
    for number, (index, one) in enumerate(zip(rows, drawn, strict=True)):
        answers[index] = _answer(outlines[index], coarse[[number]], one, how=how, by=by)
    return [answers[index] for index in range(len(outlines))]


def _coarse(
    outline: Annotation, size_hw: tuple[int, int]
) -> tuple[tuple[int, int, int, int], BoolArray]:
    """Its box and mask, filled where only a box is known; raises ``MaskError`` that says why it
    cannot be a prompt."""
    if outline.crowd:
        raise MaskError("it is a crowd, not one object")
    if outline.mask_rle is None and outline.polygons:
        import shapely

        for rings in outline.polygons:
            shape = shapely.Polygon(rings[0])
            if shape.area == 0:
                raise MaskError("its outline has no area")
            if shapely.is_valid_reason(shape).startswith("Self-intersection"):
                raise MaskError("its outline crosses itself")
    found = outline.crop(size_hw)
    if found is None:
        if outline.bbox_xywh is None:
            raise MaskError("only a point of it is known")
        x, y, w, h = outline.bbox_xywh
        corners = np.array([(x, y), (x + w, y), (x + w, y + h), (x, y + h)], np.float64)
        if outline.corners_xy:
            corners = np.reshape(outline.corners_xy, (4, 2))
        found = polygons_to_crop([(corners,)], size_hw) if w > 0 and h > 0 else None
        if found is None:
            raise MaskError("its box has no pixel inside the picture")
    return found


def _crops(frame: Frame, coarse: Masks) -> list[Crop]:
    """Of evenly chosen masks, as a library keeps them."""
    chosen = np.linspace(0, len(coarse) - 1, min(len(coarse), MOST_LEARNT)).astype(np.int64)
    boxes = coarse.boxes_xyxy.tolist()
    return [
        cut(frame.image_rgb, coarse.crop(index), boxes[index],
            occupancy=DEFAULT_OCCUPANCY, crop_side=DEFAULT_CROP_SIDE)
        for index in chosen.tolist()
    ]  # fmt: skip


def _prompted(
    frame: Frame, segmenter: PromptedSegmenter, coarse: Masks, prompts: str
) -> list[Drawn]:
    """What the segmenter draws for all masks at once; the best predicted IoU of several prompts.
    The frame is encoded once. One by one where it finds nothing at some."""
    if not len(coarse):
        return []
    asked = ("box", "point", "mask") if prompts == "best" else (prompts,)
    try:
        answers = [_ask(frame, segmenter, coarse, each) for each in asked]
    except MaskError:
        if len(coarse) == 1:
            return [None]
        single = [coarse[[index]] for index in range(len(coarse))]
        return [drawn for each in single for drawn in _prompted(frame, segmenter, each, prompts)]
    best = np.argmax([answer.predicted_ious for answer in answers], axis=0)
    return [
        (answers[which].crop(index), (x, y))
        for index, which in enumerate(best.tolist())
        for x, y in [answers[which].boxes_xyxy[index, :2].tolist()]
    ]


def _ask(frame: Frame, segmenter: PromptedSegmenter, coarse: Masks, prompt: str) -> Masks:
    if prompt == "point":
        return segmenter.segment_points(frame, [_deepest(coarse, i) for i in range(len(coarse))])
    if prompt == "mask" and isinstance(segmenter, RedrawingSegmenter):
        return segmenter.segment_masks(frame, coarse)
    return segmenter.segment_boxes(frame, coarse.boxes_xywh.tolist())


def _deepest(coarse: Masks, index: int) -> tuple[float, float]:
    """The pixel farthest from the outline."""
    crop = np.pad(coarse.crop(index), 1).astype(np.uint8)
    depth = cv2.distanceTransform(crop, cv2.DIST_L2, 5)[1:-1, 1:-1]
    y, x = np.unravel_index(int(depth.argmax()), depth.shape)
    return float(coarse.boxes_xyxy[index, 0] + x), float(coarse.boxes_xyxy[index, 1] + y)


def _answer(
    outline: Annotation, coarse: Masks, drawn: Drawn, *, how: How, by: str
) -> Annotation | str:
    """The refined annotation, with its references and id, or why it is kept."""
    made = None if drawn is None else padded(*drawn, 0, coarse.size_hw)
    if made is None or drawn is None:
        return "nothing is found in it"
    crop, box = made
    area, own = int(np.count_nonzero(crop)), coarse.boxes_xyxy[0].tolist()
    shared = intersection(crop, box, coarse.crop(0), own)
    iou = shared / (area + int(coarse.areas[0]) - shared)
    if iou < LEAST_IOU:
        return f"what is found there is another object (IoU {iou:.2f})"
    if how.padding and (made := padded(*drawn, how.padding, coarse.size_hw)) is None:
        return f"nothing is left of it with a padding of {how.padding}"
    crop, box = made
    polygons = tuple(mask_polygons(crop, box, tolerance_px=how.smoothing))
    if polygons_to_crop(polygons, coarse.size_hw) is None:
        return "it is too small for this smoothing"
    return replace(
        outline, polygons=polygons, mask_rle=None, bbox_xywh=None, corners_xy=(),
        tags=outline.tags if how.output_tag is None else (how.output_tag, *outline.tags[1:]),
        properties={**outline.properties, "refined_by": by, "refined_iou": round(iou, 4)}
        | ({} if outline.id is None else {"refined_from": str(outline.id)}),
        references={**outline.references, "size_hw": coarse.size_hw},
    )  # fmt: skip
