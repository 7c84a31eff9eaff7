"""How near refined outlines come to the truth, from outlines that are jittered.

    ./scripts/refine-quality DATASET... [--seed 0] [--segmenter naive]
                             [--jitter grown|shrunken|mixed]

Each annotated outline is jittered as by a quick hand: it becomes a polygon of 24 vertices, its box
grows by 10 to 20 % on each side alone (or shrinks as much, or both by up to 15 %), it is shifted by
up to 3 % of its side, and each vertex moves by up to 5 %. Then ``sam-detect refine`` runs, and the
mean IoU with the truth is printed, of the jittered outlines and of the refined ones. Objects that
are kept as they were count, too.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from sam_detect.errors import SamDetectError
from sam_detect.evaluation.dataset import masks_of
from sam_detect.evaluation.readers import open_dataset
from sam_detect.types.polygons import mask_polygons

VERTICES = 24
JITTERS = {"grown": (1.1, 1.2), "shrunken": (0.8, 0.9), "mixed": (0.85, 1.15)}
"""What the sides of an object's box are multiplied by."""
SHIFT, MOVED = 0.03, 0.05
"""Most, as a share of the root of the box's area."""
HEAD = "| set | objects | jittered | refined | kept as they were |"
Points = npt.NDArray[np.float64]


def jittered(ring: Points, generator: np.random.Generator, factors: tuple[float, float]) -> Points:
    """``(24, 2)`` vertices of an ``(N, 2)`` outline, as by a quick hand."""
    closed = np.vstack([ring, ring[:1]])
    along = np.concatenate([[0], np.cumsum(np.hypot(*np.diff(closed, axis=0).T))])
    places = np.linspace(0, along[-1], VERTICES, endpoint=False)
    vertices = np.stack([np.interp(places, along, closed[:, k]) for k in (0, 1)], axis=1)
    low, high = ring.min(axis=0), ring.max(axis=0)
    side = float(np.sqrt(np.prod(high - low)))
    grown = (vertices - (low + high) / 2) * generator.uniform(*factors, 2) + (low + high) / 2
    shift = generator.uniform(-SHIFT, SHIFT, 2) * side
    return np.asarray(grown + shift + generator.uniform(-MOVED, MOVED, vertices.shape) * side)


def write_pair(folder: Path, seed: int, jitter: str, to: Path) -> Path:
    """Writes ``coarse.json`` and ``truth.json``, COCO, of a dataset; returns its folder of
    pictures.

    Raises:
        SamDetectError: the dataset cannot be read.
    """
    dataset = open_dataset(folder)
    files: dict[str, dict[str, Any]] = {
        name: {"images": [], "categories": [{"id": 1, "name": "object"}], "annotations": []}
        for name in ("coarse", "truth")
    }
    number = 0
    for index, picture in enumerate(dataset.pictures):
        generator, masks = np.random.default_rng([seed, index]), masks_of(picture, picture.objects)
        path = {"id": index, "file_name": str(picture.path)}
        for file in files.values():
            file["images"].append(path)
        for each, (crop, box) in enumerate(zip(masks.crops(), masks.boxes_xyxy, strict=True)):
            outline = mask_polygons(crop, box.tolist())[0][0]
            number += 1
            row = {"id": number, "image_id": index, "category_id": 1}
            coarse = jittered(np.asarray(outline, np.float64), generator, JITTERS[jitter])
            files["coarse"]["annotations"].append(
                {**row, "segmentation": [coarse.ravel().tolist()]}
            )
            files["truth"]["annotations"].append({**row, "segmentation": masks.rle(each)})
    for name, file in files.items():
        (to / f"{name}.json").write_text(json.dumps(file))
    return Path(dataset.pictures[0].path).parent


def measure(folder: Path, *, seed: int, segmenter: str, jitter: str = "grown") -> str:
    """A row of the table; raises ``SamDetectError`` where the dataset cannot be read."""
    with tempfile.TemporaryDirectory() as made:
        images = write_pair(folder, seed, jitter, Path(made))
        command = [sys.executable, "-m", "sam_detect", "refine", f"{made}/coarse.json", "--images",
                   str(images), "--output", f"{made}/fine.json", "--truth", f"{made}/truth.json",
                   "--segmenter", segmenter, "--json"]  # fmt: skip
        ran = subprocess.run(command, capture_output=True, text=True, check=False)
    if not ran.stdout:
        raise SamDetectError(ran.stderr.strip())
    said = json.loads(ran.stdout)
    return (
        f"| {folder.name} | {said['total']} | {said['mean_iou_before']:.3f} | "
        f"{said['mean_iou_after']:.3f} | {said['kept']} |"
    )


def main(arguments: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(
        prog="scripts/refine-quality", description=__doc__.splitlines()[0]
    )
    parser.add_argument("datasets", nargs="+", type=Path, metavar="DATASET")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--segmenter", default="naive")
    parser.add_argument("--jitter", choices=JITTERS, default="grown")
    given = parser.parse_args(arguments)
    try:
        rows = [
            measure(folder, seed=given.seed, segmenter=given.segmenter, jitter=given.jitter)
            for folder in given.datasets
        ]
    except SamDetectError as error:
        print(f"error: {error}", file=sys.stderr)
        return error.exit_code
    print("\n".join([HEAD, "| --- " * (HEAD.count("|") - 1) + "|", *rows]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
