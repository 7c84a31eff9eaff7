"""Drawn datasets on disk, and methods that see through or spy, for the tests of `evaluate`."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL import Image

from sam_detect import SAMDetect
from sam_detect.evaluation.dataset import Dataset
from sam_detect.evaluation.methods import Predictions, SupportImage
from sam_detect.evaluation.readers import open_dataset
from sam_detect.types import Frame, Masks
from sam_detect.types.masks import crop_to_rle

SIZE_HW = (100, 120)
CELLS = [(20, 25), (60, 25), (100, 25), (20, 75), (60, 75), (100, 75)]
"""Middles of the six places of a picture, x and y."""
CATEGORIES = {"square": 7, "disc": 3}
GROUND, COLOURS = (228, 226, 220), {"disc": (60, 40, 120), "square": (40, 120, 60)}
SIX = ("disc", "square", "disc", "square", "disc", "disc")
LIGHTS = ("day", "night")

Mask = npt.NDArray[np.bool_]


def dataset_folder(
    folder: Path,
    pictures: Sequence[Sequence[str | None]] | int = 6,
    *,
    boxes: bool = False,
    fields: Callable[[int], dict[str, Any]] = lambda index: {"light": LIGHTS[index % 2]},
) -> Path:
    """Writes ``annotations.json`` and ``images/``.

    Args:
        pictures: the labels of each picture's places (None: nothing is there), or how many
            pictures of four discs and two squares.
        boxes: annotate boxes without outlines.
        fields: more to say of the picture of an index.
    """
    each = [SIX] * pictures if isinstance(pictures, int) else pictures
    images, annotations = [], []
    (folder / "images").mkdir(parents=True)
    for index, labels in enumerate(each):
        generator = np.random.default_rng(index)
        image, objects = drawn(labels, generator)
        name = f"{chr(ord('a') + index)}.png"
        Image.fromarray(image).save(folder / "images" / name)
        number = 10 + index
        size = {"height": SIZE_HW[0], "width": SIZE_HW[1]}
        images.append({"id": number, "file_name": name, **size, **fields(index)})
        for label, mask in objects:
            row = {
                "id": 100 + len(annotations),
                "image_id": number,
                "category_id": CATEGORIES[label],
                "bbox": box_of(mask),
                "area": int(mask.sum()),
                "iscrowd": 0,
            }
            annotations.append(
                row
                if boxes
                else row | {"segmentation": crop_to_rle(mask, (0, 0, 120, 100), SIZE_HW)}
            )
    categories = [{"id": number, "name": name} for name, number in CATEGORIES.items()]
    data = {"images": images, "annotations": annotations, "categories": categories}
    (folder / "annotations.json").write_text(json.dumps(data))
    return folder


def drawn(
    labels: Sequence[str | None], generator: np.random.Generator
) -> tuple[npt.NDArray[np.uint8], list[tuple[str, Mask]]]:
    """A picture with something at each place, and the outline of each."""
    image = np.full((*SIZE_HW, 3), GROUND, np.uint8)
    objects = []
    for label, cell in zip(labels, CELLS, strict=False):
        if label is None:
            continue
        x, y = (int(v + generator.integers(-3, 4)) for v in cell)
        radius = int(generator.integers(10, 14))
        filled = np.zeros(SIZE_HW, np.uint8)
        if label == "disc":
            cv2.circle(filled, (x, y), radius, 1, -1)
        else:
            cv2.rectangle(filled, (x - radius, y - radius), (x + radius, y + radius), 1, -1)
        image[filled > 0] = COLOURS[label]
        objects.append((label, filled > 0))
    grain = generator.integers(-3, 4, image.shape)
    return np.clip(image + grain, 0, 255).astype(np.uint8), objects


def box_of(mask: Mask) -> list[int]:
    rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
    x, y = int(columns[0]), int(rows[0])
    return [x, y, int(columns[-1]) - x + 1, int(rows[-1]) - y + 1]


def opened(folder: Path, *arguments: Any, **options: Any) -> Dataset:
    """The dataset of :func:`dataset_folder`, read."""
    return open_dataset(dataset_folder(folder, *arguments, **options))


def damage(path: Path) -> None:
    """Cuts a picture in half: its header can be read, the rest cannot."""
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def detector(**settings: Any) -> SAMDetect:
    return SAMDetect(vector_store="memory", **settings)


Says = Callable[["Oracle", str, int], str | None]


@dataclass
class Oracle:
    """Knows every object of a dataset; says of each what it is told to say, or leaves it out.

    Attributes:
        says: given itself, the label and the running number of an object in its picture, the
            name to say; None for unknown; ``"-"`` to leave the object out.
        learnt: the support of each episode, in order.
        asked: the frames that it was asked to look at, in order.
    """

    dataset: Dataset
    says: Says = lambda oracle, label, number: label
    learnt: list[list[SupportImage]] = field(default_factory=list)
    asked: list[Frame] = field(default_factory=list)
    name: str = "oracle"

    def learn(self, support: Sequence[SupportImage]) -> None:
        self.learnt.append(list(support))

    def find(self, frame: Frame) -> Predictions:
        from sam_detect.evaluation.dataset import masks_of

        self.asked.append(frame)
        picture = next(p for p in self.dataset.pictures if str(p.path) == frame.source_id)
        masks = masks_of(picture, picture.objects)
        names = [self.says(self, o.label, i) for i, o in enumerate(picture.objects)]
        kept = [i for i, name in enumerate(names) if name != "-"]
        scores = np.linspace(0.9, 0.5, len(kept), dtype=np.float32)
        said = tuple(names[i] for i in kept)
        return Predictions(masks[kept], said, scores, masks, {"propose": 0.25, "label": 0.5})

    def describe(self) -> dict[str, Any]:
        return {}


def no_outlines(frame: Frame, boxes_xywh: Sequence[Sequence[float]]) -> Masks:
    return Masks.empty(frame.size_hw)
