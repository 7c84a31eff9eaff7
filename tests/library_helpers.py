"""Drawn pictures, and libraries of their objects, for the library's tests."""

from __future__ import annotations

import uuid
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from sam_detect.api import SAMDetect
from sam_detect.features.hard_negatives import HardNegatives
from sam_detect.interfaces import Segmenter, VectorStore
from sam_detect.library.library import Library
from sam_detect.library.snapshot import LibrarySnapshot
from sam_detect.library.snapshot_reader import SnapshotReader
from sam_detect.server.annotation import AnnotationSession
from sam_detect.server.journal import Journal
from sam_detect.types import NO_HINTS, Frame, Hints, Masks

COLOURS = {"nut": (60, 120, 200), "leaf": (60, 180, 60), "berry": (140, 30, 60)}
SIDE = 160


def local_mode_store() -> VectorStore:
    """The store of a Qdrant server, over the client's local mode."""
    from qdrant_client import QdrantClient

    from sam_detect.vector_store._server import ServerStore

    client, name = QdrantClient(":memory:"), f"lib-{uuid.uuid4().hex[:8]}"
    return ServerStore(lambda: client, name, location="the local mode")


def unrecorded(library: Library) -> None:
    """Leaves the library as one whose writer was killed: its examples are not counted."""
    library.store.write_manifest({**library.require(), "contents": None})


@contextmanager
def annotation_session(photos: Path) -> Iterator[AnnotationSession]:
    """The pictures of a folder, to be annotated; the journal lies next to the folder."""
    detector = SAMDetect("naive", "appearance", library="nuts")
    with closing(Journal(photos.parent / "journal.sqlite")) as journal:
        yield AnnotationSession(detector, [str(photos)], journal)


class DiscSegmenter(Segmenter):
    """Proposes the discs of :func:`discs`, without looking."""

    def propose(self, frame: Frame, hints: Hints = NO_HINTS) -> Masks:
        masks = Masks.from_dense(disc_masks())
        return masks if frame.size_hw == masks.size_hw else Masks.empty(frame.size_hw)


class PartsSegmenter(Segmenter):
    """Proposes the discs, and, as not so good, the left third of each and a speck beside it."""

    def propose(self, frame: Frame, hints: Hints = NO_HINTS) -> Masks:
        whole, parts = disc_masks(), []
        for mask in whole:
            rows, columns = np.nonzero(mask)
            middle, left = int(rows.mean()), columns.min()
            third, speck = mask.copy(), np.zeros_like(mask)
            third[:, left + 12 :] = False
            speck[middle - 1 : middle + 2, left - 4 : left - 1] = True
            parts += [third, speck]
        found = Masks.from_dense(np.stack([*whole, *parts]))
        return replace(found, predicted_ious=np.repeat([0.9, 0.4], [5, 10]).astype(np.float32))


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
    settings.setdefault("segmenter", DiscSegmenter())
    return SAMDetect(vector_store=store, **settings)


def taught(store: VectorStore, *names: str, **settings: Any) -> SAMDetect:
    """A detector whose library has five discs of each name."""
    made = detector(store, **settings)
    for number, name in enumerate(names or ("nut", "leaf")):
        made.add_examples_from_file(discs(name, number), disc_masks(), name)
    return made


def contents(library: Library) -> dict[str, tuple[Any, ...]]:
    """Everything of every example but the time and the vectors, comparable.

    Last comes what a converted library does not have, the surroundings.
    """
    return {
        e.id: (
            e.label, e.negative, e.source, tuple(e.bbox), e.area, e.segmentation["counts"],
            e.crop.image_rgb.tobytes(), e.crop.mask.tobytes(), e.crop.scale, e.crop.window_xyxy,
            e.picture, e.hard_negatives and regions(e.hard_negatives),
        )
        for e in library.read()
    }  # fmt: skip


def regions(around: HardNegatives) -> tuple[Any, ...]:
    """Everything of surroundings but the vectors, comparable."""
    background = [
        (crop.image_rgb.tobytes(), crop.mask.tobytes(), crop.scale, crop.window_xyxy)
        for crop in around.background
    ]
    return (
        around.proposer, around.quality, around.masks.size_hw, around.masks.boxes_xyxy.tolist(),
        around.masks.crop_rles, around.touching.tolist(), background,
    )  # fmt: skip


def around_vectors(library: Library) -> dict[str, npt.NDArray[np.float32]]:
    """The vectors of what lies around each example."""
    return {e.id: e.hard_negatives.vectors for e in library.read() if e.hard_negatives is not None}


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


# -- what a library of today may hold from before the first release ------------------------------


def as_converted(library: Library) -> None:
    """Leaves the library as one of format 2 that became one of today: nothing is known of what
    lies around its examples, nor of learning batches."""
    old = [replace(e, hard_negatives=None, batch="", before=()).to_point() for e in library.read()]
    library.store.replace_all(old, {**library.require(), "contents": None})


def as_older_format(library: Library, version: int) -> None:
    """Leaves the library as one that says an older format."""
    library.store.write_manifest({**library.require(), "format_version": version})


def snapshot_of(library: Library) -> LibrarySnapshot:
    """The library as it is now, in its own recipe."""
    return SnapshotReader(library).snapshot()
