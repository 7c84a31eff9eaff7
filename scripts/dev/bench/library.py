"""The suite ``library``: what naming one picture takes in a new process, by size of the library.

The examples are drawn: unit vectors around the directions of 20 labels, from pictures of 50
objects, each with four hard negatives. The picture has 64 candidates. Everything is done by objects
that are made anew for each run, as a process that was just started makes them; what it imports is
loaded.
"""

from __future__ import annotations

import base64
import shutil
import tempfile
import uuid
from pathlib import Path

import numpy as np

from sam_detect.errors import ConfigError
from sam_detect.labelling.examples import KNNLabeller
from sam_detect.library import manifest as manifests
from sam_detect.library.example import with_checksums
from sam_detect.library.library import Library
from sam_detect.library.snapshot import LibrarySnapshot
from sam_detect.library.snapshot_reader import SnapshotReader
from sam_detect.library.webp import encode_webp
from sam_detect.types import Classification, Point, Recipe
from sam_detect.types.masks import FloatArray
from sam_detect.vector_store.qdrant import QdrantVectorStore
from scripts.dev.bench.measurements import Measurements, Trial
from scripts.dev.bench.suites import Options

SIZES = (200, 2_000)
LARGEST = 1_000_000
DIMENSION = 256
LABELS = 20
OF_PICTURE = 50
CANDIDATES = 64
HARD_NEGATIVES = 4
AT_ONCE = 1_000
SIDE = 64
"""Of a drawn picture's objects, pixels."""
NOISE = 0.5
"""Length of what is drawn at random, against the direction of the label."""


def run(measurements: Measurements, options: Options) -> None:
    """Open, fit, name and learn one more, at each size."""
    for size in options.sizes:
        if not LABELS <= size <= LARGEST:
            raise ConfigError(f"a size must be from {LABELS} to {LARGEST}, got {size}")
    for size in options.sizes or SIZES:
        with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
            _measure(measurements, Path(folder), size)


def _measure(measurements: Measurements, folder: Path, size: int) -> None:
    drawn = Drawn(size)
    measurements.announce(f"fill {size}")
    with measurements.memory() as _:
        drawn.fill(folder)
    kept = Drawn.library(folder).store.kept_path

    def forget() -> None:
        if kept is not None:
            shutil.rmtree(kept, ignore_errors=True)

    def name(snapshot: LibrarySnapshot) -> list[Classification]:
        return KNNLabeller().label(drawn.candidates, snapshot)

    measurements.announce(f"first {size}")
    first = Trial("first", lambda _: name(drawn.snapshot(folder)), prepare=forget)
    [measured] = measurements.accumulate([first], 1)
    measurements.stages[f"first_{size}"] = measured.to_dict()
    measurements.announce(f"name {size}")
    known = drawn.snapshot(folder)
    trials = [
        Trial("open", lambda _: drawn.snapshot(folder)),
        Trial("fit", lambda _: KNNLabeller().fitted_to(known, None)),
        Trial("name", lambda _: name(drawn.snapshot(folder))),
    ]
    for series in measurements.interleave(trials):
        measurements.stages[f"{series.name}_{size}"] = series.to_dict()
    answers = name(known)
    right = sum(a.label == f"label {n % LABELS}" for n, a in enumerate(answers))
    measurements.figures[f"named_right_{size}"] = round(right / len(answers), 4)

    measurements.announce(f"learn one more {size}")
    more = iter(range(size, LARGEST * 2))

    def learn(point: Point) -> None:
        library = Drawn.library(folder)
        library.add([point], drawn.recipe)

    trials = [
        Trial("learn_one", learn, prepare=lambda: drawn.point(next(more))),
        Trial(
            "name_after",
            lambda _: name(drawn.snapshot(folder)),
            prepare=lambda: learn(drawn.point(next(more))),
        ),
    ]
    for series in measurements.interleave(trials):
        measurements.stages[f"{series.name}_{size}"] = series.to_dict()


class Drawn:
    """A drawn library. Always the same.

    Args:
        size: how many examples it has.

    Attributes:
        recipe: how its vectors were made.
        candidates: ``(CANDIDATES, DIMENSION)`` float32 unit vectors of a picture's candidates, of
            one label after the other.
    """

    def __init__(self, size: int) -> None:
        self.size = size
        generator = np.random.default_rng(0)
        self._centres = generator.standard_normal((LABELS, DIMENSION), dtype=np.float32)
        self._centres /= np.linalg.norm(self._centres, axis=1, keepdims=True)
        self.candidates = self._vectors(np.arange(CANDIDATES), generator)
        picture = generator.integers(0, 256, (16, 16, 3), dtype=np.uint8)
        self._crop = encode_webp(picture)
        self.recipe = Recipe(
            embedder="appearance", embedder_version=1, model={}, fade="gaussian", fade_params={},
            occupancy=0.2, crop_side=256, crop_version=1, dimension=DIMENSION,
        )  # fmt: skip

    @staticmethod
    def library(folder: Path) -> Library:
        """The library in a folder, as a new process has it."""
        store = QdrantVectorStore(path=folder, collection_name="bench", batch_size=AT_ONCE)
        return Library(store, "bench")

    def snapshot(self, folder: Path) -> LibrarySnapshot:
        """The library as it is now, as a new process reads it."""
        return SnapshotReader(self.library(folder)).snapshot()

    def fill(self, folder: Path) -> None:
        """Makes the library."""
        library = self.library(folder)
        points = (self.point(number) for number in range(self.size))
        with library.store.session():
            manifest = manifests.new_manifest(library.name, self.recipe)
            manifests.replace_all(library.store, points, manifest)

    def point(self, number: int) -> Point:
        """One example; its number decides everything."""
        generator = np.random.default_rng([number, self.size])
        label, place = number % LABELS, number % OF_PICTURE
        vector, *around = self._vectors(np.full(1 + HARD_NEGATIVES, label), generator)
        around = np.array(around) + self._centres[(label + 1) % LABELS]
        around /= np.linalg.norm(around, axis=1, keepdims=True)
        x, y = SIDE * (place % 10), SIDE * (place // 10)
        size = [SIDE * OF_PICTURE // 10, SIDE * 10]
        payload = {
            "label": f"label {label}", "negative": False, "source": f"{number // OF_PICTURE}.png",
            "bbox": [x, y, SIDE, SIDE], "area": 2000 + number % 500,
            "added": "2026-01-01T00:00:00+00:00", "picture": f"{number // OF_PICTURE:032x}",
            "segmentation": {"size": size, "counts": "0"}, "batch": "",
            "crop_webp": self._crop, "crop_mask": "0", "crop_scale": 1.0,
            "crop_window": [0, 0, 16, 16], "before": [],
            "surroundings": {
                "proposer": "naive", "quality": 0.9, "boxes": [[0, 0, 4, 4]] * HARD_NEGATIVES,
                "masks": ["0"] * HARD_NEGATIVES, "touching": [True] * HARD_NEGATIVES,
                "vectors": base64.b64encode(around.astype("<f2").tobytes()).decode("ascii"),
            },
        }  # fmt: skip
        key = str(uuid.UUID(bytes=generator.bytes(16)))
        return with_checksums(Point(key, vector, payload))

    def _vectors(self, labels: np.ndarray, generator: np.random.Generator) -> FloatArray:
        noise = generator.standard_normal((len(labels), DIMENSION), dtype=np.float32)
        noise *= NOISE / np.sqrt(DIMENSION)
        vectors = self._centres[labels % LABELS] + noise
        return np.asarray(vectors / np.linalg.norm(vectors, axis=1, keepdims=True), np.float32)
