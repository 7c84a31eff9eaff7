"""Figures of merit: pure functions of comparisons, pictures and vectors.

None stands for a figure that does not apply (see :mod:`sam_detect.evaluation.comparison`).
"""

from sam_detect.evaluation.metrics.coco import CocoScores, coco_scores
from sam_detect.evaluation.metrics.embedding import knn_purity, separability, silhouette
from sam_detect.evaluation.metrics.objects import (
    IOU_THRESHOLDS,
    Confusion,
    Spread,
    confusion,
    instance_scores,
    mean_iou,
    msa,
    proposal_recall,
    proposals_per_image,
    spread,
)
from sam_detect.evaluation.metrics.semantic import pixel_counts, semantic_scores

__all__ = [
    "IOU_THRESHOLDS",
    "CocoScores",
    "Confusion",
    "Spread",
    "coco_scores",
    "confusion",
    "instance_scores",
    "knn_purity",
    "mean_iou",
    "msa",
    "pixel_counts",
    "proposal_recall",
    "proposals_per_image",
    "semantic_scores",
    "separability",
    "silhouette",
    "spread",
]
