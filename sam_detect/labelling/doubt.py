"""Signs that a picture's count may be wrong: near misses, another scale, other light.

A count says nothing of the objects that were not named. Where a picture is unlike those of the
examples, all of its objects may be missed, so each count has a check.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable

import numpy as np

from sam_detect.types import Detections, ExampleArrays, Frame
from sam_detect.types.masks import FloatArray

TRY_SCALES = " (try --scale auto)"
NEAR = 0.2
"""Confidence from which an unknown object is a near miss."""
MANY, SHARE = 2, 0.25
"""So many near misses raise a doubt, or this share of the named objects where that is more."""
OTHER_AREA = 2.0
"""Factor between the areas of a picture's objects and those of the nearest examples..."""
OTHER_SIDE = 2.0
"""... between the longest sides of pictures..."""
OTHER_LIGHT = 2.0
"""... and between their brightness, from which they differ."""

Surroundings = Callable[[], tuple[float, float]]
"""Gives the median longest side in pixels of the examples' pictures and the median brightness
around the examples, 0 to 255. Read only where a picture is in doubt."""


def doubt_of(
    frame: Frame, found: Detections, examples: ExampleArrays, surroundings: Surroundings
) -> str:
    """Why the count of a picture may be wrong, in words to print; empty for no doubt."""
    if examples.negatives.all():
        return ""
    new = new_objects(found)
    near = [i for i in new if found.label[i] is None]
    named = len(found.known)
    times = _times_as_large(new, found, examples)
    said, scale = [], ""
    if len(near) >= max(MANY, SHARE * named):
        labels = Counter(str(found.best_label[i]) for i in near)
        said.append("nearly named: " + ", ".join(f"{n} {name}" for name, n in labels.items()))
    if abs(math.log(times)) > math.log(OTHER_AREA):
        scale = f"objects {_ratio(math.sqrt(times), 'larger', 'smaller')} than the examples"
    if said or scale or not named:
        side, light = surroundings()
        wider = max(frame.size_hw) / side
        if not scale and not named and abs(math.log(wider)) >= math.log(OTHER_SIDE):
            scale = f"picture {_ratio(wider, 'larger', 'smaller')} than those of the examples"
        brighter = (_brightness(frame) + 1) / (light + 1)
        if abs(math.log(brighter)) >= math.log(OTHER_LIGHT):
            said.append(f"{_ratio(brighter, 'brighter', 'darker')} than around the examples")
    if scale:
        said.append(f"{scale}{TRY_SCALES}")
    return "; ".join(said)


def new_objects(found: Detections) -> list[int]:
    """Indices of what is named or nearly named, and was not outlined in this very picture."""
    return [
        index
        for index, each in enumerate(found.classifications)
        if not each.taught and (each.label is not None or each.confidence >= NEAR)
    ]


def _times_as_large(indices: list[int], found: Detections, examples: ExampleArrays) -> float:
    """The median factor between the areas of some objects and the nearest area of an example."""
    known = ~np.asarray(examples.negatives, bool)
    known &= examples.areas > 0 if len(examples.areas) else False
    labels = np.array(examples.labels, dtype=object)
    own: dict[str, FloatArray] = {}
    factors = []
    for index in indices:
        label = str(found.best_label[index])
        if label not in own:
            own[label] = np.log(examples.areas[known & (labels == label)]).astype(np.float32)
        if len(own[label]):
            off = math.log(found.area[index]) - own[label]
            factors.append(float(off[np.abs(off).argmin()]))
    return math.exp(float(np.median(factors))) if factors else 1.0


def _brightness(frame: Frame) -> float:
    """Median of some of the pixels, 0 to 255."""
    step = max(1, max(frame.size_hw) // 256)
    return float(np.median(frame.image_rgb[::step, ::step]))


def _ratio(factor: float, above: str, below: str) -> str:
    return f"{factor:.1f} times {above}" if factor >= 1 else f"{1 / factor:.1f} times {below}"
