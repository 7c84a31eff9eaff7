"""How well objects are found, and how well they could have been: figures of comparisons."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np

from sam_detect.evaluation.comparison import Comparison
from sam_detect.evaluation.counts import f1_macro, pooled, total
from sam_detect.evaluation.matching import Matches, match

IOU_THRESHOLDS: tuple[float, ...] = tuple(np.linspace(0.5, 0.95, 10).tolist())
""".50, .55, ... .95, to the last bit those of COCO's evaluation."""


def instance_scores(comparisons: Sequence[Comparison], iou_threshold: float) -> dict[str, Any]:
    """Every figure of the pictures of an episode that comes from matching, as plain data.

    Returns:
        ``precision``, ``recall`` and ``f1`` over all objects (micro), ``f1_macro``, ``mean_iou``,
        ``msa``, ``proposal_recall``, ``proposals_per_image``, and ``per_class`` with the counts,
        precision, recall and F1 of every label that was to be found or was found.
    """
    matches = [match(comparison, iou_threshold) for comparison in comparisons]
    per_class = pooled(each.per_class for each in matches)
    counts = total(per_class)
    return {
        "precision": counts.precision,
        "recall": counts.recall,
        "f1": counts.f1,
        "f1_macro": f1_macro(per_class),
        "mean_iou": mean_iou(matches),
        "msa": msa(comparisons),
        "proposal_recall": proposal_recall(comparisons, iou_threshold),
        "proposals_per_image": proposals_per_image(comparisons),
        "per_class": {label: counts.to_dict() for label, counts in per_class.items()},
    }


def mean_iou(matches: Iterable[Matches]) -> float | None:
    """The mean IoU of detections with the objects they found; None where none found any."""
    ious = [each.ious[each.objects >= 0] for each in matches]
    found = np.concatenate([np.zeros(0), *ious])
    return float(found.mean()) if found.size else None


def msa(comparisons: Iterable[Comparison]) -> float | None:
    """Mean segmentation accuracy: ``TP / (TP + FP + FN)``, averaged over IoU .50:.05:.95, then
    over pictures.

    The score of the 2018 Data Science Bowl (Caicedo et al. 2019), Cellpose's "average precision"
    (Stringer et al. 2021) averaged over thresholds, and micro-sam's mSA (Archit et al. 2025).
    Labels count as in :func:`match`; those papers have one class. They pair masks so that most
    match, which is the same wherever neither detections nor objects overlap each other.

    Pictures with nothing to find and nothing falsely found do not apply and are left out; None
    where no picture is left. What is excused is so at every threshold.
    """
    accuracies = [_accuracy(comparison) for comparison in comparisons]
    known = [accuracy for accuracy in accuracies if accuracy is not None]
    return float(np.mean(known)) if known else None


def proposal_recall(comparisons: Iterable[Comparison], iou_threshold: float) -> float | None:
    """The share of objects that some proposal overlaps by at least the threshold, whatever it was
    named afterwards; None without objects. No labelling can find more (one proposal may serve
    several objects here, so it may find fewer)."""
    best = np.concatenate([np.zeros(0), *(each.best_proposal_iou for each in comparisons)])
    return float((best >= iou_threshold).mean()) if best.size else None


def proposals_per_image(comparisons: Iterable[Comparison]) -> float | None:
    """The mean number of proposals of a picture; None without pictures."""
    counts = [each.proposals for each in comparisons]
    return float(np.mean(counts)) if counts else None


def _accuracy(comparison: Comparison) -> float | None:
    """mSA of one picture. Whether it applies is the same at every threshold."""
    scores = [match(comparison, threshold).counts.jaccard for threshold in IOU_THRESHOLDS]
    known = [score for score in scores if score is not None]
    return float(np.mean(known)) if known else None
