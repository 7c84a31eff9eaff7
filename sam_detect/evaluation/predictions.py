"""Every detection of every episode in one file, for others to score with tools of their own."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from sam_detect.errors import OutputError
from sam_detect.evaluation.dataset import Dataset, Id
from sam_detect.evaluation.run import Episode, Query
from sam_detect.outputs import write_atomically


def write_predictions(path: Path, dataset: Dataset, episodes: Sequence[Episode]) -> None:
    """Writes named detections in COCO's terms (ids of the dataset's own file), best first.

    Unknown ones have no category and are left out.

    Raises:
        OutputError: the file cannot be written.
    """
    rows = [_episode(episode, dataset.categories) for episode in episodes]
    text = json.dumps({"episodes": rows})
    write_atomically(path, lambda file: file.write(text.encode()))


def check_output_file(option: str, path: Path, annotations: Path, dataset: Dataset) -> None:
    """Says before anything is measured that a file would take the place of another.

    Args:
        option: that named the file.
        annotations: the file or folder that the dataset was read from.

    Raises:
        OutputError: it is a folder, or a file of the dataset.
    """
    if path.is_dir():
        raise OutputError(f"'{path}' is a folder; name a file in it with {option}")
    files = [annotations, annotations / "annotations.json", annotations / "data.yaml"]
    files += [picture.path for picture in dataset.pictures]
    if path.exists() and any(each.exists() and path.samefile(each) for each in files):
        raise OutputError(f"'{path}' is a file of the dataset; choose another with {option}")


def _episode(episode: Episode, categories: dict[str, Id]) -> dict[str, Any]:
    split = episode.split
    return {
        "seed": split.seed,
        "group": split.group,
        "support_annotation_ids": [o.id for _, objects in split.support for o in objects],
        "query_image_ids": [query.picture.id for query in episode.queries],
        "detections": [row for query in episode.queries for row in _rows(query, categories)],
    }


def _rows(query: Query, categories: dict[str, Id]) -> list[dict[str, Any]]:
    found = query.found
    named = [i for i, label in enumerate(found.labels) if label is not None]
    rows = []
    for index in sorted(named, key=lambda i: (-float(found.scores[i]), i)):
        x0, y0, x1, y1 = (int(v) for v in found.masks.boxes_xyxy[index])
        rows.append(
            {
                "image_id": query.picture.id,
                "category_id": categories[str(found.labels[index])],
                "bbox": [x0, y0, x1 - x0, y1 - y0],
                "segmentation": found.masks.rle(index),
                "score": round(float(found.scores[index]), 6),
            }
        )
    return rows
