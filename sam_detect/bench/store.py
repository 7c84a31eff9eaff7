"""The suite ``store``: where vectors are kept, at several sizes.

``memory`` and ``embedded`` are ours; ``local``, qdrant-client's own mode without a server, is the
reference. All hold the same vectors with the same small payload, and search exactly.
"""

from __future__ import annotations

import tempfile
import uuid
import warnings
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path

import numpy as np

from sam_detect.bench.measurements import Measurements
from sam_detect.bench.stores import ComparedStore, Embedded, InMemory, LocalMode
from sam_detect.bench.suites import Options, Suite
from sam_detect.bench.timing import Series, Trial, accumulate, interleave
from sam_detect.errors import ConfigError
from sam_detect.masks import FloatArray
from sam_detect.types import Point

DIMENSION = 256
SIZES = (1_000, 10_000, 100_000)
LARGEST_LOCAL = 10_000
"""The local mode takes minutes to fill beyond it: that is measured only where it is asked for."""
PARTS = 10
"""A store is filled in so many equal parts, all stores in turn."""
QUERIES = 64
CLUSTERS = 50
PAIRS = (("embedded", "local"), ("memory", "local"), ("memory", "embedded"))


class StoreSuite(Suite):
    """Insert, search and open, at each size. A search is of a batch of 64 vectors."""

    takes = frozenset({"sizes"})

    def run(self, measurements: Measurements, options: Options) -> None:
        for size in options.sizes:
            if size < PARTS or size % PARTS:
                raise ConfigError(f"a size must be a multiple of {PARTS} above 0, got {size}")
        for size in options.sizes or SIZES:
            with_local = bool(options.sizes) or size <= LARGEST_LOCAL
            if not with_local:
                measurements.skipped.append(
                    f"local at {size} vectors, which takes minutes: ask with --sizes {size}"
                )
            with (
                tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder,
                warnings.catch_warnings(),
            ):
                # The local mode advises a server, also where it is measured on purpose.
                warnings.simplefilter("ignore", UserWarning)
                _measure(measurements, _stores(Path(folder), with_local), size)


def _stores(folder: Path, with_local: bool) -> list[ComparedStore]:
    stores: list[ComparedStore] = [InMemory(), Embedded(folder / "embedded")]
    return [*stores, LocalMode(folder / "local", DIMENSION)] if with_local else stores


def _measure(measurements: Measurements, stores: Sequence[ComparedStore], size: int) -> None:
    points, queries = clustered_points(size)
    measurements.announce(f"insert {size}")
    parts = accumulate([_filling(s, points) for s in stores], PARTS, clock=measurements.clock)
    inserted = [part.times(PARTS) for part in parts]
    _keep(measurements, "insert", size, inserted)
    _keep_memory(measurements, size, inserted)

    measurements.announce(f"search {size}")
    with ExitStack() as stack:
        for store in stores:
            stack.enter_context(store.kept_open())
        found = [store.search(queries) for store in stores]
        trials = [_searching(store, queries) for store in stores]
        searched = interleave(trials, measurements.repeat, clock=measurements.clock)
    _keep(measurements, "search", size, searched)
    for store, answer in zip(stores[1:], found[1:], strict=True):
        measurements.figures[f"{store.name}_agrees_{size}"] = agreement(found[0], answer)

    measurements.announce(f"open {size}")
    lasting = [store for store in stores if store.lasting]
    for store in lasting:
        store.close()
    trials = [_opening(store) for store in lasting]
    opened = interleave(trials, measurements.repeat, clock=measurements.clock)
    _keep(measurements, "open", size, opened)


def clustered_points(size: int) -> tuple[list[Point], FloatArray]:
    """``size`` points with unit vectors around ``CLUSTERS`` directions, as embeddings of objects
    lie, and ``(QUERIES, DIMENSION)`` float32 unit vectors to look for. Always the same."""
    generator = np.random.default_rng(0)
    centres = generator.standard_normal((CLUSTERS, DIMENSION), dtype=np.float32)
    of_cluster = generator.integers(0, CLUSTERS, size + QUERIES)
    noise = generator.standard_normal((size + QUERIES, DIMENSION), dtype=np.float32)
    vectors = centres[of_cluster] + 0.5 * noise
    vectors /= np.linalg.norm(vectors, axis=1, keepdims=True)
    points = [
        Point(
            id=str(uuid.UUID(int=index)),
            vector=vectors[index],
            payload={"label": f"label {of_cluster[index]}", "negative": False},
        )
        for index in range(size)
    ]
    return points, vectors[size:]


def agreement(expected: Sequence[Sequence[str]], found: Sequence[Sequence[str]]) -> float:
    """Share of the expected neighbours that were found: 1 for an exact search."""
    hits = sum(len({*a} & {*b}) for a, b in zip(expected, found, strict=True))
    return round(hits / max(1, sum(len(row) for row in expected)), 4)


def _filling(store: ComparedStore, points: Sequence[Point]) -> Trial:
    step = len(points) // PARTS
    parts = iter([points[start : start + step] for start in range(0, len(points), step)])
    return Trial(store.name, store.insert, prepare=lambda: next(parts))


def _searching(store: ComparedStore, queries: FloatArray) -> Trial:
    return Trial(store.name, lambda _: store.search(queries))


def _opening(store: ComparedStore) -> Trial:
    return Trial(store.name, lambda _: store.open(), finish=lambda _: store.close())


def _keep(measurements: Measurements, what: str, size: int, series: Sequence[Series]) -> None:
    """A stage of each, and the pairs of those that are there."""
    by_name = {each.name: each for each in series}
    for name, each in by_name.items():
        measurements.add_stage(f"{name}_{what}_{size}", each)
    for a, b in PAIRS:
        if a in by_name and b in by_name:
            measurements.add_pair(f"{a}_vs_{b}_{what}_{size}", by_name[a], by_name[b])


def _keep_memory(measurements: Measurements, size: int, series: Sequence[Series]) -> None:
    by_name = {each.name: each for each in series}
    for a, b in PAIRS:
        if a in by_name and b in by_name:
            name = f"{a}_vs_{b}_memory_{size}"
            measurements.add_pair(name, by_name[a], by_name[b], of="memory")
