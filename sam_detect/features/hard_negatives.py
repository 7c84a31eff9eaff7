"""Hard negatives: regions proposed around an example that are not the example.

A segmenter proposes parts of an object, the object with its shadow, two objects as one. Around an
outlined example all of these are known to be wrong, so every example brings its own hard
negatives. They are masks in the example's crop, so any embedder can embed them again from what
the library keeps.

What is in the picture elsewhere is its background. Some regions of it are kept with small crops of
their own, shared among the examples that are learnt together: with few examples this is what is
known best.
"""

from __future__ import annotations

import base64
import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from scipy import ndimage

from sam_detect.fading import context
from sam_detect.features.extraction import FeatureExtractor
from sam_detect.segmentation._regions import large_holes
from sam_detect.types import Crop, Frame, Masks
from sam_detect.types.masks import BoolArray, FloatArray, IntArray, intersection, rle_to_mask

SAME_OBJECT_IOU = 0.5
"""A proposal of a higher IoU with an example is a proposal of the example."""
OTHER_OBJECT_IOU = 0.4
"""A proposal of a lower IoU that shares most of its area or the example's touches the example and
is not it."""
TOUCHING_SHARE = 0.5
NEARBY_SHARE = 0.1
"""A proposal that shares less than this with every example is nearby."""
VISIBLE_SHARE = 0.6
"""Share of a proposal's box that the crop must show."""
REGIONS_KEPT = 8
"""So many touching and so many nearby regions are kept of each example, best proposals first."""
BACKGROUND_REGIONS = 16
"""So many regions of the background are kept of one picture, best proposals first. 48 left as few
false objects in videos."""
BACKGROUND_SIDE = 96
"""Longest side of their crops, in pixels."""
BACKGROUND_SIZES = 4.0
"""Their areas are at most so many times those of the examples, or as many times smaller."""
BACKGROUND_SHARE = 0.3
"""Regions of the background share less than this with each better one."""
EXAMPLES_AT_ONCE = 256
"""Of so many examples the boxes are compared with those of all proposals at a time."""
DAMAGED = "its hard negatives cannot be read"

Shares = npt.NDArray[np.float64]


@dataclass(frozen=True, eq=False)
class HardNegatives:
    """The hard negatives of one example.

    Attributes:
        proposer: name of the segmenter; empty if nothing was proposed.
        quality: the predicted IoU (0 to 1) of its proposal of the example; None if it made none.
        masks: M regions of the example's *crop* that are not it.
        touching: ``(K,)`` bool, see :class:`~sam_detect.types.HardNegativeArrays`; also true of
            nearby regions and of the background if all objects of the picture were outlined.
            First those of ``masks``.
        vectors: ``(K, D)`` float32, in the same order.
        background: crops of K - M regions elsewhere in the picture, at most
            :data:`BACKGROUND_SIDE` pixels wide.
    """

    proposer: str
    quality: float | None
    masks: Masks
    touching: BoolArray
    vectors: FloatArray
    background: tuple[Crop, ...] = ()

    @classmethod
    def unknown(cls, crop: Crop) -> HardNegatives:
        """Of an example without proposals around it."""
        masks = Masks.empty((crop.mask.shape[0], crop.mask.shape[1]))
        return cls("", None, masks, np.zeros(0, np.bool_), np.zeros((0, 0), np.float32))

    def to_payload(self) -> dict[str, Any]:
        """All but the crops of the background."""
        return {
            "proposer": self.proposer,
            "quality": self.quality,
            "boxes": self.masks.boxes_xyxy.tolist(),
            "masks": [counts.decode("ascii") for counts in self.masks.crop_rles],
            "touching": self.touching.tolist(),
            "vectors": encode_vectors(self.vectors),
        }

    @classmethod
    def from_payload(
        cls,
        data: Any,
        crop: Crop,
        *,
        dimension: int | None,
        background: Sequence[Crop] = (),
    ) -> HardNegatives:
        """Raises ``ValueError`` or ``MaskError`` where the parts do not fit each other.

        Args:
            data: as the schema has it.
            crop: of the example.
            background: the crops of the background.
            dimension: length of the example's own vector, None where it is not at hand.
        """
        noted = HardNegativeVectors.from_payload(data, dimension=dimension)
        masks = _regions(data, (crop.mask.shape[0], crop.mask.shape[1]))
        if len(masks) + len(background) != len(noted.touching):
            raise ValueError(DAMAGED)
        quality = None if math.isnan(noted.quality) else noted.quality
        parts = (masks, noted.touching, noted.vectors, tuple(background))
        return cls(noted.proposer, quality, *parts)


