"""The library and the command line above it, in several real processes, and in killed ones.

The store's own crash tests are in ``test_store_processes.py``.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import cv2
import pytest
from library_helpers import (
    COLOURS,
    contents,
    detector,
    disc_masks,
    discs,
    taught,
    vectors,
    write_annotated,
)

from sam_detect.cli.app import run as run_here
from sam_detect.library.library import Library
from sam_detect.library.transfer import copy_library
from sam_detect.vector_store import MemoryVectorStore, QdrantVectorStore
from sam_detect.vector_store.qdrant import libraries_dir

ROOT = Path(__file__).resolve().parents[2]
PICTURES = 16
OBJECTS = 5 * PICTURES
pytestmark = pytest.mark.skipif(os.name != "posix", reason="kills processes with SIGKILL")


def start(*arguments: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-m", "sam_detect", *arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> str:
    out, errors = process.communicate(timeout=120)
    assert process.returncode == code, errors
    assert "Traceback" not in errors
    return out if code == 0 else errors


def library(name: str = "nuts") -> Library:
    return Library(QdrantVectorStore(collection_name=name), name)


def stats(capsys: pytest.CaptureFixture[str], name: str = "nuts") -> dict[str, Any]:
    """What ``library stats --json`` prints."""
    capsys.readouterr()
    assert run_here(["library", "stats", "--library", name, "--json"]) == 0
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def kill(process: subprocess.Popen[str]) -> list[str]:
    """Whole lines that it printed before its sudden end."""
    process.send_signal(signal.SIGKILL)
    out, _ = process.communicate()
    return [line for line in out.splitlines(keepends=True) if line.endswith("\n")]


def learn(file: Path, folder: Path, name: str = "nuts") -> subprocess.Popen[str]:
    return start(
        "learn", str(folder), "--annotations", str(file), "--library", name, "--json",
        "--embedder", "average",
    )  # fmt: skip


# -- killed while learning ---------------------------------------------------------------------


def test_what_learn_acknowledged_survives_kill_9(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    rng = random.Random(11)
    file = write_annotated(tmp_path, PICTURES)
    acknowledged, rounds = 0, 5
    for number in range(rounds):
        worker = learn(file, tmp_path / "images")
        assert worker.stdout is not None
        if number < 2:  # while it starts, and makes the library
            time.sleep(rng.uniform(0.4, 1.2))
        else:  # somewhere in the next few pictures
            goal = acknowledged + 5 * rng.randint(0, 2)
            for line in worker.stdout:
                acknowledged = max(acknowledged, json.loads(line)["total"])
                if acknowledged >= goal:
                    break
            time.sleep(rng.uniform(0, 0.06))
        totals = [json.loads(line)["total"] for line in kill(worker)]
        assert totals == sorted(totals)
        acknowledged = max([acknowledged, *totals])
        if not library().store.read_manifest():
            assert acknowledged == 0
            continue
        found = stats(capsys)
        assert acknowledged <= found["examples"] <= acknowledged + 5, "at most one picture more"
        assert found["examples"] % 5 == 0, "a picture is learnt whole"
        acknowledged = found["examples"]
        if acknowledged:
            assert detector(library().store).detect(discs("nut", 999))[0].label == "nut"
    assert 0 < acknowledged < OBJECTS, "the kills must fall into the work"
    last = [json.loads(line) for line in finish(learn(file, tmp_path / "images")).splitlines()]
    assert len(last) == PICTURES, "a line for each batch"
    assert sum(line["added"] for line in last) == OBJECTS - acknowledged
    assert last[-1]["total"] == stats(capsys)["examples"] == OBJECTS
    finish(learn(file, tmp_path / "images", "undisturbed"))
    assert contents(library()) == contents(library("undisturbed"))
    mine, theirs = vectors(library()), vectors(library("undisturbed"))
    assert all((mine[key] == theirs[key]).all() for key in theirs)
    shards = list((libraries_dir() / "nuts").glob("shard-*"))
    assert len(shards) == 1, "nothing is left of the killed ones"


def test_the_same_pictures_elsewhere_and_in_another_process_add_nothing(tmp_path: Path) -> None:
    file = write_annotated(tmp_path, 2)
    here = taught(QdrantVectorStore(collection_name="nuts"))
    ids = {point.id for point in here.library.listing()}
    again = finish(learn(file, tmp_path / "images"))
    assert [json.loads(line) for line in again.splitlines()] == [{"added": 0, "total": 10}] * 2
    assert {point.id for point in library().listing()} == ids
    assert not any(str(tmp_path) in point.payload["source"] for point in library().listing())


# -- side by side ------------------------------------------------------------------------------


def test_two_detect_and_one_learns(tmp_path: Path) -> None:
    file = write_annotated(tmp_path, 12)
    taught(QdrantVectorStore(collection_name="nuts"))
    picture = tmp_path / "p.png"
    cv2.imwrite(str(picture), discs("leaf", 99))
    words = ("detect", *[str(picture)] * 1, "--library", "nuts", "--json")
    workers = [start(*words), learn(file, tmp_path / "images"), start(*words)]
    answers = [finish(worker) for worker in workers]
    assert [json.loads(line)["total"] for line in answers.pop(1).splitlines()][-1] == 60
    for answer in answers:
        found = json.loads(answer)["detections"]
        named = [row for row in found if row["label"] == "leaf"]
        assert len(named) >= 5
        assert all(row["neighbours"] for row in named)


def test_two_who_learn_at_once_lose_nothing(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A new library, made by both, from the same pictures and some of their own."""
    one, two = (write_annotated(tmp_path / name, 8) for name in "ab")
    for number in range(4):
        path = tmp_path / "b" / "images" / f"{number:03d}.png"
        cv2.imwrite(str(path), discs(("nut", "leaf")[number % 2], 500 + number))
    workers = [learn(one, one.parent / "images"), learn(two, two.parent / "images")]
    lines = [json.loads(line) for worker in workers for line in finish(worker).splitlines()]
    assert sum(line["added"] for line in lines) == 60
    assert max(line["total"] for line in lines) == stats(capsys)["examples"] == 60
    assert stats(capsys)["classes"] == {"leaf": 30, "nut": 30}


