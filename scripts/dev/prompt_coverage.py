"""How many objects contain a prompt of SAM 2, and how many prompts that takes, for each prompter.

    ./scripts/prompt-coverage [DATASET...] [--shots N] [--group-by FIELD] [--json]

Needs no weights. An oracle stands for the model: a prompt on an object is answered by the object's
own mask (on nested objects by each), a prompt on the background by nothing. The share of objects
that contain a prompt is then the most that any model could find. Measured on drawn pictures, and
on the annotated ones of datasets, as ``sam-detect evaluate`` takes them; boxes are filled.

With ``--shots N``, N objects of each label are shown, and the others are sought: by the prompter
``forest``, by blobs of the examples' sizes, and by grids. ``same``: in the picture of the examples;
``cross``: in other pictures (with ``--group-by`` of the same group) than those that show them.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import cv2
import numpy as np

from sam_detect.errors import ConfigError, SamDetectError
from sam_detect.evaluation.dataset import masks_of
from sam_detect.evaluation.readers import open_dataset
from sam_detect.fading import context
from sam_detect.io import load_image
from sam_detect.segmentation._forest_objects import trained_forests
from sam_detect.segmentation._sam2_forest_prompter import ForestPrompter
from sam_detect.segmentation._sam2_prompters import (
    AdaptivePrompter,
    BlobPrompter,
    Covered,
    GridPrompter,
    Prompter,
    points_for,
)
from sam_detect.types import Crop, Hints, ImageRGB, Masks
from sam_detect.types.masks import BoolArray

GRIDS = (32, 64, 128)
OCCUPANCY, CROP = 0.2, 256
"""Of the crops that are shown, as a library keeps them."""
EXAMPLES = 5
"""Objects, chosen by a seed, whose areas ``auto`` goes by."""


@dataclass(frozen=True)
class Scene:
    """A picture and the outlines of its objects.

    Attributes:
        labels: of the objects.
        group: within which examples are shown.
    """

    image_rgb: ImageRGB
    objects: Masks
    labels: tuple[str, ...] = ()
    group: str = ""


@dataclass(frozen=True)
class Way:
    """A way to ask.

    Attributes:
        prompter: says where.
        per_side: points along a side of the grid; None: as the areas of examples need, to which
            the prompter is set, too.
    """

    prompter: Prompter
    per_side: int | None

    def for_areas(self, areas: tuple[int, int], size_hw: tuple[int, int]) -> tuple[Prompter, int]:
        if self.per_side is not None:
            return self.prompter, self.per_side
        return self.prompter.knowing(Hints(areas)), points_for(areas[0], size_hw)


WAYS = {
    "grid_32": Way(GridPrompter(), 32),
    "grid_64": Way(GridPrompter(), 64),
    "grid_auto": Way(GridPrompter(), None),
    "adaptive_32": Way(AdaptivePrompter(), 32),
    "adaptive_auto": Way(AdaptivePrompter(), None),
    "blobs_32": Way(BlobPrompter(), 32),
    "blobs_auto": Way(BlobPrompter(), None),
}


@dataclass(frozen=True)
class Coverage:
    """What a way to ask reaches in some pictures.

    Attributes:
        found: share of the objects with a prompt inside.
        prompts: asked in a picture, on average.
    """

    found: float
    prompts: float


def coverage(scenes: Sequence[Scene], way: Way, *, seed: int = 0) -> Coverage:
    """What a way reaches; the seed chooses the examples.

    Args:
        scenes: at least one, with at least one object in all.
    """
    areas = np.concatenate([scene.objects.areas for scene in scenes])
    count = min(EXAMPLES, len(areas))
    examples = np.random.default_rng(seed).choice(areas, count, replace=False)
    sizes = int(examples.min()), int(examples.max())
    found = asked = 0
    for scene in scenes:
        reached, prompts = prompted(scene, *way.for_areas(sizes, scene.objects.size_hw))
        found, asked = found + int(reached.sum()), asked + prompts
    return Coverage(found / len(areas), asked / len(scenes))


def prompted(scene: Scene, prompter: Prompter, per_side: int) -> tuple[BoolArray, int]:
    """``(N,)`` which objects get a prompt inside, and the number of prompts asked."""
    objects = scene.objects
    crops, size = list(objects.crops()), np.array(objects.size_hw[::-1])
    covered, found, asked = Covered(objects.size_hw), np.zeros(len(objects), np.bool_), 0
    for points in prompter.rounds(scene.image_rgb, per_side, covered):
        pixels = np.minimum((points * size).astype(np.int64), size - 1)
        asked += len(points)
        for index in np.flatnonzero(~found):
            x0, y0, x1, y1 = objects.boxes_xyxy[index].tolist()
            inside = ((pixels >= (x0, y0)) & (pixels < (x1, y1))).all(axis=1)
            columns, rows = (pixels[inside] - (x0, y0)).T
            if crops[index][rows, columns].any():
                found[index] = True
                covered.add(crops[index], (x0, y0, x1, y1))
    return found, asked


def guided_coverage(
    scenes: Sequence[Scene], shots: int, *, same: bool, seed: int = 0
) -> dict[str, Coverage]:
    """What each way reaches of the objects that are not shown.

    Args:
        shots: examples of each label.
        same: whether they are of the picture where others are sought; else of others in its group.
    """
    random = np.random.default_rng(seed)
    reached: dict[str, list[BoolArray]] = {}
    asked: dict[str, list[int]] = {}
    for shown, scene, sought in _episodes(scenes, shots, random, same=same):
        areas = [int(crop.area / crop.scale**2) for each in shown.values() for crop in each]
        blobs = BlobPrompter().knowing(Hints((min(areas), max(areas))))
        forest = ForestPrompter(trained_forests(shown)).knowing(Hints((min(areas), max(areas))))
        ways: dict[str, tuple[Prompter, int]] = {
            **{f"grid_{side}": (GridPrompter(), side) for side in GRIDS},
            "blobs_128": (blobs, 128),
            **{f"forest_{side}": (forest, side) for side in GRIDS},
        }
        for way, (prompter, per_side) in ways.items():
            found, prompts = prompted(scene, prompter, per_side)
            reached.setdefault(way, []).append(found[sought])
            asked.setdefault(way, []).append(prompts)
    if not reached:
        raise ConfigError(f"no picture has objects besides {shots} that are shown: lower --shots")
    return {
        way: Coverage(float(np.concatenate(found).mean()), float(np.mean(asked[way])))
        for way, found in reached.items()
    }


Shown = dict[str, list[Crop]]


def _episodes(
    scenes: Sequence[Scene], shots: int, random: np.random.Generator, *, same: bool
) -> Iterator[tuple[Shown, Scene, list[int]]]:
    """The crops shown of each label, a picture, and which of its objects are sought."""
    if same:
        for scene in scenes:
            shown, left = _shown(scene, {}, shots, random)
            if left:
                yield shown, scene, left
        return
    for group in sorted({scene.group for scene in scenes}):
        shown = {}
        for index in random.permutation(len(scenes)).tolist():
            scene = scenes[index]
            if scene.group != group:
                continue
            if any(len(shown.get(label, ())) < shots for label in scene.labels):
                shown, _ = _shown(scene, shown, shots, random)
            else:
                yield shown, scene, list(range(len(scene.labels)))


def _shown(
    scene: Scene, before: Shown, shots: int, random: np.random.Generator
) -> tuple[Shown, list[int]]:
    """What is shown together with some of a picture, and which of its objects are not."""
    shown, left = {label: list(crops) for label, crops in before.items()}, []
    masks = scene.objects
    crops = list(masks.crops())
    for index in random.permutation(len(masks)).tolist():
        of_label = shown.setdefault(scene.labels[index], [])
        if len(of_label) == shots:
            left.append(index)
            continue
        box = masks.boxes_xyxy[index].tolist()
        of_label.append(
            context.cut(scene.image_rgb, crops[index], box, occupancy=OCCUPANCY, crop_side=CROP)
        )
    return shown, left


def annotated_scenes(path: Path, group_by: str | None = None) -> list[Scene]:
    """The pictures of a dataset that have objects, with these.

    Args:
        group_by: field of the pictures that names their group.

    Raises:
        ConfigError: no picture has any.
        ImageError: the dataset cannot be read.
    """
    scenes = []
    for picture in open_dataset(path).pictures:
        objects = [each for each in picture.objects if not each.crowd]
        if objects:
            image_rgb = load_image(str(picture.path)).image_rgb
            labels = tuple(each.label for each in objects)
            group = str(picture.fields.get(group_by)) if group_by else ""
            scenes.append(Scene(image_rgb, masks_of(picture, objects), labels, group))
    if not scenes:
        raise ConfigError(f"the dataset {path} has no picture with an object")
    return scenes


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="scripts/prompt-coverage", description=__doc__)
    parser.add_argument("datasets", nargs="*", type=Path, metavar="DATASET")
    parser.add_argument("--shots", type=int, metavar="N", help="objects of each label to show")
    parser.add_argument("--group-by", metavar="FIELD", help="field of a group of pictures")
    parser.add_argument("--json", action="store_true", help="one JSON object for each set")
    given = parser.parse_args(arguments)
    try:
        sets = {p.name: annotated_scenes(p, given.group_by) for p in given.datasets}
        if given.shots is None:
            for name, scenes in {"drawn": drawn_scenes(), **sets}.items():
                _say(name, scenes, {w: coverage(scenes, how) for w, how in WAYS.items()}, given)
        for name, scenes in sets.items() if given.shots else ():
            for split in ("same", "cross"):
                reached = guided_coverage(scenes, given.shots, same=split == "same")
                _say(f"{name} {split}", scenes, reached, given)
    except SamDetectError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    return 0


def _say(
    name: str, scenes: Sequence[Scene], reached: dict[str, Coverage], given: argparse.Namespace
) -> None:
    if given.json:
        print(json.dumps({"set": name, **{way: asdict(each) for way, each in reached.items()}}))
        return
    print(f"{name} ({len(scenes)} pictures, {sum(len(s.objects) for s in scenes)} objects)")
    for way, each in reached.items():
        print(f"  {way:13} {each.found:6.1%} of the objects, {each.prompts:7.1f} prompts")


# Drawn scenes


def drawn_scenes() -> list[Scene]:
    """Four pictures: discs that touch one another, discs that hardly differ from a grained ground,
    bright and dark things of very different sizes, and long ones."""
    return [_touching(), _faint(), _of_all_sizes(), _long()]


class _Canvas:
    """A picture that is drawn upon; of an object that others cover what is left counts.

    Args:
        ground: grey of the empty picture.
        seed: of places, colours and grain.
    """

    def __init__(self, ground: int, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.image = np.full((600, 800, 3), ground, np.uint8)
        self.labels = np.zeros((600, 800), np.int32)

    def ellipse(self, at: tuple[int, int], axes: tuple[int, int], turn: int, grey: int) -> None:
        number = int(self.labels.max()) + 1
        cv2.ellipse(self.labels, at, axes, turn, 0, 360, number, thickness=-1)
        cv2.ellipse(self.image, at, axes, turn, 0, 360, (grey,) * 3, thickness=-1)

    def place(self, margin: int) -> tuple[int, int]:
        x = self.random.integers(margin, 800 - margin)
        y = self.random.integers(margin, 600 - margin)
        return int(x), int(y)

    def empty(self, at: tuple[int, int], radius: int) -> bool:
        x, y = at
        rows = slice(max(y - radius, 0), y + radius)
        return not self.labels[rows, max(x - radius, 0) : x + radius].any()

    def scene(self, *, grain: int) -> Scene:
        noise = self.random.integers(-grain, grain + 1, self.image.shape)
        image = np.clip(self.image + noise, 0, 255).astype(np.uint8)
        kept = [number for number in range(1, int(self.labels.max()) + 1)
                if (self.labels == number).any()]  # fmt: skip
        return Scene(image, Masks.from_dense(np.stack([self.labels == n for n in kept])))


def _touching() -> Scene:
    canvas = _Canvas(ground=225, seed=1)
    for row in range(20):
        for column in range(18):
            at = 220 + 20 * column + 10 * (row % 2), 110 + 18 * row
            canvas.ellipse(at, (10, 10), 0, int(canvas.random.integers(120, 170)))
    return canvas.scene(grain=6)


def _faint() -> Scene:
    canvas = _Canvas(ground=30, seed=2)
    for _ in range(300):
        at, radius = canvas.place(30), int(canvas.random.integers(9, 26))
        if canvas.empty(at, radius + 6):
            canvas.ellipse(at, (radius, radius), 0, 30 + int(canvas.random.integers(4, 9)))
    return canvas.scene(grain=3)


def _of_all_sizes() -> Scene:
    canvas = _Canvas(ground=128, seed=3)
    for radius in (70, 60, 50, 40, 30, *[20] * 20, *[10] * 60, *[5] * 120):
        at = canvas.place(radius + 2)
        if canvas.empty(at, radius + 3):
            canvas.ellipse(at, (radius, radius), 0, int(canvas.random.choice([30, 70, 190, 230])))
    return canvas.scene(grain=5)


def _long() -> Scene:
    canvas = _Canvas(ground=215, seed=4)
    for _ in range(400):
        at, length = canvas.place(45), int(canvas.random.integers(15, 40))
        if canvas.empty(at, length):
            turn = int(canvas.random.integers(0, 180))
            canvas.ellipse(at, (length, 5), turn, int(canvas.random.integers(60, 150)))
    return canvas.scene(grain=5)


if __name__ == "__main__":
    sys.exit(main())