@dataclass(frozen=True, eq=False)
class HardNegativeVectors:
    """What labellers need of an example's hard negatives: all but their masks and crops.

    Attributes:
        quality: NaN if the segmenter made no proposal of the example.
        background: ``(K,)`` bool.
    """

    proposer: str
    quality: float
    touching: BoolArray
    background: BoolArray
    vectors: FloatArray

    @classmethod
    def from_payload(cls, data: Any, *, dimension: int | None) -> HardNegativeVectors:
        """Of a payload, or of None: no proposals; raises ``ValueError`` if its vectors do not
        fit."""
        if data is None:
            none = np.zeros(0, np.bool_)
            return cls("", math.nan, none, none, np.zeros((0, 0), np.float32))
        quality, touching = data["quality"], np.array(data["touching"], np.bool_)
        vectors = decode_vectors(data["vectors"], len(touching))
        if dimension is not None and len(touching) and vectors.shape[1] != dimension:
            raise ValueError("its hard negatives have vectors of another length than its own")
        known = math.nan if quality is None else float(quality)
        background = np.arange(len(touching)) >= len(data["boxes"])
        return cls(data["proposer"], known, touching, background, vectors)


def find_hard_negatives(
    frame: Frame,
    shown: Masks,
    crops: Sequence[Crop],
    proposed: tuple[Masks, str],
    features: FeatureExtractor,
    *,
    others: Masks | None = None,
) -> list[HardNegatives]:
    """The hard negatives of N examples (at least one) of one picture.

    Args:
        frame: the picture.
        shown: their masks.
        crops: their crops.
        proposed: all proposals of the picture, best first, and the name of the segmenter that
            made them.
        features: the recipe.
        others: all other objects of the picture, if they are known. Nearby regions are then
            certainly no objects, and count as touching.
    """
    proposals, proposer = proposed
    known = Masks.concatenate([shown, shown[:0] if others is None else others, _closed(shown)])
    pairs, shared = _shared(known, proposals)
    (of_known, region), (one, other) = pairs.T, (known.areas, proposals.areas)
    iou = shared / np.maximum(one[of_known] + other[region] - shared, 1)
    of_proposal = shared / np.maximum(other[region], 1)
    of_example = shared / np.maximum(one[of_known], 1)
    count = len(proposals)
    is_none = _largest(iou, region, count) < OTHER_OBJECT_IOU
    is_nearby = _largest(np.maximum(of_proposal, of_example), region, count) < NEARBY_SHARE
    touches = np.maximum(of_proposal, of_example) > TOUCHING_SHARE
    # An example that is all of its picture is named, not outlined: what lies in it may be it.
    outlined = shown.areas < shown.size_hw[0] * shown.size_hw[1]
    ends = np.searchsorted(of_known, np.arange(len(shown) + 1))
    found, chosen = [], []
    for index, crop in enumerate(crops):
        near = _inside(proposals, crop)
        mine = slice(ends[index], ends[index + 1])
        meeting = region[mine][touches[mine] & outlined[index]]
        touching = meeting[near[meeting] & is_none[meeting]][:REGIONS_KEPT]
        nearby = np.flatnonzero(near & is_nearby)[:REGIONS_KEPT]
        certain = len(touching) if others is None else len(touching) + len(nearby)
        regions = np.array([*touching, *nearby], np.int64)
        masks, kept = _in_crop(proposals[regions], crop)
        chosen.append(regions[kept])
        found.append(
            HardNegatives(
                proposer=proposer,
                quality=_quality(proposals, region[mine], iou[mine]),
                masks=masks,
                touching=(np.arange(len(touching) + len(nearby)) < certain)[kept],
                vectors=np.zeros((0, features.embedder.dimension), np.float32),
            )
        )
    elsewhere = np.setdiff1d(np.flatnonzero(is_nearby), np.concatenate(chosen))
    background = _background(proposals, elsewhere, shown.areas)
    for index, each in enumerate(found):
        own = background[index :: len(found)]
        chosen[index] = np.concatenate([chosen[index], own])
        small = tuple(_small_crop(frame, proposals, place, features) for place in own)
        certainly = np.concatenate([each.touching, np.full(len(own), others is not None)])
        found[index] = replace(each, touching=certainly, background=small)
    if not features.embedder.of_frames:
        return embed_hard_negatives(found, crops, features)
    needed = np.unique(np.concatenate(chosen))
    vectors = features.embed_masks(frame, proposals[needed])
    return [
        replace(each, vectors=vectors[np.searchsorted(needed, indices)])
        for each, indices in zip(found, chosen, strict=True)
    ]


