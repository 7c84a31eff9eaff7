"""What lies around an example and is not it, and how it is kept with the example.

A segmenter proposes parts of an object, the object with its shadow, two objects as one. Around an
outlined example all of these are known to be wrong, so every example brings its own
counterexamples. They are masks in the example's crop, so that any embedder can describe them
again from what the library keeps.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.fading import context
from sam_detect.library.maker import VectorMaker
from sam_detect.masks import BoolArray, FloatArray, intersection, rle_to_mask
from sam_detect.types import Crop, Masks

THE_OBJECT = 0.5
"""A proposal whose IoU with an example is higher is the example."""
NOT_THE_OBJECT = 0.4
"""One whose IoU is lower, and that shares most of its area or the example's, is not."""
MOSTLY = 0.5
BESIDE = 0.1
"""One that shares less with any example lies beside it."""
MOST = 8
"""So many touching and so many beside are kept of each example, the best proposed ones."""


@dataclass(frozen=True, eq=False)
class Surroundings:
    """What was proposed around one example.

    Attributes:
        proposer: name of the segmenter; empty where nobody looked.
        quality: what it thought of its proposal of the example, 0 to 1; None where it made none.
        masks: K regions of the example's *crop* that are not it.
        touching: ``(K,)`` bool, see :class:`~sam_detect.types.Rivals`.
        vectors: ``(K, D)`` float32.
    """

    proposer: str
    quality: float | None
    masks: Masks
    touching: BoolArray
    vectors: FloatArray

    @classmethod
    def unknown(cls, crop: Crop) -> Surroundings:
        """Of an example around which nobody looked."""
        masks = Masks.empty((crop.mask.shape[0], crop.mask.shape[1]))
        return cls("", None, masks, np.zeros(0, np.bool_), np.zeros((0, 0), np.float32))

    def to_payload(self) -> dict[str, Any]:
        return {
            "proposer": self.proposer,
            "quality": self.quality,
            "boxes": self.masks.boxes_xyxy.tolist(),
            "masks": [counts.decode("ascii") for counts in self.masks.crop_rles],
            "touching": self.touching.tolist(),
            "vectors": encoded(self.vectors),
        }

    @classmethod
    def from_payload(cls, data: dict[str, Any], crop: Crop) -> Surroundings:
        """Raises ``ValueError``, ``KeyError``, ``TypeError`` or ``MaskError`` for damaged data."""
        boxes = np.array(data["boxes"], np.int64).reshape(-1, 4)
        sizes = [(int(y1 - y0), int(x1 - x0)) for x0, y0, x1, y1 in boxes]
        side = max(crop.mask.shape)
        if any(not (0 < h <= side and 0 < w <= side) for h, w in sizes):
            raise ValueError("a region beside it lies outside of its crop")
        pairs = zip(data["masks"], sizes, strict=True)
        masks = Masks.from_crops(
            size_hw=(crop.mask.shape[0], crop.mask.shape[1]),
            boxes_xyxy=boxes,
            # Decoded by our own code: a file is not ours.
            crops=[rle_to_mask({"size": list(size), "counts": text}) for text, size in pairs],
        )
        vectors, touching = decoded(data["vectors"], len(masks)), np.array(data["touching"], bool)
        if touching.shape != (len(masks),):
            raise ValueError("what lies around it is incomplete")
        quality = data["quality"]
        known = None if quality is None else float(quality)
        return cls(str(data["proposer"]), known, masks, touching, vectors)


def look_around(
    shown: Masks, crops: Sequence[Crop], proposals: Masks, proposer: str, maker: VectorMaker
) -> list[Surroundings]:
    """The surroundings of N examples of one picture.

    Args:
        shown: their masks.
        crops: their crops.
        proposals: all proposals of the picture, best first.
        proposer: name of the segmenter that made them.
    """
    shared = _shared(shown, proposals)
    union = shown.areas[:, None] + proposals.areas[None, :] - shared
    iou = shared / np.maximum(union, 1)
    of_proposal = shared / np.maximum(proposals.areas[None, :], 1)
    of_example = shared / np.maximum(shown.areas[:, None], 1)
    is_none = iou.max(axis=0, initial=0.0) < NOT_THE_OBJECT
    is_beside = of_proposal.max(axis=0, initial=0.0) < BESIDE
    is_beside &= of_example.max(axis=0, initial=0.0) < BESIDE
    found = []
    for index, crop in enumerate(crops):
        near = _inside(proposals, crop)
        touches = (of_proposal[index] > MOSTLY) | (of_example[index] > MOSTLY)
        touching = np.flatnonzero(near & is_none & touches)[:MOST]
        beside = np.flatnonzero(near & is_beside)[:MOST]
        masks, kept = _in_crop(proposals[[*touching, *beside]], crop)
        best = int(iou[index].argmax()) if len(proposals) else -1
        fits = best >= 0 and iou[index, best] >= THE_OBJECT
        found.append(
            Surroundings(
                proposer=proposer,
                quality=float(proposals.predicted_ious[best]) if fits else None,
                masks=masks,
                touching=(np.arange(len(touching) + len(beside)) < len(touching))[kept],
                vectors=np.zeros((len(masks), maker.embedder.dimension), np.float32),
            )
        )
    return described(found, crops, maker)


