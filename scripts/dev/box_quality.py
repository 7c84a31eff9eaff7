"""What boxes become, and what ``masks="auto"`` takes, on annotated pictures.

    ./scripts/box-quality DATASET... [--pictures 10] [--objects 5] [--segmenter naive]

Prints the tables of docs/segmentation.md: the mean IoU of the outline that a box becomes with the
annotated one, how often "no object that was proposed fits it" is said of boxes that are right and
of boxes that are wrong, and how many of the objects that are taken without a box are annotated.
"""

from __future__ import annotations

import argparse
import sys
from collections import defaultdict
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np

from sam_detect import SAMDetect
from sam_detect.errors import SamDetectError
from sam_detect.evaluation.comparison import overlap
from sam_detect.evaluation.dataset import AnnotatedObject, AnnotatedPicture
from sam_detect.evaluation.readers import open_dataset
from sam_detect.io import load_image
from sam_detect.segmentation import prompted
from sam_detect.types import Frame
from sam_detect.vector_store import MemoryVectorStore

Box = tuple[float, float, float, float]

RIGHT = ("exact", "moved", "larger")
"""Boxes of a user: as annotated; with sides moved by 5 % of their size (standard deviation); moved,
and 10 % larger on each side."""
WRONG = ("ground", "half", "corners")
"""A box of the same size on empty ground; one moved by half its size; ``x0,y0,x1,y1`` given as
``x,y,w,h``."""
FOUND_IOU = 0.5


def boxes_of(
    each: AnnotatedObject, picture: AnnotatedPicture, seed: int
) -> Iterator[tuple[str, Box]]:
    """The boxes that a user may give for an object, by kind; none on ground where there is none."""
    generator = np.random.default_rng([seed, round(each.bbox_xywh[0]), round(each.bbox_xywh[1])])
    x, y, w, h = each.bbox_xywh
    left, top, right, bottom = generator.normal(0, 0.05, 4) * (w, h, w, h)
    moved = x + left, y + top, max(1.0, w + right - left), max(1.0, h + bottom - top)
    larger = moved[0] - 0.1 * w, moved[1] - 0.1 * h, moved[2] + 0.2 * w, moved[3] + 0.2 * h
    yield from (("exact", each.bbox_xywh), ("moved", moved), ("larger", larger))
    angle = generator.uniform(0, 2 * np.pi)
    yield "half", (x + 0.5 * w * np.cos(angle), y + 0.5 * h * np.sin(angle), w, h)
    yield "corners", (x, y, x + w, y + h)
    height, width = picture.size_hw
    for _ in range(100):
        place = generator.uniform(0, max(1, width - w)), generator.uniform(0, max(1, height - h))
        if not any(_touch((*place, w, h), other.bbox_xywh) for other in picture.objects):
            yield "ground", (*place, w, h)
            return


def _touch(a: Box, b: Box) -> bool:
    return all(a[i] < b[i] + b[i + 2] and b[i] < a[i] + a[i + 2] for i in (0, 1))


class Measured:
    """The figures of one dataset.

    Attributes:
        ious: of outline and object, by kind of box.
        unfit: whether a box was warned of, by kind.
        taken, right: objects that "auto" took, and those of them that are annotated.
        objects: all that could be taken.
    """

    def __init__(self) -> None:
        self.ious: dict[str, list[float]] = defaultdict(list)
        self.unfit: dict[str, list[bool]] = defaultdict(list)
        self.taken = self.right = self.objects = 0

    def add(self, picture: AnnotatedPicture, frame: Frame, detector: SAMDetect, most: int) -> None:
        annotated = tuple(each for each in picture.objects if not each.crowd)
        for each in annotated[:most]:
            kinds, boxes = zip(*boxes_of(each, picture, seed=0), strict=True)
            found = prompted.outline(
                frame, detector.segmenter, propose=detector.pipeline.all_proposals, boxes_xywh=boxes
            )
            ious = overlap(found.masks, picture, (each,), each.mask_rle is None)[:, 0]
            for kind, iou, fits in zip(kinds, ious.tolist(), found.fits.tolist(), strict=True):
                self.ious[kind].append(iou)
                self.unfit[kind].append(not fits)
        taken = detector.learn(frame, "object", masks="auto").masks
        shared = overlap(taken, picture, annotated, any(o.mask_rle is None for o in annotated))
        best = set(shared.argmax(axis=1)[shared.max(axis=1, initial=0) >= FOUND_IOU].tolist())
        self.taken, self.right = self.taken + len(taken), self.right + len(best)
        self.objects += len(annotated)

    def rows(self, name: str) -> list[str]:
        """Cells of the three tables."""
        ious = " | ".join(f"{np.mean(self.ious[kind]):.3f}" for kind in RIGHT)
        unfit = " | ".join(f"{np.mean(self.unfit[kind]):.2f}" for kind in (*RIGHT, *WRONG))
        found, share = self.right / max(1, self.taken), self.right / max(1, self.objects)
        return [
            f"| {name} | {len(self.ious['exact'])} | {ious} |",
            f"| {name} | {unfit} |",
            f"| {name} | {self.taken} | {found:.2f} | {share:.2f} |",
        ]


HEADS = (
    "| IoU of the outline | boxes | exact | moved | larger |",
    "| warned of | exact | moved | larger | empty ground | moved by half | as two corners |",
    "| masks auto | taken | of them objects | of the objects taken |",
)


def measure(folder: Path, *, pictures: int, objects: int, segmenter: str) -> Measured:
    """Measures the first pictures of a dataset.

    Raises:
        ImageError: it cannot be read.
    """
    measured = Measured()
    for picture in open_dataset(folder).pictures[:pictures]:
        detector = SAMDetect(segmenter, "appearance", vector_store=MemoryVectorStore())
        measured.add(picture, load_image(str(picture.path)), detector, objects)
    return measured


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/box-quality", description=__doc__.splitlines()[0]
    )
    parser.add_argument("datasets", nargs="+", type=Path, metavar="DATASET")
    parser.add_argument("--pictures", type=int, default=10, metavar="N", help="the first N of each")
    parser.add_argument("--objects", type=int, default=5, metavar="N", help="of each picture")
    parser.add_argument("--segmenter", default="naive")
    given = parser.parse_args(arguments)
    how = {"pictures": given.pictures, "objects": given.objects, "segmenter": given.segmenter}
    try:
        rows = [measure(folder, **how).rows(folder.name) for folder in given.datasets]
    except SamDetectError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    for head, table in zip(HEADS, zip(*rows, strict=True), strict=True):
        print("\n".join([head, "| --- " * (head.count("|") - 1) + "|", *table, ""]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
