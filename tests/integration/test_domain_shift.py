"""Examples of one image find objects in an image of another scale and brightness, and go on finding
them when one more true example is learnt from a further image."""

from __future__ import annotations

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect import SAMDetect
from sam_detect.types import Frame, Masks

SIDE = 256


def cells(seed: int, *, radius: float, level: float, count: int) -> tuple[Frame, Masks]:
    """An image of bright cells on a dark ground, and their outlines."""
    rng = np.random.default_rng(seed)
    image = np.full((SIDE, SIDE), 20.0)
    circles: list[tuple[float, float, float]] = []
    while len(circles) < count:
        r = radius * rng.uniform(0.85, 1.15)
        x, y = rng.uniform(r + 4, SIDE - r - 4, 2)
        if all(np.hypot(x - a, y - b) > r + c + 6 for a, b, c in circles):
            circles.append((x, y, r))
    outlines: list[npt.NDArray[np.bool_]] = []
    for x, y, r in circles:
        drawn = np.zeros((SIDE, SIDE), np.uint8)
        axes = round(r), round(r * rng.uniform(0.75, 1))
        cv2.ellipse(drawn, (round(x), round(y)), axes, rng.uniform(0, 180), 0, 360, 1, -1)
        outlines.append(drawn > 0)
        image[outlines[-1]] = level * rng.uniform(0.85, 1.15)
    image = cv2.GaussianBlur(image, (0, 0), 1.2) + rng.normal(0, 6, image.shape)
    grey = np.clip(image, 0, 255).astype(np.uint8)
    return Frame(np.repeat(grey[:, :, None], 3, 2), f"{seed}.png"), Masks.from_dense(
        np.array(outlines)
    )


def right_finds(detector: SAMDetect, frame: Frame, outlines: Masks, label: str) -> int:
    """How many objects are found under their label at an IoU above one half."""
    found = detector.pipeline.detect(frame).only([label])
    ious = [
        [(d.mask & o).sum() / (d.mask | o).sum() for o in map(outlines.dense, range(len(outlines)))]
        for d in found
    ]
    return int((np.array(ious) > 0.5).any(axis=0).sum()) if ious else 0


def test_one_more_true_example_does_no_great_harm() -> None:
    large, large_outlines = cells(1, radius=18, level=110, count=12)
    bright, bright_outlines = cells(2, radius=16, level=160, count=6)
    small, small_outlines = cells(3, radius=6, level=80, count=25)
    detector = SAMDetect(segmenter="naive", embedder="appearance", vector_store="memory")
    detector.learn_frame(large, large_outlines[:10], ["cell"] * 10)
    before = right_finds(detector, small, small_outlines, "cell")
    assert before >= 20
    detector.learn_frame(bright, bright_outlines[:1], ["cell"])
    assert right_finds(detector, small, small_outlines, "cell") >= before - 5


def test_an_example_of_a_second_label_does_no_great_harm_to_the_first() -> None:
    large, large_outlines = cells(1, radius=18, level=110, count=12)
    bright, bright_outlines = cells(2, radius=16, level=160, count=6)
    small, small_outlines = cells(3, radius=6, level=80, count=25)
    detector = SAMDetect(segmenter="naive", embedder="appearance", vector_store="memory")
    detector.learn_frame(large, large_outlines[:10], ["cell"] * 10)
    before = right_finds(detector, small, small_outlines, "cell")
    detector.learn_frame(bright, bright_outlines[:1], ["other"])
    assert right_finds(detector, small, small_outlines, "cell") >= before - 5
