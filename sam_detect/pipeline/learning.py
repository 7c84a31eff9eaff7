"""From masks of a frame to the examples that a library keeps: crops, vectors, hard negatives."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from sam_detect.features.extraction import FeatureExtractor
from sam_detect.features.hard_negatives import HardNegatives, find_hard_negatives
from sam_detect.labelling.decision import area_range
from sam_detect.library.example import Example, example_id, now
from sam_detect.types import Frame, Masks
from sam_detect.types.labels import normalised_label
from sam_detect.types.masks import IntArray

ProposeNear = Callable[[Frame, tuple[int, int] | None, IntArray], Masks]
"""The proposals of a frame near boxes, for objects from one area to another."""


def examples_of(
    frame: Frame,
    masks: Masks,
    labels: Sequence[str],
    features: FeatureExtractor,
    propose: ProposeNear,
    *,
    proposer: str,
    negative: bool = False,
    others: Masks | None = None,
) -> list[Example]:
    """The examples of N masks.

    Args:
        propose: what is near an example and is not it, is chosen among these proposals. Not called
            for negatives.
        proposer: the segmenter that makes them; kept with their qualities unless these are rated
            by something else.

    Takes and raises what :meth:`~sam_detect.pipeline.flow.Pipeline.learn` does.
    """
    for given in (masks, others):
        if given is not None:
            given.require_fit(frame)
    named = [normalised_label(label) for label in labels]
    crops = list(features.crops(frame, masks))
    of_frames = features.embedder.of_frames
    vectors = features.embed_masks(frame, masks) if of_frames else features.embed_crops(crops)
    hard_negatives: Sequence[HardNegatives | None] = [None] * len(masks)
    if len(masks) and not negative:
        # The proposals do not depend on what was learnt before: no example may.
        near = propose(frame, area_range(masks.areas), masks.boxes_xyxy)
        hard_negatives = find_hard_negatives(
            frame, masks, crops, (near, near.rated_by or proposer), features, others=others
        )
    digest, added, examples = frame.digest, now(), []
    for index, (crop, label) in enumerate(zip(crops, named, strict=True)):
        rle = masks.rle(index)
        examples.append(
            Example(
                id=example_id(digest=digest, mask_rle=rle, label=label, negative=negative),
                label=label,
                negative=negative,
                source=frame.source_id.encode("utf-8", "backslashreplace").decode(),
                bbox=masks.boxes_xywh[index].tolist(),
                area=int(masks.areas[index]),
                added=added,
                segmentation=rle,
                crop=crop,
                vector=np.asarray(vectors[index], np.float32),
                picture=digest,
                hard_negatives=hard_negatives[index],
            )
        )
    return examples
