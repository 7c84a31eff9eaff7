"""Calls as users write them. mypy checks this file in every run (``files`` in pyproject.toml), and
``tests/unit/test_natural_calls.py`` runs it: what type-checks works, and what works type-checks."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image

from sam_detect import Detection, Detections, SAMDetect
from sam_detect.fading import GaussianFade, LinearFade


class CustomFade:
    """Any object with this method is a fade."""

    def apply(
        self, image: npt.NDArray[np.uint8], mask: Any, distance_map: Any
    ) -> npt.NDArray[np.uint8]:
        return image


def pictures_of_any_type(detector: SAMDetect, path: Path) -> list[Detections]:
    array = np.asarray(Image.open(path).convert("RGB"))[..., ::-1].copy()
    found = [
        detector.detect(path),
        detector.detect(str(path)),
        detector.detect(array),
        detector.detect(Image.open(path)),
        detector.detect(path.read_bytes()),
        detector.detect(io.BytesIO(path.read_bytes())),
    ]
    with path.open("rb") as file:
        found.append(detector.detect(file))
    return found


def several_at_once(detector: SAMDetect, path: Path) -> list[Detections]:
    paths: list[Path] = [path, path]
    names: list[str] = [str(path)]
    arrays: list[npt.NDArray[np.uint8]] = [np.asarray(Image.open(path).convert("RGB"))]
    images: list[Image.Image] = [Image.open(path)]
    many: list[Detections] = []
    many += detector.detect(paths)
    many += detector.detect(tuple(paths), workers=1)
    many += detector.detect(names)
    many += detector.detect(arrays)
    many += detector.detect(images)
    many += detector.detect([path, str(path), arrays[0], path.read_bytes()])
    many += [outcome.get()[1] for outcome in detector.detect_each(iter(paths))]
    return many


def learnt_from(detector: SAMDetect, path: Path, boxes: list[tuple[int, int, int, int]]) -> int:
    x, y, w, h = boxes[0]
    added = detector.learn(path, "a", boxes_xywh=boxes).added
    added += detector.learn(path, "b", boxes_xywh=np.array(boxes)).added
    added += detector.learn(path, "c", boxes_xywh=np.array(boxes, np.float32)).added
    added += detector.learn(path, "d", boxes_xywh=[list(box) for box in boxes]).added
    added += detector.learn(path, "e", points_xy=np.array([[x + w / 2, y + h / 2]])).added
    added += detector.learn(path, "f", points_xy=((x + w // 2, y + h // 2),)).added
    assert len(detector.outline(path, boxes_xywh=np.array(boxes))) == len(boxes)
    assert len(detector.outline(path, points_xy=[(x + w // 2, y + h // 2)])) == 1
    return added


def results_of(detector: SAMDetect, path: Path) -> list[Detection]:
    found = detector.detect(path)
    sure = found[found.confidence > 0.5]
    first: Detection = found[0]
    label: str | None = first.label
    mask: npt.NDArray[np.bool_] = first.mask
    detector.get_crop(path, mask)
    detector.visualize(path, sure)
    detector.visualize(path, [each for each in found if each.label == label])
    return [*sure]


def makes_of_detectors() -> list[SAMDetect]:
    made = [SAMDetect("naive", "average", vector_store="memory", default_top_k=3)]
    made.append(SAMDetect("naive", "average", GaussianFade(sigma=30), "memory"))
    made.append(SAMDetect("naive", "average", fade_config=CustomFade(), vector_store="memory"))
    with SAMDetect("naive", "average", vector_store="memory", threshold=0.6) as detector:
        detector.set_fade_strategy(LinearFade(max_distance=100))
        made.append(detector)
    return made
