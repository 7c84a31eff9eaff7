"""The label of a track: a weighted vote over the classifications of its last key frames."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sam_detect.types import Classification

MAX_LOG_ODDS = 4.0
"""Limit of a single vote's log-odds, so that no vote is too strong to be outvoted."""
VOTE_WINDOW = 20
"""The number of latest votes that count."""


def weighted_vote(votes: Sequence[Classification], threshold: float = 0.5) -> Classification:
    """The joint classification of several key frames on one object.

    Each vote supports its ``best_label`` with the log-odds ``ln(c / (1 - c))`` of its confidence
    ``c``, and opposes every other label. The sum is divided by the square root of the number of
    votes, since votes on the same object are correlated: ``n`` equal votes have ``sqrt(n)`` times
    the log-odds of one.

    Args:
        votes: oldest first; at least one.
        threshold: least confidence of a label.
    """
    odds: dict[str, float] = {}
    for label in {vote.best_label for vote in votes if vote.best_label is not None}:
        support = (_log_odds(vote.confidence) for vote in votes if vote.best_label == label)
        against = (_log_odds(vote.confidence) for vote in votes if vote.best_label != label)
        odds[label] = sum(support) - sum(max(0.0, each) for each in against)
    latest = votes[-1]
    if not odds:
        return latest
    label = max(odds, key=lambda name: odds[name])
    confidence = 1 / (1 + math.exp(-odds[label] / math.sqrt(len(votes))))
    return Classification.decided(
        label, confidence, threshold=threshold, neighbours=latest.neighbours
    )


def _log_odds(confidence: float) -> float:
    safe = min(max(confidence, 1e-6), 1 - 1e-6)
    return float(np.clip(math.log(safe / (1 - safe)), -MAX_LOG_ODDS, MAX_LOG_ODDS))
