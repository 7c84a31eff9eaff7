"""How well a library finds and names the objects of pictures that took no part in labelling."""

from __future__ import annotations

import math
import random
import statistics
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from sam_detect import SAMDetect
from sam_detect.types import Detections, Frame
from scripts.dev.truth import Truth, overlaps

SHARE = 0.9
"""Of the final F1 that is to be reached."""


@dataclass
class HeldOut:
    """Pictures that are held out.

    Args:
        frames, truths: of each.

    Attributes:
        curve: ``(clicks, F1)`` each time it was measured.
    """

    frames: Sequence[Frame]
    truths: Sequence[Truth]
    curve: list[tuple[int, float]] = field(default_factory=list)

    def measure(self, detector: SAMDetect, clicks: int) -> None:
        """F1 of what the library finds now, as all commands detect."""
        snapshot = detector.pipeline.snapshot()
        found = [
            detector.pipeline.detect(frame, snapshot=snapshot, explain_unknown=False)
            for frame in self.frames
        ]
        self.curve.append((clicks, f1_of(found, self.truths)))


def chosen(count: int, wanted: float, seed: int) -> list[int]:
    """The numbers of the pictures that are held out.

    Args:
        count: of all pictures.
        wanted: how many; below 1, which share of them.
        seed: of the draw.
    """
    number = round(count * wanted) if wanted < 1 else int(wanted)
    return sorted(random.Random(seed).sample(range(count), max(1, min(number, count - 1))))


def f1_of(found: Sequence[Detections], truths: Sequence[Truth]) -> float:
    """F1 of all pictures together: a detection is right if it has the label of an object with which
    it has an IoU of .5, that no surer one has."""
    right = named = objects = 0
    for detections, truth in zip(found, truths, strict=True):
        objects += len(truth.masks)
        left = set(range(len(truth.masks)))
        for index, each in enumerate(detections.classifications):
            if each.label is None:
                continue
            named += 1
            for row, _ in sorted(
                overlaps(detections.masks[[index]], truth.masks), key=lambda each: -each[1]
            ):
                if row in left and truth.labels[row] == each.label:
                    left.remove(row)
                    right += 1
                    break
    return 2 * right / max(named + objects, 1)


def clicks_to_share(curve: Sequence[tuple[int, float]], share: float = SHARE) -> int:
    """After how many clicks F1 had so much of its final value, and kept it.

    Args:
        curve: ``(clicks, F1)`` in order, at least one.
    """
    enough = share * curve[-1][1]
    reached = len(curve) - 1
    while reached and curve[reached - 1][1] >= enough:
        reached -= 1
    return curve[reached][0]


@dataclass(frozen=True)
class Compared:
    """What a policy needed in several runs.

    Attributes:
        runs: how many.
        mean, spread: of the clicks, and their standard deviation; 0 of one run.
        difference: from random orders of the same draws, the mean over draws; None without any.
        error: the standard error of that; None of fewer than two draws.
    """

    runs: int
    mean: float
    spread: float
    difference: float | None
    error: float | None


def compared(runs: Iterable[tuple[str, int, int]]) -> dict[str, Compared]:
    """Each policy against random orders.

    Args:
        runs: policy, draw and clicks of each.
    """
    clicks: dict[str, dict[int, list[int]]] = defaultdict(lambda: defaultdict(list))
    for policy, draw, count in runs:
        clicks[policy][draw].append(count)
    by_chance = {draw: statistics.mean(each) for draw, each in clicks.get("random", {}).items()}
    found = {}
    for policy, by_draw in clicks.items():
        all_of_it = [count for each in by_draw.values() for count in each]
        differences = [
            statistics.mean(each) - by_chance[draw]
            for draw, each in by_draw.items() if draw in by_chance and policy != "random"
        ]  # fmt: skip
        found[policy] = Compared(
            len(all_of_it), statistics.mean(all_of_it),
            statistics.stdev(all_of_it) if len(all_of_it) > 1 else 0.0,
            statistics.mean(differences) if differences else None,
            statistics.stdev(differences) / math.sqrt(len(differences))
            if len(differences) > 1 else None,
        )  # fmt: skip
    return found
