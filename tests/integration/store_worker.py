"""What the worker processes of ``test_store_processes`` do: ``python store_worker.py ROLE FOLDER``.

Imports no pytest, so that a worker starts quickly.
"""

from __future__ import annotations

import hashlib
import json
import os
import random
import sys
import time
import uuid
from pathlib import Path

import numpy as np

from sam_detect.types import Point
from sam_detect.vector_store import QdrantVectorStore

PICTURE_BYTES = 30_000
BATCH = 8
IDS = 64  # few enough that the writer comes back to overwrite them
REPLACED_POINTS = 40


def whole_point(number: int, version: int) -> Point:
    """A point whose vector and payload follow from its number and version."""
    picture = random.Random(number * 1_000_003 + version).randbytes(PICTURE_BYTES // 2).hex()
    rng = np.random.default_rng([number, version])
    vector = rng.normal(size=32)
    payload = {
        "number": number,
        "version": version,
        "crop": picture,
        "digest": hashlib.sha256(picture.encode()).hexdigest(),
    }
    unit = (vector / np.linalg.norm(vector)).astype(np.float32)
    return Point(str(uuid.UUID(int=number)), unit, payload)


def assert_whole(point: Point) -> None:
    expected = whole_point(point.payload["number"], point.payload["version"])
    assert point.id == expected.id
    assert point.payload == expected.payload
    assert point.vector is not None
    np.testing.assert_allclose(point.vector, expected.vector, atol=1e-6)


def open_store(folder: Path, lock_timeout_s: float = 20.0) -> QdrantVectorStore:
    return QdrantVectorStore(path=folder, collection_name="lib", lock_timeout_s=lock_timeout_s)


def write_forever(folder: Path) -> None:
    """Upserts batch after batch; says which once it is durable."""
    store = open_store(folder)
    start = 1 + max((p.payload["version"] for p in store.scan(fields=["version"])), default=0)
    for version in range(start, start + 10**6):
        numbers = [(version * BATCH + n) % IDS for n in range(BATCH)]
        store.upsert([whole_point(number, version) for number in numbers])
        say({"version": version, "numbers": numbers})


def replace_forever(folder: Path) -> None:
    """Replaces everything by the next version, again and again."""
    store = open_store(folder)
    found = store.read_manifest()
    first = 0 if found is None else found["version"] + 1
    for version in range(first, first + 10**6):
        points = (whole_point(number, version) for number in range(REPLACED_POINTS))
        store.replace_all(points, {"version": version})
        say({"version": version})


def read_forever(folder: Path) -> None:
    """Checks that what is there is whole and never becomes less; says how much that was."""
    store = open_store(folder)
    before = 0
    while not (folder / "stop").exists():
        with store.session():
            points = list(store.scan(with_vectors=True))
            assert store.count() == len(points)
        for point in points[:: max(1, len(points) // 20)]:
            assert_whole(point)
        assert len(points) >= before
        before = len(points)
        say({"points": before})


def write_some(folder: Path) -> None:
    """Adds 12 batches of points of its own: the folder's name ends with the worker's number."""
    worker, store = int(os.environ["WORKER"]), open_store(folder)
    for batch in range(12):
        first = worker * 1000 + batch * 2
        store.upsert([whole_point(first, 1), whole_point(first + 1, 1)])
        say({"numbers": [first, first + 1]})


def hold(folder: Path) -> None:
    with open_store(folder).session():
        say({"held": True})
        time.sleep(60)


def say(what: dict[str, object]) -> None:
    print(json.dumps(what), flush=True)


if __name__ == "__main__":
    globals()[sys.argv[1]](Path(sys.argv[2]))
