"""What a user gets on real pictures: learn outlines in some, find the objects in others.

`python -m pytest tests/integration/test_quality.py -s` prints the figures.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest

from sam_detect import SAMDetect
from sam_detect.types import Detections, Frame, Masks
from sam_detect.types.polygons import coco_polygons, polygons_to_mask
from sam_detect.vector_store import MemoryVectorStore

MATCH_IOU = 0.5


@dataclass
class Picture:
    frame: Frame
    masks: list[npt.NDArray[np.bool_]]
    labels: list[str]


@dataclass
class Score:
    found: int = 0
    objects: int = 0
    named: int = 0

    def __str__(self) -> str:
        return (
            f"found and rightly named {self.found} of {self.objects} "
            f"({self.found / self.objects:.2f}), "
            f"{self.named / self.objects:.2f} named detections per object"
        )


@pytest.fixture
def pictures(test_data_dir: Path) -> list[Picture]:
    folder = test_data_dir / "nuts_dates"
    data = json.loads((folder / "annotations.json").read_text())
    names = {row["id"]: row["name"] for row in data["categories"]}
    reader = SAMDetect(vector_store=MemoryVectorStore())
    found = []
    for row in data["images"]:
        frame = reader.read(folder / "images" / row["file_name"])
        mine = [a for a in data["annotations"] if a["image_id"] == row["id"]]
        masks = [polygons_to_mask(coco_polygons(a["segmentation"]), frame.size_hw) for a in mine]
        found.append(Picture(frame, masks, [names[a["category_id"]] for a in mine]))
    return found


def learn(pictures: Iterable[Picture], shots: int | None = None) -> SAMDetect:
    """A detector that learnt all outlines, or the first ``shots`` of each label."""
    detector = SAMDetect(vector_store=MemoryVectorStore())
    left: dict[str, int] = {}
    for picture in pictures:
        chosen = []
        for mask, label in zip(picture.masks, picture.labels, strict=True):
            left[label] = left.get(label, shots or 10**6) - 1
            if left[label] >= 0:
                chosen.append((mask, label))
        if chosen:
            masks = Masks.from_dense(np.stack([mask for mask, _ in chosen]))
            detector.learn_frame(picture.frame, masks, [label for _, label in chosen])
    return detector


def score(detector: SAMDetect, pictures: Iterable[Picture]) -> Score:
    total = Score()
    for picture in pictures:
        known = detector.detect(picture.frame).known
        total.named += len(known)
        total.objects += len(picture.masks)
        total.found += _matched(known, picture)
    return total


def _matched(known: Detections, picture: Picture) -> int:
    """Objects with a detection of their label; one detection counts once, surest first."""
    left = set(range(len(picture.masks)))
    for detection in sorted(known, key=lambda d: -d.confidence):
        found = detection.mask
        for index in sorted(left):
            wanted = picture.masks[index]
            shared = np.count_nonzero(found & wanted)
            if detection.label == picture.labels[index] and shared >= MATCH_IOU * np.count_nonzero(
                found | wanted
            ):
                left.remove(index)
                break
    return len(picture.masks) - len(left)


def test_all_outlines_of_some_pictures_find_the_objects_of_others(
    pictures: list[Picture],
) -> None:
    total = score(learn(pictures[0::2]), pictures[1::2])
    print(f"\nnuts_dates, all outlines of {len(pictures[0::2])} pictures learnt: {total}")
    assert total.found >= 0.75 * total.objects
    assert total.named <= 1.4 * total.objects


def test_five_examples_each_find_most_objects_of_other_pictures(
    pictures: list[Picture],
) -> None:
    # Two pictures hold five of each; the other nine are new.
    total = score(learn(pictures[1:3], shots=5), [pictures[0], *pictures[3:8]])
    print(f"\nnuts_dates, five outlines of each label learnt: {total}")
    assert total.found >= 0.6 * total.objects
    assert total.named <= 1.5 * total.objects


def test_the_separate_objects_of_a_picture_are_objects(pictures: list[Picture]) -> None:
    taken = right = 0
    for picture in pictures:
        detector = SAMDetect(vector_store=MemoryVectorStore())
        found = detector.pipeline.separate_objects(picture.frame)
        ious = [
            max(np.count_nonzero(found.dense(i) & m) / np.count_nonzero(found.dense(i) | m)
                for m in picture.masks)
            for i in range(len(found))
        ]  # fmt: skip
        taken += len(found)
        right += sum(iou >= MATCH_IOU for iou in ious)
    print(f"\nnuts_dates, separate objects of each picture: {right} of {taken} are objects")
    assert taken >= 4 * len(pictures)
    assert right >= 0.9 * taken