def described(
    found: Sequence[Surroundings], crops: Sequence[Crop], maker: VectorMaker
) -> list[Surroundings]:
    """The same surroundings with the vectors of another recipe."""
    regions = [
        _region(crop, each.masks, index, maker)
        for each, crop in zip(found, crops, strict=True)
        for index in range(len(each.masks))
    ]
    vectors = maker.vectors(regions)
    ends = np.cumsum([len(each.masks) for each in found])
    starts = [0, *ends[:-1].tolist()]
    return [
        replace(each, vectors=vectors[start:end])
        for each, start, end in zip(found, starts, ends.tolist(), strict=True)
    ]


def encoded(vectors: FloatArray) -> str:
    """Vectors as text, in half precision: what is compared needs no more."""
    return base64.b64encode(vectors.astype("<f2").tobytes()).decode("ascii")


def decoded(text: str, count: int) -> FloatArray:
    """``(count, D)`` float32; raises ``ValueError`` where the text does not hold as many."""
    flat = np.frombuffer(base64.b64decode(text, validate=True), "<f2").astype(np.float32)
    if count == 0:
        return np.zeros((0, 0), np.float32)
    return flat.reshape(count, -1)


def _shared(shown: Masks, proposals: Masks) -> npt.NDArray[np.float64]:
    """``(N, M)``: pixels that examples share with proposals."""
    shared = np.zeros((len(shown), len(proposals)))
    low = np.maximum(shown.boxes_xyxy[:, None, :2], proposals.boxes_xyxy[None, :, :2])
    high = np.minimum(shown.boxes_xyxy[:, None, 2:], proposals.boxes_xyxy[None, :, 2:])
    crops: dict[int, BoolArray] = {}
    for row, column in np.argwhere((low < high).all(axis=2)):
        if column not in crops:
            crops[column] = proposals.crop(column)
        shared[row, column] = intersection(
            shown.crop(row), shown.boxes_xyxy[row], crops[column], proposals.boxes_xyxy[column]
        )
    return shared


def _inside(proposals: Masks, crop: Crop) -> BoolArray:
    """``(M,)``: proposals of which the crop shows everything."""
    x0, y0, x1, y1 = crop.window_xyxy
    boxes = proposals.boxes_xyxy
    inside = (boxes[:, :2] >= (x0, y0)).all(axis=1) & (boxes[:, 2:] <= (x1, y1)).all(axis=1)
    return np.asarray(inside, np.bool_)


def _in_crop(regions: Masks, crop: Crop) -> tuple[Masks, BoolArray]:
    """The masks that are left at the crop's scale, and which of the regions they are."""
    x0, y0, x1, y1 = crop.window_xyxy
    height, width = crop.mask.shape
    found, kept = [], np.zeros(len(regions), np.bool_)
    for index in range(len(regions)):
        window = np.zeros((y1 - y0, x1 - x0), np.uint8)
        left, top, right, bottom = regions.boxes_xyxy[index] - (x0, y0, x0, y0)
        window[top:bottom, left:right] = regions.crop(index)
        if window.shape != (height, width):
            window = cv2.resize(window * 255, (width, height), interpolation=cv2.INTER_AREA)
            window = (window >= 128).astype(np.uint8)
        if window.any():
            kept[index] = True
            found.append(Masks.from_dense(window.view(np.bool_)))
    return Masks.concatenate([Masks.empty((height, width)), *found]), kept


def _region(crop: Crop, masks: Masks, index: int, maker: VectorMaker) -> Crop:
    """The crop around a region of a crop."""
    box = masks.boxes_xyxy[index].tolist()
    cut = context.cut(
        crop.image_rgb,
        masks.crop(index),
        box,
        occupancy=maker.occupancy,
        crop_side=maker.crop_side,
    )
    return replace(cut, scale=cut.scale * crop.scale)
