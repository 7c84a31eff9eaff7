"""The suite ``fewshot``: ten outlines of a dense picture, and all the others.

The pictures are drawn: some hundred cells that touch, on an uneven ground with noise, one megapixel
each. Ten of the cells of the first picture are the examples. What is timed is learning them and
finding the rest of that picture, finding those of another picture, and naming once more with
another threshold what was proposed already, as a slider does.
"""

from __future__ import annotations

from collections.abc import Callable

import cv2
import numpy as np

from sam_detect.api import SAMDetect
from sam_detect.types import Detections, Frame, Masks
from sam_detect.types.masks import BoolArray
from sam_detect.vector_store.memory import MemoryVectorStore
from scripts.dev.bench.measurements import Measurements, Trial
from scripts.dev.bench.suites import Options
from scripts.dev.overlaps import iou_matrix

SIDE = 1000
CELLS = 600
"""Tries to place one."""
RADII = 9, 16
FLATTENED = 0.8
"""The short axis of a cell as a share of the long one."""
GROUND, UNEVEN, NOISE = 60.0, 8.0, 6.0
LIGHT = 120, 190
EXAMPLES = 10
SURE = 0.8
"""The threshold that the slider is moved to."""
FOUND_IOU = 0.5


def run(measurements: Measurements, options: Options) -> None:
    """Times of learning, of both pictures and of the slider, with and without the classifier."""
    measurements.workload = f"{SIDE} x {SIDE} pixels of touching cells, {EXAMPLES} shown"
    frame, cells = draw(0)
    other, _ = draw(1)
    detectors = {forest: _detector(forest) for forest in ("auto", "off")}
    for detector in detectors.values():  # the network is slow the first time
        _learn(detector, frame, cells)
        detector.detect(frame)
    found: dict[str, Detections] = {}

    def first(forest: str) -> Callable[[object], None]:
        def work(_: object) -> None:
            measurements.announce(f"learn and detect, forest {forest}")
            made = detectors[forest] = _detector(forest)
            _learn(made, frame, cells)
            found[forest] = made.pipeline.detect(frame, recall_taught=False, explain_unknown=False)

        return work

    def further(forest: str) -> Callable[[object], None]:
        def work(_: object) -> None:
            measurements.announce(f"detect in another picture, forest {forest}")
            detectors[forest].pipeline.detect(other, explain_unknown=False)

        return work

    trials = [Trial(f"first_{forest}", first(forest)) for forest in detectors]
    trials += [Trial(f"further_{forest}", further(forest)) for forest in detectors]
    series = measurements.accumulate(trials)
    for each in series:
        measurements.stages[each.name] = each.to_dict()
    measurements.add_pair("first_with_forest", series[0], series[1])
    for forest, detections in found.items():
        recall, precision = scored(detections, cells[EXAMPLES:], cells[:EXAMPLES])
        measurements.figures[f"recall_{forest}"] = round(recall, 4)
        measurements.figures[f"precision_{forest}"] = round(precision, 4)
    candidates = detectors["auto"].propose(frame)
    measurements.stage(
        Trial("slider", lambda _: detectors["auto"].label(candidates, threshold=SURE))
    )


def draw(seed: int) -> tuple[Frame, Masks]:
    """A picture of cells, and their masks."""
    random = np.random.default_rng(seed)
    grain = cv2.GaussianBlur(random.normal(0, 1, (SIDE, SIDE)), (0, 0), 20)
    light = GROUND + UNEVEN * grain / grain.std()
    taken, cells = np.zeros((SIDE, SIDE), np.bool_), list[BoolArray]()
    for _ in range(CELLS):
        x, y = random.integers(RADII[1], SIDE - RADII[1], 2).tolist()
        radius, turned = int(random.integers(*RADII)), float(random.integers(0, 180))
        mask = np.zeros((SIDE, SIDE), np.uint8)
        axes = radius, round(FLATTENED * radius)
        cv2.ellipse(mask, (x, y), axes, turned, 0, 360, 1, -1)
        cell = mask.astype(bool)
        if (cell & taken).any():
            continue
        taken |= cell
        cells.append(cell)
        shaded = cv2.GaussianBlur(mask.astype(np.float32), (0, 0), 1.5) * random.integers(*LIGHT)
        light = np.maximum(light, shaded)
    noisy = np.clip(light + random.normal(0, NOISE, light.shape), 0, 255).astype(np.uint8)
    return Frame(np.repeat(noisy[..., None], 3, axis=2), f"cells-{seed}"), Masks.from_dense(cells)


def scored(found: Detections, wanted: Masks, shown: Masks) -> tuple[float, float]:
    """Recall of the cells that are wanted, and precision of what is found besides those shown."""
    known = found.known.masks
    hits = _hits(known, wanted)
    others = len(known) - int(_hits(known, shown).sum())
    return float(hits.mean()), float(hits.sum()) / max(1, others)


def _hits(found: Masks, wanted: Masks) -> BoolArray:
    """``(N,)`` whether each of the wanted masks is found."""
    if not len(found):
        return np.zeros(len(wanted), np.bool_)
    together = Masks.concatenate([wanted, found])
    ious = iou_matrix(together.crops(), together.boxes_xyxy)
    return np.asarray(ious[: len(wanted), len(wanted) :].max(axis=1) > FOUND_IOU)


def _detector(forest: str) -> SAMDetect:
    return SAMDetect(
        segmenter="naive", vector_store=MemoryVectorStore(), color_order="rgb", forest=forest
    )


def _learn(detector: SAMDetect, frame: Frame, cells: Masks) -> None:
    detector.pipeline.learn(frame, cells[:EXAMPLES], ["cell"] * EXAMPLES)
