"""How well a recipe's vectors tell the objects of a dataset apart, before anything is labelled."""

from __future__ import annotations

import numpy as np

from sam_detect.evaluation.comparison import overlap
from sam_detect.evaluation.dataset import AnnotatedPicture, Dataset
from sam_detect.evaluation.metrics import knn_purity, separability, silhouette
from sam_detect.evaluation.pipeline import PipelineMethod
from sam_detect.evaluation.run import outlines
from sam_detect.masks import FloatArray
from sam_detect.sources import load_image
from sam_detect.types import Frame

AWAY_IOU = 0.1
"""Proposals that overlap every object less are no objects."""


def embedding_quality(
    dataset: Dataset, pipeline: PipelineMethod, *, max_pixels: int
) -> dict[str, float | None]:
    """``separability``, ``knn_purity`` and ``silhouette`` of all objects of a dataset, and of as
    many proposals of each picture that are none.

    Raises:
        ImageError: a picture cannot be read.
    """
    vectors: list[FloatArray] = []
    labels: list[str | None] = []
    pictures: list[object] = []
    for picture in dataset.pictures:
        frame = load_image(picture.path, max_pixels=max_pixels)
        objects = [o for o in picture.objects if not o.crowd]
        if not objects:
            continue
        masks = outlines(frame, picture, objects, pipeline.outline)
        others = _no_objects(frame, picture, pipeline, dataset.boxes_only, most=len(objects))
        vectors += [pipeline.embed(frame, masks), others]
        labels += [*(o.label for o in objects), *[None] * len(others)]
        pictures += [picture.id] * (len(objects) + len(others))
    if not vectors:
        return {"separability": None, "knn_purity": None, "silhouette": None}
    together = np.concatenate(vectors)
    keys = [str(picture) for picture in pictures]
    return {
        "separability": separability(together, labels, keys),
        "knn_purity": knn_purity(together, labels, keys),
        "silhouette": silhouette(together, labels),
    }


def _no_objects(
    frame: Frame, picture: AnnotatedPicture, pipeline: PipelineMethod, boxes: bool, *, most: int
) -> FloatArray:
    """Vectors of the best proposals that are beside every object."""
    shared = overlap(pipeline.propose(frame), picture, picture.objects, boxes)
    away = np.flatnonzero(shared.max(axis=1, initial=0.0) < AWAY_IOU)
    return pipeline.vectors(frame, away[:most])
