"""Says what a picture at another scale costs, what ``--scale auto`` gains, and how often a count
has a check.

./scripts/scale-quality FOLDER... [--scales 0.5,1,2,4] [--shots 5] [--seeds 0] [--pictures 6]

A folder holds ``annotations.json`` (COCO) and ``images``. The examples are drawn as ``sam-detect
evaluate`` draws them and learnt as they are; the other pictures are searched with sides so many
times as long. F1 is over all objects, at an IoU of one half. A picture is *off* if its F1 is below
0.8; of these, and of the others, the share that has a check is printed.
"""

from __future__ import annotations

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from sam_detect import SAMDetect
from sam_detect.evaluation.comparison import Counts, compare, match
from sam_detect.evaluation.dataset import AnnotatedPicture
from sam_detect.evaluation.methods import Predictions
from sam_detect.evaluation.pipeline import PipelineMethod
from sam_detect.evaluation.readers import open_dataset
from sam_detect.evaluation.run import Protocol, splits
from sam_detect.pipeline.flow import Pipeline
from sam_detect.pipeline.scaling import at_size, rescaled
from sam_detect.types import Masks
from sam_detect.vector_store import MemoryVectorStore
from scripts.dev.corrections import IOU, _shown

OFF = 0.8


def main(arguments: Sequence[str] | None = None) -> None:
    given = parser().parse_args(arguments)
    for folder in given.folders:
        detector = SAMDetect(vector_store=MemoryVectorStore())
        method = PipelineMethod(detector.pipeline)
        limit = detector.settings.max_image_pixels
        dataset = open_dataset(folder / "annotations.json", folder / "images", max_pixels=limit)
        protocol = Protocol(shots=given.shots, seeds=given.seeds)
        for split in splits(dataset, protocol):
            method.learn([*_shown(split, method)])
            for scale in given.scales:
                for asked in (None, "auto"):
                    method.pipeline.scale = asked
                    queries = split.queries[: given.pictures]
                    told = measured(method.pipeline, queries, scale, boxes=dataset.boxes_only)
                    print(f"{folder.name}, seed {split.seed}, pictures x {scale:g}, "
                          f"--scale {asked or 'not given'}: {told}", flush=True)  # fmt: skip


def measured(
    pipeline: Pipeline, queries: Sequence[AnnotatedPicture], scale: float, *, boxes: bool
) -> str:
    """F1 over some pictures, seconds a picture, and how many have a check."""
    total, seconds, checks = Counts(), 0.0, {True: [0, 0], False: [0, 0]}
    for picture in queries:
        frame = picture.read(max_pixels=10**9)
        seen = rescaled(frame, scale)
        began = time.perf_counter()
        found = pipeline.detect(seen, recall_taught=False)
        seconds += time.perf_counter() - began
        found = at_size(found, frame)
        scores = np.asarray(found.confidence, np.float32)
        given = Predictions(found.masks, tuple(found.label), scores, Masks.empty(frame.size_hw))
        counts = match(compare(picture, given, boxes=boxes, iou_threshold=IOU), IOU).counts
        total += counts
        tally = checks[float(counts.f1 or 0.0) < OFF]
        tally[0] += bool(found.check)
        tally[1] += 1
    off, right = checks[True], checks[False]
    return (
        f"F1 {float(total.f1 or 0.0):.3f}, {seconds / len(queries):.1f} s a picture, "
        f"check: {off[0]} of {off[1]} that are off, {right[0]} of {right[1]} others"
    )


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    made.add_argument("folders", nargs="+", type=Path)
    made.add_argument("--scales", type=_numbers, default=(0.5, 1.0, 2.0, 4.0))
    made.add_argument("--shots", type=int, default=5)
    made.add_argument("--seeds", type=_seeds, default=(0,))
    made.add_argument("--pictures", type=int, default=6)
    return made


def _numbers(text: str) -> tuple[float, ...]:
    return tuple(float(each) for each in text.split(","))


def _seeds(text: str) -> tuple[int, ...]:
    return tuple(int(each) for each in text.split(","))


if __name__ == "__main__":
    main()
