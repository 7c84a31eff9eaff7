"""How well a library finds and names the objects of pictures that took no part in labelling."""

from __future__ import annotations

import random
from collections.abc import Sequence
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