@pytest.mark.alone
def test_a_library_held_too_long_is_said_to_be_busy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = write_annotated(tmp_path, 1)
    taught(QdrantVectorStore(collection_name="nuts"))
    picture = str(tmp_path / "images" / "000.png")
    place = ("--library", "nuts", "--lock-timeout-s", "0.4")
    commands = [
        ("library", "stats", *place),
        ("library", "rename", "nut", "b", *place),
        ("learn", picture, "--annotations", str(file), *place),
        ("detect", picture, "--json", *place),
    ]
    with library().store.session():
        began = time.monotonic()
        said = [finish(start(*commands[0]), code=1)]
        capsys.readouterr()
        for command in commands[1:]:  # another store object takes part as another process does
            assert run_here(list(command)) == 1
            said.append(capsys.readouterr().err)
        for text in said:
            (line,) = [row for row in text.splitlines() if row.startswith("error: ")]
            assert str(libraries_dir() / "nuts") in line
            assert "in use by another process" in line
        assert time.monotonic() - began < 15
    assert library().stats()["classes"] == {"leaf": 5, "nut": 5}


# -- killed while everything is replaced -------------------------------------------------------


LEAST_ROUNDS, MOST_ROUNDS = 4, 14


def fill(name: str) -> Library:
    """A library of 150 examples."""
    made = detector(MemoryVectorStore())
    for number in range(30):
        label = list(COLOURS)[number % 3]
        made.add_examples_from_file(discs(label, number), disc_masks(), label)
    copy_library(made.library, library(name))
    return library(name)


class Killer:
    """Kills commands that replace a library, ever closer to the moment when they are done."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        self.delay_s = 0.05
        self.done: list[bool] = []

    def kill(self, name: str, *command: str) -> None:
        """Kills it some time after it began to write the new points."""
        before = set((libraries_dir() / name).glob("shard-*"))
        worker = start("library", *command, "--library", name)
        while worker.poll() is None:
            if set((libraries_dir() / name).glob("shard-*")) != before:
                time.sleep(self.delay_s * self.rng.uniform(0.7, 1.3))
                break
            time.sleep(0.002)
        kill(worker)

    def goes_on(self) -> bool:
        """Until kills fell before and after the switch, and often enough."""
        both = {*self.done} == {False, True}
        return len(self.done) < (LEAST_ROUNDS if both else MOST_ROUNDS)

    def learn(self, done: bool) -> None:
        self.done.append(done)
        self.delay_s *= 0.5 if done else 2


def test_reindex_is_all_or_nothing_under_kill_9() -> None:
    killer = Killer(12)
    filled = fill("nuts")
    kept = contents(filled)
    wanted = "appearance"
    while killer.goes_on():
        killer.kill("nuts", "reindex", "--embedder", wanted)
        found = library()
        assert found.recipe is not None
        assert found.recipe.embedder in ("average", "appearance")
        killer.learn(found.recipe.embedder == wanted)
        if killer.done[-1]:
            wanted = {"appearance": "average", "average": "appearance"}[wanted]
        rows = vectors(found)
        assert {len(row) for row in rows.values()} == {found.recipe.dimension}
        assert rows.keys() == kept.keys()
        again = detector(QdrantVectorStore(collection_name="nuts"), embedder=None)
        assert [d.label for d in again.detect(discs("berry", 999))] == ["berry"] * 5
    assert contents(library()) == kept
    assert {*killer.done} == {False, True}, "the kills must fall before and after the switch"
    finish(start("library", "reindex", "--library", "nuts", "--embedder", "average"))
    mine = vectors(library())
    assert len(list((libraries_dir() / "nuts").glob("shard-*"))) == 1
    finish(start("library", "reindex", "--library", "nuts", "--embedder", "average"))
    assert all((vectors(library())[key] == row).all() for key, row in mine.items())
