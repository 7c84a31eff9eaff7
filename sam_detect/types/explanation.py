"""Why a detection has its label, or none."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

Decision = Literal[
    "label", "below threshold", "other size", "unlike", "corrected here", "taught here"
]
"""``label``: the confidence reached the threshold. ``below threshold``: it did not. ``other size``:
far larger or smaller than every example. ``unlike``: pixel by pixel not like the examples of any
label, or no more so than what surrounds it. Neither of these two was compared. ``corrected here``:
this outline was taught as a negative in this image. ``taught here``: it was taught with its label
in this image.
"""

TEMPERATURE = 2.0
"""What the log-odds are divided by, so that confidences are about as often right as they say."""
MOST_LOG_ODDS = 30.0


Record = TypeVar("Record")


def replaced(record: Record, **changes: object) -> Record:
    """A frozen dataclass with other values of some fields, as ``dataclasses.replace`` makes it, for
    classes that check nothing when they are made: in a tenth of the time, and the labels of one
    picture take thousands."""
    made = object.__new__(type(record))
    made.__dict__.update(record.__dict__, **changes)
    return made


def confidence_of(log_odds: float) -> float:
    """0 to 1, from log-odds."""
    limited = min(max(log_odds, -MOST_LOG_ODDS), MOST_LOG_ODDS)
    return 1 / (1 + math.exp(-limited / TEMPERATURE))


@dataclass(frozen=True)
class Suppressed:
    """A candidate that gave way to a detection which overlaps it.

    Attributes:
        best_label: what it came closest to.
        confidence: 0 to 1.
        bbox: ``[x, y, w, h]`` in pixels.
    """

    best_label: str | None
    confidence: float
    bbox: list[int]

    def to_dict(self) -> dict[str, Any]:
        """Plain data."""
        return {**vars(self), "confidence": round(self.confidence, 6)}


@dataclass(frozen=True)
class Explanation:
    """The terms that decided about one detection, as they were computed.

    Attributes:
        decision: what made it known or unknown.
        confidence: 0 to 1; :meth:`recomputed` gives it again from the terms.
        threshold: least confidence for a label.
        votes: share of each label in the neighbours' vote (``prototype`` and ``text``: share of the
            softmax), largest first.
        similarity: to the examples of the best label, -1 to 1, under the library's metric; None
            where nothing was compared.
        prototype_similarity: plain cosine to the mean of the best label's examples, -1 to 1; None
            where nothing was compared. It decides if the labeller has a ``similarity_threshold``.
        half_similarity: at which ``calibrated`` is one half.
        calibrated: what the calibration makes of the similarity, 0 to 1.
        part_weights: how much each part of a vector counts in the similarity, by its name, as
            learnt from the library's examples; empty for vectors of one part.
        part_similarities: of each part of the vector to the nearest example of the best label.
        log_odds: the terms whose sum decides, by name (``docs/labelling.md``); empty where the
            library has no hard negatives: then ``votes`` times ``calibrated`` decides.
        hard_negative: similarity to the nearest hard negatives; None without any.
        nearest_is_background: whether the nearest of them lies elsewhere in the picture of an
            example.
        quality: of the proposal, 0 to 1; None where it is not comparable.
        typical_quality: of the best label's examples.
        negative_factor: what the nearest negative example leaves of the confidence, 0 to 1.
        suppressed: the candidates that gave way to this detection, surest first; at most
            ``MOST_SUPPRESSED``.
        suppressed_count: how many there were.
    """

    decision: Decision = "below threshold"
    confidence: float = 0.0
    threshold: float = 0.5
    votes: Mapping[str, float] = field(default_factory=dict)
    similarity: float | None = None
    half_similarity: float | None = None
    calibrated: float | None = None
    part_weights: Mapping[str, float] = field(default_factory=dict)
    part_similarities: Mapping[str, float] = field(default_factory=dict)
    log_odds: Mapping[str, float] = field(default_factory=dict)
    hard_negative: float | None = None
    nearest_is_background: bool = False
    quality: float | None = None
    typical_quality: float | None = None
    negative_factor: float = 1.0
    suppressed: tuple[Suppressed, ...] = ()
    suppressed_count: int = 0
    prototype_similarity: float | None = None

    def recomputed(self) -> float:
        """The confidence, from the terms alone."""
        if self.decision == "taught here":
            return 1.0
        if self.decision in ("other size", "unlike", "corrected here"):
            return 0.0
        if self.log_odds:
            return self.negative_factor * confidence_of(sum(self.log_odds.values()))
        share = max(self.votes.values(), default=0.0)
        return self.negative_factor * share * (self.calibrated or 0.0)

    def to_dict(self) -> dict[str, Any]:
        """Plain data, with exactly the attributes as keys."""
        return {name: _plain(value) for name, value in vars(self).items()}


MOST_SUPPRESSED = 5


def _plain(value: Any) -> Any:
    if isinstance(value, float):
        return round(value, 6)
    if isinstance(value, Mapping):
        return {name: round(float(each), 6) for name, each in value.items()}
    return [each.to_dict() for each in value] if isinstance(value, tuple) else value
