"""True, false and missed, counted: of objects and of pixels alike.

Where a figure does not apply it is None (``null`` in JSON), and 0 only where it is truly 0:

=================================  =========  ======  =====  =======
what there is                      precision  recall  F1     Jaccard
=================================  =========  ======  =====  =======
nothing to find, nothing found     None       None    None   None
nothing to find, something found   0          None    0      0
something to find, nothing found   None       0       0      0
=================================  =========  ======  =====  =======
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Literal

Figure = Literal["precision", "recall", "f1", "jaccard"]


@dataclass(frozen=True)
class Counts:
    """What was found of what is there.

    Attributes:
        tp: found, and there.
        fp: found, and not there.
        fn: there, and not found.
    """

    tp: int = 0
    fp: int = 0
    fn: int = 0

    def __add__(self, other: Counts) -> Counts:
        return Counts(self.tp + other.tp, self.fp + other.fp, self.fn + other.fn)

    @property
    def precision(self) -> float | None:
        """``TP / (TP + FP)``; None where nothing was found."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float | None:
        """``TP / (TP + FN)``; None where there was nothing to find."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def f1(self) -> float | None:
        """``2 TP / (2 TP + FP + FN)``, of pixels Dice's coefficient; None without anything."""
        return _ratio(2 * self.tp, 2 * self.tp + self.fp + self.fn)

    @property
    def jaccard(self) -> float | None:
        """``TP / (TP + FP + FN)``, of pixels the IoU; None without anything."""
        return _ratio(self.tp, self.tp + self.fp + self.fn)

    def to_dict(self) -> dict[str, float | None]:
        """Counts, precision, recall and F1 as plain data."""
        counted = {"tp": self.tp, "fp": self.fp, "fn": self.fn}
        return {**counted, "precision": self.precision, "recall": self.recall, "f1": self.f1}


def pooled(parts: Iterable[Mapping[str, Counts]]) -> dict[str, Counts]:
    """The counts of several pictures added up, per class, in the order of the names."""
    sums: dict[str, Counts] = {}
    for part in parts:
        for label, counts in part.items():
            sums[label] = sums.get(label, Counts()) + counts
    return dict(sorted(sums.items()))


def total(per_class: Mapping[str, Counts]) -> Counts:
    """All classes added up: what micro figures are made of."""
    return sum(per_class.values(), Counts())


def macro(per_class: Mapping[str, Counts], figure: Figure) -> float | None:
    """The mean of a figure over the classes that have something to find.

    A class of which nothing was found has no precision, and is left out of its mean; its recall,
    F1 and Jaccard index are 0 and count. None where no class has anything to find.
    """
    there = [counts for counts in per_class.values() if counts.tp + counts.fn]
    figures = [getattr(counts, figure) for counts in there]
    known = [value for value in figures if value is not None]
    return sum(known) / len(known) if known else None


def f1_macro(per_class: Mapping[str, Counts]) -> float | None:
    """The mean F1 of the classes that have something to find; None without any."""
    return macro(per_class, "f1")


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
