"""The suite ``size``: what a picture takes by its number of megapixels.

The pictures are drawn: discs of 12 pixels on a grained ground, in tiled TIFFs. All have as many
discs in a megapixel, so the time for a megapixel is that of the smallest picture as long as nothing
grows faster than the picture. The examples are five discs of another picture. What is timed is
reading the file, proposing, describing and naming.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import tifffile

from sam_detect.api import SAMDetect
from sam_detect.errors import ConfigError
from sam_detect.types import Detections, ImageRGB
from sam_detect.types.masks import IntArray
from sam_detect.vector_store.memory import MemoryVectorStore
from scripts.dev.bench.measurements import Measurements, Trial
from scripts.dev.bench.suites import Options

SIZES = (1, 4, 16, 100)
LARGEST = 2_000
RADIUS = 6
STEP = 250
"""Distance of the discs from one another, pixels."""
JITTER = 80
"""So far they lie off the grid, so that they lie on the borders of windows in all ways."""
TILE = 512
GROUND, DISC, GRAIN = (205, 200, 190), (60, 40, 120), 2.0
EXAMPLES = 5
NEAR = 4
"""A detection is of a disc whose centre is fewer pixels away."""
LEAST_MEGAPIXELS = 16
"""Smaller pictures are detected in so often that the times are of so many megapixels."""


def run(measurements: Measurements, options: Options) -> None:
    """Time and memory at each size, in turn."""
    sizes = options.sizes or SIZES
    for size in sizes:
        if not 1 <= size <= LARGEST:
            raise ConfigError(f"a size must be from 1 to {LARGEST} megapixels, got {size}")
    measurements.workload = f"discs of {2 * RADIUS} pixels, {STEP} apart"
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        detector = SAMDetect(segmenter="naive", vector_store=MemoryVectorStore(), color_order="rgb")
        first = Path(folder, "examples.tif")
        learn(detector, first, draw(first, 1000, seed=1))
        detector.detect(first)  # the network is slow the first time
        _measure(measurements, detector, Path(folder), sizes)


def _measure(
    measurements: Measurements, detector: SAMDetect, folder: Path, sizes: tuple[int, ...]
) -> None:
    found: dict[int, Detections] = {}
    trials, places, times = [], {}, {}
    for size in sizes:
        measurements.announce(f"draw {size} megapixels")
        path = folder / f"{size}.tif"
        places[size] = draw(path, round(1000 * math.sqrt(size)), seed=0)
        times[size] = max(1, LEAST_MEGAPIXELS // size)

        def detect(_: None, size: int = size, path: Path = path) -> None:
            measurements.announce(f"detect in {size} megapixels")
            for _again in range(times[size]):
                found[size] = detector.detect(path)

        trials.append(Trial(f"{size} megapixels", detect))
    measured = measurements.accumulate(trials)
    each = [series.scaled(1 / times[size] / size)
            for series, size in zip(measured, sizes, strict=True)]  # fmt: skip
    for series, size in zip(measured, sizes, strict=True):
        measurements.stages[f"detect_{size}"] = series.scaled(1 / times[size]).to_dict()
    for series, size in zip(each, sizes, strict=True):
        if size != sizes[0]:
            measurements.add_pair(f"megapixel_of_{size}", series, each[0])
        once, false = counted(found[size], places[size])
        measurements.figures[f"found_once_{size}"] = round(once / len(places[size]), 4)
        measurements.figures[f"false_{size}"] = false


def draw(path: Path, side: int, *, seed: int) -> IntArray:
    """Writes a square picture of discs as a tiled TIFF, tile by tile; ``(N, 2)`` their centres."""
    random = np.random.default_rng(seed)
    rows = np.arange(STEP // 2, side - STEP // 4, STEP)
    grid = np.stack(np.meshgrid(rows, rows), axis=-1).reshape(-1, 2)
    places = np.asarray(grid + random.integers(-JITTER, JITTER + 1, grid.shape), np.int64)
    grain = random.normal(GROUND, GRAIN, (TILE, TILE, 3))
    ground = np.clip(np.rint(grain), 0, 255).astype(np.uint8)
    tifffile.imwrite(
        path, _tiles(ground, places, -(-side // TILE)), shape=(side, side, 3), dtype=np.uint8,
        tile=(TILE, TILE), photometric="rgb", compression="zlib",
    )  # fmt: skip
    return places


def _tiles(ground: ImageRGB, places: IntArray, count: int) -> Iterator[ImageRGB]:
    for row in range(count):
        for column in range(count):
            tile = ground.copy()
            inside = places - np.array([column, row]) * TILE
            near = ((inside > -RADIUS - 2) & (inside < TILE + RADIUS + 2)).all(axis=1)
            for x, y in inside[near].tolist():
                cv2.circle(tile, (x, y), RADIUS, DISC, -1)
            yield tile


def box_of(place: IntArray) -> list[int]:
    """``x, y, width, height`` of a disc."""
    return [*(place - RADIUS).tolist(), 2 * RADIUS + 1, 2 * RADIUS + 1]


def learn(detector: SAMDetect, path: Path, places: IntArray) -> None:
    """Teaches the first discs of a picture."""
    boxes = [box_of(place) for place in places[:EXAMPLES]]
    detector.learn(path, "disc", boxes_xywh=boxes)


def counted(found: Detections, places: IntArray) -> tuple[int, int]:
    """How many discs were found exactly once, and how many detections are no disc."""
    boxes = found.known.boxes_xyxy
    centres = (boxes[:, :2] + boxes[:, 2:] - 1) / 2
    hits, false = np.zeros(len(places), np.int64), 0
    for centre in centres:
        near = np.flatnonzero((np.abs(places - centre) < NEAR).all(axis=1))
        hits[near] += 1
        false += not len(near)
    return int((hits == 1).sum()), false