def embed_hard_negatives(
    found: Sequence[HardNegatives], crops: Sequence[Crop], features: FeatureExtractor
) -> list[HardNegatives]:
    """The same hard negatives with the vectors of another recipe."""
    vectors = features.embed_crops(
        region
        for each, crop in zip(found, crops, strict=True)
        for region in itertools.chain(
            # one by one: they are many
            (_region(crop, each.masks, index, features) for index in range(len(each.masks))),
            each.background,
        )
    )
    ends = np.cumsum([len(each.touching) for each in found])[:-1]
    return [
        replace(each, vectors=part)
        for each, part in zip(found, np.split(vectors, ends) if found else (), strict=True)
    ]


def encode_vectors(vectors: FloatArray) -> str:
    """Vectors as text, in half precision: what is compared needs no more."""
    return base64.b64encode(vectors.astype("<f2").tobytes()).decode("ascii")


def decode_vectors(text: str, count: int) -> FloatArray:
    """``(count, D)`` float32; raises ``ValueError`` where the text does not hold as many."""
    flat = np.frombuffer(base64.b64decode(text, validate=True), "<f2").astype(np.float32)
    if count == 0 and not len(flat):
        return np.zeros((0, 0), np.float32)
    if count == 0 or not len(flat) or len(flat) % count or not np.isfinite(flat).all():
        raise ValueError("the vectors of its hard negatives are damaged")
    return flat.reshape(count, -1)


def _regions(data: Any, size_hw: tuple[int, int]) -> Masks:
    """The masks of a payload; only one of them is held at its full size."""
    boxes, texts = data["boxes"], data["masks"]
    if len(boxes) != len(texts):
        raise ValueError(DAMAGED)
    found = [Masks.empty(size_hw)]
    for box, text in zip(boxes, texts, strict=True):
        x0, y0, x1, y1 = box
        if not (0 <= x0 < x1 <= size_hw[1] and 0 <= y0 < y1 <= size_hw[0]):
            raise ValueError("one of its hard negatives lies outside of its crop")
        # Decoded by our own code: a file is not ours.
        mask = rle_to_mask({"size": [y1 - y0, x1 - x0], "counts": text})
        found.append(Masks.from_crops(size_hw=size_hw, boxes_xyxy=[box], crops=[mask]))
    return Masks.concatenate(found)


def _quality(proposals: Masks, regions: IntArray, iou: Shares) -> float | None:
    """The predicted IoU of the proposal that overlaps the example best, of some that meet it."""
    if not len(iou) or iou.max() < SAME_OBJECT_IOU:
        return None
    quality = float(proposals.predicted_ious[regions[int(iou.argmax())]])
    return None if math.isnan(quality) else min(max(quality, 0.0), 1.0)


def _largest(values: Shares, places: IntArray, count: int) -> Shares:
    """``(count,)`` the largest value at each place; 0 where there is none."""
    largest = np.zeros(count)
    np.maximum.at(largest, places, values)
    return largest


def _shared(shown: Masks, proposals: Masks) -> tuple[IntArray, IntArray]:
    """``(P, 2)`` indices of examples and proposals that meet, in order, and ``(P,)`` pixels that
    they share. A matrix of all examples and all proposals may not fit into memory."""
    met = [np.zeros((0, 2), np.int64)]
    for start in range(0, len(shown), EXAMPLES_AT_ONCE):
        boxes_xyxy = shown.boxes_xyxy[start : start + EXAMPLES_AT_ONCE, None]
        low = np.maximum(boxes_xyxy[..., :2], proposals.boxes_xyxy[None, :, :2])
        high = np.minimum(boxes_xyxy[..., 2:], proposals.boxes_xyxy[None, :, 2:])
        met.append(np.argwhere((low < high).all(axis=2)) + np.array([start, 0]))
    pairs = np.concatenate(met)
    outlines, shared = shown.crops(), np.zeros(len(pairs), np.int64)
    last, crop = -1, np.zeros((0, 0), np.bool_)
    for place in np.argsort(pairs[:, 1], kind="stable").tolist():  # each crop is decoded once
        row, column = pairs[place].tolist()
        if column != last:
            last, crop = column, proposals.crop(column)
        boxes = shown.boxes_xyxy[row], proposals.boxes_xyxy[column]
        shared[place] = intersection(outlines[row], boxes[0], crop, boxes[1])
    return pairs, shared


