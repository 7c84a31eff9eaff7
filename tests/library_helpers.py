"""Drawn pictures, and libraries of their objects, for the library's tests."""

from __future__ import annotations

import base64
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.detector import SAMDetect
from sam_detect.interfaces import Segmenter, VectorStore
from sam_detect.library.example import Example
from sam_detect.library.library import Library
from sam_detect.types import Frame, Masks, Point

COLOURS = {"nut": (60, 120, 200), "leaf": (60, 180, 60), "berry": (140, 30, 60)}
SIDE = 160


class DiscSegmenter(Segmenter):
    """Proposes the discs of :func:`discs`, without looking."""

    def segment(self, frame: Frame) -> Masks:
        return Masks.from_dense(disc_masks())


def disc_masks() -> npt.NDArray[np.bool_]:
    """``(5, SIDE, SIDE)``: five equal discs."""
    masks = np.zeros((5, SIDE, SIDE), np.uint8)
    for mask, centre in zip(
        masks, [(30, 30), (120, 34), (80, 80), (28, 124), (122, 120)], strict=True
    ):
        cv2.circle(mask, centre, 16, 1, -1)
    return masks.astype(bool)


def discs(name: str = "nut", seed: int = 0) -> npt.NDArray[np.uint8]:
    """``(SIDE, SIDE, 3)`` BGR: five equal discs in the colour of a name; every seed differs."""
    noise = np.random.default_rng(seed).integers(225, 245, (SIDE, SIDE, 3), dtype=np.uint8)
    noise[disc_masks().any(axis=0)] = COLOURS[name]
    return noise


def detector(store: VectorStore | None = None, **settings: Any) -> SAMDetect:
    """One that proposes the discs, and describes them by their colour unless told otherwise."""
    settings.setdefault("embedder", "average")
    return SAMDetect(segmenter=DiscSegmenter(), vector_store=store, **settings)


def taught(store: VectorStore, *names: str, **settings: Any) -> SAMDetect:
    """A detector whose library has five discs of each name."""
    made = detector(store, **settings)
    for number, name in enumerate(names or ("nut", "leaf")):
        made.add_examples_from_file(discs(name, number), disc_masks(), name)
    return made


def contents(library: Library) -> dict[str, tuple[Any, ...]]:
    """Everything of every example but the time, comparable."""
    return {
        e.id: (
            e.label, e.negative, e.source, tuple(e.bbox), e.area, e.segmentation["counts"],
            e.crop.image_rgb.tobytes(), e.crop.mask.tobytes(), e.crop.scale, e.crop.window_xyxy,
            e.picture,
        )
        for e in library.read()
    }  # fmt: skip


def vectors(library: Library) -> dict[str, npt.NDArray[np.float32]]:
    return {p.id: np.asarray(p.vector) for p in library.store.scan(with_vectors=True)}


def write_annotated(folder: Path, pictures: int, names: tuple[str, ...] = ("nut", "leaf")) -> Path:
    """A folder of drawn pictures and a COCO file of their discs; returns the file."""
    import json

    (folder / "images").mkdir(parents=True, exist_ok=True)
    rles = [Masks.from_dense(disc_masks()).rle(i) for i in range(5)]
    data: dict[str, Any] = {
        "images": [],
        "annotations": [],
        "categories": [{"id": i, "name": name} for i, name in enumerate(names)],
    }
    for number in range(pictures):
        category = number % len(names)
        file_name = f"{number:03d}.png"
        cv2.imwrite(str(folder / "images" / file_name), discs(names[category], number))
        data["images"].append({"id": number, "file_name": file_name, "width": SIDE, "height": SIDE})
        for index, rle in enumerate(rles):
            annotation = {"id": number * 5 + index, "image_id": number, "category_id": category}
            data["annotations"].append({**annotation, "segmentation": rle, "iscrowd": 0})
    file = folder / "annotations.json"
    file.write_text(json.dumps(data))
    return file


# -- format 1, as the first commits of the project wrote it ---------------------------------------


def to_format_1(library: Library) -> dict[str, Any]:
    """Rewrites a library in format 1 and returns its manifest."""
    found = library.require()
    manifest = {
        "kind": "sam-detect library",
        "format_version": 1,
        "name": found["name"],
        "recipe": found["recipe"],
        "generation": 7,
    }
    points = [payload_1(example) for example in library.read()]
    library.store.replace_all(points, manifest)
    return manifest


def payload_1(example: Example) -> Point:
    """The point that format 1 made of an example: its crop a PNG, no picture."""
    point = example.to_point()
    _, png = cv2.imencode(".png", cv2.cvtColor(example.crop.image_rgb, cv2.COLOR_RGB2BGR))
    kept = ("label", "negative", "source", "bbox", "area", "added", "segmentation")
    payload = {name: point.payload[name] for name in kept}
    payload["crop_png"] = base64.b64encode(png.tobytes()).decode("ascii")
    payload |= {name: point.payload[name] for name in ("crop_mask", "crop_scale", "crop_window")}
    return Point(point.id, point.vector, payload)
