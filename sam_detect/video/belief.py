"""What several looks at one object say together."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from sam_detect.types import Verdict

MOST_ODDS = 4.0
"""Log-odds of the surest single look; more would never be outvoted."""
LOOKS = 20
"""That a name rests on."""


def belief(looks: Sequence[Verdict], threshold: float = 0.5) -> Verdict:
    """What several looks at one object say together.

    Each look believes in its ``best_label`` with its confidence ``c``, that is with log-odds
    ``ln(c / (1 - c))``; looks that say something else count against a label. The sum is divided by
    the root of the number of looks, since looks at the same object are far from independent: ``n``
    equal looks have ``sqrt(n)`` times the log-odds of one.
    """
    odds: dict[str, float] = {}
    for label in {look.best_label for look in looks if look.best_label is not None}:
        votes = (_odds(look.confidence) for look in looks if look.best_label == label)
        against = (_odds(look.confidence) for look in looks if look.best_label != label)
        odds[label] = sum(votes) - sum(max(0.0, vote) for vote in against)
    latest = looks[-1]
    if not odds:
        return latest
    label = max(odds, key=lambda name: odds[name])
    confidence = 1 / (1 + math.exp(-odds[label] / math.sqrt(len(looks))))
    return Verdict.decided(label, confidence, threshold=threshold, neighbours=latest.neighbours)


def _odds(confidence: float) -> float:
    safe = min(max(confidence, 1e-6), 1 - 1e-6)
    return float(np.clip(math.log(safe / (1 - safe)), -MOST_ODDS, MOST_ODDS))