def _closed(shown: Masks) -> Masks:
    """Of the examples with large holes: the same without holes, and each hole. What is proposed
    there is neither a wrong outline of something else nor background."""
    boxes, crops = [], []
    for box, crop in zip(shown.boxes_xyxy.tolist(), shown.crops(), strict=True):
        holes = large_holes(crop)
        if holes is not None:
            labels, count = ndimage.label(holes)
            crops += [crop | holes, *(labels == each for each in range(1, count + 1))]
            boxes += [box] * (count + 1)
    return Masks.from_crops(size_hw=shown.size_hw, boxes_xyxy=boxes, crops=crops)


def _inside(proposals: Masks, crop: Crop) -> BoolArray:
    """``(M,)``: proposals of whose box the crop shows most."""
    x0, y0, x1, y1 = crop.window_xyxy
    low = np.maximum(proposals.boxes_xyxy[:, :2], (x0, y0))
    high = np.minimum(proposals.boxes_xyxy[:, 2:], (x1, y1))
    shown = np.clip(high - low, 0, None).prod(axis=1)
    whole = (proposals.boxes_xyxy[:, 2:] - proposals.boxes_xyxy[:, :2]).prod(axis=1)
    return np.asarray(shown > VISIBLE_SHARE * whole, np.bool_)


def _background(proposals: Masks, elsewhere: IntArray, areas: IntArray) -> IntArray:
    """Some of the proposals elsewhere: of about the size of examples, hardly overlapping, best
    first."""
    found: list[int] = []
    smallest, largest = areas.min() / BACKGROUND_SIZES, areas.max() * BACKGROUND_SIZES
    of_size = (proposals.areas >= smallest) & (proposals.areas <= largest)
    boxes = proposals.boxes_xyxy
    for index in elsewhere[of_size[elsewhere]].tolist():
        crop = proposals.crop(index)
        shared = sum(intersection(crop, boxes[index], proposals.crop(k), boxes[k]) for k in found)
        if shared < BACKGROUND_SHARE * proposals.areas[index]:
            found.append(index)
        if len(found) == BACKGROUND_REGIONS:
            break
    return np.array(found, np.int64)


def _small_crop(frame: Frame, proposals: Masks, index: int, features: FeatureExtractor) -> Crop:
    """The crop around a proposal, as it is kept of the background."""
    return context.cut(
        frame.image_rgb,
        proposals.crop(index),
        proposals.boxes_xyxy[index].tolist(),
        occupancy=features.occupancy,
        crop_side=min(features.crop_side, BACKGROUND_SIDE),
    )


def _in_crop(regions: Masks, crop: Crop) -> tuple[Masks, BoolArray]:
    """What the crop shows of the masks, at its scale, and which of the regions are left."""
    x0, y0, x1, y1 = crop.window_xyxy
    height, width = crop.mask.shape
    found, kept = [], np.zeros(len(regions), np.bool_)
    for index in range(len(regions)):
        left, top = regions.boxes_xyxy[index, :2].tolist()
        part = regions.crop(index)[max(y0 - top, 0) : y1 - top, max(x0 - left, 0) : x1 - left]
        window = np.zeros((y1 - y0, x1 - x0), np.uint8)
        row, column = max(top - y0, 0), max(left - x0, 0)
        window[row : row + part.shape[0], column : column + part.shape[1]] = part
        if window.shape != (height, width):
            window = cv2.resize(window * 255, (width, height), interpolation=cv2.INTER_AREA)
            window = (window >= 128).astype(np.uint8)
        if window.any():
            kept[index] = True
            found.append(Masks.from_dense(window.view(np.bool_)))
    return Masks.concatenate([Masks.empty((height, width)), *found]), kept


def _region(crop: Crop, masks: Masks, index: int, features: FeatureExtractor) -> Crop:
    """The crop around a region of a crop."""
    box = masks.boxes_xyxy[index].tolist()
    cut = context.cut(
        crop.image_rgb,
        masks.crop(index),
        box,
        occupancy=features.occupancy,
        crop_side=features.crop_side,
    )
    return replace(cut, scale=cut.scale * crop.scale)
