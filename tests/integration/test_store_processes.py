"""Several real processes on one embedded library, and processes killed at random moments.

What they do is in ``store_worker.py``, and so is what a whole point is.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import IO

import pytest
from store_worker import BATCH, IDS, REPLACED_POINTS, assert_whole, open_store, whole_point

from sam_detect.errors import LibraryBusyError
from sam_detect.types import Point

ROOT = Path(__file__).resolve().parents[2]
WORKER = Path(__file__).with_name("store_worker.py")
pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes with SIGKILL")


# -- their parent ------------------------------------------------------------------------------


def start(role: str, folder: Path, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(WORKER), role, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **environment},
    )


def said(stream: IO[str]) -> Iterator[dict[str, object]]:
    """What the worker said; the line that it was killed in does not count."""
    for line in stream:
        if line.endswith("\n"):
            yield json.loads(line)


def kill_after(worker: subprocess.Popen[str], seconds: float) -> list[dict[str, object]]:
    """Everything that the worker acknowledged up to its sudden end."""
    assert worker.stdout is not None
    first = worker.stdout.readline()
    assert first, worker.communicate()[1]
    time.sleep(seconds)
    worker.send_signal(signal.SIGKILL)
    rest = list(said(worker.stdout))
    _, errors = worker.communicate()
    assert worker.returncode == -signal.SIGKILL, errors
    assert not errors
    return [json.loads(first), *rest]


def test_what_was_acknowledged_survives_kill_9(tmp_path: Path) -> None:
    rng = random.Random(5)
    acknowledged: dict[int, int] = {}
    rounds = 0
    while rounds < 6 or (_too_little(acknowledged) and rounds < 40):
        rounds += 1
        for line in kill_after(start("write_forever", tmp_path), rng.uniform(0, 0.25)):
            acknowledged.update(dict.fromkeys(line["numbers"], line["version"]))  # type: ignore[call-overload]
        found = {point.payload["number"]: point for point in check_all(tmp_path)}
        for number, version in acknowledged.items():
            # One batch more may have been written than was acknowledged.
            assert found[number].payload["version"] >= version
        assert len(found) - len(acknowledged) <= BATCH
        acknowledged = {n: p.payload["version"] for n, p in found.items()}
    assert not _too_little(acknowledged)


def _too_little(acknowledged: dict[int, int]) -> bool:
    """Whether not every point was written, and on average twice: a busy machine takes longer."""
    return len(acknowledged) < IDS or max(acknowledged.values()) <= 2 * IDS / BATCH


def check_all(folder: Path) -> list[Point]:
    points = list(open_store(folder).scan(with_vectors=True))
    for point in points:
        assert_whole(point)
    return points


def test_replace_all_is_all_or_nothing_under_kill_9(tmp_path: Path) -> None:
    rng = random.Random(6)
    done = -1
    for _ in range(6):
        for line in kill_after(start("replace_forever", tmp_path), rng.uniform(0, 0.2)):
            assert isinstance(line["version"], int)
            assert line["version"] > done
            done = line["version"]
        store = open_store(tmp_path)
        with store.session():
            manifest = store.read_manifest()
            points = list(store.scan(with_vectors=True))
        assert manifest is not None
        assert done <= manifest["version"] <= done + 1
        assert [p.payload["number"] for p in points] == list(range(REPLACED_POINTS))
        assert {p.payload["version"] for p in points} == {manifest["version"]}
        done = manifest["version"]
    store.upsert([whole_point(0, 0)])
    shards = [path.name for path in (tmp_path / "lib").glob("shard-*")]
    assert len(shards) == 1, "the next writer removes what a killed one left"


def test_readers_and_a_writer_side_by_side(tmp_path: Path) -> None:
    readers = [start("read_forever", tmp_path) for _ in range(2)]
    writer = start("write_some", tmp_path, WORKER="1")
    out, errors = writer.communicate(timeout=60)
    assert (writer.returncode, errors) == (0, "")
    (tmp_path / "stop").touch()
    for reader in readers:
        seen, errors = reader.communicate(timeout=60)
        assert (reader.returncode, errors) == (0, "")
        assert len(seen.splitlines()) > 1
    written = {n for line in out.splitlines() for n in json.loads(line)["numbers"]}
    assert {point.payload["number"] for point in check_all(tmp_path)} == written


def test_writers_that_make_a_library_together_lose_nothing(tmp_path: Path) -> None:
    writers = [start("write_some", tmp_path / "new", WORKER=str(n)) for n in range(4)]
    expected = {n * 1000 + i for n in range(4) for i in range(24)}
    for writer in writers:
        _, errors = writer.communicate(timeout=60)
        assert (writer.returncode, errors) == (0, "")
    assert {point.payload["number"] for point in check_all(tmp_path / "new")} == expected


@pytest.mark.alone
def test_a_held_library_is_said_to_be_busy_and_free_after_kill_9(tmp_path: Path) -> None:
    store = open_store(tmp_path, lock_timeout_s=0.3)
    store.upsert([whole_point(1, 1)])
    store.write_manifest({"a": 1})
    holder = start("hold", tmp_path)
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline()
        began = time.monotonic()
        with pytest.raises(LibraryBusyError) as caught:
            store.count()
        assert 0.25 < time.monotonic() - began < 3
        for part in (str(tmp_path / "lib"), "0.3 s", "SAM_DETECT_LOCK_TIMEOUT_S"):
            assert part in str(caught.value)
        with pytest.raises(LibraryBusyError):
            store.upsert([whole_point(2, 1)])
        assert store.read_manifest() == {"a": 1}, "the manifest needs no lock"
    finally:
        holder.kill()
        holder.communicate()
    assert store.count() == 1
