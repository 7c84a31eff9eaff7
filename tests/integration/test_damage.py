"""Bits that flip in a library's files, and processes killed while they undo or repair."""

from __future__ import annotations

import json
import random
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from library_helpers import PartsSegmenter, disc_masks, discs, snapshot_of, taught

from sam_detect.library.library import Library
from sam_detect.vector_store import QdrantVectorStore
from sam_detect.vector_store._files import copy_without_holes

FLIPS = 16
WORKER = Path(__file__).with_name("damage_worker.py")


def opened(folder: Path) -> Library:
    return Library(QdrantVectorStore(path=folder, collection_name="nuts"), "nuts")


def contents_of(library: Library) -> dict[str, Any]:
    return {p.id: [p.vector.tolist(), p.payload] for p in library.points()}  # type: ignore[union-attr]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Fourteen examples, after some were removed and some relabelled."""
    folder = tmp_path_factory.mktemp("sound")
    store = QdrantVectorStore(path=folder, collection_name="nuts")
    made = taught(store, "nut", "leaf", "berry", segmenter=PartsSegmenter())
    made.add_examples_from_file(discs(), disc_masks()[:2], "fig")
    made.add_examples_from_file(discs(), disc_masks()[:2], "leaf", negative=True)
    made.library.remove(ids=[point.id for point in made.library.store.scan()][:3])
    return folder


def copied(folder: Path, to: Path) -> None:
    shutil.copytree(folder, to, copy_function=copy_without_holes)


def work(task: str, folder: Path, **options: Any) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, str(WORKER), task, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        **options,
    )


def flip(folder: Path, rng: random.Random) -> str:
    """Changes one bit of a file, of one that is not zero if there is one."""
    files = sorted(f for f in folder.rglob("*") if f.is_file() and f.stat().st_size)
    file = rng.choice(files)
    data = file.read_bytes()
    where = np.flatnonzero(np.frombuffer(data, np.uint8))
    at, bit = int(where[rng.randrange(len(where))]) if len(where) else 0, rng.randrange(8)
    with open(file, "r+b") as stream:
        stream.seek(at)
        stream.write(bytes([data[at] ^ 1 << bit]))
    return f"{file.relative_to(folder)} byte {at} bit {bit}"


@pytest.mark.parametrize("part", [0, 2])
def test_a_flipped_bit_is_harmless_or_noticed(part: int, folder: Path, tmp_path: Path) -> None:
    """Never another vector, crop, label or number of examples; never a traceback, never a hang."""
    want = contents_of(opened(folder))
    rng, places = random.Random(part), {}
    for number in range(FLIPS // 2):
        copy = tmp_path / str(number)
        copied(folder, copy)
        places[number] = flip(copy, rng)
    process = work("read", tmp_path)
    out, err = process.communicate(timeout=300)
    assert "Traceback" not in err, err[-2000:]
    seen = [json.loads(line) for line in out.splitlines()]
    assert len(seen) == len(places), (places, err[-2000:])
    for each in seen:
        place = places[int(each["name"])]
        assert "error" in each or each["points"] == want, place
        assert "\n" not in each.get("error", ""), place
        if "error" in each:
            assert not each["sound"], place
        # Whatever is there after a repair was there before.
        assert all(want.get(key) == point for key, point in each["repaired"].items()), place
        assert "error" in each or each["repaired"] == want, place


def test_repairs_of_unreadable_settings_and_logs_save_all(folder: Path, tmp_path: Path) -> None:
    want = contents_of(opened(folder))
    for name in ("segment.json", "version.info", "edge_config.json", "first-index", "open-1"):
        copy = tmp_path / name
        copied(folder, copy)
        [file, *_] = copy.rglob(name)
        data = bytearray(file.read_bytes())
        data[2 : 2 + 40] = b"\xff" * len(data[2 : 2 + 40])
        file.write_bytes(data)
    process = work("repair", tmp_path)
    out, err = process.communicate(timeout=120)
    assert process.returncode == 0, err
    assert [json.loads(line)["exact"] for line in out.splitlines()] == [True] * 5
    for copy in tmp_path.iterdir():
        assert contents_of(opened(copy)) == want, copy.name


@pytest.mark.parametrize("task", ["undo", "repair"])
def test_killed_while_it_changes_the_library(task: str, folder: Path, tmp_path: Path) -> None:
    """Afterwards the library is sound, and doing it again completes it."""
    want = contents_of(opened(folder))
    whole = tmp_path / "whole"
    copied(folder, whole)
    opened(whole).undo()
    after = {"undo": contents_of(opened(whole)), "repair": want}[task]
    rng = random.Random(5)
    for number in range(3):
        copy = tmp_path / str(number)
        copied(folder, copy)
        process = work(f"{task}-when-told", copy, stdin=subprocess.PIPE)
        assert process.stdout is not None
        assert process.stdin is not None
        assert process.stdout.readline() == "ready\n"
        process.stdin.write("go\n")
        process.stdin.flush()
        time.sleep(rng.uniform(0, 0.15))
        process.kill()
        process.communicate()
        library = opened(copy)
        now = contents_of(library)
        assert len(snapshot_of(library).examples().ids) == len(now)
        if task == "undo" and now != after:
            library.undo()
        assert contents_of(opened(copy)) == after
